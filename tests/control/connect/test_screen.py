"""What a session's output means to its terminal: bytes in, events out."""

from __future__ import annotations

import pytest

from devboxd.control.connect.screen import (
    MOST_NOTES,
    MOST_SAID,
    CameUp,
    Event,
    Note,
    Once,
    Screen,
    Show,
    TakesText,
    Unknown,
)

NONCE = "0123456789abcdef"


def mark(words: str) -> bytes:
    return f"\x1b_devbox;{NONCE};{words}\x1b\\".encode()


@pytest.mark.parametrize(
    ("output", "events"),
    [
        (b"banner " + mark("start;tmux;ana") + b"screen", [CameUp("tmux", "ana"), Show(b"screen")]),
        (mark("start;none;ana;silent"), [CameUp("none", "ana", "silent")]),
        (mark("note;term;foo;xterm") + mark("type"), [Note("term", ("foo", "xterm")), TakesText()]),
        (
            b"\x1b[?1049hdrawn" + mark("start;tmux;ana") + b"!",
            [CameUp("tmux", "ana"), Show(b"\x1b[?1049hdrawn"), Show(b"!")],
        ),
        (mark("start;tmux;ana") * 2 + b"x", [CameUp("tmux", "ana"), Show(b"x")]),
        (mark("start;a\x07b;\x9b31m"), [CameUp("a b", "31m")]),
        (mark("odd") * 3, [Unknown()]),
    ],
)
def test_what_a_start_script_and_its_program_say(output: bytes, events: list[Event]) -> None:
    """Marks are ours; what a box puts into them is one harmless line."""
    assert Screen(NONCE).output(output) == events


def test_the_end_of_the_program_and_a_complaint_are_remembered() -> None:
    """They are asked for when the session is over."""
    screen = Screen(NONCE)
    screen.output(b"sh: oops\r\n" + mark("fail;no-mux;zellij;missing") + mark("exit;37"))
    assert screen.problem == ("no-mux", "zellij")
    assert (screen.program_ended, screen.status) == (True, 37)
    assert screen.preamble == "sh: oops"


@pytest.mark.parametrize("status", ["", "x", "-1", "1e3", "\u00b2", "99999999999999999999"])
def test_a_status_that_is_none_is_none(status: str) -> None:
    """And not a crash."""
    screen = Screen(NONCE)
    screen.output(mark(f"exit;{status}"))
    assert screen.program_ended
    assert screen.status is None


def test_a_raw_shell_has_no_marks() -> None:
    """What looks like one is its user's."""
    screen = Screen(NONCE, raw=True)
    assert screen.started
    assert screen.output(mark("exit;0")) == [Show(mark("exit;0"))]
    assert screen.finish() == []


def test_what_was_held_back_is_shown_at_the_end() -> None:
    """The last bytes of a program may look like the beginning of a mark."""
    screen = Screen(NONCE)
    screen.output(mark("start;tmux;ana"))
    assert screen.output(b"bye\x1b_dev") == [Show(b"bye")]
    assert screen.finish() == [Show(b"\x1b_dev")]


def test_notes_without_end_are_not_passed_on() -> None:
    """A box that has a million things to say."""
    events = Screen(NONCE).output(b"".join(mark(f"note;term;{n};xterm") for n in range(1000)))
    assert len([event for event in events if isinstance(event, Note)]) == MOST_NOTES


def test_a_note_is_said_once_and_no_more_than_a_few_are() -> None:
    """The start script of the next session says it again."""
    once = Once()
    assert [once.takes(text) for text in ("a", "b", "a")] == [True, True, False]
    assert sum(once.takes(str(n)) for n in range(1000)) == MOST_SAID - 2
