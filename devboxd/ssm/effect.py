"""What a channel asks its owner to do. A channel itself does nothing."""

from __future__ import annotations

from typing import Any

import msgspec


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send these bytes as one binary websocket message."""

    data: bytes


class SendText(msgspec.Struct, frozen=True, gc=False):
    """Send this as one text websocket message. It holds the token: never log it."""

    text: str

    def __repr__(self) -> str:
        return "SendText(…)"


class Output(msgspec.Struct, frozen=True, gc=False):
    """Bytes from the far end, in order, decrypted, each exactly once."""

    data: bytes


class ErrorOutput(msgspec.Struct, frozen=True, gc=False):
    """Standard error of a non-interactive command."""

    data: bytes


class ExitCode(msgspec.Struct, frozen=True, gc=False):
    """Exit status of a non-interactive command; -1 for a signal. More output may still follow."""

    code: int


class FlagReceived(msgspec.Struct, frozen=True, gc=False):
    """A flag from the far end (see ``payload.Flag``)."""

    number: int


class NeedDataKey(msgspec.Struct, frozen=True, gc=False):
    """Ask KMS for a 64-byte data key, then call ``Channel.data_key`` or ``data_key_failed``."""

    key_id: str
    encryption_context: dict[str, str]


class Ready(msgspec.Struct, frozen=True):
    """The far end takes data from now on.

    ``session_type`` and ``properties`` are None and ``agent_version`` is empty where there was no
    handshake (a plain shell).
    """

    session_type: str | None
    properties: dict[str, Any] | None
    agent_version: str
    encrypted: bool


class Notice(msgspec.Struct, frozen=True, gc=False):
    """Text of the account's administrator for the user: show it on standard error."""

    text: str


class Writable(msgspec.Struct, frozen=True, gc=False):
    """There is room for more ``Channel.send`` after it had run out."""


class ProbeAnswered(msgspec.Struct, frozen=True, gc=False):
    """The far end acknowledged a probe after ``seconds``: it lives."""

    seconds: float


class Closed(msgspec.Struct, frozen=True, gc=False):
    """The session is over, by the service's word. Final. ``reason`` may be empty (a normal end)."""

    reason: str


class Broken(msgspec.Struct, frozen=True, gc=False):
    """The session can not go on (unrecoverable gap, failed handshake): end it and start another."""

    reason: str


Effect = (
    Send
    | SendText
    | Output
    | ErrorOutput
    | ExitCode
    | FlagReceived
    | NeedDataKey
    | Ready
    | Notice
    | Writable
    | ProbeAnswered
    | Closed
    | Broken
)
