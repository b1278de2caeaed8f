"""The lifecycle through the real client and the wire: aiobotocore to the simulator's EC2, and real folders as disks."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from devboxd.aws.clients import Callers
from devboxd.aws.computes import AwsComputes
from devboxd.control.base.shared import Shared
from devboxd.control.lifecycle.book import Book
from devboxd.control.lifecycle.boxwork import BoxWork
from devboxd.control.lifecycle.fleet import Fleet
from devboxd.control.lifecycle.order import LaunchWish
from devboxd.control.lifecycle.projects import Projects
from devboxd.host.clock import Clock
from devboxd.host.store import SqliteStore
from devboxd.model.ledger import Ledger
from devboxd.model.project import Phase, Policy, Project
from devboxd.simulator.world import Simulator
from tests.kit.sim import MakeSimulator, simulator
from tests.lifecycle.kit import Ran

__all__ = ["simulator"]


async def no_box(project: Project, instance: str, script: str, *arguments: str, timeout: float) -> Ran:
    """``needs.RunOnBox`` that always works."""
    return Ran()


@asynccontextmanager
async def daemon(folder: Path, name: str = "laptop") -> AsyncIterator[Projects]:
    """The lifecycle half of a daemon, on a real clock; its end is as sudden as its start."""
    clock = Clock()
    shared, callers = Shared.of(clock), Callers(clock)
    store, ids = SqliteStore(folder / "projects.db"), itertools.count(1)

    def op() -> str:
        return f"{name}-{next(ids):06d}"

    book = Book(store, "me", name, op, clock.wall)
    cloud, boxes = AwsComputes(callers), BoxWork(no_box)
    fleet = Fleet(shared, book, cloud, boxes, me=name, op=op, pace=0.05)
    shared.tasks.spawn("fleet", fleet.run())
    try:
        yield Projects(shared, book, fleet, cloud, boxes, uid=lambda: f"{name[:3]}{next(ids):07d}")
    finally:
        await shared.tasks.stop()
        await store.close()
        await callers.close()


async def until(projects: Projects, name: str, what: Phase | Callable[[Project], bool]) -> Ledger:
    """Wait for a phase, or something else."""
    async with asyncio.timeout(60):
        while True:
            known = await projects.get(name)
            if known.project.phase is what if isinstance(what, Phase) else what(known.project):
                return known
            await asyncio.sleep(0.1)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def launched(projects: Projects, sim: Simulator) -> Path:
    """A box that runs; returns the folder that is its disk."""
    wish = LaunchWish(profile="devbox", types=("t4g.small",), policy=Policy(grace=2.0))
    await projects.launch("work", wish)
    row = (await until(projects, "work", Phase.RUNNING)).project
    return sim.box(row.instance or "").disk


At = Callable[[Simulator], None]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> At:
    """Let the AWS settings lead to a simulator."""

    def lead(sim: Simulator) -> None:
        for name, value in sim.environment().items():
            monkeypatch.setenv(name, value)

    return lead


async def test_a_file_of_the_first_run_is_there_in_the_second(
    simulator: MakeSimulator, at: Callable[[Simulator], None], tmp_path: Path
) -> None:
    """By hash, after terminate, after the console's terminate, and after the daemon died in between."""
    sim = await simulator(boxes=[], services=True)
    at(sim)
    async with daemon(tmp_path) as projects:
        disk = await launched(projects, sim)
        (disk / "work.txt").write_text("the work of the first run\n" * 1000)
        first = digest(disk / "work.txt")
        await projects.terminate("work")
        await until(projects, "work", Phase.READY)
        disk = await launched(projects, sim)
        assert digest(disk / "work.txt") == first
        (disk / "more.txt").write_text("and of the second\n")
        second = digest(disk / "more.txt")
        instance = (await projects.get("work")).project.instance
        await sim.console(
            "ModifyInstanceAttribute", InstanceId=instance, DisableApiTermination={"Value": False}
        )
        await sim.console("TerminateInstances", InstanceIds=[instance])
        await projects.up("work")
        projects._fleet.wake((await projects.get("work")).project.uid)
        await until(projects, "work", Phase.RESCUE)
    async with daemon(tmp_path, "desktop") as projects:  # the first one is gone
        await until(projects, "work", Phase.READY)
        disk = await launched(projects, sim)
        assert (digest(disk / "work.txt"), digest(disk / "more.txt")) == (first, second)
