"""A spot box that EC2 takes back, with the installed daemon and command line: what its hook wrote is in the box that comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.kit import World, until

LONG = 120.0
HOOK = """#!/bin/sh
echo "$HOME" >> ~/saved
"""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A world of its own, with a project on a spot box."""
    with World() as made:
        words = ("launch", "work", "--spot", "--type", "t4g.small", "--instance-profile", "devbox")
        done = made.run(*words, timeout=LONG)
        assert done.returncode == 0, done.stderr.decode() + made.log[-3000:]
        until(lambda: made.run("exec", "work", "true").returncode == 0, "the box answers", LONG)
        yield made


def told(world: World, text: str) -> list[str]:
    return [line for line in world.ok("events").splitlines() if text in line]


def conditions(world: World) -> list[str]:
    return [one["code"] for one in world.json("status")["conditions"]]


def test_what_a_hook_saves_after_the_notice_is_in_the_box_that_comes_back(world: World) -> None:
    home = Path(world.ok("exec", "work", "sh", "-c", "echo ~").strip())
    folder = home / ".config" / "devbox" / "pre-stop.d"
    folder.mkdir(parents=True)
    (folder / "save").write_text(HOOK)
    (folder / "save").chmod(0o755)
    before = world.json("show", "work")
    until(lambda: world.json("why", "work").get("spot"), "the box tells what it is", LONG)
    assert world.json("show", "work")["spot"] == "EC2 gives notice before it takes it back; there is none"

    world.fault("box-rebalance")
    until(lambda: told(world, "EC2 is likelier than before to take work back"), "the risk is told", LONG)
    assert conditions(world) == ["box-at-risk"]

    world.fault("box-notice", seconds=3600)
    until(lambda: told(world, "work is taken back by EC2 at "), "the notice is told", LONG)
    until(lambda: told(world, "its pre-stop hooks have run"), "the box is ready", LONG)
    assert conditions(world) == ["box-reclaimed"]
    assert "EC2 takes it back at " in world.ok("why", "work")
    assert (home / "saved").read_text() == f"{home}\n"

    world.fault("clear")
    until(lambda: told(world, "EC2 does not take work back after all"), "it was withdrawn", LONG)
    assert conditions(world) == []

    world.fault("box-notice", seconds=3600)
    until(lambda: len(told(world, "its pre-stop hooks have run")) == 2, "the second notice counts", LONG)
    world.fault("box-interrupt", box="work")
    until(lambda: conditions(world) == [], "the box has ended", LONG)

    def came_back() -> bool:
        found = world.json("show", "work")
        return bool(found["phase"] == "running" and found["id"] != before["id"])

    until(came_back, "it comes back", LONG)
    until(lambda: world.run("exec", "work", "true").returncode == 0, "the box answers", LONG)
    assert world.ok("exec", "work", "sh", "-c", "wc -l < ~/saved").strip() == "2"
    until(lambda: world.json("why", "work")["verdict"], "it was looked at", LONG)
    assert world.json("show", "work").get("spot") is None, "the next one is on demand"
