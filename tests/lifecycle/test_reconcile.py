"""The loop itself: what it does with a decision that is too old, a call that was just made, and its turn."""

from __future__ import annotations

from typing import Any

import pytest

from devboxd.control.lifecycle.book import Book
from devboxd.control.lifecycle.turns import Turn
from devboxd.errors import Conflict, Unreachable
from devboxd.model.ledger import Change, Event, Ledger, created, lease_key
from devboxd.model.project import Phase, Want
from devboxd.model.step import Write
from devboxd.model.turn import SECONDS, Lease, Watched, claimed, watched
from devboxd.simulator.ec2.faults import Fault
from tests.lifecycle.memory import MemoryStore
from tests.lifecycle.scenarios import box, up
from tests.lifecycle.test_crashes import UID, phase
from tests.lifecycle.test_crashes import watched as under_watch
from tests.lifecycle.world import World
from tests.model.scenes import AT, RUN, project


def lines(world: World, word: str) -> list[str]:
    return [line for line in world.trace if f"A {word} " in line]


def test_a_decision_is_not_acted_on_after_a_sleep() -> None:
    """The lid was closed between the look and the call: the box may have been started since."""
    world = World(MemoryStore(), seed=2)
    with under_watch(world):
        up(world)
        world.want(UID, Want.COLD)
        world.run_until(lambda: world.project(UID).phase is Phase.RELEASING)
        daemon = world.daemons[0]
        daemon.nap(3600.0)
        world.run_for(3500.0)
        assert not lines(world, "TerminateInstances")
        assert world.console("StartInstances", InstanceIds=[box(world)]) is None
        world.run_for(3600.0)
        assert world.model.tables.instances[box(world)].state.value == "running"
        assert not lines(world, "TerminateInstances")


def test_a_call_that_was_accepted_is_not_made_again_at_once() -> None:
    """EC2 shows it later; asking twice a second would only drink from the account's bucket."""
    world = World(MemoryStore(), seed=2)
    with under_watch(world):
        up(world)
        world.model.faults.add(Fault("stale", seconds=8.0, depth=16))
        world.want(UID, Want.WARM)
        world.run_until(phase(world, Phase.WARM))
        assert len(lines(world, "StopInstances")) <= 3
        assert len(lines(world, "CreateImage")) == 1


def test_what_is_refused_again_and_again_is_tried_less_and_less() -> None:
    """A missing permission costs a call every few minutes, not every two seconds."""
    world = World(MemoryStore(), seed=2)
    with under_watch(world):
        up(world)
        world.model.faults.add(Fault("refuse", operation="StopInstances", code="UnauthorizedOperation"))
        world.want(UID, Want.WARM)
        world.run_for(3600.0)
        assert 5 <= len(lines(world, "StopInstances")) <= 25
        world.model.faults.clear()
        world.run_until(phase(world, Phase.WARM), most=2000)


# Book


class Forgetful(MemoryStore):
    """Commits, and says that it did not hear."""

    def __init__(self) -> None:
        super().__init__()
        self.loses = False

    async def commit(self, owner: str, changes: Any, op: str) -> None:
        await super().commit(owner, changes, op)
        if self.loses:
            raise Unreachable("no answer")


def book(store: MemoryStore, who: str = "laptop") -> Book:
    count = iter(range(1000))
    return Book(store, "me", who, lambda: f"{who}-{next(count)}", lambda: AT)


async def test_a_commit_whose_answer_was_lost_is_recognised() -> None:
    """Nobody is told that it failed, and nothing is done twice."""
    store = Forgetful()
    one = book(store)
    store.loses = True
    await one.create(project(Phase.READY), "made", run=RUN)
    known = await one.load("uid")
    assert known is not None
    known = await one.write(known, Write("wish", project(Phase.WARM), "asked"))
    assert known == await one.load("uid")
    assert [event.what for event in await one.events("uid")] == ["create", "wish"]


async def test_whoever_is_overtaken_is_told() -> None:
    """And what was committed by the other is still there."""
    store = MemoryStore()
    one, other = book(store), book(store, "desktop")
    await one.create(project(Phase.READY), "made", run=RUN)
    mine, theirs = await one.load("uid"), await other.load("uid")
    assert mine is not None
    assert theirs is not None
    await other.write(theirs, Write("wish", project(Phase.WARM), "first"))
    with pytest.raises(Conflict):
        await one.write(mine, Write("wish", project(Phase.RUNNING), "second"))
    found = await one.load("uid")
    assert isinstance(found, Ledger)
    assert found.project.phase is Phase.WARM


# Turns


def test_a_lease_is_taken_over_only_after_its_whole_time_on_our_own_clock() -> None:
    """No two clocks are compared, and a renewal starts the time anew."""
    lease = Lease("other", "n1")
    seen = watched(lease, Watched(), 100.0)
    assert claimed(lease, "me", "x", seen, 100.0 + SECONDS - 1) is None
    renewed = Lease("other", "n2")
    seen = watched(renewed, seen, 150.0)
    assert claimed(renewed, "me", "x", seen, 100.0 + SECONDS + 1) is None
    assert claimed(renewed, "me", "x", seen, 150.0 + SECONDS) == Lease("me", "x", epoch=2)
    assert claimed(None, "me", "x", Watched(), 0.0) == Lease("me", "x")
    assert claimed(Lease("me", "old", epoch=4), "me", "x", Watched(), 0.0) == Lease("me", "x", epoch=4)


async def test_of_two_who_want_it_one_has_the_turn_until_it_leaves() -> None:
    store = MemoryStore(is_shared=True)
    await store.commit("me", created(project(Phase.READY), "op", Event(AT, "create", "x", "made")), "op")
    now = 0.0
    count = iter(range(1000))

    def turn(me: str) -> Turn:
        return Turn(store, "me", "uid", me, lambda: f"n{next(count)}", lambda: now)

    one, other = turn("one"), turn("other")
    assert await one.take()
    assert not await other.take()
    now = SECONDS / 2
    assert await one.take()
    assert not await other.take()
    now = SECONDS * 1.4
    assert not await other.take(), "it was renewed in between"
    await one.leave()
    assert await other.take()
    assert not await one.take()
    now = SECONDS * 2.3
    assert not await one.take()
    now = SECONDS * 2.5
    assert await one.take(), "the other has not renewed for the whole time"
    assert not await other.take()


async def test_a_store_of_ones_own_needs_no_turns() -> None:
    """Nothing is read or written for it."""
    store = MemoryStore()
    assert await Turn(store, "me", "uid", "one", lambda: "n", lambda: 0.0).take()
    assert store.items == {}


async def test_two_who_take_a_free_turn_at_once_do_not_both_get_it() -> None:
    store = MemoryStore(is_shared=True)
    one = Turn(store, "me", "uid", "one", lambda: "n1", lambda: 0.0)

    async def overtaken(owner: str, *ranges: Any) -> list[Any]:
        await store.commit("me", [Change(lease_key("uid"), 0, {"holder": "other", "nonce": "n2"})], "x")
        return []

    store.read = overtaken  # type: ignore[method-assign]  # between our read and our write
    assert not await one.take()
