"""A world in one thread on virtual time: EC2, a store, daemons that die and nap, a user, and somebody in the console.

A daemon is the real loop of ``control.lifecycle.reconcile`` over the real ``aws`` layer, run as a plain coroutine.
Each request that it makes suspends it, so the world decides when the request arrives, whether its answer does, and
what happens meanwhile. Same seed, same history.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from types import coroutine
from typing import Any, Final

from msgspec.structs import replace

from devboxd.aws.ec2 import Ec2Api
from devboxd.control.base.time import Time
from devboxd.control.lifecycle.book import Book
from devboxd.control.lifecycle.reconcile import Reconciler
from devboxd.control.lifecycle.turns import Turn
from devboxd.errors import Conflict, DevboxError, LoginNeeded, Unreachable, WrongState
from devboxd.model import wish
from devboxd.model.answer import BoxSaysNo
from devboxd.model.change import resumed
from devboxd.model.ledger import Change, Item, Ledger, Range, of_one, read
from devboxd.model.offer import Base
from devboxd.model.pipeline import next_step
from devboxd.model.project import Boot, Disk, Place, Policy, Project, Spec, Want
from devboxd.model.rebase import Progress
from devboxd.model.seen import Hint, Observed, Seen
from devboxd.model.step import Ec2Call, MoveIn, Step, Write
from devboxd.simulator.ec2 import catalogue
from devboxd.simulator.ec2.delays import Delays
from devboxd.simulator.ec2.errors import AnswerLost, Ec2Error
from devboxd.simulator.ec2.model import Ec2Model
from tests.lifecycle.calls import Paged, failure

OWNER: Final = "me"
START: Final = 1_800_000_000.0
READS: Final = ("Describe", "read")
DISKS: Final = (
    Disk("/dev/sda1", 8, "gp3", 3000, 125),
    Disk("/dev/sdf", 20, "gp3", 4000, 250),
)


BOOT: Final = Boot(
    architecture="arm64",
    boot_mode="uefi-preferred",
    ena=True,
    sriov="simple",
    virtualization="hvm",
    root_device="/dev/sda1",
)


class Fate(Enum):
    """What becomes of a request that changes something."""

    ARRIVES = auto()
    DIES_BEFORE = auto()  # the daemon dies before it is sent
    DIES_AFTER = auto()  # it took effect, and the daemon dies before it knows
    REQUEST_LOST = auto()
    ANSWER_LOST = auto()
    ARRIVES_LATE = auto()  # the daemon is dead, and its request still arrives, minutes later


@dataclass(slots=True)
class Request:
    """Something a daemon waits for."""

    name: str
    perform: Callable[[], Any]
    seconds: float | None = None  # a sleep, when it is one

    @property
    def is_read(self) -> bool:
        return self.seconds is not None or self.name.startswith(READS)


@coroutine
def wait_for(request: Request) -> Generator[Request, Any, Any]:
    """Suspend the daemon until the world has an answer."""
    return (yield request)


async def one_after_the_other(*waits: Coroutine[Any, Any, Any]) -> list[Any]:
    """``asyncio.gather`` without a loop."""
    try:
        return [await one for one in waits]
    finally:
        for one in waits:
            one.close()


class Sequencer:
    """Ids that are never given twice, and the same in every run."""

    def __init__(self, prefix: str) -> None:
        self._count = itertools.count(1)
        self._prefix = prefix

    def __call__(self) -> str:
        return f"{self._prefix}{next(self._count):06d}"


@dataclass(slots=True)
class FakeAccount(Paged):
    """``aws.calls.Calls`` whose requests go to the world's EC2."""

    world: World
    daemon: Daemon

    async def call(
        self, service: str, operation: str, /, *, target: str | None = None, **parameters: Any
    ) -> dict[str, Any]:
        name = "".join(part.capitalize() for part in operation.split("_"))
        self.daemon.last_read = "EC2" if name.startswith("Describe") else self.daemon.last_read
        try:
            answer: dict[str, Any] = await wait_for(
                Request(name, lambda: self.world.arrive(name, parameters, self.daemon.name))
            )
            return answer
        except (Ec2Error, AnswerLost) as error:
            raise failure(error, service=service, operation=operation, target=target) from error


