"""The meter against a bill that is computed in another way: from what happened at AWS, second by second rules, fractions."""

from __future__ import annotations

import calendar
import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from devboxd.model import cost, ledger, meter
from devboxd.model.box import Account
from devboxd.model.change import stopped
from devboxd.model.cost import Kind, Otherwise, Piece, Sum, bill, by_day, forecast, otherwise, standing
from devboxd.model.ledger import Event, Item, Ledger
from devboxd.model.price import Market, Rates, built_in, region_of
from devboxd.model.project import (
    Disk,
    Generation,
    GenerationState,
    Phase,
    Place,
    Project,
    Quality,
    Run,
    Span,
)
from devboxd.model.seen import Box
from devboxd.model.states import InstanceState
from devboxd.model.step import Erase, Write
from tests.model.scenes import RUN

REGION = "eu-central-1"
RATES = built_in(REGION)
HOUR, DAY = 3600.0, 86400.0
# Figures of the bill, written down again: what the table says must not be taken from the table.
HOURLY = {"m7g.large": "0.0978", "t4g.medium": "0.0384", "m7i.xlarge": "0.2415", "g5.xlarge": "1.258"}
GIB = {"gp3": "0.0952", "gp2": "0.119", "st1": "0.054", "io2": "0.149"}
SNAPSHOT, ADDRESS = "0.054", "0.005"


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def rates(_: str) -> Rates:
    return RATES


def piece(kind: Kind, start: str, end: str | None = None, **more: Any) -> Piece:
    return Piece(kind, more.pop("id", "x"), "uid", REGION, at(start), at(end) if end else None, **more)


# The little biller ------------------------------------------------------------------------------------------


