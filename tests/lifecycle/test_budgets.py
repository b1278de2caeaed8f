"""Budgets over the EC2 model on virtual time: refused launches, races, notices, and boxes that are archived in the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from decimal import Decimal

import pytest

from devboxd.control.lifecycle.budgets import EVERY, Keeper
from devboxd.control.lifecycle.order import LaunchWish
from devboxd.errors import BadRequest, DevboxError, WrongState
from devboxd.model.box import Account
from devboxd.model.budget import BUSY_GRACE, BudgetExceeded
from devboxd.model.ledger import Change, Item, Range, StoreNewer
from devboxd.model.project import Phase, Project
from devboxd.model.wish import ProjectNotFound
from tests.lifecycle.kit import Bench, bench, with_daemon
from tests.lifecycle.memory import MemoryStore
from tests.lifecycle.test_money import money

pytestmark = pytest.mark.looptime

WORK = Account("work", "us-east-1")


class Desk:
    """Who sits at the machine."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.busy = False

    async def notify(self, title: str, text: str) -> None:
        self.told.append(text)


def keeper(one: Bench, desk: Desk) -> Keeper:
    """Budgets as the daemon has them, asked before each launch."""
    made = Keeper(money(one), desk.notify, lambda project: desk.busy, one.projects.terminate)
    one.projects._allow = made.allow
    return made


async def launched(one: Bench, name: str, type_: str = "t4g.small") -> Project:
    return await one.launched(name, types=(type_,), gib=40, account=WORK)


@with_daemon
async def test_a_soft_budget_tells_and_refuses_nothing(one: Bench) -> None:
    desk = Desk()
    budgets = keeper(one, desk)
    await launched(one, "api")
    await budgets.put(None, Decimal("0.05"), hard=False, month=None, grace=None)
    one.shared.tasks.spawn("budgets", budgets.run())
    await asyncio.sleep(4 * 3600)
    assert [text.split(" of")[0] for text in desk.told] == ["50 %", "80 %", "100 %"] or len(desk.told) == 3
    assert all("all projects" in text for text in desk.told)
    await launched(one, "other")
    (shown,) = await budgets.all()
    assert shown.spent > Decimal("0.05")
    assert (await one.projects.get("api")).project.phase is Phase.RUNNING


@with_daemon
async def test_a_hard_budget_refuses_and_archives_after_a_grace(one: Bench) -> None:
    """Work is saved, an up is refused with status 9, and a raised limit lets it pass."""
    desk = Desk()
    budgets = keeper(one, desk)
    row = await launched(one, "api")
    written = one.work(row)
    await budgets.put("api", Decimal("0.10"), hard=True, month=None, grace=1800.0)
    one.shared.tasks.spawn("budgets", budgets.run())
    while (await budgets.all())[0].spent < Decimal("0.10"):
        await asyncio.sleep(EVERY)
    await asyncio.sleep(3 * EVERY)
    assert any("archived in 30 minutes" in text for text in desk.told)
    assert (await one.projects.get("api")).project.phase is Phase.RUNNING
    await one.until("api", Phase.READY)
    known = await one.projects.get("api")
    assert known.project.head == 1
    snapshots = {
        one.model.tables.snapshots[disk.snapshot or ""].content for disk in known.generations[0].disks
    }
    assert max(snapshots) >= written
    for attempt in (one.projects.up("api"), one.projects.launch("api", LaunchWish(types=("t4g.medium",)))):
        with pytest.raises(BudgetExceeded, match="used up"):
            await attempt
    await launched(one, "other")  # another project is none of its affair
    await budgets.put("api", Decimal(10), hard=True, month=None, grace=None)
    await one.projects.up("api")
    await one.until("api", Phase.RUNNING)


