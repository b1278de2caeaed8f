"""What projects cost, against an observer of the EC2 model who looks at it every few seconds and bills what is there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from devboxd.control.lifecycle.bills import Bills
from devboxd.control.lifecycle.money import Money
from devboxd.control.lifecycle.order import LaunchWish
from devboxd.control.lifecycle.prices import Prices
from devboxd.errors import Unreachable
from devboxd.host.bills import BillFiles
from devboxd.host.prices import PriceFiles
from devboxd.model import cost
from devboxd.model.billed import Billed
from devboxd.model.box import Account
from devboxd.model.change import CALM
from devboxd.model.cost import Kind, Otherwise, Piece, Sum
from devboxd.model.ledger import ABSENT, Change, holds_key
from devboxd.model.price import Market, Rates
from devboxd.model.project import Phase
from devboxd.model.wish import ProjectNotFound
from tests.control.fakes import LoopClock
from tests.lifecycle.idlebox import watch
from tests.lifecycle.kit import Bench, bench, start, stop, with_daemon

pytestmark = pytest.mark.looptime

EVERY = 5.0  # seconds between two looks of the observer
HOURLY = {"t4g.small": 0.0168, "t4g.medium": 0.0336, "t3.small": 0.0208}  # us-east-1
GIB_MONTH, ADDRESS = 0.08, 0.005


class Offline:
    """No network: the table that we carry has to do."""

    async def rates(self, account: Account, region: str, today: str) -> Rates:
        raise Unreachable("no network")

    async def markets(
        self, account: Account, region: str, types: Sequence[str], since: float
    ) -> tuple[Market, ...]:
        raise Unreachable("no network")


def money(one: Bench, folder: Path = Path("/nowhere")) -> Money:
    return Money(one.shared, one.book, Prices(one.shared, Offline(), PriceFiles(folder)))


class Observer:
    """Bills what EC2 has, by looking. No line of this knows the meter."""

    def __init__(self, one: Bench) -> None:
        self.one, self.usd = one, 0.0

    async def run(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            tables = self.one.model.tables
            for box in tables.instances.values():
                if box.state.value == "running":
                    self.usd += HOURLY[box.type] * EVERY / 3600
                    self.usd += ADDRESS * EVERY / 3600 if box.public_address else 0.0
            gib = sum(one.size for one in tables.volumes.values() if one.state in ("available", "in-use"))
            self.usd += gib * GIB_MONTH * EVERY / (30 * 86400)  # June has thirty days

    def agrees(self, found: Decimal) -> bool:
        return abs(float(found) - self.usd) < self.usd / 100


def certain(parts: dict[Kind, Decimal]) -> Decimal:
    return sum((amount for kind, amount in parts.items() if kind is not Kind.SNAPSHOT), Decimal(0))


@with_daemon
async def test_a_life_of_a_project_costs_what_an_observer_of_ec2_counts(one: Bench) -> None:
    """Launched, made larger, retyped, stopped, started, archived, brought back and deleted: to one per cent, throughout."""
    observer, bill = Observer(one), money(one)
    at = LoopClock().wall()
    one.shared.tasks.spawn("observer", observer.run())

    async def check(what: str) -> None:
        report = await bill.report()
        assert not report.total.month.unknown, what
        total = certain(report.total.month.parts)
        assert observer.agrees(total), (what, total, observer.usd)

    await one.launched(gib=100, account=Account("work", "us-east-1"))
    await asyncio.sleep(7200)
    await check("launched")
    await one.projects.resize("api", gib=300)
    await asyncio.sleep(7200)
    await check("larger")
    await one.projects.resize("api", types=("t4g.medium",))
    await asyncio.sleep(14400)
    await check("retyped")
    await one.projects.stop("api")
    await one.until("api", Phase.WARM)
    await asyncio.sleep(10000)
    await check("stopped")
    await one.projects.up("api")
    await asyncio.sleep(7200)
    await one.projects.terminate("api")
    await one.until("api", Phase.READY)
    await asyncio.sleep(20000)
    await check("archived")
    await one.projects.launch("api", LaunchWish())
    await asyncio.sleep(7200)
    await check("brought back")
    await one.projects.delete("api")
    while await one.projects.find("api") is not None:
        await asyncio.sleep(60)
    await check("deleted")
    await one.launched("other", account=Account("work", "us-east-1"))
    await asyncio.sleep(7200)
    await check("with another one")
    report = await bill.report()
    assert [(line.name, line.project is None) for line in report.lines] == [("api", True), ("other", False)]
    assert LoopClock().wall() - at < 2 * 86400


async def test_a_box_that_powered_itself_off_is_billed_until_then() -> None:
    """Nobody knows when, in fourteen hours: between two bounds, and budgets count the lower one. The box's own note tells."""
    one = await start(bench())
    watch(one, works=lambda minute: {"input": 5.0})
    observer = Observer(one)
    async with asyncio.TaskGroup() as group:
        observing = group.create_task(observer.run())
        project = await one.launched(gib=8, account=Account("work", "us-east-1"))
        await asyncio.sleep(7200)
        await stop(one)
        await asyncio.sleep(1800)
        off = LoopClock().wall()
        one.model.power_off(project.instance or "", now=off)
        await asyncio.sleep(14 * 3600)
        other = await start(bench(one.store, model=one.model, me="other"))
        watcher, bill = watch(other, works=lambda minute: {"input": 5.0}), money(other)
        await other.until("api", Phase.WARM)
        month = (await bill.report()).total.month
        hour = HOURLY["t4g.small"] + ADDRESS
        assert observer.usd - hour * 1.1 < float(certain(month.parts)) < observer.usd, (
            "until it was seen last"
        )
        assert (
            observer.usd + hour * 13.9 < float(certain(month.parts) + month.more) < observer.usd + hour * 14.2
        )
        watcher.box.stopped = {"at": off, "why": "it is idle since 30 min", "evidence": []}
        await other.projects.up("api")
        while (await watcher.idle.book.notes(project.uid)).seen != off:
            await asyncio.sleep(30)
        month = (await bill.report()).total.month
        assert observer.agrees(certain(month.parts))
        (line,) = (await bill.report("api")).lines
        assert line.month.more < Decimal("0.01"), "but for the snapshots nothing is uncertain now"
        told = [event.text for event in await other.projects.events("api") if event.what == "told"]
        assert told == ["the box had stopped itself while nobody looked: it is billed until then"]
        observing.cancel()
        await stop(other)


