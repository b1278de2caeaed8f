"""From nothing to a running box, and back again warm: rows L1 to L6, and what a box is mended of."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from devboxd.model import launch
from devboxd.model.answer import Refusal, after_refusal, after_success
from devboxd.model.project import Cycle, Phase, Place, Quality, Span, Want
from devboxd.model.seen import Attached, can_never_be_bound
from devboxd.model.step import (
    ChangeType,
    GrowFileSystem,
    GrowVolume,
    KeepVolumes,
    Launch,
    MakeImage,
    Protect,
    Release,
    RunHook,
    Start,
    Tag,
    UnpinFork,
    Wait,
    Write,
)
from tests.model.scenes import (
    AT,
    DISKS,
    LAUNCHED,
    ORDERED,
    PLACES,
    RUN,
    SPEC,
    box,
    decide,
    generation,
    image,
    look,
    project,
    saved,
    snapshots,
    volumes,
)
from tests.model.test_save import LATER, write

ORDER = replace(RUN, disks=ORDERED, token="", instance=None)


# L1: nothing is called before it is written down


def test_row_l1_everything_that_run_instances_will_say_is_written_first() -> None:
    """A repeat with other parameters would be refused, or launch a second box."""
    row = project(Phase.ABSENT, run=0, closed=0, want=Want.UP)
    step = write(decide(row, run=None), "L1")
    assert (step.project.phase, step.project.run, step.project.attempt) == (Phase.LAUNCHING, 1, 0)
    assert step.run is not None
    assert (step.run.image, step.run.places, step.run.disks) == ("ami-base", PLACES, ORDERED)
    again = decide(step.project, run=step.run)
    assert isinstance(again, Launch)
    assert again.token == "uid-1-0"


def test_row_l1_the_head_is_what_comes_back() -> None:
    """Volumes are made from its snapshots, with the type and speed they had, none smaller."""
    row = project(Phase.READY, want=Want.UP, spec=replace(SPEC, root_gib=64))
    step = write(decide(row, **saved()), "L1")
    assert step.run is not None
    assert (step.run.number, step.run.source, step.run.image) == (2, 1, "ami-1")
    assert [(d.device, d.size_gib, d.type, d.iops, d.source, d.volume) for d in step.run.disks] == [
        ("/dev/xvda", 64, "gp3", 3000, "snap-1-xvda", None),
        ("/dev/sdf", 100, "io2", 9000, "snap-1-sdf", None),
    ]


def test_row_l1_the_zone_that_worked_comes_first_and_the_one_without_capacity_last() -> None:
    """Both are remembered from the last run."""
    row = project(Phase.READY, want=Want.UP, attempt=1)
    step = write(decide(row, **saved()), "L1")
    assert step.run is not None
    assert [place.zone for place in step.run.places] == ["us-east-1b", "us-east-1a"]
    step = write(decide(replace(row, shunned="us-east-1b"), **saved()), "L1")
    assert step.run is not None
    assert [place.zone for place in step.run.places] == ["us-east-1a", "us-east-1b"]


def test_nothing_to_launch_from_is_said_and_not_tried() -> None:
    """The user gets a sentence, and no loop."""
    row = project(Phase.ABSENT, run=0, closed=0, spec=replace(SPEC, image=""))
    step = write(decide(row, run=None), "L1")
    assert (step.project.phase, step.project.want) == (Phase.ABSENT, Want.COLD)


# L2 to L4


@pytest.mark.parametrize("attempt", [0, 1, 2])
def test_row_l2_each_attempt_has_its_own_token_and_place(attempt: int) -> None:
    """A token counts in one zone only."""
    step = decide(project(Phase.LAUNCHING, attempt=attempt), run=ORDER)
    assert isinstance(step, Launch)
    assert (step.token, step.place) == (f"uid-1-{attempt}", PLACES[attempt % 2])
    assert step.tags["devbox:launch"] == f"uid-1-{attempt}"


def test_row_l3_no_capacity_goes_to_the_next_place_and_ends_after_the_last() -> None:
    """Or goes round until there is some, where that was asked for."""
    row = project(Phase.LAUNCHING)
    call = decide(row, run=ORDER)
    assert isinstance(call, Launch)
    step = write(after_refusal(look(row, run=ORDER), call, Refusal.CAPACITY, "no room", 1), "L3")
    assert (step.project.phase, step.project.attempt) == (Phase.LAUNCHING, 1)
    last = replace(row, attempt=1)
    step = write(after_refusal(look(last, run=ORDER), call, Refusal.CAPACITY, "no room", 1), "L3")
    assert (step.project.phase, step.project.closed) == (Phase.ABSENT, 1)
    assert (step.project.want, step.project.reason) == (Want.COLD, "no room")
    patient = replace(last, spec=replace(SPEC, until_up=True))
    step = write(after_refusal(look(patient, run=ORDER), call, Refusal.CAPACITY, "no room", 1), "L3")
    assert step.project.attempt == 2


@pytest.mark.parametrize(
    ("attempt", "places", "seconds"),
    [
        *((attempt, 3, 0.0) for attempt in (0, 1, 2, 4, 5, 7, 3001)),
        *(
            (3, 3, 15.0),
            (6, 3, 30.0),
            (9, 3, 60.0),
            (12, 3, 120.0),
            (15, 3, 240.0),
            (18, 3, 300.0),
            (3000, 3, 300.0),
        ),
        *((0, 1, 0.0), (1, 1, 15.0), (2, 1, 30.0), (10**9, 1, 300.0)),
    ],
)
def test_whoever_goes_round_the_places_rests_after_each_round(
    attempt: int, places: int, seconds: float
) -> None:
    """Within a round nothing is waited for: the next place may have room."""
    assert launch.between_rounds(attempt, places) == seconds


def test_a_round_begins_when_the_rest_is_over() -> None:
    """And not while it is called off; the rest is one of looks, so a nap of the laptop is none."""
    row = project(Phase.LAUNCHING, attempt=len(ORDER.places), spec=replace(SPEC, until_up=True))
    rest = decide(row, run=ORDER)
    assert isinstance(rest, Wait)
    assert (rest.seconds, "no capacity anywhere" in rest.why) == (15.0, True)
    assert decide(row, run=ORDER, waited=(rest.why, 14.0)) == Wait(1.0, rest.why)
    assert isinstance(decide(row, run=ORDER, waited=(rest.why, 15.0)), Launch)
    late = decide(replace(row, attempt=20 * len(ORDER.places)), run=ORDER)
    assert isinstance(late, Wait)
    again = replace(row, attempt=21 * len(ORDER.places))
    assert isinstance(decide(again, run=ORDER, waited=(late.why, 301.0)), Wait), (
        "each round has a rest of its own"
    )
    off = write(decide(replace(row, want=Want.COLD), run=ORDER), "L3")
    assert off.project.phase is Phase.ABSENT
    there = decide(row, run=ORDER, boxes=box("pending", token=row.token))
    assert there == Wait(2.0, "the instance is pending"), "what came late is seen meanwhile"


@pytest.mark.parametrize("refusal", [Refusal.QUOTA, Refusal.DENIED, Refusal.INVALID])
def test_a_launch_that_can_not_work_ends_with_its_reason(refusal: Refusal) -> None:
    """A quota or a missing permission is for a person."""
    row = project(Phase.LAUNCHING, head=1)
    call = decide(row, run=ORDER, **saved())
    assert isinstance(call, Launch)
    step = write(after_refusal(look(row, run=ORDER), call, refusal, "the limit is 0", 1), "L3")
    assert (step.project.phase, step.project.reason) == (Phase.READY, "the limit is 0")


@pytest.mark.parametrize("refusal", [Refusal.UNKNOWN, Refusal.LATER, Refusal.BUSY, Refusal.GONE])
def test_a_lost_or_early_launch_is_made_again_as_it_was(refusal: Refusal) -> None:
    """The same token finds what the first call made."""
    row = project(Phase.LAUNCHING)
    call = decide(row, run=ORDER)
    assert isinstance(call, Launch)
    assert after_refusal(look(row, run=ORDER), call, refusal, "no answer", 1) is None
    assert decide(row, run=ORDER) == call


@pytest.mark.parametrize(
    ("reason", "phase", "attempt"),
    [
        ("Server.InsufficientInstanceCapacity", Phase.LAUNCHING, 1),
        ("Client.VolumeLimitExceeded", Phase.ABSENT, 0),
        ("Client.InternalError", Phase.ABSENT, 0),
    ],
)
def test_a_launch_that_dies_in_pending_tells_why(reason: str, phase: Phase, attempt: int) -> None:
    """RunInstances may say yes and the instance still never run."""
    step = write(decide(project(Phase.LAUNCHING), boxes=box("terminated", reason=reason), run=ORDER), "L3")
    assert (step.project.phase, step.project.attempt) == (phase, attempt)


def test_row_l4_binds_what_carries_the_current_token() -> None:
    """With its volumes, and what makes it boot."""
    row = project(Phase.LAUNCHING)
    assert isinstance(decide(row, boxes=box("pending"), run=ORDER), Wait)
    assert isinstance(decide(row, boxes=box(), run=ORDER), Wait), "its volumes do not show yet"
    step = write(decide(row, boxes=box(), volumes=volumes(), run=ORDER), "L4")
    assert (step.project.phase, step.project.instance) == (Phase.RUNNING, "i-1")
    assert (step.project.launched, step.project.bound) == (LAUNCHED, ("uid-1-0",))
    assert step.run is not None
    assert (step.run.token, step.run.disks, step.run.spans) == (
        "uid-1-0",
        DISKS,
        (Span(LAUNCHED, type="m8g.xlarge"),),
    )
    other = box(token="uid-1-7")
    assert isinstance(decide(row, boxes=other, volumes=volumes(), run=ORDER), Launch)


def test_a_box_that_ran_and_was_ended_before_it_was_bound_is_not_thrown_away() -> None:
    """The laptop slept through its whole life; there may be work on it."""
    row = project(Phase.LAUNCHING)
    killed = box("terminated", reason="Client.UserInitiatedShutdown")
    step = write(decide(row, boxes=killed, volumes=volumes("available"), run=ORDER), "L4")
    write(decide(step.project, boxes=killed, volumes=volumes("available"), run=step.run), "R1")


def test_a_box_that_vanished_before_it_was_bound_is_rescued_from_its_volumes() -> None:
    """Records of terminated instances fade after an hour."""
    row = project(Phase.LAUNCHING, since=AT - 7200)
    step = write(decide(row, volumes=volumes("available"), run=ORDER), "R1")
    assert (step.project.phase, step.project.bound) == (Phase.RESCUE, ("uid-1-0",))
    assert isinstance(decide(replace(row, since=AT - 10), volumes=volumes("available"), run=ORDER), Launch)


def test_a_launch_can_be_cancelled_while_nothing_shows() -> None:
    """Whatever the lost call may still make is surplus from now on."""
    row = project(Phase.LAUNCHING, want=Want.COLD)
    step = write(decide(row, run=ORDER), "L3")
    assert (step.project.phase, step.project.closed) == (Phase.ABSENT, 1)
    assert can_never_be_bound("uid-1-0", step.project)
    assert decide(step.project, boxes=box(), run=ORDER) == Release("i-1")


# L5: what a running box is mended of


def test_a_box_that_is_as_it_should_be_is_left_alone() -> None:
    """No call, no write."""
    assert isinstance(decide(project(Phase.RUNNING), boxes=box(), volumes=volumes()), Wait)


def test_row_l5_no_volume_dies_with_the_box() -> None:
    """Data was lost in 63 of 500 simulated histories without this."""
    mortal = (Attached("/dev/xvda", "vol-root", True), Attached("/dev/sdf", "vol-data", False))
    step = decide(project(Phase.RUNNING), boxes=box(attached=mortal), volumes=volumes())
    assert step == KeepVolumes("i-1", ("/dev/xvda",))
    down = project(Phase.RUNNING, want=Want.COLD)
    assert decide(down, boxes=box(attached=mortal), volumes=volumes()) == step, "before it is stopped, too"


def test_a_volume_attached_by_hand_is_saved_with_the_others() -> None:
    """It is in the image anyway; the row must know."""
    extra = Attached("/dev/sdg", "vol-new", False)
    new = replace(volumes()[1], id="vol-new", token=None)
    one = box(attached=(*box().attached, extra))
    step = write(decide(project(Phase.RUNNING), boxes=one, volumes=(*volumes(), new)), "L5")
    assert step.run is not None
    assert [d.device for d in step.run.disks] == ["/dev/xvda", "/dev/sdf", "/dev/sdg"]


def test_protection_comes_back_after_a_release_that_was_overtaken() -> None:
    """Somebody started the box in the console while it was being let go."""
    row = project(Phase.RUNNING, unprotected=True)
    assert decide(row, boxes=box(), volumes=volumes()) == Protect("i-1")
    step = after_success(look(row, boxes=box(), volumes=volumes()), Protect("i-1"))
    assert not write(step, "protect").project.unprotected


def test_an_adopted_box_gets_our_tags_and_then_counts_as_ours() -> None:
    """An instance that somebody else launched, its volumes included."""
    row = project(Phase.RUNNING, adopted=True)
    step = decide(row, boxes=box(), volumes=volumes())
    assert isinstance(step, Tag)
    assert set(step.resources) == {"i-1", "vol-root", "vol-data"}
    tagged = tuple(replace(one, tags=step.tags) for one in volumes())
    step = write(decide(row, boxes=box(tags=step.tags), volumes=tagged), "adopt")
    assert not step.project.adopted


def test_a_larger_disk_is_a_larger_volume_and_then_a_larger_file_system() -> None:
    """Both are found done after a crash."""
    row = project(Phase.RUNNING, spec=replace(SPEC, root_gib=80))
    assert decide(row, boxes=box(), volumes=volumes()) == GrowVolume("vol-root", 80)
    grown = (replace(volumes()[0], disk=replace(DISKS[0], size_gib=80)), volumes()[1])
    step = decide(row, boxes=box(), volumes=grown)
    assert step == GrowFileSystem("i-1", "/dev/xvda", 80)
    noted = write(after_success(look(row, boxes=box(), volumes=grown), step), "grow")
    assert noted.run is not None
    assert isinstance(decide(row, boxes=box(), volumes=grown, run=noted.run), Wait)


def test_a_snapshot_of_a_running_box_becomes_a_generation_that_releases_nothing() -> None:
    """It is as after a power cut, and the box has gone on since."""
    row = project(Phase.RUNNING, snap=1, saves=1, label="before the upgrade")
    assert decide(row, boxes=box(), volumes=volumes()) == RunHook("i-1", 1, live=True)
    assert isinstance(decide(row, boxes=box(), volumes=volumes(), hooked=True), MakeImage)
    assert isinstance(decide(row, boxes=box(), volumes=volumes(), images=image("pending")), Wait)
    step = write(decide(row, boxes=box(), volumes=volumes(), images=image(), snapshots=snapshots()), "8")
    (made,) = step.generations
    assert (made.quality, made.stamp, made.label) == (Quality.CRASH, None, "before the upgrade")
    assert (step.project.phase, step.project.snap, step.project.head) == (Phase.RUNNING, None, 1)
    step = write(decide(row, boxes=box(), volumes=volumes(), images=image("failed")), "snapshot")
    assert step.project.snap is None
    down = write(decide(replace(row, want=Want.COLD), boxes=box(), volumes=volumes()), "1")
    assert (down.project.snap, down.project.save) == (None, 2)


def test_a_restart_by_hand_between_two_looks_is_noticed() -> None:
    """LaunchTime is the stamp that everything later is compared with."""
    step = write(decide(project(Phase.RUNNING), boxes=box(launched=LATER), volumes=volumes()), "start")
    assert step.project.launched == LATER


# L6


@pytest.mark.parametrize(
    ("phase", "token", "surplus"),
    [
        (Phase.RUNNING, "uid-1-1", False),  # not given up as far as we know
        (Phase.RUNNING, "uid-2-0", False),
        (Phase.RUNNING, "other-1-0", False),
        (Phase.RUNNING, "uid-1-0", False),  # a second one with the bound token: never ours to end
        (Phase.RUNNING, None, False),
        (Phase.READY, "uid-1-1", True),
        (Phase.READY, "uid-1-0", False),  # it was bound
    ],
)
def test_row_l6_only_what_can_never_be_bound_is_reaped(
    phase: Phase, token: str | None, surplus: bool
) -> None:
    """Never ending a box that somebody may work on comes before ending what nobody needs."""
    stray = box(id="i-stray", token=token)
    own = (box(),) if phase is Phase.RUNNING else ()
    step = decide(project(phase), boxes=(*own, stray), volumes=volumes(), **saved())
    assert (step == Release("i-stray")) is surplus


def test_row_l6_an_abandoned_attempt_is_reaped_once_a_later_one_is_current() -> None:
    """Capacity that comes back late makes a second box."""
    row = project(Phase.RUNNING, attempt=1, bound=("uid-1-1",))
    stray = box(id="i-stray", token="uid-1-0")
    step = decide(row, boxes=(box(token="uid-1-1"), stray), volumes=volumes())
    assert step == Release("i-stray")


def test_tokens_that_are_forgotten_are_not_judged() -> None:
    """The row remembers the last twenty; what is older is left alone."""
    bound = tuple(f"uid-{number}-0" for number in range(30, 50))
    row = project(Phase.READY, run=50, closed=50, bound=bound)
    assert can_never_be_bound("uid-35-1", row)
    assert not can_never_be_bound("uid-35-0", row)
    assert not can_never_be_bound("uid-29-1", row)


# Warm start


def test_a_warm_box_is_started_until_its_launch_time_changes() -> None:
    """The stamp, not the state, says that it is the new life of it."""
    row = project(Phase.STARTING)
    assert decide(row, boxes=box("stopped"), volumes=volumes()) == Start("i-1")
    assert isinstance(decide(row, boxes=box("running"), volumes=volumes()), Wait), "an old view"
    assert isinstance(decide(row, boxes=box("pending", launched=LATER), volumes=volumes()), Wait)
    step = write(decide(row, boxes=box("running", launched=LATER), volumes=volumes()), "start")
    assert (step.project.phase, step.project.launched) == (Phase.RUNNING, LATER)


def test_another_type_is_set_while_the_box_is_stopped() -> None:
    """It can be changed at no other time."""
    spec = replace(SPEC, places=(Place("m8g.4xlarge", "us-east-1a"),))
    row = project(Phase.STARTING, spec=spec)
    step = decide(row, boxes=box("stopped"), volumes=volumes())
    assert step == ChangeType("i-1", "m8g.4xlarge")
    assert decide(row, boxes=box("stopped", type="m8g.4xlarge"), volumes=volumes()) == Start("i-1")


def test_a_saved_box_without_capacity_is_let_go_and_launched_elsewhere() -> None:
    """An instance is tied to its zone, an image is not."""
    row = project(Phase.STARTING, head=1, saves=1, clean=True)
    seen = look(row, boxes=box("stopped"), volumes=volumes(), **saved())
    step = write(after_refusal(seen, Start("i-1"), Refusal.CAPACITY, "no room", 1), "10")
    assert (step.project.phase, step.project.shunned) == (Phase.RELEASING, "us-east-1a")
    assert step.project.want is Want.UP


def test_an_unsaved_box_without_capacity_is_saved_first_and_that_can_not_be_cancelled() -> None:
    """Its last save was cancelled to start it again: what it holds is on its volumes only."""
    row = project(Phase.STARTING, saves=1)
    seen = look(row, boxes=box("stopped"), volumes=volumes())
    step = write(after_refusal(seen, Start("i-1"), Refusal.CAPACITY, "no room", 1), "1")
    assert (step.project.phase, step.project.stamp, step.project.want) == (Phase.SAVING, LAUNCHED, Want.UP)
    assert isinstance(decide(step.project, boxes=box("stopped"), volumes=volumes(), run=step.run), MakeImage)


@pytest.mark.parametrize("refusal", [Refusal.DENIED, Refusal.QUOTA, Refusal.INVALID])
def test_a_box_that_may_not_start_says_why_and_stays_saved(refusal: Refusal) -> None:
    """No loop of refused calls."""
    row = project(Phase.STARTING, head=1)
    seen = look(row, boxes=box("stopped"), volumes=volumes(), **saved())
    step = write(after_refusal(seen, Start("i-1"), refusal, "not allowed", 1), "start")
    assert (step.project.phase, step.project.want, step.project.reason) == (
        Phase.WARM,
        Want.WARM,
        "not allowed",
    )


@pytest.mark.parametrize("want", [Want.WARM, Want.COLD])
def test_a_box_that_is_not_wanted_up_any_more_is_not_started(want: Want) -> None:
    """The wish is younger than the phase. A start that was asked for may not show yet: it is waited for."""
    row, why = project(Phase.STARTING, want=want), "it is not wanted up any more, and may be starting"
    stopped: dict[str, Any] = {"boxes": box("stopped"), "volumes": volumes()}
    assert decide(row, **stopped) == Wait(2.0, why)
    step = write(decide(row, **stopped, waited=(why, 21.0)), "1")
    assert (step.project.phase, step.project.want, step.project.called_off) == (Phase.SAVING, want, AT)
    clean = replace(row, head=1, saves=1, clean=True)
    kept = write(decide(clean, **stopped, **saved(), waited=(why, 21.0)), "start").project
    assert (kept.phase, kept.want) == (Phase.WARM, want)
    for refusal in (Refusal.DENIED, Refusal.CAPACITY):
        seen = look(row, **stopped)
        answered = after_refusal(seen, Start("i-1"), refusal, "no", 1)
        assert answered is not None
        assert answered.project.want is want


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.RUNNING])
@pytest.mark.parametrize("want", [Want.WARM, Want.COLD])
def test_s11_that_it_runs_does_not_undo_a_command(phase: Phase, want: Want) -> None:
    """The user asked for it to be saved while it was on its way up."""
    up = {"boxes": box(launched=LATER), "volumes": volumes()}
    step = write(decide(project(phase, want=want), **up), "start")
    assert (step.project.phase, step.project.want) == (Phase.RUNNING, want)
    assert write(decide(step.project, **up), "1").project.phase is Phase.SAVING


def test_a_start_that_was_called_off_is_no_wish_when_it_shows_after_all() -> None:
    """Ours, late; much later it is somebody's."""
    row = project(Phase.WARM, want=Want.WARM, called_off=LATER - 200.0)
    late = box(launched=LATER)
    assert write(decide(row, boxes=late, volumes=volumes()), "start").project.want is Want.WARM
    row = replace(row, called_off=LATER - 301.0)
    step = write(decide(row, boxes=late, volumes=volumes()), "start")
    assert (step.project.want, step.project.called_off) == (Want.UP, None)


