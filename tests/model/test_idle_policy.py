"""What may be chosen about idle boxes, and what is said to whoever errs. Leases: bounded, listed, forgotten."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from devboxd.errors import BadRequest
from devboxd.model import lease
from devboxd.model.idle_policy import (
    IdlePolicy,
    checked,
    duration,
    next_start,
    rules,
    sign_holds,
    signs_every,
    when,
    window,
)
from devboxd.model.lease import LEASES_MOST, Lease, LeaseNotFound, dropped, for_box, granted, remembered

BERLIN = ZoneInfo("Europe/Berlin")


def moment(text: str, zone: ZoneInfo = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("1h30m", 5400), ("2d", 172800), ("90s", 90), ("1 h 30 min", 5400)]
)
def test_time_spans_are_read(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-5m", "1.5h", "0m", "9999d", "5 parsecs", "1h" * 9])
def test_what_is_no_time_span_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadRequest, match="no time span") as error:
        duration(text)
    assert "1h30m" in (error.value.hint or "")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no time of the week"),
        ("22-7", "no time of the week"),
        ("22:00-07:00 Europe/Nowhere", "no time zone 'Europe/Nowhere'"),
        ("22:00-07:00 ../../etc/passwd", "no time of the week"),
        ("25:00-07:00", "25:00 is no time"),
        ("someday 22:00-07:00", "'someday' names no days"),
        ("mon-xyz 22:00-07:00", "names no days"),
    ],
)
def test_windows_that_can_not_be_name_the_part_that_is_wrong(text: str, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        window(text)


def test_a_window_follows_the_clock_of_its_zone_through_a_change() -> None:
    """The night of 29 March 2026 has an hour less in Berlin, that of 25 October one more."""
    night = window("22:00-07:00 Europe/Berlin")
    spans = list(night.spans(moment("2026-03-28T12:00"), moment("2026-03-30T12:00")))
    assert [(end - begin) / 3600 for begin, end in spans] == [8.0, 9.0]
    assert spans[0] == (moment("2026-03-28T22:00"), moment("2026-03-29T07:00"))
    spans = list(night.spans(moment("2026-10-24T12:00"), moment("2026-10-25T12:00")))
    assert [(end - begin) / 3600 for begin, end in spans] == [10.0]


def test_a_window_has_days_and_may_reach_to_midnight() -> None:
    week = list(window("sat,sun 00:00-24:00 UTC").spans(0.0, 7 * 86400.0))  # 1 January 1970 was a Thursday
    assert week == [(2 * 86400.0, 3 * 86400.0), (3 * 86400.0, 4 * 86400.0)]
    assert window("fri-mon 09:00-17:00").days == {4, 5, 6, 0}


def test_a_window_that_has_begun_is_among_the_spans() -> None:
    now = moment("2026-05-05T23:00")
    assert next(iter(window("22:00-07:00 Europe/Berlin").spans(now, now + 60))) == (
        moment("2026-05-05T22:00"),
        moment("2026-05-06T07:00"),
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"after": 60.0}, "idle.after"),
        ({"warn": 30.0}, "idle.warn"),
        ({"warn": 3600.0}, "idle.warn"),
        ({"max_run": 600.0}, "idle.max_run"),
        ({"never": ("22:00-07:00",) * 9}, "more than 8"),
        ({"never": ("x",)}, "no time of the week"),
        ({"hours": "x"}, "no time of the week"),
    ],
)
def test_a_policy_that_can_not_be_is_refused(change: dict[str, object], says: str) -> None:
    assert checked(IdlePolicy()) == IdlePolicy()
    with pytest.raises(BadRequest, match=says):
        checked(replace(IdlePolicy(), **change))


def test_the_rules_of_a_box_are_good_for_weeks_and_bounded() -> None:
    policy = IdlePolicy(never=("22:00-07:00 Europe/Berlin",) * 8, hours="mon-fri 08:00-18:00 Europe/Berlin")
    now = moment("2026-05-05T12:00")
    found = rules(policy, now, started=1.0, held=2.0)
    assert (found["after"], found["warn"], found["then"]) == (1800.0, 600.0, "warm")
    assert (found["started"], found["held"]) == (1.0, 2.0)
    assert found["never"][-1][1] > now + 34 * 86400.0
    assert len(found["never"]) <= 400
    assert next_start(replace(policy, starts=True), now) == moment("2026-05-06T08:00")
    assert next_start(policy, now) is None


def test_moments_are_read() -> None:
    now = moment("2026-05-05T12:00")
    assert when("18:30 Europe/Berlin", now) == moment("2026-05-05T18:30")
    assert when("08:00 Europe/Berlin", now) == moment("2026-05-06T08:00")
    assert when("2026-05-05T18:30:00Z", now) == moment("2026-05-05T18:30", ZoneInfo("UTC"))
    for text in ("tomorrow", "", "25:00", "18:30 Nowhere/City"):
        with pytest.raises(BadRequest):
            when(text, now)


# Leases ----------------------------------------------------------------------------------------------------


def test_a_lease_ends_by_itself() -> None:
    (one,) = granted((), "a", 100.0, seconds=3600.0, note="demo", who="me")
    assert (one.until, one.holds(3699.0), one.holds(3700.0), one.why) == (3700.0, True, False, "demo")
    (two,) = granted((), "a", 100.0, command="pgrep make")
    assert (two.until, two.why) == (100.0 + lease.LONGEST, "while pgrep make")
    (three,) = granted((), "a", 100.0, pid=42)
    assert three.why == "while process 42 runs"
    assert for_box([one, three], 200.0)[1] == {
        "id": "a",
        "until": 100.0 + lease.LONGEST,
        "why": "while process 42 runs",
        "command": None,
        "pid": 42,
    }
    assert for_box([one], 3700.0) == []


def test_a_lease_that_is_over_is_not_told_to_be_shorter() -> None:
    with pytest.raises(BadRequest) as refused:
        granted((), "a", 0.0, seconds=-1.0)
    assert "hours" not in refused.value.message
    assert "still to come" in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, "needs an end"),
        ({"seconds": 73 * 3600.0}, "72 hours at most"),
        ({"seconds": -1.0}, "later than now"),
        ({"seconds": float("nan")}, "72 hours"),
        ({"command": " "}, "characters"),
        ({"command": "x" * 1001}, "characters"),
        ({"pid": 0}, "process"),
        ({"seconds": 60.0, "note": "x" * 121}, "note"),
    ],
)
def test_a_lease_without_a_bound_is_refused(asked: dict[str, object], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        granted((), "a", 0.0, **asked)  # type: ignore[arg-type]  # what is wrong is the point


def test_leases_are_few_and_those_that_ended_are_forgotten() -> None:
    known: tuple[Lease, ...] = ()
    for number in range(LEASES_MOST):
        known = granted(known, str(number), 0.0, seconds=60.0)
    with pytest.raises(BadRequest, match="16 leases already"):
        granted(known, "x", 1.0, seconds=60.0)
    known = granted(known, "x", 100.0, seconds=60.0)
    assert len(known) == LEASES_MOST + 1
    assert remembered(known, 60.0 + lease.FORGOTTEN) == (known[-1],)
    assert dropped(known, "x", 110.0)[-1].id == "15"
    for missing in ("y", "3"):
        with pytest.raises(LeaseNotFound, match="no lease"):
            dropped(known, missing, 110.0)


def test_a_sign_holds_until_the_next_one_and_ends_before_the_box_goes() -> None:
    follows = IdlePolicy(after=8 * 3600.0, lid=900.0)
    assert (signs_every(follows), sign_holds(follows)) == (300.0, 450.0)
    assert (signs_every(IdlePolicy()), sign_holds(IdlePolicy())) == (None, None)
