"""Coding agents on the boxes of projects: known from the collector's looks, told of at once where a bridge carries a stream.

A box with hooks says each change over the bridge, as ``forward --auto`` is told of ports; where there can be none, the next
look of the collector says it. What was told lies in the project's notes, so that a daemon that begins anew tells nothing twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec
from msgspec.structs import replace

from devboxd.boxside.activity import Answer
from devboxd.boxside.said import UNREADABLE
from devboxd.control.base.bells import Bell
from devboxd.control.base.notices import Notify, tell_later
from devboxd.control.base.shared import Shared
from devboxd.control.lifecycle.fleet import Fleet
from devboxd.control.lifecycle.idlebook import IdleBook
from devboxd.control.lifecycle.lines import Changes, Followed, Stream, follow, newest
from devboxd.errors import DevboxError
from devboxd.model import agent
from devboxd.model.agent import AgentNote, Tell
from devboxd.model.box import SKEW_MOST
from devboxd.model.project import Phase, Project
from devboxd.text import one_line

SETTLE: Final = 2.0  # seconds that a change stands before it is told: who is at the keyboard answers at once
AGAIN_MOST: Final = 300.0  # seconds until a stream that ended is opened again
NOTICES_MOST: Final = 30  # of one box within ``NOTICES_WITHIN`` seconds: a person does not read more
NOTICES_WITHIN: Final = 600.0
LONGEST_LINE: Final = 128 << 10  # bytes of a report: 64 notes, each as long as it may be


@dataclass(slots=True, eq=False)
class _Box(Followed):
    """What is remembered of a project's box."""

    notes: tuple[AgentNote, ...] = ()
    seen: dict[tuple[str, int], float] = field(default_factory=dict)  # since when each is as it was told
    told: float | None = None  # what an earlier daemon told; None: not read yet
    reports: bool = False  # a stream has told what there is, and goes on to
    gone: bool = False  # no hooks are set up any more, or it does not run
    telling: bool = False
    notices: deque[float] = field(
        default_factory=lambda: deque(maxlen=NOTICES_MOST)
    )  # monotonic, when they were told


class Agents:
    """``changes`` opens a stream of reports of a box; ``notify`` tells the person at this machine."""

    def __init__(
        self,
        shared: Shared,
        fleet: Fleet,
        book: IdleBook,
        *,
        notify: Notify,
        changes: Changes | None = None,
        tell: Callable[[], Tell] = lambda: Tell.ALL,
    ) -> None:
        self._shared = shared
        self._fleet = fleet
        self._book = book
        self._notify = notify
        self._changes = changes
        self._tells = tell
        self._rest = Bell()  # nobody rings
        self._boxes: dict[str, _Box] = {}

    def known(self) -> list[tuple[str, tuple[AgentNote, ...]]]:
        """The agents of every box that runs, by name of the project, as they were seen last."""
        found = ((self._running(uid), box.notes) for uid, box in self._boxes.items())
        return sorted((project.name, notes) for project, notes in found if project is not None and notes)

    def told(self) -> dict[str, str]:
        """By name of the project what matters most about its agents, in a few words, where there is any."""
        now = self._shared.time.wall()
        said = {name: agent.said(notes, now) for name, notes in self.known()}
        return {name: words for name, words in said.items() if words}

    def said(self, name: str) -> str:
        """What matters most about the agents of one project, in a few words; or nothing."""
        return self.told().get(name, "")

    def looked(self, project: Project, answer: Answer) -> None:
        """The collector has looked. Where hooks are set up, each change is told from then on."""
        for uid in [one for one in self._boxes if self._running(one) is None]:
            self._forget(uid)
        notes = agent.sampled(answer.sample)
        if notes is None:
            self._forget(project.uid)
            return
        box = self._boxes.setdefault(project.uid, _Box())
        # What a stream tells is newer than a look, which takes its time.
        if not box.reports:
            self._take(project.uid, box, notes)
        if self._changes is not None and not box.watched:
            box.watched = True
            self._shared.tasks.spawn(f"agents {project.uid}", self._watch(self._changes, project.uid, box))

    def _running(self, uid: str) -> Project | None:
        """The project, while its box runs."""
        status = self._fleet.status(uid)
        return status.project if status is not None and status.project.phase is Phase.RUNNING else None

    def _forget(self, uid: str) -> None:
        """Its box does not run, or has no hooks any more. Who still listens to it ends."""
        box = self._boxes.pop(uid, None)
        if box is not None:
            box.gone = True
            box.leave()

    def _take(self, uid: str, box: _Box, notes: tuple[AgentNote, ...]) -> None:
        box.notes = notes
        box.seen = agent.remembered(box.seen, notes, self._shared.time.wall())
        if self._news(box) and not box.telling:
            box.telling = True
            self._shared.tasks.spawn(f"tell of agents {uid}", self._tell(uid, box))

    def _news(self, box: _Box) -> list[AgentNote]:
        return agent.news(box.notes, box.told or 0.0, box.seen, self._shared.time.wall(), self._tells())

    async def _tell(self, uid: str, box: _Box) -> None:
        """Tell what stands for a moment; then whatever came meanwhile."""
        try:
            while self._news(box):
                await self._rest.wait(SETTLE)
                if box.told is None:
                    box.told = await self._told_before(uid)
                status = self._fleet.status(uid)
                if status is None:
                    return
                last = 0.0
                ahead = self._shared.time.wall() + SKEW_MOST
                for note in self._news(box):
                    box.seen[note.key] = note.since
                    if not self._has_room(box):
                        continue
                    # One that is of the future must not hide what comes until then.
                    last = max(last, min(note.since, ahead))
                    title, text = agent.notice(status.project.name, note)
                    # What an agent asks is often a command, maybe with a secret.
                    asked, name = f": {one_line(text)}", status.project.name
                    self._shared.news.tell("agent", title, box=name, secret=asked)
                    tell_later(self._shared.tasks, self._notify, title, text)
                if last:
                    await self._remember(uid, last)
        finally:
            box.telling = False

    def _has_room(self, box: _Box) -> bool:
        """Whether another notice of a box may be told; then it counts."""
        now = self._shared.time.monotonic()
        if len(box.notices) == NOTICES_MOST and now - box.notices[0] < NOTICES_WITHIN:
            return False
        box.notices.append(now)
        return True

    async def _told_before(self, uid: str) -> float:
        try:
            return (await self._book.notes(uid)).agents
        except DevboxError:
            return 0.0

    async def _remember(self, uid: str, last: float) -> None:
        try:
            await self._book.change(uid, lambda known: replace(known, agents=max(known.agents, last)))
        except DevboxError:
            return  # the next daemon tells it once more

    async def _watch(self, changes: Changes, uid: str, box: _Box) -> None:
        def project() -> Project | None:
            return None if box.gone else self._running(uid)

        take = partial(self._read, uid, box)
        await follow(self._shared, changes, box, project, take, longest=AGAIN_MOST)

    async def _read(self, uid: str, box: _Box, stream: Stream) -> bool:
        """Take reports until the stream ends; whether there was one. A line that is none says nothing."""
        try:
            async for line in newest(stream, LONGEST_LINE):
                try:
                    notes = agent.read(msgspec.json.decode(line))
                except UNREADABLE:
                    continue
                box.reports = True
                self._take(uid, box, notes)
            return box.reports
        finally:
            box.reports = False
