"""A fleet of projects in asyncio on virtual time, over the EC2 model: what the API will talk to."""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from devboxd.aws.ec2 import Ec2Api
from devboxd.aws.offers import OffersApi
from devboxd.control.base.needs import Store
from devboxd.control.base.shared import Shared
from devboxd.control.lifecycle.book import Book
from devboxd.control.lifecycle.boxwork import BoxWork
from devboxd.control.lifecycle.fleet import Fleet
from devboxd.control.lifecycle.moves import Moves
from devboxd.control.lifecycle.order import LaunchWish
from devboxd.control.lifecycle.projects import Projects
from devboxd.errors import DevboxError, NotConnected
from devboxd.model.boot import Stage
from devboxd.model.box import Account
from devboxd.model.config import ProjectSettings
from devboxd.model.ledger import Ledger
from devboxd.model.project import Phase, Policy, Project
from devboxd.model.states import Connection, StoreEngine
from devboxd.simulator.ec2 import catalogue
from devboxd.simulator.ec2.errors import AnswerLost, Ec2Error
from devboxd.simulator.ec2.model import Ec2Model
from devboxd.simulator.ec2.schedules import Schedules
from tests.control.fakes import LoopClock
from tests.lifecycle.calls import Paged, failure
from tests.lifecycle.memory import MemoryStore
from tests.lifecycle.world import QUICK

LATENCY: Final = 0.1  # seconds
OWNER: Final = "me"
PATIENT: Final = 3600.0


@dataclass(eq=False)
class LoopAccount(Paged):
    """``aws.calls.Calls`` to an EC2 that lives in the loop's time."""

    model: Ec2Model
    calls: Counter[str] = field(default_factory=Counter)
    broken: DevboxError | None = None  # every call fails so
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # of DynamoDB
    schedules: Schedules = field(init=False)

    def __post_init__(self) -> None:
        def stop(instances: list[str], now: float) -> None:
            self.model.call("StopInstances", {"InstanceIds": instances}, now=now, caller="console")

        self.schedules = Schedules(stop)

    async def call(
        self, service: str, operation: str, /, *, target: str | None = None, **parameters: Any
    ) -> dict[str, Any]:
        await asyncio.sleep(LATENCY)
        if self.broken is not None:
            raise self.broken
        name = "".join(part.capitalize() for part in operation.split("_"))
        self.calls[name] += 1
        if service == "dynamodb":
            return {"Items": self.tables[parameters["TableName"]]}
        if service == "ssm":
            return {"Parameter": {"Value": catalogue.parameters("us-east-1")[parameters["Name"]]}}
        try:
            if service == "scheduler":
                return self.schedules.call(name, parameters)
            return self.model.call(name, parameters, now=LoopClock().wall())
        except (Ec2Error, AnswerLost) as error:
            raise failure(error, service=service, operation=operation, target=target) from error


@dataclass(eq=False)
class FakeComputes:
    """``needs.Computes``: one account."""

    account: LoopAccount

    def compute(self, account: Account) -> Ec2Api:
        return Ec2Api(self.account)

    def offers(self, account: Account) -> OffersApi:
        return OffersApi(self.account, "us-east-1")


class Ran(msgspec.Struct):
    status: int = 0
    output: str = ""


@dataclass(eq=False)
class FakeRunner:
    """``needs.RunOnBox``: answers by a word of the script; the agent is up a while after the box."""

    model: Ec2Model
    answers: dict[str, Ran] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    given: list[tuple[str, ...]] = field(default_factory=list)  # to each of them
    agent_after: float = 20.0
    refuses: DevboxError | None = None  # of every session
    offline: DevboxError | None = None  # of every question about an agent

    async def agent(self, project: Project, instance: str) -> Connection:
        """``needs.AgentOf``."""
        await asyncio.sleep(LATENCY)
        if self.offline is not None:
            raise self.offline
        return Connection.CONNECTED if self._is_up(instance) else Connection.NOT_CONNECTED

    def _is_up(self, instance: str) -> bool:
        record = self.model.tables.instances.get(instance)
        up = record is not None and record.state.value == "running"
        return up and LoopClock().wall() - (record.launched if record else 0) >= self.agent_after

    async def __call__(
        self, project: Project, instance: str, script: str, *arguments: str, timeout: float
    ) -> Ran:
        await asyncio.sleep(LATENCY)
        if self.refuses is not None:
            raise self.refuses
        if not self._is_up(instance):
            raise NotConnected(f"{instance} is not connected to Session Manager")
        self.ran.append(script)
        self.given.append(arguments)
        found = next((answer for word, answer in self.answers.items() if word in script), None)
        return found or Ran(0, "ready\n" if script == "echo ready" else "")


