"""One loop for each project: look, decide, act once, sleep or be woken.

All that is decided is decided in ``model.pipeline``. What a loop remembers between two looks is for patience and
politeness only: it may be lost at any moment.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, assert_never

from msgspec.structs import replace

from devboxd.control.base.needs import BoxCommands
from devboxd.control.base.time import Time
from devboxd.control.lifecycle.book import Book
from devboxd.control.lifecycle.turns import Turn
from devboxd.errors import Conflict, DevboxError, LoginNeeded
from devboxd.model.answer import Refusal, after_refusal, after_success, is_news, refusal
from devboxd.model.change import BRISK, CALM, is_restarted
from devboxd.model.idle_note import read_notes
from devboxd.model.ledger import Item, Ledger, holds_key
from devboxd.model.pipeline import next_step
from devboxd.model.project import Project
from devboxd.model.rebase import Progress, far
from devboxd.model.retention import unpinned
from devboxd.model.seen import Hint, Observed, Seen, hint
from devboxd.model.states import InstanceState
from devboxd.model.step import (
    Call,
    DropImage,
    DropSnapshot,
    DropVolume,
    Ec2Call,
    Erase,
    GrowFileSystem,
    MoveIn,
    Reach,
    RunHook,
    Start,
    Step,
    TakeOff,
    TryBox,
    UnpinFork,
    Wait,
    Write,
)

log = logging.getLogger(__name__)

AT_ONCE: Final = 0.0
STALE: Final = 20.0  # seconds after which a decision is not acted on any more: the machine may have slept
REPEAT_AFTER: Final = 10.0  # seconds before a call that was accepted is made again
PUT_OFF: Final = 120.0  # seconds before a deletion that was refused is tried again
BOOTS_WITHIN: Final = 20  # tries of a session before that it does not answer is news
ANSWER_EVERY: Final = 5.0  # seconds between them
COPYING: Final = 10.0  # seconds between two questions how far the copying of homes is
SLOW_DOWN: Final = 15.0  # seconds, at least, where EC2 asks for it (snapshots of one volume: API)
LONGEST: Final = 300.0  # seconds between two tries of what is refused


class Told(Protocol):
    """Who wants to know what happened."""

    def happened(self, project: Project, what: str, text: str) -> None:
        """A step was written down."""

    def waits(self, project: Project, why: str, undeleted: Mapping[str, DevboxError]) -> None:
        """Nothing can be done now but wait. ``undeleted``: by id, what AWS does not delete, and what it says."""

    def called(self, project: Project, call: Ec2Call) -> None:
        """AWS accepted a call."""

    def refused(self, project: Project, error: DevboxError) -> None:
        """AWS refused a call, or did not answer."""


class Clouds(Protocol):
    """EC2 of the account that a project is in."""

    async def look(self, project: Project, hint: Hint) -> tuple[Observed, Item | None]:
        """One look: EC2 first, then the row. Several projects may share one."""

    async def act(self, project: Project, call: Ec2Call) -> None:
        """Make a call, when it is its turn among all of the account."""


@dataclass(frozen=True, slots=True)
class Undeleted:
    """What AWS did not delete when it was asked last, and when it is asked again (monotonic)."""

    error: DevboxError
    tries: int
    is_news: bool
    again: float


@dataclass(slots=True)
class Memory:
    """What a loop remembers between looks."""

    hooked: int | None = None  # save whose hook has run
    reached: tuple[str, float | None] | None = None  # instance that answered, and its LaunchTime then
    waited: tuple[str, float] = ("", 0.0)
    planned: float = 0.0  # seconds that we meant to sleep
    last_look: float | None = None  # monotonic
    last_call: tuple[Call, float] | None = None  # and when it was accepted
    starts: tuple[tuple[str, float], int] = (("", 0.0), 0)  # of one box in one phase that EC2 has taken
    refusals: tuple[str, int] = ("", 0)  # of one kind of call, in a row
    undeleted: dict[str, Undeleted] = field(default_factory=dict)
    ran: tuple[tuple[str, float | None], float] | None = (
        None  # a box as it was started, seen to run at (wall)
    )

    def put_off_deletion(self, name: str, error: DevboxError, at: float) -> bool:
        """Note that AWS does not delete it now; says whether that is news for a person."""
        before = self.undeleted.get(name)
        tries = before.tries + 1 if before is not None else 1
        known = Undeleted(error, tries, is_news(refusal(error), tries), at + PUT_OFF)
        self.undeleted[name] = known
        return known.is_news

    def put_off(self, at: float) -> frozenset[str]:
        """What is not tried again yet."""
        return frozenset(name for name, one in self.undeleted.items() if one.again > at)

    def forget(self, at: float) -> None:
        """What was not tried again when it could be is not to be deleted any more."""
        self.undeleted = {name: one for name, one in self.undeleted.items() if one.again + PUT_OFF > at}

    def not_deleted(self) -> dict[str, DevboxError]:
        """What a person is told of."""
        return {name: one.error for name, one in self.undeleted.items() if one.is_news}

    def patience(self, at: float) -> None:
        """Count the time since the last look, as far as it was spent awake."""
        if self.last_look is not None:
            awake = min(at - self.last_look, 2 * self.planned + 2 * BRISK)
            self.waited = (self.waited[0], self.waited[1] + awake)
        self.last_look = at

    def waits(self, wait: Wait) -> float:
        """Note what is waited for."""
        if self.waited[0] != wait.why:
            self.waited = (wait.why, 0.0)
        return wait.seconds

    def started(self, project: Project) -> int:
        """How many starts EC2 has taken since the project is in its phase."""
        return self.starts[1] if self.starts[0] == (project.instance or "", project.since) else 0

    def refused(self, call: Call) -> int:
        """Count a refusal; returns how many in a row it is."""
        kind = type(call).__name__
        times = self.refusals[1] + 1 if self.refusals[0] == kind else 1
        self.refusals = (kind, times)
        return times


@dataclass(slots=True)
class Reconciler:
    """The loop of one project, one pass at a time."""

    uid: str
    book: Book
    clouds: Clouds
    boxes: BoxCommands
    turn: Turn
    time: Time
    told: Told
    decide: Callable[[Seen], Step] = next_step
    memory: Memory = field(default_factory=Memory)
    known: Ledger | None = None  # as of the last look

    async def once(self) -> float | None:
        """Look, decide, act once. Returns seconds until the next look; None when the project is gone.

        Errors: whatever prevents looking, ``LoginNeeded`` among them. Nothing was done then.
        """
        began, began_wall = self.time.monotonic(), self.time.wall()
        seen = await self._look()
        if seen is None:
            return None
        step = self.decide(seen)
        match step:
            case Wait():
                self._waits(seen.project, step.why)
                if step.seconds >= CALM:
                    await self.turn.leave()
                planned = self.memory.waits(step)
                if seen.put_off:  # what could not be deleted is tried again when it was put off to
                    again = min(self.memory.undeleted[name].again for name in seen.put_off)
                    planned = min(planned, max(BRISK, again - self.time.monotonic()))
                self.memory.planned = planned
                return planned
            case Write() | Erase():
                delay = await self._write(step)
            case _:
                asleep = self.time.wall() - began_wall > STALE or self.time.monotonic() - began > STALE
                delay = AT_ONCE if asleep else await self._call(seen, step)
        self.memory.planned = delay
        return None if isinstance(step, Erase) else delay

    def _waits(self, project: Project, why: str) -> None:
        self.told.waits(project, why, self.memory.not_deleted())

    async def _look(self) -> Seen | None:
        """EC2 first, then the row; what the last row named is asked for by id."""
        known = self.known or await self.book.load(self.uid)
        if known is None:
            return None
        ec2, row = await self.clouds.look(known.project, hint(known.project, known.run))
        # Every change of a project counts its row up: with the same version all of it is the same.
        if row is None or row.version != known.versions.get(row.key):
            known = await self.book.load(self.uid)
        self.known = known
        if known is None:
            return None
        memory, at = self.memory, self.time.monotonic()
        memory.patience(at)
        memory.forget(at)
        seen = Seen(
            known.project,
            known.run,
            known.generations,
            ec2,
            self.time.wall(),
            hooked=memory.hooked is not None and memory.hooked in (known.project.save, known.project.snap),
            put_off=memory.put_off(at),
            reached=memory.reached is not None and memory.reached == _life(known.project),
            waited=memory.waited,
            starts=memory.started(known.project),
            ran=memory.ran[1] if memory.ran is not None and memory.ran[0] == _life(known.project) else 0.0,
        )
        box = seen.box
        if box is not None and box.state is InstanceState.RUNNING:
            memory.ran = ((box.id, box.launched), seen.at)
        is_open = known.run is not None and known.run.is_open
        if seen.ran == 0.0 and is_open and (box is None or not box.is_up or is_restarted(seen, box)):
            seen = replace(seen, ran=await self._noted())
        return seen

    async def _noted(self) -> float:
        """When a daemon noted last that the box runs; a note that can not be read keeps nothing from being saved."""
        try:
            return read_notes(await self.book.item(holds_key(self.uid))).ran
        except DevboxError:
            return 0.0

    async def _write(self, step: Write | Erase) -> float:
        """One transaction; who is overtaken looks again."""
        assert self.known is not None
        if not await self.turn.take():
            return SLOW_DOWN
        try:
            if isinstance(step, Erase):
                await self.book.erase(self.known, step)
            else:
                self.known = await self.book.write(self.known, step)
        except Conflict:
            return BRISK * self.time.dice()
        self.told.happened(step.project, step.what if isinstance(step, Write) else "erase", step.event)
        return AT_ONCE

    async def _call(self, seen: Seen, call: Call) -> float:
        """One call, and what its answer says."""
        memory, at = self.memory, self.time.monotonic()
        accepted, since = memory.last_call or (None, 0.0)
        if accepted == call and at - since < REPEAT_AFTER:
            return BRISK  # it was accepted a moment ago, and EC2 does not show it yet
        if not await self.turn.take():
            return SLOW_DOWN
        try:
            said = await self._perform(seen, call)
        except LoginNeeded:
            raise  # nothing more with these credentials
        except DevboxError as error:
            return await self._refused(seen, call, error)
        memory.refusals = ("", 0)
        memory.last_call = (call, at)
        if isinstance(call, Start):
            memory.starts = ((call.instance, seen.project.since), memory.started(seen.project) + 1)
        if isinstance(call, DropVolume | DropImage | DropSnapshot):
            memory.undeleted.pop(_dropped(call), None)
        noted = after_success(seen, call, said)
        if noted is None and said is not None:
            self._waits(seen.project, far(said))
            return COPYING
        return await self._write(noted) if noted is not None else BRISK

    async def _perform(self, seen: Seen, call: Call) -> Progress | None:
        """Make it; returns what the box says of the copying of homes."""
        match call:
            case RunHook(instance=instance, save=save, live=live):
                await self.boxes.before_stop(seen.project, instance, live=live)
                self.memory.hooked = save
            case TryBox(instance=instance):
                await self.boxes.reach(seen.project, instance)
            case Reach(instance=instance):
                await self.boxes.reach(seen.project, instance)
                self.memory.reached = _life(seen.project)
            case MoveIn():
                return await self.boxes.move_in(seen.project, call)
            case GrowFileSystem(instance=instance, device=device):
                await self.boxes.grow(seen.project, instance, device)
            case UnpinFork(uid=uid, generation=generation, pin=pin):
                await self._unpin(uid, generation, pin)
            case _:
                if isinstance(call, TakeOff) and call.is_up:
                    await self._let_go(seen.project, call.instance)
                await self.clouds.act(seen.project, call)
                self.told.called(seen.project, call)
        return None

    async def _let_go(self, project: Project, instance: str) -> None:
        """Have the box unmount what is to be detached. One that can not be reached lets go of it when it stops."""
        try:
            await self.boxes.let_go(project, instance)
        except LoginNeeded:
            raise
        except DevboxError:
            log.info("%s could not be asked to let go of the old root", instance)

    async def _refused(self, seen: Seen, call: Call, error: DevboxError) -> float:
        """A refusal is written down where the table says so; else it is tried again, later each time."""
        kind, times = refusal(error), self.memory.refused(call)
        write = after_refusal(seen, call, kind, error.message, times)
        if write is not None:
            return await self._write(write)
        if isinstance(call, RunHook):
            self.memory.hooked = call.save  # it can not be run, or failed and has no veto: it goes on
            return AT_ONCE
        if isinstance(call, DropVolume | DropImage | DropSnapshot):
            if self.memory.put_off_deletion(_dropped(call), error, self.time.monotonic()):
                self.told.refused(seen.project, error)
            return BRISK
        if isinstance(call, Reach | MoveIn) and times < BOOTS_WITHIN:
            boots = isinstance(call, Reach)
            self._waits(seen.project, "the box boots" if boots else "the box does not answer now")
            return ANSWER_EVERY
        self.told.refused(seen.project, error)
        slow = SLOW_DOWN if kind in (Refusal.LATER, Refusal.DENIED) else BRISK
        return min(LONGEST, slow * 2.0 ** min(times - 1, 8)) * (0.75 + 0.5 * self.time.dice())

    async def _unpin(self, uid: str, generation: int, pin: str) -> None:
        """Take our pin off another project's generation, if it still is there."""
        origin = await self.book.load(uid)
        if origin is not None and (write := unpinned(origin, generation, pin)) is not None:
            await self.book.write(origin, write)


def _life(project: Project) -> tuple[str, float | None]:
    """Which start of which instance it is."""
    return project.instance or "", project.launched


def _dropped(call: DropVolume | DropImage | DropSnapshot) -> str:
    match call:
        case DropVolume(volume=name) | DropImage(image=name) | DropSnapshot(snapshot=name):
            return name
        case _:
            assert_never(call)
