"""When to try again: full-jitter back-off. The dice are an argument, so that a test can load them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

FIRST: Final = 0.2  # seconds: a dropped link is usually back at once
LONGEST: Final = 30.0  # seconds: 50 sessions behind a dead network cost under two calls a second


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


def backoff(dice: Callable[[], float], *, first: float = FIRST, longest: float = LONGEST) -> Iterator[float]:
    """Yield seconds to wait before each further try, for ever: ``wait_before`` with a memory.

    Args:
        dice: gives a number in [0, 1).
    """
    tries = 0
    while True:
        yield wait_before(tries, dice(), first=first, longest=longest)
        tries += 1