def share_of_month(start: float, end: float) -> Fraction:
    """Months that a time is, walked day by day."""
    total, here = Fraction(0), start
    while here < end:
        day = datetime.fromtimestamp(here, UTC)
        following = min(end, (here // DAY + 1) * DAY)
        days = calendar.monthrange(day.year, day.month)[1]
        total += Fraction(round(following - here), days * 86400)
        here = following
    return total


def billed(lines: Iterable[tuple[str, Fraction, float, float]], since: float, until: float) -> Fraction:
    """``hour`` or ``month``, price, start and end of what AWS would have on its bill."""
    total = Fraction(0)
    for unit, price, start, end in lines:
        a, b = max(start, since), min(max(end, start + 60), until)
        if a < b:
            total += price * (Fraction(round(b - a), 3600) if unit == "hour" else share_of_month(a, b))
    return total


# Histories --------------------------------------------------------------------------------------------------


class History:
    """A project through the steps that the pipeline would write, and beside it what AWS would bill of that."""

    def __init__(self, dice: random.Random, begin: float) -> None:
        self.dice, self.now, self.serial = dice, begin, 0
        self.items: dict[str, Item] = {}
        project = Project("uid", "api", "me", Account("p", REGION), since=begin)
        self.ledger = Ledger(project, versions={})
        self._store(ledger.created(project, "op", Event(begin, "create", "me", "x")))
        self.ledger = Ledger(project, versions={item.key: item.version for item in self.items.values()})
        self.lines: list[tuple[str, Fraction, float, float]] = []
        self.copies: list[tuple[float, float, int]] = []  # start, end, GiB of the volume
        self.volumes: dict[str, tuple[float, str, int]] = {}
        self.kept: dict[int, tuple[float, list[int]]] = {}
        self.up: tuple[float, str] | None = None

    def _store(self, changes: list[ledger.Change]) -> None:
        for change in changes:
            assert (self.items[change.key].version if change.key in self.items else 0) == change.expects
            if change.body is None:
                del self.items[change.key]
            else:
                body = msgspec.json.decode(msgspec.json.encode(change.body))
                self.items[change.key] = Item(change.key, change.expects + 1, body)

    def write(self, project: Project, **more: Any) -> None:
        self.serial += 1
        step, op = Write("x", project, "x", **more), f"op{self.serial}"
        self._store(ledger.written(self.ledger, step, op, Event(self.now, "x", "me", "x")))
        self.ledger = ledger.after(self.ledger, step, op)

    def later(self, least: float, most: float) -> None:
        self.now += float(self.dice.randint(int(least), int(most)))

    def launch(self) -> None:
        project, number = self.ledger.project, self.ledger.project.run + 1
        type_ = self.dice.choice(list(HOURLY))
        token = f"uid-{number}-0"
        run = Run(number, project.head, "ami", (Place(type_, f"{REGION}a"),), (), {})
        self.write(replace(project, run=number, phase=Phase.LAUNCHING), run=run)
        disks = []
        for place in range(self.dice.randint(1, 3)):
            kind, gib = self.dice.choice(list(GIB)), self.dice.randint(8, 500)
            name = f"vol-{number}-{place}"
            disks.append(Disk(f"/dev/sd{place}", gib, kind, volume=name))
            self.volumes[name] = (self.now, kind, gib)
        begun = Span(self.now, type=type_, address=True)
        self.up = (self.now, type_)
        self.later(5, 90)
        run = replace(run, token=token, instance=f"i-{number}", disks=tuple(disks), spans=(begun,))
        self.write(replace(self.ledger.project, phase=Phase.RUNNING), run=run)

    def stop(self) -> None:
        assert self.up is not None
        assert self.ledger.run is not None
        start, type_ = self.up
        self.lines += [
            ("hour", Fraction(HOURLY[type_]), start, self.now),
            ("hour", Fraction(ADDRESS), start, self.now),
        ]
        *earlier, last = self.ledger.run.spans
        run = replace(self.ledger.run, spans=(*earlier, replace(last, end=self.now)))
        self.up = None
        self.later(1, 4000)  # the daemon sees it later; EC2 says when it was
        self.write(replace(self.ledger.project, phase=Phase.SAVING), run=run)

    def save(self) -> None:
        """A generation, and with four of them the oldest goes."""
        project, run = self.ledger.project, self.ledger.run
        assert run is not None
        number = project.head + 1
        disks = tuple(replace(one, snapshot=f"snap-{number}-{one.device}") for one in run.disks)
        made = Generation(number, "ami", run.number, number, disks, run.boot, Quality.CLEAN, self.now)
        self.kept[number] = (self.now, [one.size_gib for one in disks])
        self.write(replace(project, head=number, phase=Phase.WARM), generations=(made,))
        if len(self.kept) > 4:
            oldest = min(self.kept)
            self.later(1, 2000)
            old = next(one for one in self.ledger.generations if one.number == oldest)
            self.write(self.ledger.project, generations=(replace(old, state=GenerationState.DELETING),))
            self.later(1, 100)
            start, sizes = self.kept.pop(oldest)
            self.copies += [(start, self.now, gib) for gib in sizes]
            self.write(self.ledger.project, erased=(oldest,))

    def start_again(self) -> None:
        """Warm, and often as another type."""
        run = self.ledger.run
        assert run is not None
        type_ = self.dice.choice(list(HOURLY))
        self.up = (self.now, type_)
        spans = (*run.spans, Span(self.now, type=type_, address=True))
        self.write(replace(self.ledger.project, phase=Phase.RUNNING), run=replace(run, spans=spans))

    def grow(self) -> None:
        """A volume becomes larger, or of another type, while the box runs."""
        run = self.ledger.run
        assert run is not None
        disk = self.dice.choice(run.disks)
        assert disk.volume is not None
        assert disk.type is not None
        kind, gib = self.dice.choice(list(GIB)), disk.size_gib + self.dice.randint(1, 200)
        start, old, size = self.volumes[disk.volume]
        self.lines.append(("month", Fraction(GIB[old]) * size, start, self.now))
        self.volumes[disk.volume] = (self.now, kind, gib)
        disks = tuple(replace(d, size_gib=gib, type=kind) if d == disk else d for d in run.disks)
        self.write(self.ledger.project, run=replace(run, disks=disks))

    def release(self) -> None:
        """The instance goes, and its volumes after the grace."""
        project = self.ledger.project
        self.write(replace(project, closed=project.run, phase=Phase.READY))
        self._drop_volumes(self.now + project.policy.grace)

    def _drop_volumes(self, end: float) -> None:
        for start, kind, gib in self.volumes.values():
            self.lines.append(("month", Fraction(GIB[kind]) * gib, start, end))
        self.volumes.clear()

    def delete(self) -> None:
        if self.up is not None:
            start, type_ = self.up
            for price in (HOURLY[type_], ADDRESS):
                self.lines.append(("hour", Fraction(price), start, self.now))
            self.up = None
        gone = tuple(replace(one, state=GenerationState.DELETING) for one in self.ledger.generations)
        self.write(replace(self.ledger.project, phase=Phase.DELETING, since=self.now), generations=gone)
        self.later(60, 600)
        own = [item for item in self.items.values() if item.key[0] in "MNRG"]
        step = Erase(self.ledger.project, "deleted")
        self._store(ledger.erased(self.ledger, step, own, "last", self.now))
        for start, sizes in self.kept.values():
            self.copies += [(start, self.now, gib) for gib in sizes]
        self.kept.clear()
        self._drop_volumes(self.now)

    def live(self, until: float) -> None:
        """Any of it, in an order that can be."""
        while self.now < until:
            self.launch()
            for _ in range(self.dice.randint(1, 4)):
                if self.dice.random() < 0.5:
                    self.later(0, 3 * 86400)
                    self.grow()
                self.later(*self.dice.choice([(1, 50), (600, 7200), (36000, 400000)]))
                self.stop()
                self.save()
                if self.dice.random() < 0.5:
                    break
                self.later(0, 40000)
                self.start_again()
            if self.up is not None:
                self.later(0, 40000)
                self.stop()
                self.save()
            self.later(0, 43200)
            self.release()
            self.later(400, 200000)
        if self.dice.random() < 0.5:
            self.launch()
            self.later(100, 500000)
            if self.dice.random() < 0.3:
                self.delete()

    def pieces(self) -> list[Piece]:
        notes = ledger.notes(item for key, item in self.items.items() if key.startswith("C#"))
        rows = [item for key, item in self.items.items() if key.startswith("M#")]
        if not rows:
            return meter.in_turn([one for note in notes for one in note.pieces])
        runs = ledger.runs(item for key, item in self.items.items() if key.startswith("R#"))
        generations = ledger.generations(item for key, item in self.items.items() if key.startswith("G#"))
        return meter.facts(ledger.row(rows[0]), runs, generations, notes)

    def bill(self, since: float, until: float) -> tuple[Fraction, Fraction]:
        """What is certain, and what the snapshots may be at most."""
        lines = list(self.lines)
        if self.up is not None:
            lines += [
                ("hour", Fraction(HOURLY[self.up[1]]), self.up[0], until),
                ("hour", Fraction(ADDRESS), self.up[0], until),
            ]
        lines += [
            ("month", Fraction(GIB[kind]) * gib, start, until) for start, kind, gib in self.volumes.values()
        ]
        copies = [
            *self.copies,
            *((start, until, gib) for start, sizes in self.kept.values() for gib in sizes),
        ]
        most = [("month", Fraction(SNAPSHOT) * gib, start, end) for start, end, gib in copies]
        return billed(lines, since, until), billed(most, since, until)


@pytest.mark.parametrize("begin", ["2023-12-27T00:00:00", "2024-02-20T03:17:11", "2026-03-20T00:00:00"])
def test_the_meter_agrees_with_an_independent_bill(begin: str) -> None:
    """Over month ends, a leap day and the nights when clocks change: to a hundredth of a per cent, not only to one."""
    worst = Fraction(0)
    for seed in range(25):
        history = History(random.Random(f"{begin} {seed}"), at(begin))
        history.live(at(begin) + 45 * DAY)
        pieces = history.pieces()
        first, end = cost.month_bounds(at(begin))
        windows = [(first, history.now), (end, min(end + 20 * DAY, history.now)), (end - 7, end + 7)]
        for since, until in windows:
            certain, copies = history.bill(since, until)
            found = bill(pieces, rates, since, until)
            assert not found.unknown
            total = Fraction(sum((v for k, v in found.parts.items() if k is not Kind.SNAPSHOT), Decimal(0)))
            assert abs(total - certain) <= max(certain, Fraction(1, 100)) / 10_000, (seed, since, until)
            most = Fraction(found.parts.get(Kind.SNAPSHOT, Decimal(0)) + found.more)
            assert abs(most - copies) <= max(copies, Fraction(1, 100)) / 10_000, (seed, since, until)
            if certain:
                worst = max(worst, abs(total - certain) / certain)
    assert worst < Fraction(1, 10_000)


def test_the_sum_of_the_days_is_the_month() -> None:
    """To the last digit that matters, whichever way it is cut."""
    history = History(random.Random(4), at("2026-02-10T10:00:00"))
    history.live(at("2026-03-28T00:00:00"))
    since, until = (
        cost.month_bounds(at("2026-03-01T00:00:00"))[0],
        min(history.now, at("2026-04-01T00:00:00")),
    )
    days = by_day(history.pieces(), rates, since, until)
    whole = bill(history.pieces(), rates, since, until)
    assert days[0][0] == "2026-03-01"
    assert sum(one.total for _, one in days) == pytest.approx(whole.total, rel=Decimal("1e-12"))
    assert sum(one.most for _, one in days) == pytest.approx(whole.most, rel=Decimal("1e-12"))


# Rules ------------------------------------------------------------------------------------------------------


def total(*pieces: Piece, since: str = "2026-01-01T00:00:00", until: str = "2027-01-01T00:00:00") -> Decimal:
    return bill(pieces, rates, at(since), at(until)).total


def test_a_start_is_a_minute_at_least() -> None:
    short = piece(Kind.COMPUTE, "2026-05-01T10:00:00", "2026-05-01T10:00:04", what="m7g.large")
    assert total(short) == Decimal("0.0978") / 60
    longer = piece(Kind.COMPUTE, "2026-05-01T10:00:00", "2026-05-01T10:01:01", what="m7g.large")
    assert total(longer) == Decimal("0.0978") * 61 / 3600


@given(
    ends=st.lists(st.integers(0, 40 * 86400), min_size=3, max_size=3).map(sorted),
    cut=st.integers(0, 50 * 86400),
    spot=st.booleans(),
)
def test_what_ended_nobody_knows_when_costs_between_two_bounds(ends: list[int], cut: int, spot: bool) -> None:
    """At least until it was seen last, at most until it was seen to have ended; also in parts, and at the market."""
    first = at("2026-01-10T00:00:00")
    start, sure, end = (first + one for one in ends)
    until, split = first + 60 * DAY, first + cut
    known = Piece(Kind.COMPUTE, "x", "uid", REGION, start, end, "m7g.large", spot=spot, sure=sure)
    found = bill([known], rates, first, until)
    whole = bill([replace(known, sure=None)], rates, first, until)
    least = bill([replace(known, sure=None, end=sure)], rates, first, until)
    assert (found.total, found.most) == (least.total, whole.most)
    parts = bill([known], rates, first, split).plus(bill([known], rates, split, until))
    assert abs(parts.total - found.total) + abs(parts.most - found.most) < Decimal("1e-20")
    if not spot:
        assert found.more <= Decimal(HOURLY["m7g.large"]) * (ends[2] - ends[1]) / 3600 + Decimal("1e-20")


STOPS = [
    ("EC2's time", 150.0, 300.0, 140.0, (150.0, None)),
    ("an older stop's time", 50.0, 300.0, 140.0, (300.0, 140.0)),
    ("no time", None, 300.0, 140.0, (300.0, 140.0)),
    ("nobody remembers", None, 300.0, 0.0, (300.0, 100.0)),
    ("seen just now", None, 300.0, 300.0, (300.0, None)),
    ("seen later, by another clock", None, 300.0, 400.0, (300.0, None)),
    ("a clock that went back", None, 90.0, 95.0, (100.0, None)),
]


@pytest.mark.parametrize(
    ("ec2", "seen", "ran", "expected"), [row[1:] for row in STOPS], ids=[row[0] for row in STOPS]
)
def test_a_run_ends_at_what_is_known(
    ec2: float | None, seen: float, ran: float, expected: tuple[float, float | None]
) -> None:
    run = replace(RUN, spans=(Span(10.0, 20.0), Span(100.0)))
    first, last = stopped(run, Box("i-1", InstanceState.STOPPED, 100.0, stopped=ec2), seen, ran)
    assert first == Span(10.0, 20.0)
    assert (last.end, last.sure) == expected


@pytest.mark.parametrize(
    ("told", "end"),
    [(150.0, 150.0), (90.0, 100.0), (-190.0, 100.0), (-201.0, None), (2200.0, 2000.0), (2301.0, None)],
)
def test_a_note_of_the_box_settles_when_it_ended_within_what_was_seen(told: float, end: float | None) -> None:
    sure = Span(10.0, 20.0)
    run = replace(RUN, spans=(sure, Span(50.0, 2000.0, sure=100.0), Span(3000.0)))
    found = meter.told(run, told)
    assert (found and found.spans) == (end and (sure, Span(50.0, end), Span(3000.0)))
    assert found is None or meter.told(found, told) is None, "once"


def test_a_gib_month_is_a_month_whatever_its_length() -> None:
    for year, month in ((2024, 2), (2026, 2), (2026, 4), (2026, 12)):
        first = datetime(year, month, 1, tzinfo=UTC).timestamp()
        since, until = cost.month_bounds(first)
        disk = Piece(Kind.VOLUME, "v", "uid", REGION, since, until, "gp3", 100)
        assert bill([disk], rates, since, until).total == Decimal("9.52")


def test_a_clock_change_is_no_hour_more_or_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Berlin puts its clocks forward on 2026-03-29, and back on 2026-10-25: UTC does not."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    for day in ("2026-03-29", "2026-10-25"):
        box = piece(Kind.COMPUTE, f"{day}T00:00:00", None, what="m7g.large")
        found = by_day([box], rates, box.start, box.start + DAY)
        assert [(name, one.total) for name, one in found] == [(day, Decimal("0.0978") * 24)]


def test_provisioned_performance_is_paid_above_what_is_in_the_price() -> None:
    month = {"start": "2026-04-01T00:00:00", "end": "2026-05-01T00:00:00"}
    assert total(piece(Kind.VOLUME, **month, what="gp3", gib=100, iops=3000, throughput=125)) == Decimal(
        "9.52"
    )
    more = piece(Kind.VOLUME, **month, what="gp3", gib=200, iops=6000, throughput=500)
    assert total(more) == Decimal("19.04") + Decimal("0.006") * 3000 + Decimal("0.0476") * 375
    tiers = piece(Kind.VOLUME, **month, what="io2", gib=1, iops=65000)
    assert total(tiers) == Decimal("4294.149")


def test_what_has_no_price_is_named_and_not_free() -> None:
    box = piece(Kind.COMPUTE, "2026-05-01T10:00:00", "2026-05-01T11:00:00", what="x99.large")
    disk = piece(Kind.VOLUME, "2026-05-01T10:00:00", "2026-05-02T10:00:00", what="gp9", gib=4)
    found = bill([box, disk], rates, at("2026-05-01T00:00:00"), at("2026-06-01T00:00:00"))
    assert found == Sum({}, unknown=("x99.large in eu-central-1", "gp9 volumes in eu-central-1"))
    nowhere = built_in("mars-north-1")
    found = bill([replace(box, what="m7g.large")], lambda _: nowhere, box.start, box.start + HOUR)
    assert found.unknown == ("m7g.large in eu-central-1",)


def test_snapshots_have_two_bounds() -> None:
    """Three generations of a 100 GiB volume of which 40 GiB are used: 40 GiB at least, 120 GiB at most."""
    month = {"start": "2026-04-01T00:00:00", "end": "2026-05-01T00:00:00", "line": "/dev/xvda"}
    copies = [piece(Kind.SNAPSHOT, **month, id=f"s{n}", gib=100, stored=40 << 30) for n in range(3)]
    found = bill(copies, rates, at("2026-04-01T00:00:00"), at("2026-05-01T00:00:00"))
    assert (found.total, found.most) == (Decimal("2.16"), Decimal("6.48"))
    silent = [replace(one, stored=None) for one in copies]
    found = bill(silent, rates, at("2026-04-01T00:00:00"), at("2026-05-01T00:00:00"))
    assert (found.total, found.most) == (Decimal(0), Decimal("16.2"))


def test_a_spot_box_is_at_most_what_it_is_on_demand() -> None:
    box = piece(Kind.COMPUTE, "2026-05-01T10:00:00", "2026-05-01T11:00:00", what="m7g.large", spot=True)
    found = bill([box], rates, box.start, box.start + HOUR)
    assert (found.total, found.most) == (Decimal(0), Decimal("0.0978"))


def market(zone: str, *prices: tuple[str, str]) -> Market:
    return Market("m7g.large", zone, tuple((at(when), Decimal(price)) for when, price in prices))


def at_market(*markets: Market) -> Callable[[str], Rates]:
    return lambda _: replace(RATES, markets=markets)


def test_a_spot_box_costs_what_its_market_asked_at_the_time() -> None:
    """An hour at 0.03, two at 0.05; before the first price that is known, at most as on demand."""
    here = market("eu-central-1a", ("2026-05-01T08:00:00", "0.03"), ("2026-05-01T11:00:00", "0.05"))
    other = market("eu-central-1b", ("2026-05-01T08:00:00", "0.01"))
    box = piece(
        Kind.COMPUTE,
        "2026-05-01T10:00:00",
        "2026-05-01T13:00:00",
        what="m7g.large",
        spot=True,
        zone="eu-central-1a",
    )
    found = bill([box], at_market(here, other), box.start, box.start + 3 * HOUR)
    assert (found.total, found.most, found.unknown) == (Decimal("0.13"), Decimal("0.13"), ())
    late = market("eu-central-1a", ("2026-05-01T12:00:00", "0.03"))
    found = bill([box], at_market(late), box.start, box.start + 3 * HOUR)
    assert (found.total, found.most) == (Decimal("0.03"), Decimal("0.03") + 2 * Decimal("0.0978"))
    nowhere = replace(box, zone="")
    found = bill([nowhere], at_market(here, other), box.start, box.start + 3 * HOUR)
    assert (found.total, found.most) == (Decimal("0.03"), Decimal("0.13"))
    elsewhere = replace(box, zone="eu-central-1c")
    found = bill([elsewhere], at_market(here), box.start, box.start + 3 * HOUR)
    assert (found.total, found.most) == (Decimal(0), 3 * Decimal("0.0978"))
    # A type that no list has a price of is known by its market; an ordinary box never is.
    odd = replace(here, type="z9.odd")
    found = bill([replace(box, what="z9.odd")], at_market(odd), box.start, box.start + 3 * HOUR)
    assert (found.total, found.unknown) == (Decimal("0.13"), ())
    plain = replace(box, spot=False)
    assert bill([plain], at_market(here), box.start, box.start + HOUR).total == Decimal("0.0978")


@given(
    begin=st.floats(0, 48),
    length=st.floats(0.1, 48),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(-10, 60), st.integers(1, 9)), min_size=1, max_size=8),
)
def test_parts_of_a_time_at_the_market_are_together_the_whole(
    begin: float, length: float, cut: float, changes: list[tuple[float, int]]
) -> None:
    base = at("2026-05-01T00:00:00")
    prices = dict(sorted((round(base + hour * HOUR, 3), Decimal(cents) / 100) for hour, cents in changes))
    one = Market("m7g.large", "eu-central-1a", tuple(prices.items()))
    start, end = round(base + begin * HOUR, 3), round(base + (begin + length) * HOUR, 3)
    middle = round(start + cut * (end - start), 3)
    box = Piece(Kind.COMPUTE, "x", "uid", REGION, start, None, "m7g.large", spot=True, zone="eu-central-1a")
    whole = bill([box], at_market(one), start, end)
    parts = bill([box], at_market(one), start, middle).plus(bill([box], at_market(one), middle, end))
    assert abs(whole.total - parts.total) < Decimal("0.000001")
    assert abs(whole.most - parts.most) < Decimal("0.000001")
    assert whole.total <= whole.most


