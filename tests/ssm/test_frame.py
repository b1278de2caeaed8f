"""The binary message: recorded bytes, odd forms and broken ones."""

from __future__ import annotations

import contextlib
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devboxd.ssm import frame
from tests.ssm.support import MESSAGE, vectors

MESSAGES: list[dict[str, Any]] = vectors("messages")["vectors"]
QUIRKS: list[dict[str, Any]] = vectors("framing_quirks")["vectors"]
BROKEN = {
    "q06-digest-mismatch": "digest",
    "q11-header-length-zero": "header length 0",
    "q12-header-length-past-end": "header length 4096",
    "q13-truncated-119": "119 bytes",
    "q14-truncated-50": "50 bytes",
}


def named(vector: dict[str, Any]) -> str:
    return str(vector.get("name") or vector.get("message_id"))


@pytest.mark.parametrize("vector", MESSAGES, ids=named)
def test_item_01_real_messages_decode_and_encode_to_the_same_bytes(vector: dict[str, Any]) -> None:
    wire = bytes.fromhex(vector["wire_hex"])
    message = frame.decode(wire)
    assert message == frame.Frame(
        type=vector["message_type"],
        sequence=vector["sequence_number"],
        payload=bytes.fromhex(vector["payload_hex"]),
        payload_type=vector["payload_type"],
        flags=vector["flags"],
        id=UUID(vector["message_id"]),
        created_ms=vector["created_date_ms"],
    )
    assert message.encode() == wire


@pytest.mark.parametrize("vector", vectors("uuid")["vectors"], ids=named)
def test_item_02_message_ids_travel_with_their_halves_swapped(vector: dict[str, Any]) -> None:
    id_ = UUID(vector["message_id"])
    assert frame.wire_id(id_).hex() == vector["wire_bytes_hex"]
    wire = frame.Frame(frame.INPUT, 0, b"x", id=id_).encode()
    assert wire[64:80].hex() == vector["wire_bytes_hex"]
    assert frame.decode(wire).id == id_


@pytest.mark.parametrize("vector", [q for q in QUIRKS if q["name"] not in BROKEN], ids=named)
def test_items_03_04_odd_messages_are_read_as_they_were_meant(vector: dict[str, Any]) -> None:
    """The service's short header, NUL padding, lengths that lie, negative numbers, no payload."""
    message = frame.decode(bytes.fromhex(vector["wire_hex"]))
    assert message.type == vector["message_type"]
    assert message.payload == bytes.fromhex(vector["payload_hex"])
    assert message.payload_type == vector["payload_type"]
    assert message.sequence == vector["sequence_number"]
    assert message.id == UUID(vector["message_id"])


@pytest.mark.parametrize("vector", [q for q in QUIRKS if q["name"] in BROKEN], ids=named)
def test_items_05_06_broken_messages_raise_a_typed_error(vector: dict[str, Any]) -> None:
    """Three of these end the reader of one of the real programs for good."""
    with pytest.raises(frame.FrameError, match=BROKEN[vector["name"]]):
        frame.decode(bytes.fromhex(vector["wire_hex"]))


def test_every_quirk_is_expected_to_work_or_to_fail() -> None:
    assert BROKEN.keys() < {vector["name"] for vector in QUIRKS}


@pytest.mark.parametrize("wire", [bytes.fromhex(v["wire_hex"]) for v in (MESSAGES[0], QUIRKS[0])])
def test_item_06_every_truncation_is_an_error(wire: bytes) -> None:
    for length in range(len(wire)):
        with pytest.raises(frame.FrameError):
            frame.decode(wire[:length])


def test_item_08_an_empty_payload_is_never_encoded() -> None:
    with pytest.raises(frame.FrameError):
        frame.Frame(frame.INPUT, 0, b"").encode()


@pytest.mark.parametrize("vector", vectors("acks")["vectors"], ids=named)
def test_item_22_acknowledgements_are_those_of_the_real_peers_byte_for_byte(vector: dict[str, Any]) -> None:
    wire = bytes.fromhex(vector["wire_hex"])
    message = frame.decode(wire)
    text = vector["payload_text"]
    ours = frame.encode_acknowledge(
        int(text.split('Number":')[1].split(",")[0]),
        frame.wire_id(MESSAGE),
        message.id.bytes,
        message.created_ms,
        text.split('"')[3],
    )
    assert ours == wire
    assert (message.flags, message.sequence, message.payload_type) == (3, 0, 0)


@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_but_a_frame_error(data: bytes) -> None:
    with contextlib.suppress(frame.FrameError):
        frame.decode(data)


@given(
    vector=st.sampled_from(MESSAGES + QUIRKS),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
)
def test_mutated_messages_raise_nothing_but_a_frame_error(
    vector: dict[str, Any], changes: list[tuple[int, int]]
) -> None:
    wire = bytearray.fromhex(vector["wire_hex"])
    for position, value in changes:
        wire[position % len(wire)] = value
    try:
        message = frame.decode(bytes(wire))
    except frame.FrameError:
        return
    assert len(message.payload) <= len(wire)


@given(
    sequence=st.integers(-(2**63), 2**63 - 1),
    payload=st.binary(min_size=1, max_size=2000),
    payload_type=st.integers(0, 2**32 - 1),
    flags=st.integers(0, 2**64 - 1),
    id_=st.uuids(),
    created=st.integers(0, 2**64 - 1),
)
def test_a_frame_comes_back_as_it_was(
    sequence: int, payload: bytes, payload_type: int, flags: int, id_: UUID, created: int
) -> None:
    message = frame.Frame(frame.OUTPUT, sequence, payload, payload_type, flags, id_, created)
    assert frame.decode(message.encode()) == message
