"""The handshake: recorded requests and answers, version gates."""

from __future__ import annotations

import json
from typing import Any

import pytest

from devboxd.ssm import handshake
from devboxd.ssm.payload import CLIENT_VERSION, PayloadError
from tests.ssm.support import vectors

TEXTS: dict[str, str] = {vector["name"]: vector["json"] for vector in vectors("json_payloads")["vectors"]}
SHELL_KMS = TEXTS["HandshakeRequest shell+kms"].encode()
PORT = TEXTS["HandshakeRequest port"].encode()


def request(*actions: dict[str, Any]) -> bytes:
    return json.dumps({"AgentVersion": "3.3.987.0", "RequestedClientActions": list(actions)}).encode()


def test_a_request_is_read() -> None:
    found = handshake.read_request(PORT)
    assert found.agent_version == "3.3.987.0"
    assert found.session_type == "Port"
    assert found.properties == {"localPortNumber": "0", "portNumber": "8080", "type": "LocalPortForwarding"}
    assert found.key_id is None
    sealed = handshake.read_request(SHELL_KMS)
    assert (sealed.session_type, sealed.properties) == ("Standard_Stream", None)
    assert (sealed.key_id, sealed.challenge) == ("alias/x", "AAECAwQFBgcICQoLDA0ODw==")


def test_item_14_our_answers_are_those_of_the_real_client() -> None:
    port = handshake.write_response(handshake.read_request(PORT))
    assert port.decode() == TEXTS["HandshakeResponse port"]
    without_challenge = request(
        {"ActionType": "SessionType", "ActionParameters": {"SessionType": "Standard_Stream"}},
        {"ActionType": "KMSEncryption", "ActionParameters": {"KMSKeyId": "alias/x"}},
    )
    found = handshake.read_request(without_challenge)
    sealed = handshake.write_response(found, encrypted_key=b"ciphertext-blob")
    assert sealed.decode() == TEXTS["HandshakeResponse kms"]
    failed = json.loads(handshake.write_response(found, key_problem="denied"))
    theirs = json.loads(TEXTS["HandshakeResponse kms failed"])
    assert failed["ProcessedClientActions"] == theirs["ProcessedClientActions"]


def test_item_20_a_challenge_is_acknowledged_where_there_is_one() -> None:
    found = handshake.read_request(SHELL_KMS)
    answer = json.loads(handshake.write_response(found, encrypted_key=b"ciphertext-blob"))
    assert answer["ProcessedClientActions"][1]["ActionResult"] == {
        "KMSCipherTextKey": "Y2lwaGVydGV4dC1ibG9i",
        "KMSCipherTextHash": None,
        "ChallengeAcknowledgement": True,
    }


def test_item_15_an_unknown_action_is_answered_with_status_3() -> None:
    """The official client answers 0 with 3 as the result, by mistake; the far end fails either way."""
    found = handshake.read_request(request({"ActionType": "Foo", "ActionParameters": None}))
    answer = json.loads(handshake.write_response(found))
    assert answer["ClientVersion"] == CLIENT_VERSION
    [action] = answer["ProcessedClientActions"]
    assert (action["ActionStatus"], action["ActionResult"]) == (3, None)
    assert answer["Errors"] == [action["Error"]] == ["Unsupported action Foo"]


def test_item_14_every_action_is_answered_once() -> None:
    twice = {"ActionType": "SessionType", "ActionParameters": {"SessionType": "Port"}}
    found = handshake.read_request(request(twice, {"ActionType": "X"}, twice))
    answer = json.loads(handshake.write_response(found))
    assert [action["ActionType"] for action in answer["ProcessedClientActions"]] == ["SessionType", "X"]


@pytest.mark.parametrize("parameters", [None, {}, {"SessionType": "Quantum"}, {"SessionType": 7}])
def test_an_unknown_session_type_is_answered_as_failed(parameters: dict[str, Any] | None) -> None:
    found = handshake.read_request(request({"ActionType": "SessionType", "ActionParameters": parameters}))
    answer = json.loads(handshake.write_response(found))
    assert answer["ProcessedClientActions"][0]["ActionStatus"] == 2


def test_encryption_without_a_key_is_answered_as_failed() -> None:
    found = handshake.read_request(
        request({"ActionType": "KMSEncryption", "ActionParameters": {"KMSKeyId": ""}})
    )
    answer = json.loads(handshake.write_response(found))
    assert answer["ProcessedClientActions"][0]["ActionStatus"] == 2


@pytest.mark.parametrize("text", ['{"AgentVersion":null,"RequestedClientActions":null}', "{}"])
def test_a_request_for_nothing_is_answered_with_the_version_alone(text: str) -> None:
    answer = handshake.write_response(handshake.read_request(text.encode()))
    assert json.loads(answer) == {
        "ClientVersion": CLIENT_VERSION,
        "ProcessedClientActions": [],
        "Errors": None,
    }


def test_a_request_with_very_many_actions_is_refused() -> None:
    with pytest.raises(PayloadError):
        handshake.read_request(request(*({"ActionType": str(number)} for number in range(1000))))


def test_a_long_name_is_not_repeated_in_full() -> None:
    found = handshake.read_request(request({"ActionType": "x" * 100_000}))
    assert len(handshake.write_response(found)) < 1000


@pytest.mark.parametrize(
    "vector",
    vectors("client_version_gates")["vectors"],
    ids=lambda vector: f"{vector['client_version']}-{vector['gate']}",
)
def test_versions_compare_as_at_the_far_end(vector: dict[str, Any]) -> None:
    assert handshake.compare_versions(vector["client_version"], vector["gate"]) == vector["compare"]


def test_our_version_is_above_every_gate() -> None:
    """Below them the far end falls back to one connection, or ends a silent tunnel after 30 s."""
    for gate in ("1.1.70", "1.2.331.0", "1.2.295"):
        assert handshake.compare_versions(CLIENT_VERSION, gate) > 0
