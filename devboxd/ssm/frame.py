"""The binary message of the SSM data channel: header codec, types, flags, digest.

Layout and quirks: ``docs/protocol.md``. All integers are big-endian; the two halves of the message
id travel swapped; service-made messages may have a 112-byte header (no payload type) and NUL padding.
"""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import Final
from uuid import UUID

import msgspec

from devboxd.errors import DevboxError

INPUT: Final = "input_stream_data"
OUTPUT: Final = "output_stream_data"
ACKNOWLEDGE: Final = "acknowledge"
CHANNEL_CLOSED: Final = "channel_closed"
START_PUBLICATION: Final = "start_publication"
PAUSE_PUBLICATION: Final = "pause_publication"
AGENT_SESSION_STATE: Final = "agent_session_state"

SYN: Final = 1
FIN: Final = 2

_FULL: Final = struct.Struct(">I32sIQqQ16s32sII")  # 120 bytes: header, payload type, payload length
_SHORT: Final = struct.Struct(">I32sIQqQ16s32sI")  # 116 bytes: the service's form, without payload type
_FULL_HEADER_LENGTH: Final = 116  # offset of the payload length, as the header itself says it
_SHORT_HEADER_LENGTH: Final = 112
_FULL_PREFIX: Final = _FULL_HEADER_LENGTH.to_bytes(4, "big")
_SHORT_PREFIX: Final = _SHORT_HEADER_LENGTH.to_bytes(4, "big")
_FULL_SIZE: Final = _FULL.size
_SHORT_SIZE: Final = _SHORT.size

# Padding costs a call per frame; the handful of names we send are padded once.
_PADDED: Final = {
    name: name.encode("ascii").ljust(32)
    for name in (
        INPUT,
        OUTPUT,
        ACKNOWLEDGE,
        CHANNEL_CLOSED,
        START_PUBLICATION,
        PAUSE_PUBLICATION,
        AGENT_SESSION_STATE,
    )
}
_NAMES: Final = {padded: name for name, padded in _PADDED.items()}
# The official client validates these two neither; gateways may leave date and digest empty in them.
_UNCHECKED: Final = frozenset({START_PUBLICATION, PAUSE_PUBLICATION})
# An acknowledgement goes out for every frame that comes in: its first three fields never change.
_ACKNOWLEDGE: Final = struct.Struct(">40sQqQ16s32sII")
_ACKNOWLEDGE_START: Final = struct.pack(">I32sI", _FULL_HEADER_LENGTH, _PADDED[ACKNOWLEDGE], 1)


