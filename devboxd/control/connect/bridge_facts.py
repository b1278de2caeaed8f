"""A bridge as it stands, for views."""

from __future__ import annotations

import msgspec


class LaneFacts(msgspec.Struct, frozen=True):
    """A lane, for views. ``round_trip`` in seconds, once measured."""

    number: int
    session: str | None
    is_up: bool
    is_behind: bool
    round_trip: float | None
    held: int
    carried: int


class BridgeFacts(msgspec.Struct, frozen=True):
    """A bridge as it stands, for views."""

    box: str
    user: str | None
    lanes: list[LaneFacts]
    streams: int
    waiting: int
    rate_up: float  # bytes a second, as they travel
    rate_down: float
    packs: float | None  # bytes of streams for each that travelled; None: too few
    without: str | None  # why there is none
    target: str  # instance id


class Rate:
    """Bytes a second over the last seconds."""

    def __init__(self, now: float) -> None:
        self.up = self.down = 0.0
        self._at = now
        self._up = self._down = 0

    def count(self, up: int, down: int, now: float) -> None:
        """So many bytes went and came since the last call."""
        self._up += up
        self._down += down
        if (elapsed := now - self._at) >= 1.0:
            self.up, self.down = self._up / elapsed, self._down / elapsed
            self._at, self._up, self._down = now, 0, 0
