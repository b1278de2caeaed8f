"""Which session a new connection gets: a table."""

from __future__ import annotations

import pytest

from devboxd.model.pool import BUSY_BYTES, NEW_MOST, SessionSeen, choose

QUIET, BUSY = SessionSeen(connections=3), SessionSeen(rate=BUSY_BYTES + 1.0, connections=1)
TAKES_NEW = SessionSeen(connections=NEW_MOST, new=NEW_MOST)
STARTS, STARTS_FULL = (SessionSeen(is_online=False, connections=new, new=new) for new in (1, NEW_MOST))


@pytest.mark.parametrize(
    ("seen", "most", "chosen"),
    [
        ([], 4, None),
        ([QUIET], 4, 0),
        ([SessionSeen(rate=float(BUSY_BYTES))], 4, 0),
        ([BUSY], 4, None),
        ([BUSY], 1, 0),
        ([BUSY, QUIET], 4, 1),
        ([QUIET, SessionSeen(connections=2)], 4, 1),  # the fewest connections
        ([SessionSeen(connections=1, new=1)], 4, 0),  # two at once are no reason for a session more
        ([TAKES_NEW], 4, None),
        ([TAKES_NEW, QUIET], 4, 1),  # although that has more connections
        ([STARTS], 4, 0),
        ([STARTS_FULL], 4, None),
        ([STARTS_FULL], 1, 0),
        ([QUIET, STARTS], 4, 0),  # no waiting where none is needed
        ([BUSY, STARTS], 4, 1),  # and no session more where one is on its way
        ([BUSY, STARTS_FULL], 4, None),
        ([BUSY, STARTS_FULL], 2, 0),
    ],
)
def test_what_is_chosen(seen: list[SessionSeen], most: int, chosen: int | None) -> None:
    """One session while quiet, one more by need, none beyond the bound."""
    assert choose(seen, most) == chosen


@pytest.mark.parametrize(
    ("count", "most", "sessions"), [(1, 4, 1), (2, 4, 1), (3, 4, 2), (10, 4, 4), (10, 1, 1)]
)
def test_connections_that_start_together_share_as_many_sessions_as_they_need(
    count: int, most: int, sessions: int
) -> None:
    """No session is busy yet, so that all would end on one."""
    load: list[int] = []
    for _ in range(count):
        place = choose([SessionSeen(is_online=False, connections=new, new=new) for new in load], most)
        if place is None:
            load.append(1)
        else:
            load[place] += 1
    assert len(load) == sessions
    assert max(load) - min(load) <= 1, "evenly"
