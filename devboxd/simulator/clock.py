"""The one place where the simulator asks what time it is; tests of pure parts pass their own."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Both readings in seconds; ``wall`` is Unix time, ``monotonic`` has no meaning but differences."""

    def monotonic(self) -> float:
        """Seconds that never go backwards."""
        ...

    def wall(self) -> float:
        """Unix time."""
        ...


class RealClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        """Seconds that never go backwards."""
        return time.monotonic()

    def wall(self) -> float:
        """Unix time, to the millisecond (what the wire formats carry)."""
        return time.time_ns() // 1_000_000 / 1000


class ManualClock:
    """Virtual time: stands still until it is told to move."""

    def __init__(self, start: float = 1_767_225_600.0) -> None:
        self.now = start

    def monotonic(self) -> float:
        """The same reading as ``wall``: only differences count."""
        return self.now

    def wall(self) -> float:
        """Unix time; starts on 2026-01-01."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        assert seconds >= 0
        self.now += seconds
