"""What can be asked of projects: the verbs behind ``devboxctl launch``, ``up``, ``stop``, ``terminate`` and the rest.

A verb checks, writes the wish down, wakes the project's loop and returns the project as it is then; the work is the
loop's, and goes on without whoever asked. All verbs are idempotent. Errors of all of them: those of the store, and
``ProjectNotFound`` for a name that nobody has.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from devboxd.control.base.needs import AgentOf, Computes
from devboxd.control.base.shared import Shared
from devboxd.control.lifecycle.book import Book, until_first
from devboxd.control.lifecycle.boots import Boots, unknown
from devboxd.control.lifecycle.boxwork import BoxWork
from devboxd.control.lifecycle.fleet import Fleet, Status
from devboxd.control.lifecycle.moves import Moves
from devboxd.control.lifecycle.order import LaunchWish, grounded, lacks_ground, ordered, source_of, usual
from devboxd.control.lifecycle.rebases import Rebases
from devboxd.control.lifecycle.unsaved import UnsavedWork
from devboxd.errors import AlreadyExists, BadRequest, Conflict, DevboxError, WrongState
from devboxd.model import disuse, wish
from devboxd.model.box import Account
from devboxd.model.change import found
from devboxd.model.config import ProjectSettings
from devboxd.model.launch_plan import planned
from devboxd.model.ledger import Change, Event, Ledger, StoreFailed
from devboxd.model.leftover import Leftover, leftovers, snapshot_of, volume_of
from devboxd.model.meter import region
from devboxd.model.price import Rates, built_in
from devboxd.model.project import Generation, Phase, Policy, Project, Run, Spec, Want
from devboxd.model.retention import is_last_copy
from devboxd.model.seen import Hint, Seen, hint
from devboxd.model.states import StoreEngine
from devboxd.model.step import Reboot, Write
from devboxd.model.unsaved import NotSaved
from devboxd.model.wish import ProjectNotFound

Allow = Callable[[Project | None, Project], Awaitable[Sequence[Change]]]


async def _allowed(before: Project | None, after: Project) -> Sequence[Change]:
    return ()


class Plan(msgspec.Struct, frozen=True):
    """What a launch would call at AWS, in order, and what it would be like."""

    project: Project
    calls: tuple[tuple[str, dict[str, Any]], ...]


class Projects:
    """The verbs. ``uid`` gives names that are never given twice: ten of ``a-z0-9``.

    ``owner`` says whose tag is on what an account makes (``aws:userid``); None: the book's own owner. ``rates``: the
    prices of a region. ``allow`` is asked before a box is to run: what it returns is committed with it, and it may
    raise. ``agent`` says whether the agent of a box is connected; None: nobody can ask.
    """

    def __init__(
        self,
        shared: Shared,
        book: Book,
        fleet: Fleet,
        computes: Computes,
        boxes: BoxWork,
        *,
        uid: Callable[[], str],
        owner: Callable[[Account], Awaitable[str]] | None = None,
        books: Mapping[StoreEngine, Book] | None = None,
        rates: Callable[[str], Rates] = built_in,
        allow: Allow | None = None,
        agent: AgentOf | None = None,
        settings: Callable[[], ProjectSettings] = ProjectSettings,
    ) -> None:
        self._shared = shared
        self._book = book
        self._fleet = fleet
        self._computes = computes
        self._uid = uid
        self.moves = Moves(shared, book, fleet, computes, self, uid=uid, books=books, rates=rates)
        self.unsaved = UnsavedWork(self.get, boxes)
        self.boots = Boots(shared, self.get, boxes, agent or unknown)
        self.rebases = Rebases(computes, shared.time, self.get, self._change)
        self._owner = owner
        self._settings = settings
        self._rates = rates
        self._allow = allow or _allowed
        self._books = tuple(books.values()) if books else (book,)

    # Look -------------------------------------------------------------------------------------------

    async def all(self) -> list[Project]:
        """Every project of this owner, by name."""
        return sorted(await self._book.projects(), key=lambda project: project.name)

    async def get(self, name: str) -> Ledger:
        """One project with its generations and its run."""
        uid = await self._book.find(name)
        known = await self._book.load(uid) if uid is not None else None
        if known is None:
            raise ProjectNotFound(
                f"there is no project named {name!r}",
                hint=f"devboxctl projects lists them; devboxctl launch {name} makes it, devboxctl adopt makes one of a box",
            )
        return known

    async def find(self, name: str) -> Ledger | None:
        """The same; None where there is none."""
        try:
            return await self.get(name)
        except ProjectNotFound:
            return None

    async def events(self, name: str, most: int = 100) -> list[Event]:
        """What happened to a project, oldest first."""
        return await self._book.events((await self.get(name)).project.uid, most)

    async def runs(self, name: str) -> list[Run]:
        """All runs of a project, with the times in which they were billed."""
        return await self._book.runs((await self.get(name)).project.uid)

    async def generations(self, name: str) -> list[Generation]:
        """The generations of a project that can be launched, newest first."""
        known = await self.get(name)
        return sorted((one for one in known.generations if one.is_ok), key=lambda one: -one.number)

    def operations(self) -> list[Status]:
        """What is under way, and what is waited for or refused meanwhile."""
        return [one for one in self._fleet.statuses() if not is_at_rest(one.project) or one.problem]

    async def follow(self, name: str) -> AsyncIterator[Status]:
        """How far a project is, now and at each change, until it is as wanted or needs a person.

        Leaving early leaves the work to the daemon.
        """
        project, last, is_over = (await self.get(name)).project, None, False
        self._fleet.wake(project.uid)
        while True:
            try:
                known = await self._book.load(project.uid)
            except DevboxError as error:
                if not error.retryable:
                    raise
                status = Status(
                    project, problem=error.message, hint=error.hint
                )  # the store does not answer now
            else:
                if known is None:
                    return
                project, is_over = known.project, is_at_rest(known.project)
                status = self.status(project)
            if status != last:
                yield status
                last = status
            if is_over:
                return
            await self._fleet.changed(10.0)

    def status(self, project: Project) -> Status:
        """How far a project is: what its loop waits for, or was refused."""
        seen = self._fleet.status(project.uid)
        if seen is None:
            return Status(project)
        why = seen.why if seen.project.phase is project.phase else ""  # nobody waits for that any more
        return msgspec.structs.replace(seen, project=project, why=why)

    def remembered(self) -> list[Project]:
        """Every project as its loop saw it last: from memory, so that nobody waits."""
        return [one.project for one in self._fleet.statuses()]

    def named(self, name: str) -> Project | None:
        """The project of this name as its loop saw it last: from memory, so that nobody waits."""
        return next(
            (one.project for one in self._fleet.statuses() if wish.is_same(one.project.name, name)), None
        )

    # Up and down ------------------------------------------------------------------------------------

    async def launch(self, name: str, asked: LaunchWish) -> Project:
        """Define a project and bring it up, or bring one up with other choices than last time.

        Raises:
            BadRequest: what was asked can not be.
            GenerationNotFound, WrongState.
            BudgetExceeded: a hard budget has nothing left for it.
        """
        known = await self.find(name)
        if known is None:
            made = await self._defined(name, asked)
            known = await self._created(made)
        if known is None:
            self._fleet.wake(made.uid)
            return made
        spec, goal = await self._ordered(known, asked)
        return await self._change(name, lambda now: wish.up(now, spec=spec, rollback=goal))

    async def _created(self, made: Project) -> Ledger | None:
        """Write a new project down; returns the one that somebody else made at the same moment, if so."""

        async def create() -> Ledger | None:
            allowed = await self._allow(None, made)  # another launch may be let pass meanwhile
            try:
                await self._book.create(made, f"launch from {made.spec.base}", beside=allowed)
            except AlreadyExists:
                return await self.get(made.name)
            return None

        return await until_first(create)

    async def plan(self, name: str, asked: LaunchWish) -> Plan:
        """What ``launch`` would do. Nothing is changed, anywhere."""
        known = await self.find(name)
        if known is None:
            made = await self._defined(name, asked)
            found = planned(Ledger(made), made, self._shared.time.wall())
        else:
            spec, goal = await self._ordered(known, asked)
            step = wish.up(known, spec=spec, rollback=goal)
            asked_for = msgspec.structs.replace(known, project=step.project) if step else known
            found = planned(asked_for, known.project, self._shared.time.wall())
        if found is None:
            raise WrongState(f"{name} can not be launched: there is no image or place to launch from")
        row, calls = found
        compute = self._computes.compute(row.account)
        return Plan(row, tuple(request for call in calls for request in compute.requests(call)))

    async def up(self, name: str) -> Project:
        """Bring a project up as it was: start it, launch it, or cancel what takes it down.

        Raises:
            BadRequest: where it is to go is not known (``rebuild`` finds no place in tags), and can not be found.
        """
        if lacks_ground((await self.get(name)).project):
            return await self.launch(name, LaunchWish())
        return await self._change(name, wish.up)

    async def cancel(self, name: str) -> Project:
        """Take back what was asked last, as far as it has not been done. Raises WrongState."""
        return await self._change(name, wish.cancel)

    async def stop(self, name: str, *, require_clean: bool = False, verify: bool | None = None) -> Project:
        """Save the box and keep it stopped for the warm window, so that starting it again is fast.

        Raises:
            NotSaved: ``require_clean``, and there is git work that is nowhere else.
        """
        return await self._down(name, Want.WARM, require_clean, verify)

    async def terminate(
        self, name: str, *, require_clean: bool = False, verify: bool | None = None
    ) -> Project:
        """Save the box and keep nothing but the generation. Raises as ``stop``."""
        return await self._down(name, Want.COLD, require_clean, verify)

    async def idle_down(self, seen: Project, want: Want, why: str) -> bool:
        """Take a box down that is idle; False where it is not the one that was looked at any more."""
        return (
            await self._change(seen.name, lambda known: wish.down_if_idle(known, seen, want, why))
        ).want is want

    async def reboot(self, name: str) -> Project:
        """Reboot the box: same instance, same volumes.

        Raises:
            WrongState: it does not run, or its homes are being copied.
        """
        project = (await self.get(name)).project
        await self._computes.compute(project.account).act(Reboot(wish.check_reboot(project)))
        return project

    async def delete(self, name: str, *, force: bool = False) -> Project:
        """Delete a project: its box, its volumes, all its generations. There is no way back.

        Raises:
            WrongState: a fork of it has no generation of its own yet; not with ``force``.
        """
        return await self._change(name, lambda known: wish.gone(known, force=force))

    async def delete_disused(self, known: Ledger, why: str, beside: Sequence[Change]) -> bool:
        """Delete an archived project that nobody uses, as it was read; False where anything of it has changed since.

        ``beside`` is committed with it: what must not have changed, either.
        """
        step = wish.gone_if_disused(known, why)
        if step is None:
            return False
        try:
            await self._book.write(known, step, beside)
        except Conflict:
            return False
        self._fleet.wake(known.project.uid)
        return True

    async def resume(self, name: str, *, verify: bool | None = None) -> Project:
        """Go on with a project that needed a person."""
        return await self._change(
            name, lambda known: wish.resume(known, self._shared.time.wall(), verify=verify)
        )

    async def to_abandon(self, name: str) -> tuple[Ledger, list[Leftover]]:
        """What there is to give up: the project, and what is left of its box. Raises as ``abandon``.

        Its volumes, and snapshots that are all that is left of one.
        """
        seen = await self._seen(name)
        rates = self._rates(region(seen.project, seen.run))
        why, known = "no generation has what it holds", Ledger(seen.project, seen.run, seen.generations)
        left = [volume_of(one, rates, why) for one in wish.to_abandon(seen)]
        after = msgspec.structs.replace(seen, project=wish.abandon(known, seen.at).project)
        left += [snapshot_of(one, rates, why) for one in seen.ec2.snapshots if is_last_copy(after, one)]
        return known, left

    async def abandon(self, name: str, *, discard: bool = False) -> Project:
        """Give up what could not be saved: the newest generation is what there is. ``discard``: its volumes, too.

        Raises:
            WrongState: it needs nobody, has no generation, or its box is there or may be.
        """
        seen = await self._seen(name)

        def decide(known: Ledger) -> Write:
            wish.to_abandon(msgspec.structs.replace(seen, project=known.project, run=known.run))
            return wish.abandon(known, self._shared.time.wall(), discard=discard)

        return await self._change(name, decide)

    # Generations ------------------------------------------------------------------------------------

    async def snapshot(self, name: str, label: str = "") -> Project:
        """Make a generation of the box as it is now, running or not."""
        return await self._change(name, lambda known: wish.snapshot(known, label))

    async def rollback(self, name: str, number: int) -> Project:
        """Bring the project up from an old generation. The present is saved first, as one of its own."""

        def decide(known: Ledger) -> Write | None:
            return wish.up(known, rollback=wish.generation(known, number).number)

        return await self._change(name, decide)

    async def describe(
        self, name: str, number: int, *, label: str | None = None, pinned: bool | None = None
    ) -> Project:
        """Label a generation; pin it, so that it is kept, or unpin it, also of forks that are nowhere."""
        lost = await self._lost(name) if pinned is False else frozenset()
        return await self._change(
            name, lambda known: wish.describe(known, number, label=label, pinned=pinned, lost=lost)
        )

    async def _lost(self, name: str) -> frozenset[str]:
        """Pins of forks that are written down nowhere, in no store. One that could not be looked for is not lost."""
        forks = {pin for one in (await self.get(name)).generations for pin in wish.fork_pins(one)}
        return frozenset([pin for pin in sorted(forks) if not await self._may_be(pin.partition(":")[2])])

    async def _may_be(self, uid: str) -> bool:
        for book in [*self._books]:
            try:
                if await book.has(uid):
                    return True
            except DevboxError as error:
                if not (isinstance(error, StoreFailed) and error.is_absent):
                    return True
        return False

    async def drop(self, name: str, number: int, *, force: bool = False) -> Project:
        """Delete a generation before its time. Raises WrongState where something needs it."""
        return await self._change(name, lambda known: wish.drop(known, number, force=force))

    # Identity ---------------------------------------------------------------------------------------

    async def fork(self, name: str, other: str, number: int | None = None) -> Project:
        """Make another project out of a generation (the newest). The generation is kept until the first save of it.

        Raises:
            AlreadyExists: there is a project of that name, and it is no such fork.
        """

        async def change() -> Project:
            origin = await self.get(name)
            if (there := await self.find(other)) is not None:
                if wish.is_fork(there.project, origin, number):
                    return there.project
                raise wish.taken(other)
            if not origin.project.head:
                raise WrongState(f"{name} has no generation yet", hint=f"devboxctl snapshot {name} makes one")
            wanted = wish.generation(origin, origin.project.head if number is None else number).number
            made = wish.forked(origin, wanted, self._uid(), other, self._shared.time.wall())
            pin = wish.pinned_for(origin, wanted, f"fork:{made.uid}")
            await self._book.create(
                made, f"forked from {name}, generation {wanted}", beside=self._book.changes(origin, pin)
            )
            return made

        made = await until_first(change)
        self._fleet.wake(made.uid)
        return made

    async def rename(self, name: str, other: str) -> Project:
        """Give a project another name. Raises WrongState while something is being made under the old one."""
        wish.check_name(other)
        known = await self.get(name)
        wish.can_be_renamed(known)
        await self._book.rename(known, other)
        self._fleet.wake(known.project.uid)
        return (await self.get(other)).project

    async def resize(self, name: str, *, types: tuple[str, ...] = (), gib: int | None = None) -> Project:
        """Another type, or a larger disk with the file system on it. A running box restarts for another type."""
        known = await self.get(name)
        places, spec = None, None
        if types:
            offers = self._computes.offers(known.project.account)
            spec = await ordered(known, LaunchWish(types=types), offers)
            places = spec.places
        return await self._change(name, lambda now: wish.resize(now, places=places, root_gib=gib, under=spec))

    async def settle(self, name: str, decide: Callable[[Project], Policy]) -> Project:
        """Another policy, decided on from the project as it is then: ``decide`` may be asked again, and may raise."""
        return await self._change(name, lambda known: wish.settle(known, policy=decide(known.project)))

    async def adopt(
        self, instance: str, name: str, *, account: Account | None = None, policy: Policy | None = None
    ) -> Project:
        """Make a project of an instance that is there already: it is tagged, protected and saved as any other.

        Raises:
            BadRequest: there is no such instance.
            WrongState: it can not be one of ours.
        """
        where, uid = account or Account(), self._uid()
        seen = (await self._computes.compute(where).look({uid: Hint(boxes=(instance,))}))[uid]
        box = next((one for one in seen.boxes if one.id == instance), None)
        if box is None:
            raise BadRequest(
                f"there is no instance {instance} in this account and region",
                hint="it is named by its id, as i-0123456789abcdef0: devboxctl ls shows them",
            )
        at = self._shared.time.wall()
        owner = await self.owner_in(where)
        made = Project(uid, wish.check_name(name), owner, where, Want.UP, since=at, policy=policy or Policy())
        disks = found(Seen(made, None, (), seen, at), box) or ()
        row, run = wish.adopted(made, box, disks)
        await self._book.create(row, f"adopted {instance}", run=run)
        self._fleet.wake(uid)
        return row

    # Leftovers --------------------------------------------------------------------------------------

    async def leftovers(self, name: str) -> list[Leftover]:
        """What belongs to a project and is in use by nothing: what goes by itself soon, and why the rest does not."""
        seen = await self._seen(name)
        rates, status = self._rates(region(seen.project, seen.run)), self._fleet.status(seen.project.uid)
        return leftovers(seen, rates, status.undeleted if status is not None else {})

    async def stray(self, name: str) -> str:
        """What EC2 shows of an archived project that no generation of it has, in a sentence; empty: nothing."""
        return disuse.stray(await self._seen(name))

    async def _seen(self, name: str) -> Seen:
        known = await self.get(name)
        project = known.project
        wanted = {project.uid: hint(project, known.run)}
        ec2 = (await self._computes.compute(project.account).look(wanted))[project.uid]
        now = await self._book.load(project.uid) or known  # EC2 first, then the row
        return Seen(now.project, now.run, now.generations, ec2, self._shared.time.wall())

    # ------------------------------------------------------------------------------------------------

    async def _ordered(self, known: Ledger, asked: LaunchWish) -> tuple[Spec, int | None]:
        """The spec of another launch of a project, and the generation that it goes back to."""
        source = source_of(known, asked)
        wish.check_disk(known, asked.gib, source)
        if lacks_ground(known.project):
            asked = grounded(asked, usual(self._settings()))
        spec = await ordered(known, asked, self._computes.offers(known.project.account))
        return spec, source.number if source is not None and asked.generation is not None else None

    async def _defined(self, name: str, asked: LaunchWish) -> Project:
        wish.check_name(name)
        account = asked.account or Account()
        if asked.generation is not None:
            raise ProjectNotFound(f"there is no project named {name!r}, so it has no generation")
        spec = await ordered(None, asked, self._computes.offers(account))
        made = wish.new(
            self._uid(),
            name,
            await self.owner_in(account),
            account=account,
            spec=spec,
            policy=asked.policy or Policy(),
            at=self._shared.time.wall(),
        )
        wish.check_disk(Ledger(made), asked.gib, None)
        return made

    async def owner_in(self, account: Account) -> str:
        """Whose tag is on what an account makes."""
        return self._book.owner if self._owner is None else await self._owner(account)

    async def _down(self, name: str, want: Want, require_clean: bool, verify: bool | None) -> Project:
        if require_clean and (work := await self.unsaved.listed(name)):
            raise NotSaved(name, work)
        return await self._change(name, lambda known: wish.down(known, want, verify=verify))

    async def _change(self, name: str, decide: Callable[[Ledger], Write | None]) -> Project:
        """Write a wish down, again where somebody else was faster."""

        async def change() -> Project:
            known = await self.get(name)
            step = decide(known)
            if step is None:
                return known.project
            allowed = await self._allow(known.project, step.project)
            return (await self._book.write(known, step, allowed)).project

        project = await until_first(change)
        self._fleet.wake(project.uid)
        return project


def is_at_rest(project: Project) -> bool:
    """Say whether a project is as wanted, or needs a person."""
    match project.phase:
        case Phase.BROKEN:
            return True
        case Phase.READY | Phase.ABSENT:
            return project.want in (Want.COLD, Want.WARM) and project.rollback is None
        case Phase.WARM:
            return project.want is Want.WARM and project.rollback is None
        case Phase.RUNNING:
            return (
                project.is_wanted_up
                and project.snap is None
                and not project.adopted
                and not project.is_moving
            )
        case _:
            return False
