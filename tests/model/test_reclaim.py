"""What a notice of EC2 means, whatever the metadata service says and whatever the clocks show."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devboxd.model.reclaim import (
    KEPT,
    LEAST,
    LIKELIER,
    NOTICE,
    RESERVE,
    TAKEN,
    clock,
    end_of,
    fold,
    hook_time,
    moment,
    unknown,
    words,
)

NOW = 1_800_000_000.0
UP = 5000.0


def written(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def look(
    known: dict[str, Any],
    notice: object = 404,
    rebalance: object = 404,
    *,
    now: float = NOW,
    up: float = UP,
) -> tuple[dict[str, Any], list[str]]:
    """One look: a number is a status without a text, None no answer, anything else what was said."""

    def split(found: object) -> tuple[int | None, object]:
        return (found, None) if found is None or isinstance(found, int) else (200, found)

    (one, said), (two, risk) = split(notice), split(rebalance)
    return fold(known, {"notice": one, "rebalance": two}, said, risk, now, up)


def stop(at: float) -> dict[str, str]:
    return {"action": "stop", "time": written(at)}


def test_a_notice_is_news_once() -> None:
    known, what = look(unknown(), stop(NOW + 117))
    assert what == [TAKEN]
    assert known["notice"] == {"action": "stop", "time": NOW + 117, "since": NOW}
    for later in range(5, 120, 5):
        known, what = look(known, stop(NOW + 117), now=NOW + later)
        assert what == []
    assert known["notice"]["since"] == NOW
    known, what = look(known, stop(NOW + 100), now=NOW + 30)
    assert (what, known["notice"]["time"]) == ([], NOW + 100), "a time that is made exact is no other notice"


def test_a_notice_is_withdrawn_when_it_is_missing_twice_and_may_come_again() -> None:
    known, _ = look(unknown(), stop(NOW + 117))
    known["did"] = {"at": NOW, "hooks": 1, "failed": []}
    silences: tuple[object, ...] = (None, 500, 401, "<html>", {})
    for silent in silences:
        known, what = look(known, silent)
        assert what == [], "what can not be read withdraws nothing"
    known, what = look(known, 404)
    assert what == []
    known, what = look(known, stop(NOW + 117))
    known, what = look(known, 404)
    assert what == [], "once is not twice"
    known, what = look(known, 404)
    assert (what, known["notice"], known["did"]) == ([KEPT], None, None)
    known, what = look(known, stop(NOW + 900), now=NOW + 790)
    assert what == [TAKEN]


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (None, "does not answer"),
        (403, "answers with 403"),
        (500, "answers with 500"),
        ([], "no notice"),
        ("terminate", "no notice"),
        ({"time": "2026-01-01T00:00:00Z"}, "no notice"),
        ({"action": 7}, "no notice"),
        ({"action": ""}, "no notice"),
        ({"action": "a" * 33}, "no notice"),
        ({"action": "stop\nnow"}, "no notice"),
    ],
)
def test_what_is_no_notice_is_a_problem_and_does_nothing(said: object, problem: str) -> None:
    known, what = look(unknown(), said)
    assert (what, known["notice"]) == ([], None)
    assert problem in known["problem"]
    known, _ = look(known, 404)
    assert known["problem"] == "", "it can be seen again"


@pytest.mark.parametrize("time", [None, "", "soon", 7, "2026-13-01T00:00:00Z", "٢٠٢٦-01-01T00:00:00Z"])
def test_a_time_that_can_not_be_read_is_two_minutes_from_now(time: object) -> None:
    known, what = look(unknown(), {"action": "terminate", "time": time})
    assert what == [TAKEN]
    assert end_of(known["notice"]) == NOW + NOTICE
    assert hook_time(known["notice"], NOW) == NOTICE - RESERVE


def test_a_notice_of_an_earlier_life_of_the_box_is_none() -> None:
    """The metadata of a box that was stopped and started may still have it."""
    known, what = look(unknown(), stop(NOW - UP - 3600))
    assert (what, known["notice"], known["problem"]) == ([], None, "")


@pytest.mark.parametrize(
    ("at", "seconds"),
    [
        (NOW + 120, 110.0),
        (NOW + 60, 50.0),
        (NOW + 20, LEAST),
        (NOW, LEAST),
        (NOW - 240, LEAST),
        (NOW + 86400, 110.0),
    ],
    ids=["two minutes", "late", "very late", "now", "a clock that is fast", "a clock that is slow"],
)
def test_hooks_have_what_is_left(at: float, seconds: float) -> None:
    """A box that still runs after its time has a wrong clock, or is lucky: trying costs nothing."""
    known, what = look(unknown(), stop(at))
    assert what == [TAKEN]
    assert hook_time(known["notice"], NOW) == seconds


def test_hibernation_begins_at_once_and_runs_no_hook() -> None:
    known, what = look(unknown(), {"action": "hibernate", "time": written(NOW)})
    assert what == [TAKEN]
    assert hook_time(known["notice"], NOW) == 0.0


def test_a_recommendation_is_news_once_and_a_notice_is_worse() -> None:
    said = {"noticeTime": written(NOW)}
    known, what = look(unknown(), 404, said)
    assert (what, known["rebalance"]) == ([LIKELIER], NOW)
    known, what = look(known, 404, said, now=NOW + 5)
    assert (what, known["rebalance"]) == ([], NOW)
    known, what = look(known, None, None, now=NOW + 10)
    assert known["rebalance"] == NOW
    known, what = look(known, 404, 404, now=NOW + 15)
    assert known["rebalance"] is None
    _, what = look(unknown(), stop(NOW + 120), said)
    assert what == [TAKEN]
    _, what = look(unknown(), 404, "yes")
    assert what == [], "that is no recommendation"


def test_terminals_are_told_when() -> None:
    at = moment("2026-11-26T22:14:03Z")
    assert at is not None
    text = words(TAKEN, {"action": "stop", "time": at, "since": at - 117}, at - 117)
    assert text.startswith("EC2 takes this spot box back at 22:14:03 UTC, in 117 s. Its disk is kept")
    assert "back now." in words(TAKEN, {"action": "stop", "time": at, "since": at - 117}, at + 1)
    assert "after all" in words(KEPT, None, at)
    assert clock(at) == "22:14:03 UTC"


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 12, 31)))  # noqa: DTZ001 - in UTC
def test_a_moment_is_read_as_it_is_written(at: datetime) -> None:
    seconds = at.replace(microsecond=0, tzinfo=UTC).timestamp()
    assert moment(at.strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")) == seconds


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["action", "time", "noticeTime", "x"]), inner)
    ),
    max_leaves=6,
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, 200, 401, 404, 500]), _JSON, st.sampled_from([None, 200, 404]), _JSON
        ),
        max_size=8,
    )
)
def test_whatever_is_said_can_be_folded_and_written_down(
    said: list[tuple[int | None, Any, int | None, Any]],
) -> None:
    known = unknown()
    for at, (one, notice, two, risk) in enumerate(said):
        known, what = fold(known, {"notice": one, "rebalance": two}, notice, risk, NOW + 5 * at, UP)
        assert (TAKEN in what) <= (known["notice"] is not None)
        if known["notice"] is not None:
            assert 0 <= hook_time(known["notice"], NOW + 5 * at) <= NOTICE
        assert json.loads(json.dumps(known)) == known
