"""The line about a session: when it shows, what it says, and that it always goes again."""

from __future__ import annotations

import pytest

from devboxctl.fast.status import BOTTOM, LINE, NOTICE, TITLE, WORDS, Status


class Told(list[str]):
    """What was said in words."""


def status(place: str = BOTTOM, *, after: float = 0.3) -> tuple[Status, Told]:
    told = Told()
    return Status(place, told.append, after=after, leaves="; ~. leaves"), told


@pytest.mark.parametrize(
    ("place", "drawn", "erased"),
    [
        (BOTTOM, b"\x1b[24;1H\x1b[0;7m devbox: no network; ~. leaves", b"\x1b[24;1H\x1b[0m\x1b[2K"),
        (TITLE, b"\x1b[22;2t\x1b]2;devbox: no network; ~. leaves", b"\x1b[23;2t"),
        (LINE, b"\r\x1b[0mdevbox: no network; ~. leaves\x1b[K", b"\r\x1b[K"),
    ],
)
def test_trouble_is_shown_when_it_lasts_and_taken_away_when_it_is_over(
    place: str, drawn: bytes, erased: bytes
) -> None:
    """A link that is back in a blink says nothing."""
    line, told = status(place)
    assert line.set("online", "", 0.0) == b""
    assert line.set("reconnecting", "no network", 10.0) == b""
    assert [line.due] == [10.3]
    assert drawn in line.draw(10.3)
    assert line.is_shown
    assert [line.due] == [11.3], "the seconds count"
    assert erased in line.set("online", "", 12.0)
    assert line.erased, "what stood there is to be drawn again"
    assert [line.due] == [None]
    assert not told


def test_a_short_trouble_is_never_drawn() -> None:
    """Nor does its end take anything away."""
    line, _ = status()
    line.set("online", "", 0.0)
    line.set("reconnecting", "no network", 10.0)
    assert line.set("online", "", 10.2) == b""
    assert (line.due, line.erased) == (None, False)


def test_the_seconds_are_said_once_and_count_from_the_state_not_from_its_text() -> None:
    """The daemon's own count in the text doubled them."""
    line, _ = status()
    line.set("starting", "not connected yet", 0.0)
    assert b"not connected yet (5 s)" in line.draw(5.0)
    line.set("starting", "still not connected", 6.0)
    assert b"still not connected (9 s)" in line.draw(9.0)


@pytest.mark.parametrize("state", ["reopening", "waiting", "lost"])
def test_that_keys_are_ignored_is_said(state: str) -> None:
    """Or their typist types on."""
    line, _ = status()
    line.set(state, "gone", 0.0)
    assert line.drops_keys
    assert b"; keys are ignored" in line.draw(1.0)
    line.set("online", "", 2.0)
    assert not line.drops_keys


def test_output_makes_the_line_go_and_means_that_all_is_well() -> None:
    """What is shown is what is typed at again."""
    line, _ = status()
    line.set("reopening", "gone", 0.0)
    line.draw(1.0)
    assert line.make_way(2.0)
    assert (line.state, line.due, line.drops_keys) == ("online", None, False)
    assert line.make_way(3.0) == b""


def test_a_notice_stays_for_a_while_and_comes_back_after_output() -> None:
    """A mux draws all the time."""
    line, _ = status()
    line.set("online", "", 0.0)
    line.tell("keys were dropped", 10.0)
    assert line.due == 10.0
    assert b"keys were dropped" in line.draw(10.0)
    assert line.make_way(10.1)
    assert line.due == 10.4
    assert b"keys were dropped" in line.draw(10.4)
    assert line.set("online", "", 10.5) == b"", "no news is no reason to take it away"
    assert line.due is not None
    assert b"\x1b[2K" in line.draw(10.0 + NOTICE)
    assert line.due is None


def test_trouble_after_a_notice_is_shown_as_trouble() -> None:
    """And the other way round."""
    line, _ = status()
    line.set("reconnecting", "no network", 0.0)
    line.draw(1.0)
    line.tell("12 bytes may not have arrived", 2.0)
    assert b"12 bytes" in line.draw(2.0)
    assert b"no network" in line.draw(2.0 + NOTICE)


def test_without_a_terminal_each_piece_of_news_is_one_line_of_words() -> None:
    """Not one a second, and not the same twice."""
    line, told = status(WORDS)
    line.set("starting", "", 0.0)
    line.set("starting", "not connected yet", 1.0)
    line.set("starting", "not connected yet", 2.0)
    line.set("online", "", 3.0)
    line.set("reconnecting", "", 4.0)
    line.tell("a notice", 5.0)
    line.set("online", "", 6.0)
    assert told == ["not connected yet", "reconnecting", "a notice", "back"]
    assert line.due is None
