"""A proxy that refuses our password is left alone, longer each time."""

from __future__ import annotations

from devboxd.model.proxy import FIRST, KEPT, LONGEST, Refusals


def test_a_refused_password_is_shown_ever_more_rarely() -> None:
    """Twenty wrong ones in an hour lock an account; these are twelve on the first day of a hundred."""
    refusals, now, asked = Refusals(), 1000.0, 0
    assert refusals.left("p", now) == 0
    while now < 1000.0 + 3600.0:
        if refusals.left("p", now) == 0:
            asked += 1
            refusals.refused("p", now)
        now += 1.0
    assert asked == 6  # after 0, 1, 3, 7, 15 and 31 minutes
    refusals.refused("p", now)
    assert LONGEST >= 3600.0
    assert refusals.left("p", now) == LONGEST
    assert refusals.left("q", now) == 0


def test_one_that_passes_and_another_network_are_a_new_start() -> None:
    refusals = Refusals()
    refusals.refused("p", 0.0)
    refusals.refused("p", 100.0)
    refusals.passed("p")
    assert refusals.left("p", 101.0) == 0
    refusals.refused("p", 101.0)
    assert refusals.left("p", 101.0) == FIRST
    refusals.forget()
    assert refusals.left("p", 102.0) == 0
    for number in range(2 * KEPT):
        refusals.refused(str(number), 0.0)
    assert sum(refusals.left(str(number), 0.0) > 0 for number in range(2 * KEPT)) == KEPT
