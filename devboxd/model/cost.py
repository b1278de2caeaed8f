"""What a set of facts costs: run intervals, volumes, snapshots and public addresses, times a price table.

Money is decimal, never a float. AWS bills by the second, at least a minute for each start of an instance and for
each volume (EC2 and EBS pricing pages), and a GiB-month is a GiB for a calendar month in UTC, so days and months
here are UTC's, too: no clock change moves them.

A snapshot is billed for the blocks that no older one of its line has. Nobody says how many those are, so it has two
bounds: at least one whole copy of the largest that is there, at most all of them whole.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise
from typing import Final

import msgspec
from msgspec.structs import replace

from devboxd.model.price import HOUR, Market, Rates

LEAST: Final = 60.0  # seconds that are billed of whatever was begun
DAY: Final = 86400.0
GIB: Final = 1 << 30
ZERO: Final = Decimal(0)
HABIT: Final = 7 * DAY  # what is forecast from

RatesOf = Callable[[str], Rates]


class Kind(StrEnum):
    """What is billed."""

    COMPUTE = "compute"
    ADDRESS = "address"  # public IPv4
    VOLUME = "volume"
    SNAPSHOT = "snapshot"


class Piece(msgspec.Struct, frozen=True):
    """One thing for one time. ``start`` and ``end``: Unix seconds; no end: it is there still.

    ``what``: instance or volume type. ``line``: which snapshots share blocks (the device). ``stored``: bytes of the
    whole copy, where EC2 says. ``sure``: nobody knows when between it and ``end`` it ended; None: ``end`` is known. ``spot``: its price is the market's, at most that of an instance on demand; ``zone``: of that market, where it is known.
    """

    kind: Kind
    id: str
    project: str  # uid
    region: str
    start: float
    end: float | None = None
    what: str = ""
    gib: int = 0
    iops: int | None = None
    throughput: int | None = None
    line: str = ""
    stored: int | None = None
    spot: bool = False
    zone: str = ""
    sure: float | None = None


class Sum(msgspec.Struct, frozen=True):
    """Dollars by kind; ``more``: what it may be in addition, at most; ``unknown``: what no price is known of."""

    parts: dict[Kind, Decimal] = {}
    more: Decimal = ZERO
    unknown: tuple[str, ...] = ()

    @property
    def total(self) -> Decimal:
        """At least so much."""
        return sum(self.parts.values(), ZERO)

    @property
    def most(self) -> Decimal:
        """At most so much, as far as prices are known."""
        return self.total + self.more

    def plus(self, other: Sum) -> Sum:
        """Both together."""
        parts = dict(self.parts)
        for kind, amount in other.parts.items():
            parts[kind] = parts.get(kind, ZERO) + amount
        return Sum(parts, self.more + other.more, tuple(dict.fromkeys((*self.unknown, *other.unknown))))


# Time ------------------------------------------------------------------------------------------------------


def month_of(at: float) -> str:
    """The month of a moment, as ``2026-11``."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m}"


