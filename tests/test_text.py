"""Foreign text can neither drive a terminal nor deceive, and times are read as they are written."""

from __future__ import annotations

import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devboxd.text import LINE_MAX, MARKS_MAX, one_line, parse_rfc3339, parse_span, printable, rfc3339

# Each is a way to make a line on a terminal say something that it does not.
HOSTILE = {
    "an escape sequence": "\x1b[2J",
    "C1's own CSI": "\x9b2J",
    "C1's own OSC": "\x9d0;title\x9c",
    "a title by OSC": "\x1b]0;owned\x07",
    "a carriage return over the line": "web\rapi",
    "a backspace": "web\b\b\bapi",
    "delete": "\x7f",
    "next line": "\x85",
    "a right-to-left override": "\u202egnp.exe",
    "a left-to-right override": "\u202d",
    "an embedding": "\u202b",
    "the end of an embedding": "\u202c",
    "isolates": "\u2066\u2067\u2068\u2069",
    "marks of direction": "\u200e\u200f\u061c",
    "zero width": "we\u200bb\u200c\u200d\u2060\ufeff",
    "a soft hyphen": "we\u00adb",
    "line and paragraph separators": "a\u2028b\u2029c",
    "deprecated format characters": "\u206a\u206f",
    "interlinear annotations": "\ufff9\ufffa\ufffb",
    "tag characters": "\U000e0041\U000e007f",
    "Hangul fillers, which are letters": "\u115f\u1160\u3164\uffa0",
    "the empty braille pattern": "\u2800",
    "a combining joiner": "a\u034fb",
    "Mongolian selectors": "\u180b\u180e",
    "half a surrogate pair": "\ud800",
    "private use": "\ue0a0",
    "what is no character": "\ufffe\U0010ffff",
    "a shorthand control": "\U0001bca0",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_nothing_that_drives_or_deceives_is_left(text: str) -> None:
    """A box's name or message must not clear the screen, or make ``rm`` look like ``ls``."""
    shown = printable(f"a{text}b")
    assert shown.isprintable()
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for c in shown)
    assert shown != f"a{text}b"
    assert one_line(f"a{text}b").isprintable()


@pytest.mark.parametrize(
    "text", ["", "api", "My Dev Box", "büro", "bu\u0308ro", "開発", "мой", "web/prod", "a—b…", "🚀"]
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text
    assert one_line(text) == text


@pytest.mark.parametrize("text", ["ไม่ใช่", "שָׁלוֹם", "Tiếng Việt", "བོད་སྐད་", "नमस्ते", "مُحَمَّد"])
def test_scripts_with_marks_stay_as_they_are(text: str) -> None:
    """Decomposed Vietnamese, pointed Hebrew: up to a few marks on a letter are language."""
    assert printable(text) == text
    assert printable(unicodedata.normalize("NFD", text)) == unicodedata.normalize("NFD", text)


def test_a_tower_of_accents_is_cut() -> None:
    """A hundred accents on one letter write over the lines above it."""
    assert printable("a" + "\u0301" * 100 + "b") == "a" + "\u0301" * MARKS_MAX + "b"


def test_what_is_invisible_is_shown_to_be_there() -> None:
    """Else ``web`` and a box that only looks like ``web`` cannot be told apart."""
    assert printable("we\u200bb") == "we\ufffdb"
    assert printable("we\tb\x1b") == "we b "


def test_what_is_kept_is_kept() -> None:
    assert printable("a\nb\tc\rü", keep="\n\t") == "a\nb\tc ü"
    assert printable("a\nb\tc\r", keep="\n\t") == "a\nb\tc "


def test_one_line_is_one_line_and_bounded() -> None:
    assert one_line("  a\r\n\n b \u2028 c\x00") == "a b c"
    assert one_line("x" * 1000) == "x" * (LINE_MAX - 1) + "…"
    assert one_line("abcdef", 3) == "ab…"


@given(st.text(st.characters(codec=None), max_size=60))
def test_no_text_at_all_gets_through(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    shown.encode()


def test_a_megabyte_takes_no_time() -> None:
    """Twice the text may take twice the time; a quadratic step would freeze every session."""
    began = time.perf_counter()
    printable("é\u0301\x1b" * 350_000)
    assert time.perf_counter() - began < 5


def test_times_are_written_to_the_millisecond_in_utc() -> None:
    assert rfc3339(1795168800.0) == "2026-11-20T10:00:00.000Z"
    assert rfc3339(1795168800.9996) == "2026-11-20T10:00:00.999Z"
    assert rfc3339(1795168800.9996, millis=False) == "2026-11-20T10:00:00Z"


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-20T10:00:00Z",
        "2026-11-20T10:00:00.000Z",
        "2026-11-20T10:00:00+00:00",
        "2026-11-20T11:00:00+01:00",
        "2026-11-20T10:00:00UTC",
        "2026-11-20T10:00:00",
        " 2026-11-20T10:00:00Z\n",
    ],
)
def test_times_are_read_in_every_spelling_of_aws_tools(text: str) -> None:
    """The SSO cache is written by three tools in three ways."""
    assert parse_rfc3339(text) == 1795168800.0


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01T00:00:00Z", "1795168800"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_rfc3339(text)


@given(st.integers(0, 253402300799_999))
def test_a_written_time_is_read_again(millis: int) -> None:
    assert abs(parse_rfc3339(rfc3339(millis / 1000)) - millis / 1000) < 0.0011


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30m", 1800), ("30min", 1800), ("1h30m", 5400), (" 1 H 30 min", 5400), ("2d", 172800), ("0s", 0)],
)
def test_time_spans_are_read(text: str, seconds: float) -> None:
    assert parse_span(text) == seconds


@given(text=st.text("0123456789smindhM x-.\n\u0663", max_size=24))
def test_a_time_span_is_what_its_bounds_let_it_be(text: str) -> None:
    """Each option has its own: what one refuses it refuses, whatever the others take."""
    plain = text.strip().lower().replace(" ", "")
    usual = re.fullmatch(r"(?:\d{1,9}(?:s|min|m|h|d)){1,4}", plain)
    assert (parse_span(text) is not None) is (usual is not None)
    narrow = re.fullmatch(r"\d{1,4}[mhd]", text)
    found = parse_span(text, units=("m", "h", "d"), parts=1, digits=4, exact=True)
    assert (found is not None) is (narrow is not None)


@pytest.mark.parametrize("text", ["1" * 200_000, "1" * 5000 + "m", "1m" * 100_000])
def test_a_long_text_is_no_time_span(text: str) -> None:
    assert parse_span(text) is None