def test_a_change_of_type_survives_a_start_that_came_too_early_for_it() -> None:
    """Asked for while the box was starting: it goes down once more."""
    spec = replace(SPEC, places=(Place("m8g.4xlarge", "us-east-1a"),))
    row = project(Phase.STARTING, spec=spec, cycle=Cycle.RESTART)
    up = {"boxes": box(launched=LATER), "volumes": volumes()}
    assert write(decide(row, **up), "start").project.cycle is Cycle.RESTART
    changed = {"boxes": box(launched=LATER, type="m8g.4xlarge"), "volumes": volumes()}
    assert write(decide(row, **changed), "start").project.cycle is Cycle.NONE


# Rollback, forks


def test_going_back_is_a_new_generation_that_points_at_the_old_image() -> None:
    """So going back can be undone the same way."""
    row = project(Phase.READY, want=Want.UP, head=2, rollback=1)
    both: dict[str, Any] = {"generations": (generation(1, pins=("user",)), generation(2))}
    step = write(decide(row, **both), "rollback")
    (made,) = step.generations
    assert (made.number, made.image, made.parent, made.pins) == (3, "ami-1", 1, ())
    assert made.stamp is None, "it must never let a box be released"
    assert (step.project.head, step.project.rollback, step.project.want) == (3, None, Want.UP)


