"""Archived projects that nobody uses: told of, kept by any use, deleted by the ordinary pipeline, over the EC2 model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from devboxd.control.lifecycle.disuse import DisuseLoop
from devboxd.control.lifecycle.idlebook import IdleBook
from devboxd.control.lifecycle.idleverbs import IdleVerbs
from devboxd.control.lifecycle.money import Facts, Money
from devboxd.errors import Unreachable, WrongState
from devboxd.model.cost import DAY
from devboxd.model.idle_policy import IdlePolicy
from devboxd.model.ledger import Item, Ledger, Range
from devboxd.model.project import Phase, Want
from tests.control.fakes import LoopClock
from tests.lifecycle.idlebox import disuse, watch
from tests.lifecycle.kit import Bench, bench, start, with_daemon
from tests.lifecycle.test_budgets import Desk, keeper, launched

pytestmark = pytest.mark.looptime
HOUR = 3600.0
POLICY = IdlePolicy(delete=90 * DAY)
Told = list[tuple[float, str]]


class Calendar:
    """Days that go by between two looks: the clocks of the bench stand as far ahead as it says."""

    def __init__(self, one: Bench) -> None:
        self.one, self.ahead, self.slept = one, 0.0, 0.0
        self.clock = LoopClock()
        one.shared.time.wall = lambda: self.clock.wall() + self.ahead
        one.shared.time.monotonic = lambda: self.clock.monotonic() + self.ahead - self.slept

    async def days(self, driver: DisuseLoop, count: float, *, every: float = HOUR) -> None:
        """Look at every hour of so many days."""
        end = self.ahead + count * DAY
        while self.ahead < end:
            self.ahead += every
            await driver.look()

    def jump(self, days: float) -> None:
        """The wall clock jumps, or the machine sleeps."""
        self.ahead += days * DAY
        self.slept += days * DAY


async def archived(one: Bench, **policy: Any) -> Ledger:
    await one.launched()
    await one.projects.terminate("api")
    await one.until("api", lambda row: row.phase is Phase.READY and row.want is Want.COLD)
    if policy:
        await one.projects.settle("api", lambda now: replace(now.policy, idle=IdlePolicy(**policy)))
    return await one.projects.get("api")


async def gone(one: Bench) -> bool:
    async with asyncio.timeout(3600.0):
        while (known := await one.projects.find("api")) is not None:
            if known.project.want is not Want.GONE:
                return False
            await asyncio.sleep(5.0)
    return True


def left(one: Bench) -> list[str]:
    """What EC2 still has of projects."""
    tables = one.model.tables
    images = [image for image in tables.images.values() if image.name.startswith("devbox/")]
    copies = [copy for copy in tables.snapshots.values() if "devbox:id" in copy.tags]
    return [*(image.id for image in images if image.state == "available"), *(copy.id for copy in copies)]


@with_daemon
async def test_it_is_told_three_times_and_then_deleted_as_anybody_would(one: Bench) -> None:
    told: Told = []
    await archived(one, delete=90 * DAY)
    driver, calendar = disuse(one, told=told), Calendar(one)
    began = one.shared.time.wall()
    await calendar.days(driver, 75.75, every=6 * HOUR)
    assert told == []
    await calendar.days(driver, 14.0)
    assert [title.split(",")[0] for _, title in told] == [
        "api is deleted in 14 d 0 h",
        "api is deleted in 7 d 0 h",
        "api is deleted in 24 h",
    ]
    (found,) = [one for one in one.shared.news.conditions() if one.code == "project-disused"]
    assert "project api is deleted on" in found.text
    assert found.hint == "devboxctl extend api keeps it"
    assert (await one.projects.get("api")).project.want is Want.COLD
    assert left(one)
    await calendar.days(driver, 0.5)
    assert (await one.projects.get("api")).project.want is Want.GONE
    assert 90.0 <= (one.shared.time.wall() - began) / DAY < 90.4
    events = [event.text for event in await one.projects.events("api")]
    assert any(text.startswith("asked: delete, nobody used it for 90 d") for text in events)
    assert await gone(one)
    assert left(one) == []
    await driver.look()
    assert one.shared.news.conditions() == []
    assert told[-1][1] == "api was deleted"


@with_daemon
async def test_nothing_is_deleted_where_no_policy_says_so(one: Bench) -> None:
    told: Told = []
    await archived(one)
    driver, calendar = disuse(one, told=told), Calendar(one)
    await calendar.days(driver, 2000.0, every=10 * DAY)
    assert told == []
    assert left(one)


@with_daemon
async def test_a_look_at_what_no_policy_deletes_asks_the_store_for_all_at_once(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made at each start and each hour, of however many archived projects."""
    known, driver, reads = await archived(one), disuse(one), []
    for number in range(5):
        await one.book.create(replace(known.project, uid=f"uid{number}", name=f"old{number}"), "made")
    real = one.store.read

    async def read(owner: str, *ranges: Range) -> list[Item]:
        reads.append(ranges)
        return await real(owner, *ranges)

    await one.shared.tasks.stop()
    monkeypatch.setattr(one.store, "read", read)
    await driver.look(acts=False)
    assert [[one.prefix for one in ranges] for ranges in reads] == [["M#"], ["I#"]]


