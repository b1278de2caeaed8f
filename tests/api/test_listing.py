"""Projects in the list of boxes: with AWS, and without it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from devboxd.api import wire
from devboxd.errors import BadRequest, LoginNeeded
from devboxd.model.box import Account
from devboxd.model.names import Listing
from devboxd.model.project import Boot, Phase, Project, Rebase, Want
from devboxd.simulator.world import Simulator
from tests.api.conftest import Server, box_id
from tests.model.scenes import project


async def listing(server: Server, query: str = "") -> wire.BoxList:
    status, data = await server.ask("GET", f"boxes{query}")
    assert status == 200, data
    return msgspec.json.decode(data, type=wire.BoxList)


async def shown(server: Server, name: str) -> wire.Box:
    status, data = await server.ask("GET", f"boxes/{name}")
    assert status == 200, data
    return msgspec.json.decode(data, type=wire.Box)


async def write(server: Server, *rows: Project) -> None:
    """Write projects down, and let the list of the loops know of them."""
    projects: Any = server.context.projects
    for row in rows:
        await projects._book.create(replace(row, owner=projects._book.owner), "test")
        projects._fleet._statuses[row.uid] = projects.status(row)


def offline(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(account: Account) -> Any:
        raise LoginNeeded("the login has expired", hint="devboxctl login")

    monkeypatch.setattr(server.daemon.boxes, "all", refused)


@pytest.mark.parametrize("why", ["", "no room"])
async def test_why_homes_are_not_copied_stands_in_a_field_of_its_own(server: Server, why: str) -> None:
    rebase = Rebase("other", "ami-new", (), Boot(), source=1, problem=why, done="" if why else "3 files")
    await write(server, project(Phase.READY, name="work", reason="no image was made", rebase=rebase))
    status, data = await server.ask("GET", "projects/work")
    assert status == 200, data
    assert msgspec.json.decode(data, type=wire.Project).rebase_problem == why


async def test_a_saved_project_is_in_the_list_and_can_be_looked_at(server: Server) -> None:
    await write(server, project(Phase.READY, name="work"))
    (row,) = [one for one in (await listing(server)).boxes if one.project]
    assert (row.name, row.ref, row.id, row.state) == ("work", "work", "", "none")
    assert (row.phase, row.generation) == ("ready", 1)
    found = await shown(server, "work")
    assert (found.phase, found.want, found.state) == ("ready", "cold", "none")
    assert found.next == "devboxctl up work brings it up"


async def test_a_box_says_which_project_it_belongs_to(server: Server, sim: Simulator) -> None:
    row = project(Phase.RUNNING, name="work", instance=box_id(sim), head=3)
    await write(server, row)
    by_id = {one.id: one for one in (await listing(server)).boxes}
    assert len(by_id) == 3, "it is not shown twice"
    assert (by_id[box_id(sim)].project, by_id[box_id(sim)].phase) == ("work", "running")
    for name in ("work", box_id(sim)):
        found = await shown(server, name)
        assert (found.id, found.project, found.generation) == (box_id(sim), "work", 3)
        assert found.next == "devboxctl terminate work saves it, and lets its instance go"


async def test_a_name_means_the_project_so_the_other_box_is_named_by_its_id(
    server: Server, sim: Simulator
) -> None:
    """Whoever picks a box from the list gets that one."""
    await write(server, project(Phase.READY, name="api"))
    refs = {one.id: one.ref for one in (await listing(server)).boxes if one.name == "api"}
    assert refs == {"": "api", box_id(sim): box_id(sim)}


async def test_without_aws_the_list_is_what_is_written_down(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(
        server,
        project(Phase.RUNNING, name="work", uid="u1"),
        project(Phase.READY, name="old", uid="u2", want=Want.COLD),
    )
    offline(server, monkeypatch)
    found = await listing(server)
    assert [(one.name, one.id, one.state, one.phase) for one in found.boxes] == [
        ("old", "", "none", "ready"),
        ("work", "i-1", "unknown", "running"),
    ]
    assert [(one.code, one.hint) for one in found.conditions] == [("ec2-unavailable", "devboxctl login")]
    assert "written down" in found.conditions[0].text


async def test_a_box_that_only_a_session_and_a_project_know_is_listed_once(
    server: Server, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EC2 does not answer, and what it said last was before the box was launched."""
    await write(server, project(Phase.RUNNING, name="work", instance="i-1"))
    offline(server, monkeypatch)
    listings: Any = {"i-1": Listing("i-1", "i-1", "i-1.devbox")}
    monkeypatch.setattr(server.daemon.boxes, "listings", lambda instances: listings)
    held = [SimpleNamespace(plan=SimpleNamespace(target="i-1", box="i-1"))]
    monkeypatch.setattr(server.daemon, "sessions", lambda: held)
    found = await listing(server)
    assert [(one.name, one.id, one.sessions) for one in found.boxes] == [("work", "i-1", 1)]