def test_what_is_imagined_is_priced_by_the_market_of_now() -> None:
    here = market("eu-central-1a", ("2026-05-01T08:00:00", "0.03"), ("2026-05-01T11:00:00", "0.05"))
    box = piece(Kind.COMPUTE, "2026-05-01T10:00:00", None, what="m7g.large", spot=True, zone="eu-central-1a")
    found = standing([box], at_market(here))
    assert (found.hourly.total, found.running.total) == (Decimal("0.05"), Decimal("36.00"))
    then = otherwise([box], at_market(here), at("2026-05-02T10:00:00"), Otherwise(hours=Decimal(10)))
    assert then.total == Decimal("0.5") + Decimal("0.05")  # ten hours, and their address


# What it will be --------------------------------------------------------------------------------------------

BOX = piece(Kind.COMPUTE, "2026-04-10T00:00:00", None, what="m7g.large")
ROOT = piece(Kind.VOLUME, "2026-04-10T00:00:00", None, what="gp3", gib=100)
COPY = piece(Kind.SNAPSHOT, "2026-04-10T00:00:00", None, gib=100, stored=40 << 30)
ALL = [BOX, replace(BOX, kind=Kind.ADDRESS), ROOT, COPY]


def test_the_worked_example_of_a_project() -> None:
    """100 GiB of gp3, 40 GiB of them used: what an hour is, and what stopping and archiving leave of a month."""
    found = standing(ALL, rates)
    assert found.stopped.total == Decimal("9.52") + Decimal("2.16")
    assert found.archived.total == Decimal("2.16")
    assert found.running.total == found.stopped.total + (Decimal("0.0978") + Decimal("0.005")) * 720
    assert found.hourly.total == pytest.approx(
        Decimal("0.0978") + Decimal("0.005") + found.stopped.total / 720, rel=Decimal("1e-9")
    )
    down = standing([ROOT, COPY], rates, last=replace(BOX, end=at("2026-04-11T00:00:00")))
    assert down.running.total == found.running.total
    assert down.hourly.total == pytest.approx(found.stopped.total / 720, rel=Decimal("1e-9"))


