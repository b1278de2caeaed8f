"""The program of jobs, run as a box runs it, in a home of its own."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from devboxd.boxside.script import load_program


def ask(home: Path, **request: Any) -> dict[str, Any]:
    line = [sys.executable, "-c", load_program("jobs"), load_program("jobs"), json.dumps(request)]
    environment = {**os.environ, "HOME": str(home), "PATH": f"{home / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(line, capture_output=True, text=True, check=True, env=environment)
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_a_job_that_tmux_does_not_begin_is_none(tmp_path: Path) -> None:
    """It is refused, so nobody may be told of its end later."""
    tmux = tmp_path / "bin" / "tmux"
    tmux.parent.mkdir()
    tmux.write_text("#!/bin/sh\necho no server >&2\nexit 1\n")
    tmux.chmod(0o755)
    answer = ask(tmp_path, verb="run", id="abc123", session="devbox", command=["true"])
    assert answer == {"problem": "tmux: no server"}
    assert ask(tmp_path, verb="jobs") == {"jobs": []}
    assert ask(tmp_path, verb="wait", seconds=0) == {"ended": [], "running": 0}


def test_a_job_that_has_ended_does_not_run_because_somebody_else_looks(tmp_path: Path) -> None:
    """The list, the log and whoever waits look at the same time."""
    job = tmp_path / ".devbox" / "jobs" / "abc123"
    job.mkdir(parents=True)
    (job / "job.json").write_text(json.dumps({"command": ["true"], "since": 1.0}))
    (job / "status.json").write_text(json.dumps({"status": 0, "at": 2.0}))
    (job / "lock").touch()
    with open(job / "lock") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        assert [one["runs"] for one in ask(tmp_path, verb="jobs")["jobs"]] == [False]
    with open(job / "lock", "w") as supervised:
        fcntl.flock(supervised, fcntl.LOCK_EX)
        assert [one["runs"] for one in ask(tmp_path, verb="jobs")["jobs"]] == [True]


def test_a_job_is_begun_by_the_tmux_that_an_attach_would_use(tmp_path: Path) -> None:
    """One that its user has installed comes first: the system's may not fit the server of that."""
    (tmp_path / ".local").mkdir()
    for folder, says in ((tmp_path / ".local" / "bin", "its own"), (tmp_path / "bin", "the system's")):
        folder.mkdir()
        (folder / "tmux").write_text(f"#!/bin/sh\necho {says!r} >&2\nexit 1\n")
        (folder / "tmux").chmod(0o755)
    answer = ask(tmp_path, verb="run", id="abc123", session="devbox", command=["true"])
    assert answer == {"problem": "tmux: its own"}
