"""The words between a client's stream and us: what it says, and what it is told. Plain values."""

from __future__ import annotations

import msgspec

from devboxd.errors import DevboxError


class Input(msgspec.Struct, frozen=True):
    """Bytes typed or piped."""

    data: bytes


class Resize(msgspec.Struct, frozen=True):
    """The terminal has this size now."""

    columns: int
    rows: int


class Detach(msgspec.Struct, frozen=True):
    """The user leaves."""


class EndOfInput(msgspec.Struct, frozen=True):
    """Standard input is at its end."""


class Signal(msgspec.Struct, frozen=True):
    """Send this signal to the remote command."""

    number: int


class Taken(msgspec.Struct, frozen=True):
    """The client wrote out that many output bytes."""

    size: int


ClientMessage = Input | Resize | Detach | EndOfInput | Signal | Taken


class StatusLine(msgspec.Struct, frozen=True):
    """How the session is doing. ``since`` is Unix seconds; ``retry_in`` seconds."""

    state: str
    text: str = ""
    since: float | None = None
    retry_in: float | None = None
    mux: str | None = None


class Leaving(msgspec.Struct, frozen=True):
    """The end of a stream, for the client."""

    status: int | None = None
    reason: str = ""
    error: DevboxError | None = None
    reattach: bool = False
