"""Jobs with the installed daemon and command line, on a simulated box with its real tmux."""

from __future__ import annotations

import base64
import json
import shlex
import time
from collections.abc import Iterator

import pytest

from devboxd.text import parse_rfc3339
from tests.e2e.kit import World, until

LONG = 120.0


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A world of its own, with a box."""
    with World() as made:
        done = made.run("launch", "work", "--type", "t4g.small", "--instance-profile", "devbox", timeout=LONG)
        assert done.returncode == 0, done.stderr.decode() + made.log[-3000:]
        until(lambda: made.run("exec", "work", "true").returncode == 0, "the box answers", LONG)
        yield made


def ended(world: World, job: str) -> list[str]:
    """What was told of the end of a job."""
    return [line for line in world.ok("events").splitlines() if f"job {job} " in line]


def test_a_job_is_shown_until_its_end_and_its_status_is_ours(world: World) -> None:
    word = "two words; $HOME 'quoted' \"twice\"\nand a line"
    done = world.run("run", "work", "--", "printf", "<%s>\\n", word, timeout=LONG)
    assert (done.returncode, done.stdout.decode()) == (0, f"<{word}>\n"), done.stderr.decode()
    done = world.run(
        "run", "work", "--", "sh", "-c", "printf '\\033[31mred\\033[0m\\n'; exit 7", timeout=LONG
    )
    assert (done.returncode, done.stdout) == (7, b"red\n"), done.stderr.decode()
    wrong = world.run("logs", "work", "nope")
    assert (wrong.returncode, b"there is no job" in wrong.stderr) == (3, True), wrong.stderr
    for bad in ("../../x", "x;id"):
        assert world.run("logs", "work", bad).returncode == 3


def test_a_job_holds_the_box_and_its_end_is_told_within_five_seconds(world: World) -> None:
    line = "echo begun; until [ -e ~/go ]; do sleep 0.1; done; echo over; exit 3"
    job = world.json("run", "work", "--detach", "--session", "build", "--", "sh", "-c", line)
    assert (job["state"], job["window"]) == ("running", f"build:job-{job['id']}")
    windows = world.ok("exec", "work", "tmux", "list-windows", "-t", "=build", "-F", "#{window_name}")
    assert f"job-{job['id']}" in windows
    found = world.json("why", "work")
    signals = {row["signal"]: row for row in found["evidence"]}
    assert found["verdict"] == "active"
    assert signals[f"lease job-{job['id']}"]["counts"], signals

    world.ok("exec", "work", "sh", "-c", "touch ~/go")
    began = time.time()  # noqa: TID251 - as the daemon writes it: asking takes time of its own
    until(lambda: ended(world, job["id"]), "its end is told")
    events = [json.loads(line) for line in world.ok("--json", "events").splitlines()]
    (told,) = [parse_rfc3339(one["time"]) for one in events if f"job {job['id']} failed" in one["text"]]
    assert told - began < 5.0
    assert "failed with status 3" in ended(world, job["id"])[0]
    (row,) = [one for one in world.json("jobs", "work")["jobs"] if one["id"] == job["id"]]
    assert (row["state"], row["status"]) == ("failed", 3)
    log = world.json("logs", "work", job["id"])
    assert base64.b64decode(log["data"]) == b"begun\r\nover\r\n"
    found = world.json("why", "work")
    assert not [row for row in found["evidence"] if row["signal"].startswith("lease")]


def test_a_job_outlives_the_daemon_and_the_next_one_tells_its_end(world: World) -> None:
    job = world.json("run", "work", "--detach", "--", "sh", "-c", "until [ -e ~/go2 ]; do sleep 0.1; done")
    world.kill_daemon()
    world.start_daemon()
    assert world.json("jobs", "work")["jobs"][-1]["state"] == "running"
    world.ok("exec", "work", "sh", "-c", "touch ~/go2")
    until(lambda: ended(world, job["id"]), "its end is told")
    assert len(ended(world, job["id"])) == 1
    assert "is done" in ended(world, job["id"])[0]


def test_an_end_that_no_daemon_saw_is_told_by_the_next_one_and_not_again(world: World) -> None:
    """The laptop was off over night; in the morning it says what became of the job."""
    go, over = world.folder / "go", world.folder / "over"
    line = f"until [ -e {shlex.quote(str(go))} ]; do sleep 0.1; done; touch {shlex.quote(str(over))}; exit 4"
    job = world.json("run", "work", "--detach", "--", "sh", "-c", line)
    world.kill_daemon()
    go.touch()
    until(over.exists, "the job has ended")
    world.start_daemon()
    until(lambda: ended(world, job["id"]), "its end is told", LONG)
    until(lambda: "told" in looked(world, job["id"]), "the box knows that it was told")
    assert len(ended(world, job["id"])) == 1
    assert "failed with status 4" in ended(world, job["id"])[0]
    world.kill_daemon()
    world.start_daemon()
    until(lambda: world.json("why", "work")["evidence"], "the next daemon has looked, too", LONG)
    last = world.json("run", "work", "--detach", "--", "true")["id"]
    until(lambda: ended(world, last), "it asks for ends", LONG)
    assert ended(world, job["id"]) == []


def looked(world: World, job: str) -> list[str]:
    """What lies on the box of a job."""
    return world.ok("exec", "work", "sh", "-c", f"ls ~/.devbox/jobs/{job}").split()


def test_closing_its_window_hangs_up_nothing(world: World) -> None:
    line = "echo begun; until [ -e ~/go3 ]; do sleep 0.1; done; echo over"
    job = world.json("run", "work", "--detach", "--", "sh", "-c", line)
    world.ok("exec", "work", "tmux", "kill-window", "-t", "=" + job["window"])
    world.ok("exec", "work", "sh", "-c", "touch ~/go3")
    assert world.ok("logs", "--follow", "work", job["id"]) == "begun\nover\n"
