"""What AWS has billed of a month, beside what we count: of one owner, up to and without today, in UTC.

Cost Explorer lags about a day, and knows a tag only from when it was activated for cost allocation on.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec

from devboxd.model.cost import DAY, day_begins, month_bounds

NOTABLE: Final = Decimal("0.50")  # dollars that we count, above which it is said that AWS shows nothing


class Billed(msgspec.Struct, frozen=True):
    """``begin`` and ``end`` of the time that was asked about, and when: Unix seconds. ``projects``: by name.

    ``estimated``: AWS still changes it.
    """

    owner: str
    begin: float
    end: float
    asked: float
    total: Decimal
    projects: dict[str, Decimal] = {}
    estimated: bool = False


def period(now: float) -> tuple[float, float] | None:
    """The part of this month that is over by days; None on its first day."""
    begin, end = month_bounds(now)[0], day_begins(now)
    return (begin, end) if begin < end else None


def is_due(known: Billed | None, now: float) -> bool:
    """Say whether it may be asked again: once a day at most, also by a clock that has gone back a month."""
    return period(now) is not None and (known is None or not -31 * DAY < now - known.asked < DAY)


def is_silent(billed: Decimal, counted: Decimal) -> bool:
    """Say whether AWS shows nothing where there is something: the tags are not active for cost allocation."""
    return billed == 0 and counted >= NOTABLE
