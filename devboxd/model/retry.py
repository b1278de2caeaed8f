"""When to try again: full-jitter back-off. The dice are an argument, so that a test can load them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

FIRST: Final = 0.2  # seconds: a dropped link is usually back at once
LONGEST: Final = 30.0  # seconds: 50 sessions behind a dead network cost under two calls a second


def backoff(dice: Callable[[], float], *, first: float = FIRST, longest: float = LONGEST) -> Iterator[float]:
    """Yield seconds to wait before each further try, for ever.

    Full jitter (each wait is uniform between a tenth and the whole of a doubling ceiling), so that many
    sessions cut at the same moment do not come back at the same moment.

    Args:
        dice: gives a number in [0, 1).
    """
    ceiling = first
    while True:
        yield ceiling * (0.1 + 0.9 * dice())
        ceiling = min(longest, ceiling * 2)
