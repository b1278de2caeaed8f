"""The directory of sessions, the sweep and the ping, with a service that fails, on virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from devboxd.control.base.shared import Shared
from devboxd.control.connect.ping import ping
from devboxd.control.connect.plan import Plan, Quiet
from devboxd.control.connect.sessions import Sessions
from devboxd.control.connect.sweep import sweep
from devboxd.errors import BadRequest, BoxNotFound, Denied, NotConnected, SessionOver, Unreachable
from devboxd.model.box import Account, BoxRef
from devboxd.model.config import Config, LinkSettings
from devboxd.model.states import SessionKind
from tests.control.fakes import FakeService, Kept, LoopClock, directory, now, settle

pytestmark = [pytest.mark.looptime, pytest.mark.timeout(30)]

HERE = Account("dev")
BOX = BoxRef("api", "i-1", HERE)
PORT: dict[str, Any] = {"document": "AWS-StartPortForwardingSession", "parameters": {"portNumber": "22"}}


def new(service: FakeService, owner: str = "me") -> tuple[Sessions, Kept]:
    return directory(Shared.of(LoopClock(), dice=lambda: 0.5), service, owner)


def plan() -> Plan:
    return Plan(target="i-1", box="api", kind=SessionKind.PORT, account=HERE, **PORT)


async def left_open(service: FakeService, owner: str) -> str:
    """Start a session as a daemon does that then crashes; returns its id."""
    sessions, kept = new(service, owner)
    session = sessions.open(plan(), Quiet(), LinkSettings())
    work = asyncio.get_running_loop().create_task(sessions.hold(session))
    await session.wait_ready()
    service.down["terminate"] = Unreachable("it has crashed")
    work.cancel()
    await asyncio.wait({work})
    del service.down["terminate"]
    assert kept.open == {session.id: HERE}, "what could not be ended stays written down"
    return str(session.id)


async def test_a_session_is_known_for_as_long_as_it_runs_and_found_by_its_start() -> None:
    """``devboxctl status`` and ``session end``; an ambiguous start must end nothing."""
    service = FakeService()
    sessions, kept = new(service)
    first, second = (sessions.open(plan(), Quiet(), LinkSettings()) for _ in range(2))
    assert sessions.running == [], "not started yet"
    async with asyncio.TaskGroup() as tasks:
        for one in (first, second):
            tasks.create_task(sessions.hold(one))
            await one.wait_ready()
        assert sessions.running == [first, second]
        assert kept.open == {"s-0": HERE, "s-1": HERE}
        assert sessions.find("s-1") is second
        for start in ("s-", ""):
            with pytest.raises(BadRequest, match=r"2 sessions: s-0, s-1"):
                sessions.find(start)
        with pytest.raises(BoxNotFound):
            sessions.find("s-7")
        service.hang.add("terminate")
        await first.stop()
        assert sessions.running == [second], "what has ended is no longer shown, though AWS may not know yet"
        await second.stop()
    assert sessions.running == []


async def test_the_heart_goes_on_when_sessions_come_and_go() -> None:
    """One timer for all of them."""
    sessions, _ = new(FakeService())
    async with asyncio.TaskGroup() as tasks:
        heart = tasks.create_task(sessions.beat())
        for _ in range(3):
            session = sessions.open(plan(), Quiet(), LinkSettings())
            holder = tasks.create_task(sessions.hold(session))
            await asyncio.sleep(12)
            await session.stop()
            await holder
        assert not heart.done()
        heart.cancel()


async def test_the_sweep_ends_what_was_left_open_and_nothing_else() -> None:
    """By what is written down, and by its Reason where even that was lost; another machine's are not ours."""
    service = FakeService()
    written, lost, foreign = [await left_open(service, owner) for owner in ("me", "me", "somebody-else")]
    sessions, kept = new(service)
    kept.open[written] = HERE
    mine = sessions.open(plan(), Quiet(), LinkSettings())
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sessions.hold(mine))
        await mine.wait_ready()
        kept.open.pop(str(mine.id))  # as if the answer to StartSession were still on its way
        await sweep(sessions, dict(kept.open), [HERE])
        ended = {id_ for id_, session in service.sessions.items() if session.terminated}
        assert ended == {written, lost}
        assert foreign not in ended
        assert kept.open == {}
        assert [e.text for e in sessions.shared.news.events() if e.kind == "sweep.ended"] == [
            "ended 2 sessions that an earlier daemon had left open"
        ]
        await mine.stop()