@with_daemon
async def test_budgets_are_read_once_for_a_look_and_not_at_all_where_nothing_needs_them(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To say what is spent, all is read that there ever was to bill."""
    await launched(one, "api")
    await asyncio.sleep(4 * HOUR)
    await one.projects.terminate("api")
    await one.until("api", lambda row: row.phase is Phase.READY and row.want is Want.COLD)
    known, desk = await one.projects.get("api"), keeper(one, Desk())
    for number in range(3):
        await one.book.create(replace(known.project, uid=f"uid{number}", name=f"old{number}"), "made")
    await desk.put(None, Decimal("0.01"), hard=True, month=None, grace=None)
    real, asked = desk.money.facts, 0

    async def facts() -> Facts:
        nonlocal asked
        asked += 1
        return await real()

    monkeypatch.setattr(Money, "facts", lambda self: facts())
    await one.shared.tasks.stop()
    driver = disuse(one, budgets=desk.disputed)
    await driver.look()
    assert asked == 0
    driver = disuse(one, policy=POLICY, budgets=desk.disputed)
    await driver.look()
    assert asked == 1
    whys = {driver.ahead(uid).why for uid in (known.project.uid, "uid0", "uid1", "uid2")}
    assert whys == {"the budget of all is used up: nobody could use it"}


@pytest.mark.parametrize("how", ["up", "extend", "keep-alive", "label", "policy"])
async def test_any_use_begins_the_time_anew(how: str) -> None:
    told: Told = []
    one = await start(bench())
    await archived(one, delete=90 * DAY)
    driver, calendar = disuse(one, told=told), Calendar(one)
    watcher = watch(one)
    verbs = IdleVerbs(one.shared, one.projects, watcher.idle, driver, short_id=lambda: "x", who="me")
    await calendar.days(driver, 89.8, every=2 * HOUR)
    assert len(told) == 3
    assert (await verbs.show("api")).ahead.at is not None
    object.__setattr__(one.book, "wall", one.shared.time.wall)  # of events
    match how:
        case "up":
            await one.projects.up("api")
            await asyncio.sleep(1.0)
        case "extend":
            view = await verbs.extend("api", 3600.0)
            assert view.ahead.at == pytest.approx(one.shared.time.wall() + 90 * DAY, abs=60.0)
        case "keep-alive":
            await verbs.keep_alive("api", seconds=3600.0)
        case "label":
            await one.projects.describe("api", 1, label="the good one")
        case _:
            await verbs.settle("api", {"delete": 120 * DAY})
    await calendar.days(driver, 14.0)
    assert len(told) == 3
    assert not [one for one in one.shared.news.conditions() if one.code == "project-disused"]
    assert (await one.projects.get("api")).project.want in (Want.COLD, Want.UP)
    assert left(one)
    if how != "up":
        assert driver.ahead((await one.projects.get("api")).project.uid).at is not None
    await one.shared.tasks.stop()


@with_daemon
async def test_a_pin_a_budget_and_what_is_in_no_generation_forbid_it(one: Bench) -> None:
    told: Told = []
    why = [""]
    known = await archived(one, delete=90 * DAY)
    await one.projects.describe("api", 1, pinned=True)
    driver, calendar = disuse(one, told=told, disputed=lambda: why[0]), Calendar(one)
    uid = known.project.uid
    await calendar.days(driver, 200.0, every=DAY / 2)
    assert told == []
    assert driver.ahead(uid).why == "generation 1 is pinned"
    await one.projects.describe("api", 1, pinned=False)
    why[0] = "the budget of api is used up: nobody could use it"
    await calendar.days(driver, 200.0, every=DAY / 2)
    assert told == []
    assert driver.ahead(uid).why == why[0]
    why[0] = ""
    # A volume that a person has detached from it, and that no generation has.
    made = one.model.call(
        "CreateVolume",
        {
            "AvailabilityZone": "us-east-1a",
            "Size": 1,
            "TagSpecifications": [
                {
                    "ResourceType": "volume",
                    "Tags": [
                        {"Key": "devbox:id", "Value": uid},
                        {"Key": "devbox:owner", "Value": known.project.owner},
                    ],
                }
            ],
        },
        now=LoopClock().wall(),
        caller="console",
    )
    await calendar.days(driver, 2.0)
    assert told == []
    assert driver.ahead(uid).why.startswith(f"{made['VolumeId']} belongs to it, and is in no generation")
    one.model.call("DeleteVolume", {"VolumeId": made["VolumeId"]}, now=LoopClock().wall(), caller="console")
    await calendar.days(driver, 1.0)
    assert len(told) == 1


@with_daemon
async def test_who_can_not_be_told_loses_nothing(one: Bench) -> None:
    reaches = [False]
    told: Told = []
    known = await archived(one, delete=90 * DAY)
    driver, calendar = disuse(one, told=told, reaches=lambda: reaches[0]), Calendar(one)
    await calendar.days(driver, 400.0, every=DAY / 2)
    assert (await one.projects.get("api")).project.want is Want.COLD
    assert driver.ahead(known.project.uid).why.startswith("nobody could be told")
    events = [event.kind for event in one.shared.news.events()]
    assert "disuse" not in events, "what nobody heard is not told every hour"
    assert events.count("condition.project-disused") <= 1
    reaches[0] = True
    await calendar.days(driver, 12.5)
    assert len(told) == 2
    assert (await one.projects.get("api")).project.want is Want.COLD


@with_daemon
async def test_a_desktop_that_hangs_reaches_nobody_and_stops_no_loop(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: Told = []
    known = await archived(one, delete=90 * DAY)
    driver, calendar = disuse(one, told=told), Calendar(one)
    await calendar.days(driver, 75.0, every=6 * HOUR)

    async def hangs(title: str, text: str) -> bool:
        await asyncio.sleep(1e6)
        return True

    with monkeypatch.context() as patch:
        patch.setattr(driver, "_reached", hangs)
        async with asyncio.timeout(DAY):
            await calendar.days(driver, 2.0, every=6 * HOUR)
        assert driver.ahead(known.project.uid).why.startswith("nobody could be told")
    await calendar.days(driver, 0.1)
    assert [title.split(",")[0] for _, title in told] == ["api is deleted in 14 d 0 h"]


@with_daemon
async def test_a_store_or_an_aws_that_does_not_answer_deletes_nothing(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: Told = []
    known = await archived(one, delete=90 * DAY)
    driver, calendar = disuse(one, told=told), Calendar(one)
    await calendar.days(driver, 89.9, every=2 * HOUR)

    async def broken(name: str) -> Any:
        raise Unreachable("EC2 does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(one.projects, "stray", broken)
        await calendar.days(driver, 3.0)
        assert (await one.projects.get("api")).project.want is Want.COLD
        assert driver.ahead(known.project.uid).why == "EC2 does not answer"
    await calendar.days(driver, 0.2)
    assert await gone(one)


@with_daemon
async def test_another_daemon_goes_on_where_one_was_and_one_that_has_just_begun_does_nothing(
    one: Bench,
) -> None:
    told: Told = []
    known = await archived(one, delete=90 * DAY)
    calendar = Calendar(one)
    await calendar.days(disuse(one, told=told), 83.5, every=6 * HOUR)
    assert len(told) == 2
    later = disuse(one, told=told)
    calendar.ahead += 30 * DAY
    await later.look(acts=False)
    assert len(told) == 2
    assert later.ahead(known.project.uid).at == pytest.approx(one.shared.time.wall() + DAY, abs=DAY / 10)
    await later.look()
    assert len(told) == 3
    await calendar.days(later, 0.9)
    assert (await one.projects.get("api")).project.want is Want.COLD


@with_daemon
async def test_warnings_of_a_policy_that_was_taken_away_count_for_nothing(one: Bench) -> None:
    """The configuration is edited to and fro: no event of the project tells of it."""
    told: Told = []
    await archived(one)
    calendar = Calendar(one)
    await calendar.days(disuse(one, told=told, policy=POLICY), 89.9, every=2 * HOUR)
    assert len(told) == 3
    await disuse(one, told=told).look(acts=False)
    calendar.ahead += 2 * DAY
    driver = disuse(one, told=told, policy=POLICY)
    await calendar.days(driver, 6.9)
    assert len(told) == 4
    await calendar.days(driver, 6.9)
    assert len(told) == 6
    assert (await one.projects.get("api")).project.want is Want.COLD


@with_daemon
async def test_a_jump_of_the_clock_in_the_last_day_is_not_that_day(one: Bench) -> None:
    told: Told = []
    await archived(one, delete=90 * DAY)
    driver, calendar = disuse(one, told=told), Calendar(one)
    await calendar.days(driver, 89.1, every=2 * HOUR)
    assert len(told) == 3
    for _ in range(5):
        calendar.jump(3.0)
        await driver.look()
        assert (await one.projects.get("api")).project.want is Want.COLD


@with_daemon
async def test_a_lease_that_is_taken_at_the_same_moment_wins(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the deletion: both are one commit."""
    await archived(one, delete=90 * DAY)
    driver, calendar = disuse(one), Calendar(one)
    await calendar.days(driver, 89.5, every=2 * HOUR)
    real = one.projects.delete_disused
    asked = []

    async def meanwhile(known: Ledger, why: str, beside: Any) -> bool:
        asked.append(why)
        await driver.used(known.project)
        return await real(known, why, beside)

    monkeypatch.setattr(one.projects, "delete_disused", meanwhile)
    await calendar.days(driver, 2.0)
    assert len(asked) == 1
    assert (await one.projects.get("api")).project.want is Want.COLD


@with_daemon
async def test_what_was_asked_is_done_where_the_loop_looks_at_the_same_moment(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = await archived(one, delete=90 * DAY)
    driver, calendar = disuse(one), Calendar(one)
    await calendar.days(driver, 80.0, every=2 * HOUR)
    watcher = watch(one)
    verbs = IdleVerbs(one.shared, one.projects, watcher.idle, driver, short_id=lambda: "x", who="me")
    book = IdleBook(one.book)
    assert (await book.notes(known.project.uid)).disuse is not None
    uid, met = known.project.uid, []

    async def meanwhile() -> Callable[[str], str]:
        await book.change(uid, lambda notes: replace(notes, seen=notes.seen + 1.0))
        met.append(uid)
        return lambda uid: "the budget of api is used up"

    monkeypatch.setattr(driver, "_disputed", meanwhile)
    assert (await verbs.why("api")).project.name == "api"
    assert len(met) == 1
    assert (await book.notes(known.project.uid)).disuse is not None, "what the loop wrote stays"


@with_daemon
async def test_an_archived_project_without_such_a_policy_can_not_be_extended(one: Bench) -> None:
    await archived(one)
    watcher = watch(one)
    verbs = IdleVerbs(one.shared, one.projects, watcher.idle, disuse(one), short_id=lambda: "x", who="me")
    with pytest.raises(WrongState):
        await verbs.extend("api", 3600.0)
    await verbs.settle("api", {"delete": 90 * DAY})
    assert (await verbs.extend("api", 3600.0)).ahead.at is not None
    with pytest.raises(WrongState):
        await verbs.keep_alive("api", command="true")


@with_daemon
async def test_a_daemon_that_has_just_started_waits_until_its_clock_is_settled(one: Bench) -> None:
    told: Told = []
    known = await archived(one, delete=90 * DAY)
    driver, calendar = disuse(one, told=told), Calendar(one)
    calendar.ahead += 80 * DAY
    one.shared.tasks.spawn("disuse", driver.run())
    await asyncio.sleep(590.0)
    assert told == []
    assert driver.ahead(known.project.uid).at is not None
    await asyncio.sleep(60.0)
    assert len(told) == 1
