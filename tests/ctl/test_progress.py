"""What a person reads while a command waits for a project."""

from __future__ import annotations

from typing import Any

import pytest

from devboxctl.app import run
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
