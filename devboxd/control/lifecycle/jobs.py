"""Jobs on boxes: begun, listed, read; and one question for each box with jobs that waits for the next end.

What is known lies on the box, also who was told: a daemon that begins anew goes on waiting when it sees the lease of a
job, and at its first look at the box asks for ends that nobody was told of.
"""

from __future__ import annotations

import base64
import binascii
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from devboxd.boxside import jobs as box
from devboxd.boxside.jobs import T
from devboxd.boxside.script import load_with_python
from devboxd.control.base.bells import Bell
from devboxd.control.base.needs import RunOnBox
from devboxd.control.base.notices import Notify, tell_later
from devboxd.control.base.shared import Shared
from devboxd.control.lifecycle.fleet import Fleet
from devboxd.control.lifecycle.projects import Projects
from devboxd.errors import DevboxError, LoginNeeded, WrongState
from devboxd.model.answer import BoxSaysNo
from devboxd.model.job import READ_MOST, WAIT_MOST, Job, JobNotFound, check_id, checked
from devboxd.model.names import check_session
from devboxd.model.project import Phase, Project
from devboxd.model.retry import Backoff
from devboxd.text import one_line

ASK_LIMIT: Final = 45.0  # seconds for a question that does not wait
WATCH: Final = 120.0  # seconds that the question for the next end waits on the box
AGAIN: Final = 5.0  # seconds until it is asked again after it failed, at the latest, twice as long each time
AGAIN_MOST: Final = 300.0
NOTICE_COMMAND: Final = 80  # characters of a command in a notice


@dataclass(slots=True)
class _Watch:
    """Who waits for ends on one box. ``wanted``: how often it was asked for, also while it was under way."""

    has_jobs: bool = False
    wanted: int = 0


class Jobs:
    """``short_id`` gives the ids of jobs; ``notify`` tells the person at this machine."""

    def __init__(
        self,
        shared: Shared,
        fleet: Fleet,
        projects: Projects,
        run: RunOnBox,
        *,
        notify: Notify,
        short_id: Callable[[], str],
    ) -> None:
        self._shared = shared
        self._fleet = fleet
        self._projects = projects
        self._run = run
        self._notify = notify
        self._short_id = short_id
        self._rest = Bell()  # nobody rings
        self._watched: dict[str, _Watch] = {}

    # Verbs; errors: those of ``Projects`` and of running on a box

    async def run(self, name: str, command: Sequence[str], session: str) -> Job:
        """Begin a job.

        Raises:
            BadRequest: the command or the session can not be.
            WrongState: the box does not run.
            BoxSaysNo: it can not begin.
        """
        words = checked(command)
        check_session(session)
        project = await self._running(name)
        asked = {"verb": "run", "id": self._short_id(), "command": words, "session": session}
        job = (await self._ask(project, asked, box.Ran)).job
        if job is None:
            raise BoxSaysNo("the box does not say that the job has begun")
        self.watch(project)
        return job

    async def listed(self, name: str) -> list[Job]:
        """All jobs that the box knows, oldest first."""
        project = await self._running(name)
        found = (await self._ask(project, {"verb": "jobs"}, box.Listed)).jobs
        if any(one.runs for one in found):
            self.watch(project)
        return found

    async def log(self, name: str, id_: str, offset: int | None, wait: float) -> tuple[Job, int, int, bytes]:
        """The job, and a piece of its output: from where, to where, bytes. ``offset`` None: the last of it.

        Raises:
            JobNotFound: there is none of that id.
        """
        check_id(id_)
        project = await self._running(name)
        asked = {
            "verb": "log",
            "id": id_,
            "offset": offset,
            "most": READ_MOST,
            "wait": min(max(wait, 0.0), WAIT_MOST),
        }
        found = await self._ask(project, asked, box.Piece)
        if found.missing or found.job is None:
            raise JobNotFound(f"there is no job {id_!r} on {name}", hint=f"devboxctl jobs {name} lists them")
        try:
            data = base64.b64decode(found.data, validate=True)
        except binascii.Error:
            raise BoxSaysNo("the box does not say what the job has written") from None
        return found.job, found.begun, found.next, data

    # The end of a job

    def watch(self, project: Project) -> None:
        """Wait for the end of what runs there, if nobody does so yet."""
        self._begin(project.uid, has_jobs=True)

    def look_back(self, project: Project) -> None:
        """Tell what has ended there while nobody waited. A box that may have no jobs at all is asked but once."""
        self._begin(project.uid, has_jobs=False)

    def _begin(self, uid: str, *, has_jobs: bool) -> None:
        watch = self._watched.get(uid)
        if watch is None:
            watch = self._watched[uid] = _Watch()
            self._shared.tasks.spawn(f"jobs {uid}", self._watch(uid, watch))
        watch.has_jobs |= has_jobs
        watch.wanted += 1

    async def _watch(self, uid: str, watch: _Watch) -> None:
        told: list[str] = []
        delays = Backoff(self._shared.time.dice, first=AGAIN, longest=AGAIN_MOST)
        try:
            while True:
                status = self._fleet.status(uid)
                if status is None or status.project.phase is not Phase.RUNNING:
                    return
                asked, wanted = {"verb": "wait", "seconds": WATCH, "told": told}, watch.wanted
                try:
                    found = await self._ask(status.project, asked, box.Ended, WATCH + ASK_LIMIT)
                except LoginNeeded as error:
                    await self._shared.logins.wait(status.project.account, error, AGAIN_MOST)
                    continue
                except DevboxError as error:
                    if isinstance(error, BoxSaysNo) and not watch.has_jobs:
                        return
                    await self._rest.wait(delays.wait())
                    continue
                delays.begin_again()
                watch.has_jobs = True
                fresh = [one for one in found.ended if one.id not in told]
                for one in fresh:
                    self._tell(status.project, one)
                told = [one.id for one in found.ended]
                # What began since it was asked is not in the answer.
                if not told and not found.running and watch.wanted == wanted:
                    return
        finally:
            del self._watched[uid]

    def _tell(self, project: Project, job: Job) -> None:
        title = f"{project.name}: job {job.id} {job.end}"
        text = one_line(job.command, NOTICE_COMMAND)
        self._shared.news.tell("job", f"{title}: {text}", box=project.name)
        tell_later(self._shared.tasks, self._notify, title, text)

    # The box

    async def _ask(
        self, project: Project, asked: dict[str, Any], kind: type[T], limit: float = ASK_LIMIT
    ) -> T:
        assert project.instance is not None
        script, words = load_with_python("jobs.sh"), msgspec.json.encode(asked).decode()
        ran = await self._run(project, project.instance, script, box.program(), words, timeout=limit)
        return box.read(ran.output, kind)

    async def _running(self, name: str) -> Project:
        project = (await self._projects.get(name)).project
        if project.phase is not Phase.RUNNING or project.instance is None:
            raise WrongState(
                f"{name} is {project.phase}: no job is there", hint=f"devboxctl up {shlex.quote(name)}"
            )
        return project
