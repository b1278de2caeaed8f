"""Clients for control: a terminal that a test can type into and read, and keys that are none."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from devboxd.errors import StateNotSaved
from devboxd.model.terminal import ClientMessage, Input, Leaving, StatusLine, Taken

T = TypeVar("T")


class NoKeys:
    """Keys of this machine, without a machine."""

    def __init__(self) -> None:
        self.pinned: dict[tuple[str, int], list[str]] = {}
        self.users: dict[str, str] = {}

    async def public_key(self) -> str:
        return "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFakeKeyForTestsOnly00000000000000000000000 devbox"

    async def pin(self, boxes: list[str], port: int, keys: list[str]) -> None:
        self.pinned.update({(box, port): keys for box in boxes})

    def pinned_for(self, box: str, port: int) -> list[str]:
        return self.pinned.get((box, port), [])

    async def note_user(self, name: str, user: str) -> None:
        self.users[name] = user


class Nowhere:
    """A journal that takes everything, and keeps what it was given last."""

    def __init__(self) -> None:
        self.saved: list[Mapping[str, Any]] = []
        self.failure: StateNotSaved | None = None
        self.problem: str | None = None

    def read(self) -> Mapping[str, Any]:
        return self.saved[-1] if self.saved else {}

    async def save(self, values: Mapping[str, Any]) -> None:
        if self.failure is not None:
            raise self.failure
        self.saved.append(values)


class Screen:
    """A terminal whose user is a test."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.err = bytearray()
        self.lines: list[StatusLine] = []
        self.credited = 0
        self.stuck = 0  # pretend that many bytes wait for a reader that does not read
        self.kept_back = 0  # how often it was asked about, while it was so
        self._inbox: asyncio.Queue[ClientMessage | None] = asyncio.Queue()
        self._changed = asyncio.Event()

    def type(self, data: bytes) -> None:
        """Type."""
        self._inbox.put_nowait(Input(data))

    def say(self, message: ClientMessage | None) -> None:
        """Send any message; None hangs up."""
        self._inbox.put_nowait(message)

    async def until(self, pattern: bytes, timeout: float = 20.0) -> re.Match[bytes]:
        """Wait until the output matches."""
        found = await self._until(lambda: re.search(pattern, bytes(self.out), re.DOTALL), timeout, pattern)
        assert found is not None
        return found

    async def until_state(self, state: str, timeout: float = 20.0) -> None:
        """Wait for a status line of this state."""
        await self._until(lambda: any(line.state == state for line in self.lines) or None, timeout, state)

    async def _until(self, look: Callable[[], T | None], timeout: float, what: object) -> T | None:
        try:
            async with asyncio.timeout(timeout):
                while (found := look()) is None:
                    self._changed.clear()
                    await self._changed.wait()
                return found
        except TimeoutError:
            raise AssertionError(
                f"no {what!r} in {bytes(self.out[-2000:])!r}, status {self.lines[-5:]}"
            ) from None

    # A Terminal
    @property
    def backlog(self) -> int:
        self.kept_back += self.stuck > 0
        return self.stuck

    async def receive(self) -> ClientMessage | None:
        return await self._inbox.get()

    def output(self, data: bytes, *, error: bool = False) -> None:
        (self.err if error else self.out).extend(data)
        self._inbox.put_nowait(Taken(len(data)))
        self._changed.set()

    def status(self, line: StatusLine) -> None:
        self.lines.append(line)
        self._changed.set()

    def credit(self, size: int) -> None:
        self.credited += size
        self._changed.set()

    def leave(self, leaving: Leaving) -> None:
        pass

    async def drained(self, below: int) -> None:
        while self.stuck >= below:
            await asyncio.sleep(0.01)
