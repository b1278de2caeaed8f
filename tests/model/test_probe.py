"""A generation is tried on a small machine: what becomes of that, and of the project, when it does not come up."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from devboxd.model import wish
from devboxd.model.answer import Refusal, after_refusal
from devboxd.model.ledger import Ledger
from devboxd.model.leftover import leftovers
from devboxd.model.price import built_in
from devboxd.model.probe import PATIENCE, probe_token
from devboxd.model.project import Phase, Policy, Project, Want
from devboxd.model.seen import Box
from devboxd.model.step import Launch, Release, TryBox, Write
from tests.model.scenes import AT, RUN, box, decide, generation, look, project, saved, volumes
from tests.model.test_save import write

POLICY = Policy(verify=True)
STOPPED = box("stopped")


def warm(**changes: Any) -> Project:
    """Saved, to be released, and tried before."""
    row = project(Phase.WARM, policy=POLICY, want=Want.COLD, stamp=None)
    return replace(row, **changes)


def trial() -> Project:
    return write(decide(warm(), **saved(), boxes=STOPPED, volumes=volumes()), "probe").project


def small(row: Project, state: str = "running") -> Box:
    return box(state, id="i-probe", token=probe_token(row), attached=(), type="t4g.small")


def test_a_probe_that_does_not_answer_goes_before_the_project_needs_a_person() -> None:
    """Nothing is called in BROKEN, so it would run on and be paid."""
    row = trial()
    seen = {**saved(), "boxes": (STOPPED, small(row)), "volumes": volumes()}
    assert decide(row, **seen) == TryBox("i-probe", 1)
    refused = TryBox("i-probe", 1)
    assert after_refusal(look(row, **seen), refused, Refusal.UNKNOWN, "no session", PATIENCE - 1) is None
    failed = after_refusal(look(row, **seen), refused, Refusal.UNKNOWN, "no session", PATIENCE)
    row = write(failed, "probe").project
    assert row.phase is Phase.WARM
    assert decide(row, **seen) == Release("i-probe")
    gone = {**seen, "boxes": (STOPPED, small(row, "shutting-down"))}
    row = write(decide(row, **gone), "broken").project
    assert (row.phase, row.reason) == (Phase.BROKEN, "generation 1 does not boot: no session")
    assert "--no-verify" in wish.way_out(row)
    assert leftovers(look(row, **gone), built_in("us-east-1")) == []


def test_each_trial_has_a_token_of_its_own() -> None:
    """EC2 answers a token that was used with the instance that is gone."""
    first = trial()
    broken = replace(first, phase=Phase.BROKEN, halted=Phase.WARM, probe=None)
    again = wish.resume(Ledger(broken, RUN, (generation(),)), AT).project
    second = write(decide(again, **saved(), boxes=STOPPED, volumes=volumes()), "probe").project
    assert probe_token(first) != probe_token(second)
    old = {**saved(), "boxes": (STOPPED, small(first, "terminated")), "volumes": volumes()}
    step = decide(second, **old)
    assert isinstance(step, Launch)
    assert step.token == probe_token(second)


def test_resumed_without_a_trial_the_box_is_released() -> None:
    broken = warm(phase=Phase.BROKEN, halted=Phase.WARM)
    row = wish.resume(Ledger(broken, RUN, (generation(),)), AT, verify=False).project
    assert (
        write(decide(row, **saved(), boxes=STOPPED, volumes=volumes()), "10").project.phase is Phase.RELEASING
    )
    assert wish.resume(Ledger(broken, RUN, (generation(),)), AT).project.policy.verify


def test_where_there_is_no_room_the_next_zone_is_tried_and_after_each_round_it_waits() -> None:
    """The small type may not even exist in the zone of the box."""
    row, zones = trial(), []
    for times in range(1, 5):
        seen = look(row, **saved(), boxes=STOPPED, volumes=volumes())
        call = decide(row, **saved(), boxes=STOPPED, volumes=volumes())
        assert isinstance(call, Launch)
        zones.append(call.place.zone)
        step = after_refusal(seen, call, Refusal.CAPACITY, "no room", times)
        assert isinstance(step, Write) is (times % 2 == 1)
        row = step.project if step is not None else row
    assert set(zones[:2]) == set(zones[2:]) == {"us-east-1a", "us-east-1b"}


def test_nothing_goes_while_a_person_is_needed() -> None:
    """``gc`` does not promise it."""
    row = project(Phase.BROKEN, halted=Phase.WARM, head=1, saves=1)
    stray = box(id="i-stray", token="uid-0-7")
    (left,) = leftovers(
        look(row, **saved(), boxes=(STOPPED, stray), volumes=volumes()), built_in("us-east-1")
    )
    assert (left.id, left.goes) == ("i-stray", None)
    assert "when the project goes on" in left.why