class FakeStream:
    """A stream of the bridge, played by a test."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        self.closed = False

    def tell(self, report: object) -> None:
        """Send a line."""
        self.queue.put_nowait(json.dumps(report).encode() + b"\n")

    async def read(self) -> bytes:
        """See ``lines.Stream``."""
        found = await self.queue.get()
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        """See ``lines.Stream``."""
        self.closed = True
        self.queue.put_nowait(b"")


@dataclass(eq=False)
class Bench:
    """One daemon's lifecycle half."""

    shared: Shared
    model: Ec2Model
    account: LoopAccount
    store: Store
    runner: FakeRunner
    book: Book
    fleet: Fleet
    projects: Projects
    moves: Moves
    settings: list[ProjectSettings]  # the last one counts

    async def launched(self, name: str = "api", **asked: Any) -> Project:
        """A project that runs."""
        asked.setdefault("profile", "box")
        asked.setdefault("types", ("t4g.small",))
        await self.projects.launch(name, LaunchWish(policy=Policy(grace=60.0), **asked))
        return (await self.until(name, Phase.RUNNING)).project

    async def ready(self, name: str) -> bool:
        """Wait until a session to the box answers, as the command does; False where it does not run."""
        return [boot.stage async for boot in self.projects.boots.follow(name)][-1] is Stage.READY

    async def until(self, name: str, phase: Phase | Callable[[Project], bool]) -> Ledger:
        """Wait for a phase, or something else."""
        async with asyncio.timeout(PATIENT):
            while True:
                known = await self.projects.get(name)
                if known.project.phase is phase if isinstance(phase, Phase) else phase(known.project):
                    return known
                await self.fleet.changed(5.0)

    def work(self, project: Project) -> int:
        """The box writes."""
        assert project.instance is not None
        return self.model.work(project.instance, now=LoopClock().wall())

    def content(self, instance: str | None) -> dict[str, int]:
        """What is on the volumes of an instance, by device."""
        found = self.model.tables.volumes_of(instance or "")
        return {one.attachment.device: one.content for one in found if one.attachment is not None}


def bench(
    store: Store | None = None,
    *,
    model: Ec2Model | None = None,
    me: str = "laptop",
    used: StoreEngine = StoreEngine.SQLITE,
    other: Store | None = None,
) -> Bench:
    """Make one; ``start`` begins its loops. Another one over the same store and model is another machine.

    ``other``: the store that is not ``used``.
    """
    clock = LoopClock()
    shared = Shared.of(clock, dice=lambda: 0.5)
    ec2 = model or Ec2Model(now=clock.wall(), seed=11, delays=QUICK, is_throttled=False)
    account, kept = LoopAccount(ec2), store or MemoryStore()
    runner = FakeRunner(ec2)
    boxes = BoxWork(runner)
    ids = itertools.count(1)

    def op() -> str:
        return f"{me}-{next(ids):06d}"

    books = {
        engine: Book(one, OWNER, me, op, clock.wall)
        for engine, one in ((used, kept), (used.other, other or MemoryStore()))
    }
    book = books[used]
    computes = FakeComputes(account)
    fleet = Fleet(shared, book, computes, boxes, me=me, op=op)

    def uid() -> str:
        return f"{me[:4]}{next(ids):06d}"

    settings = [ProjectSettings()]
    projects = Projects(
        shared, book, fleet, computes, boxes,
        uid=uid, books=books, agent=runner.agent, settings=lambda: settings[-1],
    )  # fmt: skip
    return Bench(shared, ec2, account, kept, runner, book, fleet, projects, projects.moves, settings)


async def start(one: Bench) -> Bench:
    """Let its loops run."""
    one.shared.tasks.spawn("fleet", one.fleet.run())
    return one


async def stop(one: Bench) -> None:
    """End them."""
    await one.shared.tasks.stop()


def with_daemon(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Give a test a running daemon as its first argument. No fixture: those live in real time, before the test's."""

    @functools.wraps(test)
    async def run(**given: Any) -> None:
        one = await start(bench())
        try:
            await test(one, **given)
        finally:
            await stop(one)

    signature = inspect.signature(test)
    rest = [parameter for name, parameter in signature.parameters.items() if name != "one"]
    run.__signature__ = signature.replace(parameters=rest)  # type: ignore[attr-defined]  # pytest reads it
    return run