@dataclass(slots=True)
class FakeStore:
    """``control.base.needs.Store`` whose requests take their time, over any engine that answers at once."""

    world: World
    daemon: Daemon
    is_shared: bool = False

    async def read(self, owner: str, *ranges: Range) -> list[Item]:
        self.daemon.last_read = "row"
        found: list[Item] = await wait_for(Request("read", lambda: self.world.engine.read_now(owner, ranges)))
        return found

    async def commit(self, owner: str, changes: Sequence[Change], op: str) -> None:
        what = next((c.key for c in changes if not c.key.startswith("E#")), "")
        await wait_for(Request(f"Commit {what}", lambda: self.world.commit(owner, changes)))


class Engine:
    """What a store's engine can do at once: see ``MemoryStore`` and ``SqliteFile``."""

    def read_now(self, owner: str, ranges: Sequence[Range]) -> list[Item]:
        raise NotImplementedError

    def commit_now(self, owner: str, changes: Sequence[Change]) -> None:
        raise NotImplementedError


@dataclass(slots=True)
class FakeClouds:
    """``reconcile.Clouds``: one account."""

    api: Ec2Api
    book: Book

    async def look(self, project: Project, hint: Hint) -> tuple[Observed, Item | None]:
        found = (await self.api.look({project.uid: hint}))[project.uid]
        return found, (await self.book.rows([project.uid])).get(project.uid)

    async def act(self, project: Project, call: Ec2Call) -> None:
        await self.api.act(call)


@dataclass(slots=True)
class FakeBoxes:
    """``needs.BoxCommands``: hooks that take a moment, on a box that can be reached or not."""

    world: World

    async def before_stop(self, project: Project, instance: str, *, live: bool = False) -> None:
        await wait_for(Request("Hook", lambda: self._run(instance)))

    async def grow(self, project: Project, instance: str, device: str) -> None:
        await wait_for(Request("Grow", lambda: self._run(instance)))

    async def reach(self, project: Project, instance: str) -> None:
        await wait_for(Request("Hook", lambda: self._answers(instance)))

    async def move_in(self, project: Project, call: MoveIn) -> Progress:
        said: Progress = await wait_for(Request("MoveIn", lambda: self._move(project, call)))
        return said

    async def let_go(self, project: Project, instance: str) -> None:
        await wait_for(Request("LetGo", lambda: self._let_go(instance)))

    def _move(self, project: Project, call: MoveIn) -> Progress:
        """The copying takes a while; the system holds the old root meanwhile."""
        world = self.world
        self._run(call.instance)
        volume = world.model.tables.volumes.get(call.volume)
        place = volume.attachment if volume is not None else None
        if volume is None or place is None or place.instance != call.instance or place.state != "attached":
            raise BoxSaysNo(f"{call.volume} does not show on the box")
        key = (call.instance, call.token)
        began = world.copying.setdefault(key, world.now)
        if world.now - began < world.copy_takes:
            world.model.region.held.add(call.volume)
            return Progress(files=1, bytes=1)
        world.model.region.held.discard(call.volume)
        instance = world.model.tables.instances[call.instance]
        if world.moved.get(project.uid) != volume.snapshot:
            world.moved[project.uid] = volume.snapshot
            world.model.work(call.instance, now=world.now, device=instance.boot.root_device)
        return Progress(done=True, files=2, bytes=2048, kept="/var/lib/devbox/rebase/replaced")

    def _let_go(self, instance: str) -> None:
        self._run(instance)
        world = self.world
        for volume in world.model.tables.volumes_of(instance):
            world.model.region.held.discard(volume.id)
        world.copying = {key: at for key, at in world.copying.items() if key[0] != instance}

    def _answers(self, instance: str) -> None:
        found = self.world.model.tables.instances.get(instance)
        if found is None or found.state != "running" or not found.boots:
            raise Unreachable("nothing answers")

    def _run(self, instance: str) -> None:
        if self.world.dice.random() < self.world.unreachable:
            raise Unreachable("the box can not be reached")
        with_it = self.world.model.tables.instances.get(instance)
        if with_it is None or with_it.state != "running":
            raise Unreachable("the box does not run")


