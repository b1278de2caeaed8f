"""The user's own program for notices: it gets the texts as arguments, may fail, and may not hang."""

from __future__ import annotations

from pathlib import Path

import pytest

from devboxd.host import notify
from devboxd.host.notify import tell


async def test_title_and_text_come_behind_the_arguments_and_no_shell_reads_them(tmp_path: Path) -> None:
    program = tmp_path / "tell"
    program.write_text(f'#!/bin/sh\nprintf "%s|" "$@" >{tmp_path}/said\n')
    program.chmod(0o755)
    assert await tell([str(program), "-x"], "api stops", "idle; $(touch /tmp/x) `id`\x1b[2J\nsecond")
    assert (tmp_path / "said").read_text() == "-x|api stops|idle; $(touch /tmp/x) `id` [2J second|"


@pytest.mark.parametrize("text", ["exit 3", "sleep 60"])
async def test_a_program_that_fails_or_hangs_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(notify, "PATIENCE", 0.5)
    program = tmp_path / "tell"
    program.write_text(f"#!/bin/sh\nexec {text}\n" if "sleep" in text else f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    assert not await tell([str(program)], "a", "b")


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    assert not await tell([str(tmp_path / "nothing")], "a", "b")
