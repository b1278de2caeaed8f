"""What a person reads while a command waits for a project."""

from __future__ import annotations

import json
from typing import Any

import pytest

from devboxctl import progress
from devboxctl.app import run
from devboxd.api import client
from tests.ctl.fake_daemon import FakeDaemon


def project(phase: str, **more: Any) -> dict[str, Any]:
    return {"name": "work", "id": "w", "phase": phase, "want": "up", **more}


@pytest.fixture
def steps(daemon: FakeDaemon) -> list[dict[str, Any]]:
    """What the daemon tells of a launch."""
    told: list[dict[str, Any]] = []
    daemon.routes["POST projects/work/up"] = project("ready", pending=True)
    daemon.routes["GET projects/work/progress"] = told
    return told


def test_what_mends_a_wait_is_said_once(
    steps: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """An expired login in the middle of a save is no end of it, but somebody has to know what to do."""
    waits = {"project": project("saving"), "text": "the login has ended", "hint": "devboxctl login"}
    steps += [waits, waits, {"project": project("running", pending=False), "done": True}]
    assert run(["up", "work"]) == 0
    err = capsys.readouterr().err
    assert err.count("saving: the login has ended\n") == 1
    assert err.count("\nhint: devboxctl login\n") == 1


def test_where_capacity_was_missing_is_said_while_the_next_zone_is_tried(
    steps: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    steps += [
        {"project": project("launching", pending=True)},
        {"project": project("launching", reason="no machine free there: We currently", zone="us-east-1b")},
        {"project": project("running"), "done": True},
    ]
    assert run(["up", "work"]) == 0
    assert "launching: no machine free there; next: us-east-1b\n" in capsys.readouterr().err


def rebased(daemon: FakeDaemon, end: dict[str, Any], *, running: bool = False) -> None:
    """A daemon that puts a project onto another image, with this end."""
    plan = {"project": project("ready"), "calls": [], "running": running}
    daemon.routes["POST projects/work/rebase/plan"] = plan
    daemon.routes["POST projects/work/rebase"] = project("ready", pending=True)
    daemon.routes["GET projects/work/progress"] = [{"project": end, "done": True}]
    daemon.routes["GET projects/work"] = end


def test_what_is_of_no_project_is_listed_with_what_is_left_over(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the account and region that are asked for; of one project alone it is not looked for."""
    left = {"id": "vol-9", "kind": "volume", "why": "of no project", "usd_month": "1.60", "project": "lost"}
    daemon.routes["GET projects"] = {"projects": []}
    daemon.routes["GET leftovers"] = {"leftovers": [left]}
    daemon.routes["GET projects/work/leftovers"] = {"leftovers": []}
    assert run(["gc", "--dry-run", "-r", "eu-central-1"]) == 0
    assert "lost\tvolume\tvol-9" in capsys.readouterr().out
    assert run(["gc", "work"]) == 0
    assert "vol-9" not in capsys.readouterr().out


def test_what_is_given_up_is_asked_about_with_what_becomes_of_its_volumes(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is given up without a question, or ``--yes``."""
    generation = {
        "number": 3,
        "created": "2026-01-02T03:04:05Z",
        "quality": "clean",
        "image": "ami-3",
        "size": 8,
    }
    volume = {"id": "vol-1", "kind": "volume", "why": "", "size": 20}
    daemon.routes["GET projects/work/abandon"] = {
        "project": project("broken"),
        "generation": {**generation, "volumes": 1},
        "volumes": [volume],
    }
    daemon.routes["POST projects/work/abandon"] = project("ready")
    daemon.routes["GET projects/work/progress"] = [{"project": project("ready"), "done": True}]
    assert run(["ops", "abandon", "work"]) == 2
    said = capsys.readouterr().err
    assert "work goes back to generation 3 of 2026-01-02" in said
    assert "is given up, and vol-1 (20 GiB) is kept" in said
    assert run(["ops", "abandon", "work", "--discard-volumes"]) == 2
    assert "vol-1 (20 GiB) is deleted" in capsys.readouterr().err
    assert not [one for one in daemon.requests if one[0] == "POST"]
    assert run(["ops", "abandon", "work", "--yes"]) == 0


@pytest.mark.parametrize("why", ["no room", "no room; devboxctl resize makes it larger"])
def test_homes_that_did_not_come_over_are_a_failure_with_both_ways_on(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], why: str
) -> None:
    """The box runs, and that is not what was asked for."""
    found = project("running", rebase="not here", rebase_problem=why, base="other", way_back=4)
    rebased(daemon, found)
    assert run(["rebase", "work", "--onto", "other"]) == 1
    err = capsys.readouterr().err
    assert f"work is not rebased: the homes of generation 4 are not copied: {why}\n" in err
    assert "devboxctl rebase work --onto other goes on; devboxctl launch work --from 4 goes back" in err


def test_another_reason_does_not_say_that_the_homes_are_not_here(daemon: FakeDaemon) -> None:
    reason = "no snapshot was made: the image is failed"
    rebased(daemon, project("running", reason=reason, rebase="here", base="other", way_back=4))
    assert run(["rebase", "work", "--onto", "other"]) == 0


def test_a_launch_from_the_new_image_that_comes_to_nothing_says_the_way_back(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    rebased(daemon, project("ready", reason="no capacity", rebase="to be copied", way_back=4))
    assert run(["rebase", "work", "--onto", "other"]) == 1
    assert "devboxctl launch work --from 4 goes back" in capsys.readouterr().err


def test_a_box_that_runs_goes_down_only_when_that_was_said(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script says --yes; without it nothing is asked of the daemon but the plan."""
    rebased(daemon, project("running", base="other", way_back=4), running=True)
    assert run(["rebase", "work", "--onto", "other"]) == 2
    assert "the box of work is stopped and saved, and comes back on other" in capsys.readouterr().err
    assert run(["rebase", "work"]) == 2
    assert "--onto is missing" in capsys.readouterr().err
    assert not [one for one in daemon.requests if one[:2] == ("POST", "projects/work/rebase")]
    assert run(["rebase", "work", "--onto", "other", "--yes"]) == 0


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("no capacity in us-east-1a", "--retry-until-up"),
        ("AWS does not allow RunInstances", "iam policy"),
        ("the image is gone", "devboxctl launch work tries again"),
    ],
)
def test_a_first_launch_that_came_to_nothing_says_how_it_is_forgotten(
    steps: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], reason: str, words: str
) -> None:
    for phase, is_new in (("absent", True), ("ready", False)):
        steps[:] = [{"project": project(phase, reason=reason), "done": True}]
        assert run(["up", "work"]) == 1
        err = capsys.readouterr().err
        assert words in err
        assert ("devboxctl delete work forgets it" in err) is is_new


def test_an_attach_that_brings_a_box_up_in_vain_says_why(
    steps: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """It said that nothing runs, and to try what had just failed."""
    steps.append({"project": project("ready", want="cold", reason="AWS does not allow it"), "done": True})
    down = {"code": "project-down", "message": "work has no box", "hint": "devboxctl up work brings it up"}
    assert progress.offer("work", client.Refused(409, json.dumps(down).encode()), up=True) == 1
    assert "error: work does not run: AWS does not allow it\n" in capsys.readouterr().err


def test_what_could_not_be_looked_at_is_told_with_the_reason(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = (401, {"code": "login-needed", "message": "the login has ended", "exit_status": 4})
    daemon.routes["GET projects"] = {"projects": [project("ready")]}
    daemon.routes["GET projects/work/leftovers"] = refused
    daemon.routes["GET leftovers"] = refused
    assert run(["gc"]) == 0
    err = capsys.readouterr().err
    assert "what work has left over could not be looked at: the login has ended\n" in err
    assert "what is of no project could not be looked for: the login has ended\n" in err


@pytest.mark.parametrize("wait", [[], ["--no-wait"]])
def test_git_work_that_is_nowhere_else_is_said_before_the_box_goes(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], wait: list[str]
) -> None:
    """And stands in what a script reads."""
    work = [f"/home/u/{number}: 1 unpushed" for number in range(7)]
    daemon.routes["POST projects/work/stop"] = project("running", unsaved=work)
    daemon.routes["GET projects/work/progress"] = [{"project": project("warm"), "done": True}]
    assert run(["stop", "work", *wait]) == 0
    err = capsys.readouterr().err
    assert "what is saved has git work that is nowhere else: /home/u/0: 1 unpushed; /home/u/1" in err
    assert "/home/u/4: 1 unpushed; and 2 more\n" in err
    assert run(["--json", "stop", "work", *wait]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["unsaved"] == work
    assert said.err == ""


def test_git_work_that_could_not_be_looked_for_is_said(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.routes["POST projects/work/terminate"] = project("running", unsaved_problem="it does not answer")
    assert run(["terminate", "--no-wait", "work"]) == 0
    err = capsys.readouterr().err
    assert "it is not known whether there is git work that is nowhere else: it does not answer" in err


def test_a_script_that_did_not_mean_it_reads_what_would_be_deleted(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.routes["GET projects/work/unsaved"] = {"unsaved": ["/home/u/api: 2 uncommitted"]}
    assert run(["delete", "work"]) == 2
    assert "this deletes all work of work; its box has git work" in capsys.readouterr().err
    assert not [one for one in daemon.requests if one[0] != "GET"]
