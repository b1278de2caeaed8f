"""How a bridgehead that does not answer is taken: a table."""

from __future__ import annotations

import pytest

from devboxd.model.silence import GIVEN_UP, NO_ANSWER, Silence, judge


@pytest.mark.parametrize(
    ("unanswered", "streams", "said"),
    [
        (0.0, 0, Silence.NONE),
        (NO_ANSWER - 0.1, 0, Silence.NONE),
        (NO_ANSWER, 0, Silence.GIVEN_UP),  # nothing is lost by that
        (NO_ANSWER, 1, Silence.ANOTHER_WAY),
        (GIVEN_UP - 0.1, 1, Silence.ANOTHER_WAY),  # it swaps, or was frozen
        (GIVEN_UP, 1, Silence.GIVEN_UP),
        (GIVEN_UP, 4096, Silence.GIVEN_UP),
    ],
)
def test_what_it_carries_decides_how_long_it_is_waited_for(
    unanswered: float, streams: int, said: Silence
) -> None:
    assert judge(unanswered, streams) is said


def test_what_it_carries_has_minutes() -> None:
    assert GIVEN_UP >= 120.0
