"""How many lanes a bridge has: a table of what is seen and what is said."""

from __future__ import annotations

import pytest

from devboxd.model.lanes import (
    FULL,
    LAST,
    REPAIR_MOST,
    SILENT,
    SPARE,
    LaneSeen,
    Seen,
    Verdict,
    retry_after,
    verdict,
)

UP, OPENING = LaneSeen(1, True), LaneSeen(9, False)
BEHIND, CUT = LaneSeen(2, True, is_behind=True), LaneSeen(2, True, is_behind=True, is_linked=False)
CRAWLS = LaneSeen(2, True, repair=REPAIR_MOST + 0.1)  # after a cut of its link
MUTE = LaneSeen(8, False, silent=SILENT)


def lanes(count: int, quiet: float = 0.0) -> tuple[LaneSeen, ...]:
    return tuple(LaneSeen(number, True, quiet=quiet) for number in range(1, count + 1))


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (Seen(), Verdict()),  # nobody wants it
        (Seen(is_wanted=True), Verdict(1)),
        (Seen(streams=1), Verdict(1)),
        (Seen((OPENING,), is_wanted=True), Verdict()),  # it is on its way
        (Seen((CRAWLS,), streams=1), Verdict(1)),
        (Seen((UP, CRAWLS), streams=1), Verdict(0, (2,))),
        (Seen((CRAWLS, OPENING), streams=1), Verdict()),
        (Seen((LaneSeen(2, True, repair=REPAIR_MOST),), streams=1), Verdict()),  # soon done
        (Seen((LaneSeen(2, True, repair=9.0, is_linked=False),), streams=1), Verdict()),
        (Seen((MUTE,), streams=1), Verdict(1)),  # an agent that has just started may have dropped it
        (Seen((MUTE, OPENING), streams=1), Verdict()),
        (Seen((MUTE, UP), streams=1), Verdict()),
        (Seen((MUTE, MUTE, MUTE), streams=1), Verdict()),  # but it is no storm
        (Seen((MUTE, MUTE), streams=1, most=2), Verdict()),
        (Seen((MUTE,)), Verdict()),
        (Seen((UP,), streams=1), Verdict()),  # one lane while quiet
        (Seen((UP,), streams=1, waiting=FULL - 1), Verdict()),
        (Seen((UP,), streams=1, waiting=FULL), Verdict(1)),
        (Seen((UP,), streams=1, waiting=50 * FULL), Verdict(3)),  # several at once, but not a storm
        (Seen((UP, OPENING), streams=1, waiting=50 * FULL), Verdict(2)),
        (Seen(lanes(8), streams=1, waiting=50 * FULL), Verdict()),  # as many as allowed
        (Seen(lanes(2), streams=1, waiting=50 * FULL, most=2), Verdict()),
        (Seen(lanes(3, quiet=SPARE), streams=1), Verdict(0, (2, 3))),  # the first one stays
        (Seen(lanes(3, quiet=SPARE - 1), streams=1), Verdict()),
        (Seen(lanes(3, quiet=SPARE), streams=1, waiting=FULL), Verdict()),  # about to be needed
        (
            Seen((UP, BEHIND), streams=1),
            Verdict(0, (2,)),
        ),  # a lane that fell behind is replaced, not repaired
        (Seen((BEHIND,), streams=1), Verdict(1)),  # and kept until another one is up
        (Seen((CUT,), streams=1), Verdict()),  # no network: it comes back with it
        (Seen((UP, CUT), streams=1), Verdict()),
        (Seen((UP,), unused=LAST), Verdict(0, (1,))),
        (Seen((UP,), unused=LAST - 1), Verdict()),
        (Seen((UP,), unused=LAST, is_wanted=True), Verdict()),
        (Seen(streams=1, failures=3, since_failure=retry_after(3) - 0.1), Verdict()),
        (Seen(streams=1, failures=3, since_failure=retry_after(3)), Verdict(1)),
    ],
)
def test_what_is_said(seen: Seen, said: Verdict) -> None:
    """One lane while quiet, more by need, none for nobody, and no storm of calls."""
    assert verdict(seen) == said


def test_failures_are_retried_ever_later_and_for_ever() -> None:
    assert [retry_after(n) for n in (1, 2, 3, 6, 60)] == [1, 2, 4, 30, 30]
