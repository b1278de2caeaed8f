"""Agents with the installed daemon and command line, on a simulated box: hooks that are really run, notices that are really told."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devboxd.text import parse_rfc3339
from tests.e2e.kit import World, until

LONG = 120.0
AGENT = """#!/bin/sh
while [ ! -e ~/end ]; do
  for event in ~/events/*; do
    [ -e "$event" ] || continue
    sh -c "$(cat ~/hooks/$(basename "$event" | cut -d . -f 2))" <"$event"
    rm "$event"
  done
  sleep 0.05
done
"""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A world of its own, with a project."""
    with World() as made:
        done = made.run("launch", "work", "--type", "t4g.small", "--instance-profile", "devbox", timeout=LONG)
        assert done.returncode == 0, done.stderr.decode() + made.log[-3000:]
        until(lambda: made.run("exec", "work", "true").returncode == 0, "the box answers", LONG)
        yield made


def home(world: World) -> Path:
    return Path(world.ok("exec", "work", "sh", "-c", "echo ~").strip())


def told(world: World, text: str) -> list[str]:
    return [line for line in world.ok("events").splitlines() if text in line]


def remembered(world: World) -> float:
    """Since when what was told last was so, as the next daemon will read it."""
    with contextlib.closing(sqlite3.connect(world.folder / "state" / "devbox" / "projects.db")) as store:
        (row,) = store.execute("SELECT body FROM item WHERE key LIKE 'I#%'").fetchall()
    return float(json.loads(row[0]).get("agents", 0.0))


def test_an_agent_that_begins_to_wait_is_told_within_five_seconds(world: World) -> None:
    done = world.json("agent", "setup", "work", "--dry-run")
    assert all(one["changed"] for one in done["files"])
    done = world.json("agent", "setup", "work")
    assert not [one for one in done["files"] if one["problem"]], done
    assert "not set up" not in world.ok("agent", "status", "work")

    folder = home(world)
    for name in ("hooks", "events", "bin"):
        (folder / name).mkdir()
    settings = json.loads((folder / ".claude" / "settings.json").read_text())
    for event, (group,) in settings["hooks"].items():
        (folder / "hooks" / event).write_text(group["hooks"][0]["command"])
    (folder / "bin" / "claude").write_text(AGENT)
    (folder / "bin" / "claude").chmod(0o755)
    numbers = iter(range(100, 1000))

    def fire(event: str, **fields: Any) -> None:
        path = folder / "events" / f"{next(numbers)}.{event}"
        new = folder / "new"
        new.write_text(json.dumps({"hook_event_name": event, **fields}))
        new.rename(path)
        until(lambda: not path.exists(), "the hook has run")

    world.ok("exec", "work", "sh", "-c", "setsid ~/bin/claude >/dev/null 2>&1 </dev/null &")
    fire("SessionStart", source="startup")
    fire("UserPromptSubmit", prompt="x")
    until(
        lambda: [one["state"] for one in world.json("agent", "status")["agents"]] == ["working"],
        "it is known",
        LONG,
    )
    # On a simulated box it has no terminal: it is seen where it counts as the user's.
    began = time.time()  # noqa: TID251 - as the daemon writes it: asking takes time of its own
    fire(
        "Notification",
        message="Claude needs your permission to use Bash",
        notification_type="permission_prompt",
    )
    until(lambda: told(world, "claude waits for you"), "it is told")
    events = [json.loads(one) for one in world.ok("--json", "events").splitlines()]
    (at,) = [parse_rfc3339(one["time"]) for one in events if "claude waits for you" in one["text"]]
    assert at - began < 5.0
    (line,) = told(world, "claude waits for you")
    assert "work: claude waits for you: Claude needs your permission to use Bash" in line
    assert world.json("show", "work")["agents"].startswith("claude waits for you since ")
    (row,) = world.json("agent", "status", "work")["agents"]
    assert (row["state"], row["name"], row["box"]) == ("waiting", "claude", "work")
    first = until(lambda: remembered(world), "it is written down")
    fire("PostToolUse", tool_name="Bash")
    fire("Stop", last_assistant_message="All pass.")
    until(lambda: told(world, "claude is done: All pass."), "its end is told")
    until(lambda: remembered(world) > first, "and what was told is written down")

    world.kill_daemon()
    world.start_daemon()
    until(lambda: world.json("agent", "status")["agents"], "the next daemon knows it", LONG)
    fire("UserPromptSubmit", prompt="y")
    fire("Stop", last_assistant_message="Once more.")
    until(lambda: told(world, "Once more."), "the next daemon tells", LONG)
    assert not told(world, "All pass."), "what was told is not told again"

    (folder / "end").touch()
    done = world.json("agent", "setup", "work", "--undo")
    assert all(one["changed"] for one in done["files"])
    assert not (folder / ".claude" / "settings.json").exists()


def test_bad_input_is_one_sentence(world: World) -> None:
    for words, status in (
        (("agent", "setup", "work", "--for", "cursor"), 2),
        (("agent", "setup", "nobox"), 3),
        (("agent", "status", "nobox"), 3),
    ):
        done = world.run(*words)
        assert (done.returncode, done.stdout) == (status, b""), (words, done.stderr)
        assert done.stderr.startswith(b"error: "), done.stderr
    folder = home(world)
    (folder / ".claude").mkdir(exist_ok=True)
    (folder / ".claude" / "settings.json").write_text("{,}")
    done = world.run("agent", "setup", "work", "--for", "claude")
    assert done.returncode == 1
    assert b"nothing of it was changed" in done.stdout
    assert (folder / ".claude" / "settings.json").read_text() == "{,}"