@with_daemon
async def test_a_daemon_that_looks_knows_when_a_box_powered_itself_off(one: Bench) -> None:
    project = await one.launched(account=Account("work", "us-east-1"))
    await asyncio.sleep(7200)
    off = LoopClock().wall()
    one.model.power_off(project.instance or "", now=off)
    await one.until("api", Phase.WARM)
    (run,) = await one.book.runs(project.uid)
    (ran,) = run.spans
    assert ran.sure is not None
    assert ran.end is not None
    assert off - CALM * 1.5 <= ran.sure <= ran.end <= off + CALM * 1.5


@with_daemon
async def test_notes_that_can_not_be_read_keep_no_box_from_being_saved(one: Bench) -> None:
    project = await one.launched()
    key = holds_key(project.uid)
    await stop(one)
    await one.store.commit(one.book.owner, [Change(key, ABSENT, {"ran": "?"})], "damaged")
    one.model.power_off(project.instance or "", now=LoopClock().wall())
    other = await start(bench(one.store, model=one.model, me="other"))
    await other.until("api", Phase.WARM)
    (run,) = await other.book.runs(project.uid)
    assert run.spans[0].sure == run.spans[0].start
    await stop(other)


@with_daemon
async def test_now_stopped_archived_and_what_if(one: Bench) -> None:
    await one.launched(gib=100, account=Account("work", "us-east-1"))
    await asyncio.sleep(3600)
    bill = money(one)
    (line,) = (await bill.report("api", days=True)).lines
    assert (line.type, line.region) == ("t4g.small", "us-east-1")
    assert line.standing.stopped.total == Decimal("8.00")
    assert line.standing.archived.total == 0
    running = Decimal("8.00") + (Decimal("0.0168") + Decimal("0.005")) * 720
    assert line.standing.running.total == running
    assert line.standing.hourly.total == pytest.approx(running / 720, rel=Decimal("0.0001"))
    answer = await bill.what_if("api", Otherwise("t4g.medium", Decimal(100)))
    assert answer.then.total == Decimal("8.00") + (Decimal("0.0336") + Decimal("0.005")) * 100
    with pytest.raises(ProjectNotFound):
        await bill.report("nope")
    with pytest.raises(ProjectNotFound):
        await bill.what_if("nope", Otherwise(down="stopped"))


