"""One direction of one session through the gateway: the place where frames get lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from devboxd.simulator.faults import Direction, Faults
from devboxd.simulator.tasks import Tasks

_CAPACITY: Final = 1000  # frames; a full pipe stops the reader of the socket that feeds it
_HOLD: Final = 0.05  # seconds a frame is kept back at most to be overtaken


class Pipe:
    """Carries frames in order, unless a fault says otherwise. ``lost`` counts what it dropped."""

    def __init__(
        self,
        session: str,
        direction: Direction,
        out: Callable[[bytes], Awaitable[None]],
        faults: Faults,
        tasks: Tasks,
    ) -> None:
        self._session = session
        self._direction: Direction = direction
        self._out = out
        self._faults = faults
        self._tasks = tasks
        self._queue: asyncio.Queue[tuple[float, bytes, bool]] = asyncio.Queue(_CAPACITY)
        self._pump: asyncio.Task[None] | None = None
        self._held: bytes | None = None
        self.lost = 0

    async def carry(self, data: bytes, *, service: bool = False) -> None:
        """Send one frame on its way. ``service`` frames are never lost, only delayed with the others."""
        if self._pump is None and not self._faults.any_wire:
            await self._out(data)
            return
        wire = self._faults.wire(self._session, self._direction)
        due = self._faults.clock() + (wire.delay if wire else 0.0)
        if self._pump is None:
            self._pump = self._tasks.start(self._run(), f"pipe {self._session} {self._direction}")
        await self._queue.put((due, data, service))

    async def _run(self) -> None:
        """Deliver what is queued; end when all is quiet, so that the fast path is taken again."""
        try:
            while True:
                try:
                    async with asyncio.timeout(_HOLD):
                        due, data, service = await self._queue.get()
                except TimeoutError:
                    await self._release()
                    if self._queue.empty() and not self._faults.any_wire:
                        return
                    continue
                if (wait := due - self._faults.clock()) > 0:
                    await asyncio.sleep(wait)
                await self._faults.pass_hole(self._session)
                await self._treat(data, service=service)
        finally:
            self._pump = None

    async def _treat(self, data: bytes, *, service: bool) -> None:
        wire = self._faults.wire(self._session, self._direction)
        if wire is None or service:
            await self._release()
            await self._out(data)
            return
        chance = self._faults.random.random()
        if chance < wire.drop:
            self.lost += 1
        elif chance < wire.drop + wire.duplicate:
            await self._out(data)
            await self._out(data)
        elif chance < wire.drop + wire.duplicate + wire.reorder and self._held is None:
            self._held = data
            return
        else:
            await self._out(data)
        await self._release()

    async def _release(self) -> None:
        if self._held is not None:
            data, self._held = self._held, None
            await self._out(data)
