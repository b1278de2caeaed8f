"""A project from its first launch to its second one, with the installed daemon and command line."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit import World, until

LONG = 120.0  # seconds for one command: the simulated EC2 is fast, the daemon's looks are not


@pytest.fixture
def world() -> Iterator[World]:
    """A world of its own: its EC2 begins empty."""
    with World() as made:
        yield made


def project(world: World, name: str = "work") -> Any:
    return world.json("projects", name)


def disk_of(world: World, instance: str) -> Path:
    """The folder that is a box's disk, as the simulator shows it."""
    boxes = world._far("state")["boxes"]
    return Path(next(box["disk"] for box in boxes if box["id"] == instance))


def digest(world: World) -> str:
    """Of the file on the box, as a command there sees it."""
    return world.ok("exec", "work", "sha256sum", "work.txt").split()[0]


def test_what_was_written_is_there_in_the_next_box_though_the_daemon_was_killed(world: World) -> None:
    """The promise of the whole product: no box is ever lost, by whatever hour the laptop dies."""
    done = world.run("launch", "work", "--type", "t4g.small", "--instance-profile", "devbox", timeout=LONG)
    assert done.returncode == 0, done.stderr.decode() + world.log[-3000:]
    assert b"launching" in done.stderr
    first = project(world)
    assert (first["phase"], first["pending"]) == ("running", False)

    text = b"the work of the first run\n" * 1000
    world.run("exec", "work", "sh", "-c", "cat > work.txt", stdin=text)
    assert digest(world) == hashlib.sha256(text).hexdigest()

    going = world.start("terminate", "work", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(lambda: project(world)["phase"] == "saving", "the save began", LONG)
    world.kill_daemon(signal.SIGKILL)
    out, err = going.communicate(timeout=LONG)  # the command finds the next daemon, which goes on
    assert going.returncode == 0, err.decode() + world.log[-3000:]
    assert b"the next one goes on" in err
    assert "ready" in out.decode()
    saved = project(world)
    assert (saved["phase"], saved["generation"], saved["instance"]) == ("ready", 1, None)
    assert [one["number"] for one in world.json("generations", "ls", "work")["generations"]] == [1]

    world.ok("up", "work", timeout=LONG)
    second = project(world)
    assert second["instance"] != first["instance"]
    assert digest(world) == hashlib.sha256(text).hexdigest()


def test_a_dry_run_shows_the_calls_and_makes_none(world: World) -> None:
    """What costs money is to be seen before it does."""
    words = ("launch", "work", "--type", "t4g.small", "--instance-profile", "devbox", "--dry-run")
    plan = world.json(*words)
    (call,) = [one for one in plan["calls"] if one["operation"] == "RunInstances"]
    assert call["parameters"]["InstanceType"] == "t4g.small"
    assert "RunInstances" in world.ok(*words)
    assert world.json("projects")["projects"] == []


def test_what_is_not_waited_for_is_told_by_the_exit_status(world: World) -> None:
    """A script has to tell "it is up" from "it will be"."""
    words = ("launch", "work", "--type", "t4g.small", "--instance-profile", "devbox", "--no-wait")
    done = world.run("--json", *words, timeout=LONG)
    assert done.returncode == 8, done.stderr
    assert json.loads(done.stdout)["pending"] is True
    assert [one["name"] for one in world.json("ops", "ls")["projects"]] == ["work"]
    assert world.run("up", "nobody").returncode == 3
