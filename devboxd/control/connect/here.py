"""What a listener on the box leads to here: a reverse forward's target, or the user's ssh agent.

The box is not trusted: it may open as many connections as it likes, and ``MOST`` are carried at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from devboxd.control.base.supervisor import Supervisor
from devboxd.control.connect.bridge_streams import BridgeStream
from devboxd.errors import DevboxError

log = logging.getLogger(__name__)

READ_SIZE: Final = 64 << 10  # bytes
CONNECT_TIME: Final = 10.0  # seconds that a target here has to answer

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[], Awaitable[Pair]]


class Here:
    """Connections from the box to one target here. Give ``accepted`` to ``HeldBridge.accept``."""

    def __init__(self, tasks: Supervisor, dial: Dial, what: str, most: int) -> None:
        """Make it. ``dial`` raises OSError where the target does not answer; ``what``: the target, for people."""
        self.total = 0
        self.up = 0  # bytes to the target
        self.down = 0
        self.error: str | None = None  # why the last connection failed
        self._tasks = tasks
        self._dial = dial
        self._what = what
        self._most = most
        self._open: set[BridgeStream] = set()

    @property
    def open(self) -> int:
        """Connections now."""
        return len(self._open)

    def accepted(self, stream: BridgeStream, purpose: bytes) -> None:
        """The box has a connection for us."""
        if len(self._open) >= self._most:
            log.info("%s: the box opens more than %d connections", self._what, self._most)
            stream.close()
            return
        self.total += 1
        self._open.add(stream)
        self._tasks.spawn(f"connection {self.total} to {self._what}", self._serve(stream))

    async def _serve(self, stream: BridgeStream) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIME):
                reader, writer = await self._dial()
        except (OSError, TimeoutError) as error:
            self.error = f"{self._what} does not answer: {getattr(error, 'strerror', None) or error}"
            log.info("%s", self.error)
        else:
            self.error = None
            await self._carry(stream, reader, writer)
        finally:
            stream.close()
            self._open.discard(stream)

    async def _carry(
        self, stream: BridgeStream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Both ways, each until its own end: whoever has said everything may still be answered."""

        async def to_us() -> None:
            while data := await stream.read():
                self.up += len(data)
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()

        async def from_us() -> None:
            while data := await reader.read(READ_SIZE):
                self.down += len(data)
                await stream.write(data)
            stream.finish()

        is_whole = False
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(to_us(), name=f"{self._what}: to us")
                tasks.create_task(from_us(), name=f"{self._what}: from us")
            is_whole = True
        except* (DevboxError, OSError) as cut:
            log.debug("%s: %s", self._what, cut.exceptions[0])
        finally:
            if is_whole:
                writer.close()
            else:
                writer.transport.abort()
