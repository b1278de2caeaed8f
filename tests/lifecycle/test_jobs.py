"""The ends of jobs on virtual time: each is told, whenever it began."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from devboxd.control.lifecycle.jobs import Jobs
from devboxd.model.project import Project
from tests.lifecycle.kit import Bench, Ran, with_daemon

pytestmark = pytest.mark.looptime

SLOW = 2.0  # seconds that an answer is on its way


@dataclass(eq=False)
class Box:
    """Runs each job until it is told to end; what it answers was so when it was asked, and is there ``SLOW`` later."""

    going: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    asked: int = 0  # for ends
    knows_jobs: bool = True

    async def __call__(
        self, project: Project, instance: str, script: str, *words: str, timeout: float
    ) -> Ran:
        request: dict[str, Any] = json.loads(words[-1])
        if request["verb"] == "run":
            self.going.append(request["id"])
            return Ran(0, json.dumps({"job": job(request["id"])}))
        self.asked += 1
        answer: dict[str, Any] = {"problem": "what is a job?"}
        if self.knows_jobs:
            self.ended = [one for one in self.ended if one not in request["told"]]
            while self.going and not self.ended:
                await asyncio.sleep(0.5)
            answer = {"ended": [job(one, status=0) for one in self.ended], "running": len(self.going)}
        await asyncio.sleep(SLOW)
        return Ran(0, json.dumps(answer))

    def end(self, id_: str) -> None:
        self.going.remove(id_)
        self.ended.append(id_)


def job(id_: str, **more: Any) -> dict[str, Any]:
    return {"id": id_, "command": "make", "runs": not more, **more}


def driver(one: Bench, box: Box) -> Jobs:
    async def nobody(title: str, text: str) -> None:
        """Hears it."""

    ids = iter("abc")
    return Jobs(one.shared, one.fleet, one.projects, box, notify=nobody, short_id=lambda: next(ids))


def told(one: Bench) -> list[str]:
    return [event.text for event in one.shared.news.events() if event.kind == "job"]


@with_daemon
@pytest.mark.parametrize("knows_jobs", [True, False], ids=["no job", "no jobs at all"])
async def test_a_job_that_begins_while_the_box_says_that_there_is_none_is_waited_for(
    one: Bench, knows_jobs: bool
) -> None:
    """The first look at a box asks for ends; what began before the answer came was nobody's."""
    box, project = Box(knows_jobs=knows_jobs), await one.launched()
    jobs = driver(one, box)
    jobs.look_back(project)
    await asyncio.sleep(SLOW / 2)
    assert box.asked == 1
    box.knows_jobs = True
    begun = await jobs.run("api", ["make"], "main")
    await asyncio.sleep(60.0)
    assert told(one) == []
    box.end(begun.id)
    await asyncio.sleep(10.0)
    assert told(one) == ["api: job a is done: make"]


@with_daemon
async def test_a_job_that_begins_as_the_last_one_is_told_is_waited_for_and_then_nobody_asks(
    one: Bench,
) -> None:
    box, project = Box(), await one.launched()
    jobs = driver(one, box)
    jobs.look_back(project)
    await asyncio.sleep(10.0)
    assert box.asked == 1, "there is none"
    first = await jobs.run("api", ["make"], "main")
    box.end(first.id)
    await asyncio.sleep(SLOW * 1.5)  # its end is told, and the box is asked again
    assert told(one) == ["api: job a is done: make"]
    second = await jobs.run("api", ["make"], "main")
    await asyncio.sleep(10.0)
    box.end(second.id)
    await asyncio.sleep(10.0)
    assert told(one) == ["api: job a is done: make", "api: job b is done: make"]
    asked = box.asked
    await asyncio.sleep(600.0)
    assert box.asked == asked
