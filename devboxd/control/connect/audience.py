"""Terminals without a person, for commands that devbox itself runs: fixed input, output that is taken at once.

And a person's after somebody else has listened to it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from devboxd.control.connect.terminal import Terminal
from devboxd.model.terminal import ClientMessage, EndOfInput, Input, Leaving, StatusLine, Taken


class Audience:
    """Gives prepared input, and takes whatever comes."""

    def __init__(self, stdin: bytes = b"") -> None:
        self._messages: deque[ClientMessage] = deque([Input(stdin)] if stdin else [])
        self._messages.append(EndOfInput())
        self._taken = 0  # bytes; one number, for a box may send a million single ones
        self._changed = asyncio.Event()

    @property
    def backlog(self) -> int:
        """Nothing is ever behind."""
        return 0

    async def receive(self) -> ClientMessage | None:
        """The prepared input, then word of what was taken."""
        while not self._messages:
            if self._taken:
                taken, self._taken = self._taken, 0
                return Taken(taken)
            self._changed.clear()
            await self._changed.wait()
        return self._messages.popleft()

    def output(self, data: bytes, *, error: bool = False) -> None:
        """Take it."""
        self._taken += len(data)
        self._changed.set()

    def status(self, line: StatusLine) -> None:
        """Nobody looks."""

    def credit(self, size: int) -> None:
        """Input is prepared."""

    def leave(self, leaving: Leaving) -> None:
        """The caller has the result."""

    async def drained(self, below: int) -> None:
        """Always."""


class Capture(Audience):
    """Collects a bounded amount of output."""

    LIMIT = 64 << 10  # bytes of each output; what we ask for is a few thousand

    def __init__(self, stdin: bytes = b"") -> None:
        super().__init__(stdin)
        self.stdout = bytearray()
        self.stderr = bytearray()

    def output(self, data: bytes, *, error: bool = False) -> None:
        """Keep it, up to the limit."""
        super().output(data)
        into = self.stderr if error else self.stdout
        into += data[: self.LIMIT - len(into)]


class Overheard:
    """A terminal of which some messages were taken that are another's: it says them once more."""

    def __init__(self, terminal: Terminal, messages: Sequence[ClientMessage]) -> None:
        self._terminal = terminal
        self._messages = deque(messages)
        self.output = terminal.output
        self.status = terminal.status
        self.credit = terminal.credit
        self.leave = terminal.leave
        self.drained = terminal.drained

    @property
    def backlog(self) -> int:
        return self._terminal.backlog

    async def receive(self) -> ClientMessage | None:
        """What was taken, then what comes."""
        return self._messages.popleft() if self._messages else await self._terminal.receive()
