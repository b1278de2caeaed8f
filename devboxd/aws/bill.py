"""Cost Explorer: what AWS has billed for the boxes of one owner. Each request costs 0.01 USD, each page of an answer too.

The service has one endpoint for a partition (API: ``ce.us-east-1.amazonaws.com``). ``TimePeriod.End`` is exclusive. A group
by a tag is named ``key$value``; what has no such tag, ``key$``. Answers are foreign text: bounded, and read strictly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from devboxd.aws.calls import Calls
from devboxd.aws.clients import Callers
from devboxd.errors import DevboxError
from devboxd.model import tags
from devboxd.model.billed import Billed
from devboxd.model.box import Account
from devboxd.model.cost import day_of

HOME: Final = "us-east-1"
PAGES_MOST: Final = 3  # of one answer: three cents
_AMOUNT: Final = re.compile(r"-?\d{1,12}(?:\.\d{1,20})?(?:E-\d{1,2})?\Z")
_METRIC: Final = "UnblendedCost"
# What is on a bill and is not for what ran.
_NOT_USAGE: Final = ["Credit", "Refund", "Tax"]


class BillUnread(DevboxError):
    """Cost Explorer says what can not be read."""

    code = "bill-unread"


@dataclass(frozen=True, slots=True)
class BillApi:
    """Cost Explorer of one account."""

    account: Calls

    async def billed(self, owner: str, begin: float, end: float, now: float) -> Billed:
        """What was billed for what carries this owner's tag. Errors are those of ``Calls``, and BillUnread."""
        projects: dict[str, Decimal] = {}
        total, estimated, token = Decimal(0), False, ""
        for _ in range(PAGES_MOST):
            more: dict[str, Any] = {"NextPageToken": token} if token else {}
            answer = await self.account.call("ce", "get_cost_and_usage", **request(owner, begin, end), **more)
            for result in answer.get("ResultsByTime") or ():
                estimated = estimated or bool(result.get("Estimated"))
                for group in result.get("Groups") or ():
                    name, amount = _group(group)
                    total += amount
                    projects[name] = projects.get(name, Decimal(0)) + amount
            token = str(answer.get("NextPageToken") or "")
            if not token:
                return Billed(owner, begin, end, now, total, projects, estimated)
        raise BillUnread(f"Cost Explorer names more projects than {PAGES_MOST} answers hold")


def request(owner: str, begin: float, end: float) -> dict[str, Any]:
    """The request, without its token."""
    return {
        "TimePeriod": {"Start": day_of(begin), "End": day_of(end)},
        "Granularity": "MONTHLY",
        "Metrics": [_METRIC],
        "Filter": {
            "And": [
                {"Tags": {"Key": tags.OWNER, "Values": [owner], "MatchOptions": ["EQUALS"]}},
                {"Not": {"Dimensions": {"Key": "RECORD_TYPE", "Values": _NOT_USAGE}}},
            ]
        },
        "GroupBy": [{"Type": "TAG", "Key": tags.PROJECT}],
    }


def _group(group: dict[str, Any]) -> tuple[str, Decimal]:
    """The project, and its dollars."""
    key = str((group.get("Keys") or [""])[0]).partition("$")[2]
    found = (group.get("Metrics") or {}).get(_METRIC) or {}
    amount, unit = str(found.get("Amount", "")), found.get("Unit")
    if _AMOUNT.match(amount) is None or unit != "USD":
        raise BillUnread("Cost Explorer names an amount that is none in US dollars")
    return key, Decimal(amount)


@dataclass(frozen=True, slots=True)
class AwsBills:
    """Cost Explorer, by account."""

    callers: Callers

    async def billed(self, account: Account, owner: str, begin: float, end: float, now: float) -> Billed:
        """What was billed for one owner. Errors are those of ``BillApi``."""
        return await BillApi(self.callers.caller(account.profile, HOME)).billed(owner, begin, end, now)
