"""What wakes those who wait: the network changed, the machine woke, a login arrived."""

from __future__ import annotations

import asyncio
from typing import Any


class Bell:
    """Wakes whoever waits: the network changed, the machine woke, a login arrived."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._blocks: set[UntilRung] = set()
        self.rings = 0

    def ring(self) -> None:
        """Wake all current waiters."""
        self.rings += 1
        self._event.set()
        self._event = asyncio.Event()
        for block in list(self._blocks):
            block.leave()

    async def wait(self, timeout: float | None) -> bool:
        """Sleep until the bell rings; False when ``timeout`` seconds went by first."""
        event = self._event
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            return False
        return True

    def until_rung(self, *, at_once: bool = False) -> UntilRung:
        """A block that is left when the bell rings (``at_once``: at its first wait): what it waits for is cancelled."""
        return UntilRung(self._blocks, at_once=at_once)


class UntilRung:
    """``async with`` it. No task is made, so nothing that the block has got can be lost on the way out.

    Whether the block was left early shows by what it did not do.
    """

    def __init__(self, blocks: set[UntilRung], *, at_once: bool) -> None:
        self._blocks = blocks
        self._at_once = at_once
        self._scope = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._scope.__aenter__()
        self._blocks.add(self)
        if self._at_once:
            self.leave()

    async def __aexit__(self, *exc: Any) -> bool:
        self._blocks.discard(self)
        try:
            await self._scope.__aexit__(*exc)
        except TimeoutError:
            if not self._scope.expired():
                raise
            return True
        return False

    def leave(self) -> None:
        """Cancel what the block waits for."""
        self._blocks.discard(self)
        self._scope.reschedule(asyncio.get_running_loop().time())


class Bells:
    """The bells of one daemon."""

    def __init__(self) -> None:
        self.network = Bell()  # wake from sleep, network change: try again now
