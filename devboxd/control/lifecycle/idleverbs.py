"""What can be asked about idle boxes: policy, leases, deadlines, and why. Errors: those of ``Projects``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from devboxd.control.base.shared import Shared
from devboxd.control.lifecycle.disuse import Ahead, DisuseLoop
from devboxd.control.lifecycle.idle import Idle, Moment
from devboxd.control.lifecycle.projects import Projects
from devboxd.errors import DevboxError, WrongState
from devboxd.model import idle_note, idle_policy, lease
from devboxd.model.disuse import is_archived
from devboxd.model.idle_note import Decision, Did
from devboxd.model.idle_policy import IdlePolicy
from devboxd.model.lease import Lease
from devboxd.model.project import Phase, Policy, Project

LOOK_AGAIN: Final = 20.0  # seconds that ``why`` waits for a look at the box as it is now


class IdleView(msgspec.Struct, frozen=True):
    """A project's policy, whether it is its own, what holds its box, and what was seen last."""

    project: Project
    policy: IdlePolicy
    is_own: bool
    leases: tuple[Lease, ...]
    held: float | None
    moment: Moment | None
    decisions: tuple[Decision, ...] = ()
    ahead: Ahead = Ahead()


class IdleVerbs:
    """The verbs. ``short_id`` gives the ids of leases."""

    def __init__(
        self,
        shared: Shared,
        projects: Projects,
        watcher: Idle,
        disuse: DisuseLoop,
        *,
        short_id: Callable[[], str],
        who: str,
    ) -> None:
        self._shared = shared
        self._projects = projects
        self._watcher = watcher
        self._disuse = disuse
        self._short_id = short_id
        self._who = who

    async def show(self, name: str, *, decisions: bool = False) -> IdleView:
        """How a box stands; with ``decisions`` also what was decided in thirty days."""
        project = (await self._projects.get(name)).project
        notes = await self._watcher.book.notes(project.uid)
        found = tuple(await self._watcher.book.decisions(project.uid)) if decisions else ()
        now = self._shared.time.wall()
        tidy = idle_note.tidied(notes, now)
        leases = tuple(one for one in tidy.leases if one.holds(now))
        return IdleView(
            project,
            self._watcher.policy(project),
            project.policy.idle is not None,
            leases,
            tidy.held,
            self._watcher.known(project),
            found,
            self._disuse.ahead(project.uid),
        )

    def ahead(self, uid: str) -> Ahead:
        """When a project is deleted, as far as it is known."""
        return self._disuse.ahead(uid)

    async def why(self, name: str) -> IdleView:
        """The same with all decisions, after a look at the box as it is now."""
        project = (await self._projects.get(name)).project
        if (
            project.phase is Phase.RUNNING
        ):  # one that is being taken down answers nobody, and would be waited for
            await self._watcher.look_now(project.uid, LOOK_AGAIN)
        await self._disuse.again(project)
        return await self.show(name, decisions=True)

    def look_soon(self, name: str) -> None:
        """Look at the box of a project at once, where there is one of that name."""
        project = self._projects.named(name)
        if project is not None:
            self._watcher.wake(project.uid)

    async def last_stop(self, name: str) -> str:
        """Why the box of this name was stopped, once for whoever attaches first; empty where there is nothing to tell."""
        project = self._projects.named(name)
        if project is None:
            return ""
        try:
            notes = await self._watcher.book.notes(project.uid)
            found = idle_note.unshown(notes, await self._watcher.book.decisions(project.uid))
            if found is None:
                return ""
            await self._watcher.book.change(project.uid, lambda known: replace(known, shown=found.at))
        except DevboxError:
            return ""  # nobody waits for a story
        return idle_note.told(found, project.name, idle_policy.utc(found.at))

    async def settle(self, name: str, change: dict[str, Any] | None) -> IdleView:
        """Change a project's policy; None: as configured.

        Raises:
            BadRequest: it can not be so.
        """

        def decide(project: Project) -> Policy:
            policy = None
            if change is not None:
                policy = idle_policy.checked(replace(self._watcher.policy(project), **change))
            return replace(project.policy, idle=policy)

        project = await self._projects.settle(name, decide)
        self._watcher.wake(project.uid)
        await self._disuse.again(project)
        return await self.show(name)

    async def keep_alive(
        self,
        name: str,
        *,
        seconds: float | None = None,
        until: str | None = None,
        command: str | None = None,
        pid: int | None = None,
        note: str = "",
    ) -> IdleView:
        """Keep the box up for a while, or while something is so on it.

        An archived project that would be deleted is in use by that: its time begins anew.

        Raises:
            BadRequest: it has no end, or a late one.
            WrongState: the box does not run.
        """
        if command is None and pid is None and await self._used(name):
            return await self.show(name)
        project, now = await self._running(name), self._shared.time.wall()
        if until is not None:
            seconds = idle_policy.when(until, now) - now
        id_ = self._short_id()

        def decide(known: idle_note.IdleNotes) -> idle_note.IdleNotes:
            leases = lease.granted(
                known.leases,
                id_,
                now,
                seconds=seconds,
                command=command,
                pid=pid,
                note=note,
                who=self._who,
            )
            return replace(known, leases=leases)

        await self._watcher.book.change(project.uid, decide)
        self._watcher.wake(project.uid)
        return await self.show(name)

    async def drop(self, name: str, id_: str) -> IdleView:
        """End a lease. Raises LeaseNotFound."""
        project, now = (await self._projects.get(name)).project, self._shared.time.wall()
        await self._watcher.book.change(
            project.uid, lambda known: replace(known, leases=lease.dropped(known.leases, id_, now))
        )
        self._watcher.wake(project.uid)
        return await self.show(name)

    async def extend(self, name: str, seconds: float) -> IdleView:
        """Move the deadline of the box, or begin the time anew after which an archived project is deleted.

        Raises:
            WrongState: it does not run.
        """
        if await self._used(name):
            return await self.show(name)
        project, now = await self._running(name), self._shared.time.wall()
        moment = self._watcher.known(project)
        deadline = moment.decision["at"] if moment is not None and moment.decision is not None else None
        notes = await self._watcher.book.change(
            project.uid, lambda known: idle_note.extended(known, seconds, deadline, now)
        )
        text = f"not before {idle_policy.utc(notes.held or now)}"
        await self._watcher.book.note(project.uid, Decision(now, Did.EXTENDED, text))
        self._watcher.wake(project.uid)
        return await self.show(name)

    async def _used(self, name: str) -> bool:
        """Whether it is an archived project that would be deleted for not being used; then somebody uses it."""
        project = (await self._projects.get(name)).project
        if self._watcher.policy(project).delete is None or not is_archived(project):
            return False
        await self._disuse.used(project)
        return True

    async def _running(self, name: str) -> Project:
        project = (await self._projects.get(name)).project
        if project.phase is not Phase.RUNNING:
            raise WrongState(
                f"{name} is {project.phase}: there is no box to keep", hint=f"devboxctl up {name}"
            )
        return project
