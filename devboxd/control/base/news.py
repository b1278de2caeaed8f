"""What happened, and what is not as it should be: events and conditions."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from devboxd.control.base.bells import Bell
from devboxd.control.base.time import Time
from devboxd.model.health import CONDITIONS, Condition, Event, condition

log = logging.getLogger(__name__)
EVENTS_KEPT: Final = 1000


class News:
    """Events that are kept for a while, and conditions that stand until they are withdrawn."""

    def __init__(self, time: Time) -> None:
        self._time = time
        self._conditions: dict[tuple[str, str], Condition] = {}
        self._hidden: dict[tuple[str, str], asyncio.TimerHandle] = {}  # not yet shown
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._sequence = itertools.count(1)
        self._told = Bell()

    # Events -----------------------------------------------------------------------------------------

    def tell(
        self,
        kind: str,
        text: str,
        *,
        box: str | None = None,
        secret: str = "",
        **data: str | int | float | bool | None,
    ) -> None:
        """Record that something happened, in the log and for ``devboxctl events``.

        ``secret``: more of the text, which is in no log.
        """
        event = Event(next(self._sequence), self._time.wall(), kind, text + secret, box, data)
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

    async def changed(self, timeout: float | None) -> bool:
        """Wait until something happens; False when ``timeout`` seconds went by first."""
        return await self._told.wait(timeout)

    # Conditions -------------------------------------------------------------------------------------

    def raise_condition(
        self, code: str, subject: str = "", stood: float = 0.0, /, **values: str | int | None
    ) -> None:
        """State a condition, or update its text; it stays until ``clear_condition``.

        Args:
            code: one of ``model.health.CONDITIONS``.
            subject: what it is about, where there can be several of a kind.
            stood: seconds that it holds already, where it is found late.
            values: what the texts of that kind leave open.
        """
        key = (code, subject)
        old = self._conditions.get(key)
        self._conditions[key] = condition(
            code, old.since if old else self._time.wall() - stood, subject, **values
        )
        if old is not None:
            return
        if (after := CONDITIONS[code].after - stood) > 0:
            self._hidden[key] = asyncio.get_running_loop().call_later(after, self._show, key)
        else:
            self._show(key)

    def _show(self, key: tuple[str, str]) -> None:
        self._hidden.pop(key, None)
        self.tell(f"condition.{key[0]}", self._conditions[key].text)

    def clear_condition(self, code: str, subject: str = "") -> None:
        """Withdraw a condition, if it stands."""
        key = (code, subject)
        if (old := self._conditions.pop(key, None)) is None:
            return
        if (timer := self._hidden.pop(key, None)) is not None:
            timer.cancel()  # it mended itself before anybody had to hear of it
        else:
            self.tell(f"cleared.{code}", f"no longer: {old.title}")

    def conditions(self) -> list[Condition]:
        """All standing conditions that are to be shown by now, oldest first."""
        shown = [found for key, found in self._conditions.items() if key not in self._hidden]
        return sorted(shown, key=lambda found: found.since)
