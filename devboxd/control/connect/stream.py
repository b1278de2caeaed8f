"""One connection through a port session: what has arrived for it, and its user's end.

``Arrivals`` is what the session fills; it knows nobody and acts on nothing. ``PortStream`` is what a user reads and
writes; it asks the session to send.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from devboxd.errors import DevboxError, Kind

STREAM_BUFFER: Final = 16 << 20  # bytes a local reader may be behind before its connection is reset


class ConnectionRefused(DevboxError):
    """Nothing listens on the target port."""

    code = "connection-refused"
    kind = Kind.UNREACHABLE


class StreamReset(DevboxError):
    """The connection was cut: by the far end, by a lost session, or because its reader stood still."""

    code = "stream-reset"
    kind = Kind.UNREACHABLE

    def __init__(self, message: str, symbol: str = "") -> None:
        """Make it. ``symbol``: the far end's name of the error (``ENOENT``), where it said one."""
        super().__init__(message)
        self.symbol = symbol


class Backlog:
    """Bytes that wait on all connections of a session."""

    def __init__(self) -> None:
        self.size = 0


class Arrivals:
    """What the far end has sent on one connection and nobody has read. Bounded by ``STREAM_BUFFER``."""

    def __init__(self, backlog: Backlog, opened_at: float = 0.0) -> None:
        self.opened_at = opened_at  # monotonic
        self.received = 0  # bytes, ever
        self.finished = False  # the far end closed
        self.closed = False  # we closed
        self.error: DevboxError | None = None  # it was cut
        self.left_whole = False  # the far end went away after it had closed, and had taken all of ours
        # One buffer, and not a list of what came: a box that sends single bytes would fill fifty times as much.
        self._waiting = bytearray()
        self._backlog = backlog
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, data: bytes) -> bool:
        """Add bytes. Says False, and keeps nothing any more, once the reader is too far behind."""
        if self.closed or self.error is not None:
            return True
        self.received += len(data)
        if len(self._waiting) + len(data) > STREAM_BUFFER:
            self.fail(StreamReset("the local side stopped reading for too long"))
            return False
        self._waiting += data
        self._backlog.size += len(data)
        self._changed.set()
        return True

    def finish(self) -> None:
        """The far end closed; what came before can still be read."""
        self.finished = True
        self._changed.set()

    def fail(self, error: DevboxError) -> None:
        """The connection is cut, and what was not read is lost."""
        if self.error is None and not self.finished:
            self.error = error
            self._take()
        self._changed.set()

    def close(self) -> None:
        """Nobody reads any more."""
        self.closed = True
        self._take()
        self._changed.set()

    async def changed(self) -> None:
        """Wait until something else happens to it. Not while somebody reads."""
        self._changed.clear()
        await self._changed.wait()

    @property
    def unread(self) -> bytes:
        """What has come and was not read."""
        return bytes(self._waiting)

    async def read(self) -> bytes:
        """The next bytes; empty at the far end's close, and at ours.

        Raises:
            StreamReset, ConnectionRefused: there will be no more, and not by an orderly close.
        """
        while not self._waiting:
            if self.error is not None:
                raise self.error
            if self.finished or self.closed:
                return b""
            self._changed.clear()
            await self._changed.wait()
        return bytes(self._take())

    def _take(self) -> bytearray:
        waiting, self._waiting = self._waiting, bytearray()
        self._backlog.size -= len(waiting)
        return waiting


class Duplex(Protocol):
    """A connection to something on a box, whatever carries it. ``read`` and ``write`` each by one task at a time."""

    async def answered(self) -> bool:
        """Wait until it stands at the far end; False, at once, where what carries it tells of refusals only.

        Raises as ``Arrivals.read``. Not while somebody reads; who is cancelled has lost nothing.
        """

    async def read(self) -> bytes:
        """The next bytes; empty at the far end's close. Raises as ``Arrivals.read``."""

    async def write(self, data: bytes) -> None:
        """Send bytes; waits where it must. Raises StreamReset."""

    def finish(self) -> bool:
        """Send no more, and still read: False where what carries it knows no half-close, and nothing was done."""

    @property
    def half_closes(self) -> bool:
        """Whether each direction ends by itself."""

    async def lost(self) -> bool:
        """Wait, after the far end's close was read, until nobody is there to be written to. Whether bytes were lost by that."""

    async def part(self) -> None:
        """Send no more, and read no more: wait until all that was written has arrived, or nobody is there. Then ``close``."""

    def reset(self) -> None:
        """Cut: the far end sees a reset, not an end."""

    def close(self) -> None:
        """Close both directions."""

    @property
    def received(self) -> int:
        """Bytes that the far end has ever sent."""

    @property
    def is_online(self) -> bool:
        """Whether it is carried now."""

    @property
    def finished(self) -> bool:
        """The far end has closed."""


class Carrier(Protocol):
    """What a stream needs of its session."""

    @property
    def is_online(self) -> bool:
        """Whether a link carries the session now."""

    @property
    def turn_size(self) -> int:
        """Bytes that one stream sends in its turn."""

    async def write(self, number: int, data: bytes) -> None:
        """Send a stream's bytes, in turn with others. Raises StreamReset."""

    def close_stream(self, number: int) -> None:
        """Forget a stream and tell the far end."""


class PortStream:
    """One connection through a port session. ``read`` and ``write`` each by one task at a time."""

    def __init__(self, session: Carrier, number: int, arrivals: Arrivals) -> None:
        self.number = number
        self._session = session
        self._arrivals = arrivals

    async def answered(self) -> bool:
        """Never known: the agent says nothing where it could connect."""
        return False

    async def read(self) -> bytes:
        """The next bytes; empty at the far end's close. Raises as ``Arrivals.read``."""
        return await self._arrivals.read()

    async def write(self, data: bytes) -> None:
        """Send bytes; waits for the session's window.

        Raises:
            StreamReset: the far end closed, or the session is gone.
        """
        at, arrivals = 0, self._arrivals
        while at < len(data):
            if arrivals.error is not None:
                raise arrivals.error
            if arrivals.finished or arrivals.closed:
                raise StreamReset("the far end has closed this connection")
            part = data[at : at + self._session.turn_size]
            await self._session.write(self.number, part)
            at += len(part)

    def finish(self) -> bool:
        """Never: smux version 1 knows no half-close."""
        return False

    @property
    def half_closes(self) -> bool:
        """Never: see ``finish``."""
        return False

    async def lost(self) -> bool:
        """Nobody asks: the far end's close was that of both directions."""
        return True

    async def part(self) -> None:
        """Nothing to wait for: ``close`` goes behind what was written."""

    def reset(self) -> None:
        """Close: smux knows no reset."""
        self.close()

    def close(self) -> None:
        """Close both directions. What the far end still sends is dropped (smux knows no half-close)."""
        if not self._arrivals.closed:
            self._arrivals.close()
            self._session.close_stream(self.number)

    @property
    def received(self) -> int:
        """Bytes that the far end has ever sent."""
        return self._arrivals.received

    @property
    def is_online(self) -> bool:
        """Say whether a link carries this connection now."""
        return self._session.is_online

    @property
    def finished(self) -> bool:
        """The far end has closed; what it said before may not have been read yet."""
        return self._arrivals.finished
