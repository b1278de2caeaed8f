"""What the end of one direction means for the other: every order of ends."""

from __future__ import annotations

import itertools

import pytest
from msgspec.structs import replace

from devboxd.model.halves import Seen, Step, Way, next_step

LAST = frozenset({Step.CLOSE, Step.PART, Step.CUT, Step.RESET, Step.GIVE_UP})


@pytest.mark.parametrize(
    ("up", "down", "steps"),
    [
        (Way.OPEN, Way.OPEN, [Step.WAIT]),
        (Way.ENDED, Way.OPEN, [Step.PASS_UP, Step.LOOK]),
        (Way.OPEN, Way.ENDED, [Step.PASS_DOWN, Step.WAIT]),
        (Way.ENDED, Way.ENDED, [Step.CLOSE]),
        (Way.LEFT, Way.ENDED, [Step.CLOSE]),  # as a socket that nobody holds: who writes to it is reset
        (Way.REFUSED, Way.ENDED, [Step.CUT]),  # bytes are lost: the local side must know
        (Way.REFUSED, Way.OPEN, [Step.WAIT]),  # an answer in the middle of an upload
        (Way.BROKEN, Way.OPEN, [Step.RESET]),
        (Way.BROKEN, Way.ENDED, [Step.RESET]),  # never an end of an upload that was cut
        (Way.OPEN, Way.BROKEN, [Step.RESET]),
        (Way.ENDED, Way.BROKEN, [Step.RESET]),
        (Way.OPEN, Way.REFUSED, [Step.RESET]),
        (Way.ENDED, Way.REFUSED, [Step.PART]),  # it has said everything, and has only left
    ],
)
def test_each_direction_ends_by_itself(up: Way, down: Way, steps: list[Step]) -> None:
    assert _steps(Seen(up, down)) == steps


@pytest.mark.parametrize(
    ("up", "down", "steps"),
    [
        (Way.OPEN, Way.OPEN, [Step.WAIT]),
        (Way.ENDED, Way.OPEN, [Step.LOOK]),  # the end passed on would throw the answer away
        (Way.OPEN, Way.ENDED, [Step.CLOSE]),
        (Way.REFUSED, Way.OPEN, [Step.WAIT]),
        (Way.REFUSED, Way.ENDED, [Step.CLOSE]),
        (Way.BROKEN, Way.OPEN, [Step.RESET]),
        (Way.OPEN, Way.BROKEN, [Step.RESET]),
    ],
)
def test_where_only_both_can_end_the_far_end_ends_both(up: Way, down: Way, steps: list[Step]) -> None:
    assert _steps(Seen(up, down, half_closes=False)) == steps


def _steps(seen: Seen) -> list[Step]:
    """What is done until it is over, or somebody has to be waited for."""
    steps: list[Step] = []
    while not steps or steps[-1] in (Step.PASS_UP, Step.PASS_DOWN):
        assert len(steps) < 5, steps
        steps.append(next_step(seen))
        seen = replace(
            seen,
            told_up=seen.told_up or steps[-1] is Step.PASS_UP,
            told_down=seen.told_down or steps[-1] is Step.PASS_DOWN,
        )
    return steps


@pytest.mark.parametrize("half_closes", [True, False])
def test_nobody_is_waited_for_whom_nobody_is_there(half_closes: bool) -> None:
    seen = Seen(Way.ENDED, half_closes=half_closes, told_up=half_closes)
    assert next_step(seen) is Step.LOOK
    assert next_step(replace(seen, has_left=True)) is Step.PART
    assert next_step(Seen(Way.ENDED, has_left=True)) is Step.PASS_UP, (
        "its last words have an end all the same"
    )


def test_only_a_far_end_that_could_not_be_told_is_given_up() -> None:
    silent = Seen(Way.ENDED, told_up=True, is_silent=True)
    assert next_step(silent) is Step.LOOK, "it knows that we wait"
    assert next_step(replace(silent, half_closes=False, told_up=False)) is Step.GIVE_UP


def test_what_is_over_is_never_waited_for() -> None:
    """Whatever is seen: a step is the last one, or there is still somebody who can change something."""
    downs = (Way.OPEN, Way.ENDED, Way.REFUSED, Way.BROKEN)
    for up, down, flags in itertools.product(Way, downs, range(1 << 5)):
        half, told_up, told_down, left, silent = (bool(flags >> bit & 1) for bit in range(5))
        seen = Seen(up, down, half, told_up, told_down, left, silent)
        step = next_step(seen)
        assert step in LAST or Way.OPEN in (up, down), seen
        assert step not in (Step.PASS_UP, Step.PASS_DOWN) or half, seen
