"""Idle boxes through the API: policy, leases, deadlines, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from devboxd.model.project import Phase, Project, Want
from tests.api.conftest import Server


async def made(server: Server, **change: Any) -> Project:
    """A project that is written down as running; no loop touches it."""
    row = Project("uid0000001", "api", "me", want=Want.UP, phase=Phase.RUNNING, instance="i-0", launched=1.0)
    row = replace(row, **change)
    await server.context.projects._book.create(row, "test")
    return row


async def ask(server: Server, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
    status, text = await server.ask(method, path, body)
    return status, json.loads(text)


async def test_a_policy_is_the_configured_one_until_the_project_has_its_own(server: Server) -> None:
    await made(server)
    _, found = await ask(server, "GET", "/v1/projects/api/idle")
    assert found["policy"] == {"after": 1800.0, "warn": 600.0, "then": "warm"}
    change = {"after": 3600, "then": "cold", "never": ["22:00-07:00 Europe/Berlin"], "max_run": 86400}
    status, found = await ask(server, "POST", "/v1/projects/api/idle", change)
    assert status == 200
    own = {"after": 3600.0, "warn": 600.0, "then": "cold", "own": True, "max_run": 86400.0}
    assert found["policy"] == own | {"never": ["22:00-07:00 Europe/Berlin"]}
    hours = {"hours": "mon-fri 08:30-19:00 Europe/Berlin", "starts": True, "max_run": 0, "never": []}
    _, found = await ask(server, "POST", "/v1/projects/api/idle", hours)
    assert found["policy"]["hours"] == "mon-fri 08:30-19:00 Europe/Berlin"
    assert found["policy"]["starts"]
    assert "max_run" not in found["policy"]
    _, found = await ask(server, "POST", "/v1/projects/api/idle", {"hours": ""})
    assert "hours" not in found["policy"]
    _, found = await ask(server, "POST", "/v1/projects/api/idle", {"lid": 900})
    assert found["policy"]["lid"] == 900.0
    _, found = await ask(server, "POST", "/v1/projects/api/idle", {"lid": 0})
    assert "lid" not in found["policy"]
    _, found = await ask(server, "POST", "/v1/projects/api/idle", {"reset": True})
    assert found["policy"] == {"after": 1800.0, "warn": 600.0, "then": "warm"}


@pytest.mark.parametrize(
    ("path", "body", "code", "says"),
    [
        ("idle", {"after": 1}, "bad-request", "at least 5m"),
        ("idle", {"lid": 60}, "bad-request", "idle.lid is at least 5m"),
        ("idle", {"delete": 86400}, "bad-request", "idle.delete is at least 30d"),
        ("idle", {"then": "explode"}, "bad-request", "'explode'"),
        ("idle", {"never": ["x"]}, "bad-request", "'x' is no time of the week"),
        ("leases", {}, "bad-request", "needs an end"),
        ("leases", {"seconds": 1e9}, "bad-request", "72 hours"),
        ("leases", {"until": "noon"}, "bad-request", "'noon' is no moment"),
        ("extend", {"seconds": -5}, "bad-request", "72 hours"),
        ("extend", {"seconds": "x"}, "bad-request", "seconds"),
    ],
)
async def test_what_can_not_be_is_refused(
    server: Server, path: str, body: dict[str, Any], code: str, says: str
) -> None:
    await made(server)
    status, found = await ask(server, "POST", f"/v1/projects/api/{path}", body)
    assert (status, found["code"]) == (400, code)
    assert says in found["message"]


async def test_leases_come_and_go(server: Server) -> None:
    await made(server)
    asked = {"seconds": 3600, "note": "demo"}
    _, found = await ask(server, "POST", "/v1/projects/api/leases", asked)
    (lease,) = found["leases"]
    assert (lease["why"], lease["who"]) == ("demo", "test")
    _, found = await ask(server, "POST", "/v1/projects/api/leases", {"command": "pgrep make"})
    assert [one.get("command") for one in found["leases"]] == [None, "pgrep make"]
    status, found = await ask(server, "DELETE", f"/v1/projects/api/leases?lease={lease['id']}")
    assert status == 200
    assert len(found["leases"]) == 1
    status, found = await ask(server, "DELETE", "/v1/projects/api/leases?lease=nope")
    assert (status, found["code"]) == (404, "lease-not-found")
    _, found = await ask(server, "GET", "/v1/projects/api/leases")
    assert len(found["leases"]) == 1


async def test_an_extension_is_in_the_reasons(server: Server) -> None:
    await made(server)
    _, found = await ask(server, "POST", "/v1/projects/api/extend", {"seconds": 7200})
    assert found["held"]
    _, found = await ask(server, "GET", "/v1/projects/api/why")
    assert [one["did"] for one in found["decisions"]] == ["extended"]
    assert found["decisions"][0]["why"].startswith("not before ")


@pytest.mark.parametrize("path", ["leases", "extend"])
async def test_a_box_that_does_not_run_can_not_be_kept(server: Server, path: str) -> None:
    await made(server, phase=Phase.WARM, want=Want.WARM)
    status, found = await ask(server, "POST", f"/v1/projects/api/{path}", {"seconds": 60})
    assert (status, found["code"]) == (409, "wrong-state")
    assert found["hint"] == "devboxctl up api"


async def test_a_project_that_is_not_there(server: Server) -> None:
    for path in ("idle", "why", "leases"):
        status, found = await ask(server, "GET", f"/v1/projects/nope/{path}")
        assert (status, found["code"]) == (404, "project-not-found")


async def test_an_archived_project_says_when_it_is_deleted_and_is_kept_by_an_extension(
    server: Server,
) -> None:
    at = server.context.idle._shared.time.wall()
    await made(server, phase=Phase.READY, want=Want.COLD, instance=None, head=1, since=at - 89.5 * 86400.0)
    _, found = await ask(server, "POST", "/v1/projects/api/idle", {"delete": 90 * 86400})
    assert found["policy"]["delete"] == 90 * 86400.0
    first = found["deletes"]
    assert first  # the setting itself was a use
    _, found = await ask(server, "GET", "/v1/projects/api")
    assert found["deletes"] == first
    _, found = await ask(server, "POST", "/v1/projects/api/extend", {"seconds": 3600})
    assert found["deletes"] >= first
    _, found = await ask(server, "POST", "/v1/projects/api/leases", {"seconds": 3600})
    assert found["leases"] == []
    assert found["deletes"]
    status, found = await ask(server, "POST", "/v1/projects/api/leases", {"command": "true"})
    assert (status, found["code"]) == (409, "wrong-state")
    _, found = await ask(server, "POST", "/v1/projects/api/idle", {"delete": 0})
    assert "delete" not in found["policy"]
    assert "deletes" not in found