@with_daemon
async def test_what_works_gets_two_hours_more(one: Bench) -> None:
    desk = Desk()
    desk.busy = True
    budgets = keeper(one, desk)
    await launched(one, "api")
    await budgets.put("api", Decimal("0.01"), hard=True, month=None, grace=600.0)
    one.shared.tasks.spawn("budgets", budgets.run())
    await asyncio.sleep(1500 + 600 + BUSY_GRACE - 600)
    assert any("something works there" in text for text in desk.told)
    assert (await one.projects.get("api")).project.phase is Phase.RUNNING
    await one.until("api", Phase.READY)


@with_daemon
async def test_a_box_that_is_stopped_gets_no_two_hours_more(one: Bench) -> None:
    """Nobody looks at it, so nobody knows what works there: nothing does."""
    desk = Desk()
    desk.busy = True
    budgets = keeper(one, desk)
    await launched(one, "api")
    await budgets.put("api", Decimal("0.01"), hard=True, month=None, grace=600.0)
    await asyncio.sleep(1500)
    await one.projects.stop("api")
    await one.until("api", Phase.WARM)
    one.shared.tasks.spawn("budgets", budgets.run())
    await asyncio.sleep(600 + 2 * EVERY)
    assert not any("something works there" in text for text in desk.told)
    await asyncio.sleep(600)
    assert (await one.projects.get("api")).project.phase is Phase.READY


@with_daemon
async def test_one_that_can_not_be_archived_keeps_no_other_up(one: Bench) -> None:
    desk = Desk()
    budgets = keeper(one, desk)

    async def archive(name: str) -> None:
        if name == "api":
            raise WrongState("not now")
        await one.projects.terminate(name)

    budgets.archive = archive
    await launched(one, "api")
    await launched(one, "web")
    await budgets.put(None, Decimal("0.01"), hard=True, month=None, grace=600.0)
    one.shared.tasks.spawn("budgets", budgets.run())
    await one.until("web", Phase.READY)
    assert (await one.projects.get("api")).project.phase is Phase.RUNNING


@with_daemon
async def test_two_launches_do_not_have_the_same_dollar(one: Bench) -> None:
    """There is an hour for one of them. Whoever is let pass second sees the first, in one daemon and in two."""
    desk = Desk()
    budgets = keeper(one, desk)
    await budgets.put(None, Decimal("0.04"), hard=True, month=None, grace=None)

    async def launch(name: str) -> bool:
        try:
            await one.projects.launch(name, LaunchWish(types=("t4g.small",), profile="box", account=WORK))
        except BudgetExceeded:
            return False
        return True

    passed = await asyncio.gather(*(launch(f"p{number}") for number in range(6)))
    assert passed.count(True) == 1
    assert len(await one.projects.all()) == 1


class Slow(MemoryStore):
    """A store on which the others always get in between."""

    async def commit(self, owner: str, changes: Sequence[Change], op: str) -> None:
        await asyncio.sleep(0.5)
        await super().commit(owner, changes, op)

    async def read(self, owner: str, *ranges: Range) -> list[Item]:
        found = await super().read(owner, *ranges)
        await asyncio.sleep(0.2)
        return found


async def test_two_machines_do_not_have_the_same_dollar() -> None:
    """Each has read that there is an hour left before the other has written: one of the commits fails."""
    store = Slow()
    first = bench(store)
    second = bench(store, model=first.model, me="desktop")
    for one in (first, second):
        await keeper(one, Desk()).put(None, Decimal("0.04"), hard=True, month=None, grace=None)
    asked = LaunchWish(types=("t4g.small",), profile="box", account=WORK)
    results = await asyncio.gather(
        first.projects.launch("a", asked), second.projects.launch("b", asked), return_exceptions=True
    )
    refused = [one for one in results if isinstance(one, DevboxError)]
    assert [type(one) for one in refused] == [BudgetExceeded]
    assert len(await first.projects.all()) == 1
    for one in (first, second):
        await one.shared.tasks.stop()


