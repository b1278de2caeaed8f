"""The clocks of this machine. The one place that reads them."""

from __future__ import annotations

import time
from typing import Final

# Both go on while the machine is suspended: Linux calls that clock BOOTTIME; on macOS it is MONOTONIC
# (clock_gettime(3)), and Python's time.monotonic() is the one that stands still there.
_BOOTTIME: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """Time as the rest of the daemon takes it: an argument."""

    def monotonic(self) -> float:
        """Seconds that never run backwards and stand still while the machine is suspended."""
        return time.monotonic()

    def boottime(self) -> float:
        """Seconds that never run backwards and count suspended time too."""
        return time.clock_gettime(_BOOTTIME)

    def wall(self) -> float:
        """Unix time in seconds. May jump."""
        return time.time()  # noqa: TID251  # this is the Clock that others take

    def wall_ms(self) -> int:
        """Unix time in milliseconds."""
        return int(self.wall() * 1000)
