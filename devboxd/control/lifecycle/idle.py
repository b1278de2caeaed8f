"""Idle boxes: what works on each is asked of the box, and one on which nothing does is taken down as anybody would.

A loop for each project whose box runs. What is known lives on the box (``boxside/programs/activity.py``) and in the
store, so a daemon that begins anew goes on where the last one was. The box warns on its terminals and says when it would
be stopped; this asks again at that moment, asks the hooks, and then writes the wish down: the pipeline does the rest.

What fails leaves the box running: a store that can not be read, a session that can not be opened, a box that does not
answer, a hook that can not be asked. It is tried again, and said after a while.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from devboxd.boxside.activity import PROGRAM, Answer, CollectorFailed, read
from devboxd.boxside.script import digest, load, load_with_python, packed
from devboxd.control.base.bells import Bell
from devboxd.control.base.needs import Deadman, RunOnBox
from devboxd.control.base.notices import Notify, tell_later
from devboxd.control.base.shared import Shared
from devboxd.control.base.steady import steadily
from devboxd.control.lifecycle.boxwork import BoxWork
from devboxd.control.lifecycle.fleet import Fleet
from devboxd.control.lifecycle.idlebook import IdleBook
from devboxd.control.lifecycle.projects import Projects
from devboxd.errors import DevboxError, LoginNeeded
from devboxd.model import deadman, idle, idle_note, idle_policy, lease
from devboxd.model.box import SKEW_MOST
from devboxd.model.idle import ACTIVE, STOP, span
from devboxd.model.idle_note import VETO_STATUS, Decision, Did, IdleNotes
from devboxd.model.idle_policy import IdlePolicy, Then
from devboxd.model.project import Phase, Project, Want
from devboxd.text import one_line

LOOK_LIMIT: Final = 60.0  # seconds that a look at a box may take
HOOK_LIMIT: Final = 60.0  # each hook that may keep a box
HOOKS_LIMIT: Final = 300.0  # all of them
LOOK_LEAST: Final = 15.0  # seconds between two looks
LOOK_MOST: Final = 1800.0
WITHOUT_TIMER: Final = 60.0  # a box that does not look by itself is looked at each minute
FAILED: Final = 60.0  # seconds until a look that failed is tried again, twice as long each time
LAST_NOTICE: Final = 120.0  # seconds that a person at this machine has, who could not be told before
PROJECTS_EVERY: Final = 30.0  # seconds between two looks for boxes that have begun to run


class Moment(msgspec.Struct, frozen=True):
    """What is known of a box: the answer, when it was given, and what was decided then. ``problem``: why nothing is.

    ``unattended``: what would be decided if every laptop left now, where it follows the lid.
    """

    at: float
    answer: Answer | None = None
    decision: dict[str, Any] | None = None
    problem: str = ""
    unattended: dict[str, Any] | None = None

    @property
    def rows(self) -> tuple[tuple[str, str, bool], ...]:
        """The evidence."""
        return _rows(self.answer.state["evidence"]) if self.answer is not None else ()


@dataclass(slots=True)
class _Watch:
    """What a loop remembers; it may be lost at any moment."""

    bell: Bell = field(default_factory=Bell)
    looked: Bell = field(default_factory=Bell)  # rings after each look
    heard: int = 0  # rings of the bell before the last look that is over began
    moment: Moment | None = None
    failures: int = 0
    warned: float | None = None  # the warning of the box that was told here
    told_at: float = 0.0
    stop_at: float | None = None  # of the dead-man schedule, as far as it is known
    told_idle: float | None = None  # the stretch that was told where the policy only tells


class Idle:
    """Watches the boxes of a fleet. ``usual``: the policy of projects that have none of their own.

    ``me``: this laptop, as it tells a box with each look that it is here; empty: it does not.
    """

    def __init__(
        self,
        shared: Shared,
        fleet: Fleet,
        projects: Projects,
        run: RunOnBox,
        *,
        usual: Callable[[], IdlePolicy],
        notify: Notify,
        schedules: Deadman | None = None,
        seen: Callable[[Project, Answer, bool], None] = lambda project, answer, first: None,
        me: str = "",
    ) -> None:
        self.book = IdleBook(fleet.book)
        self._shared = shared
        self._fleet = fleet
        self._projects = projects
        self._run = run
        self._boxes = BoxWork(run)
        self._usual = usual
        self._notify = notify
        self._schedules = schedules
        self._seen = seen  # hears of every look, and whether it is the first one that told anything
        self._me = me
        self._watches: dict[str, _Watch] = {}

    # For the verbs

    def policy(self, project: Project) -> IdlePolicy:
        """The policy in force."""
        return project.policy.idle or self._usual()

    def known(self, project: Project) -> Moment | None:
        """What was seen last; None where nothing was, or the box does not run."""
        watch = self._watches.get(project.uid)
        return watch.moment if watch is not None else None

    def wake(self, uid: str) -> None:
        """Something was changed: look at once, so that the box knows it too."""
        if uid in self._watches:
            self._watches[uid].bell.ring()

    async def look_now(self, uid: str, timeout: float) -> None:
        """Look at a box that is watched, and wait until that is done or the time is over.

        A look that is under way does not count: what it knows of may be older than what was just settled.
        """
        watch = self._watches.get(uid)
        if watch is None:
            return
        watch.bell.ring()
        rings, end = watch.bell.rings, self._shared.time.monotonic() + timeout
        while watch.heard < rings and (left := end - self._shared.time.monotonic()) > 0:
            await watch.looked.wait(left)

    # Loops

    async def run(self) -> None:
        """Keep a loop going for every box that runs, and bring those up whose hours begin."""
        since = self._shared.time.wall()
        while True:
            since = await self._hours(since)
            for status in self._fleet.statuses():
                uid = status.project.uid
                if self._is_watched(status.project) and uid not in self._watches:
                    self._watches[uid] = _Watch()
                    self._shared.tasks.spawn(f"idle {uid}", self._watched(uid))
            await self._fleet.changed(PROJECTS_EVERY)

    async def follow_lid(self) -> None:
        """The lid was opened, or the network is back: say at once that we are here, where that matters."""
        while True:
            await self._shared.bells.network.wait(None)
            now = self._shared.time.wall()
            for uid, watch in self._watches.items():
                status = self._fleet.status(uid)
                follows = status is not None and self.policy(status.project).follows is not None
                if follows and (watch.moment is None or now - watch.moment.at >= LOOK_LEAST):
                    watch.bell.ring()

    async def _hours(self, since: float) -> float:
        """Bring up what is wanted from now on. A laptop that slept through the hour does it when it wakes."""
        now = self._shared.time.wall()
        for status in self._fleet.statuses():
            project = status.project
            down = project.phase in (Phase.WARM, Phase.READY, Phase.SAVING) and project.want is not Want.GONE
            if down and not project.moved and idle_policy.begun(self.policy(project), since, now):
                try:
                    await self._projects.up(project.name)
                    found = Decision(now, Did.STARTED, f"its hours began: {self.policy(project).hours}")
                    await self.book.note(project.uid, found)
                except DevboxError as error:
                    self._shared.news.tell("idle", f"{project.name} could not be started: {error.message}")
        return now

    async def _watched(self, uid: str) -> None:
        try:
            await steadily(self._shared, f"idle {uid}", lambda: self._loop(uid))
        finally:
            del self._watches[uid]

    def _is_watched(self, project: Project) -> bool:
        return project.phase is Phase.RUNNING and project.is_wanted_up and project.instance is not None

    async def _loop(self, uid: str) -> None:
        watch, instance = self._watches[uid], None
        while True:
            status = self._fleet.status(uid)
            if status is None or not self._is_watched(status.project):
                if status is not None:
                    await self._leave(status.project, instance)
                return
            project, rings = status.project, watch.bell.rings
            try:
                if instance != project.instance:
                    # What an earlier life of the box left must not stop this one.
                    instance = project.instance
                    now = self._shared.time.wall()
                    await self._move(project, watch, now + self.policy(project).deadman)
                delay = await self._pass(project, watch)
            except LoginNeeded as error:
                await self._shared.logins.wait(project.account, error, LOOK_MOST)
                continue
            except DevboxError as error:
                delay = self._failed(project, watch, error)
            finally:
                watch.heard = rings
                watch.looked.ring()
            if watch.bell.rings == rings:
                await watch.bell.wait(delay)

    def _failed(self, project: Project, watch: _Watch, error: DevboxError) -> float:
        """Nothing is known, so nothing is done; it is said when it stays so."""
        watch.failures += 1
        watch.moment = Moment(self._shared.time.wall(), problem=error.message)
        self._shared.news.raise_condition(
            "idle-unknown", project.name, name=project.name, problem=error.message, hint=error.hint
        )
        delay = min(LOOK_MOST, FAILED * 2.0 ** min(watch.failures - 1, 5))
        return min(delay, idle_policy.signs_every(self.policy(project)) or LOOK_MOST)

    # One pass

    async def _pass(self, project: Project, watch: _Watch) -> float:
        """Look once, do what is due, and say how many seconds it may rest."""
        notes = await self.book.notes(project.uid)
        now, policy = self._shared.time.wall(), self.policy(project)
        rules = self._rules(project, policy, notes, now)
        answer = await self._look(project, rules)
        state = answer.state
        if state["at"] is None or abs(state["at"] - self._shared.time.wall()) > SKEW_MOST:
            raise CollectorFailed("the clock of the box is wrong by more than five minutes")
        decision = idle.decide(state, rules, state["at"])
        first = watch.moment is None or watch.moment.answer is None
        watch.failures = 0
        watch.moment = _moment(now, answer, decision, rules)
        self._seen(project, answer, first)
        self._say_what_is_unknown(project, answer)
        if now - notes.ran >= idle_note.RAN_EVERY:
            await self.book.change(project.uid, lambda known: replace(known, ran=max(known.ran, now)))
        await self._watchdog_note(project, notes, answer)
        if deadman.tells(state):
            at = deadman.due(
                now,
                policy.deadman,
                watchdog=answer.timer,
                held=notes.held,
                leases=[one.until for one in notes.leases if one.holds(now)],
                never=rules["never"],
            )
            await self._move(project, watch, at)
        await self._tell(project, watch, policy, answer, decision)
        if decision["do"] == STOP and not await self._stop(project, watch, policy, notes, answer, decision):
            return LOOK_LEAST
        return self._rest(policy, answer, decision)

    def _say_what_is_unknown(self, project: Project, answer: Answer) -> None:
        """A box that answers, and can not see what works on it, runs for ever: say so after a while."""
        seconds, missing = idle_note.blind(answer.state)
        if seconds < idle_note.BLIND_LEAST:
            self._shared.news.clear_condition("idle-unknown", project.name)
            return
        self._shared.news.raise_condition(
            "idle-unknown",
            project.name,
            seconds,
            name=project.name,
            problem=one_line(missing, 200),
            hint=f"devboxctl why {project.name}",
        )

    async def _move(self, project: Project, watch: _Watch, at: float) -> None:
        """Move the dead-man schedule on, or away. That it can not be moved keeps nobody from anything."""
        if self._schedules is None or project.instance is None:
            return
        try:
            if self.policy(project).then is Then.NOTIFY:
                if watch.stop_at != 0.0:
                    await self._schedules.forget(project.account, project.instance)
                    watch.stop_at = 0.0
            elif deadman.moves(watch.stop_at or None, at, self._shared.time.wall()):
                await self._schedules.stop_at(project.account, project.instance, at)
                watch.stop_at = at
        except LoginNeeded:
            return
        except DevboxError as error:
            watch.stop_at = None
            self._shared.news.raise_condition(
                "deadman-off", project.name, name=project.name, problem=error.message, hint=error.hint
            )
        else:
            self._shared.news.clear_condition("deadman-off", project.name)

    async def _leave(self, project: Project, instance: str | None) -> None:
        """The box does not run any more. A schedule that stays is used up when its time comes."""
        for code in ("idle-unknown", "deadman-off"):
            self._shared.news.clear_condition(code, project.name)
        if self._schedules is not None and instance is not None:
            try:
                await self._schedules.forget(project.account, instance)
            except DevboxError:
                return

    def _rules(self, project: Project, policy: IdlePolicy, notes: IdleNotes, now: float) -> dict[str, Any]:
        found = idle_policy.rules(
            policy,
            now,
            started=project.launched,
            held=notes.held,
            leases=lease.for_box(notes.leases, now),
        )
        return found | {"instance": project.instance}

    async def _look(self, project: Project, rules: dict[str, Any]) -> Answer:
        """Ask the box; the program travels where it is not there yet."""
        assert project.instance is not None
        script = load_with_python("watch.sh")
        here = {"here": [self._me, self._sign(project)]} if self._me else {}
        words, kept, box = msgspec.json.encode(rules | here).decode(), digest(PROGRAM), project.instance
        for text in ("", packed(PROGRAM)):
            ran = await self._run(project, box, script, kept, box, words, text, timeout=LOOK_LIMIT)
            if (answer := read(ran.output)) is not None:
                return answer
        raise CollectorFailed("the box does not keep the program that looks at it")

    def _sign(self, project: Project) -> float:
        """Seconds that our look says that we are here: until the next one, and some more."""
        holds = idle_policy.sign_holds(self.policy(project))
        return holds if holds is not None else LOOK_MOST + 2 * LOOK_LIMIT

    def _rest(self, policy: IdlePolicy, answer: Answer, decision: dict[str, Any]) -> float:
        """Until something can be due. The deadline of a box moves only away from us, so nobody looks before."""
        if not answer.timer:
            return WITHOUT_TIMER
        at, most = answer.state["at"], min(LOOK_MOST, idle_policy.signs_every(policy) or LOOK_MOST)
        if decision["at"] is None:
            soonest = policy.warn if policy.hours is not None else max(policy.after - policy.warn, 60.0)
            if 0 < (unknown := idle_note.blind(answer.state)[0]) < idle_note.BLIND_LEAST:
                soonest = min(soonest, max(idle_note.BLIND_LEAST - unknown, WITHOUT_TIMER))
            return min(most, soonest)
        due = decision["warn_at"] if decision["warn_at"] > at else decision["at"]
        return min(most, max(LOOK_LEAST, float(due - at) + 1.0))

    # What is due

    async def _tell(
        self, project: Project, watch: _Watch, policy: IdlePolicy, answer: Answer, decision: dict[str, Any]
    ) -> None:
        """The box has warned its terminals: warn here, too. And say when it was kept."""
        state = answer.state
        warned = float(state["warned"][0]) if state["warned"] is not None else None
        if warned is not None and watch.warned is None and decision["at"] is not None:
            watch.warned, watch.told_at = warned, self._shared.time.wall()
            left = span(max(0.0, decision["at"] - state["at"]))
            verb = "would stop" if policy.then is Then.NOTIFY else "stops"
            self._say(project, f"{project.name} {verb} in {left}", _why(decision, project))
            await self._note(project, Did.WARNED, decision["why"], answer)
        elif warned is None and watch.warned is not None:
            watch.warned = None
            why = (
                f"{state['last'][1]}: {state['last'][2]}"
                if state["last"] and state["verdict"] == ACTIVE
                else "something held it"
            )
            await self._note(project, Did.KEPT, one_line(why, 200), answer)
            if state["verdict"] == ACTIVE:
                await self.book.change(project.uid, lambda known: replace(known, vetoes=0))

    async def _stop(
        self,
        project: Project,
        watch: _Watch,
        policy: IdlePolicy,
        notes: IdleNotes,
        answer: Answer,
        decision: dict[str, Any],
    ) -> bool:
        """Take the box down, unless something speaks against it. False: look again soon."""
        now = self._shared.time.wall()
        if now - watch.told_at < min(LAST_NOTICE, policy.warn):
            return False  # the lid was closed: whoever opened it shall see the notice
        if policy.then is Then.NOTIFY:
            if watch.told_idle != answer.state["idle_since"]:
                watch.told_idle = answer.state["idle_since"]
                self._say(project, f"{project.name} is idle", _why(decision, project))
                await self._note(project, Did.TOLD, decision["why"], answer)
            return True
        if (keeper := await self._vetoed(project)) and (held := idle_note.vetoed(notes, now)) is not None:
            await self.book.change(
                project.uid, lambda known: replace(known, held=held.held, vetoes=held.vetoes)
            )
            await self._note(
                project,
                Did.VETOED,
                f"{keeper} keeps it (time {held.vetoes} of {idle_note.VETOES_MOST})",
                answer,
            )
            return True
        unsaved = await self._unsaved(project)
        # The hooks and the report took their time: what was typed meanwhile counts.
        rules = self._rules(project, policy, await self.book.notes(project.uid), self._shared.time.wall())
        answer = await self._look(project, rules)
        decision = idle.decide(answer.state, rules, answer.state["at"])
        watch.moment = _moment(self._shared.time.wall(), answer, decision, rules)
        if decision["do"] != STOP:
            return False
        want = Want.COLD if policy.then is Then.COLD else Want.WARM
        if not await self._projects.idle_down(project, want, decision["why"]):
            return False
        await self._note(project, Did.STOPPED, decision["why"], answer, unsaved)
        more = f"; unsaved git work is in the image: {', '.join(unsaved)}" if unsaved else ""
        self._say(project, f"{project.name} was stopped", decision["why"] + more)
        return True

    async def _vetoed(self, project: Project) -> str:
        """The hook that keeps the box; empty where none does."""
        assert project.instance is not None
        script = load("may_stop.sh", common=False)
        ran = await self._run(project, project.instance, script, f"{HOOK_LIMIT:.0f}", timeout=HOOKS_LIMIT)
        return one_line(ran.output, 100) or "a hook" if ran.status == VETO_STATUS else ""

    async def _unsaved(self, project: Project) -> tuple[str, ...]:
        """A report for the notice; it keeps nothing from being saved."""
        assert project.instance is not None
        try:
            found = await self._boxes.unsaved(project, project.instance)
        except LoginNeeded:
            raise
        except DevboxError:
            return ()
        return tuple(one_line(str(one), 200) for one in found[:10])

    async def _watchdog_note(self, project: Project, notes: IdleNotes, answer: Answer) -> None:
        """What the box did while no daemon was there is told when it runs again."""
        stopped = answer.stopped or {}
        at = stopped.get("at")
        if not isinstance(at, int | float) or not notes.seen < at <= self._shared.time.wall():
            return
        found = Decision(
            float(at), Did.WATCHDOG, one_line(str(stopped.get("why")), 200), _rows(stopped.get("evidence"))
        )
        text = "the box had stopped itself while nobody looked: it is billed until then"
        await self._fleet.book.ran_until(project.uid, float(at), text)
        await self.book.change(project.uid, lambda known: replace(known, seen=float(at)))
        await self.book.note(project.uid, found)

    def _say(self, project: Project, title: str, text: str) -> None:
        self._shared.news.tell("idle", f"{title}: {text}", box=project.name)
        tell_later(self._shared.tasks, self._notify, title, text)

    async def _note(
        self, project: Project, did: Did, why: str, answer: Answer, unsaved: tuple[str, ...] = ()
    ) -> None:
        found = Decision(self._shared.time.wall(), did, why, _rows(answer.state["evidence"]), unsaved)
        await self.book.note(project.uid, found)


def _moment(at: float, answer: Answer, decision: dict[str, Any], rules: dict[str, Any]) -> Moment:
    follows = rules.get("lid") is not None
    unattended = idle.unattended(answer.state, rules, answer.state["at"]) if follows else None
    return Moment(at, answer, decision, unattended=unattended)


def _rows(evidence: object) -> tuple[tuple[str, str, bool], ...]:
    """Evidence of a box, as far as it is some."""
    found = (
        [row for row in evidence if isinstance(row, list) and len(row) == 3]
        if isinstance(evidence, list)
        else []
    )
    return idle_note.rows([[one_line(str(row[0]), 60), one_line(str(row[1]), 120), row[2]] for row in found])


def _why(decision: dict[str, Any], project: Project) -> str:
    return f"{decision['why']}. Press any key in it, or: devboxctl extend {project.name} 1h"
