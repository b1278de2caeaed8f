"""When a client no longer waits for the box: tables, and two ends that talk."""

from __future__ import annotations

import pytest

from devboxd.model.bridge.end import Bridge
from devboxd.model.patience import TAKEN_WITHIN, arrived, leaves, shown, unsettled


@pytest.mark.parametrize(
    ("is_online", "is_taken", "waited", "said"),
    [
        (True, False, 0.0, False),  # it is on its way
        (True, False, TAKEN_WITHIN - 0.1, False),
        (True, False, TAKEN_WITHIN, True),  # nobody is there to take it
        (False, False, 0.0, True),  # nothing carries it
        (True, True, 3600.0, False),  # the command has it, and takes its time
        (False, True, 3600.0, False),
    ],
)
def test_a_signal_that_the_box_does_not_take_ends_the_wait_for_it(
    is_online: bool, is_taken: bool, waited: float, said: bool
) -> None:
    assert leaves(is_online=is_online, is_taken=is_taken, waited=waited) is said


@pytest.mark.parametrize(
    ("has_begun", "is_online", "answers", "said"),
    [
        (False, False, True, "starting"),
        (False, True, True, "starting"),
        (False, True, False, "stalled"),
        (True, False, True, "reconnecting"),
        (True, False, False, "reconnecting"),
        (True, True, False, "stalled"),
        (True, True, True, "online"),
    ],
)
def test_every_wait_has_its_word(has_begun: bool, is_online: bool, answers: bool, said: str) -> None:
    assert shown(has_begun=has_begun, is_online=is_online, answers=answers) == said


def test_what_has_arrived_is_what_the_other_end_has_acknowledged() -> None:
    near, far = Bridge(near=True), Bridge(near=False)
    number = near.open(b"purpose")
    assert arrived(near, number) == (0, 9)
    near.lane_up(1, 0.0)
    far.lane_up(1, 0.0)
    said = near.outgoing(1, 0.0)
    assert arrived(near, number) == (0, 9), "said is not heard"
    far.received(1, said, 0.0)
    near.received(1, far.outgoing(1, 0.0), 0.0)
    assert arrived(near, number) == (9, 9)
    near.write(number, b"more")
    assert arrived(near, number) == (9, 13)
    near.outgoing(1, 0.0)
    assert arrived(near, number) == (9, 13)
    assert arrived(near, 98) == (0, 0), "there is none"


def test_a_stream_that_was_given_up_is_settled_once_the_other_end_says_so() -> None:
    near, far = Bridge(near=True), Bridge(near=False)
    number = near.open(b"purpose")
    for one in (near, far):
        one.lane_up(1, 0.0)
    far.received(1, near.outgoing(1, 0.0), 0.0)
    assert not unsettled(near)
    near.reset(number, "closed")
    assert unsettled(near)
    far.received(1, near.outgoing(1, 0.0), 0.0)
    assert unsettled(near), "said is not heard"
    near.received(1, far.outgoing(1, 0.0), 0.0)
    assert not unsettled(near)