@with_daemon
async def test_a_project_is_asked_for_in_any_case_and_its_month_is_billed_once(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bill, real = money(one), cost.bill
    for name in ("api", "web"):
        await one.launched(name, gib=100, account=Account("work", "us-east-1"))
    await asyncio.sleep(3600)
    begin = cost.month_bounds(LoopClock().wall())[0]
    billed = []

    def counted(pieces: Iterable[Piece], rates_of: cost.RatesOf, since: float, until: float) -> Sum:
        known = list(pieces)
        if since == begin:
            billed.append((tuple(known), until))
        return real(known, rates_of, since, until)

    monkeypatch.setattr(cost, "bill", counted)
    await bill.report()
    assert len(billed) == 3, "of each project, and of both"
    assert [line.name for line in (await bill.report("API")).lines] == ["api"]
    assert (await bill.what_if("API", Otherwise(down="stopped"))).then.total == Decimal("8.00")


class NobodyAsks:
    """Cost Explorer, which costs a cent."""

    async def billed(self, account: Account, owner: str, begin: float, end: float, now: float) -> Billed:
        raise AssertionError("what was billed is known")


@pytest.mark.parametrize("asked", ["api", "API", "Api"])
@with_daemon
async def test_what_aws_has_billed_to_a_project_is_told_in_any_case(
    one: Bench, tmp_path: Path, asked: str
) -> None:
    await one.launched("api")
    now = LoopClock().wall()
    begin, owner = cost.month_bounds(now)[0], (await one.projects.get("api")).project.owner
    amounts = {"api": Decimal("1.50"), "API": Decimal("0.25"), "web": Decimal(40)}  # renamed, once
    files = BillFiles(tmp_path)
    files.save(Billed(owner, begin, cost.day_begins(now), now, Decimal("41.75"), amounts))
    bill = money(one)
    bill.bills = Bills(one.shared, NobodyAsks(), files, lambda: True)
    (compared,) = (await bill.report(asked)).compared
    assert (compared.owner, compared.billed) == (owner, Decimal("1.75"))
    (compared,) = (await bill.report()).compared
    assert compared.billed == Decimal("41.75")


@with_daemon
async def test_a_quote_needs_nobody(one: Bench) -> None:
    """For a new project, and for one that is saved: with the disks that it has."""
    bill = money(one)
    quote = bill.quote(None, LaunchWish(types=("m7g.large",), gib=100), Account("work", "eu-west-1"))
    assert (quote.type, quote.region, quote.rates.built_in) == ("m7g.large", "eu-west-1", True)
    assert quote.hour.total == Decimal("0.091") + Decimal("0.005") + Decimal("8.8") / 720, "with its disk"
    assert quote.standing.stopped.total == Decimal("8.8")
    await one.launched(gib=200, account=Account("work", "us-east-1"))
    await one.projects.terminate("api")
    known = await one.until("api", Phase.READY)
    quote = bill.quote(known, LaunchWish(), known.project.account)
    assert (quote.type, quote.standing.stopped.parts[Kind.VOLUME]) == ("t4g.small", Decimal("16.00"))
    row = known.project
    await one.book.create(
        msgspec.structs.replace(row, uid="new", name="new", run=0, head=0, phase=Phase.ABSENT), "made"
    )
    (never,) = (await bill.report("new")).lines
    assert never.month.total == 0
    assert never.standing.running.total == (Decimal("0.0168") + Decimal("0.005")) * 720, (
        "as it would be launched"
    )
    unknown = bill.quote(None, LaunchWish(types=("x99.huge",)), Account("work", "eu-west-1"))
    assert unknown.hour.unknown == ("x99.huge in eu-west-1",)
    await bill.report()
    await asyncio.sleep(1)
    assert (await bill.report()).rates[0][1] == "no network"
