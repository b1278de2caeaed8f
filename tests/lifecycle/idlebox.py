"""A box that looks at itself every minute, as the collector does, in the loop's time: what it sees is a script."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from devboxd.control.base.needs import Deadman
from devboxd.control.lifecycle.disuse import Disputed, DisuseLoop
from devboxd.control.lifecycle.idle import Idle
from devboxd.control.lifecycle.idlebook import IdleBook
from devboxd.model.idle import decide, empty, judge, signed, warn
from devboxd.model.idle_policy import IdlePolicy
from devboxd.model.project import Project
from tests.control.fakes import LoopClock
from tests.lifecycle.kit import Bench, FakeRunner, Ran
from tests.model.traces import QUIET

Seen = Callable[[float], dict[str, Any]]  # minutes since the first look: what is seen in that one
MARGIN = 600.0


@dataclass(eq=False)
class IdleBox(FakeRunner):
    """``needs.RunOnBox``. ``works`` says what is seen in each minute; ``veto``, ``unsaved``: what the hooks say."""

    works: Seen = lambda minute: {}
    veto: str = ""
    has_program: bool = False
    timer: bool = True
    skew: float = 0.0
    began: float | None = None
    state: dict[str, Any] = field(default_factory=empty)
    rules: dict[str, Any] = field(default_factory=dict)
    looks: int = 0
    stopped: dict[str, Any] | None = None
    powered_off: list[float] = field(default_factory=list)
    kept: float | None = None
    keeps: int = 0
    boot: str = ""

    async def __call__(
        self, project: Project, instance: str, script: str, *arguments: str, timeout: float
    ) -> Ran:
        found = await FakeRunner.__call__(self, project, instance, script, *arguments, timeout=timeout)
        if "may-stop.d" in script:
            return Ran(75, self.veto) if self.veto else Ran(0, "")
        if "activity-" not in script:
            return found
        if not self.has_program and not arguments[3]:
            return Ran(0, "need\n")
        self.has_program = True
        self.looks += 1
        self.rules = json.loads(arguments[2])
        now = LoopClock().wall()
        here = self.rules.pop("here", None)
        self.minutes_until(instance, now)
        self.look(now, here)
        answer = {
            "state": self.state,
            "decision": None,
            "sample": None,
            "stopped": self.stopped,
            "timer": self.timer,
        }
        return Ran(0, "Welcome!\n" + json.dumps(answer) + "\n")

    def minutes_until(self, instance: str, now: float) -> None:
        """The timer's looks since the last one; the watchdog may end the box."""
        record = self.model.tables.instances[instance]
        if self.boot != str(record.launched):
            self.boot, self.state, self.began = str(record.launched), empty(), record.launched
        if self.state["at"] is None or not self.timer:
            return
        at = float(self.state["at"]) - self.skew
        while (at := at + 60.0) < now:
            self.look(at)
            if self.state["verdict"] == "active":
                self.kept, self.keeps = None, 0
            decision = decide(self.state, {**self.rules, "kept": self.kept}, at)
            margin = 0.0 if decision["alone"] else MARGIN
            if decision["do"] == "stop" and at >= decision["at"] + margin and self.rules["then"] != "notify":
                if self.veto and self.keeps < 8:
                    self.kept, self.keeps = at + 1800.0, self.keeps + 1
                    continue
                self.powered_off.append(at)
                self.stopped = {"at": at, "why": decision["why"], "evidence": self.state["evidence"]}
                return

    def look(self, now: float, here: list[Any] | None = None) -> None:
        """As ``activity.once``."""
        assert self.began is not None
        before = self.state["at"]
        at = now + self.skew
        sample = {"at": at, "span": 0.0 if before is None else at - before, "boot": self.boot, **QUIET}
        held = [one for one in self.rules.get("leases", ()) if one["until"] > at and one.get("pid") is None]
        sample["leases"] = held
        self.state = judge(self.state, {**sample, **self.works((now - self.began) / 60.0)})
        if here is not None:
            self.state = signed(self.state, here[0], here[1], at)
        decision = decide(self.state, {**self.rules, "kept": self.kept}, at)
        if decision["do"] == "warn":
            self.state = warn(self.state, decision, at)


@dataclass(eq=False)
class Watcher:
    """The driver on a bench, and what it says."""

    idle: Idle
    box: IdleBox
    notices: list[tuple[float, str, str]]


def watch(
    one: Bench,
    *,
    policy: IdlePolicy | None = None,
    deadman: Deadman | None = None,
    me: str = "me",
    **box: Any,
) -> Watcher:
    """A box that looks at itself, and a driver that begins to watch it."""
    runner = IdleBox(one.model, **box)
    notices: list[tuple[float, str, str]] = []

    async def notify(title: str, text: str) -> None:
        notices.append((LoopClock().wall(), title, text))

    driver = Idle(
        one.shared,
        one.fleet,
        one.projects,
        runner,
        usual=lambda: policy or IdlePolicy(),
        notify=notify,
        schedules=deadman,
        me=me,
    )
    one.shared.tasks.spawn("idle", driver.run())
    one.shared.tasks.spawn("lid", driver.follow_lid())
    return Watcher(driver, runner, notices)


def disuse(
    one: Bench,
    *,
    policy: IdlePolicy | None = None,
    told: list[tuple[float, str]] | None = None,
    reaches: Callable[[], bool] = lambda: True,
    disputed: Callable[[], str] = lambda: "",
    budgets: Disputed | None = None,
) -> DisuseLoop:
    """The driver that deletes what nobody uses; its loop is not started. ``told``: its notices, with their time."""

    async def reached(title: str, text: str) -> bool:
        if reaches() and told is not None:
            told.append((one.shared.time.wall(), title))
        return reaches()

    async def disputes() -> Callable[[str], str]:
        return lambda uid: disputed()

    return DisuseLoop(
        one.shared,
        one.projects,
        IdleBook(one.book),
        lambda project: project.policy.idle or policy or IdlePolicy(),
        reached=reached,
        disputed=budgets or disputes,
    )
