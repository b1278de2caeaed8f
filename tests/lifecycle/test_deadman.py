"""Every daemon is gone for ever: an idle box stops within its bound, and nothing is ever terminated."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import pytest
from msgspec.structs import replace

from devboxd.aws.scheduler import SchedulerApi
from devboxd.errors import AlreadyExists, BadRequest, Denied, Missing
from devboxd.model import lease
from devboxd.model.deadman import BLIND, due, expression, moves
from devboxd.model.identity import Identity
from devboxd.model.idle_policy import IdlePolicy, Then
from devboxd.model.login import Method, Source
from devboxd.model.project import Phase
from devboxd.simulator.ec2.schedules import Schedules
from tests.control.fakes import LoopClock
from tests.lifecycle.idlebox import Watcher, watch
from tests.lifecycle.kit import Bench, bench, start, stop
from tests.model.traces import tool

looptime = pytest.mark.looptime
WHO = Identity("p", "us-east-1", "123456789012", "arn:aws:iam::123456789012:user/u", Source(Method.KEYS, "p"))


async def who() -> Identity:
    return WHO


class Far:
    """``control.base.needs.Deadman`` over the calls of a bench."""

    def __init__(self, one: Bench) -> None:
        self.api = SchedulerApi(one.account, who)

    async def stop_at(self, account: object, instance: str, at: float) -> None:
        await self.api.stop_at(instance, at)

    async def forget(self, account: object, instance: str) -> None:
        await self.api.forget(instance)


async def ticking(schedules: Schedules) -> None:
    """AWS goes on whoever dies."""
    while True:
        await asyncio.sleep(20.0)
        schedules.tick(LoopClock().wall())


class World:
    """A bench, AWS that outlives it, and the driver with a dead-man."""

    def __init__(self, **box: Any) -> None:
        self.box = box
        self.one = bench()
        self.watcher: Watcher

    async def __aenter__(self) -> World:
        self.ticks = asyncio.get_running_loop().create_task(ticking(self.one.account.schedules))
        await start(self.one)
        self.watcher = watch(self.one, deadman=Far(self.one), **self.box)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.ticks.cancel()
        await stop(self.one)

    def state(self, instance: str) -> str:
        self.one.model.settle(LoopClock().wall())
        return self.one.model.tables.instances[instance].state.value

    async def stopped_after(self, instance: str, most: float) -> float:
        began = LoopClock().wall()
        async with asyncio.timeout(most):
            while self.state(instance) not in ("stopped", "stopping"):
                await asyncio.sleep(30.0)
        return (LoopClock().wall() - began) / 3600.0


@looptime
@pytest.mark.parametrize(("timer", "hours"), [(True, 24.0), (False, 4.0)])
async def test_a_box_stops_though_every_daemon_is_gone_for_ever(timer: bool, hours: float) -> None:
    """V6. Its own watchdog is dead, too: a day after the last look, or four hours where it never had one."""
    async with World(timer=timer) as world:
        project = await world.one.launched()
        assert project.instance is not None
        await asyncio.sleep(600.0)
        await stop(world.one)
        found = await world.stopped_after(project.instance, 26 * 3600.0)
        assert hours - 0.3 <= found <= hours + 0.1
        await asyncio.sleep(3 * 86400.0)
        assert world.state(project.instance) == "stopped"
        assert "TerminateInstances" not in world.one.account.calls
        assert not world.one.account.schedules.found  # nothing is left behind
        # Somebody comes back: the box is saved as any that has stopped.
        later = await start(bench(world.one.store, model=world.one.model, me="next"))
        known = await later.until("api", Phase.WARM)
        assert known.project.head == 1
        await stop(later)


@looptime
async def test_a_daemon_that_is_there_moves_it_on_and_takes_it_away_at_the_end() -> None:
    """Two days at work: the schedule is never invoked, and is written a few times an hour at most."""
    async with World(
        works=lambda minute: {"tools": [tool("pytest", "finite", cpu=0.5)]} if minute < 2880 else {}
    ) as world:
        project = await world.one.launched()
        await asyncio.sleep(47 * 3600.0)
        assert world.state(project.instance or "") == "running"
        assert world.one.account.schedules.invoked == []
        assert world.one.account.calls["UpdateSchedule"] < 48 * 2
        async with asyncio.timeout(4 * 3600.0):
            while world.one.account.schedules.found:
                await asyncio.sleep(60.0)
        assert (await world.one.projects.get("api")).project.phase is not Phase.RUNNING


@looptime
async def test_what_can_not_be_told_does_not_move_it_on() -> None:
    """Unknown stops a box only through the dead-man: a day after something was known last."""
    async with World(works=lambda minute: {"missing": ["gpu"]} if minute > 10 else {}) as world:
        project = await world.one.launched()
        found = await world.stopped_after(project.instance or "", 26 * 3600.0)
        assert 23.5 <= found <= 24.5


@looptime
async def test_a_lease_holds_it_and_a_policy_that_only_tells_has_none() -> None:
    async with World() as world:
        project, at = await world.one.launched(), LoopClock().wall()

        def held(known: Any) -> Any:
            return replace(known, leases=lease.granted(known.leases, "l", at, seconds=70 * 3600.0))

        await world.watcher.idle.book.change(project.uid, held)
        world.watcher.idle.wake(project.uid)
        await asyncio.sleep(120.0)
        await stop(world.one)
        assert await world.stopped_after(project.instance or "", 80 * 3600.0) >= 69.5
    async with World(policy=IdlePolicy(then=Then.NOTIFY)) as world:
        await world.one.launched()
        await asyncio.sleep(600.0)
        assert not world.one.account.schedules.found


@looptime
async def test_an_account_without_it_is_said_and_nothing_else_suffers() -> None:
    async with World() as world:
        world.one.account.schedules.groups.clear()
        await world.one.launched()
        await asyncio.sleep(1200.0)
        (found,) = world.one.shared.news.conditions()
        assert found.code == "deadman-off"
        assert found.hint == "devboxctl init account makes it"
        await world.one.until("api", Phase.SAVING)


# When --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "at"),
    [
        ({"watchdog": True}, 86400.0),
        ({"watchdog": False}, BLIND),
        ({"watchdog": True, "held": 90000.0}, 90000.0),
        ({"watchdog": True, "leases": [1.0, 100000.0]}, 100000.0),
        ({"watchdog": True, "never": [[80000.0, 95000.0], [95000.0, 96000.0]]}, 96000.0),
    ],
)
def test_when_it_is_due(given: dict[str, Any], at: float) -> None:
    assert due(0.0, 86400.0, **given) == at


def test_it_is_not_written_at_each_look() -> None:
    assert moves(None, 86400.0, 0.0)
    assert not moves(86400.0, 86400.0 + 1800.0, 1800.0)
    assert moves(86400.0, 86400.0 + 9600.0, 9600.0)
    assert moves(86400.0, 14400.0, 0.0)  # the watchdog is gone: sooner
    assert expression(1_800_000_000.0) == "at(2027-01-15T08:00:00)"


# The calls ---------------------------------------------------------------------------------------------------


class Recorded:
    """``aws.calls.Calls`` that answers with errors or nothing."""

    def __init__(self, answers: Iterable[Exception | None]) -> None:
        self.answers = iter(answers)
        self.made: list[tuple[str, dict[str, Any]]] = []

    async def call(
        self, service: str, operation: str, /, *, target: Any = None, **given: Any
    ) -> dict[str, Any]:
        assert service == "scheduler"
        self.made.append((operation, given))
        if (error := next(self.answers, None)) is not None:
            raise error
        return {}

    async def pages(self, *_: Any, **__: Any) -> list[dict[str, Any]]:
        raise AssertionError


@pytest.mark.parametrize("prefix", ["devbox", "team-b"])
async def test_the_calls_are_those_of_a_one_time_stop(prefix: str) -> None:
    """And botocore's own validator takes them; group and role are those of the account's set-up."""
    import botocore.session
    from botocore.validate import ParamValidator

    calls = Recorded([Missing("no such schedule"), None])
    await SchedulerApi(calls, who, prefix).stop_at("i-0123", 1_800_000_000.0)
    assert [name for name, _ in calls.made] == ["update_schedule", "create_schedule"]
    given = calls.made[1][1]
    assert json.loads(given["Target"]["Input"]) == {"InstanceIds": ["i-0123"]}
    assert given["Target"]["RoleArn"] == f"arn:aws:iam::123456789012:role/{prefix}-us-east-1-deadman"
    assert (given["ActionAfterCompletion"], given["GroupName"]) == ("DELETE", prefix)
    model = botocore.session.get_session().get_service_model("scheduler")
    for operation in ("CreateSchedule", "UpdateSchedule"):
        shape = model.operation_model(operation).input_shape
        assert shape is not None
        assert not ParamValidator().validate(given, shape).has_errors()


@pytest.mark.parametrize(
    ("answers", "raises"),
    [
        ([Missing("x"), AlreadyExists("y"), None], None),
        ([Missing("x"), Missing("group")], BadRequest),
        ([Denied("no")], Denied),
    ],
)
async def test_answers_that_cross_each_other(
    answers: list[Exception | None], raises: type[Exception] | None
) -> None:
    api = SchedulerApi(Recorded(answers), who)
    if raises is None:
        await api.stop_at("i-0", 1.0)
    else:
        with pytest.raises(raises):
            await api.stop_at("i-0", 1.0)


async def test_what_is_gone_already_is_forgotten_all_the_same() -> None:
    await SchedulerApi(Recorded([Missing("x")]), who).forget("i-0")