def test_going_back_saves_the_present_first() -> None:
    """What is not saved yet becomes a generation of its own."""
    row = project(Phase.RUNNING, rollback=1, head=1)
    step = write(decide(row, boxes=box(), volumes=volumes(), **saved()), "1")
    assert step.project.want is Want.UP
    row = project(Phase.WARM, rollback=1, head=1, want=Want.UP)
    write(decide(row, boxes=box("stopped"), volumes=volumes(), **saved()), "10")


def test_a_generation_that_is_not_there_is_not_gone_back_to() -> None:
    row = project(Phase.READY, want=Want.UP, rollback=7)
    step = write(decide(row, **saved()), "rollback")
    assert (step.project.rollback, step.project.want) == (None, Want.COLD)
    assert "7" in step.project.reason


def test_a_fork_lets_go_of_its_origin_with_its_first_own_generation() -> None:
    """Until then the origin's generation is pinned."""
    row = project(Phase.READY, fork_of=("origin", 4))
    step = decide(row, **saved())
    assert step == UnpinFork("origin", 4, "fork:uid")
    noted = after_success(look(row, **saved()), step)
    assert isinstance(noted, Write)
    assert noted.project.fork_of is None
    assert not isinstance(decide(replace(row, head=0), **saved()), UnpinFork)


