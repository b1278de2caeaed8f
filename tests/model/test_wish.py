"""What may be asked of a project in each phase, and what it changes in the row."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from devboxd.errors import BadRequest, WrongState
from devboxd.model import wish
from devboxd.model.box import Account
from devboxd.model.ledger import Ledger
from devboxd.model.leftover import leftovers
from devboxd.model.pipeline import next_step
from devboxd.model.price import built_in
from devboxd.model.project import GIVEN_UP_KEPT, Cycle, GenerationState, Phase, Place, Policy, Want
from devboxd.model.retention import is_last_copy
from devboxd.model.seen import Snapshot
from devboxd.model.step import ChangeType, DropSnapshot, DropVolume, Start, Write
from devboxd.model.wish import GenerationNotFound, ProjectBroken
from tests.model.scenes import (
    AT,
    DISKS,
    PLACES,
    RUN,
    SPEC,
    box,
    decide,
    generation,
    look,
    project,
    saved,
    snapshots,
    volumes,
)
from tests.model.test_save import write

ASKABLE = [phase for phase in Phase if phase not in (Phase.BROKEN, Phase.DELETING)]


def ledger(phase: Phase, *generations: Any, **changes: Any) -> Ledger:
    return Ledger(project(phase, **changes), RUN, generations)


@pytest.mark.parametrize("phase", ASKABLE)
def test_up_and_down_are_accepted_in_every_phase(phase: Phase) -> None:
    """Nobody has to wait until something is over to say what they want."""
    known = ledger(phase, want=Want.COLD)
    step = write(wish.up(known), "wish")
    assert (step.project.want, step.project.phase) == (Want.UP, phase)
    assert wish.up(replace(known, project=step.project)) is None, "asking twice is asking once"
    known = ledger(phase, want=Want.UP)
    assert write(wish.down(known, Want.COLD), "wish").project.want is Want.COLD


def test_stopping_what_is_saved_and_gone_changes_nothing() -> None:
    """There is no box to keep warm."""
    assert wish.down(ledger(Phase.READY, want=Want.COLD), Want.WARM) is None


def test_going_down_forgets_what_was_to_come_up() -> None:
    """A rollback that was asked for and then called off."""
    known = ledger(Phase.RUNNING, generation(), head=1, rollback=1, cycle=Cycle.RESTART)
    step = write(wish.down(known, Want.WARM), "wish")
    assert (step.project.rollback, step.project.cycle) == (None, Cycle.NONE)


@pytest.mark.parametrize(
    ("phase", "before", "after"),
    [
        (Phase.LAUNCHING, {"want": Want.UP}, Want.COLD),
        (Phase.STARTING, {"want": Want.UP}, Want.WARM),
        (Phase.READY, {"want": Want.UP}, Want.COLD),
        (Phase.RUNNING, {"want": Want.COLD}, Want.UP),
        (Phase.SAVING, {"want": Want.WARM}, Want.UP),
        (Phase.RUNNING, {"want": Want.UP, "cycle": Cycle.RESTART}, Want.UP),
        (Phase.RUNNING, {"want": Want.UP}, None),
        (Phase.READY, {"want": Want.COLD}, None),
        (Phase.RELEASING, {"want": Want.COLD}, None),
    ],
)
def test_what_was_asked_last_is_taken_back(phase: Phase, before: dict[str, Any], after: Want | None) -> None:
    """As far as it has not been done: what is condemned stays so."""
    known = ledger(phase, generation(), head=1, **before)
    if after is None:
        with pytest.raises(WrongState, match="nothing to cancel"):
            wish.cancel(known)
        return
    step = write(wish.cancel(known), "wish")
    assert (step.project.want, step.project.cycle, step.project.phase) == (after, Cycle.NONE, phase)


def test_verifying_is_a_choice_that_stays() -> None:
    step = write(wish.down(ledger(Phase.RUNNING, want=Want.UP), Want.COLD, verify=True), "wish")
    assert step.project.policy.verify
    again = write(
        wish.down(ledger(Phase.RUNNING, want=Want.UP, policy=step.project.policy), Want.WARM), "wish"
    )
    assert again.project.policy.verify


def test_a_broken_project_says_what_a_person_has_to_do() -> None:
    """And nothing else is accepted until then, but its deletion."""
    known = ledger(Phase.BROKEN, reason="the image failed, 3 times", halted=Phase.SAVING, save=3, saves=3)
    for ask in (wish.up, lambda one: wish.down(one, Want.COLD), lambda one: wish.snapshot(one, "")):
        with pytest.raises(ProjectBroken, match="3 times"):
            ask(known)
    step = wish.resume(known, AT)
    assert (step.project.phase, step.project.save, step.project.saves) == (Phase.SAVING, 4, 4)
    assert write(wish.gone(known), "wish").project.want is Want.GONE
    with pytest.raises(WrongState):
        wish.resume(ledger(Phase.READY), AT)


def test_what_can_not_be_saved_can_be_given_up_for_the_newest_generation() -> None:
    """Somebody deleted the volumes in the console: the head is what there is."""
    known = ledger(Phase.BROKEN, generation(), halted=Phase.RESCUE, save=3, saves=3, head=1)
    step = wish.abandon(known, AT)
    assert (step.project.phase, step.project.closed, step.project.save) == (Phase.READY, 1, None)
    with pytest.raises(WrongState):
        wish.abandon(ledger(Phase.BROKEN, halted=Phase.RESCUE), AT)


LOST: dict[str, Any] = {"halted": Phase.RESCUE, "save": 3, "saves": 3, "head": 1}


@pytest.mark.parametrize("discard", [False, True])
def test_what_is_left_of_a_box_that_was_given_up_stays_unless_somebody_says_otherwise(discard: bool) -> None:
    """Though a generation of that run has the volume: what was written since is on it alone."""
    known = ledger(Phase.BROKEN, generation(), **LOST, rollback=1, cycle=Cycle.RELAUNCH)
    after = wish.abandon(known, AT, discard=discard).project
    assert (after.rollback, after.cycle, after.want) == (None, Cycle.NONE, Want.COLD)
    left = volumes("available", garbage=AT - 9000)
    step = decide(after, **{**saved(), "volumes": left})
    assert isinstance(step, DropVolume) is discard
    shown = leftovers(
        look(after, **{**saved(), "volumes": left}, run=replace(RUN, disks=())), built_in("us-east-1")
    )
    assert [one.goes is None for one in shown if one.kind == "volume"] == [not discard] * 2


def after_a_rescue(**snapshot: Any) -> dict[str, Any]:
    """A generation, and of save 3 a snapshot of each volume; the data volume shows no more."""
    made = tuple(replace(one, run=1, garbage=1.0, **snapshot) for one in snapshots(save=3))
    seen = saved()
    return {**seen, "volumes": volumes("available")[:1], "snapshots": (*seen["snapshots"], *made)}


@pytest.mark.parametrize("discard", [False, True])
def test_a_snapshot_that_is_all_that_is_left_of_a_volume_stays_and_is_listed(discard: bool) -> None:
    """The other one is retired: its volume is kept, and has all of it."""
    known = ledger(Phase.BROKEN, generation(), **LOST)
    after = wish.abandon(known, AT, discard=discard).project
    seen = after_a_rescue()
    shown = leftovers(look(after, **seen), built_in("us-east-1"))
    goes = {one.id: one.goes is not None for one in shown if one.kind == "snapshot"}
    assert goes == {"snap-3-xvda": True, "snap-3-sdf": discard}
    assert all(one.usd_month for one in shown if one.kind == "snapshot")
    dropped, put_off = set(), {"vol-root"}
    while isinstance(step := decide(after, **seen, put_off=frozenset(put_off)), DropSnapshot):
        dropped.add(step.snapshot)
        put_off.add(step.snapshot)
    assert dropped == ({"snap-3-xvda", "snap-3-sdf"} if discard else {"snap-3-xvda"})


def test_only_the_newest_snapshot_of_a_lost_volume_is_the_last_copy() -> None:
    """An older one of another try, one that failed, and one that a later generation has are none."""
    after = wish.abandon(ledger(Phase.BROKEN, generation(), **{**LOST, "saves": 4}), AT).project
    seen = after_a_rescue()
    later = replace(snapshots(save=4)[1], run=1)
    first, second = seen["snapshots"][-1], later

    def last(*found: Snapshot, **changes: Any) -> list[str]:
        look_ = look(after, **{**seen, "snapshots": found, **changes})
        return [one.id for one in found if is_last_copy(look_, one)]

    assert last(first, second) == ["snap-4-sdf"]
    assert last(first, replace(second, state="error")) == ["snap-3-sdf"]
    assert last(first, generations=generation(3)) == []
    assert last(replace(first, run=2)) == []


def test_what_is_set_aside_is_never_deleted_for_being_too_long_ago() -> None:
    row = project(Phase.READY, set_aside=tuple(range(2, 2 + GIVEN_UP_KEPT)), run=40, closed=40)
    assert not isinstance(decide(row, **saved(), volumes=volumes("available", garbage=1.0)), DropVolume)


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        ({**saved(), "boxes": box("stopped")}, "i-1, the box of api, is still there"),
        ({**saved(), "boxes": box("shutting-down")}, "still there"),
        ({**saved(), "volumes": volumes("in-use")}, "still there"),
        ({**saved(), "images": ()}, "generation 1 of api does not show whole"),
    ],
)
def test_a_box_that_may_be_there_is_not_given_up(seen: dict[str, Any], says: str) -> None:
    """Nor is it given up for an image that is not there either."""
    with pytest.raises(WrongState, match=says) as refused:
        wish.to_abandon(look(project(Phase.BROKEN, **LOST), **seen))
    assert refused.value.hint
    ended = {**saved(), "boxes": box("terminated"), "volumes": volumes("available")[1:]}
    assert [one.id for one in wish.to_abandon(look(project(Phase.BROKEN, **LOST), **ended))] == ["vol-data"]


def test_what_is_being_deleted_takes_no_wishes() -> None:
    for known in (ledger(Phase.DELETING), ledger(Phase.RUNNING, want=Want.GONE)):
        with pytest.raises(WrongState, match="deleted"):
            wish.up(known)


def test_a_project_that_a_fork_lives_on_is_not_deleted_by_accident() -> None:
    """The fork has nothing of its own yet."""
    known = ledger(Phase.READY, generation(pins=("fork:other",)))
    with pytest.raises(WrongState, match="fork"):
        wish.gone(known)
    assert wish.gone(known, force=True) is not None


# Generations


def test_a_snapshot_of_a_running_box_gets_a_save_number_of_its_own() -> None:
    """And what is saved already gets the label only."""
    step = write(wish.snapshot(ledger(Phase.RUNNING, saves=4), "before"), "wish")
    assert (step.project.snap, step.project.saves, step.project.label) == (5, 5, "before")
    for phase in (Phase.WARM, Phase.READY):
        step = write(wish.snapshot(ledger(phase, generation()), "before"), "describe")
        assert [one.label for one in step.generations] == ["before"]
    assert write(wish.snapshot(ledger(Phase.SAVING), "x"), "wish").project.label == "x"
    with pytest.raises(WrongState):
        wish.snapshot(ledger(Phase.LAUNCHING), "x")
    with pytest.raises(WrongState, match="already"):
        wish.snapshot(ledger(Phase.RUNNING, snap=4), "x")
    with pytest.raises(BadRequest):
        wish.snapshot(ledger(Phase.RUNNING), "x" * 201)


@pytest.mark.parametrize(("asked", "number"), [(1, 1), (3, 3), (-1, 3), (-2, 1)])
def test_generations_are_counted_back_from_the_newest(asked: int, number: int) -> None:
    """-1 is the one before it; deleted ones do not count."""
    over = generation(2, state=GenerationState.DELETING)
    known = ledger(Phase.READY, generation(1), over, generation(3), generation(4), head=4)
    assert wish.generation(known, asked).number == number


@pytest.mark.parametrize("asked", [0, 2, 5, -3])
def test_a_generation_that_is_not_there_is_said_so(asked: int) -> None:
    over = generation(2, state=GenerationState.DELETING)
    known = ledger(Phase.READY, generation(1), over, generation(3), generation(4), head=4)
    with pytest.raises(GenerationNotFound) as error:
        wish.generation(known, asked)
    assert error.value.hint == "there are: 1, 3, 4"


def test_pins_and_labels_change_one_generation_and_nothing_of_others_pins() -> None:
    known = ledger(Phase.READY, generation(pins=("fork:other",)))
    step = write(wish.describe(known, 1, pinned=True, label="keep"), "describe")
    (made,) = step.generations
    assert (made.pins, made.label) == (("fork:other", "user"), "keep")
    again = replace(known, generations=step.generations)
    assert wish.describe(again, 1, pinned=True) is None
    assert write(wish.describe(again, 1, pinned=False), "describe").generations[0].pins == ("fork:other",)
    lost = wish.describe(again, 1, pinned=False, lost=("fork:other", "fork:another"))
    assert write(lost, "describe").generations[0].pins == ()


def test_a_generation_in_use_is_not_deleted() -> None:
    known = ledger(Phase.READY, generation(1), generation(2, pins=("user",)), generation(3), head=3)
    with pytest.raises(WrongState, match="in use"):
        wish.drop(known, 3)
    with pytest.raises(WrongState, match="pinned"):
        wish.drop(known, 2)
    assert write(wish.drop(known, 2, force=True), "drop").generations[0].state is GenerationState.DELETING
    write(wish.drop(known, 1), "drop")
    with pytest.raises(WrongState, match="in use"):
        wish.drop(replace(known, project=replace(known.project, rollback=1)), 1)
    launching = replace(
        known, project=replace(known.project, phase=Phase.LAUNCHING), run=replace(RUN, source=1)
    )
    with pytest.raises(WrongState, match="in use"):
        wish.drop(launching, 1)


def test_going_back_to_the_newest_still_leaves_the_present_behind() -> None:
    """What was done since is saved as a generation of its own, and is not what comes up."""
    known = ledger(Phase.RUNNING, generation(1), head=1)
    asked = write(wish.up(known, rollback=1), "wish").project
    assert asked.rollback == 1
    assert write(decide(asked, boxes=box(), volumes=volumes(), **saved()), "1").project.want is Want.UP
    ready = project(Phase.READY, head=1, want=Want.UP, rollback=1)
    assert write(decide(ready, **saved()), "rollback").project.rollback is None, "nothing came since"


# Sizes


def test_another_type_takes_the_running_box_down_and_up_again_without_letting_it_go() -> None:
    """Saved on the way; same instance, same volumes."""
    places = (Place("m8g.4xlarge", "us-east-1a"),)
    asked = write(wish.resize(ledger(Phase.RUNNING), places=places, root_gib=None), "wish").project
    assert asked.cycle is Cycle.RESTART
    begun = write(decide(asked, boxes=box(), volumes=volumes()), "1").project
    assert begun.want is Want.UP
    assert not isinstance(decide(begun, boxes=box("stopped"), volumes=volumes()), Start), "not cancelled"
    warm = project(Phase.WARM, want=Want.UP, cycle=Cycle.RESTART, spec=asked.spec)
    started = write(decide(warm, boxes=box("stopped"), volumes=volumes(), **saved()), "start").project
    assert (started.phase, started.cycle) == (Phase.STARTING, Cycle.NONE)
    step = next_step(look(started, boxes=box("stopped"), volumes=volumes()))
    assert step == ChangeType("i-1", "m8g.4xlarge")


def test_another_type_for_what_does_not_run_waits_for_the_next_launch() -> None:
    places = (Place("m8g.4xlarge", "us-east-1a"),)
    step = write(wish.resize(ledger(Phase.READY), places=places, root_gib=None), "wish")
    assert (step.project.cycle, step.project.spec.places) == (Cycle.NONE, places)


def test_a_type_that_a_launch_has_left_for_the_next_start_is_had_now_by_resize() -> None:
    """The row wants it already; the box is still another one. The type that it has needs no restart."""
    places = (Place("m8g.4xlarge", "us-east-1a"),)
    known = ledger(Phase.RUNNING, at=PLACES[0], spec=replace(SPEC, places=places))
    assert known.project.next_type == "m8g.4xlarge"
    assert write(wish.resize(known, places=places, root_gib=None), "wish").project.cycle is Cycle.RESTART
    back = write(wish.resize(known, places=PLACES, root_gib=None), "wish").project
    assert (back.cycle, back.next_type) == (Cycle.NONE, None)


def test_a_disk_never_becomes_smaller() -> None:
    """EC2 can not do it, and would say so much later."""
    known = ledger(Phase.RUNNING)
    assert write(wish.resize(known, places=None, root_gib=80), "wish").project.spec.root_gib == 80
    for small in (8, 39):
        with pytest.raises(BadRequest, match="40 GiB"):
            wish.resize(known, places=None, root_gib=small)
    assert wish.resize(known, places=PLACES, root_gib=None) is None


# Names and new projects


@pytest.mark.parametrize("name", ["", "-api", "api-", "a" * 64, "api.dev", "a b", "ä", "a/b"])
def test_a_name_must_do_as_a_host_name(name: str) -> None:
    with pytest.raises(BadRequest):
        wish.check_name(name)


def test_a_name_is_not_changed_under_what_is_being_made() -> None:
    """It is in its tags, and in the name of the image."""
    for phase in (Phase.LAUNCHING, Phase.SAVING, Phase.RESCUE):
        with pytest.raises(WrongState):
            wish.can_be_renamed(ledger(phase))
    with pytest.raises(WrongState):
        wish.can_be_renamed(ledger(Phase.RUNNING, snap=3))
    wish.can_be_renamed(ledger(Phase.RUNNING))


def test_a_fork_begins_where_a_generation_stands() -> None:
    """With its own uid, and without a generation of its own."""
    origin = Ledger(project(Phase.READY), RUN, (generation(1),))
    made = wish.forked(origin, 1, "other", "web", AT)
    assert (made.name, made.head, made.fork_of) == ("web", 0, ("uid", 1))
    step = next_step(look(replace(made, want=Want.UP), run=None))
    begun = write(step, "L1")
    assert begun.run is not None
    assert begun.run.image == "ami-1"
    assert [(d.device, d.source, d.iops) for d in begun.run.disks] == [
        ("/dev/xvda", "snap-1-xvda", 3000),
        ("/dev/sdf", "snap-1-sdf", 9000),
    ]


def test_an_adopted_instance_is_a_run_like_any_other() -> None:
    made = wish.new(
        "uid", "api", "me", account=Account(), spec=replace(SPEC, places=()), policy=Policy(), at=AT
    )
    row, run = wish.adopted(made, box(token=None), DISKS)
    assert (row.phase, row.instance, row.bound, row.unprotected) == (Phase.RUNNING, "i-1", ("uid-1-0",), True)
    assert (run.token, run.disks) == ("uid-1-0", DISKS)
    assert row.spec.places == (Place("m8g.xlarge", "us-east-1a"),)


@pytest.mark.parametrize(
    "changes",
    [
        {"tags": {"devbox:project": "other"}},
        {"tags": {"aws:autoscaling:groupName": "workers"}},
        {"spot_request": "sir-1"},
        {"state": "terminated"},
    ],
)
def test_what_somebody_else_looks_after_is_not_adopted(changes: dict[str, Any]) -> None:
    made = wish.new("uid", "api", "me", account=Account(), spec=SPEC, policy=Policy(), at=AT)
    with pytest.raises(WrongState):
        wish.adopted(made, box(**changes), DISKS)
    with pytest.raises(WrongState):
        wish.adopted(made, box(), ())


def test_a_step_of_a_wish_is_one_write() -> None:
    """So that two who ask at once are one after the other."""
    assert isinstance(wish.up(ledger(Phase.READY)), Write)


def test_a_project_without_a_box_is_described_in_words_that_need_no_glossary() -> None:
    assert set(wish.DOWN) == set(Phase) - {Phase.RUNNING, Phase.BROKEN}
    down = wish.ProjectDown(project(Phase.READY))
    assert str(down) == "api has no box that runs: it is saved"
    assert down.hint == "devboxctl up api brings it up"


def test_what_is_refused_says_where_to_look() -> None:
    running = ledger(Phase.RUNNING)
    with pytest.raises(WrongState) as error:
        wish.resume(running, AT)
    assert "devboxctl ops ls" in (error.value.hint or "")
    with pytest.raises(WrongState) as error:
        wish.abandon(running, AT)
    assert "devboxctl ops ls" in (error.value.hint or "")
    with pytest.raises(WrongState) as error:
        wish.cancel(running)
    assert "devboxctl ops ls" in (error.value.hint or "")
    assert "devboxctl projects" in (wish.taken("work").hint or "")
