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

    away = world.run("exec", "work", "true")
    assert (away.returncode, b"devboxctl up work" in away.stderr) == (255, True), away.stderr

    with world.terminal("attach", "work", "--mux", "none") as terminal:
        terminal.until(r"Bring it up\? \[Y/n\]")
        terminal.line("y")
        terminal.until("launching", LONG)
        terminal.until("the box boots", LONG)
        assert terminal.shell_pid()
        terminal.line("exit")
        assert terminal.wait() == 0
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


def test_a_lost_list_of_projects_is_made_anew_out_of_the_tags(world: World) -> None:
    """The disk of the laptop is gone, and with it the only place where it was written which boxes there are."""
    world.ok("launch", "work", "--type", "t4g.small", "--instance-profile", "devbox", timeout=LONG)
    before = project(world)
    world.stop_daemon()
    for file in (world.folder / "state" / "devbox").glob("projects.db*"):
        file.unlink()
    world.start_daemon()
    assert world.json("projects")["projects"] == []
    assert [one["id"] for one in world.json("rebuild")["projects"]] == [before["id"]]
    assert project(world)["instance"] == before["instance"]


def test_the_policy_is_that_of_the_account(world: World) -> None:
    """What an administrator pastes must hold here, and nowhere else."""
    here = world.ok("iam", "policy", "--for", "user")
    assert ":us-east-1:" in here or "us-east-1" in here
    assert json.loads(here)["Version"] == "2012-10-17"
    assert json.loads(world.ok("iam", "policy", "--for", "box", "--anywhere"))["Statement"]
    assert world.run("iam", "policy", "--for", "nobody").returncode == 2


def test_a_user_sets_up_and_launches_with_nothing_in_the_account(world: World) -> None:
    """The other first day: no administrator, the default VPC, and a profile that the user makes."""
    missing = world.run("init", "user", timeout=LONG)
    assert (missing.returncode, b"--create-profile" in missing.stdout) == (1, True), missing
    made = world.ok("init", "user", "--create-profile", timeout=LONG)
    assert 'projects.instance_profile = "devbox-box"' in made
    assert "nothing has to be written" in world.ok("init", "user", timeout=LONG)
    world.ok("launch", "work", "--type", "t4g.small", timeout=LONG)
    assert project(world)["phase"] == "running"
    table = world.run("init", "user", "--store", "dynamodb", timeout=LONG)
    assert (table.returncode, b"init account" in table.stdout) == (1, True), table
    (stored, other) = world.json("store", "show")["stores"]
    assert (stored["engine"], stored["projects"], other["failure"]["code"]) == (
        "sqlite",
        ["work"],
        "store-failed",
    )


def test_an_account_is_set_up_and_then_launched_into(world: World) -> None:
    """The first day of a new user: nothing is there, and nobody wants to read about VPCs."""
    dry = world.ok("init", "account", "--dry-run", timeout=LONG)
    assert "nothing was changed" in dry
    made = world.ok("init", "account", timeout=LONG)
    assert "AWS::IAM::InstanceProfile" in made
    assert made.rstrip().endswith("deployed")
    world.ok("launch", "work", "--type", "t4g.small", timeout=LONG)  # the profile is the account's
    assert project(world)["phase"] == "running"


def test_a_project_is_compared_taken_back_and_carried_to_another_machine(world: World) -> None:
    """generations show and diff, ops cancel, export and import, up with a folder: each as a user types it."""
    words = ("launch", "work", "--type", "t4g.small", "--instance-profile", "devbox")
    world.ok(*words, timeout=LONG)
    world.ok("terminate", "--no-verify", "work", timeout=LONG)
    nothing = world.run("ops", "cancel", "work")
    assert (nothing.returncode, b"nothing to cancel" in nothing.stderr) == (5, True), nothing
    shown = world.ok("generations", "show", "work", "1")
    assert "/dev/sda1" in shown
    assert "arm64" in shown
    world.ok("resize", "work", "--disk", "60", timeout=LONG)
    world.ok("up", "work", timeout=LONG)
    world.ok("terminate", "work", timeout=LONG)
    difference = world.json("generations", "diff", "work", "1")
    assert difference["gib"] == [40, 60]
    assert "architecture" not in difference

    file = world.folder / "work.json"
    world.ok("export", "work", str(file))
    again = world.run("import", str(file))
    assert (again.returncode, b"already" in again.stderr) == (5, True), again
    world.stop_daemon()
    for each in (world.folder / "state" / "devbox").glob("projects.db*"):
        each.unlink()
    world.start_daemon()
    assert "ready" in world.ok("import", str(file), timeout=LONG)
    assert [one["number"] for one in world.json("generations", "ls", "work")["generations"]] == [2, 1]

    here = world.folder / "repository"
    here.mkdir()
    (here / "devbox.toml").write_text('box = "work"\n')
    going = world.start("up", str(here), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(lambda: project(world)["phase"] == "launching", "the launch began", LONG)
    cancelled = world.ok("ops", "cancel", "work", timeout=LONG)
    assert "ready" in cancelled
    _, err = going.communicate(timeout=LONG)
    assert (going.returncode, b"does not run" in err) == (1, True), err
    (here / "devbox.toml").write_text('box = "other"\n')
    unknown = world.run("up", str(here))
    assert (unknown.returncode, b"--launch" in unknown.stderr) == (2, True), unknown
    bad = world.run("import", str(here / "devbox.toml"))
    assert (bad.returncode, b"no export" in bad.stderr) == (2, True), bad
    with world.terminal("attach", "work", "--up", "--mux", "none") as terminal:
        terminal.until("bringing it up", LONG)
        assert terminal.shell_pid()
        terminal.line("exit")
        assert terminal.wait() == 0
