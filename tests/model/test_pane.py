"""What may be typed into a pane, and which one is meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from devboxd.errors import BadRequest
from devboxd.model.pane import (
    KEYS,
    KEYS_MOST,
    LINES_MOST,
    TEXT_MOST,
    MuxSession,
    key,
    lines,
    not_found,
    typed,
)


@pytest.mark.parametrize(
    ("name", "tmux", "sent"),
    [
        ("Enter", "Enter", b"\r"),
        ("return", "Enter", b"\r"),
        ("ESC", "Escape", b"\x1b"),
        ("C-c", "C-c", b"\x03"),
        ("ctrl-C", "C-c", b"\x03"),
        ("^D", "C-d", b"\x04"),
        ("m-x", "M-x", b"\x1bx"),
        ("shift-tab", None, b""),
        ("S-Tab", "BTab", b"\x1b[Z"),
        ("up", "Up", b"\x1b[A"),
        ("F1", "F1", b"\x1bOP"),
        ("f12", "F12", b"\x1b[24~"),
        ("F13", None, b""),
        ("C-", None, b""),
        ("", None, b""),
        ("-X", None, b""),
    ],
)
def test_keys_have_the_names_that_people_write(name: str, tmux: str | None, sent: bytes) -> None:
    if tmux is None:
        with pytest.raises(BadRequest):
            key(name)
    else:
        assert (key(name).tmux, bytes(key(name).bytes)) == (tmux, sent)


def test_no_key_is_an_option_of_tmux_or_longer_than_a_word() -> None:
    assert not [one for one in KEYS.values() if one.tmux.startswith("-") or " " in one.tmux]


def test_enter_follows_a_text_and_never_keys_alone() -> None:
    assert [one.name for one in typed("yes", [], enter=True)[1]] == ["Enter"]
    assert [one.name for one in typed("yes", ["Tab"], enter=True)[1]] == ["Tab", "Enter"]
    assert [one.name for one in typed("", ["Tab"], enter=True)[1]] == ["Tab"]
    assert typed("yes", [], enter=False) == ("yes", [])
    assert typed("a\r\nb\rc\n", [], enter=False)[0] == "a\nb\nc\n"


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", []),
        ("x" * (TEXT_MOST + 1), []),
        ("x", ["Tab"] * (KEYS_MOST + 1)),
        ("end of paste \x1b[201~ rm", []),
        ("\x03", []),
        ("\x7f", []),
        ("\x9b201~", []),
        ("x", ["nokey"]),
    ],
)
def test_what_is_no_text_is_not_typed(text: str, keys: list[str]) -> None:
    with pytest.raises(BadRequest):
        typed(text, keys, enter=True)


@given(some.text(max_size=200))
def test_whatever_is_typed_can_end_no_paste(text: str) -> None:
    try:
        found, _ = typed(text, [], enter=True)
    except BadRequest:
        return
    assert not any(ord(one) < 32 and one not in "\n\t" for one in found)


def test_so_many_lines_can_be_asked_for() -> None:
    assert (lines(None), lines(1), lines(LINES_MOST)) == (0, 1, LINES_MOST)
    for wrong in (0, -1, LINES_MOST + 1):
        with pytest.raises(BadRequest):
            lines(wrong)


def test_why_no_pane_is_meant_is_said_with_what_there_is() -> None:
    known = [MuxSession("tmux", "build"), MuxSession("tmux", "te\x1b[31mst")]
    assert not_found("api", None, []).message == "no session of zellij or tmux runs on api"
    assert not_found("api", "x", known).message == "there is no session x on api"
    error = not_found("api", None, known)
    assert error.message == "which session of api? None is called main"
    assert error.hint == "name one of: build, te [31mst"
    many = not_found("api", None, [MuxSession("tmux", f"s{n}") for n in range(40)])
    assert (many.hint or "").endswith("s7, …")
