"""What all sessions share: the clock, the dice, events, conditions, the gate and the alarm bell."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from devboxd.control.ports import Clock
from devboxd.control.supervisor import Supervisor
from devboxd.model.health import Condition, Event, Severity

if TYPE_CHECKING:
    from devboxd.control.session import HeldSession

log = logging.getLogger(__name__)
EVENTS_KEPT = 1000


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


class Hub:
    """The shared state of one daemon. Plain values; every method is immediate."""

    def __init__(
        self, clock: Clock, *, dice: Callable[[], float] = random.random, api_width: int = 4
    ) -> None:
        self.clock = clock
        self.dice = dice
        self.run = secrets.token_hex(4)  # this life of the daemon, in the Reason of its sessions
        self.tasks = Supervisor("devboxd")
        self.network = Bell()  # wake from sleep, network change: try again now
        self.logins = Bell()  # credentials changed
        self.gates: dict[object, Gate] = {}
        self.sessions: dict[HeldSession, None] = {}  # those that run, oldest first
        self.open_ids: dict[str, str] = {}  # at AWS, by our doing and not yet ended: id, box
        self.on_open_ids: Callable[[], None] = lambda: None
        self._api_width = api_width
        self._conditions: dict[tuple[str, str], Condition] = {}
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._sequence = itertools.count(1)
        self._news = Bell()

    def gate(self, account: object) -> Gate:
        """The gate that session calls of one account go through: no storm of calls after a wake."""
        return self.gates.setdefault(account, Gate(self._api_width))

    def started(self, session_id: str, box: str) -> None:
        """A session exists at AWS from now on."""
        self.open_ids[session_id] = box
        self.on_open_ids()

    def over(self, session_id: str) -> None:
        """A session was ended, as far as we could."""
        if self.open_ids.pop(session_id, None) is not None:
            self.on_open_ids()

    # Events -----------------------------------------------------------------------------------------

    def tell(
        self, kind: str, text: str, *, box: str | None = None, **data: str | int | float | bool | None
    ) -> None:
        """Record that something happened, in the log and for ``devboxctl events``."""
        event = Event(next(self._sequence), self.clock.wall(), kind, text, box, data)
        self._events.append(event)
        log.info("%s: %s", kind, text, extra={"box": box})
        self._news.ring()

    def events(self, since: int = 0) -> list[Event]:
        """Events after sequence number ``since``, oldest first, as far as they are kept."""
        return [event for event in self._events if event.sequence > since]

    async def follow(self, since: int = 0) -> AsyncIterator[Event]:
        """Yield events for ever."""
        while True:
            for event in self.events(since):
                since = event.sequence
                yield event
            if not self.events(since):
                await self._news.wait(None)

    # Conditions -------------------------------------------------------------------------------------

    def raise_condition(
        self,
        code: str,
        title: str,
        text: str,
        *,
        subject: str = "",
        hint: str | None = None,
        severity: Severity = "warning",
    ) -> None:
        """State a condition, or update its text; it stays until ``clear_condition``."""
        key = (code, subject)
        old = self._conditions.get(key)
        since = old.since if old else self.clock.wall()
        new = Condition(code, title, text, hint, severity, subject, since)
        self._conditions[key] = new
        if old is None:
            self.tell(f"condition.{code}", text)

    def clear_condition(self, code: str, subject: str = "") -> None:
        """Withdraw a condition, if it stands."""
        if (old := self._conditions.pop((code, subject), None)) is not None:
            self.tell(f"cleared.{code}", f"no longer: {old.title}")

    def conditions(self) -> list[Condition]:
        """All standing conditions, oldest first."""
        return sorted(self._conditions.values(), key=lambda condition: condition.since)


class Tally(msgspec.Struct):
    """Bytes and events counted for ``status``."""

    bytes_up: int = 0
    bytes_down: int = 0
    resumes: int = 0
