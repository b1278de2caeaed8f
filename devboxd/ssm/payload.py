"""The payloads of the data channel: their types, and the JSON texts inside.

Every decoder here accepts ``null`` and a missing key alike, ignores keys it does not know, and raises
only ``PayloadError``: what the far end sends is untrusted.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec

from devboxd.errors import DevboxError


class PayloadType(IntEnum):
    """What a stream message carries. The far end acknowledges types it does not know, too."""

    NONE = 0
    OUTPUT = 1
    ERROR = 2
    SIZE = 3
    PARAMETER = 4  # used by nobody: our end-to-end probe
    HANDSHAKE_REQUEST = 5
    HANDSHAKE_RESPONSE = 6
    HANDSHAKE_COMPLETE = 7
    CHALLENGE_REQUEST = 8
    CHALLENGE_RESPONSE = 9
    FLAG = 10
    STDERR = 11
    EXIT_CODE = 12


class Flag(IntEnum):
    """The number in a ``FLAG`` payload."""

    DISCONNECT_TO_PORT = 1  # we ->: close the target connection (basic mode)
    TERMINATE_SESSION = 2  # we ->: end a port session at once
    CONNECT_TO_PORT_ERROR = 3  # -> us: the target refused; the next FIN belongs to it


class PayloadError(DevboxError):
    """A payload that does not parse."""

    code = "bad-payload"


T = TypeVar("T", bound=msgspec.Struct)

CLIENT_VERSION: Final = "1.2.707.0"
"""What we say we are. The far end switches on features by it: below 1.1.70 there is no smux, and up to
1.2.331.0 it ends a silent port session after 30 s. Our own name belongs into the user agent instead."""


class Acknowledgement(msgspec.Struct, rename="pascal"):
    """Which stream message has been taken. Only the sequence number is ever matched."""

    acknowledged_message_type: str | None = None
    acknowledged_message_id: str | None = None
    acknowledged_message_sequence_number: int = -1
    is_sequential_message: bool | None = None


class ChannelClosed(msgspec.Struct, rename="pascal"):
    """The service's word that the session is over. ``output`` may carry the reason."""

    session_id: str | None = None
    output: str | None = None


class RequestedAction(msgspec.Struct, rename="pascal"):
    """One thing that the far end asks the client to do during the handshake."""

    action_type: str
    action_parameters: dict[str, Any] | None = None


class HandshakeRequest(msgspec.Struct, rename="pascal"):
    """The far end's first message where there is a handshake."""

    agent_version: str | None = None
    requested_client_actions: list[RequestedAction] | None = None


class HandshakeComplete(msgspec.Struct, rename="pascal"):
    """The end of the handshake; ``handshake_time_to_complete`` is in nanoseconds."""

    handshake_time_to_complete: int | float | None = None
    customer_message: str | None = None


class Challenge(msgspec.Struct, rename="pascal"):
    """A base64 text to decrypt and give back (payload types 8 and 9)."""

    challenge: str = ""


_acknowledgement: Final = msgspec.json.Decoder(Acknowledgement)


def acknowledged_sequence(data: bytes) -> int:
    """Read the sequence number out of an acknowledgement; the only part that either peer matches.

    Raises:
        PayloadError: not an acknowledgement.
    """
    try:
        return _acknowledgement.decode(data).acknowledged_message_sequence_number
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise PayloadError("not an acknowledgement") from None


def parse(data: bytes, type_: type[T]) -> T:
    """Parse a JSON payload into ``type_``.

    Raises:
        PayloadError: not JSON, or a field of the wrong type. The text itself is never quoted.
    """
    try:
        return msgspec.json.decode(data, type=type_, strict=False)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise PayloadError(f"not a {type_.__name__}: {error}") from None


def open_message(request_id: UUID, token: str, client_id: UUID, client_version: str) -> str:
    """The one text frame that opens a data channel. It holds the token: never log it."""
    return msgspec.json.encode(
        {
            "MessageSchemaVersion": "1.0",
            "RequestId": str(request_id),
            "TokenValue": token,
            "ClientId": str(client_id),
            "ClientVersion": client_version,
        }
    ).decode()


def size(columns: int, rows: int) -> bytes:
    """A terminal size. 0 is refused by assertion: the far end would apply it."""
    assert columns > 0
    assert rows > 0
    return f'{{"cols":{columns},"rows":{rows}}}'.encode()


def flag(number: Flag) -> bytes:
    """A flag payload: four bytes, big-endian."""
    return int(number).to_bytes(4, "big")


_EXIT_CODE: Final = b"EXIT_CODE: "


def exit_code(data: bytes) -> int:
    """Read ``EXIT_CODE: <n>``; -1 means that a signal ended the command.

    Raises:
        PayloadError: anything else.
    """
    text = data[len(_EXIT_CODE) :]
    digits = text.removeprefix(b"-")
    if not data.startswith(_EXIT_CODE) or not digits.isdigit() or len(digits) > 10:
        raise PayloadError("not an exit code")
    return int(text)
