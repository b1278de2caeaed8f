"""What projects cost, for whoever asks: facts from the book, prices at hand. Nothing is asked of AWS while one waits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

import msgspec

from devboxd.control.base.shared import Shared
from devboxd.control.lifecycle.bills import Bills
from devboxd.control.lifecycle.book import Book
from devboxd.control.lifecycle.order import LaunchWish, source_of
from devboxd.control.lifecycle.prices import Prices
from devboxd.model import cost, meter, offer
from devboxd.model.box import Account
from devboxd.model.cost import Kind, Otherwise, Piece, Standing, Sum
from devboxd.model.ledger import Ledger
from devboxd.model.price import Rates
from devboxd.model.project import Generation, Project
from devboxd.model.wish import ProjectNotFound, is_same


class Line(msgspec.Struct, frozen=True):
    """What one project, owner or everything costs: sums as of ``Report.at``."""

    name: str
    project: Project | None  # None: it is gone, or this is of several
    today: Sum
    month: Sum
    forecast: cost.Forecast
    standing: Standing
    region: str = ""
    type: str = ""


class Compared(msgspec.Struct, frozen=True):
    """What AWS has billed to one owner up to a day, and what we count for the same time. ``problem``: why it is not known."""

    owner: str
    until: float = 0.0  # the beginning of the first day that is not in it
    billed: Decimal | None = None
    counted: Sum = Sum()
    problem: str = ""


class Report(msgspec.Struct, frozen=True):
    """Lines by name, and all of them together. ``days``: of this month. ``rates``: by region, those that were used."""

    at: float
    lines: tuple[Line, ...]
    total: Line
    days: tuple[tuple[str, Sum], ...]
    rates: tuple[tuple[Rates, str], ...]  # and why there are no newer ones
    compared: tuple[Compared, ...] = ()
    markets: Mapping[
        str, tuple[float | None, str]
    ] = {}  # by region: when spot prices were asked for, and why not


class Quote(msgspec.Struct, frozen=True):
    """What a box would cost: an hour, as the list of projects has it, and months of 30 days; both with disks."""

    type: str
    region: str
    spot: bool
    hour: Sum
    standing: Standing
    rates: Rates
    problem: str = ""
    market: tuple[float | None, str] | None = None  # of a spot box: when its price was asked for, and why not


class Answer(msgspec.Struct, frozen=True):
    """A month of 30 days as in the last seven days, and as it would be."""

    now: Sum
    then: Sum


@dataclass(frozen=True, slots=True)
class Facts:
    """All that there is to bill, by project; rows of those that are there, names and owners of all."""

    rows: Mapping[str, Project]
    pieces: Mapping[str, list[Piece]]
    names: Mapping[str, str]
    owners: Mapping[str, str]
    types: Mapping[str, str]
    regions: Mapping[str, str]


@dataclass(slots=True)
class Money:
    """The bill of one owner's projects."""

    shared: Shared
    book: Book
    prices: Prices
    bills: Bills | None = None  # what AWS has billed; None: it is not asked

    async def facts(self) -> Facts:
        """What is written down: one read of the store."""
        now = self.shared.time.wall()
        months = {cost.month_of(now), cost.month_of(cost.month_bounds(now)[0] - 1)}
        rows, runs, generations, notes = await self.book.bill(sorted(months))
        pieces = {
            uid: meter.facts(row, runs.get(uid, ()), generations.get(uid, ()), notes.get(uid, ()))
            for uid, row in rows.items()
        }
        gone = {uid: found for uid, found in notes.items() if uid not in rows}
        for uid, found in gone.items():
            pieces[uid] = meter.in_turn([one for note in found for one in note.pieces])
        last = {
            uid: next((run for run in known if run.number == rows[uid].run), None)
            for uid, known in runs.items()
            if uid in rows
        }
        facts = Facts(
            rows,
            pieces,
            {uid: row.name for uid, row in rows.items()} | {uid: f[-1].name for uid, f in gone.items()},
            {uid: row.owner for uid, row in rows.items()} | {uid: f[-1].owner for uid, f in gone.items()},
            {uid: type_of(row, pieces[uid]) for uid, row in rows.items()},
            {uid: meter.region(row, last.get(uid)) for uid, row in rows.items()},
        )
        for uid, row in rows.items():
            self.prices.freshen(row.account, [facts.regions[uid]])
            spot = [one for one in pieces[uid] if one.spot]
            for where in {one.region for one in spot}:
                self.prices.follow(row.account, where, [one.what for one in spot if one.region == where])
        return facts

    async def report(self, project: str | None = None, *, by: str = "project", days: bool = False) -> Report:
        """What it all costs, or one project. ``by``: project or owner.

        Raises:
            ProjectNotFound: there is none of this name.
        """
        facts = await self.facts()
        names = {uid: name for uid, name in facts.names.items() if project is None or is_same(name, project)}
        if project is not None and not names:
            raise ProjectNotFound(f"there is no project named {project!r}", hint="see: devboxctl projects")
        key = facts.owners if by == "owner" else {uid: uid for uid in facts.names}
        groups: dict[str, list[str]] = {}
        for uid in names:
            groups.setdefault(key[uid], []).append(uid)
        at = self.shared.time.wall()
        lines = [
            self._line(facts, uids, name if by == "owner" else facts.names[name], at)
            for name, uids in groups.items()
        ]
        pieces = [one for uid in names for one in facts.pieces[uid]]
        begin = cost.month_bounds(at)[0]
        return Report(
            at,
            tuple(sorted(lines, key=lambda one: (one.name, one.project is None))),
            self._line(facts, list(names), "total", at),
            tuple(cost.by_day(pieces, self.prices.of, begin, at)) if days else (),
            self._used(
                {one.region for one in pieces} | {facts.regions[u] for u in names if u in facts.regions}
            ),
            self._compared(facts, names, project),
            {one.region: self.prices.market(one.region) for one in pieces if one.spot},
        )

    def _compared(self, facts: Facts, names: Mapping[str, str], project: str | None) -> tuple[Compared, ...]:
        """By owner, whose tag is what Cost Explorer goes by; ``project``: that one alone."""
        if self.bills is None:
            return ()
        accounts = {row.owner: row.account for row in facts.rows.values()}
        self.bills.freshen(accounts)
        found = []
        for owner in sorted({facts.owners[uid] for uid in names} & accounts.keys()):
            billed, problem = self.bills.of(owner), self.bills.problem(owner)
            if billed is None:
                found += [Compared(owner, problem=problem)] if problem else []
                continue
            pieces = [one for uid in names if facts.owners[uid] == owner for one in facts.pieces[uid]]
            amount = billed.total
            if project is not None:
                same = [usd for name, usd in billed.projects.items() if is_same(name, project)]
                amount = sum(same, Decimal(0))
            counted = cost.bill(pieces, self.prices.of, billed.begin, billed.end)
            found.append(Compared(owner, billed.end, amount, counted, problem))
        return tuple(found)

    def _line(self, facts: Facts, uids: list[str], name: str, at: float) -> Line:
        of = self.prices.of
        pieces = [one for uid in uids for one in facts.pieces[uid]]
        only = facts.rows.get(uids[0]) if len(uids) == 1 else None
        lasts = [self._box(facts, uid) for uid in uids if uid in facts.rows]
        standings = [
            cost.standing(facts.pieces[uid], of, last=last)
            for uid, last in zip((uid for uid in uids if uid in facts.rows), lasts, strict=True)
        ]
        month = cost.bill(pieces, of, cost.month_bounds(at)[0], at)
        return Line(
            name,
            only,
            cost.bill(pieces, of, cost.day_begins(at), at),
            month,
            cost.forecast(pieces, of, at, month),
            _together(standings),
            facts.regions.get(uids[0], "") if only else "",
            facts.types.get(uids[0], "") if only else "",
        )

    def _box(self, facts: Facts, uid: str) -> Piece | None:
        """A project's box as it ran last, or as it would be launched."""
        type_ = facts.types[uid]
        made = Piece(Kind.COMPUTE, "box", uid, facts.regions[uid], 0.0, what=type_) if type_ else None
        return last_box(facts.pieces[uid]) or made

    def _used(self, regions: Iterable[str]) -> tuple[tuple[Rates, str], ...]:
        return tuple((self.prices.of(one), self.prices.problem(one)) for one in sorted(regions) if one)

    async def what_if(self, project: str, asked: Otherwise) -> Answer:
        """A month of a project, were it otherwise.

        Raises:
            ProjectNotFound: there is none of this name.
        """
        facts = await self.facts()
        uid = next((uid for uid, row in facts.rows.items() if is_same(row.name, project)), None)
        if uid is None:
            raise ProjectNotFound(f"there is no project named {project!r}", hint="see: devboxctl projects")
        at, pieces = self.shared.time.wall(), facts.pieces[uid]
        return Answer(
            cost.otherwise(pieces, self.prices.of, at, Otherwise()),
            cost.otherwise(pieces, self.prices.of, at, asked),
        )

    def quote(self, known: Ledger | None, asked: LaunchWish, account: Account) -> Quote:
        """What a launch would cost. Asks nobody. Raises GenerationNotFound."""
        project = known.project if known is not None else None
        spec = project.spec if project is not None else None
        usual = (spec.type if spec is not None else "") or offer.DEFAULT_TYPE
        type_ = asked.types[0] if asked.types else usual
        region = meter.region(project, known.run) if project and known else account.region or ""
        self.prices.freshen(account, [region])
        head = source_of(known, asked)
        gib = asked.gib or (spec.root_gib if spec else None) or offer.DEFAULT_GIB
        spot = asked.spot if asked.spot is not None else bool(spec and spec.spot)
        if spot:
            self.prices.follow(account, region, [type_])
        zone = (asked.zone or "") if spot else ""
        box = Piece(Kind.COMPUTE, "box", "quote", region, 0.0, what=type_, spot=spot, zone=zone)
        address = msgspec.structs.replace(box, kind=Kind.ADDRESS, spot=False, zone="")
        pieces = [box, address, *_disks(region, head, gib)]
        if known is not None:
            held = meter.held(known.project, known.run, known.generations).values()
            pieces += [one for one in held if one.kind is Kind.SNAPSHOT]
        standing = cost.standing(pieces, self.prices.of)
        return Quote(
            type_,
            region,
            spot,
            standing.hourly,
            standing,
            self.prices.of(region),
            self.prices.problem(region),
            self.prices.market(region) if spot else None,
        )


