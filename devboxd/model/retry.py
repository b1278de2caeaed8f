"""When to try again: full-jitter back-off. The dice are an argument, so that a test can load them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FIRST: Final = 0.2  # seconds: a dropped link is usually back at once
LONGEST: Final = 30.0  # seconds: 50 sessions behind a dead network cost under two calls a second
CALM: Final = 60.0  # seconds: what has gone on for longer has worked


def wait_before(tries: int, dice: float, *, first: float = FIRST, longest: float = LONGEST) -> float:
    """Seconds to wait before the next try.

    Full jitter (each wait is uniform between a tenth and the whole of a doubling ceiling), so that many
    sessions cut at the same moment do not come back at the same moment.

    Args:
        tries: that were waited for before.
        dice: a number in [0, 1).
    """
    ceiling = min(
        longest, first * 2.0 ** min(tries, 60)
    )  # beyond that a float is long out of reach of any bound
    return ceiling * (0.1 + 0.9 * dice)


class Backoff:
    """The waits of a loop that tries again and again: ``wait_before`` with a memory."""

    def __init__(
        self, dice: Callable[[], float], *, first: float = FIRST, longest: float = LONGEST, calm: float = CALM
    ) -> None:
        """Make it.

        Args:
            dice: gives a number in [0, 1).
            calm: seconds; a try that lasted longer is one that worked.
        """
        self._dice = dice
        self._first = first
        self._longest = longest
        self._calm = calm
        self._tries = 0

    def wait(self) -> float:
        """Seconds to wait before the next try."""
        wait = wait_before(self._tries, self._dice(), first=self._first, longest=self._longest)
        self._tries += 1
        return wait

    def wait_after(self, lasted: float) -> float:
        """The same after a try that lasted so many seconds, however it ended."""
        if lasted > self._calm:
            self.begin_again()
        return self.wait()

    def begin_again(self) -> None:
        """It works: what comes next is a first failure."""
        self._tries = 0
