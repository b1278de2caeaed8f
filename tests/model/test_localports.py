"""Which numbers mirrors leave to the programs of this machine."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devboxd.model.localports import CONTESTED, LATELY, RENEW, SEEN_MAX, LocalPorts

WALL = 1_700_000_000.0


def test_a_port_is_left_to_a_program_for_a_while_after_it_let_go() -> None:
    """It may be restarted."""
    ports = LocalPorts()
    assert ports.why_not(5432, 0.0, {}, WALL) is None
    ports.looked({5432}, 100.0)
    assert ports.why_not(5432, 100.0, {}, WALL) == "a program of this machine listens on 5432"
    ports.looked((), 101.0)
    assert ports.why_not(5432, 101.0, {}, WALL) == "a program of this machine listened on 5432 a moment ago"
    said = ports.why_not(5432, 100.0 + LATELY, {}, WALL)
    assert said == "a program of this machine listened on 5432 10 minutes ago"
    assert ports.why_not(5432, 101.0 + LATELY, {}, WALL) is None


@pytest.mark.parametrize(
    ("gone", "said"),
    [(-60.0, "a moment ago"), (7_200.0, "2 hours ago"), (CONTESTED, "7 days ago"), (CONTESTED + 1, None)],
)
def test_a_port_that_box_and_machine_both_use_is_left_for_days(gone: float, said: str | None) -> None:
    """After a boot the box may be there first. A clock that was set back makes no difference."""
    why = LocalPorts().why_not(5432, 0.0, {5432: WALL - gone}, WALL)
    assert why == (said and f"a program of this machine listens on 5432 at times, last {said}")


def test_what_both_listen_on_is_written_down_and_renewed_now_and_then() -> None:
    """Not at each look: every one would be a write to the disk."""
    ports = LocalPorts()
    ports.looked({80, 5432, 9000}, 0.0)
    known = ports.contested({5432, 9000, 7}, {}, WALL)
    assert known == {5432: WALL, 9000: WALL}
    assert ports.contested({5432}, known, WALL + RENEW) == {}
    assert ports.contested({5432}, known, WALL + RENEW + 1) == {5432: WALL + RENEW + 1}
    ports.looked((), 1.0)
    assert ports.contested({5432}, {}, WALL) == {}


@settings(deadline=None)
@given(st.lists(st.tuples(st.sets(st.integers(1, 12)), st.floats(0, 400)), max_size=30))
def test_the_rule_is_what_it_says(looks: list[tuple[set[int], float]]) -> None:
    """Against the whole history."""
    ports, at, history = LocalPorts(), 0.0, dict[int, float]()
    for listening, pause in looks:
        at += pause
        ports.looked(listening, at)
        history |= dict.fromkeys(listening, at)
        for port in range(1, 13):
            is_free = port not in history or at - history[port] > LATELY
            assert (ports.why_not(port, at, {}, WALL) is None) is is_free
    assert all(at - when <= LATELY for when in ports.seen.values())


def test_what_is_remembered_has_a_bound() -> None:
    """A test run may open any number of ports."""
    ports = LocalPorts()
    for number in range(20):
        ports.looked(range(1 + 1000 * number, 1001 + 1000 * number), float(number))
    assert len(ports.seen) == SEEN_MAX
    assert 20_000 in ports.seen
    assert 1 not in ports.seen
