"""Looks at what the programs of this machine listen on, for as long as something is mirrored here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping

from devboxd.control.base.memory import Memory
from devboxd.control.base.needs import Listeners
from devboxd.control.base.time import Time
from devboxd.model.localports import LOOK_EVERY, LocalPorts


class LocalListeners:
    """One for all auto forwards: what one of them saw, all know."""

    def __init__(
        self, time: Time, listeners: Listeners, memory: Memory, ours: Callable[[], Mapping[int, str]]
    ) -> None:
        """``ours``: the ports that forwards of this daemon have, and which forward in words."""
        self._time = time
        self._listeners = listeners
        self._memory = memory
        self._ours = ours
        self._ports = LocalPorts()
        self._looked: float | None = None

    async def watch(self) -> None:
        """Look again and again; several of these look no more often than one."""
        while True:
            if self._looked is None or self._time.monotonic() - self._looked >= LOOK_EVERY:
                await self.look()
            await asyncio.sleep(LOOK_EVERY)

    async def look(self) -> None:
        """Look now. Where the system does not say what listens, only what could not be bound is known."""
        found = await self._listeners.others()
        self._looked = self._time.monotonic()
        if found is not None:
            self._ports.looked(found, self._looked)

    def why_not(self, port: int) -> str | None:
        """Say why a mirror does not take this number; None where it may."""
        if (whose := self._ours().get(port)) is not None:
            return whose
        return self._ports.why_not(
            port, self._time.monotonic(), self._memory.contested_ports, self._time.wall()
        )

    def note(self, port: int) -> None:
        """A port could not be bound."""
        self._ports.note(port, self._time.monotonic())

    def contest(self, box: Collection[int]) -> None:
        """Write down what a box and this machine both listen on."""
        self._memory.contested(self._ports.contested(box, self._memory.contested_ports, self._time.wall()))
