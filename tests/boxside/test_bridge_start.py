"""The program that brings the bridgehead to a box, as a process with a home of its own."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import zlib
from pathlib import Path

from devboxd.boxside.script import load_program

PROGRAM = "import sys; print('runs', sys.argv[1])\n"
DIGEST = hashlib.sha256(PROGRAM.encode()).hexdigest()
OLD = 8 * 86400.0


def start(home: Path) -> list[str]:
    """What it says to somebody who sends what it needs."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", load_program("bridge_start"), DIGEST],
        input=base64.b64encode(zlib.compress(PROGRAM.encode())) + b"\n",
        capture_output=True,
        env={**os.environ, "HOME": str(home)},
        timeout=60,
        check=True,
    )
    return done.stdout.decode().splitlines()


def test_a_program_is_sent_once(tmp_path: Path) -> None:
    assert start(tmp_path) == ["need", "have", "runs start"]
    assert start(tmp_path) == ["have", "runs start"]


def test_programs_of_versions_that_are_gone_are_taken_away(tmp_path: Path) -> None:
    """And no others: another laptop's version may be older than ours."""
    folder = tmp_path / ".devbox"
    folder.mkdir(0o700)
    old, used, other = folder / "bridgehead-0.py", folder / "bridgehead-1.py", folder / "bridge-1.json"
    for path in (old, used, other):
        path.write_text("x")
    now = old.stat().st_mtime
    for path in (old, other):
        os.utime(path, (now - OLD, now - OLD))
    assert start(tmp_path)[-1] == "runs start"
    kept = folder / f"bridgehead-{DIGEST[:16]}.py"
    assert sorted(folder.iterdir()) == sorted([used, other, kept])


def test_a_program_that_is_in_use_does_not_grow_old(tmp_path: Path) -> None:
    start(tmp_path)
    kept = tmp_path / ".devbox" / f"bridgehead-{DIGEST[:16]}.py"
    before = kept.stat().st_mtime
    os.utime(kept, (before - OLD, before - OLD))
    start(tmp_path)
    assert kept.stat().st_mtime >= before - 1
