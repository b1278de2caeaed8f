"""``devboxd reconcile`` in a process of its own: it finishes what a killed daemon began, and ends as it should."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session

from tests.e2e.kit import World, until
from tests.e2e.test_projects import LONG, digest, project, world

__all__ = ["world"]

DEVBOXD = str(Path(sys.executable).with_name("devboxd"))


def reconcile(world: World, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DEVBOXD, "reconcile", *words],
        env=world.env,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_save_whose_daemon_was_killed_is_finished_without_one(world: World) -> None:
    """The laptop's daemon never comes back; a timer does, and the work is there in the next box."""
    world.ok("launch", "work", "--type", "t4g.small", "--instance-profile", "devbox", timeout=LONG)
    text = b"the work of the first run\n" * 1000
    world.run("exec", "work", "sh", "-c", "cat > work.txt", stdin=text)
    while_it_runs = reconcile(world, "--once")
    assert while_it_runs.returncode == 5
    assert "another devboxd looks after the projects" in while_it_runs.stderr
    world.run("terminate", "work", "--no-wait", timeout=LONG)
    until(lambda: project(world)["phase"] == "saving", "the save began", LONG)
    world.kill_daemon(signal.SIGKILL)

    done = reconcile(world, "--once", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = lines(done)
    assert {one["kind"] for one in found} >= {"step", "call", "end"}
    assert (found[-1]["kind"], found[-1]["what"], found[-1]["phase"]) == ("end", "done", "ready")
    again = reconcile(world, "--once", "--json", "--project", "WORK")
    assert [one["kind"] for one in lines(again)] == ["wait", "end"]
    assert reconcile(world, "--once", "--project", "nobody").returncode == 3

    world.start_daemon()
    assert (project(world)["phase"], project(world)["generation"]) == ("ready", 1)
    world.ok("up", "work", timeout=LONG)
    assert digest(world) == hashlib.sha256(text).hexdigest()


def test_without_once_it_goes_on_until_it_is_told_to_end(world: World) -> None:
    """A container's stop is SIGTERM: it ends soon, with 0, and says nothing of a traceback."""
    world.ok("launch", "work", "--type", "t4g.small", "--instance-profile", "devbox", timeout=LONG)
    world.run("terminate", "work", "--no-wait", timeout=LONG)
    world.kill_daemon(signal.SIGKILL)
    going = subprocess.Popen(
        [DEVBOXD, "reconcile", "--json"],
        env=world.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert going.stdout is not None
    for line in going.stdout:
        if json.loads(line)["phase"] == "ready":
            break
    going.send_signal(signal.SIGTERM)
    _, errors = going.communicate(timeout=20)
    assert (going.returncode, errors) == (0, "")


def test_its_time_ends_it_with_a_status_of_its_own(world: World) -> None:
    """A timer that sees 8 comes again."""
    world.ok("launch", "work", "--type", "t4g.small", "--instance-profile", "devbox", timeout=LONG)
    world.run("terminate", "work", "--no-wait", timeout=LONG)
    world.kill_daemon(signal.SIGKILL)
    assert reconcile(world, "--once", "--for", "0.5").returncode == 8
    for wrong in (("--for", "0"), ("--for", "long"), ("--what",)):
        assert reconcile(world, *wrong).returncode == 2


FUNCTION = """
import json, sys, time
from devboxd.headless import handler
class Context:
    def __init__(self, seconds):
        self.until = time.monotonic() + seconds
    def get_remaining_time_in_millis(self):
        return int(1000 * (self.until - time.monotonic()))
began = time.monotonic()
said = handler({"detail-type": "EC2 Instance State-change Notification"}, Context(float(sys.argv[1])))
print(json.dumps({**said, "seconds": time.monotonic() - began}))
"""


def function(world: World, seconds: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One call of the function of the account; what it logged, and what it answered."""
    done = subprocess.run(
        [sys.executable, "-c", FUNCTION, str(seconds)],
        env=world.env | {"DEVBOX_TABLE": "devbox", "HOME": "/nonexistent"},
        capture_output=True, text=True, timeout=seconds + LONG, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *logged, answer = [json.loads(line) for line in done.stdout.splitlines()]
    return logged, answer


def expired(world: World) -> None:
    """The lease of the dead daemon runs out soon: a test does not wait for a minute."""
    region = world.env["AWS_REGION"]
    table: Any = Session().create_client("dynamodb", endpoint_url=world.url, region_name=region)
    for item in table.scan(TableName="devbox")["Items"]:
        if item["sk"]["S"].startswith("L#"):
            item["doc"]["M"]["seconds"] = {"N": "1"}
            table.put_item(TableName="devbox", Item=item)


def test_the_function_of_the_account_finishes_what_a_killed_daemon_began(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every laptop gone for ever: the account itself saves the box, and nothing of the work is lost."""
    for name, value in world.env.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    world.ok("init", "account", timeout=LONG)
    settings = world.folder / "config" / "devbox" / "config.d" / "store.toml"
    settings.write_text('[store]\nengine = "dynamodb"\n')
    world.stop_daemon()
    world.start_daemon()
    world.ok("launch", "work", "--type", "t4g.small", timeout=LONG)
    text = b"the work of the first run\n" * 1000
    world.run("exec", "work", "sh", "-c", "cat > work.txt", stdin=text)
    logged, answer = function(world, 60.0)  # a box that runs is at rest
    assert (answer["projects"], answer["ends"]) == (1, {"done": 1})
    assert [one["kind"] for one in logged] == ["wait", "end"]
    assert answer["seconds"] < 10.0

    world.run("terminate", "work", "--no-wait", timeout=LONG)
    until(lambda: project(world)["phase"] == "saving", "the save began", LONG)
    world.kill_daemon(signal.SIGKILL)
    expired(world)
    _, answer = function(world, 22.0)  # it is bounded: two seconds are left for the work
    assert answer["ends"] in ({"unfinished": 1}, {"elsewhere": 1})
    assert answer["seconds"] < 15.0
    expired(world)
    logged, answer = function(world, 300.0)
    assert answer["ends"] == {"done": 1}, logged
    assert {one["what"] for one in logged if one["kind"] == "call"} >= {"Release"}

    world.start_daemon()
    assert (project(world)["phase"], project(world)["generation"]) == ("ready", 1)
    world.ok("up", "work", timeout=LONG)
    assert digest(world) == hashlib.sha256(text).hexdigest()
    again = reconcile(world, "--once", "--json")
    assert (again.returncode, lines(again)[-1]["what"]) == (0, "done")
