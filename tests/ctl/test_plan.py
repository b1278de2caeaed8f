"""What a launch would do is read by a person: one thing a line, tags as a name and a value."""

from __future__ import annotations

import pytest

from devboxctl import plan
from devboxctl.options import settings
from devboxd.api import wire


def test_a_call_is_shown_with_what_is_in_it_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    settings.reset()
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "Name", "Value": "a\x1b[1mb"}]}]
    call = wire.ApiCall("RunInstances", {"MinCount": 1, "SecurityGroupIds": ["sg-1", "sg-2"], "Specs": tags})
    plan.print_plan(wire.LaunchPlan(wire.Project("api", "u1", "absent", "up"), [call]))
    assert capsys.readouterr().out == (
        "RunInstances\n"
        "  MinCount: 1\n"
        "  SecurityGroupIds: sg-1, sg-2\n"
        "  Specs:\n"
        "    1:\n"
        "      ResourceType: volume\n"
        "      Tags:\n"
        "        Name = a [1mb\n"
    )


def test_a_box_that_runs_as_it_is_needs_no_call_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """With what is different from its next start on."""
    settings.reset()
    project = wire.Project("api", "u1", "running", "up", type="t4g.small", next_type="t4g.large")
    plan.print_plan(wire.LaunchPlan(project, []))
    said = capsys.readouterr()
    assert said.out == ""
    assert "nothing is called: api runs already" in said.err
    assert "devboxctl resize api --type t4g.large restarts it now" in said.err
