"""Cost Explorer through botocore: the request that its validator takes, answers that are strange, and a cent a day at most."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from devboxd.aws.bill import AwsBills, BillUnread
from devboxd.aws.clients import Callers
from devboxd.control.base.shared import Shared
from devboxd.control.lifecycle.bills import Bills
from devboxd.errors import Denied, DevboxError
from devboxd.host.bills import SIZE_MAX, BillFiles
from devboxd.model.billed import Billed, is_due, is_silent, period
from devboxd.model.box import Account
from devboxd.model.cost import day_of
from tests.aws.fake import FakeAws, error
from tests.simulator.client import until

NOW = datetime(2026, 11, 26, 17, 30, tzinfo=UTC).timestamp()
BEGIN, END = datetime(2026, 11, 1, tzinfo=UTC).timestamp(), datetime(2026, 11, 26, tzinfo=UTC).timestamp()
DAY = 86400.0


def group(project: str, amount: str, unit: str = "USD") -> dict[str, Any]:
    return {
        "Keys": [f"devbox:project${project}"],
        "Metrics": {"UnblendedCost": {"Amount": amount, "Unit": unit}},
    }


def answer(*groups: dict[str, Any], token: str | None = None, estimated: bool = True) -> dict[str, Any]:
    """As the API writes it."""
    result = {
        "TimePeriod": {"Start": "2026-11-01", "End": "2026-11-26"},
        "Total": {},
        "Groups": list(groups),
        "Estimated": estimated,
    }
    found: dict[str, Any] = {
        "GroupDefinitions": [{"Type": "TAG", "Key": "devbox:project"}],
        "ResultsByTime": [result],
        "DimensionValueAttributes": [],
    }
    return found | ({"NextPageToken": token} if token else {})


async def ask(callers: Callers) -> Billed:
    return await AwsBills(callers).billed(Account(), "AROA1:ann", BEGIN, END, NOW)


async def test_what_an_owner_was_billed_by_project(aws: FakeAws, callers: Callers) -> None:
    aws.on(
        "GetCostAndUsage",
        answer(group("api", "12.3400000000"), group("", "0.0000012E-3"), token="more"),
        answer(group("web", "-0.04"), group("api", "0.10")),
    )
    found = await ask(callers)
    assert found.projects["api"] == Decimal("12.44")
    assert f"{found.total:.2f}" == "12.40"
    assert (found.owner, found.begin, found.end, found.asked) == ("AROA1:ann", BEGIN, END, NOW)
    assert found.estimated
    first, second = aws.made("GetCostAndUsage")
    assert first.service == "ce"
    assert first.headers["Authorization"].split("/")[2] == "us-east-1", "wherever the boxes are"
    assert first.body["TimePeriod"] == {"Start": "2026-11-01", "End": "2026-11-26"}
    assert first.body["Filter"]["And"][0]["Tags"] == {
        "Key": "devbox:owner",
        "Values": ["AROA1:ann"],
        "MatchOptions": ["EQUALS"],
    }
    assert second.body["NextPageToken"] == "more"


@pytest.mark.parametrize(
    "strange",
    [
        group("api", "NaN"),
        group("api", "1e99"),
        group("api", "12", unit="EUR"),
        group("api", ""),
        {"Keys": ["devbox:project$api"], "Metrics": {}},
        {"Metrics": {"UnblendedCost": {"Amount": "Infinity", "Unit": "USD"}}},
    ],
)
async def test_an_amount_that_is_none_is_refused(
    aws: FakeAws, callers: Callers, strange: dict[str, Any]
) -> None:
    """A sum that lacks something would be taken for a bill."""
    aws.on("GetCostAndUsage", answer(group("web", "1.00"), strange))
    with pytest.raises(BillUnread):
        await ask(callers)


async def test_an_answer_without_an_end_costs_three_cents(aws: FakeAws, callers: Callers) -> None:
    aws.on("GetCostAndUsage", answer(group("api", "1"), token="again"))
    with pytest.raises(BillUnread, match="more projects"):
        await ask(callers)
    assert len(aws.made("GetCostAndUsage")) == 3


async def test_an_account_that_does_not_allow_it_says_what(aws: FakeAws, callers: Callers) -> None:
    refused = "User: arn:aws:iam::1:user/u is not authorized to perform: ce:GetCostAndUsage on resource: *"
    aws.on("GetCostAndUsage", error("AccessDeniedException", refused))
    with pytest.raises(Denied, match="ce:GetCostAndUsage"):
        await ask(callers)


# When -------------------------------------------------------------------------------------------------------


def test_the_time_that_is_over_by_days() -> None:
    assert period(NOW) == (BEGIN, END)
    assert period(datetime(2026, 11, 1, 23, 59, tzinfo=UTC).timestamp()) is None
    assert period(datetime(2026, 11, 2, tzinfo=UTC).timestamp()) == (BEGIN, BEGIN + DAY)
    assert day_of(END - 1) == "2026-11-25"
    known = Billed("me", BEGIN, END, NOW, Decimal(0))
    assert is_due(None, NOW)
    assert [is_due(known, NOW + seconds) for seconds in (0.0, DAY - 1, DAY, -3600.0, -40 * DAY)] == [
        False, False, True, False, True,
    ]  # fmt: skip
    assert not is_due(None, BEGIN + 60.0)
    assert is_silent(Decimal(0), Decimal("0.5"))
    assert not is_silent(Decimal(0), Decimal("0.49"))
    assert not is_silent(Decimal("0.01"), Decimal(9))


class Lists:
    """Cost Explorer, which counts its cents."""

    def __init__(self, said: Callable[[], Decimal] | DevboxError) -> None:
        self.said, self.cents = said, 0

    async def billed(self, account: Account, owner: str, begin: float, end: float, now: float) -> Billed:
        self.cents += 1
        if isinstance(self.said, DevboxError):
            raise self.said
        return Billed(owner, begin, end, now, self.said(), {"api": Decimal(1)})


class Ticks:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


async def test_it_is_asked_once_a_day_by_all_daemons_of_a_machine_and_only_where_it_is_wanted(
    tmp_path: Path,
) -> None:
    clock, lists, wanted = Ticks(), Lists(lambda: Decimal("12.34")), [False]
    shared = Shared.of(clock)
    bills = Bills(shared, lists, BillFiles(tmp_path), lambda: wanted[0])
    whose = {"me": Account()}
    bills.freshen(whose)
    assert (bills.of("me"), lists.cents) == (None, 0)
    wanted[0] = True
    bills.freshen(whose)
    bills.freshen(whose)
    await until(lambda: bills.of("me") is not None)
    assert lists.cents == 1
    clock.now += DAY - 1
    bills.freshen(whose)
    again = Bills(shared, lists, BillFiles(tmp_path), lambda: True)  # a daemon that starts anew
    again.freshen(whose)
    found = again.of("me")
    assert found is not None
    assert (found.total, lists.cents) == (Decimal("12.34"), 1)
    clock.now += 2
    again.freshen(whose)
    await until(lambda: lists.cents == 2)
    wanted[0] = False
    assert bills.of("me") is None
    clock.now = datetime(2026, 12, 3, tzinfo=UTC).timestamp()
    assert again.of("me") is None, "that was of another month"
    await shared.tasks.stop()


async def test_a_refusal_is_not_asked_again_on_that_day(tmp_path: Path) -> None:
    clock, lists = Ticks(), Lists(Denied("AWS does not allow ce:GetCostAndUsage"))
    shared = Shared.of(clock)
    bills = Bills(shared, lists, BillFiles(tmp_path), lambda: True)
    for _ in range(5):
        bills.freshen({"me": Account()})
        await until(lambda: bool(bills.problem("me")))
        clock.now += 3600.0
    assert lists.cents == 1
    assert bills.of("me") is None
    await shared.tasks.stop()


def test_a_file_that_is_none_is_as_if_it_were_not_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = BillFiles(tmp_path / "bills")
    assert files.read("me") is None
    kept = Billed("me", BEGIN, END, NOW, Decimal("1.10"), {"api": Decimal("1.10")})
    files.save(kept)
    assert files.read("me") == kept
    assert files.read("you") is None
    (path,) = (tmp_path / "bills").iterdir()
    assert path.stat().st_mode & 0o077 == 0
    for text in ("", "{", '{"owner": "me"}', "[" * 100_000, "x" * (SIZE_MAX + 1)):
        path.write_text(text)
        assert files.read("me") is None
    (tmp_path / "file").write_text("")
    assert "can not be kept" not in caplog.text
    BillFiles(tmp_path / "file").save(kept)
    assert "the bill can not be kept" in caplog.text
