"""The routes of money over the real server: amounts are texts, unknown is said, what can not be is refused."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from devboxd.control.lifecycle.bills import Bills
from devboxd.control.lifecycle.money import Money, Report
from devboxd.model import cost
from devboxd.model.billed import Billed
from devboxd.model.box import Account
from devboxd.model.project import Place, Project, Run, Span, Spec
from tests.api.conftest import Server


async def get(server: Server, path: str, status: int = 200) -> Any:
    found, data = await server.ask("GET", path)
    assert found == status, data
    return json.loads(data)


async def billed(server: Server, **changes: Any) -> Project:
    """A project that has run for two hours."""
    now = server.context.daemon.shared.time.wall()
    places = (Place("m7g.large", "eu-central-1a"),)
    row = Project(
        "uid1234567", "paid", "me", Account("work", "eu-central-1"), run=1, spec=Spec(places=places)
    )
    span = Span(now - 7200, None, "m7g.large", True)
    run = Run(1, 0, "ami-1", places, (), {}, token="uid1234567-1-0", instance="i-1", spans=(span,))
    row = replace(row, **changes)
    await server.context.money.book.create(row, "made", run=run)
    return row


async def test_nothing_costs_nothing(server: Server) -> None:
    found = await get(server, "/v1/cost")
    assert (found["costs"], found["total"]["name"]) == ([], "total")


async def test_a_project_in_money(server: Server) -> None:
    await billed(server)
    found = await get(server, "/v1/cost?project=paid")
    (cost,) = found["costs"]
    assert (cost["name"], cost["type"], cost["region"]) == ("paid", "m7g.large", "eu-central-1")
    assert cost["hour"] == "0.1028"
    assert cost["parts"]["compute"] in ("0.19", "0.20") or float(cost["parts"]["compute"]) < 0.2
    assert all(isinstance(cost[name], str) for name in ("hour", "today", "month", "forecast", "running"))
    (note,) = found["prices"]
    assert (note["region"], note["built_in"], note["date"]) == ("eu-central-1", True, "2025-11-03")
    days = (await get(server, "/v1/cost?by=day"))["days"]
    assert len(days[-1]["day"]) == 10
    owner = (await get(server, "/v1/cost?by=owner"))["costs"]
    assert [one["name"] for one in owner] == ["me"]
    (listed,) = (await get(server, "/v1/projects"))["projects"]
    assert (listed["hour"], listed["month"]) == ("0.1028", cost["month"])


async def test_who_wants_names_only_pays_for_no_bill(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Completion, for one; and the page bills once, though its projects say what they cost."""
    await billed(server)
    reports = []
    real = Money.report

    async def report(self: Money, *given: Any, **more: Any) -> Report:
        reports.append(given)
        return await real(self, *given, **more)

    monkeypatch.setattr(Money, "report", report)
    (listed,) = (await get(server, "/v1/projects?brief=true"))["projects"]
    assert (listed["name"], listed["phase"], "hour" in listed, reports) == ("paid", "absent", False, [])
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        link = await server.context.open_page()
        await session.get(link)
        async with session.get(link.partition("?")[0] + "data") as answer:
            data = await answer.json()
    assert len(reports) == 1
    assert (data["projects"][0]["hour"], data["projects"][0]["month"]) == (
        "0.1028",
        data["cost"]["costs"][0]["month"],
    )


async def test_what_if(server: Server) -> None:
    await billed(server)
    found = await get(server, "/v1/projects/paid/what-if?type=t4g.medium&hours=100")
    assert found["then"] == "4.34"
    assert found["saves"] == f"{float(found['now']) - 4.34:.2f}"
    for query in ("", "?down=asleep", "?hours=-1", "?hours=1e9", "?hours=745"):
        await get(server, "/v1/projects/paid/what-if" + query, 400)
    await get(server, "/v1/projects/other/what-if?down=stopped", 404)


