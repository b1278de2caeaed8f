"""When an archived project that nobody uses is deleted: late, and never by a clock that is wrong."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from devboxd.errors import BadRequest
from devboxd.model import idle_policy, lease, wish
from devboxd.model.cost import DAY
from devboxd.model.disuse import (
    LEVELS,
    WATCHED,
    Do,
    done,
    is_archived,
    judge,
    kept_by,
    last_used,
    may_tell,
    said,
)
from devboxd.model.idle_note import DisuseNote, IdleNotes, used
from devboxd.model.idle_policy import IdlePolicy
from devboxd.model.ledger import Ledger
from devboxd.model.project import GenerationState, Phase, Project, Want
from tests.model.scenes import AT, generation, project

HOUR = 3600.0
USED = 1_800_000_000.0
DELETE = 90 * DAY
Happened = list[tuple[float, Do, int]]  # when, what, and days of a warning


def looks(
    hours: list[tuple[float, float]], *, delete: float = DELETE, start: DisuseNote | None = None
) -> Happened:
    """What happens at looks: ``(wall clock since the last use, seconds awake since the last look)``."""
    known = start
    found: Happened = []
    for wall, awake in hours:
        verdict = judge(known, USED, delete, USED + wall, awake)
        known = verdict.after
        if verdict.do in (Do.TELL, Do.DELETE):
            found.append((wall, verdict.do, verdict.days))
        if verdict.do is Do.DELETE:
            break
    return found


def every(seconds: float, begin: float, end: float, awake: float | None = None) -> list[tuple[float, float]]:
    return [
        (begin + number * seconds, seconds if awake is None else awake)
        for number in range(int((end - begin) / seconds) + 1)
    ]


def test_a_daemon_that_is_always_there_tells_three_times_and_deletes_after_ninety_days() -> None:
    found = looks(every(HOUR, 0.0, 100 * DAY))
    assert [(round(wall / DAY, 1), do, days) for wall, do, days in found] == [
        (76.0, Do.TELL, 14),
        (83.0, Do.TELL, 7),
        (89.0, Do.TELL, 1),
        (90.0, Do.DELETE, 0),
    ]


def test_who_comes_back_late_has_all_the_warnings_before_him() -> None:
    """The policy is new, or no daemon ran for months: nothing goes in less than a fortnight."""
    found = looks(every(HOUR, 400 * DAY, 450 * DAY))
    assert [(round(wall / DAY, 1), days) for wall, _, days in found] == [
        (400.0, 14),
        (407.0, 7),
        (413.0, 1),
        (414.0, 0),
    ]


def test_each_warning_gives_the_days_that_it_says_also_where_looks_are_rare() -> None:
    """A laptop that is opened once a month for two hours: months, and it is told each time."""
    hours = [
        one
        for month in range(12)
        for one in every(HOUR, (76 + 30 * month) * DAY, (76 + 30 * month) * DAY + 2 * HOUR)
    ]
    found = looks(hours)
    assert [round(wall / DAY) for wall, _, _ in found[:3]] == [76, 106, 136]
    assert found[-1][1] is Do.DELETE
    assert found[-1][0] > 196 * DAY


def test_the_last_day_counts_only_where_a_daemon_was_awake() -> None:
    told = DisuseNote(USED, tuple(USED + at * DAY for at in (76, 83, 89)))
    asleep = looks(every(HOUR, 89.1 * DAY, 120 * DAY, awake=0.0), start=told)
    assert asleep == []
    (found,) = looks(every(HOUR, 89.1 * DAY, 120 * DAY, awake=HOUR / 8), start=told)
    assert found[0] >= 89.1 * DAY + 8 * WATCHED


@pytest.mark.parametrize("jump", [1.0, 7.0, 13.0, 90.0, 4000.0])
@pytest.mark.parametrize("after", [10.0, 76.1, 83.1, 89.01])
def test_a_clock_that_jumps_ahead_deletes_nothing_by_that(jump: float, after: float) -> None:
    """Whenever it jumps: what is left of real time is the warning that comes next, and the last day in any case."""
    real = [one[0] for one in every(HOUR, 0.0, 130 * DAY)]
    found = looks([(at if at < after * DAY else at + jump * DAY, HOUR) for at in real])
    walls = {at if at < after * DAY else at + jump * DAY: at for at in real}
    end = next((walls[wall] for wall, do, _ in found if do is Do.DELETE), None)
    warned = [walls[wall] for wall, do, _ in found if do is Do.TELL]
    assert end is not None
    assert len(warned) == 3
    assert end - warned[-1] >= WATCHED
    assert end >= after * DAY + WATCHED
    if after < 83:
        assert end - after * DAY >= 7 * DAY  # the warning of seven days was still to come


def test_a_clock_that_goes_back_begins_anew() -> None:
    told = DisuseNote(USED, (USED + 76 * DAY, USED + 83 * DAY, USED + 89 * DAY), USED + 89.1 * DAY, WATCHED)
    verdict = judge(told, USED, DELETE, USED + 80 * DAY)
    assert (verdict.do, len(verdict.after.told), verdict.after.due) == (Do.TELL, 1, None)
    assert judge(told, USED, DELETE, USED - DAY).do is Do.REST


def test_an_end_that_was_told_half_a_year_ago_is_told_anew() -> None:
    """The daemon was off, or something forbade it: nobody remembers a warning of that time."""
    warned = (USED + 76 * DAY, USED + 83 * DAY, USED + 89 * DAY)
    told = DisuseNote(USED, warned, USED + 89.1 * DAY, WATCHED)
    assert judge(told, USED, DELETE, USED + 170 * DAY).do is Do.DELETE
    verdict = judge(told, USED, DELETE, USED + 270 * DAY)
    assert (verdict.do, verdict.days, verdict.at) == (Do.TELL, 14, USED + 284 * DAY)
    assert verdict.after == DisuseNote(USED, (USED + 270 * DAY,))


def test_use_and_a_longer_time_begin_anew() -> None:
    told = DisuseNote(USED, (USED + 76 * DAY, USED + 83 * DAY, USED + 89 * DAY), USED + 89.1 * DAY, WATCHED)
    at = USED + 91 * DAY
    assert judge(told, USED, DELETE, at).do is Do.DELETE
    assert judge(told, USED + 60.0, DELETE, at).do is Do.TELL
    assert judge(told, USED, 2 * DELETE, at).after == DisuseNote(USED)
    assert used(IdleNotes(disuse=told), at) == IdleNotes(kept=at)


steps = st.lists(
    st.tuples(st.floats(-20 * DAY, 40 * DAY), st.floats(0.0, HOUR), st.booleans()), min_size=1, max_size=60
)


@settings(max_examples=300, deadline=None)
@given(steps=steps, delete=st.floats(30 * DAY, 366 * DAY))
def test_whatever_the_clock_does_three_warnings_come_first_each_so_long_ahead(
    steps: list[tuple[float, float, bool]], delete: float
) -> None:
    """By the clocks that the looks have read: steps of it, seconds awake, and whether a notice reached somebody."""
    known: DisuseNote | None = None
    now, told = USED, list[float]()
    for step, awake, reached in steps:
        now += step
        verdict = judge(known, USED, delete, now, awake)
        if verdict.do is Do.TELL and not reached:
            continue
        if verdict.do is Do.TELL:
            told = [*told, now][-3:] if verdict.days != LEVELS[0] else [now]
        known = verdict.after
        if verdict.do is Do.DELETE:
            assert now >= USED + delete
            assert len(told) == 3
            assert all(now - at >= days * DAY for at, days in zip(told, LEVELS, strict=True))
            assert all(before <= after for before, after in pairwise(told))
            return


def archived() -> Ledger:
    row = project(phase=Phase.READY, want=Want.COLD, head=2, save=None, instance=None, since=USED)
    return Ledger(row, None, (generation(1), generation(2)))


@pytest.mark.parametrize(
    "change",
    [
        {"phase": Phase.WARM},
        {"phase": Phase.RUNNING},
        {"phase": Phase.BROKEN},
        {"phase": Phase.ABSENT},
        {"want": Want.UP},
        {"want": Want.GONE},
        {"head": 0},
        {"rollback": 1},
        {"snap": 4},
        {"save": 4},
        {"moved": "dynamodb"},
    ],
)
def test_only_what_is_archived_and_wanted_so_is_ever_deleted(change: dict[str, object]) -> None:
    known = archived()
    assert is_archived(known.project)
    assert kept_by(known, IdleNotes(), AT) == ""
    other = Ledger(replace(known.project, **change), None, known.generations)
    assert not is_archived(other.project)
    assert kept_by(other, IdleNotes(), AT)
    assert wish.gone_if_disused(other, "nobody used it") is None


def test_what_keeps_it_is_said() -> None:
    known, at = archived(), USED + 100 * DAY
    one, two = known.generations
    pinned = Ledger(known.project, None, (replace(one, pins=("user",)), two))
    assert kept_by(pinned, IdleNotes(), at) == "generation 1 is pinned"
    assert wish.gone_if_disused(pinned, "x") is None
    forked = Ledger(known.project, None, (one, replace(two, pins=("fork:abc",))))
    assert kept_by(forked, IdleNotes(), at) == "generation 2 is needed by a fork"
    retired = replace(one, pins=("user",), state=GenerationState.DELETING)
    assert kept_by(Ledger(known.project, None, (retired, two)), IdleNotes(), at) == ""
    leases = lease.granted((), "x7", at, seconds=3600.0)
    assert "the lease x7 holds it" in kept_by(known, IdleNotes(leases=leases), at + 60.0)
    assert kept_by(known, IdleNotes(leases=leases), at + 7200.0) == ""
    assert "extended until" in kept_by(known, IdleNotes(held=at + 60.0), at)
    step = wish.gone_if_disused(known, "nobody used it for 90 d")
    assert step is not None
    assert (step.project.want, step.event) == (Want.GONE, "asked: delete, nobody used it for 90 d")


def test_the_last_use_is_the_latest_that_is_known() -> None:
    row = archived().project
    assert last_used(row, None, IdleNotes()) == USED
    assert last_used(row, USED + 5.0, IdleNotes(kept=USED + 3.0)) == USED + 5.0
    assert last_used(row, USED + 5.0, IdleNotes(kept=USED + 9.0)) == USED + 9.0


def test_the_words_say_when_and_what_to_do() -> None:
    known = archived()
    title, text = said(known.project, USED + 90 * DAY, USED, USED + 76 * DAY)
    assert title == f"{known.project.name} is deleted in 14 d 0 h, with all that is saved of it"
    assert f"devboxctl extend {known.project.name} keeps it" in text
    assert "nobody used it for 76 d" in text
    title, text = done(known, USED, USED + 91 * DAY)
    assert known.generations[1].image in text
    assert "Recycle Bin" in text


@pytest.mark.parametrize("span", ["29d", "1h"])
def test_less_than_a_month_is_refused(span: str) -> None:
    with pytest.raises(BadRequest, match="at least 30d"):
        idle_policy.checked(IdlePolicy(delete=idle_policy.duration(span)))
    assert IdlePolicy().delete is None
    assert Project("u", "n", "o").policy.idle is None


def test_a_warning_follows_the_last_one_after_a_day() -> None:
    assert may_tell(None, 5.0)
    assert [may_tell(100.0, 100.0 + seconds) for seconds in (0.0, DAY - 1, DAY)] == [False, False, True]
