"""A pool of port sessions to one target: a new connection goes to one of them, or gets one more.

When all are busy a further session is opened, up to a bound, because the agent paces each session at less than
1 MiB/s (``model.pool``). Sessions without connections are ended after a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from devboxd.control.connect.fate import SessionEnded
from devboxd.control.connect.port import PortSession, PortTarget
from devboxd.control.connect.sessions import Sessions
from devboxd.control.connect.stream import Duplex, StreamReset
from devboxd.errors import Denied, DocumentInvalid, Unreachable, WrongState
from devboxd.model.config import Config
from devboxd.model.pool import choose
from devboxd.model.retry import Backoff
from devboxd.model.session import Ending
from devboxd.ssm import documents

IDLE_AFTER: Final = 60.0  # seconds without a connection after which a session that nobody keeps is ended


def _is_dead_target(session: PortSession) -> bool:
    """Say whether a session without multiplexing ended because nothing answered behind it."""
    end = session.held.end
    return session.multiplexed is False and end is not None and end.ending is Ending.BROKEN


Bridged = Callable[[PortTarget, float | None], Awaitable[Duplex | None]]


class PortPool:
    """The sessions to one target, and which of them a new connection gets."""

    def __init__(
        self,
        directory: Sessions,
        target: PortTarget,
        config: Config,
        *,
        idle_after: float = IDLE_AFTER,
        bridged: Bridged | None = None,
    ) -> None:
        """Make one. ``bridged``: opens a stream over the bridge to the box; None from it: there is no bridge."""
        self.target = target
        self.sessions: list[PortSession] = []
        self.kept = 0  # how many want one session to stay warm
        self.warmed = 0  # how many want it open ahead of the first connection, and open again when it is lost
        self.on_empty: Callable[[], None] = lambda: None  # no session is left
        self._directory = directory
        self._shared = directory.shared
        self._config = config
        self._idle_after = idle_after
        self._bridged = bridged
        self._documents = [documents.PORT, documents.SSH] if target.host is None else [documents.REMOTE_PORT]
        self._reaper: asyncio.Task[None] | None = None

    async def connect(self, wait: float | None = 120.0) -> Duplex:
        """Open a connection to the target.

        Args:
            wait: seconds for a box that is not connected, and for sessions that are lost on the way.

        Raises:
            ConnectionRefused comes later, from ``PortStream.read``: the far end tells only then.
            DevboxError: the session could not be opened.
        """
        if self._bridged is not None and (stream := await self._bridged(self.target, wait)) is not None:
            return stream
        if self.target.path is not None:
            raise WrongState(
                f"there is no bridge to {self.target.box.name}, and only that leads to a unix socket there",
                hint="docs/bridge.md says what it needs",
            )
        deadline = None if wait is None else self._shared.time.monotonic() + wait
        delays = Backoff(self._shared.time.dice)
        while True:
            session = self._choose(wait)
            left = None if deadline is None else max(0.1, deadline - self._shared.time.monotonic())
            try:
                async with asyncio.timeout(left):
                    return await session.open()
            except (Denied, DocumentInvalid):
                # Some accounts allow only the SSH document; it carries one connection each.
                if session.document == self._documents[-1]:
                    raise
                self._documents = self._documents[-1:]  # others who waited for the same session do it, too
            except (SessionEnded, StreamReset):
                if deadline is not None and self._shared.time.monotonic() >= deadline:
                    raise
                if _is_dead_target(session):
                    raise
                await self._shared.bells.network.wait(delays.wait())
            except TimeoutError:
                detail = session.held.detail or "no answer in time"
                raise Unreachable(f"{self.target.box.name} could not be reached: {detail}") from None

    def warm(self) -> None:
        """Open a session ahead of the first connection, if there is none."""
        if not any(session.usable for session in self.sessions):
            self._start(None)

    def _choose(self, wait: float | None) -> PortSession:
        usable = [session for session in self.sessions if session.usable]
        place = choose([session.seen for session in usable], self._config.forward.max_sessions)
        return self._start(wait) if place is None else usable[place]

    def _start(self, wait: float | None) -> PortSession:
        session = PortSession(
            self._directory,
            self.target,
            self._documents[0],
            self._config,
            wait=wait,
            wanted=self.kept > 0 and not self.sessions,
        )
        self.sessions.append(session)
        self._shared.tasks.spawn(f"port {self.target.port} of {self.target.box.name}", self._run(session))
        if self._reaper is None or self._reaper.done():
            self._reaper = self._shared.tasks.spawn(f"idle sessions to port {self.target.port}", self._reap())
        return session

    async def _run(self, session: PortSession) -> None:
        try:
            await session.run()
        finally:
            self.sessions.remove(session)
        if self.warmed and not self.sessions and not session.held.stopping and session.held.id is not None:
            self._start(None)  # it was wanted warm, and was lost

    async def _reap(self) -> None:
        """End sessions that have had no connection for a while; keep one where a forward wants it warm."""
        while self.sessions:
            await asyncio.sleep(self._idle_after / 4)
            for session in self.sessions:
                session.measure()  # or an hour of quiet would hide what goes on when the next connection comes
            now = self._shared.time.monotonic()
            idle = [s for s in self.sessions if not s.streams and now - s.idle_since >= self._idle_after]
            spare = len(self.sessions) - (1 if self.kept else 0)
            # At once, not one by one: a session that gets a connection meanwhile must not be ended.
            await asyncio.gather(*(session.held.stop() for session in idle[: max(0, spare)]))
        self.on_empty()

    async def close(self) -> None:
        """End all sessions."""
        await asyncio.gather(*(session.held.stop() for session in list(self.sessions)))
