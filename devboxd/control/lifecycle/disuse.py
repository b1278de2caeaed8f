"""Archived projects that nobody uses: told of, for a fortnight, and then deleted as anybody would, where a policy says so.

What was told is in the store, so any daemon goes on where another one was. Somebody has to have been reached by a notice
before it counts, so a machine that can tell nobody deletes nothing, and neither does the reconciler without a daemon.
What can not be read or asked leaves the project as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from devboxd.control.base.notices import PATIENCE, tell_later
from devboxd.control.base.shared import Shared
from devboxd.control.lifecycle.idlebook import IdleBook, put_notes
from devboxd.control.lifecycle.projects import Projects
from devboxd.errors import Conflict, DevboxError
from devboxd.model import disuse, idle_note
from devboxd.model.cost import DAY
from devboxd.model.disuse import LEVELS, Do, Verdict
from devboxd.model.idle import span
from devboxd.model.idle_note import Decision, Did, IdleNotes
from devboxd.model.idle_policy import IdlePolicy, utc
from devboxd.model.ledger import Item, Ledger
from devboxd.model.project import Project

SETTLE: Final = (
    600.0  # seconds after the start in which nothing is done: the clock of the machine may be wrong
)
EVERY: Final = 3600.0

Reached = Callable[[str, str], Awaitable[bool]]  # title, text: whether it reached somebody, on any way
Disputed = Callable[
    [], Awaitable[Callable[[str], str]]
]  # says of a uid why not; empty: nothing speaks against it


class Ahead(msgspec.Struct, frozen=True):
    """What is ahead of a project. ``at``: when it is deleted at the earliest; None: it is not, for ``why``."""

    at: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Looked:
    """One look at a project."""

    known: Ledger
    notes: IdleNotes
    item: Item | None  # that the notes are in
    used: float
    now: float


class _Budgets:
    """Why a budget speaks against it: all of them are read once for a look, where a project needs it."""

    def __init__(self, disputed: Disputed) -> None:
        self._disputed = disputed
        self._says: Callable[[str], str] | None = None

    async def why(self, uid: str) -> str:
        """Empty where none does."""
        if self._says is None:
            self._says = await self._disputed()
        return self._says(uid)


class DisuseLoop:
    """The loop. ``policy``: the one in force; ``disputed``: what says why a budget speaks against it."""

    def __init__(
        self,
        shared: Shared,
        projects: Projects,
        book: IdleBook,
        policy: Callable[[Project], IdlePolicy],
        *,
        reached: Reached,
        disputed: Disputed,
    ) -> None:
        self._shared = shared
        self._projects = projects
        self._book = book
        self._policy = policy
        self._reached = reached
        self._disputed = disputed
        self._ahead: dict[str, Ahead] = {}
        self._looked: dict[str, float] = {}  # monotonic, of our last look
        self._told: dict[str, float] = {}  # monotonic, of our last warning
        self._blocked: dict[str, str] = {}  # why what is due could not be done at our last look
        self._names: dict[str, str] = {}  # of projects with a condition

    def ahead(self, uid: str) -> Ahead:
        """What is known to be ahead of a project; nothing, where its policy deletes nothing or it is not archived."""
        return self._ahead.get(uid, Ahead())

    async def used(self, project: Project) -> None:
        """Somebody says that it is in use: its time begins anew. Errors: those of the store."""
        now = self._shared.time.wall()
        await self._book.change(project.uid, lambda known: idle_note.used(known, now))
        await self.again(project)

    async def again(self, project: Project) -> None:
        """Something was changed: what is ahead now. Errors: those of the store."""
        with suppress(Conflict):  # the loop looks at it just now, and shows what it finds
            item = await self._book.item(project.uid) if disuse.is_archived(project) else None
            await self._one(project, item, _Budgets(self._disputed), acts=False)

    async def run(self) -> None:
        """Look for ever."""
        began = self._shared.time.monotonic()
        while True:
            settled = self._shared.time.monotonic() - began >= SETTLE
            await self.look(acts=settled)
            await asyncio.sleep(EVERY if settled else SETTLE)

    async def look(self, *, acts: bool = True) -> None:
        """Look at every project once. Without ``acts`` nothing is told and nothing is deleted.

        Also then it is written down when a project was used last, and that what was told counts no more where something
        keeps it.
        """
        try:
            found, items = await self._projects.all(), await self._book.items()
        except DevboxError:
            return  # who needs the store is told; this can wait
        budgets = _Budgets(self._disputed)
        for project in found:
            try:
                await self._one(project, items.get(project.uid), budgets, acts=acts)
            except Conflict:
                continue  # somebody was faster: an hour later is as good
            except DevboxError as error:
                if project.uid in self._ahead:
                    self._ahead[project.uid] = Ahead(None, error.message)
        for uid in self._ahead.keys() - {project.uid for project in found}:
            self._forget(uid)

    async def _one(self, project: Project, item: Item | None, budgets: _Budgets, *, acts: bool) -> None:
        """``item``: the notes about it, as they were a moment ago."""
        delete = self._policy(project).delete
        if delete is None or not disuse.is_archived(project):
            self._forget(project.uid)
            if disuse.is_archived(project):
                await self._begin_anew(project, item)
            return
        looked = await self._look(project)
        if looked is None:
            return
        if why := disuse.kept_by(looked.known, looked.notes, looked.now) or await budgets.why(project.uid):
            if looked.notes.disuse is not None:
                await self._write(looked, msgspec.structs.replace(looked.notes, disuse=None))
            self._show(project, Ahead(None, why), looked)
            return
        verdict = disuse.judge(
            looked.notes.disuse, looked.used, delete, looked.now, self._awake(project.uid) if acts else 0.0
        )
        if acts:
            self._blocked[project.uid] = ""
            self._blocked[project.uid] = await self._do(looked, verdict)
        blocked = self._blocked.get(project.uid, "")
        self._show(project, Ahead(None, blocked) if blocked else Ahead(verdict.at), looked)

    async def _begin_anew(self, project: Project, item: Item | None) -> None:
        """No policy deletes it: should one say so later, what was told of an earlier one counts for nothing."""
        notes = idle_note.read_notes(item)
        if notes.disuse is not None:
            await self._book.put(project.uid, item, msgspec.structs.replace(notes, disuse=None))

    async def _look(self, project: Project) -> _Looked | None:
        book = self._book.book
        known = await book.load(project.uid)
        if known is None:
            return None
        item = await self._book.item(project.uid)
        notes, now = idle_note.read_notes(item), self._shared.time.wall()
        events = await book.events(project.uid, 1)
        used = disuse.last_used(known.project, events[-1].at if events else None, notes)
        looked = _Looked(known, notes, item, used, now)
        if used > max(notes.kept, known.project.since) or used <= 0.0:
            # An event is forgotten after a while, and a row that was made anew from tags knows no time.
            kept = msgspec.structs.replace(notes, kept=used if used > 0.0 else now, disuse=None)
            await self._write(looked, kept)
            return await self._look(project)
        return looked

    def _awake(self, uid: str) -> float:
        """Seconds since our last look, as far as this machine was awake."""
        now = self._shared.time.monotonic()
        last, self._looked[uid] = self._looked.get(uid, now), now
        return min(now - last, 2 * EVERY)

    async def _do(self, looked: _Looked, verdict: Verdict) -> str:
        """Do what is due; returns why it can not be done, or nothing."""
        if verdict.do is Do.REST:
            if looked.notes.disuse is not None and not verdict.after.told:
                await self._write(looked, msgspec.structs.replace(looked.notes, disuse=None))
            return ""
        if verdict.do is Do.WATCH:
            await self._note(looked, verdict)
            return ""
        if why := await self._projects.stray(looked.known.project.name):
            return why
        return await (self._tell(looked, verdict) if verdict.do is Do.TELL else self._delete(looked, verdict))

    async def _tell(self, looked: _Looked, verdict: Verdict) -> str:
        """Warn, and write down that somebody was reached: a crash in between warns twice."""
        project, now = looked.known.project, self._shared.time.monotonic()
        if not disuse.may_tell(self._told.get(project.uid), now):
            return ""
        title, text = disuse.said(project, verdict.at, looked.used, looked.now)
        if not await self._reaches(title, text):
            return "nobody could be told: no notice reaches you (devboxctl notify try)"
        self._told[project.uid] = now
        self._shared.news.tell("disuse", f"{title}: {text}", box=project.name)
        await self._note(looked, verdict)
        await self._book.note(project.uid, Decision(looked.now, Did.DISUSED, title))
        return ""

    async def _reaches(self, title: str, text: str) -> bool:
        """Tell it; a way that does not come back reaches nobody, and holds up no other project."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._reached(title, text)
        except TimeoutError:
            return False

    async def _delete(self, looked: _Looked, verdict: Verdict) -> str:
        """As anybody would, unless the project or what keeps it has changed since it was read."""
        project = looked.known.project
        beside = put_notes(
            project.uid, looked.item, msgspec.structs.replace(looked.notes, disuse=verdict.after)
        )
        why = f"nobody used it for {span(looked.now - looked.used)}"
        if not await self._projects.delete_disused(looked.known, why, [beside]):
            return ""  # somebody was faster
        title, text = disuse.done(looked.known, looked.used, looked.now)
        self._shared.news.tell("disuse", f"{title}: {text}", box=project.name)
        tell_later(self._shared.tasks, self._reached, title, text)
        return ""

    # The store

    async def _note(self, looked: _Looked, verdict: Verdict) -> None:
        await self._write(looked, msgspec.structs.replace(looked.notes, disuse=verdict.after))

    async def _write(self, looked: _Looked, notes: IdleNotes) -> None:
        """Raises Conflict where somebody changed them meanwhile: a lease was taken, or it was kept."""
        await self._book.put(looked.known.project.uid, looked.item, notes)

    # What people see

    def _show(self, project: Project, ahead: Ahead, looked: _Looked) -> None:
        self._ahead[project.uid] = ahead
        if ahead.at is None or ahead.at - looked.now > LEVELS[0] * DAY:
            self._withdraw(project.uid)
            return
        if self._names.get(project.uid, project.name) != project.name:
            self._withdraw(project.uid)
        self._names[project.uid] = project.name
        self._shared.news.raise_condition(
            "project-disused",
            project.name,
            name=project.name,
            when=utc(ahead.at),
            unused=span(looked.now - looked.used),
        )

    def _forget(self, uid: str) -> None:
        self._ahead.pop(uid, None)
        self._looked.pop(uid, None)
        self._blocked.pop(uid, None)
        self._withdraw(uid)

    def _withdraw(self, uid: str) -> None:
        if (name := self._names.pop(uid, None)) is not None:
            self._shared.news.clear_condition("project-disused", name)
