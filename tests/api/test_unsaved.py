"""Git work that is on a box only is told to whoever takes the box down."""

from __future__ import annotations

import json
from typing import Any

import pytest

from devboxd.control.lifecycle.boxwork import REPOSITORIES
from devboxd.control.lifecycle.unsaved import UnsavedWork
from devboxd.errors import DevboxError, NotConnected
from devboxd.model.project import Phase, Project
from devboxd.model.unsaved import Unsaved
from tests.api.conftest import Server
from tests.api.test_listing import write
from tests.model.scenes import project

WORK = [Unsaved("/home/u/api", 2, 1, 0)]


class Box:
    """What a box says of its git work."""

    def __init__(self, server: Server) -> None:
        self.work, self.failure, self.asked = list(WORK), None, 0
        projects: Any = server.context.projects
        projects.unsaved = UnsavedWork(projects.get, self)  # type: ignore[arg-type]  # the one method of it

    work: list[Unsaved]
    failure: DevboxError | None

    async def unsaved(self, project: Project, instance: str) -> list[Unsaved]:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return self.work


async def answer(server: Server, method: str, path: str, **body: Any) -> dict[str, Any]:
    status, data = await server.ask(method, path, body or None)
    assert status == 200, data
    found: dict[str, Any] = json.loads(data)
    return found


@pytest.mark.parametrize(("verb", "want"), [("stop", "warm"), ("terminate", "cold")])
async def test_what_is_on_the_box_only_is_in_the_answer(server: Server, verb: str, want: str) -> None:
    """It is saved all the same."""
    box = Box(server)
    await write(server, project(Phase.RUNNING, name="work"))
    found = await answer(server, "POST", f"projects/work/{verb}")
    assert (found["want"], found["unsaved"]) == (want, ["/home/u/api: 2 uncommitted, 1 unpushed"])
    assert "unsaved_problem" not in found
    assert box.asked == 1


async def test_a_box_that_can_not_be_asked_is_no_obstacle_and_that_is_said(server: Server) -> None:
    box = Box(server)
    box.failure = NotConnected("i-1 does not answer")
    await write(server, project(Phase.RUNNING, name="work"))
    assert await answer(server, "GET", "projects/work/unsaved") == {"problem": "i-1 does not answer"}
    found = await answer(server, "POST", "projects/work/stop")
    assert (found["want"], found["unsaved_problem"]) == ("warm", "i-1 does not answer")
    assert "unsaved" not in found


async def test_who_asks_for_the_work_of_no_project_is_told_that_there_is_none(server: Server) -> None:
    """Whoever is to type its name is asked after this answer."""
    status, data = await server.ask("GET", "projects/work/unsaved")
    assert (status, json.loads(data)["code"]) == (404, "project-not-found")


async def test_only_so_much_is_told(server: Server) -> None:
    """A box can say what it likes."""
    Box(server).work *= 1000
    await write(server, project(Phase.RUNNING, name="work"))
    assert len((await answer(server, "GET", "projects/work/unsaved"))["unsaved"]) == REPOSITORIES


@pytest.mark.parametrize("phase", [Phase.READY, Phase.WARM, Phase.SAVING])
async def test_what_does_not_run_is_not_asked(server: Server, phase: Phase) -> None:
    box = Box(server)
    await write(server, project(phase, name="work"))
    assert "unsaved" not in await answer(server, "POST", "projects/work/stop")
    assert box.asked == 0


async def test_where_it_has_to_be_clean_the_box_is_asked_once_and_kept(server: Server) -> None:
    box = Box(server)
    await write(server, project(Phase.RUNNING, name="work"))
    status, data = await server.ask("POST", "projects/work/stop", {"require_clean": True})
    assert json.loads(data)["code"] == "work-not-saved"
    assert (status, box.asked) == (409, 1)
    assert (await answer(server, "GET", "projects/work"))["want"] == "up"
