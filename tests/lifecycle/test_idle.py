"""Idle boxes end to end on virtual time: looks, warnings, hooks, and the ordinary pipeline, over the EC2 model."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from devboxd.control.base.steady import steadily
from devboxd.control.lifecycle.idleverbs import IdleVerbs
from devboxd.errors import Unreachable
from devboxd.model import lease
from devboxd.model.idle_note import KEPT, Did, extended
from devboxd.model.idle_policy import IdlePolicy, Then
from devboxd.model.ledger import Ledger
from devboxd.model.project import Phase, Policy, Project, Want
from tests.control.fakes import LoopClock
from tests.lifecycle.idlebox import IdleBox, Watcher, disuse, watch
from tests.lifecycle.kit import Bench, Ran, bench, start, stop, with_daemon
from tests.model.traces import tool

pytestmark = pytest.mark.looptime


async def did(one: Watcher, project: Project) -> list[str]:
    return [str(each.did) for each in await one.idle.book.decisions(project.uid)]


async def until_saving(one: Bench) -> Ledger:
    async with asyncio.timeout(20 * 3600.0):
        while (known := await one.projects.get("api")).project.phase is not Phase.SAVING:
            await one.fleet.changed(20.0)
    return known


def minutes(project: Project) -> float:
    """Since the box was launched."""
    return (LoopClock().wall() - (project.launched or 0.0)) / 60.0


@with_daemon
async def test_an_idle_box_is_warned_and_then_saved_by_the_ordinary_pipeline(one: Bench) -> None:
    """Thirty minutes of nothing: warned at twenty, stopped at thirty, warm, with a generation."""
    watcher, project = watch(one), await one.launched()
    written = one.work(project)
    known = await until_saving(one)
    assert 30.0 <= minutes(project) < 34.0
    assert known.project.want is Want.WARM
    known = await one.until("api", Phase.WARM)
    assert known.project.head == 1
    assert one.content(known.project.instance)["/dev/sda1"] >= written
    assert await did(watcher, project) == [Did.WARNED, Did.STOPPED]
    (warned, title, text), (stopped, last, _) = watcher.notices
    assert title in ("api stops in 10 min", "api stops in 9 min")
    assert "devboxctl extend api 1h" in text
    assert last == "api was stopped"
    assert 580 <= stopped - warned <= 680
    decision = (await watcher.idle.book.decisions(project.uid))[-1]
    assert decision.why.startswith("idle since 3")
    assert ("input", "nobody has a terminal", False) not in decision.evidence
    assert {row[0] for row in decision.evidence} == {"input", "cpu", "net", "disk"}
    events = [event.text for event in await one.projects.events("api")]
    assert any("asked: stop, idle since" in text for text in events)
    assert watcher.box.looks <= 8


@with_daemon
async def test_a_box_at_work_stays_up_all_day_and_is_looked_at_rarely(one: Bench) -> None:
    watcher = watch(one, works=lambda minute: {"tools": [tool("pytest", "finite")]} if minute < 600 else {})
    project = await one.launched()
    await until_saving(one)
    assert 628.0 <= minutes(project) < 655.0
    assert watcher.box.looks < 60


@with_daemon
async def test_a_key_after_the_warning_keeps_the_box_and_the_time_begins_anew(one: Bench) -> None:
    """Even one that is pressed in the last minute: the look before the stop sees it."""
    watcher = watch(one, works=lambda minute: {"input": 5.0} if 28 <= minute < 31 else {})
    project = await one.launched()
    await until_saving(one)
    assert 58.0 <= minutes(project) < 66.0
    assert (await did(watcher, project))[:2] == [Did.WARNED, Did.KEPT]


@pytest.mark.parametrize(
    ("policy", "least", "most", "want"),
    [
        (IdlePolicy(after=3600.0, warn=60.0), 60.0, 64.0, Want.WARM),
        (IdlePolicy(then=Then.COLD), 30.0, 34.0, Want.COLD),
        (IdlePolicy(after=86400.0, max_run=5400.0), 90.0, 95.0, Want.WARM),
    ],
)
@with_daemon
async def test_the_policy_of_the_project_holds(
    one: Bench, policy: IdlePolicy, least: float, most: float, want: Want
) -> None:
    watch(one)
    project = await one.launched()
    await one.projects.settle("api", lambda known: replace(known.policy, idle=policy))
    known = await until_saving(one)
    assert least <= minutes(project) < most
    assert known.project.want is want


@with_daemon
async def test_a_policy_that_only_tells_stops_nothing(one: Bench) -> None:
    """Once for each quiet time, not once a minute."""
    watcher = watch(one, policy=IdlePolicy(then=Then.NOTIFY))
    project = await one.launched()
    await asyncio.sleep(6 * 3600.0)
    assert (await one.projects.get("api")).project.phase is Phase.RUNNING
    assert await did(watcher, project) == [Did.WARNED, Did.TOLD]
    assert [title for _, title, _ in watcher.notices][-1] == "api is idle"


@with_daemon
async def test_a_lease_and_an_extension_hold_the_box(one: Bench) -> None:
    watcher, project = watch(one), await one.launched()

    def two_hours(known: Any) -> Any:
        at = LoopClock().wall()
        return replace(known, leases=lease.granted(known.leases, "l1", at, seconds=7200.0))

    await watcher.idle.book.change(project.uid, two_hours)
    watcher.idle.wake(project.uid)
    await asyncio.sleep(5400.0)
    assert (await one.projects.get("api")).project.phase is Phase.RUNNING
    await watcher.idle.book.change(
        project.uid, lambda known: extended(known, 3 * 3600.0, None, LoopClock().wall())
    )
    watcher.idle.wake(project.uid)
    await until_saving(one)
    assert minutes(project) >= 90 + 180


@with_daemon
async def test_a_hook_that_wants_the_box_keeps_it_eight_times(one: Bench) -> None:
    watcher = watch(one, veto="10-backup\n")
    project = await one.launched()
    await until_saving(one)
    found = await watcher.idle.book.decisions(project.uid)
    assert next(each.why for each in found if each.did is Did.VETOED) == "10-backup keeps it (time 1 of 8)"
    assert len([each for each in found if each.did is Did.VETOED]) == 8
    assert minutes(project) >= 30 + 8 * 30


@with_daemon
async def test_what_can_not_be_seen_stops_nothing_and_is_said(one: Bench) -> None:
    """After a quarter of an hour, on a box that answers all the time; and no longer once it can be seen."""
    lost = {"missing": ["gpu: nvidia-smi did not answer"]}
    watcher = watch(one, works=lambda minute: lost if minute < 720 else {})
    project = await one.launched()
    await asyncio.sleep(14 * 60.0)
    assert one.shared.news.conditions() == []
    await asyncio.sleep(4 * 60.0)
    (said,) = one.shared.news.conditions()
    assert said.code == "idle-unknown"
    assert said.text == (
        "what works on api can not be seen: gpu: nvidia-smi did not answer; it is not stopped for being idle meanwhile"
    )
    assert said.hint == "devboxctl why api"
    assert 60.0 <= LoopClock().wall() - said.since <= 20 * 60.0
    await asyncio.sleep(12 * 3600.0 - 20 * 60.0)
    assert (await one.projects.get("api")).project.phase is Phase.RUNNING
    assert watcher.notices == []
    assert [found.code for found in one.shared.news.conditions()] == ["idle-unknown"]
    await until_saving(one)
    assert minutes(project) >= 745
    assert one.shared.news.conditions() == []


@with_daemon
async def test_what_is_unknown_for_a_moment_is_no_condition(one: Bench) -> None:
    """Ten minutes without an answer of nvidia-smi in each half an hour."""

    def works(minute: float) -> dict[str, Any]:
        return {"missing": ["gpu: nvidia-smi did not answer"]} if minute % 30 < 10 else {"input": 5.0}

    watch(one, works=works)
    await one.launched()
    seen = set()
    for _ in range(300):
        await asyncio.sleep(60.0)
        seen |= {found.code for found in one.shared.news.conditions()}
    assert seen == set()


@pytest.mark.parametrize(
    ("from_inside", "said"),
    [
        (True, "the box was shut down from inside, by its watchdog or by somebody on it"),
        (False, "the box was stopped through EC2, by somebody or by its dead-man schedule"),
    ],
)
@with_daemon
async def test_who_stopped_a_box_that_no_daemon_has_is_said_as_far_as_ec2_tells(
    one: Bench, from_inside: bool, said: str
) -> None:
    project = await one.launched()
    if from_inside:
        one.model.power_off(project.instance or "", now=LoopClock().wall())
    else:
        parameters = {"InstanceIds": [project.instance]}
        one.model.call("StopInstances", parameters, now=LoopClock().wall(), caller="console")
    known = await until_saving(one)
    assert known.project.reason == said
    assert f"saving: {said}" in [event.text for event in await one.projects.events("api")]


@with_daemon
async def test_a_box_whose_clock_is_wrong_is_not_judged(one: Bench) -> None:
    watch(one, skew=-7200.0)
    await one.launched()
    await asyncio.sleep(7200.0)
    assert (await one.projects.get("api")).project.phase is Phase.RUNNING
    assert [found.code for found in one.shared.news.conditions()] == ["idle-unknown"]


@with_daemon
async def test_a_box_that_does_not_answer_is_asked_again_later_each_time(one: Bench) -> None:
    watcher = watch(one)
    real = watcher.box.look

    def broken(now: float, here: object = None) -> None:
        raise Unreachable("the session was lost")

    watcher.box.look = broken  # type: ignore[method-assign]
    project = await one.launched()
    await asyncio.sleep(4 * 3600.0)
    assert watcher.box.looks < 20
    assert watcher.idle.known(project) is not None
    watcher.box.look = real  # type: ignore[method-assign]
    await until_saving(one)
    assert one.shared.news.conditions() == []


@with_daemon
async def test_a_box_without_a_timer_is_looked_at_each_minute(one: Bench) -> None:
    """A simulated one, or one without root: the verdict is the same while a daemon is there."""
    watch(one, timer=False)
    project = await one.launched()
    await until_saving(one)
    assert 30.0 <= minutes(project) < 36.0


@with_daemon
async def test_whoever_opens_the_lid_late_is_told_before_the_box_goes(one: Bench) -> None:
    """The box has warned its terminals long ago; nobody at this machine knows."""
    project = await one.launched()
    watcher = watch(one)
    await asyncio.sleep(60.0)
    watcher.box.minutes_until(project.instance or "", LoopClock().wall())
    await stop_idle(one, watcher)
    await asyncio.sleep(3000.0)
    late = watch(one)
    late.box.__dict__.update(watcher.box.__dict__)
    await until_saving(one)
    warned, stopped = (at for at, _, _ in late.notices)
    assert stopped - warned >= 119.0


async def stop_idle(one: Bench, watcher: Watcher) -> None:
    """As if this daemon's driver had died: its looks answer no more."""

    async def never(*_: Any, **__: Any) -> Ran:
        await asyncio.sleep(1e9)
        return Ran()

    watcher.idle._run = never


