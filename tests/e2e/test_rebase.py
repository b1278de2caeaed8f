"""A newer base image under a project, with the installed daemon and command line; the copying is the real program's."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.kit import World, until

LONG = 120.0  # seconds for one command: the simulated EC2 is fast, the daemon's looks are not


@pytest.fixture
def world() -> Iterator[World]:
    """A world of its own: its EC2 begins empty."""
    with World() as made:
        yield made


def project(world: World) -> Any:
    return world.json("projects", "work")


def shell(world: World, text: str, stdin: bytes | None = None) -> str:
    done = world.run("exec", "work", "sh", "-c", text, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def test_the_home_is_on_the_new_image_though_the_daemon_was_killed_and_there_is_a_way_back(
    world: World,
) -> None:
    """Files, modes and links; what the new system had is kept aside; then back, as if nothing had been."""
    launch = (
        "launch",
        "work",
        "--type",
        "t4g.small",
        "--instance-profile",
        "devbox",
        "--base",
        "ubuntu-24.04",
    )
    world.ok(*launch, timeout=LONG)
    shell(
        world,
        "mkdir -p src && echo main > src/main.c && chmod 640 src/main.c && ln -s src/main.c link && echo mine > .bashrc",
    )
    before = project(world)

    asked = world.run("rebase", "work", "--onto", "debian-13")
    assert (asked.returncode, b"--yes says that you mean it" in asked.stderr) == (2, True), asked
    with world.terminal("rebase", "work", "--onto", "debian-13") as terminal:
        terminal.until(r"comes back on debian-13 with its\s+homes\. Go on\? \[y/N\]")
        terminal.line("n")
        assert terminal.wait() == 1
    nothing = world.run("rebase", "work", "--onto", "no-such-image", "--yes")
    assert (nothing.returncode, b"no base image named" in nothing.stderr) == (2, True), nothing
    plan = world.json("rebase", "work", "--onto", "debian-13", "--dry-run")
    called = [one["operation"] for one in plan["calls"]]
    assert called[:2] == ["StopInstances", "CreateImage"]
    assert {"RunInstances", "CreateVolume", "AttachVolume", "DetachVolume", "DeleteVolume"} <= set(called)
    assert "AttachVolume" in world.ok("rebase", "work", "--onto", "debian-13", "--dry-run")
    assert project(world) == before

    going = world.start(
        "rebase", "work", "--onto", "debian-13", "--yes", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    until(lambda: project(world)["phase"] == "launching", "the launch from the new image began", LONG)
    world.kill_daemon(signal.SIGKILL)
    out, err = going.communicate(timeout=LONG)
    assert going.returncode == 0, err.decode() + world.log[-3000:]
    assert b"debian-13" in out
    now = project(world)
    assert (now["phase"], now["base"], now["way_back"]) == ("running", "debian-13", 1)
    assert "the homes of generation 1 are here" in now["rebase"]
    assert now["instance"] != before["instance"]

    assert shell(world, "cat link; stat -c %a src/main.c; cat .bashrc").split() == ["main", "640", "mine"]
    kept = now["rebase"].rpartition(" is in ")[2].partition(";")[0]
    assert ".bashrc" in shell(world, f"ls -A {kept}")
    shown = world.json("show", "work")
    assert (shown["base"], shown["way_back"], shown["rebase"]) == ("debian-13", 1, now["rebase"])
    (one,) = world.json("generations", "ls", "work")["generations"]
    assert (one["number"], one["base"], one["pins"]) == (1, "ubuntu-24.04", ["user"])
    assert one["label"] == "before the rebase onto debian-13"
    assert world.json("cost", "work")["costs"][0]["base"] == "debian-13"
    again = world.json("rebase", "work", "--onto", "debian-13", "--dry-run")
    assert again["project"]["base"] == "debian-13"

    shell(world, "echo later > src/later.c")
    world.ok("launch", "work", "--from", "1", timeout=LONG)
    back = project(world)
    assert (back["base"], back["generation"], back.get("rebase", "")) == ("ubuntu-24.04", 3, "")
    assert shell(world, "ls src; cat .bashrc").split() == ["main.c", "mine"]
