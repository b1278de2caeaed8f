"""Spot boxes that EC2 takes back: known from the box, which looks for the notice, and told of at once.

The box gets ready by itself (``boxside/programs/parts/reclaimed.py``). Here a person is told, and EC2 is looked at closely until
the box has ended, so that its disk is saved without delay. A box says each change over the bridge; where there can be none, the
next look of the collector says it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

from devboxd.boxside.activity import Answer
from devboxd.boxside.reclaim import LINE_MOST, Done, Notice, Reclaim, read, read_line, said_of
from devboxd.control.base.notices import Notify, tell_later
from devboxd.control.base.shared import Shared
from devboxd.control.lifecycle.fleet import Fleet
from devboxd.control.lifecycle.lines import Changes, Followed, Stream, follow, newest
from devboxd.model.project import Phase, Project
from devboxd.model.reclaim import clock

AGAIN_MOST: Final = 120.0  # seconds until a stream that ended is opened again
LEAVING: Final = 900.0  # seconds from a notice on in which EC2 is looked at closely: a notice is no promise
LOOK_EVERY: Final = 30.0  # seconds, where nothing says that a project has changed

Life = tuple[str | None, float | None]  # an instance, and when it was started


@dataclass(slots=True, eq=False)
class _Box(Followed):
    """What is remembered of one life of a project's box."""

    life: Life
    known: Reclaim | None = None
    heard: float = 0.0  # monotonic, when the notice came


class Reclaims:
    """``follow`` opens a stream of what a box tells; ``notify`` tells the person at this machine."""

    def __init__(
        self, shared: Shared, fleet: Fleet, *, notify: Notify, follow: Changes | None = None
    ) -> None:
        self._shared = shared
        self._fleet = fleet
        self._notify = notify
        self._follow = follow
        self._boxes: dict[str, _Box] = {}

    def is_leaving(self, project: Project) -> bool:
        """Whether EC2 takes this box back now."""
        box = self._boxes.get(project.uid)
        if box is None or box.life != _life(project) or box.known is None or box.known.notice is None:
            return False
        return self._shared.time.monotonic() - box.heard < LEAVING

    def said(self, project: Project) -> str:
        """What is known of a spot box being taken back, in a few words; empty where it is none, or nothing is known."""
        box = self._boxes.get(project.uid)
        if box is None or box.known is None or box.life != _life(project) or not project.is_wanted_up:
            return ""
        known = box.known
        if known.notice is not None:
            done = f"; {said_of(known.did)}" if known.did is not None else ""
            return f"EC2 takes it back {self._when(known.notice)}{done}"
        if known.problem and (known.is_spot or project.spec.spot):
            return f"a notice of EC2 that it is taken back can not be seen: {known.problem}"
        if known.rebalance is not None:
            return "EC2 is likelier than before to take it back"
        return "EC2 gives notice before it takes it back; there is none" if known.is_spot else ""

    def looked(self, project: Project, answer: Answer) -> None:
        """The collector has looked. A spot box is followed from then on."""
        for uid in [one for one, box in self._boxes.items() if not self._lives(one, box)]:
            self._forget(uid)
        box = self._boxes.setdefault(project.uid, _Box(_life(project)))
        # What a stream tells is newer than a look, which takes its time.
        if box.stream is None and answer.reclaim is not None and (found := read(answer.reclaim)) is not None:
            self._take(project, box, found)
        is_known = box.known is not None and box.known.life is not None
        is_spot = box.known.is_spot if box.known is not None and is_known else project.spec.spot
        if is_spot and self._follow is not None and not box.watched:
            box.watched = True
            self._shared.tasks.spawn(f"notices {project.uid}", self._watch(self._follow, project.uid, box))

    def _project(self, uid: str, box: _Box) -> Project | None:
        """The project, while that life of its box lasts."""
        status = self._fleet.status(uid)
        project = status.project if status is not None else None
        runs = project is not None and project.phase is Phase.RUNNING and _life(project) == box.life
        return project if runs else None

    def _lives(self, uid: str, box: _Box) -> bool:
        return self._boxes.get(uid) is box and self._project(uid, box) is not None

    def _forget(self, uid: str) -> None:
        self._boxes.pop(uid).leave()

    # What a box tells

    def _take(self, project: Project, box: _Box, found: Reclaim) -> None:
        before, box.known = box.known or Reclaim(), found
        name = project.name
        if found.notice is not None and before.notice is None:
            self._taken(project, box, found.notice)
        elif found.notice is None and before.notice is not None:
            self._shared.news.clear_condition("box-reclaimed", name)
            self._say(name, f"EC2 does not take {name} back after all", "")
        if found.did is not None and before.did is None:
            self._done(name, found.did)
        if found.rebalance is None or found.notice is not None:
            self._shared.news.clear_condition("box-at-risk", name)
        elif before.rebalance is None or before.notice is not None:
            self._shared.news.raise_condition("box-at-risk", name, name=name)
            text = f"with two minutes' notice. devboxctl snapshot {name} saves it as it is now"
            self._say(name, f"EC2 is likelier than before to take {name} back", text)

    def _taken(self, project: Project, box: _Box, notice: Notice) -> None:
        name, when = project.name, self._when(notice)
        then = ", then it comes back on demand" if project.is_wanted_up else ""
        self._shared.news.raise_condition("box-reclaimed", name, name=name, when=when, then=then)
        text = f"its disk is kept, and is saved as soon as the box has ended{then}"
        self._say(name, f"{name} is taken back by EC2 {when}", text)
        box.heard = self._shared.time.monotonic()
        self._fleet.wake(project.uid)
        self._shared.tasks.spawn(f"reclaim {project.uid}", self._until_gone(project.uid, name, box))

    def _done(self, name: str, done: Done) -> None:
        self._shared.news.tell("reclaim", f"{name}: {said_of(done)}", box=name)
        if done.failed:
            tell_later(self._shared.tasks, self._notify, f"{name} is taken back by EC2", said_of(done))

    def _say(self, name: str, title: str, text: str) -> None:
        self._shared.news.tell("reclaim", f"{title}: {text}" if text else title, box=name)
        tell_later(self._shared.tasks, self._notify, title, text)

    def _when(self, notice: Notice) -> str:
        return "now" if notice.end <= self._shared.time.wall() else f"at {clock(notice.end)}"

    async def _until_gone(self, uid: str, name: str, box: _Box) -> None:
        """Withdraw what was said once the box has ended; it was said already where the notice was withdrawn."""
        while self._lives(uid, box) and box.known is not None and box.known.notice is not None:
            await self._fleet.changed(LOOK_EVERY)
        if not self._lives(uid, box):
            if self._boxes.get(uid) is box:
                self._forget(uid)
            for code in ("box-reclaimed", "box-at-risk"):
                self._shared.news.clear_condition(code, name)

    # Streams

    async def _watch(self, changes: Changes, uid: str, box: _Box) -> None:
        def project() -> Project | None:
            known = box.known
            on_demand = known is not None and known.life is not None and not known.is_spot
            return None if on_demand or self._boxes.get(uid) is not box else self._project(uid, box)

        take = partial(self._read, uid, box)
        await follow(self._shared, changes, box, project, take, longest=AGAIN_MOST)

    async def _read(self, uid: str, box: _Box, stream: Stream) -> bool:
        """Take reports until the stream ends; whether there was one."""
        heard = False
        async for line in newest(stream, LINE_MOST):
            project = self._project(uid, box)
            if project is None:
                return heard
            if (found := read_line(line)) is not None:
                heard = True
                self._take(project, box, found)
        return heard


def _life(project: Project) -> Life:
    return project.instance, project.launched
