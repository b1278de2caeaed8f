"""The daemon's end of a framed stream: a ``control.terminal.Terminal`` over a unix socket."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from typing import Final

import msgspec

from devboxd.api import wire
from devboxd.api.views import failure
from devboxd.model.loose import Loose
from devboxd.model.terminal import (
    ClientMessage,
    Detach,
    EndOfInput,
    Input,
    Leaving,
    Resize,
    Signal,
    StatusLine,
    Taken,
)
from devboxd.net.loose import Tail, let_go, take_up
from devboxd.text import rfc3339

log = logging.getLogger(__name__)

HIGH_WATER: Final = 64 << 10  # bytes behind from which ``drained`` waits
LOW_WATER: Final = 16 << 10
STATUS_BEHIND: Final = 1 << 20  # bytes behind from which only the latest status is kept
DRAIN_LOOK: Final = 0.02  # seconds


class StreamTerminal:
    """A client that speaks framed messages. Closing is the caller's business."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tail: Tail | None = None
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._tail = tail or Tail()
        self._head = b""  # of a frame whose payload is still to come
        self._writer.transport.set_write_buffer_limits(high=HIGH_WATER, low=LOW_WATER)
        self._is_closed = False  # and all that was queued has gone
        self._last_status: bytes | None = None
        self._late_status: bytes | None = None  # kept back while the client is far behind

    @classmethod
    async def over(cls, own: socket.socket) -> StreamTerminal:
        """Speak over ``own``, which this takes."""
        reader, writer = await asyncio.open_unix_connection(sock=own, limit=wire.STREAM_MAX)
        return cls(reader, writer)

    @classmethod
    async def resumed(cls, loose: Loose) -> StreamTerminal:
        """Go on with a client that another process let go of. Raises OSError."""
        tail = Tail()
        reader, writer = await take_up(loose, limit=wire.STREAM_MAX, tail=tail)
        return cls(reader, writer, tail)

    def let_go(self) -> Loose | None:
        """Leave the client to another process: see ``net.loose.let_go``."""
        loose = let_go(self._reader, self._writer, self._tail)
        return None if loose is None else loose._replace(read=self._head + loose.read)

    async def receive(self) -> ClientMessage | None:
        """The next message of the client; None when it is gone or talks nonsense. Cancelled, it loses nothing."""
        while True:
            try:
                self._head = self._head or await self._reader.readexactly(wire.STREAM_HEADER.size)
                kind, length = wire.STREAM_HEADER.unpack(self._head)
                if length > wire.STREAM_MAX:
                    log.warning("a client announced %d bytes in one frame", length)
                    return None
                payload = await self._reader.readexactly(length) if length else b""
                self._head = b""
            except (asyncio.IncompleteReadError, OSError):
                return None
            try:
                message = _parse(kind, payload)
            except ValueError as error:
                log.warning("a client sent a bad frame: %s", error)
                return None
            if message is not None:
                return message

    def output(self, data: bytes, *, error: bool = False) -> None:
        """Queue output."""
        kind = wire.StreamType.ERROR_OUTPUT if error else wire.StreamType.OUTPUT
        for at in range(0, len(data), wire.STREAM_MAX):
            self._send(kind, data[at : at + wire.STREAM_MAX])

    def status(self, line: StatusLine) -> None:
        """Queue a status; the same twice in a row is sent once."""
        since = None if line.since is None else rfc3339(line.since)
        payload = msgspec.json.encode(
            wire.StreamStatus(line.state, line.text, since, line.retry_in, line.mux)
        )
        if payload == self._last_status:
            return
        self._last_status = payload
        if self.backlog > STATUS_BEHIND:
            self._late_status = payload  # the one before is old news by now
        else:
            self._late_status = None
            self._send(wire.StreamType.STATUS, payload)

    def credit(self, size: int) -> None:
        """Queue input credit."""
        self._send(wire.StreamType.CREDIT, wire.CREDIT.pack(size))

    def answer(self, value: msgspec.Struct) -> None:
        """Queue an answer of the route's own type."""
        self._send(wire.StreamType.ANSWER, msgspec.json.encode(value))

    def leave(self, leaving: Leaving) -> None:
        """Queue the last frame."""
        error = failure(leaving.error) if leaving.error is not None else None
        end = wire.StreamExit(leaving.status, leaving.reason, error, leaving.reattach)
        self._send(wire.StreamType.EXIT, msgspec.json.encode(end))

    @property
    def backlog(self) -> int:
        """Bytes not yet in the socket's buffer."""
        return self._writer.transport.get_write_buffer_size()

    async def drained(self, below: int) -> None:
        """Wait until the client has caught up (to the low-water mark), or is gone."""
        while self.backlog >= below and not self._writer.is_closing():
            try:
                await self._writer.drain()
            except OSError:
                return
            if self.backlog >= below:
                await asyncio.sleep(DRAIN_LOOK)  # below the high-water mark the transport tells nothing

    async def close(self, timeout: float | None = 2.0) -> None:
        """Give the client ``timeout`` seconds (None: for ever) to take what is queued, then hang up."""
        try:
            async with asyncio.timeout(timeout):
                self._writer.close()
                await self._writer.wait_closed()
            self._is_closed = True
        except (TimeoutError, OSError):
            self.abort()

    def abort(self) -> None:
        """Hang up now, whatever is queued. A transport that has ended takes no such word."""
        if not self._is_closed:
            self._writer.transport.abort()

    def _send(self, kind: wire.StreamType, payload: bytes) -> None:
        if self._late_status is not None and self.backlog <= STATUS_BEHIND:
            late, self._late_status = self._late_status, None
            self._send(wire.StreamType.STATUS, late)
        if not self._writer.is_closing():
            frame = wire.STREAM_HEADER.pack(kind, len(payload)) + payload
            self._writer.write(frame)
            self._tail.wrote(frame, self.backlog)


def _parse(kind: int, payload: bytes) -> ClientMessage | None:
    """One frame of the client.

    Raises:
        ValueError: a payload of the wrong length, or a frame that only a daemon sends.
    """
    try:
        match kind:
            case wire.StreamType.INPUT:
                return Input(payload) if payload else None
            case wire.StreamType.RESIZE:
                return Resize(*wire.WINDOW_SIZE.unpack(payload))
            case wire.StreamType.DETACH:
                return Detach()
            case wire.StreamType.END_OF_INPUT:
                return EndOfInput()
            case wire.StreamType.SIGNAL:
                return Signal(payload[0])
            case wire.StreamType.CREDIT_OUTPUT:
                return Taken(*wire.CREDIT.unpack(payload))
            case _ if kind < 0x80:
                return None  # of a newer client
            case _:
                raise ValueError(f"frame type {kind:#x} is the daemon's")
    except (struct.error, IndexError) as error:
        raise ValueError(str(error)) from None
