"""What a listener on the box leads to here: a reverse forward's target, or the user's ssh agent.

The box is not trusted: it may open as many connections as it likes, and ``MOST`` are carried at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from devboxd.control.base.needs import LocalConnection
from devboxd.control.base.supervisor import Supervisor
from devboxd.control.connect.bridge_streams import BridgeStream
from devboxd.control.connect.splice import Counted, splice

log = logging.getLogger(__name__)

CONNECT_TIME: Final = 10.0  # seconds that a target here has to answer

Dial = Callable[[], Awaitable[LocalConnection]]


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
                connection = await self._dial()
        except (OSError, TimeoutError) as error:
            self.error = f"{self._what} does not answer: {getattr(error, 'strerror', None) or error}"
            log.info("%s", self.error)
            stream.reset()
        else:
            self.error = None
            if (cut := await splice(Counted(connection, self._count), stream)) is not None:
                log.debug("%s: %s", self._what, cut)
        finally:
            stream.close()
            self._open.discard(stream)

    def _count(self, down: int, up: int) -> None:
        self.down += down
        self.up += up