class Quietly:
    """``reconcile.Told``, into the trace."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def happened(self, project: Project, what: str, text: str) -> None:
        self._daemon.world.note(f"{self._daemon.name}   [{what}] {text}")

    def waits(self, project: Project, why: str, undeleted: Mapping[str, DevboxError]) -> None:
        pass

    def called(self, project: Project, call: Ec2Call) -> None:
        pass

    def refused(self, project: Project, error: DevboxError) -> None:
        self._daemon.world.note(f"{self._daemon.name}   refused: {error.message}")


@dataclass(eq=False)
class Daemon:
    """One daemon: loops of all projects, until it dies. ``asleep``: the machine sleeps until then."""

    world: World
    name: str
    uids: tuple[str, ...]
    life: int = 0
    asleep: float = 0.0
    slept: float = 0.0  # seconds that its monotonic clock did not see
    loops: dict[str, Coroutine[Any, Any, Any]] = field(default_factory=dict)
    tickets: dict[str, int] = field(default_factory=dict)  # what each loop waits for: one answer fits
    sleeping: set[str] = field(default_factory=set)  # loops that wait for nothing but time
    reconcilers: dict[str, Reconciler] = field(default_factory=dict)
    is_dead: bool = True
    last_read: str = ""

    def decide(self, seen: Seen) -> Step:
        """The decision, seen by the oracle."""
        assert self.last_read == "row", "R2: the row was read before EC2, and may be the older of the two"
        step = next_step(seen)
        self.world.on_decision(seen, step)
        return step

    def start(self) -> None:
        """Begin a life, remembering nothing of the last one."""
        self.life += 1
        self.is_dead = False
        world = self.world
        account = FakeAccount(world, self)
        store = FakeStore(world, self, is_shared=world.is_shared)
        op = Sequencer(f"{self.name}{self.life}-")
        time = Time(self, dice=world.dice.random)
        for uid in self.uids:
            book = Book(store, OWNER, self.name, op, self.wall)
            turn = Turn(store, OWNER, uid, f"{self.name}-{self.life}", op, self.monotonic)
            self.reconcilers[uid] = Reconciler(
                uid,
                book,
                FakeClouds(Ec2Api(account, one_after_the_other), book),
                FakeBoxes(world),
                turn,
                time,
                Quietly(self),
                self.decide,
            )
            self.loops[uid] = self._loop(self.reconcilers[uid])
            self.sleeping.add(uid)
            self.tickets[uid] = ticket = world.number()
            self._go_on(uid, ticket, None)

    def die(self) -> None:
        """End at once, wherever it stands."""
        self.is_dead = True
        self.life += 1
        for loop in self.loops.values():
            loop.close()
        self.loops.clear()
        self.tickets.clear()
        self.sleeping.clear()

    def nap(self, seconds: float) -> None:
        """The machine sleeps: nothing is sent and no answer is read, and its monotonic clock stands still."""
        if not self.is_dead and self.asleep <= self.world.now:
            self.world.note(f"{self.name} sleeps for {seconds:.0f} s")
            self.asleep = self.world.now + seconds
            self.slept += seconds

    def wake(self) -> None:
        """End every sleep: something was asked for."""
        for uid in list(self.sleeping):
            self._go_on(uid, self.tickets[uid], None)

    # A Clock
    def wall(self) -> float:
        return self.world.now

    def monotonic(self) -> float:
        return self.world.now - START - self.slept

    async def _loop(self, reconciler: Reconciler) -> None:
        while True:
            try:
                delay = await reconciler.once()
            except LoginNeeded:
                delay = 30.0
            except Conflict:
                delay = 1.0
            except DevboxError as error:
                self.world.note(f"{self.name}   can not look: {error.message}")
                delay = 5.0
            if delay is None:
                return
            await wait_for(Request("sleep", lambda: None, seconds=delay * self.world.dice.uniform(0.9, 1.1)))

    def _go_on(self, uid: str, ticket: int, answer: Any) -> None:
        """Let one loop run up to its next request."""
        if self.tickets.get(uid) != ticket:
            return  # it has died or been woken since
        if self.asleep > self.world.now:
            late: Any = answer
            if self.asleep - self.world.now > 60 and uid not in self.sleeping:
                late = Unreachable("the connection was lost while the machine slept")
            self.world.at(self.asleep - self.world.now, lambda: self._go_on(uid, ticket, late))
            return
        self.sleeping.discard(uid)
        loop = self.loops[uid]
        try:
            request = loop.throw(answer) if isinstance(answer, BaseException) else loop.send(answer)
        except StopIteration:
            del self.loops[uid], self.tickets[uid]
            return
        self.tickets[uid] = self.world.number()
        self._send(uid, self.tickets[uid], request)

    def _send(self, uid: str, ticket: int, request: Request) -> None:
        world = self.world
        if not request.is_read and world.dice.random() < world.naps:
            # Between the decision and the packet: no check of ours can see it.
            self.nap(world.dice.choice([30.0, 300.0, 3600.0]))
        if request.seconds is not None:
            self.sleeping.add(uid)
            world.at(max(request.seconds, 0.01), lambda: self._go_on(uid, ticket, None))
            return
        fate = Fate.ARRIVES if request.is_read else world.fate(self, request)
        if fate is not Fate.ARRIVES:
            world.note(f"{self.name} {request.name}: {fate.name}")
        if fate is Fate.DIES_BEFORE:
            world.restart(self)
            return
        if fate is Fate.ARRIVES_LATE:
            world.restart(self)
            world.at(world.late or world.dice.uniform(5, 600), lambda: world.perform(request))
            return
        delay = world.latency() + max(0.0, self.asleep - world.now)
        world.at(delay, lambda: self._arrived(uid, ticket, request, fate))

    def _arrived(self, uid: str, ticket: int, request: Request, fate: Fate) -> None:
        world = self.world
        lost = Unreachable("no answer")
        answer: Any = lost if fate is Fate.REQUEST_LOST else world.perform(request)
        if fate is Fate.DIES_AFTER and self.tickets.get(uid) == ticket:
            world.restart(self)
            return
        if fate is Fate.ANSWER_LOST:
            answer = lost
        world.at(world.latency(), lambda: self._go_on(uid, ticket, answer))


class World:
    """Everything, and the present time."""

    def __init__(
        self, engine: Any, *, seed: int = 0, delays: Delays | None = None, is_shared: bool = False
    ) -> None:
        self.dice = random.Random(seed)
        self.now = START
        self.model = Ec2Model(now=START, seed=seed, delays=delays or QUICK, is_throttled=False, history=0)
        self.engine = engine
        self.is_shared = is_shared
        self.daemons: list[Daemon] = []
        self.trace: list[str] = []
        self.is_asking = False  # a commit is the user's
        self.unreachable = 0.0  # share of hooks that can not be run
        self.late: float | None = None  # seconds after which a request of a dead daemon arrives; None: any
        self.naps = 0.0  # share of changes before which the machine falls asleep
        self.fate: Callable[[Daemon, Request], Fate] = lambda daemon, request: Fate.ARRIVES
        self.restarts: Callable[[Daemon], float | None] = lambda daemon: 5.0
        self.on_call: Callable[[str, Mapping[str, Any], str], None] = lambda name, params, caller: None
        self.on_commit: Callable[[Ledger | None, Ledger | None], None] = lambda before, after: None
        self.on_decision: Callable[[Seen, Step], None] = lambda seen, step: None
        self.after_event: Callable[[], None] = lambda: None
        self.mutations = 0
        self.copying: dict[
            tuple[str, str], float
        ] = {}  # instance and token of a copying that is on, and since when
        self.copy_takes = 25.0  # seconds
        self.moved: dict[str, str | None] = {}  # by project: the snapshot whose homes were copied last
        self.hands: list[
            tuple[str, float]
        ] = []  # instances that were started by no order of the user, and when
        self.wished: dict[str, Want] = {}  # the last command of the user, by project
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count(1)

    # Time

    def number(self) -> int:
        return next(self._numbers)

    def at(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._events, (self.now + seconds, self.number(), act))

    def latency(self) -> float:
        return self.dice.uniform(0.02, 0.4)

    def step(self) -> None:
        """The next thing happens."""
        when, _, act = heapq.heappop(self._events)
        self.now = max(self.now, when)
        self.model.settle(self.now)
        act()
        self.after_event()

    def let_pass(self, seconds: float) -> None:
        """Time passes while nobody of ours is there."""
        self.now += seconds
        self.model.settle(self.now)

    def run_for(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        self.at(seconds, lambda: None)
        while self.now < end:
            self.step()

    def run_until(self, what: Callable[[], bool], most: float = 20_000.0) -> None:
        """Let time pass until something is so."""
        end = self.now + most
        while not what():
            if self.now > end:
                raise AssertionError(f"it did not come about within {most:.0f} s")
            self.step()

    def note(self, line: str) -> None:
        self.trace.append(f"{self.now - START:10.1f}  {line}")

    def close(self) -> None:
        """The end of the world."""
        for daemon in self.daemons:
            daemon.die()

    # Requests

    def perform(self, request: Request) -> Any:
        """The request arrives. Returns its answer, or the exception that it is answered with."""
        if not request.is_read:
            self.mutations += 1
        try:
            return request.perform()
        except (Ec2Error, AnswerLost, DevboxError) as error:
            return error

    def arrive(self, name: str, params: Mapping[str, Any], caller: str) -> dict[str, Any]:
        """A call arrives at EC2."""
        if name.startswith("Describe"):
            return self.model.call(name, params, now=self.now, caller=caller)
        self.on_call(name, params, caller)
        shown = {k: v for k, v in params.items() if k not in ("TagSpecifications", "BlockDeviceMappings")}
        try:
            answer = self.model.call(name, params, now=self.now, caller=caller)
        except Ec2Error as error:
            self.note(f"{caller} {name} {shown} -> {error.code}")
            raise
        except AnswerLost as error:
            self.note(f"{caller} {name} {shown} -> lost ({'done' if error.took_effect else 'not done'})")
            raise
        self.note(f"{caller} {name} {shown} -> {answer.get('ImageId') or 'ok'}")
        return answer

    def commit(self, owner: str, changes: Sequence[Change]) -> None:
        """A commit arrives at the store."""
        row = next((c.key.partition("#")[2] for c in changes if c.key.startswith("M#")), None)
        before = self.ledger(row) if row else None
        self.engine.commit_now(owner, changes)
        if row:
            self.on_commit(before, self.ledger(row))

    def ledger(self, uid: str) -> Ledger | None:
        """What is written down, now."""
        return read(self.engine.read_now(OWNER, of_one(uid)))

    def project(self, uid: str) -> Project:
        """The row, now."""
        found = self.ledger(uid)
        assert found is not None
        return found.project

    # Daemons

    def daemon(self, *uids: str) -> Daemon:
        """Another daemon, started."""
        made = Daemon(self, "ABCDEF"[len(self.daemons)], uids)
        self.daemons.append(made)
        made.start()
        return made

    def restart(self, daemon: Daemon) -> None:
        """A daemon dies, and comes back in its time, or never."""
        daemon.die()
        if (delay := self.restarts(daemon)) is not None:
            self.at(delay, daemon.start)

    # The user

    def create(self, uid: str = "p1", *, spec: Spec | None = None, policy: Policy | None = None) -> None:
        """Define a project."""
        from devboxd.model.ledger import Event, created

        project = Project(
            uid=uid,
            name=f"project-{uid}",
            owner=OWNER,
            spec=spec or small_spec(),
            policy=policy or Policy(warm_for=1800.0, grace=60.0),
        )
        self.commit(OWNER, created(project, f"create-{uid}", Event(self.now, "create", "user", "created")))

    def ask(self, uid: str, text: str = "", /, **changes: Any) -> None:
        """Change the wish, as a verb does: at once, and the daemons are woken."""
        from devboxd.model.ledger import Event, written

        known = self.ledger(uid)
        assert known is not None
        step = Write("wish", replace(known.project, **changes), text or str(changes))
        self.note(f"user {uid}: {text or changes}")
        if "want" in changes:
            self.wished[uid] = changes["want"]
        op = f"user-{self.number():06d}"
        self.is_asking = True
        self.commit(OWNER, written(known, step, op, Event(self.now, "wish", "user", step.event)))
        self.is_asking = False
        for daemon in self.daemons:
            daemon.wake()

    def want(self, uid: str, want: Want) -> None:
        self.ask(uid, f"want {want}", want=want)

    def rebase(self, uid: str, *, line: int = 2, root: str = "/dev/sda1") -> None:
        """The user wants another base image under it; ``line``: of the catalogue."""
        known = self.ledger(uid)
        assert known is not None
        image = catalogue.newest("us-east-1", line, "arm64")
        snapshot = self.model.tables.images[image].mappings[0].snapshot
        base = Base(
            image, "other", replace(BOOT, root_device=root), (Disk(root, 8, "gp3", snapshot=snapshot),)
        )
        try:
            step = wish.rebase(known, f"base-{line}", base)
        except WrongState:
            return
        if step is not None:
            both = (
                (name, getattr(known.project, name), getattr(step.project, name))
                for name in step.project.__struct_fields__
            )
            self.ask(uid, "rebase", **{name: now for name, was, now in both if now != was})

    def resume(self, uid: str) -> None:
        """The user has looked at a BROKEN project, and says: go on."""
        project = self.project(uid)
        changed = resumed(project, self.now)
        both = ((name, getattr(project, name), getattr(changed, name)) for name in changed.__struct_fields__)
        self.ask(uid, "go on", **{name: now for name, was, now in both if now != was})

    def console(self, name: str, **params: Any) -> str | None:
        """Somebody does something in the console; returns the code where EC2 refuses."""
        try:
            self.model.call(name, params, now=self.now, caller="console")
        except Ec2Error as error:
            return error.code
        if name == "StartInstances":
            self.hands += [(one, self.now) for one in params["InstanceIds"]]
        self.note(f"console {name} {params}")
        return None

    def restore_spot(self, instance: str) -> None:
        """EC2 starts an interrupted spot instance again."""
        self.note(f"EC2 restores {instance}")
        self.hands.append((instance, self.now))
        self.model.restore_spot(instance, now=self.now)


QUICK: Final = Delays(
    pending=(3.0, 12.0),
    stopping=(5.0, 25.0),
    hanging=(600.0, 1200.0),
    snapshot=(10.0, 60.0),
    image=(2.0, 20.0),
    volume_deleted=(1.0, 10.0),
    deregistered_shown=(0.0, 20.0),
)


def small_spec(zones: int = 3) -> Spec:
    """Two volumes of Ubuntu on the smallest arm64 type, in any zone."""
    places = tuple(Place("t4g.small", f"us-east-1{zone}") for zone in "abcdef"[:zones])
    return Spec(image=catalogue.newest("us-east-1", 1, "arm64"), places=places, disks=DISKS, boot=BOOT)
