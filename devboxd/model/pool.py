"""Which session of a pool a new connection gets: without a bridge the agent paces each below 1 MiB/s."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

BUSY_BYTES: Final = 256 << 10  # bytes a second over a session that make it count as busy
NEW: Final = 2.0  # seconds that a connection is new: nobody knows yet how much it will carry
NEW_MOST: Final = (
    2  # connections at a time that are new to one session; more start together, and share the work
)


class SessionSeen(msgspec.Struct, frozen=True):
    """A session that takes a connection. ``new``: of its connections, those that start or are ``NEW``."""

    is_online: bool = True
    rate: float = 0.0  # bytes a second, lately
    connections: int = 0
    new: int = 0

    @property
    def is_busy(self) -> bool:
        """Whether another session would serve a further connection better."""
        return self.rate > BUSY_BYTES or self.new >= NEW_MOST

    @property
    def load(self) -> tuple[bool, int]:
        """The least of these is served first."""
        return self.is_busy, self.connections


def choose(seen: Sequence[SessionSeen], most: int) -> int | None:
    """The place of the session that a new connection gets; None: it gets a session of its own.

    Args:
        most: sessions that there may be.
    """
    if not seen:
        return None
    online = [number for number, one in enumerate(seen) if one.is_online] or list(range(len(seen)))
    best = min(online, key=lambda number: seen[number].load)
    if not seen[best].is_busy or len(seen) >= most:
        return best
    # Those that are on their way count, too: they were asked for by connections that wait for them.
    rest = [number for number, one in enumerate(seen) if not one.is_online and not one.is_busy]
    return min(rest, key=lambda number: seen[number].load) if rest else None