def day_of(at: float) -> str:
    """The day of a moment, as ``2026-11-26``."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"


def month_bounds(at: float) -> tuple[float, float]:
    """Beginning and end of the month that a moment is in."""
    day = datetime.fromtimestamp(at, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return day.timestamp(), (day + timedelta(days=monthrange(day.year, day.month)[1])).timestamp()


def day_begins(at: float) -> float:
    """The beginning of the day that a moment is in."""
    return at - at % DAY


def months(since: float, until: float) -> Iterator[tuple[float, float, Decimal]]:
    """The parts of a time that lie in one month each, with the seconds of that month."""
    while since < until:
        first, end = month_bounds(since)
        yield since, min(end, until), Decimal(round(end - first))
        since = end


def _seconds(since: float, until: float) -> Decimal:
    return Decimal(round((until - since) * 1000)) / 1000


# Bill ------------------------------------------------------------------------------------------------------


def bill(pieces: Iterable[Piece], rates_of: RatesOf, since: float, until: float) -> Sum:
    """What these pieces cost between two moments. ``until`` is no later than now: nothing is foretold."""
    lines: dict[tuple[str, str, str], list[Piece]] = {}
    found = Sum()
    for piece in pieces:
        if piece.kind is Kind.SNAPSHOT:
            lines.setdefault((piece.project, piece.region, piece.line), []).append(piece)
        else:
            found = found.plus(_charged(piece, rates_of(piece.region), since, until))
    for (_, region, _), line in lines.items():
        found = found.plus(_kept(line, rates_of(region), since, until))
    return found


def _charged(piece: Piece, rates: Rates, since: float, until: float) -> Sum:
    """One instance, address or volume."""
    if piece.sure is not None and piece.end is not None:
        most = _charged(replace(piece, sure=None), rates, since, until)
        least = _charged(_surely(piece), rates, since, until)
        return Sum(least.parts or {piece.kind: ZERO}, most.most - least.total, most.unknown)
    begin, end = max(piece.start, since), min(_end(piece, until), until)
    if begin >= end:
        return Sum()
    if piece.kind is Kind.VOLUME:
        monthly = rates.volume(piece.what, piece.gib, piece.iops, piece.throughput)
        if monthly is None:
            return Sum(unknown=(f"{piece.what or 'unknown'} volumes in {piece.region}",))
        amount = sum((monthly * _seconds(a, b) / month for a, b, month in months(begin, end)), ZERO)
        return Sum({Kind.VOLUME: amount})
    hourly = rates.address if piece.kind is Kind.ADDRESS else rates.hourly(piece.what)
    if piece.spot and (markets := rates.market(piece.what, piece.zone)):
        return _at_market(piece.kind, markets, hourly, begin, end)
    if hourly is None:
        what = "public IPv4 addresses" if piece.kind is Kind.ADDRESS else piece.what or "an unknown type"
        return Sum(unknown=(f"{what} in {piece.region}",))
    amount = hourly * _seconds(begin, end) / HOUR
    return Sum({piece.kind: ZERO}, more=amount) if piece.spot else Sum({piece.kind: amount})


def _surely(piece: Piece) -> Piece:
    """It, for the time that is certain."""
    return piece if piece.sure is None or piece.end is None else replace(piece, end=piece.sure, sure=None)


def _at_market(
    kind: Kind, markets: Iterable[Market], on_demand: Decimal | None, since: float, until: float
) -> Sum:
    """A spot instance by the prices that held then; where its zone is not known, from the cheapest to the dearest one.

    Before the first price that is known it costs nothing at least, and what it would on demand at most.
    """
    least: list[Decimal] = []
    most: list[Decimal] = []
    for market in markets:
        begin, amount = min(max(since, market.prices[0][0]), until), ZERO
        ends = [at for at, _ in market.prices[1:]] + [until]
        for (at, hourly), end in zip(market.prices, ends, strict=True):
            first, last = max(at, begin), min(end, until)
            if first < last:
                amount += hourly * _seconds(first, last) / HOUR
        least.append(amount)
        most.append(amount + (on_demand or ZERO) * _seconds(since, begin) / HOUR)
    return Sum({kind: min(least)}, more=max(most) - min(least))


def _end(piece: Piece, until: float) -> float:
    """When its billing ended; what is there still is billed until now."""
    return until if piece.end is None else max(piece.end, piece.start + LEAST)


def _kept(line: list[Piece], rates: Rates, since: float, until: float) -> Sum:
    """The snapshots of one line, at least and at most. One snapshot that two generations have counts once."""
    spans = [(max(one.start, since), min(_end(one, until), until), one) for one in line]
    spans = [span for span in spans if span[0] < span[1]]
    if not spans:
        return Sum()
    if rates.snapshot is None:
        return Sum(unknown=(f"snapshots in {line[0].region}",))
    moments = sorted({moment for begin, end, _ in spans for moment in (begin, end)})
    least = most = ZERO
    for begin, end in pairwise(moments):
        there = {one.id: one for a, b, one in spans if a <= begin and end <= b}
        share = sum((_seconds(a, b) / month for a, b, month in months(begin, end)), ZERO)
        least += share * max((_gib(one.stored or 0) for one in there.values()), default=ZERO)
        most += share * sum((_whole(one) for one in there.values()), ZERO)
    return Sum({Kind.SNAPSHOT: least * rates.snapshot}, more=(most - least) * rates.snapshot)


def _gib(size: int) -> Decimal:
    return Decimal(size) / GIB


def _whole(one: Piece) -> Decimal:
    return Decimal(one.gib) if one.stored is None else min(Decimal(one.gib), _gib(one.stored))


def by_day(pieces: Iterable[Piece], rates_of: RatesOf, since: float, until: float) -> list[tuple[str, Sum]]:
    """Each day from the one that ``since`` is in, with what it cost; days in UTC, as ``2026-11-26``."""
    known, days = list(pieces), []
    begin = day_begins(since)
    while begin < until:
        end = min(begin + DAY, until)
        days.append((day_of(begin), bill(known, rates_of, begin, end)))
        begin += DAY
    return days


# What it will be -------------------------------------------------------------------------------------------


class Standing(msgspec.Struct, frozen=True):
    """What things cost as they are now. Per month: of 30 days."""

    hourly: Sum  # with everything that is there
    running: Sum  # a month, were the box up all the time
    stopped: Sum  # a month, with volumes and snapshots
    archived: Sum  # a month, with the snapshots alone


MONTH: Final = 30 * DAY


def _month(pieces: Iterable[Piece], rates_of: RatesOf) -> Sum:
    """A month of 30 days of these pieces, as if all were there the whole time. April 2025 has 30."""
    begin, end = month_bounds(datetime(2025, 4, 1, tzinfo=UTC).timestamp())
    return bill([replace(one, start=begin, end=end) for one in pieces], _as_now(rates_of), begin, end)


def _as_now(rates_of: RatesOf) -> RatesOf:
    """The same rates with the spot prices of now for all times: what is imagined has no history."""

    def rates(region: str) -> Rates:
        known = rates_of(region)
        if not known.markets:
            return known
        last = tuple(replace(one, prices=((0.0, one.prices[-1][1]),)) for one in known.markets if one.prices)
        return replace(known, markets=last)

    return rates


def standing(pieces: Iterable[Piece], rates_of: RatesOf, *, last: Piece | None = None) -> Standing:
    """What a project costs from now on, as it is and as it could be.

    ``last``: its box as it ran last, for a project whose box is down.
    """
    there = [one for one in pieces if one.end is None]
    disks = [one for one in there if one.kind in (Kind.VOLUME, Kind.SNAPSHOT)]
    boxes = [one for one in there if one not in disks]
    up = boxes or ([] if last is None else [last, replace(last, kind=Kind.ADDRESS)])
    begin = datetime(2025, 4, 1, tzinfo=UTC).timestamp()
    now = [replace(one, start=begin, end=None) for one in there]
    return Standing(
        bill(now, _as_now(rates_of), begin, begin + HOUR),
        _month([*disks, *up], rates_of),
        _month(disks, rates_of),
        _month([one for one in disks if one.kind is Kind.SNAPSHOT], rates_of),
    )


class Forecast(msgspec.Struct, frozen=True):
    """What the month will have cost if it goes on as in the ``days`` before now."""

    total: Sum
    days: float


def forecast(pieces: Iterable[Piece], rates_of: RatesOf, now: float, so_far: Sum) -> Forecast:
    """The month ``so_far``, and for what is left of it the average of the last seven days (or of all there is)."""
    known = list(pieces)
    _, end = month_bounds(now)
    first = min((one.start for one in known), default=now)
    habit = min(HABIT, max(now - first, 0.0))
    if habit <= 0:
        return Forecast(so_far, 0.0)
    recent = bill(known, rates_of, now - habit, now)
    return Forecast(so_far.plus(scaled(recent, _seconds(now, end) / _seconds(0, habit))), habit / DAY)


def scaled(one: Sum, factor: Decimal) -> Sum:
    """So many times as much."""
    return Sum({kind: amount * factor for kind, amount in one.parts.items()}, one.more * factor, one.unknown)


class Otherwise(msgspec.Struct, frozen=True):
    """Something that could be different: another type, other hours a month, or another state."""

    type: str | None = None
    hours: Decimal | None = None
    down: str = ""  # stopped or archived


def otherwise(pieces: Iterable[Piece], rates_of: RatesOf, now: float, asked: Otherwise) -> Sum:
    """A month of 30 days of a project, were it as asked; what is not asked is as in the last seven days.

    A type is assumed in the region of the box; volumes and snapshots stay as they are now.
    """
    known = list(pieces)
    there = [one for one in known if one.end is None and one.kind in (Kind.VOLUME, Kind.SNAPSHOT)]
    if asked.down == "archived":
        return _month([one for one in there if one.kind is Kind.SNAPSHOT], rates_of)
    disks = _month(there, rates_of)
    if asked.down:
        return disks
    boxes = sorted((one for one in known if one.kind is Kind.COMPUTE), key=lambda one: one.start)
    if not boxes:
        return disks
    last = replace(boxes[-1], what=asked.type or boxes[-1].what, spot=boxes[-1].spot and not asked.type)
    hours = asked.hours if asked.hours is not None else _habit(boxes, now)
    begin = datetime(2025, 4, 1, tzinfo=UTC).timestamp()
    hour = [replace(last, start=begin, end=begin + HOUR)]
    hour.append(replace(hour[0], kind=Kind.ADDRESS, spot=False))
    return disks.plus(scaled(bill(hour, _as_now(rates_of), begin, begin + HOUR), hours))


def _habit(boxes: list[Piece], now: float) -> Decimal:
    """Hours a month of 30 days, as in the last seven days."""
    since = max(now - HABIT, min(one.start for one in boxes))
    ran = sum(
        (max(ZERO, _seconds(max(one.start, since), min(_end(_surely(one), now), now))) for one in boxes), ZERO
    )
    return ran / HOUR * Decimal(round(MONTH)) / max(_seconds(since, now), Decimal(1))