@with_daemon
async def test_the_check_is_fast_and_asks_nobody(one: Bench) -> None:
    """Fifty projects with a year of runs: no call of AWS, and less than a second."""
    budgets = keeper(one, Desk())
    for number in range(50):
        await one.projects.launch(f"p{number}", LaunchWish(types=("t4g.small",), profile="box", account=WORK))
    await budgets.put(None, Decimal(1000), hard=True, month=None, grace=None)
    calls = one.account.calls.total()
    began = time.perf_counter()
    row = (await one.projects.get("p1")).project
    assert await budgets.allow(None, row)
    assert time.perf_counter() - began < 1.0
    assert one.account.calls.total() == calls


@with_daemon
async def test_budgets_are_set_shown_and_removed(one: Bench) -> None:
    budgets = keeper(one, Desk())
    await launched(one, "api")
    await budgets.put("api", Decimal(5), hard=False, month=None, grace=None)
    await budgets.put("api", Decimal(6), hard=True, month="2999-12", grace=None)
    await budgets.put(None, Decimal(50), hard=False, month=None, grace=None)
    assert [(one.budget.name, str(one.budget.limit), one.in_force) for one in await budgets.all()] == [
        ("all", "50", True),
        ("api", "5", True),
        ("api", "6", False),
    ]
    await budgets.drop("api", "2999-12")
    await budgets.drop(None, None)
    assert [one.budget.name for one in await budgets.all()] == ["api"]
    with pytest.raises(BadRequest):
        await budgets.drop(None, None)
    with pytest.raises(ProjectNotFound):
        await budgets.put("nope", Decimal(5), hard=False, month=None, grace=None)


@with_daemon
async def test_a_budget_is_called_as_its_project_is_now(one: Bench) -> None:
    """In the list, in what is told, and for who removes it; another project takes the old name meanwhile."""
    desk = Desk()
    budgets = keeper(one, desk)
    await launched(one, "api")
    await budgets.put("API", Decimal("0.01"), hard=True, month=None, grace=None)
    assert [shown.budget.name for shown in await budgets.all()] == ["api"]
    await one.projects.rename("api", "web")
    await launched(one, "api")
    await budgets.put("api", Decimal(70), hard=False, month=None, grace=None)
    assert [(shown.budget.name, str(shown.budget.limit)) for shown in await budgets.all()] == [
        ("api", "70"),
        ("web", "0.01"),
    ]
    await asyncio.sleep(3600)
    await budgets.look()
    await asyncio.sleep(1)
    assert desk.told
    assert all("web" in text and "api" not in text for text in desk.told)
    await one.projects.stop("web")
    await one.until("web", Phase.WARM)
    with pytest.raises(BudgetExceeded, match="of web is used up") as refused:
        await one.projects.up("web")
    assert "budget set web" in (refused.value.hint or "")
    await budgets.drop("Web", None)
    assert [shown.budget.name for shown in await budgets.all()] == ["api"]
    with pytest.raises(BadRequest):
        await budgets.drop("web", None)
    await one.projects.delete("api")
    async with asyncio.timeout(7200):
        while await one.projects.find("api") is not None:
            await asyncio.sleep(10.0)
    await budgets.drop("api", None)
    assert await budgets.all() == []


@with_daemon
async def test_budgets_of_a_newer_devbox_are_neither_read_nor_written_over(one: Bench) -> None:
    """One that may be hard in a way that is not known here would else let a launch pass."""
    budgets = keeper(one, Desk())
    await budgets.put(None, Decimal(5), hard=True, month=None, grace=None)
    (item,) = await one.store.read(one.book.owner, Range("B#"))
    changed = {**item.body, "schema": 2}
    await one.store.commit(one.book.owner, [Change("B#", item.version, changed)], "newer")
    with pytest.raises(StoreNewer):
        await budgets.put(None, Decimal(50), hard=False, month=None, grace=None)
    with pytest.raises(StoreNewer):
        await one.projects.launch("api", LaunchWish(profile="box", types=("t4g.small",)))
    (item,) = await one.store.read(one.book.owner, Range("B#"))
    assert item.body == changed