class FrameError(DevboxError):
    """A binary message that cannot be a frame; it is dropped and never acknowledged."""

    code = "bad-frame"


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One message of the data channel, as its sender meant it.

    ``payload_type`` is 0 where the message has none. ``created_ms`` is Unix time in milliseconds.
    """

    type: str
    sequence: int
    payload: bytes
    payload_type: int = 0
    flags: int = 0
    id: UUID = UUID(int=0)
    created_ms: int = 0

    def encode(self) -> bytes:
        """Serialize for the wire, with header length 116.

        Raises:
            FrameError: the payload is empty (neither real peer accepts or sends such a message).
        """
        return encode(
            self.type,
            self.sequence,
            self.payload,
            self.payload_type,
            self.flags,
            self.id.bytes,
            self.created_ms,
        )


def wire_id(id_: UUID) -> bytes:
    """Return a message id as it travels: its two halves swapped, against RFC 9562."""
    raw = id_.bytes
    return raw[8:] + raw[:8]


def encode(
    type_: str, sequence: int, payload: bytes, payload_type: int, flags: int, id_: bytes, created_ms: int
) -> bytes:
    """Serialize one message without building a ``Frame``: the hot path of sending.

    Args:
        id_: the message id as 16 bytes in RFC 9562 order; its halves are swapped here.

    Raises:
        FrameError: the payload is empty.
    """
    if not payload:
        raise FrameError("an empty payload must never be sent")
    name = _PADDED.get(type_) or type_.encode("ascii").ljust(32)
    return (
        _FULL.pack(
            _FULL_HEADER_LENGTH,
            name,
            1,
            created_ms,
            sequence,
            flags,
            id_[8:] + id_[:8],
            sha256(payload).digest(),
            payload_type,
            len(payload),
        )
        + payload
    )


def unpack(data: bytes) -> tuple[str, int, bytes, int, int, bytes, int]:
    """Parse one binary message without building a ``Frame``: the hot path of receiving.

    As lenient as both real peers and never more dangerous. The payload is everything after the header:
    the length field is written by senders but used by nobody. The digest is checked only where the
    length field is not 0, and not in the two publication messages. The created date is not judged (the
    service sends 0 in some messages).

    Returns:
        Type, sequence, payload, payload type, flags, message id in *wire* order, created_ms.

    Raises:
        FrameError: too short, a header length that cannot be, or a digest that does not match.
    """
    if data[:4] == _FULL_PREFIX:
        if len(data) < _FULL.size:
            raise FrameError(f"{len(data)} bytes cannot hold a {_FULL.size}-byte header")
        _, name, _, created, sequence, flags, wire_id, digest, payload_type, length = _FULL.unpack_from(data)
        payload = data[_FULL_SIZE:]
    elif data[:4] == _SHORT_PREFIX:
        if len(data) < _SHORT.size:
            raise FrameError(f"{len(data)} bytes cannot hold a {_SHORT.size}-byte header")
        _, name, _, created, sequence, flags, wire_id, digest, length = _SHORT.unpack_from(data)
        payload_type = 0
        payload = data[_SHORT_SIZE:]
    elif len(data) < 4:
        raise FrameError(f"{len(data)} bytes cannot hold a message header")
    else:
        found = int.from_bytes(data[:4], "big")
        raise FrameError(f"header length {found} is neither {_FULL_HEADER_LENGTH} nor {_SHORT_HEADER_LENGTH}")
    type_ = _NAMES.get(name)
    if type_ is None:
        type_ = name.strip(b"\0").strip().decode("ascii", "replace")
    if length and sha256(payload).digest() != digest and type_ not in _UNCHECKED:
        raise FrameError(f"message {sequence}: the payload does not match its digest")
    return type_, sequence, payload, payload_type, flags, wire_id, created


def decode(data: bytes) -> Frame:
    """Parse one binary message; see ``unpack``.

    Raises:
        FrameError: see ``unpack``.
    """
    type_, sequence, payload, payload_type, flags, wire_id, created = unpack(data)
    return Frame(
        type_, sequence, payload, payload_type, flags, UUID(bytes=wire_id[8:] + wire_id[:8]), created
    )


def encode_acknowledge(
    sequence: int, acknowledged: bytes, id_: bytes, created_ms: int, type_: str = OUTPUT
) -> bytes:
    """Serialize the acknowledgement of the stream message ``sequence``, in the words of the real peers.

    The header carries sequence 0 and both flags; the acknowledged sequence stands in the JSON only.

    Args:
        acknowledged: id of the acknowledged message in *wire* order, as ``unpack`` returns it.
        id_: id of this message in RFC 9562 order, as ``encode`` takes it.
    """
    text = acknowledged.hex()
    payload = (
        f'{{"AcknowledgedMessageType":"{type_}","AcknowledgedMessageId":"'
        f"{text[16:24]}-{text[24:28]}-{text[28:32]}-{text[:4]}-{text[4:16]}"
        f'","AcknowledgedMessageSequenceNumber":{sequence},"IsSequentialMessage":true}}'
    ).encode()
    return (
        _ACKNOWLEDGE.pack(
            _ACKNOWLEDGE_START,
            created_ms,
            0,
            SYN | FIN,
            id_[8:] + id_[:8],
            sha256(payload).digest(),
            0,
            len(payload),
        )
        + payload
    )
