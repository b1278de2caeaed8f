"""A line of a pane, as a person is shown it: whatever a box sends drives no terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as some

from devboxctl.commands.panes import shown


@pytest.mark.parametrize(
    ("line", "plain", "colored"),
    [
        ("plain ü", "plain ü", "plain ü"),
        ("\x1b[1;31mred\x1b[0m x", "red x", "\x1b[1;31mred\x1b[0m x\x1b[0m"),
        ("\x1b[38:2::1:2:3mtrue", "true", "\x1b[38:2::1:2:3mtrue\x1b[0m"),
        ("\x1b]0;title\x07x\x1b]8;;http://x\x1b\\y", "xy", "xy"),
        ("\x1b[2Jgone\x1b[H", "gone", "gone"),
        ("\x1b]52;c;never ends", "", ""),
        ("\x1bPq\x1b[31mx", "x", "\x1b[31mx\x1b[0m"),
        ("\x9b31mx", " 31mx", " 31mx"),
        ("a\rb\bc\x00", "a b c ", "a b c "),
        ("\u202egnp.exe", "\ufffdgnp.exe", "\ufffdgnp.exe"),
    ],
)
def test_only_colours_are_left_and_only_where_they_are_wanted(line: str, plain: str, colored: str) -> None:
    assert shown(line) == plain
    assert shown(line, color=True) == colored


@given(some.text(alphabet=some.sampled_from("a1;:?[]mPJ\\\x07\x1b\x9b \u202e"), max_size=60))
def test_no_line_drives_the_terminal(line: str) -> None:
    """With colours, each escape left is the beginning of a colour, and the last one puts them back."""
    assert "\x1b" not in shown(line)
    found = shown(line, color=True)
    assert "\x1b" not in re.sub(r"\x1b\[[0-9;:]*m", "", found)
    assert "\x1b" not in found or found.endswith("\x1b[0m")
