"""The reconciler without a daemon: all projects of some owners, until nothing is left to do or the time is over.

The loops are those of the daemon. What is different is that they end: at rest, at what somebody else does, at what
is refused, and at the end of the time. Killed anywhere, the next start goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from devboxd.control.base.needs import BoxCommands
from devboxd.control.base.time import Time
from devboxd.control.lifecycle.fleet import Fleet
from devboxd.control.lifecycle.projects import is_at_rest
from devboxd.control.lifecycle.reconcile import LONGEST, Reconciler
from devboxd.errors import Conflict, DevboxError, LoginNeeded
from devboxd.model.answer import BoxSaysNo
from devboxd.model.beyond import REST
from devboxd.model.change import BRISK
from devboxd.model.ledger import Ledger
from devboxd.model.project import Phase, Project
from devboxd.model.rebase import Progress
from devboxd.model.step import Ec2Call, MoveIn

log = logging.getLogger(__name__)
pause = asyncio.sleep  # between two passes; tests shorten it


class End(StrEnum):
    """How it went for one project, the better first."""

    DONE = "done"  # as wanted, or nothing to do for now
    ELSEWHERE = "elsewhere"  # another machine acts, or has to
    UNFINISHED = "unfinished"  # the time was over
    REFUSED = "refused"  # AWS said no; it is tried again at the next start
    LOGIN = "login"  # the credentials do not work
    FAILED = "failed"  # a bug of ours: the log has it
    BROKEN = "broken"  # needs a person


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that happened. ``kind``: step, call, wait, skipped, refused or end. ``at``: Unix seconds."""

    at: float
    kind: str
    project: str
    text: str
    phase: str = ""
    what: str = ""  # of the call table, an operation, or an ``End``
    owner: str = ""  # whose project, where there are several owners


Tell = Callable[[Line], None]


@dataclass(slots=True)
class Reporter:
    """``reconcile.Told``: a line for whatever happens."""

    time: Time
    tell: Tell
    owner: str = ""
    _left: dict[str, str] = field(default_factory=dict)  # why each project was left alone, by uid

    def happened(self, project: Project, what: str, text: str) -> None:
        """See ``reconcile.Told``."""
        self.line("step", project, text, what)

    def waits(self, project: Project, why: str, undeleted: Mapping[str, DevboxError]) -> None:
        """See ``reconcile.Told``."""
        self.line("wait", project, why)

    def refused(self, project: Project, error: DevboxError) -> None:
        """See ``reconcile.Told``."""
        self.line("refused", project, error.message, error.code)

    def called(self, project: Project, call: Ec2Call) -> None:
        """See ``reconcile.Told``."""
        self.line("call", project, "accepted", type(call).__name__)

    def left(self, project: Project, why: str) -> None:
        """A project is not looked after here: told once, however often it is met."""
        if self._left.get(project.uid) != why:
            self._left[project.uid] = why
            self.line("skipped", project, why)

    def line(self, kind: str, project: Project, text: str, what: str = "") -> None:
        """Tell it."""
        self.tell(Line(self.time.wall(), kind, project.name, text, project.phase, what, self.owner))


@dataclass(frozen=True, slots=True)
class Reported:
    """``needs.BoxCommands``: what can not be done on a box from here is said so, and the loop goes on without."""

    boxes: BoxCommands
    reporter: Reporter

    async def before_stop(self, project: Project, instance: str, *, live: bool = False) -> None:
        """See ``needs.BoxCommands``."""
        with self._skipping(project, "hooks before the stop"):
            await self.boxes.before_stop(project, instance, live=live)

    async def reach(self, project: Project, instance: str) -> None:
        """See ``needs.BoxCommands``."""
        await self.boxes.reach(project, instance)

    async def grow(self, project: Project, instance: str, device: str) -> None:
        """See ``needs.BoxCommands``."""
        with self._skipping(project, f"growing {device}"):
            await self.boxes.grow(project, instance, device)

    async def move_in(self, project: Project, call: MoveIn) -> Progress:
        """See ``needs.BoxCommands``."""
        return await self.boxes.move_in(project, call)

    async def let_go(self, project: Project, instance: str) -> None:
        """See ``needs.BoxCommands``."""
        await self.boxes.let_go(project, instance)

    def _skipping(self, project: Project, what: str) -> _Skipping:
        return _Skipping(self.reporter, project, what)