async def test_projects_are_read_while_ec2_answers(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither waits for the other: a shared table and EC2 may both be far away."""
    projects: Any = server.context.projects
    asked = asyncio.Event()
    all_boxes, all_projects = server.daemon.boxes.all, projects.all

    async def from_ec2(account: Account) -> Any:
        asked.set()
        return await all_boxes(account)

    async def from_store() -> Any:
        async with asyncio.timeout(5.0):
            await asked.wait()
        return await all_projects()

    monkeypatch.setattr(server.daemon.boxes, "all", from_ec2)
    monkeypatch.setattr(projects, "all", from_store)
    await write(server, project(Phase.READY, name="work"))
    assert [one.name for one in (await listing(server)).boxes if one.project] == ["work"]


async def test_without_aws_and_projects_the_login_is_what_is_missing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline(server, monkeypatch)
    status, data = await server.ask("GET", "boxes")
    assert status == 401, data


async def test_a_list_that_is_not_of_now_says_why(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS may be away, or a setting wrong: the mend is another one."""
    fresh = await listing(server)

    async def refused(account: Account) -> Any:
        raise BadRequest("~/.aws/config has [profile work] twice", hint="make one of the two")

    monkeypatch.setattr(server.daemon.boxes, "_list", refused)
    old = await listing(server)
    assert [box.id for box in old.boxes] == [box.id for box in fresh.boxes]
    assert old.stale_since
    [why] = old.conditions
    assert (why.code, why.hint) == ("ec2-unavailable", "make one of the two")
    assert "twice" in why.text


async def test_only_projects_of_the_region_that_was_asked_for_are_listed(server: Server) -> None:
    there = project(Phase.RUNNING, name="far", uid="u1", account=Account(None, "eu-west-1"))
    await write(server, project(Phase.READY, name="near", uid="u2"), there)
    (far,) = [one for one in (await listing(server)).boxes if one.name == "far"]
    assert (far.id, far.state, far.region) == ("i-1", "unknown", "eu-west-1"), "that region was not asked"
    names = [one.name for one in (await listing(server, "?region=eu-west-1")).boxes if one.project]
    assert names == ["far"]


async def test_boxes_of_others_are_listed_for_who_asks(
    server: Server, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are found by name all the same: hidden is not forbidden."""
    known = server.daemon.boxes.all

    async def tagged(account: Account) -> Any:
        instances, of, since = await known(account)
        mark = {"devbox:owner": "somebody-else", "devbox:id": "x"}
        return [replace(one, tags=mark) if one.id == box_id(sim) else one for one in instances], of, since

    monkeypatch.setattr(server.daemon.boxes, "all", tagged)
    assert "api" not in [one.name for one in (await listing(server)).boxes]
    assert "api" in [one.name for one in (await listing(server, "?all_owners=true")).boxes]
    assert (await shown(server, "api")).id == box_id(sim)


async def test_a_forward_goes_to_the_box_of_a_project_whatever_its_instance_is_called(
    server: Server, sim: Simulator
) -> None:
    """As attach and exec do: a project's name means its box, a tag of another one does not."""
    await write(
        server,
        project(Phase.RUNNING, name="work", uid="u1", instance=box_id(sim)),
        project(Phase.RUNNING, name="web", uid="u2", instance=box_id(sim)),
    )
    for name in ("work", "web"):
        body = {"box": name, "forwards": [{"local_port": 0, "port": 7}]}
        status, data = await server.ask("POST", "forwards", body)
        assert status == 200, data
        assert {one.target for one in server.daemon.forwards.list()} == {box_id(sim)}


async def test_a_forward_of_a_stopped_project_goes_to_no_other_box_of_its_name(
    server: Server, sim: Simulator
) -> None:
    await write(
        server,
        project(Phase.WARM, name="work", uid="u1", instance=box_id(sim)),
        project(Phase.WARM, name="web", uid="u2", instance=box_id(sim)),
        project(Phase.READY, name="db", uid="u3"),
    )
    for name in ("work", "web"):
        body = {"box": name, "forwards": [{"local_port": 0, "port": 7}]}
        status, data = await server.ask("POST", "forwards", body)
        assert status == 200, data
        assert {one.target for one in server.daemon.forwards.list()} == {box_id(sim)}
    status, data = await server.ask("POST", "forwards", {**body, "box": "db"})
    assert msgspec.json.decode(data, type=wire.Failure).code == "project-down", (status, data)


async def test_a_forward_waits_for_the_box_of_a_project_that_is_stopped(
    server: Server, sim: Simulator
) -> None:
    await write(server, project(Phase.WARM, name="api", instance=box_id(sim)))
    status, data = await server.ask(
        "POST", "forwards", {"box": "api", "forwards": [{"local_port": 0, "port": 7}]}
    )
    assert status == 200, data
