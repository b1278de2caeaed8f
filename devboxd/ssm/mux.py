"""smux version 1: many byte streams inside the one of a port session. Sans-I/O.

Frame: ``version u8 = 1 | command u8 | length u16 little-endian | stream u32 little-endian | data``.
There is no flow control per stream in version 1: whoever uses this must bound what is on its way.
Source: ``docs/protocol.md``, "Multiplexed ports"; ``tests/ssm/vectors/smux.json``.
"""

from __future__ import annotations

import struct
from typing import ClassVar, Final

import msgspec

from devboxd.errors import DevboxError

HEADER: Final = struct.Struct("<BBHI")
VERSION: Final = 1
SYN: Final = 0
FIN: Final = 1
PSH: Final = 2
NOP: Final = 3
UPD: Final = 4

UPD_SIZE: Final = 8  # version 2's window update; a version 1 receiver swallows it
MAX_LENGTH: Final = 65535
MAX_STREAM: Final = 0xFFFFFFFF
FITTING: Final = 1024 - HEADER.size  # fills one data channel frame exactly


class MuxError(DevboxError):
    """The smux session is dead: what arrived is no smux, or its stream ids are used up."""

    code = "mux-broken"


class Opened(msgspec.Struct, frozen=True, gc=False):
    """The other side opened a stream (only a server sees this)."""

    stream: int


class Data(msgspec.Struct, frozen=True, gc=False):
    """Bytes of a stream, possibly a part of what was sent at once."""

    stream: int
    data: bytes


class Finished(msgspec.Struct, frozen=True, gc=False):
    """The other side closed the stream, in both directions."""

    stream: int


class Nop(msgspec.Struct, frozen=True, gc=False):
    """The other side's keepalive; it is never answered."""


Event = Opened | Data | Finished | Nop


class MuxSession:
    """What both sides share; the server is in the tests. Buffers at most seven bytes: data is handed out as it comes."""

    __slots__ = ("_dead", "_finished", "_header", "_left", "_limit", "_streams", "_target")
    accepts: ClassVar[bool] = False  # does the other side open streams? The agent never does
    hears_late: ClassVar[bool] = False  # is data taken after the other side's FIN?

    def __init__(self, *, limit: int = FITTING) -> None:
        """``limit``: most data bytes in one frame that we send."""
        if not 0 < limit <= MAX_LENGTH:
            raise ValueError(f"a smux frame holds 1 to {MAX_LENGTH} bytes, not {limit}")
        self._limit = limit
        self._streams: set[int] = set()  # those that we have not closed
        self._finished: set[int] = set()  # those of them that the other side has closed
        self._header = b""  # a partial header
        self._left = 0  # data bytes of the current frame still to come
        self._target = 0  # their stream; 0 where nobody wants them
        self._dead = False

    @property
    def streams(self) -> frozenset[int]:
        """Streams that take data."""
        return frozenset(self._streams)

    @property
    def limit(self) -> int:
        """Most data bytes in one frame that we send."""
        return self._limit

    @limit.setter
    def limit(self, value: int) -> None:
        self._limit = max(1, min(value, MAX_LENGTH))

    def data(self, stream: int, data: bytes) -> bytes:
        """Return frames that carry ``data``; nothing for no data or a stream that is closed."""
        if stream not in self._streams or not data:
            return b""
        limit = self._limit
        if len(data) <= limit:
            return HEADER.pack(VERSION, PSH, len(data), stream) + data
        parts = []
        for start in range(0, len(data), limit):
            part = data[start : start + limit]
            parts.append(HEADER.pack(VERSION, PSH, len(part), stream))
            parts.append(part)
        return b"".join(parts)

    def finish(self, stream: int) -> bytes:
        """Close a stream for good; the first call returns the frame that says so.

        The far end then drops what its target still answers: there is no half-close.
        """
        if stream not in self._streams:
            return b""
        self._streams.discard(stream)
        self._finished.discard(stream)
        return HEADER.pack(VERSION, FIN, 0, stream)

    def nop(self) -> bytes:
        """Return a keepalive."""
        return HEADER.pack(VERSION, NOP, 0, 0)

    def received(self, data: bytes) -> list[Event]:
        """Take bytes of the session, cut anywhere; return what happened.

        Raises:
            MuxError: another version or command. The session is dead and every later call raises, too;
                what arrived before the bad frame is lost with it.
        """
        if self._dead:
            raise MuxError("the smux session has failed before")
        events: list[Event] = []
        position, end = 0, len(data)
        while position < end:
            if self._left:
                part = data[position : position + self._left]
                position += len(part)
                self._left -= len(part)
                if self._target:
                    events.append(Data(self._target, part))
                continue
            if self._header or end - position < HEADER.size:
                wanted = HEADER.size - len(self._header)
                self._header += data[position : position + wanted]
                position += wanted
                if len(self._header) < HEADER.size:
                    break
                version, command, length, stream = HEADER.unpack(self._header)
                self._header = b""
            else:
                version, command, length, stream = HEADER.unpack_from(data, position)
                position += HEADER.size
            self._frame(version, command, length, stream, events)
        return events

    def _frame(self, version: int, command: int, length: int, stream: int, events: list[Event]) -> None:
        if version != VERSION or command > UPD:
            self._dead = True
            raise MuxError(f"smux version {version}, command {command}: the stream is broken")
        if command == PSH:
            self._left = length
            self._target = stream if self._takes(stream) else 0
        elif command == FIN:
            if stream in self._streams and stream not in self._finished:
                self._finished.add(stream)
                events.append(Finished(stream))
        elif command == NOP:
            events.append(Nop())
        elif command == SYN:
            if self.accepts and stream not in self._streams:
                self._streams.add(stream)
                events.append(Opened(stream))
        else:
            self._left = UPD_SIZE
            self._target = 0

    def _takes(self, stream: int) -> bool:
        return stream in self._streams and (self.hears_late or stream not in self._finished)


class Mux(MuxSession):
    """The client side: opens streams 3, 5, 7 … and accepts none."""

    __slots__ = ("_last",)

    def __init__(self, *, limit: int = FITTING) -> None:
        super().__init__(limit=limit)
        self._last = 1

    def open(self) -> tuple[int, bytes]:
        """Open a stream: its number, and the frame that says so. Data may follow at once.

        Raises:
            MuxError: the session is dead, or its 2**31 numbers are used up; none is used twice.
        """
        if self._dead or self._last + 2 > MAX_STREAM:
            raise MuxError("no more streams can be opened in this session")
        self._last += 2
        self._streams.add(self._last)
        return self._last, HEADER.pack(VERSION, SYN, 0, self._last)
