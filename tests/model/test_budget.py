"""Budgets: which are in force, which launch passes, and what follows at which moment."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from devboxd.errors import exit_status
from devboxd.model.budget import (
    BUSY_GRACE,
    GRACE,
    Budget,
    BudgetExceeded,
    Budgets,
    Told,
    begins,
    check,
    costs_more_than_snapshots,
    in_force,
    judge,
    over,
)
from devboxd.model.project import Phase, Place, Project, Spec, Want

NOW, MONTH = 1_800_000_000.0, "2027-01"
SOFT = Budget("", "all", Decimal(100))
HARD = Budget("u1", "api", Decimal(100), hard=True)


def project(want: Want = Want.UP, type_: str = "m7g.large", phase: Phase = Phase.RUNNING) -> Project:
    return Project("u1", "api", "me", want=want, phase=phase, spec=Spec(places=(Place(type_),)))


def verdict(budget: Budget, spent: str, told: Told | None = None, **more: Any) -> Any:
    given = {"up": True, "busy": False, "now": NOW, **more}
    now = given.pop("now")
    return judge(budget, told, Decimal(spent), MONTH, now, **given)


@pytest.mark.parametrize(
    ("spent", "level"),
    [
        ("0", 0),
        ("49.99", 0),
        ("50", 50),
        ("79.99", 50),
        ("80", 80),
        ("99.99", 80),
        ("100", 100),
        ("350", 100),
    ],
)
def test_each_level_is_told_once_a_month(spent: str, level: int) -> None:
    first = verdict(SOFT, spent)
    assert (first.told.level, len(first.notices), first.archive) == (level, int(level > 0), None)
    again = verdict(SOFT, spent, first.told)
    assert again.notices == ()
    before = Told("2026-12", 100)
    assert len(verdict(SOFT, spent, before).notices) == int(level > 0), "a new month begins at nothing"


def test_what_was_raised_is_told_again_when_it_is_reached_again() -> None:
    used = verdict(SOFT, "100").told
    raised = verdict(Budget("", "all", Decimal(1000)), "100", used)
    assert (raised.told.level, raised.notices) == (0, ())
    assert len(verdict(Budget("", "all", Decimal(200)), "100", raised.told).notices) == 1


def test_a_hard_budget_archives_after_its_grace() -> None:
    """Warned, waited for, then done; and once more only if something runs again."""
    first = verdict(HARD, "100")
    assert first.told.deadline == NOW + GRACE
    assert [one.urgent for one in first.notices] == [True, True]
    assert first.archive is None
    waiting = verdict(HARD, "101", first.told, now=NOW + GRACE - 1)
    assert (waiting.archive, waiting.notices) == (None, ())
    due = verdict(HARD, "101", first.told, now=NOW + GRACE)
    assert due.archive is not None
    assert due.told.deadline is None
    assert verdict(HARD, "101", due.told, up=False).archive is None


def test_what_works_is_put_off_once() -> None:
    """Never in the middle of an agent's work without a grace; and not for ever."""
    first = verdict(HARD, "100", busy=True)
    longer = verdict(HARD, "101", first.told, busy=True, now=NOW + GRACE)
    assert (longer.archive, longer.told.deadline) == (None, NOW + GRACE + BUSY_GRACE)
    assert len(longer.notices) == 1
    end = verdict(HARD, "120", longer.told, busy=True, now=NOW + GRACE + BUSY_GRACE)
    assert end.archive is not None


def test_who_raises_it_in_time_keeps_the_box() -> None:
    first = verdict(HARD, "100")
    raised = verdict(Budget("u1", "api", Decimal(150), hard=True), "100", first.told, now=NOW + GRACE)
    assert (raised.archive, raised.told.deadline) == (None, None)
    assert verdict(SOFT, "100", first.told, now=NOW + GRACE).archive is None


def test_a_budget_of_a_month_goes_before_the_usual_one() -> None:
    december = Budget("u1", "api", Decimal(5), month="2026-12")
    known = Budgets((SOFT, HARD, december))
    assert in_force(known, "2026-12") == (SOFT, december)
    assert in_force(known, "2027-01") == (SOFT, HARD)
    assert over(in_force(known, "2027-01"), "u2") == (SOFT,)
    assert known.put(Budget("u1", "api", Decimal(7))).budgets[-1].limit == 7
    assert len(known.put(Budget("u1", "api", Decimal(7))).budgets) == 3
    assert known.without("u1/2026-12").budgets == (SOFT, HARD)


def test_a_launch_needs_an_hour_for_all_that_runs() -> None:
    check(HARD, Decimal(98), [Decimal(1)], Decimal(1), "m7g.large")
    check(SOFT, Decimal(1000), [], Decimal(1), "m7g.large")
    with pytest.raises(BudgetExceeded, match="has not an hour left") as error:
        check(HARD, Decimal("98.01"), [Decimal(1)], Decimal(1), "m7g.large")
    assert exit_status(error.value.kind) == 9
    with pytest.raises(BudgetExceeded, match=r"used up: 100\.00 of 100\.00"):
        check(HARD, Decimal(100), [], Decimal(0), "m7g.large")
    with pytest.raises(BudgetExceeded, match=r"price of x99\.huge is not known"):
        check(HARD, Decimal(0), [], None, "x99.huge")
    check(HARD, Decimal(0), [None], Decimal(1), "m7g.large")


def test_what_begins_to_cost_is_asked_about() -> None:
    down = project(Want.COLD)
    assert begins(None, project())
    assert begins(down, project())
    assert begins(project(type_="t4g.medium"), project())
    assert not begins(project(), project())
    assert not begins(project(), down)


def test_what_there_is_to_archive() -> None:
    assert costs_more_than_snapshots(project())
    assert costs_more_than_snapshots(project(Want.WARM, phase=Phase.WARM))
    assert costs_more_than_snapshots(project(Want.COLD, phase=Phase.WARM))
    assert not costs_more_than_snapshots(project(Want.COLD, phase=Phase.SAVING)), "it is on its way"
    assert not costs_more_than_snapshots(project(Want.COLD, phase=Phase.READY))
    assert not costs_more_than_snapshots(project(phase=Phase.BROKEN)), "that needs a person"
    assert not costs_more_than_snapshots(project(Want.GONE)), "it is being deleted"
    assert not costs_more_than_snapshots(replace(project(), moved="dynamodb")), "it is archived from there"