async def test_types_are_found_by_what_they_have(server: Server) -> None:
    path = "/v1/types?region=eu-central-1"
    found = await get(server, path + "&arch=arm64&vcpu=4&mem=16&max=0.2")
    assert [one["name"] for one in found["types"]] == [
        "t4g.xlarge", "m6g.xlarge", "m7g.xlarge",
    ]  # fmt: skip
    assert found["types"][0]["hour"] == "0.1536"
    assert found["price"]["built_in"] is True
    gpus = await get(server, path + "&gpu=true")
    assert {one["gpu"].split()[1] for one in gpus["types"]} >= {"T4", "A10G", "L4"}
    assert (await get(server, "/v1/types?region=mars-north-1"))["types"] == []
    for query in ("&arch=mips", "&vcpu=-1", "&max=cheap", "&max=NaN"):
        await get(server, path + query, 400)


async def test_what_can_not_be_is_refused(server: Server) -> None:
    await get(server, "/v1/cost?by=colour", 400)
    found = await get(server, "/v1/cost?project=nope", 404)
    assert (found["code"], found["exit_status"]) == ("project-not-found", 3)


@pytest.mark.parametrize("type_", ["m7g.large", "x99.huge"])
async def test_a_quote(server: Server, type_: str) -> None:
    await billed(server)
    status, data = await server.ask("POST", "/v1/projects/paid/quote", {"types": [type_]})
    assert status == 200
    found = json.loads(data)
    if type_ == "m7g.large":
        assert (found["hour"], found["region"]) == ("0.1081", "eu-central-1")  # machine, address and disks
    else:
        assert found["unknown"] == ["x99.huge in eu-central-1"]


async def test_budgets_over_the_wire(server: Server) -> None:
    """Set, shown with what was spent, refused where they can not be, and gone."""
    await billed(server)
    for body in (
        {"limit": "0"},
        {"limit": "-1"},
        {"limit": "ten"},
        {"limit": "5", "month": "2026-13"},
        {"limit": "5", "grace": 1},
    ):
        assert (await server.ask("POST", "/v1/budgets", body))[0] == 400
    assert (await server.ask("POST", "/v1/budgets", {"limit": "5", "project": "nope"}))[0] == 404
    status, data = await server.ask("POST", "/v1/budgets", {"limit": "0.10", "hard": True})
    assert status == 200
    (budget,) = json.loads(data)["budgets"]
    assert (budget["limit"], budget["hard"]) == ("0.10", True)
    status, data = await server.ask("POST", "/v1/projects/paid/quote", {"types": ["m7g.xlarge"]})
    assert "budget of all projects" in json.loads(data)["refused"]
    assert json.loads((await server.ask("DELETE", "/v1/budgets"))[1])["budgets"] == []
    assert (await server.ask("DELETE", "/v1/budgets"))[0] == 400


async def test_what_aws_has_billed_stands_beside_what_we_count(server: Server) -> None:
    """For the same whole days; a project alone with its own share."""
    now = server.context.daemon.shared.time.wall()
    span = (cost.month_bounds(now)[0], cost.day_begins(now))
    money = server.context.money

    class Known:
        def read(self, owner: str) -> Billed:
            return Billed(owner, *span, now, Decimal("12.34"), {"paid": Decimal("2.5")})

        def save(self, billed: Billed) -> None: ...

    class Nobody:
        async def billed(self, *_: object) -> Billed:
            raise AssertionError("it was asked today")

    wanted = [False]
    money.bills = Bills(money.shared, Nobody(), Known(), lambda: wanted[0])
    await billed(server)
    assert "billed" not in await get(server, "/v1/cost")
    wanted[0] = True
    found = await get(server, "/v1/cost")
    if span[0] == span[1]:
        assert "billed" not in found  # the first day of a month: there is no day to compare
        return
    (one,) = found["billed"]
    assert (one["owner"], one["usd"]) == ("me", "12.34")
    assert one["until"] == cost.day_of(span[1] - 1.0)
    assert Decimal(one["counted"]) <= Decimal(one["most"])
    (one,) = (await get(server, "/v1/cost?project=paid"))["billed"]
    assert one["usd"] == "2.50"
    money.bills = None
