"""The one loop of the fast commands: write out what goes, wait for whatever comes first, act on it.

A subclass says what it waits for, which is put together anew in every turn: what is to be read depends on
what is still to be written. Nothing but ``poll`` ever waits.
"""

from __future__ import annotations

import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

IN, OUT = select.POLLIN, select.POLLOUT
GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL  # reported whether one asks for them or not


class Loop:
    """Runs until ``is_over``."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._polled: dict[int, int] = {}

    # What subclasses say.

    def is_over(self) -> bool:
        """Write out what goes without waiting, and say whether everything is done."""
        raise NotImplementedError

    def on_time(self, now: float) -> None:
        """Act on deadlines; ``now`` is monotonic, in seconds."""

    def wants(self, now: float) -> Mapping[int, int]:
        """Say which descriptors to wait for and for which events; for none of them (0): only a hang-up."""
        raise NotImplementedError

    def next_deadline(self) -> float | None:
        """Say when ``on_time`` has something to do; None for never."""
        return None

    def act(self, ready: Mapping[int, int]) -> None:
        """Act on what has happened at each descriptor."""
        raise NotImplementedError

    # The loop.

    def run(self) -> None:
        """Run to the end."""
        while not self.is_over():
            now = time.monotonic()
            self.on_time(now)
            self.act(self._wait(self.wants(now), now))

    def forget(self, descriptor: int) -> None:
        """Stop waiting for a descriptor that is about to be closed: its number may come back as another."""
        if self._polled.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def _wait(self, interest: Mapping[int, int], now: float) -> dict[int, int]:
        for descriptor in self._polled.keys() - interest.keys():
            self.forget(descriptor)
        for descriptor, events in interest.items():
            if self._polled.get(descriptor) != events:
                self._poll.register(descriptor, events)
                self._polled[descriptor] = events
        deadline = self.next_deadline()
        timeout = None if deadline is None else max(0.0, deadline - now) * 1000 + 1
        return dict(self._poll.poll(timeout))
