"""A bound on how many do a thing at once, the most wanted first: no storm of calls after a wake."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """Lets a few callers through at a time, the most wanted first (lowest number), then first come."""

    def __init__(self, width: int) -> None:
        self._free = width
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def enter(self, priority: float = 0.0) -> AsyncIterator[None]:
        """Wait for a place and hold it."""
        if self._free > 0 and not self._waiting:
            self._free -= 1
        else:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (priority, next(self._order), turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._leave()  # the place was ours already
                raise
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Gates:
    """One gate for each account that is called."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._gates: dict[object, Gate] = {}

    def of(self, account: object) -> Gate:
        """The gate that session calls of one account go through."""
        return self._gates.setdefault(account, Gate(self._width))
