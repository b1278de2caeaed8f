"""Money: what projects cost and would cost, and what AWS asks for. Amounts are texts in US dollars, never floats."""

from __future__ import annotations

from typing import Annotated

import msgspec

from devboxd.api.wire.common import API_VERSION, Account, Line

Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Month = Annotated[str, msgspec.Meta(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$")]
Figure = Annotated[str, msgspec.Meta(max_length=20, pattern=r"^[0-9]{1,9}(\.[0-9]{1,6})?$")]


class PriceNote(msgspec.Struct, omit_defaults=True):
    """Where the prices of a region come from, and of which day. ``problem``: why there are no newer ones.

    ``spot``: when the prices of the spot market were asked for, where there are spot boxes; None: they are not known.
    ``spot_problem``: why not, or why there are no newer ones.
    """

    region: str
    date: str
    source: str
    built_in: bool = False
    problem: str = ""
    spot: str | None = None
    spot_problem: str = ""


class CostRequest(msgspec.Struct, omit_defaults=True):
    """One project, or all. ``by``: project, owner or day."""

    project: Line = ""
    by: Line = "project"


class Cost(msgspec.Struct, omit_defaults=True):
    """What one project costs, or one owner's, or all together.

    ``hour``: as it is now; ``today`` and ``month`` so far, in UTC as AWS bills; ``forecast`` of the month, if it goes
    on as in the last ``forecast_days``. ``running``, ``stopped``, ``archived``: thirty days in that state. All are at
    least so much; ``most``: of the month so far, at most, where the bounds differ (EBS keeps of a snapshot what
    changed, and does not say how much). ``parts``: of the month, by kind. ``unknown``: what has no known price.
    """

    name: str
    id: str = ""
    phase: str = ""  # empty: it is deleted, or there are several
    type: str = ""
    region: str = ""
    base: str = ""  # the base image under it
    hour: str = "0.0000"
    today: str = "0.00"
    month: str = "0.00"
    most: str = "0.00"
    forecast: str = "0.00"
    forecast_days: float = 0.0
    running: str = "0.00"
    stopped: str = "0.00"
    archived: str = "0.00"
    parts: dict[str, str] = {}
    unknown: list[str] = []


class CostDay(msgspec.Struct, omit_defaults=True):
    """One day in UTC, by kind."""

    day: str
    compute: str = "0.00"
    address: str = "0.00"
    volume: str = "0.00"
    snapshot: str = "0.00"
    total: str = "0.00"
    most: str = "0.00"


class Billed(msgspec.Struct, omit_defaults=True):
    """What AWS has billed of this month to one owner, ``until`` and with a day in UTC, and what we count for the same time.

    ``most``: what we count at most, where the bounds differ. ``problem``: why it is not known, or not newer; ``silent``: AWS
    shows nothing, as where the tags are not active for cost allocation.
    """

    owner: str
    until: str = ""
    usd: str = ""
    counted: str = ""
    most: str = ""
    silent: bool = False
    problem: str = ""


class CostReport(msgspec.Struct, omit_defaults=True):
    """What it all costs. ``days``: of this month, where they were asked for; ``billed``: by AWS, where that is asked."""

    costs: list[Cost]
    total: Cost
    month: str  # as 2026-11
    days: list[CostDay] = []
    prices: list[PriceNote] = []
    billed: list[Billed] = []
    currency: str = "USD"
    version: int = API_VERSION


class WhatIfRequest(msgspec.Struct, omit_defaults=True):
    """Another type, other hours a month, or another state: stopped, archived."""

    project: Line = ""
    type: Line | None = None
    hours: Figure | None = None
    down: Line = ""


class WhatIf(msgspec.Struct, omit_defaults=True):
    """Thirty days as the last seven were, and as they would be; ``saves`` is negative where it costs more."""

    now: str
    then: str
    saves: str
    unknown: list[str] = []
    currency: str = "USD"
    version: int = API_VERSION


class Quote(msgspec.Struct, omit_defaults=True):
    """What a launch would cost. ``hour``: while it runs, ``running``, ``stopped``: thirty days; all with address, disks and snapshots.

    ``at_most``: it is a spot box, and the price of the market may be lower, by zone or because nobody knows it. ``refused``: why a budget says no.
    """

    type: str
    region: str
    hour: str
    running: str
    stopped: str
    at_most: bool = False
    unknown: list[str] = []
    price: PriceNote | None = None
    refused: str = ""
    currency: str = "USD"
    version: int = API_VERSION


class TypesRequest(Account, omit_defaults=True):
    """Instance types of a region, at least so large. ``max``: dollars an hour. ``refresh``: ask AWS first, once a day."""

    name: Line = ""
    arch: Line | None = None
    vcpu: Count | None = None
    mem: Count | None = None  # GiB
    gpu: bool | None = None
    max: Figure | None = None
    refresh: bool = False


class MachineType(msgspec.Struct, omit_defaults=True):
    """One type: what it has, and what it costs on demand: an hour, and thirty days without a break."""

    name: str
    vcpu: int = 0
    mem: str = "0"  # GiB
    arch: str = ""
    gpu: str = ""
    hour: str = ""
    month: str = ""


class TypeList(msgspec.Struct, omit_defaults=True):
    """Types, the cheapest first."""

    types: list[MachineType]
    price: PriceNote
    currency: str = "USD"
    version: int = API_VERSION


class Budget(msgspec.Struct, omit_defaults=True):
    """A budget in dollars a month. ``project`` empty: of all projects. ``month``: of that one only, as 2026-12.

    ``state``: fine, half, most (80 %), used; ``archives``: when boxes under it are archived. Not ``in_force``: of
    another month, or another budget of the same project names this one.
    """

    project: str
    limit: str
    hard: bool = False
    month: str | None = None
    spent: str = "0.00"
    percent: int = 0
    state: str = "fine"
    archives: str | None = None
    grace: float = 1800.0  # seconds
    in_force: bool = True


class BudgetList(msgspec.Struct, omit_defaults=True):
    """Budgets: that of all projects first."""

    budgets: list[Budget]
    currency: str = "USD"
    version: int = API_VERSION


class BudgetRequest(msgspec.Struct, omit_defaults=True):
    """Set a budget. ``grace``: seconds between the warning and the archiving of a hard one."""

    limit: Figure = "0"
    project: Line = ""
    hard: bool = False
    month: Month | None = None
    grace: Annotated[float, msgspec.Meta(ge=60, le=7 * 86400)] | None = None


class BudgetName(msgspec.Struct, omit_defaults=True):
    """Which budget: of a project (empty: of all), of every month or of one."""

    project: Line = ""
    month: Month | None = None
