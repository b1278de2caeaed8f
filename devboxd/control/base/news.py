"""What happened, and what is not as it should be: events and conditions."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from devboxd.control.base.bells import Bell
from devboxd.control.base.time import Time
from devboxd.model.health import Condition, Event, Severity

log = logging.getLogger(__name__)
EVENTS_KEPT: Final = 1000


class News:
    """Events that are kept for a while, and conditions that stand until they are withdrawn."""

    def __init__(self, time: Time) -> None:
        self._time = time
        self._conditions: dict[tuple[str, str], Condition] = {}
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._sequence = itertools.count(1)
        self._told = Bell()

    # Events -----------------------------------------------------------------------------------------

    def tell(
        self, kind: str, text: str, *, box: str | None = None, **data: str | int | float | bool | None
    ) -> None:
        """Record that something happened, in the log and for ``devboxctl events``."""
        event = Event(next(self._sequence), self._time.wall(), kind, text, box, data)
        self._events.append(event)
        log.info("%s: %s", kind, text, extra={"box": box})
        self._told.ring()

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
                await self._told.wait(None)

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
        since = old.since if old else self._time.wall()
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
