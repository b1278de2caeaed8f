"""The far end of smux version 1: accepts streams, shares one receive budget, knows no half-close.

Behaves like xtaci/smux 1.5.15 with its default configuration, as the agent uses it.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import Final

_HEADER: Final = struct.Struct("<BBHI")
_VERSION: Final = 1
SYN, FIN, PSH, NOP, UPD = range(5)
_LONGEST: Final = 32768  # bytes of one frame that we send
_BUDGET: Final = 4 << 20  # bytes received and not yet read, over all streams
_OUT_LIMIT: Final = 256 << 10  # bytes on their way to the data channel (the agent's unix socket)


class SmuxDead(Exception):
    """The session is over: protocol error, silence, or closed."""


class Stream:
    """One accepted stream."""

    def __init__(self, session: SmuxServer, number: int) -> None:
        self.number = number
        self._session = session
        self._chunks: deque[bytes] = deque()
        self._readable = asyncio.Event()
        self._finished = False
        self.closed = False

    async def read(self) -> bytes:
        """The next chunk; empty once the peer has sent FIN, or after ``close``."""
        while not self._chunks:
            if self._finished or self.closed:
                return b""
            self._readable.clear()
            await self._readable.wait()
        chunk = self._chunks.popleft()
        self._session.returned(len(chunk))
        return chunk

    async def write(self, data: bytes) -> None:
        """Send bytes.

        Raises:
            SmuxDead: the stream or the session is closed.
        """
        for start in range(0, len(data), _LONGEST):
            if self.closed:
                raise SmuxDead("write on a closed stream")
            await self._session.send(PSH, self.number, data[start : start + _LONGEST])

    async def close(self) -> None:
        """Close both directions at once and tell the peer. What was not read yet is lost."""
        if self.closed:
            return
        self.closed = True
        self._session.forget(self)
        self._session.returned(sum(map(len, self._chunks)))
        self._chunks.clear()
        self._readable.set()
        if not self._session.dead:
            await self._session.send(FIN, self.number, b"")

    def pushed(self, data: bytes) -> None:
        """The session's side: bytes arrived."""
        self._chunks.append(data)
        self._readable.set()

    def finished(self) -> None:
        """The session's side: FIN arrived, or the session died."""
        self._finished = True
        self._readable.set()


class SmuxServer:
    """One smux session. ``feed`` takes the peer's bytes, ``output`` gives ours, ``accept`` gives streams."""

    def __init__(self) -> None:
        self.dead = False
        self.received_anything = False  # since it was last reset; the keep-alive looks at it
        self._streams: dict[int, Stream] = {}
        self._accepted: asyncio.Queue[Stream | None] = asyncio.Queue()
        self._buffer = bytearray()
        self._budget = _BUDGET
        self._has_budget = asyncio.Event()
        self._has_budget.set()
        self._out = bytearray()
        self._has_output = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    async def feed(self, data: bytes) -> None:
        """Process bytes from the peer; blocks while the receive budget is used up.

        Raises:
            OSError: the session is dead.
        """
        self._buffer += data
        self.received_anything = True
        while True:
            await self._has_budget.wait()
            if self.dead:
                raise BrokenPipeError("smux session is closed")
            if len(self._buffer) < _HEADER.size:
                return
            version, command, length, number = _HEADER.unpack_from(self._buffer)
            if version != _VERSION or command > UPD:
                self.die()
                return
            # UPD is version 2; a version 1 receiver only steps over its eight bytes.
            body = 8 if command == UPD else length if command == PSH else 0
            if len(self._buffer) < _HEADER.size + body:
                return
            content = bytes(self._buffer[_HEADER.size : _HEADER.size + body])
            del self._buffer[: _HEADER.size + body]
            self._handle(command, number, content)

    def _handle(self, command: int, number: int, content: bytes) -> None:
        stream = self._streams.get(number)
        if command == SYN and stream is None:
            self._streams[number] = Stream(self, number)
            self._accepted.put_nowait(self._streams[number])
        elif command == FIN and stream is not None:
            stream.finished()
        elif command == PSH and stream is not None and content:
            stream.pushed(content)
            self._budget -= len(content)
            if self._budget <= 0:
                self._has_budget.clear()

    async def accept(self) -> Stream:
        """The next stream the peer opened.

        Raises:
            SmuxDead: there will be none.
        """
        stream = await self._accepted.get()
        if stream is None:
            self._accepted.put_nowait(None)
            raise SmuxDead
        return stream

    async def send(self, command: int, number: int, content: bytes) -> None:
        """Queue one frame; blocks while too much is waiting.

        Raises:
            SmuxDead: the session is dead.
        """
        await self._has_room.wait()
        if self.dead:
            raise SmuxDead
        self._out += _HEADER.pack(_VERSION, command, len(content), number) + content
        self._has_output.set()
        if len(self._out) >= _OUT_LIMIT:
            self._has_room.clear()

    async def output(self, size: int) -> bytes:
        """Up to ``size`` bytes for the peer.

        Raises:
            SmuxDead: there will be no more.
        """
        while not self._out:
            if self.dead:
                raise SmuxDead
            self._has_output.clear()
            await self._has_output.wait()
        data = bytes(self._out[:size])
        del self._out[:size]
        if len(self._out) < _OUT_LIMIT:
            self._has_room.set()
        return data

    def returned(self, size: int) -> None:
        """A stream's bytes were read (or dropped): room for more."""
        self._budget += size
        if self._budget > 0:
            self._has_budget.set()

    def forget(self, stream: Stream) -> None:
        """The stream is closed here; frames for it are ignored from now on."""
        self._streams.pop(stream.number, None)

    def die(self) -> None:
        """End the session: every reader and writer hears of it."""
        if self.dead:
            return
        self.dead = True
        for stream in list(self._streams.values()):
            stream.finished()
        self._accepted.put_nowait(None)
        for event in (self._has_output, self._has_room, self._has_budget):
            event.set()
