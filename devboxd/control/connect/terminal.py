"""What a client at the other end of an attach or exec stream is to control, by shape."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from devboxd.model.loose import Loose
from devboxd.model.terminal import ClientMessage, Leaving, StatusLine


class Terminal(Protocol):
    """A client's end of a stream. Sending never blocks: ``backlog`` says how far behind the client is."""

    async def receive(self) -> ClientMessage | None:
        """The next message; None when the client is gone. Cancelled, it loses nothing."""

    def output(self, data: bytes, *, error: bool = False) -> None: ...
    def status(self, line: StatusLine) -> None: ...
    def credit(self, size: int) -> None: ...
    def leave(self, leaving: Leaving) -> None: ...

    @property
    def backlog(self) -> int:
        """Bytes that the client has not taken yet."""

    async def drained(self, below: int) -> None:
        """Wait until ``backlog`` is under ``below`` bytes, or the client is gone."""


@runtime_checkable
class Portable(Protocol):
    """A terminal whose client another process can go on with."""

    def let_go(self) -> Loose | None:
        """Stop reading and writing at once, in the middle of whatever; None where the client is gone."""
