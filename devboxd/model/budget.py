"""How much projects may cost in a month, and what follows: notices, refused launches, and archiving after a grace.

What counts is what is certain (``Sum.total``): nobody's box is archived for what its snapshots may cost. All of it is
decided from what is written down and prices at hand, without asking anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final

import msgspec
from msgspec.structs import replace

from devboxd.errors import DevboxError, Kind
from devboxd.model.project import Phase, Project, Want

ALL: Final = ""  # the scope of a budget for everything that one owner has
LEVELS: Final = (50, 80, 100)  # per cent
GRACE: Final = 1800.0  # seconds from the warning to the archiving
BUSY_GRACE: Final = 7200.0  # once more, where something works on a box
RESERVE: Final = Decimal(1)  # hours that a launch must be able to pay for, with all that runs already
BUDGETS_MOST: Final = 200  # of one owner


class BudgetExceeded(DevboxError):
    """A hard budget has nothing left for it."""

    code = "budget-exceeded"
    kind = Kind.POLICY


class Budget(msgspec.Struct, frozen=True):
    """``scope``: uid of a project, or ``ALL``. ``month``: only that one (2026-12); None: every month.

    ``hard``: refuses launches and archives; else it only tells. ``grace``: seconds.
    """

    scope: str
    name: str  # of the project when it was set, for people
    limit: Decimal
    hard: bool = False
    month: str | None = None
    grace: float = GRACE

    @property
    def key(self) -> str:
        """What tells budgets apart."""
        return f"{self.scope}/{self.month or ''}"


class Told(msgspec.Struct, frozen=True):
    """How far people were told in a month. ``deadline``: when its boxes are archived; ``longer``: it was put off."""

    month: str
    level: int = 0
    deadline: float | None = None
    longer: bool = False


class Budgets(msgspec.Struct, frozen=True):
    """All of one owner, as they are written down: one item, so that two launches can not both have the last dollar."""

    budgets: tuple[Budget, ...] = ()
    told: dict[str, Told] = {}
    launches: int = 0  # counted up by each launch that a hard budget let pass

    def put(self, budget: Budget) -> Budgets:
        """With this one, in the place of one for the same."""
        rest = tuple(one for one in self.budgets if one.key != budget.key)
        return replace(self, budgets=(*rest, budget))

    def without(self, key: str) -> Budgets:
        """Without this one."""
        told = {name: one for name, one in self.told.items() if name != key}
        return replace(self, budgets=tuple(one for one in self.budgets if one.key != key), told=told)


def named(budgets: Budgets, names: Mapping[str, str]) -> Budgets:
    """With the names that projects have now (by uid); one that is gone keeps its last one."""
    found = (replace(one, name=names.get(one.scope, one.name)) for one in budgets.budgets)
    return replace(budgets, budgets=tuple(found))


def in_force(budgets: Budgets, month: str) -> tuple[Budget, ...]:
    """The budgets of a month: one that names it goes before one of the same scope for every month."""
    found: dict[str, Budget] = {}
    for one in sorted(budgets.budgets, key=lambda one: one.month is not None):
        if one.month in (None, month):
            found[one.scope] = one
    return tuple(sorted(found.values(), key=lambda one: (one.scope != ALL, one.name)))


def over(budgets: Iterable[Budget], uid: str) -> tuple[Budget, ...]:
    """Those of them that a project is under."""
    return tuple(one for one in budgets if one.scope in (ALL, uid))


# Launches --------------------------------------------------------------------------------------------------


def begins(before: Project | None, after: Project) -> bool:
    """Say whether a change begins to cost: a box is wanted that was not, or one of another type."""
    if after.want is not Want.UP:
        return False
    return before is None or before.want is not Want.UP or before.spec.type != after.spec.type


def _raise_it(budget: Budget) -> str:
    """What helps where a budget refuses."""
    whose = f" {budget.name}" if budget.scope != ALL else ""
    month = f" --month {budget.month}" if budget.month else ""
    return f"devboxctl budget set{whose} --limit USD{month} --hard raises it; devboxctl budget show says how far it is"


def check(
    budget: Budget, spent: Decimal, others: Iterable[Decimal | None], own: Decimal | None, type_: str
) -> None:
    """Let a launch pass, or refuse it.

    Args:
        spent: in the month so far.
        others: what an hour of each box that is wanted up already costs, as far as it is known.
        own: what an hour of this one costs; None: not known.

    Raises:
        BudgetExceeded: there is not an hour left for all of them.
    """
    if not budget.hard:
        return
    whose = f"of {budget.name}" if budget.scope != ALL else "of all projects"
    said = f"{spent:.2f} of {budget.limit:.2f} USD"
    if spent >= budget.limit:
        raise BudgetExceeded(f"the budget {whose} is used up: {said} this month", hint=_raise_it(budget))
    if own is None:
        raise BudgetExceeded(
            f"the price of {type_ or 'the type'} is not known, and the budget {whose} is a hard one",
            hint=f"devboxctl types {type_} --refresh asks AWS for it",
        )
    hour = own + sum((one for one in others if one is not None), Decimal(0))
    if spent + hour * RESERVE > budget.limit:
        raise BudgetExceeded(
            f"the budget {whose} has not an hour left for this: {said} this month, and {hour:.2f} USD an hour",
            hint=_raise_it(budget),
        )


# Over time -------------------------------------------------------------------------------------------------


class Notice(msgspec.Struct, frozen=True):
    """Tell people."""

    text: str
    urgent: bool = False


class Archive(msgspec.Struct, frozen=True):
    """Save what is under the budget, and end it."""

    budget: Budget


class Verdict(msgspec.Struct, frozen=True):
    """What follows, and how far people were told then."""

    told: Told
    notices: tuple[Notice, ...] = ()
    archive: Archive | None = None


def percent(budget: Budget, spent: Decimal) -> int:
    """How much of it is used, rounded down."""
    return int(spent * 100 / budget.limit) if budget.limit > 0 else 100


def judge(
    budget: Budget, told: Told | None, spent: Decimal, month: str, now: float, *, up: bool, busy: bool
) -> Verdict:
    """What follows from what was spent.

    Args:
        up: whether anything under it costs more than its snapshots.
        busy: whether something works on one of its boxes, or nobody knows.
    """
    known = told if told is not None and told.month == month else Told(month)
    used = percent(budget, spent)
    level = max((one for one in LEVELS if used >= one), default=0)
    whose = budget.name if budget.scope != ALL else "all projects"
    notices = []
    if level > known.level:
        notices.append(
            Notice(f"{used} % of the budget of {whose}: {spent:.2f} of {budget.limit:.2f} USD", level == 100)
        )
    known = replace(known, level=level)
    if not (budget.hard and level == 100 and up):
        return Verdict(replace(known, deadline=None, longer=False), tuple(notices))
    if known.deadline is None:
        known = replace(known, deadline=now + budget.grace)
        minutes = f"{budget.grace / 60:.0f} minutes"
        notices.append(
            Notice(f"{whose}: boxes are saved and archived in {minutes}, unless it is raised", True)
        )
        return Verdict(known, tuple(notices))
    if now < known.deadline:
        return Verdict(known, tuple(notices))
    if busy and not known.longer:
        known = replace(known, deadline=now + BUSY_GRACE, longer=True)
        hours = f"{BUSY_GRACE / 3600:.0f} hours"
        notices.append(Notice(f"{whose}: something works there; boxes are archived in {hours}", True))
        return Verdict(known, tuple(notices))
    notices.append(Notice(f"{whose}: the budget is used up, so boxes are saved and archived now", True))
    return Verdict(replace(known, deadline=None, longer=False), tuple(notices), Archive(budget))


def costs_more_than_snapshots(project: Project) -> bool:
    """Say whether archiving a project saves anything: its box runs or is kept, here, and is not about to go."""
    if project.moved or project.want is Want.GONE:
        return False
    idle = project.phase in (Phase.READY, Phase.ABSENT, Phase.DELETING, Phase.BROKEN)
    return not idle and not (project.want is Want.COLD and project.phase is not Phase.WARM)


def shown(
    budgets: Budgets, month: str, spent: Mapping[str, Decimal]
) -> list[tuple[Budget, Decimal, Told | None, bool]]:
    """All budgets with what was spent under them, how far people were told, and whether they are in force."""
    now = in_force(budgets, month)
    return [
        (one, spent.get(one.scope, Decimal(0)), budgets.told.get(one.key), one in now)
        for one in sorted(budgets.budgets, key=lambda one: (one.scope != ALL, one.name, one.month or ""))
    ]
