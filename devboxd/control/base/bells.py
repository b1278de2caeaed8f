"""What wakes those who wait: the network changed, the machine woke, a login arrived."""

from __future__ import annotations

import asyncio


class Bell:
    """Wakes whoever waits: the network changed, the machine woke, a login arrived."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.rings = 0

    def ring(self) -> None:
        """Wake all current waiters."""
        self.rings += 1
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout: float | None) -> bool:
        """Sleep until the bell rings; False when ``timeout`` seconds went by first."""
        event = self._event
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            return False
        return True


class Bells:
    """The bells of one daemon."""

    def __init__(self) -> None:
        self.network = Bell()  # wake from sleep, network change: try again now
        self.logins = Bell()  # credentials changed
