"""Let go of a connection without a byte lost or sent twice, and take up one that another process let go of."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections import deque

from devboxd.model.loose import Loose

_RESET = struct.pack("ii", 1, 0)  # struct linger: on, 0 s
_ORDERLY = struct.pack("ii", 0, 0)


class Tail:
    """The last bytes that were written to a transport: those that it may still have to send."""

    def __init__(self) -> None:
        self._parts: deque[bytes] = deque()
        self._size = 0

    def wrote(self, data: bytes, outstanding: int) -> None:
        """``data`` was written; of all that ever was, ``outstanding`` bytes are not sent."""
        if not outstanding:
            self._parts.clear()
            self._size = 0
            return
        self._parts.append(data)
        self._size += len(data)
        while self._size - len(self._parts[0]) >= outstanding:
            self._size -= len(self._parts.popleft())

    def last(self, outstanding: int) -> bytes:
        """Those that are not sent."""
        return b"".join(self._parts)[-outstanding:] if outstanding else b""


def let_go(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tail: Tail) -> Loose | None:
    """Stop reading and writing here and now; None where the connection is over, or no descriptor is left.

    Whoever waits for it here sees its end. Should nobody take it up, its peer sees a reset where it is TCP.
    """
    transport = writer.transport
    raw: socket.socket | None = writer.get_extra_info("socket")
    outstanding = transport.get_write_buffer_size()
    if raw is None or raw.fileno() < 0 or (transport.is_closing() and not outstanding):
        return None
    try:
        read = _buffered(reader)
        descriptor = os.dup(raw.fileno())
    except OSError:
        return None
    unsent = tail.last(outstanding)
    if raw.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()  # closes this descriptor, and neither sends nor shuts down anything
    return Loose(descriptor, read, unsent)


def _buffered(reader: asyncio.StreamReader) -> bytes:
    """What was read ahead, at once. Raises OSError where the connection has failed."""
    reader.feed_eof()  # with it, reading waits for nothing
    reading = reader.read()
    try:
        reading.send(None)
    except StopIteration as done:
        return bytes(done.value)
    reading.close()
    raise OSError("a stream at its end had to be waited for")


async def take_up(
    loose: Loose, *, limit: int, tail: Tail
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Go on with a connection. It owns the descriptor from now on.

    Raises:
        OSError: it is none, or is over.
    """
    connection = socket.socket(fileno=loose.descriptor)
    try:
        connection.setblocking(False)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ORDERLY)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=limit, loop=loop)
        reader.feed_data(loose.read)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.create_connection(lambda: protocol, sock=connection)
    except BaseException:
        connection.close()
        raise
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    if loose.unsent:
        writer.write(loose.unsent)
        tail.wrote(loose.unsent, transport.get_write_buffer_size())
    return reader, writer