@dataclass(frozen=True, slots=True)
class _Skipping:
    reporter: Reporter
    project: Project
    what: str

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, DevboxError) and not isinstance(error, BoxSaysNo):
            self.reporter.line("skipped", self.project, error.message, self.what)


@dataclass(slots=True)
class Rounds:
    """All projects of these fleets, once. ``left``: seconds until we have to be gone; ``owners``: lines name theirs."""

    time: Time
    tell: Tell
    left: Callable[[], float]
    owners: bool = False
    ends: dict[str, End] = field(default_factory=dict)  # by uid

    async def run(self, fleets: Sequence[Fleet]) -> list[End]:
        """Go on with every project as far as it goes now. Raises what the store raises when it can not be read.

        Cancelling it ends every loop between two requests, and gives the turns back.
        """
        found = [(fleet, known) for fleet in fleets for known in await fleet.book.ledgers()]
        async with asyncio.TaskGroup() as group:
            for fleet, known in found:
                if fleet.minds(known.project):
                    group.create_task(self._one(fleet, known), name=f"project {known.project.uid}")
        return list(self.ends.values())

    async def _one(self, fleet: Fleet, known: Ledger) -> None:
        one = fleet.reconciler(known.project.uid, known)
        self.ends[one.uid] = End.UNFINISHED
        try:
            self.ends[one.uid] = await self._settle(one)
        except Exception:  # a bug, or a system in a state that nobody foresaw: the others go on
            log.exception("project %s", known.project.name)
            self.ends[one.uid] = End.FAILED
        finally:
            await one.turn.hand_over()
        project = one.known.project if one.known is not None else known.project
        end = self.ends[one.uid]
        text = project.reason if end is End.BROKEN else ""
        owner = fleet.book.owner if self.owners else ""
        self.tell(Line(self.time.wall(), "end", project.name, text, project.phase, end, owner))

    async def _settle(self, one: Reconciler) -> End:
        """Passes of one loop until it is at rest."""
        failures = 0
        while True:
            try:
                delay = await one.once()
                failures = 0
            except LoginNeeded as error:
                self._refused(one, error)
                return End.LOGIN
            except Conflict:
                delay = BRISK
            except DevboxError as error:
                self._refused(one, error)
                failures += 1
                delay = min(LONGEST, BRISK * 2.0**failures)
            if delay is None:
                return End.DONE
            if delay >= REST:
                refused = failures > 0 or one.memory.refusals[1] > 0 or bool(one.memory.not_deleted())
                return _at_rest(one, is_refused=refused)
            if delay > 0:
                await one.turn.watch()
            if one.turn.is_anothers:
                return End.ELSEWHERE
            if self.left() <= delay:
                return End.UNFINISHED
            await pause(delay)

    def _refused(self, one: Reconciler, error: DevboxError) -> None:
        if one.known is not None:
            one.told.refused(one.known.project, error)


def _at_rest(one: Reconciler, *, is_refused: bool) -> End:
    project = one.known.project if one.known is not None else None
    if project is not None and project.phase is Phase.BROKEN:
        return End.BROKEN
    if is_refused:
        return End.REFUSED
    return (
        End.DONE if project is None or project.phase is Phase.WARM or is_at_rest(project) else End.ELSEWHERE
    )


def worst(ends: Sequence[End]) -> End:
    """What to say of all of them."""
    order = list(End)
    return max(ends, key=order.index, default=End.DONE)
