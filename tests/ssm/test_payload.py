"""The JSON texts and small binary forms inside frames."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devboxd.ssm import payload
from devboxd.ssm.handshake import read_request
from devboxd.ssm.payload import PayloadError
from tests.ssm.support import vectors

TEXTS: dict[str, str] = {vector["name"]: vector["json"] for vector in vectors("json_payloads")["vectors"]}


KEYS = [
    "AcknowledgedMessageSequenceNumber",
    "AgentVersion",
    "RequestedClientActions",
    "ActionType",
    "ActionParameters",
    "SessionType",
    "Properties",
    "Output",
    "Challenge",
    "CustomerMessage",
]


def read_all(text: bytes) -> list[Any]:
    """Feed a text to every decoder that a far end can reach; only typed errors may come out."""
    results: list[Any] = []
    for read in (
        payload.acknowledged_sequence,
        payload.exit_code,
        read_request,
        lambda data: payload.parse(data, payload.ChannelClosed),
        lambda data: payload.parse(data, payload.HandshakeComplete),
        lambda data: payload.parse(data, payload.Challenge),
        lambda data: payload.parse(data, payload.Acknowledgement),
    ):
        try:
            results.append(read(text))
        except PayloadError as error:
            results.append(error)
    return results


def test_item_09_the_open_message_is_the_one_of_the_real_client() -> None:
    text = payload.open_message(
        UUID("dd01e56b-ff48-483e-a508-b5f073f31b16"),
        "TOKEN",
        UUID("00112233-4455-4677-8899-aabbccddeeff"),
        payload.CLIENT_VERSION,
    )
    assert text == TEXTS["OpenDataChannelInput (client)"]


def test_a_size_is_written_as_by_the_real_client() -> None:
    assert payload.size(80, 24).decode() == TEXTS["SizeData"]


def test_item_34_a_size_of_zero_is_never_written() -> None:
    with pytest.raises(AssertionError):
        payload.size(0, 24)
    with pytest.raises(AssertionError):
        payload.size(80, 0)


@pytest.mark.parametrize("name", ["AcknowledgeContent", "AcknowledgeContent (agent)"])
def test_acknowledgements_are_read(name: str) -> None:
    assert payload.acknowledged_sequence(TEXTS[name].encode()) == 7


def test_the_end_of_a_channel_is_read() -> None:
    found = payload.parse(TEXTS["ChannelClosed (client view)"].encode(), payload.ChannelClosed)
    assert (found.session_id, found.output) == ("user-0123456789abcdef0", "text")


def test_handshake_texts_are_read() -> None:
    complete = payload.parse(TEXTS["HandshakeComplete"].encode(), payload.HandshakeComplete)
    assert complete.handshake_time_to_complete == 1_500_000_000
    assert complete.customer_message == "This session is encrypted using AWS KMS."
    for name in ("EncryptionChallengeRequest", "EncryptionChallengeResponse"):
        challenge = payload.parse(TEXTS[name].encode(), payload.Challenge)
        assert msgspec.json.encode(challenge).decode() == TEXTS[name]


@pytest.mark.parametrize("text", ["{}", '{"SessionId":null,"Output":null}', '{"Unknown":[1],"Output":null}'])
def test_null_missing_and_unknown_keys_are_alike(text: str) -> None:
    assert payload.parse(text.encode(), payload.ChannelClosed) == payload.ChannelClosed()


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_every_recorded_text_is_read_or_refused_by_every_decoder(name: str) -> None:
    assert len(read_all(TEXTS[name].encode())) == 7


@pytest.mark.parametrize(
    ("text", "code"), [(b"EXIT_CODE: 0", 0), (b"EXIT_CODE: 137", 137), (b"EXIT_CODE: -1", -1)]
)
def test_item_48_exit_codes_are_read(text: bytes, code: int) -> None:
    assert payload.exit_code(text) == code


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"EXIT_CODE:",
        b"EXIT_CODE: ",
        b"EXIT_CODE: x",
        b"EXIT_CODE: 1\n",
        b"EXIT_CODE: --1",
        b"EXIT_CODE: 1e3",
    ],
)
def test_item_48_anything_else_is_no_exit_code(text: bytes) -> None:
    with pytest.raises(PayloadError):
        payload.exit_code(text)


def test_errors_do_not_quote_what_may_be_secret() -> None:
    with pytest.raises(PayloadError) as caught:
        payload.parse(b'{"Output": ["hunter2"]}', payload.ChannelClosed)
    assert "hunter2" not in str(caught.value)


@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_typed_errors(data: bytes) -> None:
    read_all(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(KEYS),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_random_json_raises_nothing_but_typed_errors(value: Any) -> None:
    read_all(json.dumps(value).encode())


def test_deep_nesting_is_refused() -> None:
    read_all(b"[" * 100_000)
    read_all(b'{"Output":' * 50_000)