def test_a_forecast_goes_on_as_the_last_seven_days_were() -> None:
    """Half of the time up: half of what is left of the month is paid for."""
    days = [
        piece(Kind.COMPUTE, f"2026-04-{day:02}T00:00:00", f"2026-04-{day:02}T12:00:00", what="m7g.large")
        for day in range(1, 21)
    ]
    begin, now = at("2026-04-01T00:00:00"), at("2026-04-21T00:00:00")
    found = forecast(days, rates, now, bill(days, rates, begin, now))
    assert found.days == 7
    assert found.total.total == pytest.approx(Decimal("0.0978") * 12 * 30, rel=Decimal("1e-9"))
    assert forecast([], rates, now, bill([], rates, begin, now)).total.total == 0


def test_what_if() -> None:
    now = at("2026-04-12T00:00:00")
    disks = Decimal("9.52") + Decimal("2.16")

    def month(asked: Otherwise) -> Decimal:
        return otherwise(ALL, rates, now, asked).total

    assert month(Otherwise(down="archived")) == Decimal("2.16")
    assert month(Otherwise(down="stopped")) == disks
    assert month(Otherwise(hours=Decimal(100))) == disks + Decimal("10.28")
    assert month(Otherwise("t4g.medium", Decimal(100))) == disks + Decimal("4.34")
    assert month(Otherwise("t4g.medium")) == disks + Decimal("0.0434") * 720  # it never stopped so far
    assert otherwise(ALL, rates, now, Otherwise("x99.large")).unknown == ("x99.large in eu-central-1",)


