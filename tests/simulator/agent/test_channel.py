"""The far end's data channel: acknowledging, resending, its reader's deaths, handshakes, encryption."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any, Final

import aiohttp
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from devboxd.simulator.agent.channel import compare_versions
from devboxd.simulator.world import Simulator
from devboxd.ssm import frame
from devboxd.ssm.payload import PayloadType
from tests.kit.sim import MakeSimulator
from tests.simulator.client import Client, connected, encode, smux

SYN, FIN, PSH = range(3)
PORT: Final[dict[str, Any]] = {"document": "AWS-StartPortForwardingSession", "portNumber": "7"}


async def ready(client: Client) -> None:
    await client.until(lambda c: "HANDSHAKE_COMPLETE 1" in c.log)


async def test_any_order_and_repeats_are_acknowledged_and_delivered_once(simulator: MakeSimulator) -> None:
    """As observed: 3, 2, 1, then 2 again, then 10: each acknowledged on arrival, the gap is held."""
    sim = await simulator()
    async with connected(sim, "api", **PORT) as client:
        await ready(client)
        client.log.clear()
        for number in (3, 2, 1, 2, 10):
            await client.socket.send_bytes(_no_op(number))
        await client.until(lambda c: len([line for line in c.log if line.startswith("ack")]) == 5)
        assert [line for line in client.log if line.startswith("ack")] == [
            "ack 3",
            "ack 2",
            "ack 1",
            "ack 2",
            "ack 10",
        ]


def _no_op(number: int) -> bytes:
    return encode(number, b"{}", PayloadType.PARAMETER)


async def test_only_the_oldest_frame_is_resent(simulator: MakeSimulator) -> None:
    """Ten lost frames a second is all it repairs: the reason for acknowledging again after a resume."""
    sim = await simulator(resend_tick=0.02)
    text = "sh -c 'head -c 20000 /dev/zero; sleep 5'"
    async with connected(
        sim,
        "api",
        "AWS-StartNonInteractiveCommand",
        acknowledges=False,
        command=text,
        separateOutputStream="true",
    ) as client:
        await client.until(lambda c: "OUTPUT 20" in c.log or "OUTPUT 19" in c.log)
        await client.until(lambda c: c.log.count("HANDSHAKE_REQUEST 0 again") >= 3)
        assert not [
            line for line in client.log if line.endswith("again") and not line.startswith("HANDSHAKE_REQUEST")
        ]


async def test_a_wrong_digest_is_accepted(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with connected(sim, "api", **PORT) as client:
        await ready(client)
        data = bytearray(_no_op(1))
        data[80:112] = bytes(32)
        await client.socket.send_bytes(bytes(data))
        await client.until(lambda c: 1 in c.acknowledged)


@pytest.mark.parametrize("length", [100_000, 0xFFFFFFFF])
async def test_a_bad_header_length_kills_the_reader_for_good(simulator: MakeSimulator, length: int) -> None:
    sim = await simulator()
    async with connected(sim, "api", **PORT) as client:
        await ready(client)
        await client.socket.send_bytes(length.to_bytes(4, "big") + _no_op(1)[4:])
        await client.socket.send_bytes(_no_op(1))
        await asyncio.sleep(0.05)
        assert 1 not in client.acknowledged
        assert not client.lost


async def test_a_second_handshake_response_blocks_the_reader(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with connected(sim, "api", **PORT) as client:
        await ready(client)
        second = json.dumps(client.agree({"RequestedClientActions": []})).encode()
        await client.send(PayloadType.HANDSHAKE_RESPONSE, second)
        await client.send(PayloadType.PARAMETER, b"{}")
        await asyncio.sleep(0.05)
        assert client.acknowledged == {0}


async def test_input_before_the_handshake_is_acknowledged_and_dropped(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with connected(sim, "api", answers=False, **PORT) as client:
        await client.until(lambda c: any(line.startswith("HANDSHAKE_REQUEST") for line in c.log))
        await client.type(smux(SYN, 3) + smux(PSH, 3, b"early"))
        response = {"ClientVersion": "1.2.707.0"}  # no actions at all is fine, too
        await client.send_until_taken(PayloadType.HANDSHAKE_RESPONSE, json.dumps(response).encode())
        await ready(client)
        await client.type(smux(SYN, 3) + smux(PSH, 3, b"late"))
        await client.until(lambda c: c.output == smux(PSH, 3, b"late"))


async def test_a_failed_action_ends_the_session_with_its_text(simulator: MakeSimulator) -> None:
    def refuse(request: dict[str, Any]) -> dict[str, Any]:
        action = {"ActionType": "SessionType", "ActionStatus": 2, "Error": "no such thing"}
        return {"ClientVersion": "1.2.707.0", "ProcessedClientActions": [action]}

    sim = await simulator()
    async with connected(sim, "api", handshake_result=refuse, **PORT) as client:
        assert "SessionType failed on client with status 2 error: no such thing" in await client.closed()


async def test_no_answer_to_the_handshake_is_a_timeout(simulator: MakeSimulator) -> None:
    sim = await simulator(handshake_timeout=0.05)
    async with connected(sim, "api", answers=False, **PORT) as client:
        assert "Handshake timed out" in await client.closed()


async def kms(sim: Simulator, **body: Any) -> dict[str, Any]:
    headers = {"X-Amz-Target": "TrentService.GenerateDataKey", "Content-Type": "application/x-amz-json-1.1"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(sim.url, data=json.dumps(body), headers=headers) as reply,
    ):
        answer: dict[str, Any] = json.loads(await reply.text())
        return answer


@pytest.mark.parametrize("with_challenge", [True, False])
async def test_an_encrypted_shell(simulator: MakeSimulator, with_challenge: bool) -> None:
    """Request, challenge, complete, then ciphertext: types 5, 8, 7, 1 as recorded; nonces count up."""
    sim = await simulator()
    sim.use_kms()
    async with connected(sim, "api", answers=False) as client:
        await client.until(lambda c: any(f.payload_type == PayloadType.HANDSHAKE_REQUEST for f in c.frames))
        request = json.loads(next(f.payload for f in client.frames if f.payload_type == 5))
        session_type, encryption = request["RequestedClientActions"]
        assert session_type["ActionParameters"] == {"SessionType": "Standard_Stream", "Properties": None}
        parameters = encryption["ActionParameters"]
        context = {"aws:ssm:SessionId": client.session, "aws:ssm:TargetId": sim.box("api").id}
        if with_challenge:
            context["aws:ssm:RandomChallenge"] = parameters["Challenge"]
        key = await kms(sim, KeyId=parameters["KMSKeyId"], NumberOfBytes=64, EncryptionContext=context)
        plaintext = base64.b64decode(key["Plaintext"])
        theirs, ours = AESGCM(plaintext[:32]), AESGCM(plaintext[32:])
        response = client.agree(request)
        response["ProcessedClientActions"][1]["ActionResult"] = {
            "KMSCipherTextKey": key["CiphertextBlob"],
            "KMSCipherTextHash": None,
            "ChallengeAcknowledgement": with_challenge,
        }
        await client.send(PayloadType.HANDSHAKE_RESPONSE, json.dumps(response).encode())
        await client.until(lambda c: "CHALLENGE_REQUEST 1" in c.log)
        sealed = json.loads(next(f.payload for f in client.frames if f.payload_type == 8))["Challenge"]
        raw = base64.b64decode(sealed)
        secret = theirs.decrypt(raw[:12], raw[12:], None)
        answer = b"n" * 12 + ours.encrypt(b"n" * 12, secret, None)
        challenge = json.dumps({"Challenge": base64.b64encode(answer).decode()}).encode()
        await client.send(PayloadType.CHALLENGE_RESPONSE, challenge)
        await client.until(lambda c: "HANDSHAKE_COMPLETE 2" in c.log)
        await client.resize(80, 24)
        typed = b"m" * 12 + ours.encrypt(b"m" * 12, b"echo sum-$((1+1)); exit\n", None)
        await client.type(typed)
        await client.closed()
        payloads = [f.payload for f in client.frames if f.payload_type == PayloadType.OUTPUT]
        nonces = [int.from_bytes(p[:12], "little") for p in dict.fromkeys(payloads)]
        assert nonces == list(range(nonces[0], nonces[0] + len(nonces)))
        assert b"sum-2" in b"".join(theirs.decrypt(p[:12], p[12:], None) for p in dict.fromkeys(payloads))


async def test_the_challenge_can_be_demanded(simulator: MakeSimulator) -> None:
    def without(request: dict[str, Any]) -> dict[str, Any]:
        actions = [
            {"ActionType": "SessionType", "ActionStatus": 1},
            {"ActionType": "KMSEncryption", "ActionStatus": 1, "ActionResult": {"KMSCipherTextKey": "AAAA"}},
        ]
        return {"ClientVersion": "1.2.707.0", "ProcessedClientActions": actions}

    sim = await simulator(require_challenge=True)
    sim.use_kms()
    async with connected(sim, "api", handshake_result=without) as client:
        assert "client does not support required encryption context random challenge" in await client.closed()


@pytest.mark.parametrize(
    ("version", "gate", "result"),
    [
        ("0.0.1", "1.1.70", -1),
        ("1.1.70", "1.1.70", 0),
        ("1.1.70.0", "1.1.70", 1),
        ("1.2.0.0", "1.2.331.0", -1),
        ("1.2.339.0", "1.2.331.0", 1),
        ("devbox-1.0", "1.1.70", 1),
        ("", "1.1.70", -1),
        ("1.3", "1.2.331.0", 1),
    ],
)
def test_versions_compare_like_the_agent_does(version: str, gate: str, result: int) -> None:
    assert compare_versions(version, gate) == result


async def test_the_publication_frames_are_the_gateways(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with connected(sim, "api") as client:
        await client.until(lambda c: frame.START_PUBLICATION in c.log)
        assert client.log[:2] == [frame.PAUSE_PUBLICATION, frame.START_PUBLICATION]
        assert json.loads(client.frames[0].payload) == {"SessionId": client.session, "SchemaVersion": 1}
