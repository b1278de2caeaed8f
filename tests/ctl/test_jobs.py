"""What a job wrote, as a person is shown it, and as a program."""

from __future__ import annotations

import json

import pytest

from devboxctl.app import run
from devboxctl.commands.jobs import HELD, Text
from tests.ctl.fake_daemon import FakeDaemon, Peer


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


@pytest.mark.parametrize(
    ("words", "pieces"),
    [
        (["logs", "api", "x"], ["b25l"]),
        (["logs", "--follow", "api", "x"], ["b25l", "dHdv", ""]),
        (["run", "api", "--", "make"], ["b25l", "dHdv", ""]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_program_gets_a_line_for_each_piece_until_the_end(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], words: list[str], pieces: list[str]
) -> None:
    """``--follow`` was ignored, and ``run`` printed text."""
    runs = {"id": "x", "command": "make", "state": "running", "size": 6}
    ended = {**runs, "state": "failed", "status": 3}
    told = [
        {"job": runs, "begun": 0, "next": 3, "data": "b25l"},
        {"job": runs, "begun": 3, "next": 6, "data": "dHdv"},
        {"job": runs, "begun": 6, "next": 6},
        {"job": ended, "begun": 6, "next": 6},
    ]

    def log(_peer: Peer) -> object:
        return told.pop(0)

    daemon.routes["GET projects/api/jobs/x/log"] = log
    daemon.routes["POST projects/api/jobs"] = runs
    assert run(["--json", *words]) == (0 if len(pieces) == 1 else 3)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["data"] for line in lines] == pieces
    assert lines[-1]["job"]["state"] == ("running" if len(pieces) == 1 else "failed")
