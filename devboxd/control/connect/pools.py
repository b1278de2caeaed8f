"""The sessions to every port that somebody uses, and those that are kept open ahead of use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from devboxd.control.connect.pool import Bridged, PortPool
from devboxd.control.connect.port import PortTarget
from devboxd.control.connect.sessions import Sessions
from devboxd.errors import DevboxError
from devboxd.model.box import Account, BoxRef
from devboxd.model.config import Config

Resolve = Callable[[str, Account], Awaitable[BoxRef]]


class Pools:
    """One pool for each target; gone when nobody uses it."""

    def __init__(
        self,
        sessions: Sessions,
        config: Callable[[], Config],
        resolve: Resolve,
        *,
        idle_after: float,
        bridged: Bridged | None = None,
    ) -> None:
        """Make it. ``idle_after``, ``bridged``: as in ``PortPool``. ``config`` gives the one in force."""
        self._sessions = sessions
        self._config = config
        self._resolve = resolve
        self._idle_after = idle_after
        self._bridged = bridged
        self._pools: dict[PortTarget, PortPool] = {}
        self._warm: list[PortPool] = []
        self._warming = asyncio.Lock()

    def of(self, target: PortTarget) -> PortPool:
        """The sessions to a port of a box."""
        if (pool := self._pools.get(target)) is None:
            pool = self._pools[target] = PortPool(
                self._sessions,
                target,
                self._config(),
                idle_after=self._idle_after,
                bridged=self._bridged,
            )
            pool.on_empty = lambda: self._forget(target)
        return pool

    async def keep_warm(self) -> None:
        """Keep sessions open to the ports that the configuration names, also after a change of it."""
        async with self._warming:  # a second change may come while names are looked up for the first
            for pool in self._warm:
                pool.kept -= 1
                pool.warmed -= 1
            self._warm = []
            for name, configured in self._config().boxes.items():
                for port in configured.warm:
                    await self._keep_one_warm(name, port)

    async def _keep_one_warm(self, name: str, port: int) -> None:
        try:
            box = await self._resolve(name, Account())
        except DevboxError as error:
            text = f"port {port} of {name} is not kept warm: {error.message}"
            self._sessions.shared.news.tell("warm.failed", text, box=name)
            return
        pool = self.of(PortTarget(box, port))
        pool.kept += 1
        pool.warmed += 1
        pool.warm()
        self._warm.append(pool)

    async def close(self) -> None:
        """End all their sessions."""
        await asyncio.gather(*(pool.close() for pool in self._pools.values()))

    def _forget(self, target: PortTarget) -> None:
        """Drop a pool that nobody uses: a SOCKS client may see thousands of hosts."""
        pool = self._pools.get(target)
        if pool is not None and not pool.kept and not pool.sessions:
            del self._pools[target]
