"""The dead-man schedule of a box: when it is stopped though no daemon is there any more.

A daemon moves it on with every look that tells something. Who closes the laptop for good leaves a box that stops itself
when it is idle (the watchdog); the schedule is for the box whose watchdog is dead, too, and it is a bound on everything.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from devboxd.model.idle import UNKNOWN

BLIND: Final = 4 * 3600.0  # seconds after the last look, where the box has no watchdog
SLACK: Final = 0.1  # part of the time after which it is moved on: not at each look


def name_of(instance: str) -> str:
    """The name of a box's schedule: one for each instance (API: ``[0-9a-zA-Z-_.]``, 64 at most)."""
    return f"stop-{instance}"


def expression(at: float) -> str:
    """When, as Scheduler takes it: to the second, without a zone."""
    return f"at({datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S})"


def due(
    now: float,
    longest: float,
    *,
    watchdog: bool,
    held: float | None = None,
    leases: Iterable[float] = (),
    never: Iterable[Iterable[float]] = (),
) -> float:
    """When a box that is not looked at any more is stopped.

    Args:
        longest: seconds after the last look; ``BLIND`` at most where the box does not look by itself.
        held: Unix time before which it is not stopped, as are the ends of ``leases``.
        never: times in which it is not stopped.
    """
    at = max([now + (longest if watchdog else min(longest, BLIND)), held or 0.0, *leases])
    for begin, end in sorted(tuple(one) for one in never):
        if begin <= at < end:
            at = end
    return at


def moves(known: float | None, wanted: float, now: float) -> bool:
    """Whether the schedule is written anew: there is none, it is too early by a part, or it is too late."""
    if known is None or known > wanted + 1.0:
        return True
    return wanted - known > SLACK * max(wanted - now, 1.0)


def tells(state: dict[str, Any]) -> bool:
    """Whether a look moves the schedule on: one that could not tell anything does not."""
    return state.get("verdict") != UNKNOWN