# Facts ------------------------------------------------------------------------------------------------------


def test_a_project_of_before_the_meter_is_billed_from_its_runs() -> None:
    """Rows that an older version wrote say neither type nor address of a span."""
    project = Project("uid", "api", "me", Account(None, None), run=1)
    run = Run(
        1,
        0,
        "ami",
        (Place("m7g.large", "eu-central-1b"),),
        (),
        {},
        token="uid-1-0",
        spans=(Span(10.0, 20.0),),
    )
    found = meter.facts(project, [run], [], [])
    assert [(one.kind, one.what, one.region) for one in found] == [
        (Kind.COMPUTE, "m7g.large", "eu-central-1"),
        (Kind.ADDRESS, "m7g.large", "eu-central-1"),
    ]


def test_a_snapshot_of_two_generations_counts_once_and_from_the_first() -> None:
    """A rollback makes a new generation of an old image; the old one may go first."""
    disk = Disk("/dev/xvda", 10, snapshot="snap-1")
    old = Generation(1, "ami", 1, 1, (disk,), BOOT_OF, Quality.CLEAN, 100.0)
    new = replace(old, number=2, created=500.0)
    project = Project("uid", "api", "me", Account(None, REGION), head=2)
    both, later = meter.held(project, None, [new, old]), meter.held(project, None, [new])
    assert [(one.start, one.end) for one in both.values()] == [(100.0, None)]
    ended = meter.ended(both, later, 900.0, 300.0)
    assert [(one.start, one.end) for one in ended] == [(100.0, 500.0)]
    assert [(one.start, one.end) for one in meter.in_turn([*later.values(), *ended])] == [
        (100.0, 500.0),
        (500.0, None),
    ]


BOOT_OF = Run(1, 0, "ami", (), (), {}).boot


def test_the_region_of_a_zone() -> None:
    assert region_of("us-east-1a") == "us-east-1"
    assert region_of("us-gov-west-1b") == "us-gov-west-1"
    assert region_of("us-west-2-lax-1a") is None
    assert region_of("us-east-1-wl1-bos-wlz-1") is None
    assert region_of(None) is None


def test_the_built_in_table_says_that_it_is() -> None:
    assert RATES.built_in
    assert RATES.date == "2025-11-03"
    assert "built in" in RATES.source
    assert {name: str(RATES.hourly(name)) for name in HOURLY} == HOURLY
    assert RATES.hourly("p4d.24xlarge") is not None
    assert built_in("us-west-1").hourly("p4d.24xlarge") is None
    assert all(one.hourly is None or one.hourly > 0 for one in RATES.types.values())