def _disks(region: str, head: Generation | None, gib: int) -> list[Piece]:
    """The volumes of a launch: as saved, or a gp3 root."""
    if head is None:
        return [Piece(Kind.VOLUME, "root", "quote", region, 0.0, what="gp3", gib=gib)]
    return [
        Piece(
            Kind.VOLUME,
            disk.device,
            "quote",
            region,
            0.0,
            what=disk.type or "gp3",
            gib=max(disk.size_gib, gib) if disk.device == head.boot.root_device else disk.size_gib,
            iops=disk.iops,
            throughput=disk.throughput,
        )
        for disk in head.disks
    ]


def last_box(pieces: Iterable[Piece]) -> Piece | None:
    """A project's box as it ran last."""
    boxes = [one for one in pieces if one.kind is Kind.COMPUTE]
    return max(boxes, key=lambda one: one.start, default=None)


def type_of(project: Project, pieces: Iterable[Piece]) -> str:
    """The type that a project has, or had last."""
    box = last_box(pieces)
    return box.what if box is not None else project.spec.type


def _together(all_: Iterable[Standing]) -> Standing:
    total = Standing(Sum(), Sum(), Sum(), Sum())
    for one in all_:
        total = Standing(
            total.hourly.plus(one.hourly),
            total.running.plus(one.running),
            total.stopped.plus(one.stopped),
            total.archived.plus(one.archived),
        )
    return total
