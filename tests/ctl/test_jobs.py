"""What a job wrote, as a person is shown it."""

from __future__ import annotations

import pytest

from devboxctl.commands.jobs import HELD, Text


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (b"plain\r\n", "plain\n"),
        (b"no end", "no end\n"),
        (b"", ""),
        ("gr\u00fc\u00df\r\n".encode(), "gr\u00fc\u00df\n"),
        (b"\x1b[1;31mred\x1b[0m\r\n", "red\n"),
        (b"\x1b]0;title\x07x\x1b]0;title\x1b\\y\r\n", "xy\n"),
        (b"10%\r50%\r100%\r\n", "100%\n"),  # as it looks at its end
        (b"\x1b(Ba\x1b7b\x1bMc\n", "abc\n"),
        (b"\x00\x9b\xff\n", " \ufffd\ufffd\n"),
        (b"\x1b]0;never ends\n", " ]0;never ends\n"),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_output_of_a_terminal_becomes_text(output: bytes, shown: str, size: int) -> None:
    """However it is cut."""
    text = Text()
    found = "".join(text.feed(output[at : at + size]) for at in range(0, len(output), size))
    assert found + text.feed(b"", final=True) == shown


def test_a_line_that_never_ends_is_not_kept() -> None:
    text = Text()
    assert text.feed(b"x" * HELD) == ""
    assert len(text.feed(b"x")) == HELD + 1
