"""What outlives the daemon: forwards come back whatever happened to the journal, or one is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit import World, until

NO_FILES = ("sh", "-c", 'ulimit -f 0; exec "$@"', "sh")


def journal(world: World) -> Path:
    """The file."""
    return world.folder / "state" / "devbox" / "journal.json"


def remembered(world: World) -> list[dict[str, Any]]:
    """The forwards in it."""
    state: dict[str, Any] = json.loads(journal(world).read_text())["state"]
    forwards: list[dict[str, Any]] = state["memory"]["forwards"]
    return forwards


@pytest.mark.parametrize("count", [5, 30])
def test_a_forward_in_the_first_moment_costs_none_of_those_that_were_there(world: World, count: int) -> None:
    """The command that starts the daemon is answered when what was there is there again.

    By instance id: nothing has to be looked up, so the request is there before anything else.
    """
    world.forward(*(f"0:{8000 + number}" for number in range(count)))
    before = remembered(world)
    for number in range(2):
        world.stop_daemon()
        world.ok("forward", world.boxes["api"]["id"], f"0:{5 + number}")
        listed = [one["id"] for one in world.json("forward", "ls")["forwards"]]
        assert listed[:count] == [one["id"] for one in before]
        world.stop_daemon()
        assert len(remembered(world)) == count + number + 1
    world.remove_forwards()
    world.stop_daemon()
    assert remembered(world) == []


@pytest.mark.parametrize(
    "spec",
    [
        {"port": 80, "local_path": "~no-such-user/x"},
        {"port": 80, "local_path": "a\0b"},
        {"port": 80, "local_port": 70000},
        {"port": 80, "local_port": 0, "bind": "x" * 70},
        {"port": 80, "local_port": 0, "bind": "x" * 300},
        {"port": "eighty"},
        5,
    ],
    ids=["unknown user", "zero byte", "no port", "long label", "long name", "no number", "no table"],
)
def test_one_impossible_forward_in_the_journal_does_not_keep_the_daemon_from_starting(
    world: World, spec: Any
) -> None:
    """It is named, can be removed, and the others listen again."""
    world.forward("0:81", "0:82")
    world.stop_daemon()
    content = json.loads(journal(world).read_text())
    forwards = content["state"]["memory"]["forwards"]
    forwards.insert(1, forwards[0] | {"id": "impossible", "spec": spec})
    journal(world).write_text(json.dumps(content))
    world.start_daemon()
    [condition] = world.json("status")["conditions"]
    assert condition["code"] in ("forward-failed", "forward-set-aside")
    listed = {one["id"]: one for one in world.json("forward", "ls")["forwards"]}
    assert len(listed) == 3
    bad = listed.pop("impossible")
    assert bad["state"] == "failed"
    assert bad["error"]
    assert {one["state"] for one in listed.values()} == {"listening"}
    world.ok("forward", "rm", "impossible")
    assert world.json("status")["conditions"] == []
    world.stop_daemon()
    assert [one["id"] for one in remembered(world)] == list(listed)
    world.remove_forwards()


def test_a_damaged_journal_costs_only_what_changed_since_the_last_start(world: World) -> None:
    world.forward("0:81", "0:82")
    world.stop_daemon()
    world.start_daemon()
    world.forward("0:83")
    world.stop_daemon()
    journal(world).write_bytes(journal(world).read_bytes()[:-20])
    world.start_daemon()
    [condition] = world.json("status")["conditions"]
    assert condition["code"] == "journal-lost"
    assert "last good copy" in condition["text"]
    assert len(world.json("forward", "ls")["forwards"]) == 2
    world.remove_forwards()


def test_a_disk_that_takes_nothing_is_told_with_the_path() -> None:
    """Full, read-only, or (here) a limit: the daemon works, and nobody believes that it will remember."""
    with World(near=NO_FILES) as world:
        world.ok("exec", "api", "--", "true")
        done = world.run("forward", "api", "0:80")
        assert done.returncode == 0
        assert b"forgotten when the daemon ends" in done.stderr
        assert str(journal(world)).encode() in done.stderr
        found = until(lambda: world.json("status")["conditions"], "a condition is raised")
        assert [one["code"] for one in found] == ["state-not-saved"], found
        assert str(journal(world)) in found[0]["text"]
        assert "ulimit" in found[0]["hint"]
        done = world.run("config-ssh")
        assert done.returncode == 1
        assert b"cannot be written" in done.stderr
        assert str(world.folder).encode() in done.stderr
        assert b"internal" not in done.stderr
        world.ok("daemon", "stop")
