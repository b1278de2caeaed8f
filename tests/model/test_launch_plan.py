"""What a launch would call, by the phase in which it is asked for."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from devboxd.model.launch_plan import planned
from devboxd.model.ledger import Ledger
from devboxd.model.project import Phase, Place, Want
from devboxd.model.rebase_plan import SAVED
from devboxd.model.step import ChangeType, Launch
from tests.model.scenes import AT, PLACES, RUN, SPEC, generation, project

UP = {
    Phase.ABSENT: ["Launch"],
    Phase.READY: ["Launch"],
    Phase.LAUNCHING: ["Launch"],
    Phase.RUNNING: [],
    Phase.SAVING: ["MakeImage", "Start"],
    Phase.WARM: ["Start"],
    Phase.STARTING: ["Start"],
    Phase.RELEASING: ["Release", "Launch"],
    Phase.RESCUE: ["Launch"],
}
BACK = UP | {
    Phase.RUNNING: ["Stop", "MakeImage", "Release", "Launch"],
    Phase.SAVING: ["MakeImage", "Release", "Launch"],
    Phase.WARM: ["Release", "Launch"],
    Phase.STARTING: ["Release", "Launch"],
}


def plan(phase: Phase, rollback: int | None) -> tuple[list[str], Launch | None]:
    now = project(phase, head=0 if phase is Phase.ABSENT else 2)
    asked = replace(now, want=Want.UP, rollback=rollback)
    generations = () if phase is Phase.ABSENT else (generation(1), generation(2))
    found = planned(Ledger(asked, RUN, generations), now, AT)
    assert found is not None
    calls = found[1]
    last = calls[-1] if calls else None
    return [type(call).__name__ for call in calls], last if isinstance(last, Launch) else None


@pytest.mark.parametrize(("phase", "calls"), UP.items())
def test_a_launch_calls_what_its_phase_lacks(phase: Phase, calls: list[str]) -> None:
    """From what is saved by then."""
    names, launch = plan(phase, None)
    assert names == calls
    if launch is not None and phase not in (Phase.ABSENT, Phase.LAUNCHING):
        assert launch.run.image == (SAVED if phase is Phase.RESCUE else generation(2).image)


@pytest.mark.parametrize(("phase", "calls"), [one for one in BACK.items() if one[0] is not Phase.ABSENT])
def test_a_launch_from_a_generation_saves_and_lets_go_what_is_there(phase: Phase, calls: list[str]) -> None:
    names, launch = plan(phase, 1)
    assert names == calls
    assert launch is not None
    assert launch.run.image == generation(1).image


def test_a_stopped_box_becomes_the_type_that_is_wanted() -> None:
    spec = replace(SPEC, places=(Place("m8g.4xlarge", "us-east-1a"),))
    now = project(Phase.WARM, want=Want.UP, at=PLACES[0], spec=spec)
    found = planned(Ledger(now, RUN, (generation(1),)), now, AT)
    assert found is not None
    assert found[1][0] == ChangeType("i-1", "m8g.4xlarge")


def test_what_can_not_be_launched_has_no_plan() -> None:
    now = project(Phase.READY, want=Want.UP, spec=replace(SPEC, places=()))
    assert planned(Ledger(now, RUN, (generation(1),)), now, AT) is None