async def test_another_daemon_goes_on_where_one_was_killed() -> None:
    """Warned by the first, stopped by the second at the same minute: all that matters is on the box and in the store."""
    first = await start(bench())
    try:
        watcher, project = watch(first), await first.launched()
        while Did.WARNED not in await did(watcher, project):
            await asyncio.sleep(10.0)
        await stop(first)
        second = await start(bench(first.store, model=first.model, me="next"))
        later = watch(second)
        later.box.__dict__.update(watcher.box.__dict__)
        await until_saving(second)
        assert 30.0 <= minutes(project) < 36.0
        await stop(second)
    finally:
        await stop(first)


@with_daemon
async def test_a_box_that_was_started_again_meanwhile_is_not_taken_down(one: Bench) -> None:
    """The decision was about another life of it."""
    watch(one, works=lambda minute: {"input": 1.0})
    project = await one.launched()
    old = replace(project, launched=(project.launched or 0) - 60.0)
    assert not await one.projects.idle_down(old, Want.WARM, "idle")
    assert (await one.projects.get("api")).project.want is Want.UP
    assert project.policy == Policy(grace=60.0)
    assert await one.projects.idle_down(project, Want.WARM, "idle")


@with_daemon
async def test_decisions_are_forgotten_after_thirty_days_and_notes_go_with_the_project(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert KEPT == 30 * 86400.0
    monkeypatch.setattr("devboxd.control.lifecycle.idlebook.KEPT", 7200.0)
    watcher, project = watch(one), await one.launched()
    await one.until("api", Phase.WARM)
    assert await did(watcher, project) == [Did.WARNED, Did.STOPPED]
    await watcher.idle.book.change(project.uid, lambda known: replace(known, held=1.0))
    await asyncio.sleep(7300.0)
    assert await did(watcher, project) == []
    await one.projects.delete("api")
    async with asyncio.timeout(7200):
        while await one.projects.find("api") is not None:
            await asyncio.sleep(10.0)
    assert (await watcher.idle.book.notes(project.uid)).held is None


@with_daemon
async def test_another_policy_loses_nothing_that_somebody_else_has_just_settled(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher, project = watch(one), await one.launched()
    verbs = IdleVerbs(one.shared, one.projects, watcher.idle, disuse(one), short_id=lambda: "x", who="me")
    real = one.projects.get

    async def get(name: str) -> Ledger:
        known = await real(name)
        monkeypatch.undo()
        await one.projects.settle("api", lambda now: replace(now.policy, hook_may_veto=True))
        return known

    monkeypatch.setattr(one.projects, "get", get)
    await verbs.settle("api", {"after": 7200.0})
    policy = (await one.projects.get("api")).project.policy
    assert (policy.hook_may_veto, policy.idle and policy.idle.after) == (True, 7200.0)
    assert policy.grace == project.policy.grace


@with_daemon
async def test_why_a_box_was_stopped_is_told_once_to_whoever_attaches(one: Bench) -> None:
    watcher = watch(one)
    verbs = IdleVerbs(one.shared, one.projects, watcher.idle, disuse(one), short_id=lambda: "x", who="me")
    assert await verbs.last_stop("api") == ""
    await one.launched()
    assert await verbs.last_stop("api") == ""
    await one.until("api", Phase.WARM)
    told = await verbs.last_stop("api")
    assert told.startswith("api was stopped ")
    assert "idle since 3" in told
    assert "cpu: 0.4 % of a core" in told
    assert await verbs.last_stop("api") == ""


@with_daemon
async def test_a_box_is_brought_up_when_its_hours_begin_and_goes_soon_after_their_end(one: Bench) -> None:
    """The loop's clock begins at a Tuesday's 22:13 UTC or some other time: the hours are made around it."""
    watcher = watch(one, works=lambda minute: {"input": 1.0} if minute < 30 else {})
    project = await one.launched()
    at = datetime.fromtimestamp(LoopClock().wall(), UTC)
    begin, end = at + timedelta(hours=5), at + timedelta(hours=8)
    hours = f"{begin:%H:%M}-{end:%H:%M} UTC"
    policy = IdlePolicy(hours=hours, starts=True)
    await one.projects.settle("api", lambda known: replace(known.policy, idle=policy))
    watcher.idle.wake(project.uid)
    await until_saving(one)
    assert 39.0 <= minutes(project) < 44.0  # ten quiet minutes, not thirty
    async with asyncio.timeout(6 * 3600.0):
        while (known := await one.projects.get("api")).project.phase is not Phase.RUNNING:
            await one.fleet.changed(20.0)
    began = datetime.fromtimestamp(LoopClock().wall(), UTC)
    assert timedelta(0) <= began - begin.replace(second=0, microsecond=0) < timedelta(minutes=3)
    assert known.project.want is Want.UP
    assert Did.STARTED in await did(watcher, project)


# The lid -----------------------------------------------------------------------------------------------------

LID = IdlePolicy(after=8 * 3600.0, lid=900.0)


def gone(watcher: Watcher, project: Project) -> list[float]:
    """Minutes after the launch at which the box has powered itself off."""
    watcher.box.minutes_until(project.instance or "", LoopClock().wall())
    return [(at - (project.launched or 0.0)) / 60.0 for at in watcher.box.powered_off]


async def test_a_box_stops_itself_a_quarter_of_an_hour_after_the_laptop_slept() -> None:
    one = await start(bench())
    watcher, project = watch(one, policy=LID), await one.launched()
    await asyncio.sleep(2 * 3600.0)
    assert gone(watcher, project) == []  # eight hours are allowed while the laptop is here
    looks = watcher.box.looks
    assert looks <= 2 * 12 + 4  # a sign in five minutes, and no more
    await stop(one)
    slept = minutes(project)
    await asyncio.sleep(3600.0)
    (at,) = gone(watcher, project)
    assert 10.0 <= at - slept <= 16.1
    assert watcher.box.stopped is not None
    assert watcher.box.stopped["why"].startswith("no laptop was here for 1")
    assert "and it is idle since 2 h" in watcher.box.stopped["why"]


async def test_a_hook_keeps_a_box_without_a_laptop_eight_times_too() -> None:
    one = await start(bench())
    watcher, project = watch(one, policy=LID, veto="10-queue\n"), await one.launched()
    await asyncio.sleep(3600.0)
    await stop(one)
    slept = minutes(project)
    await asyncio.sleep(6 * 3600.0)
    (at,) = gone(watcher, project)
    assert 8 * 30.0 + 10.0 <= at - slept <= 8 * 31.0 + 16.1


@pytest.mark.parametrize(
    "seen",
    [
        {"tools": [tool("claude", "agent", state="working", since=0.0, cpu=0.2)]},
        {"tools": [tool("pytest", "finite", cpu=0.1)]},
        {"input": 5.0},
        {"missing": ["gpu: nvidia-smi did not answer"]},
    ],
)
async def test_a_box_at_work_does_not_follow_the_lid(seen: dict[str, Any]) -> None:
    one = await start(bench())
    watcher, project = watch(one, policy=LID, works=lambda minute: seen), await one.launched()
    await asyncio.sleep(1800.0)
    await stop(one)
    await asyncio.sleep(6 * 3600.0)
    assert gone(watcher, project) == []


async def test_a_lease_holds_it_and_work_that_ends_counts_from_then() -> None:
    for held in (True, False):
        one = await start(bench())
        busy = {"tools": [tool("pytest", "finite", cpu=0.1)]}
        watcher = watch(one, policy=LID, works=lambda minute: busy if minute < 120 and not held else {})  # noqa: B023
        project = await one.launched()
        if held:
            leases = lease.granted((), "l", LoopClock().wall(), seconds=7200.0)
            await watcher.idle.book.change(project.uid, lambda known: replace(known, leases=leases))  # noqa: B023
            watcher.idle.wake(project.uid)
        await asyncio.sleep(1800.0)
        await stop(one)
        await asyncio.sleep(5 * 3600.0)
        (at,) = gone(watcher, project)
        assert 120.0 <= at <= 137.0


@pytest.mark.parametrize("away", [120.0, 480.0, 840.0])
async def test_a_restart_of_the_daemon_and_a_network_that_is_away_for_a_while_are_no_lid(away: float) -> None:
    first = await start(bench())
    watcher, project = watch(first, policy=LID), await first.launched()
    await asyncio.sleep(1800.0)
    watcher.idle.wake(project.uid)  # the last sign is fresh
    await asyncio.sleep(2.0)
    await stop(first)
    await asyncio.sleep(away)
    second = await start(bench(first.store, model=first.model, me="next"))
    later = watch(second, policy=LID)
    later.box.__dict__.update(watcher.box.__dict__)
    await asyncio.sleep(1800.0)
    assert gone(later, project) == []
    assert (later.box.state["warned"] or [0, ""])[1] != "lid"
    assert (await second.projects.get("api")).project.phase is Phase.RUNNING
    await stop(second)


async def test_any_laptop_keeps_the_box() -> None:
    """One sleeps, the other one has nothing configured: what it looks is its sign."""
    first = await start(bench())
    watcher, project = watch(first, policy=LID, me="a@one/1"), await first.launched()
    await first.projects.settle("api", lambda known: replace(known.policy, idle=LID))
    second = await start(bench(first.store, model=first.model, me="next"))
    other = watch(second, me="b@two/2")
    other.box.__dict__.update(watcher.box.__dict__)
    await asyncio.sleep(1800.0)
    await stop(first)
    await asyncio.sleep(3 * 3600.0)
    assert gone(other, project) == []
    assert set(other.box.state["here"]) == {"b@two/2"} or len(other.box.state["here"]) == 2
    await stop(second)
    left = minutes(project)
    await asyncio.sleep(3600.0)
    (at,) = gone(other, project)
    assert 10.0 <= at - left <= 16.1


async def test_an_open_lid_is_a_sign_at_once() -> None:
    """The daemon slept with its machine: it does not wait for its next look."""
    one = await start(bench())
    watcher, project = watch(one, policy=LID), await one.launched()
    await asyncio.sleep(1800.0)
    watcher.idle.wake(project.uid)
    await asyncio.sleep(30.0)
    looks = watcher.box.looks
    one.shared.bells.network.ring()
    await asyncio.sleep(2.0)
    assert watcher.box.looks == looks + 1
    for _ in range(20):  # a network that flaps
        one.shared.bells.network.ring()
        await asyncio.sleep(0.5)
    assert watcher.box.looks <= looks + 2
    await stop(one)


async def test_a_loop_that_fails_again_and_again_leaves_one_that_follows_the_lid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = await start(bench())
    watcher = watch(one, policy=LID)

    async def fails(timeout: float) -> None:
        raise RuntimeError("nobody foresaw it")

    with monkeypatch.context() as patch:
        patch.setattr(one.fleet, "changed", fails)
        one.shared.tasks.spawn("again", steadily(one.shared, "again", watcher.idle.run))
        await asyncio.sleep(600.0)
    assert [task.get_name().rpartition(": ")[2] for task in asyncio.all_tasks()].count("lid") == 1
    await stop(one)


async def test_a_box_that_is_only_told_of_does_not_follow_the_lid() -> None:
    one = await start(bench())
    policy = IdlePolicy(then=Then.NOTIFY, lid=900.0)
    watcher, project = watch(one, policy=policy), await one.launched()
    await asyncio.sleep(1800.0)
    await stop(one)
    await asyncio.sleep(3 * 3600.0)
    assert gone(watcher, project) == []


@with_daemon
async def test_a_look_that_was_under_way_when_something_was_settled_is_no_answer(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It showed what follows from the policy before."""
    watcher = watch(one)
    await one.launched()
    await asyncio.sleep(120.0)  # its agent is there
    verbs = IdleVerbs(one.shared, one.projects, watcher.idle, disuse(one), short_id=lambda: "x", who="me")
    real, under_way = IdleBox.__call__, asyncio.Event()

    async def slow(self: IdleBox, *words: Any, timeout: float) -> Ran:
        under_way.set()
        await asyncio.sleep(3.0)
        return await real(self, *words, timeout=timeout)

    monkeypatch.setattr(IdleBox, "__call__", slow)
    verbs.look_soon("api")
    await under_way.wait()
    await verbs.settle("api", {"lid": 900.0})
    found = await verbs.why("api")
    assert found.moment is not None
    assert found.moment.unattended is not None
