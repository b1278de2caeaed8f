"""Two whole lives of a box, with the daemon killed before and after each thing it changes.

Launch, work, terminate; launch, work, stop, start, work, terminate. Whatever dies wherever: in the end everything
that was written is in the newest generation, and nothing is left over.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest

from devboxd.model.project import Phase, Want
from tests.lifecycle.memory import MemoryStore
from tests.lifecycle.oracle import Oracle
from tests.lifecycle.world import Fate, World

UID = "p1"
DEADLY = [Fate.DIES_BEFORE, Fate.DIES_AFTER, Fate.REQUEST_LOST, Fate.ANSWER_LOST, Fate.ARRIVES_LATE]


@contextmanager
def watched(world: World, *uids: str, lenient: Sequence[str] = ()) -> Iterator[Oracle]:
    """An oracle that sees every decision; a failure shows the last of the trace."""
    oracle = Oracle(world, uids or (UID,), frozenset(lenient))
    oracle.install()
    try:
        yield oracle
    except AssertionError as error:
        raise AssertionError(f"{error}\n" + "\n".join(world.trace[-80:])) from error
    finally:
        world.close()


@contextmanager
def fated(fates: Mapping[int, Fate], *, seed: int = 1) -> Iterator[tuple[World, Oracle]]:
    """A world that is watched, with these fates for the numbered mutations; in the end it knows how many there were."""
    world, numbers = World(MemoryStore(), seed=seed), itertools.count(1)
    world.fate = lambda daemon, request: fates.get(next(numbers), Fate.ARRIVES)
    with watched(world) as oracle:
        yield world, oracle
    world.mutations = next(numbers) - 1


def phase(world: World, wanted: Phase) -> Callable[[], bool]:
    return lambda: world.project(UID).phase is wanted


def work(world: World) -> None:
    """The box writes to both its volumes, and not all of it is on the medium at once."""
    instance = world.project(UID).instance
    assert instance is not None
    world.model.work(instance, now=world.now, device="/dev/sda1")
    world.model.work(instance, now=world.now, device="/dev/sdf", is_synced=False)


def two_lives(world: World) -> None:
    """The script."""
    world.create(UID)
    world.daemon(UID)
    world.want(UID, Want.UP)
    world.run_until(phase(world, Phase.RUNNING))
    world.run_for(30)
    work(world)
    world.want(UID, Want.COLD)
    world.run_until(phase(world, Phase.READY))
    world.run_for(90)
    world.want(UID, Want.UP)
    world.run_until(phase(world, Phase.RUNNING))
    work(world)
    world.want(UID, Want.WARM)
    world.run_until(phase(world, Phase.WARM))
    world.want(UID, Want.UP)
    world.run_until(phase(world, Phase.RUNNING))
    work(world)
    world.want(UID, Want.COLD)
    world.run_until(phase(world, Phase.READY))
    world.run_for(400)


def run(fates: dict[int, Fate], *, seed: int = 1) -> World:
    """The script, with these fates for the numbered mutations."""
    with fated(fates, seed=seed) as (world, oracle):
        two_lives(world)
        assert oracle.settled(UID)
        oracle.ends_well(UID)
        assert len(oracle.newest) == 2
        assert all(content > 0 for content in oracle.newest.values()), "nothing was written"
    return world


@pytest.fixture(scope="module")
def mutations() -> int:
    """How many things the daemon changes in the two lives."""
    return run({}).mutations


def test_two_lives_without_any_fault(mutations: int) -> None:
    """The script itself, and how much it does: a change of this number is a change of the pipeline."""
    assert 40 <= mutations <= 60


@pytest.mark.parametrize("fate", DEADLY)
def test_any_one_thing_may_go_wrong(fate: Fate, mutations: int) -> None:
    """Each of the mutating calls and commits in turn."""
    for number in range(1, mutations + 1):
        run({number: fate})


def test_any_two_things_may_go_wrong(mutations: int) -> None:
    """A sample of all pairs, the second one often in the recovery from the first."""
    dice = random.Random(7)
    for _ in range(60):
        first = dice.randint(1, mutations)
        second = first + dice.choice([1, 1, 2, 3, dice.randint(4, 30)])
        run({first: dice.choice(DEADLY), second: dice.choice(DEADLY)})