@pytest.mark.parametrize("launched", [LATER, LAUNCHED])
@pytest.mark.parametrize("is_saved", [True, False])
def test_a_start_that_found_no_room_later_goes_elsewhere(launched: float, is_saved: bool) -> None:
    """EC2 has taken it and thought better of it: no other than a refusal. What is not surely saved is saved first."""
    row = project(Phase.STARTING, **({"head": 1, "saves": 1, "clean": True} if is_saved else {"saves": 1}))
    stopped = box("stopped", launched=launched, reason="Server.InsufficientInstanceCapacity")
    given: dict[str, Any] = saved() if is_saved else {}
    what = "10" if is_saved and launched == LAUNCHED else "1"
    step = write(decide(row, boxes=stopped, volumes=volumes(), starts=3, **given), what)
    assert (step.project.want, step.project.shunned) == (Want.UP, "us-east-1a")
    assert "Server.InsufficientInstanceCapacity" in step.event
    if what == "10":
        assert step.project.phase is Phase.RELEASING
        return
    assert (step.project.phase, step.project.cycle) == (Phase.SAVING, Cycle.RELAUNCH)
    imaged = decide(step.project, boxes=stopped, volumes=volumes(), run=step.run)
    assert isinstance(imaged, MakeImage), "this save is not cancelled, and the box is not started meanwhile"


