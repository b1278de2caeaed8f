"""Time and chance, as control reads them: both are handed in, so that a test can hold them still."""

from __future__ import annotations

import random
from collections.abc import Callable

from devboxd.control.base.needs import Clock


class Time:
    """The daemon's clocks and its dice."""

    def __init__(self, clock: Clock, dice: Callable[[], float] = random.random) -> None:
        self.monotonic = clock.monotonic  # seconds that never run backwards and stand still while asleep
        self.wall = clock.wall  # Unix time in seconds
        self.dice = dice  # a number in [0, 1)