async def test_what_cannot_be_ended_now_is_left_to_the_next_daemon() -> None:
    """The login had expired when the daemon started."""
    service = FakeService()
    id_ = await left_open(service, "me")
    sessions, kept = new(service)
    kept.open[id_] = HERE
    service.down.update(terminate=Denied("expired"), active=Denied("expired"))
    await sweep(sessions, dict(kept.open), [HERE])
    assert kept.open == {id_: HERE}
    service.down = {"terminate": SessionOver("it has ended by itself"), "active": Denied("still")}
    await sweep(sessions, dict(kept.open), [HERE])
    assert kept.open == {}
    assert "sweep.ended" not in [event.kind for event in sessions.shared.news.events()], "that was not us"


async def test_a_session_whose_answer_was_lost_is_ended_and_no_other() -> None:
    """Nobody knows it, and it would stay until its idle time-out."""
    service = FakeService()
    sessions, _ = new(service)
    foreign = await left_open(service, "somebody-else")
    service.loses = 1
    one = sessions.open(plan(), Quiet(), LinkSettings())
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sessions.hold(one))
        await one.wait_ready()
        lost = next(id_ for id_ in service.sessions if id_ not in (foreign, one.id))
        await asyncio.sleep(100)
        assert not service.sessions[lost].terminated, "its answer might still be on its way"
        await asyncio.sleep(60)
        assert [id_ for id_, session in service.sessions.items() if session.terminated] == [lost]
        assert service.count["active"] == 2, "and nobody looks any more"
        await asyncio.sleep(3600)
        assert service.count["active"] == 2
        await one.stop()


async def test_where_sessions_may_not_be_listed_a_lost_answer_is_let_be() -> None:
    """Many accounts do not allow it."""
    service = FakeService()
    service.loses, service.down["active"] = 1, Denied("no")
    sessions, _ = new(service)
    one = sessions.open(plan(), Quiet(), LinkSettings())
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sessions.hold(one))
        await one.wait_ready()
        await asyncio.sleep(3600)
        assert service.count["active"] == 1
        await one.stop()


async def test_ping_measures_and_leaves_nothing_open() -> None:
    """A number for each probe, and no session behind it."""
    service = FakeService()
    sessions, kept = new(service)
    found = await ping(sessions, BOX, Config(), count=3, timeout=10.0)
    assert len(found.trips) == 3
    await settle()
    assert not [session for session in service.sessions.values() if session.alive]
    assert kept.open == {}
    assert sessions.running == []


async def test_ping_says_what_it_has_when_the_answers_stop() -> None:
    """Two of five came; the rest of the line is silent."""
    service = FakeService()
    sessions, _ = new(service)
    async with asyncio.TaskGroup() as tasks:
        work = tasks.create_task(ping(sessions, BOX, Config(), count=5, timeout=10.0))
        await asyncio.sleep(0.06)
        service.only.link.mute = True
        began = now()
        found = await work
    assert 0 < len(found.trips) < 5
    assert now() - began < 13.0


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"start": NotConnected("i-1 is not connected")}, (NotConnected, Unreachable)),
        ({"start": Denied("no")}, Denied),
        ({"dial": Unreachable("no way")}, Unreachable),
    ],
)
async def test_ping_of_a_box_that_does_not_answer_says_why(fault: dict[str, Any], error: Any) -> None:
    """In time, and with the reason that the session gave."""
    service = FakeService()
    service.down.update(fault)
    sessions, kept = new(service)
    with pytest.raises(error):
        await ping(sessions, BOX, Config(), count=1, timeout=5.0)
    assert sessions.running == []
    assert kept.open == {}