@pytest.mark.parametrize(
    ("reason", "starts", "says"),
    [
        ("Server.InsufficientInstanceCapacity", 2, None),  # that of an earlier start, perhaps
        ("Client.InternalError", 2, None),
        ("Client.InternalError", 3, "EC2 says Client.InternalError"),
        ("Client.UserInitiatedShutdown", 11, None),
        ("Client.UserInitiatedShutdown", 12, "EC2 says Client.UserInitiatedShutdown"),
        ("", 12, "EC2 leaves the box stopped"),
    ],
)
def test_starts_without_an_effect_are_not_repeated_for_ever(
    reason: str, starts: int, says: str | None
) -> None:
    """A key of its disks that can not be used is no refusal of the call: the box only does not come."""
    row = project(Phase.STARTING, head=1, saves=1, clean=True)
    stopped = {"boxes": box("stopped", reason=reason), "volumes": volumes(), **saved()}
    step = decide(row, **stopped, starts=starts)
    if says is None:
        assert step == Start("i-1")
        return
    assert isinstance(step, Write)
    assert (step.project.phase, step.project.want, step.project.reason) == (Phase.WARM, Want.WARM, says)


def test_a_box_that_could_not_start_says_why_when_it_is_saved() -> None:
    """Its LaunchTime is another one, so what it holds is saved, though it never ran."""
    stopped = box("stopped", launched=LATER, reason="Client.InternalError")
    step = write(decide(project(Phase.STARTING), boxes=stopped, volumes=volumes()), "1")
    assert (step.project.phase, step.project.want) == (Phase.SAVING, Want.WARM)
    assert "it could not start: EC2 says Client.InternalError" in step.event
    by_user = box("stopped", launched=LATER, reason="Client.UserInitiatedShutdown")
    step = write(decide(project(Phase.STARTING), boxes=by_user, volumes=volumes()), "1")
    assert "stopped again" in step.event
