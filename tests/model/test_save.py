"""From a running box to a generation and on to nothing: every row of the call table, and what each gate is for."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from devboxd.model.answer import Refusal, after_refusal
from devboxd.model.commit import unlike
from devboxd.model.project import Boot, Cycle, Phase, Policy, Quality, Want
from devboxd.model.step import (
    MakeImage,
    MakeImageOf,
    MakeSnapshot,
    Release,
    RunHook,
    Start,
    Stop,
    Wait,
    Write,
)
from tests.model.scenes import (
    AT,
    BOOT,
    DISKS,
    LAUNCHED,
    RUN,
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

STAMPED = {"stamp": LAUNCHED}
LATER = LAUNCHED + 60.0  # a LaunchTime that says: somebody has started it since


def write(step: object, what: str) -> Write:
    """The step is that row of the call table."""
    assert isinstance(step, Write), step
    assert step.what == what, step
    return step


# Rows 1 to 8


@pytest.mark.parametrize("want", [Want.WARM, Want.COLD])
def test_row_1_a_save_number_comes_before_anything_happens_to_the_box(want: Want) -> None:
    """A daemon that dies now leaves a row that says what was going on."""
    step = write(decide(project(Phase.RUNNING, want=want), boxes=box(), volumes=volumes()), "1")
    assert (step.project.phase, step.project.saves, step.project.save) == (Phase.SAVING, 1, 1)
    assert step.project.want is want


@pytest.mark.parametrize("state", ["stopping", "stopped"])
def test_row_1_a_box_that_stopped_by_itself_is_saved_and_not_started_again(state: str) -> None:
    """A watchdog, the console or the box's own shutdown meant it."""
    step = write(decide(project(Phase.RUNNING), boxes=box(state), volumes=volumes()), "1")
    assert step.project.want is Want.WARM


def test_rows_2_and_3_the_hook_runs_before_the_stop() -> None:
    """Editors get to write their buffers."""
    row = project(Phase.SAVING)
    assert decide(row, boxes=box(), volumes=volumes()) == RunHook("i-1", 1)
    assert decide(row, boxes=box(), volumes=volumes(), hooked=True) == Stop("i-1")


def test_row_3_power_is_cut_only_after_a_long_look_and_is_remembered() -> None:
    """A generation taken after a power cut says so, and a nap is not a look."""
    row = project(Phase.SAVING, since=AT - 100_000)
    step = decide(row, boxes=box("stopping"), volumes=volumes())
    assert isinstance(step, Wait)
    forced = write(decide(row, boxes=box("stopping"), volumes=volumes(), waited=(step.why, 601.0)), "3")
    assert decide(forced.project, boxes=box("stopping"), volumes=volumes()) == Stop("i-1", force=True)
    done = replace(forced.project, stamp=LAUNCHED)
    step = decide(done, boxes=box("stopped"), volumes=volumes(), images=image(), snapshots=snapshots())
    assert write(step, "8").generations[0].quality is Quality.CRASH


def test_row_4_the_stop_is_stamped_with_every_volume_as_it_is() -> None:
    """Type, IOPS, throughput and key of a volume are in no snapshot."""
    changed = tuple(replace(v, disk=replace(v.disk, iops=16000)) for v in volumes())
    step = write(decide(project(Phase.SAVING), boxes=box("stopped"), volumes=changed), "4")
    assert step.project.stamp == LAUNCHED
    assert step.run is not None
    assert [(d.device, d.volume, d.iops) for d in step.run.disks] == [
        ("/dev/xvda", "vol-root", 16000),
        ("/dev/sdf", "vol-data", 16000),
    ]


def test_row_4_waits_until_every_attached_volume_shows() -> None:
    """A volume that a stale view lacks must not be left out of the generation."""
    step = decide(project(Phase.SAVING), boxes=box("stopped"), volumes=volumes()[:1])
    assert isinstance(step, Wait)


@pytest.mark.parametrize("state", ["pending", "running", "stopping"])
def test_row_5_no_image_is_made_of_a_box_that_has_not_stopped(state: str) -> None:
    """The last writes would be missing."""
    step = decide(project(Phase.SAVING, **STAMPED), boxes=box(state), volumes=volumes(), hooked=True)
    assert not isinstance(step, MakeImage)


def test_row_5_the_image_has_the_name_of_its_save() -> None:
    """The unique name is what makes the call repeatable."""
    step = decide(project(Phase.SAVING, saves=7, save=7, **STAMPED), boxes=box("stopped"), volumes=volumes())
    assert isinstance(step, MakeImage)
    assert step.name == "devbox/api/uid-7"
    assert step.tags["devbox:save"] == "7"
    assert step.tags["devbox:owner"] == "me"
    assert step.tags["devbox:run"] == "1"


def test_row_5_a_box_that_ran_in_between_gets_a_new_save() -> None:
    """Else an image of the wrong moment would be adopted by its name."""
    row = project(Phase.SAVING, **STAMPED)
    step = write(decide(row, boxes=box("stopped", launched=LATER), volumes=volumes()), "1")
    assert (step.project.save, step.project.stamp, step.project.launched) == (2, None, LATER)


def test_somebody_who_starts_the_box_while_it_is_saved_keeps_it() -> None:
    """The last hand on it wanted it up; the save number is never used again."""
    for extra in ({}, STAMPED):
        row = project(Phase.SAVING, **extra)
        step = write(decide(row, boxes=box("running", launched=LATER), volumes=volumes()), "start")
        assert (step.project.phase, step.project.want, step.project.save) == (Phase.RUNNING, Want.UP, None)
        assert step.project.saves == 1


def test_an_old_view_of_the_box_decides_nothing() -> None:
    """EC2 may show it stopped as it was before its last start."""
    row = project(Phase.SAVING, launched=LATER)
    assert isinstance(decide(row, boxes=box("stopped"), volumes=volumes()), Wait)
    stamped = project(Phase.SAVING, **STAMPED)
    assert isinstance(decide(stamped, boxes=box("running"), volumes=volumes(), hooked=True), Wait)


@pytest.mark.parametrize("phase", [Phase.SAVING, Phase.WARM, Phase.RELEASING, Phase.STARTING])
def test_a_running_view_that_stays_is_believed_at_last(phase: Phase) -> None:
    """Whatever its LaunchTime says: it must not be waited for without an end, and never be let go after that."""
    row = project(phase, stamp=LAUNCHED, head=1)
    seen: dict[str, Any] = {"boxes": box("running"), "volumes": volumes(), "hooked": True, **saved()}
    step = decide(row, **seen)
    assert isinstance(step, Wait)
    again = write(decide(row, waited=(step.why, 301.0), **seen), "start").project
    assert (again.phase, again.clean) == (Phase.RUNNING, False)
    for state in (Phase.WARM, Phase.RELEASING):
        stopped = replace(again, phase=state, want=Want.COLD)
        write(decide(stopped, boxes=box("stopped"), volumes=volumes(), **saved()), "1")
        write(decide(stopped, boxes=box("terminated"), volumes=volumes("available"), **saved()), "R1")


@pytest.mark.parametrize("state", ["pending", "transient"])
def test_row_6_an_image_in_the_making_is_waited_for_without_a_bound(state: str) -> None:
    """It takes minutes, exceptionally a day; every stock waiter gives up after ten."""
    row = project(Phase.SAVING, since=AT - 86400, **STAMPED)
    step = decide(row, boxes=box("stopped"), volumes=volumes(), images=image(state))
    assert isinstance(step, Wait)


@pytest.mark.parametrize("state", ["failed", "error", "invalid", "disabled"])
def test_row_6_a_failed_image_is_made_again_under_a_new_name_and_then_left_to_a_person(state: str) -> None:
    """The box stays, stopped, and nothing is deleted."""
    row = project(Phase.SAVING, **STAMPED)
    seen = {"boxes": box("stopped"), "volumes": volumes(), "images": image(state)}
    step = write(decide(row, **seen), "6")
    assert (step.project.save, step.project.failures) == (2, 1)
    step = write(decide(replace(row, failures=2), **seen), "broken")
    assert step.project.phase is Phase.BROKEN
    assert isinstance(decide(step.project, **seen), Wait)


@pytest.mark.parametrize(
    "seen",
    [
        {"snapshots": snapshots()[:1]},
        {"snapshots": snapshots("pending")},
        {"snapshots": (snapshots()[0], replace(snapshots()[1], volume="vol-of-another-stop"))},
        {"snapshots": (snapshots()[0], replace(snapshots()[1], save=None))},
        {"images": image(snapshots={"/dev/xvda": "snap-1-xvda", "/dev/sdf": None})},
        {"images": image(snapshots={"/dev/xvda": "snap-1-xvda"})},
    ],
    ids=["one missing", "pending", "of another volume", "not ours", "not named yet", "device missing"],
)
def test_row_7_an_image_counts_when_every_volume_is_in_it(seen: dict[str, Any]) -> None:
    """A generation that lacks a disk is no generation."""
    row = project(Phase.SAVING, **STAMPED)
    whole = {"images": image(), "snapshots": snapshots()}
    step = decide(row, boxes=box("stopped"), volumes=volumes(), **(whole | seen))
    assert isinstance(step, Wait)
    step = decide(row, boxes=box("stopped"), volumes=volumes(), waited=(step.why, 901.0), **(whole | seen))
    write(step, "6")


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ({"architecture": "x86_64"}, "architecture"),
        ({"boot_mode": None}, "boot mode"),
        ({"ena": None}, "ENA support"),
        ({"platform": "Red Hat Enterprise Linux"}, "platform"),
        ({"usage": "RunInstances:0010"}, "billing code"),
    ],
)
def test_row_7_an_image_that_would_boot_or_bill_otherwise_does_not_count(
    lost: dict[str, Any], said: str
) -> None:
    """It would be found out at the next launch, when the box is gone."""
    row = project(Phase.SAVING, **STAMPED)
    other = image(boot=replace(BOOT, **lost))
    step = decide(row, boxes=box("stopped"), volumes=volumes(), images=other, snapshots=snapshots())
    assert said in write(step, "6").event


def test_row_7_what_ec2_never_said_of_the_box_is_not_compared() -> None:
    """An older box has no boot mode; its image may say one."""
    row, run = project(Phase.SAVING, **STAMPED), replace(RUN, boot=Boot())
    step = decide(
        row, boxes=box("stopped"), volumes=volumes(), images=image(), snapshots=snapshots(), run=run
    )
    write(step, "8")


def test_row_8_the_commit_makes_the_generation_and_the_head_in_one() -> None:
    """From here on the project comes back from it."""
    row = project(Phase.SAVING, label="before the upgrade", want=Want.WARM, **STAMPED)
    step = write(
        decide(row, boxes=box("stopped"), volumes=volumes(), images=image(), snapshots=snapshots()), "8"
    )
    (made,) = step.generations
    assert (step.project.phase, step.project.head, step.project.save) == (Phase.WARM, 1, None)
    assert (made.number, made.image, made.stamp, made.quality) == (1, "ami-1", LAUNCHED, Quality.CLEAN)
    assert made.label == "before the upgrade"
    assert [(d.device, d.snapshot, d.type, d.iops) for d in made.disks] == [
        ("/dev/xvda", "snap-1-xvda", "gp3", 3000),
        ("/dev/sdf", "snap-1-sdf", "io2", 9000),
    ]


# Cancelling


def test_up_before_the_image_call_cancels_the_save() -> None:
    """Who changes their mind in time waits for nothing."""
    row = project(Phase.SAVING, want=Want.UP)
    step = write(decide(row, boxes=box(), volumes=volumes()), "start")
    assert (step.project.phase, step.project.save) == (Phase.RUNNING, None)
    for state in ("stopping", "stopped"):
        step = write(decide(row, boxes=box(state), volumes=volumes()), "cancel")
        assert (step.project.phase, step.project.save) == (Phase.STARTING, None)
    assert decide(step.project, boxes=box("stopped"), volumes=volumes()) == Start("i-1")


def test_up_after_the_image_call_waits_for_the_generation_and_resumes() -> None:
    """Once the stop is stamped any daemon may have asked for the image."""
    row = project(Phase.SAVING, want=Want.UP, **STAMPED)
    assert isinstance(decide(row, boxes=box("stopped"), volumes=volumes()), MakeImage)
    seen = {"boxes": box("stopped"), "volumes": volumes(), "images": image(), "snapshots": snapshots()}
    committed = write(decide(row, **seen), "8")
    step = write(decide(committed.project, generations=committed.generations, **seen), "start")
    assert step.project.phase is Phase.STARTING


# Rows 9 to 13


def test_row_9_the_stopped_box_is_kept_for_the_warm_window() -> None:
    """Starting it is fast, and it costs no compute."""
    row = project(Phase.WARM, want=Want.WARM, since=AT - 11 * 3600)
    assert isinstance(decide(row, boxes=box("stopped"), volumes=volumes(), **saved()), Wait)
    row = project(Phase.WARM, want=Want.WARM, since=AT - 13 * 3600)
    assert write(decide(row, boxes=box("stopped"), volumes=volumes(), **saved()), "10").project.unprotected
    row = project(Phase.WARM, want=Want.WARM, since=AT - 13 * 3600, policy=Policy(warm_for=None))
    assert isinstance(decide(row, boxes=box("stopped"), volumes=volumes(), **saved()), Wait)


def test_row_10_cold_means_at_once() -> None:
    """``terminate`` says so."""
    row = project(Phase.WARM)
    step = write(decide(row, boxes=box("stopped"), volumes=volumes(), **saved()), "10")
    assert step.project.phase is Phase.RELEASING


@pytest.mark.parametrize("phase", [Phase.WARM, Phase.RELEASING])
@pytest.mark.parametrize(
    "seen",
    [
        {"images": ()},
        {"images": image("pending")},
        {"snapshots": snapshots()[:1]},
        {"snapshots": snapshots("error")},
    ],
    ids=["no image", "pending", "snapshot missing", "snapshot bad"],
)
def test_no_box_is_released_while_its_generation_does_not_show_whole(
    phase: Phase, seen: dict[str, Any]
) -> None:
    """The stopped instance is the safety copy until then."""
    row = project(phase)
    all_of_it = saved() | seen
    step = decide(row, boxes=box("stopped"), volumes=volumes(), **all_of_it)
    assert isinstance(step, Wait)
    step = decide(row, boxes=box("stopped"), volumes=volumes(), waited=(step.why, 901.0), **all_of_it)
    assert write(step, "1").project.save == 2, "it is saved anew"


@pytest.mark.parametrize("phase", [Phase.WARM, Phase.RELEASING])
def test_a_box_that_ran_since_it_was_saved_is_never_released(phase: Phase) -> None:
    """Its volumes hold more than the generation: data was lost in 4 of 500 simulated histories without this."""
    row = project(phase)
    step = decide(row, boxes=box("stopped", launched=LATER), volumes=volumes(), **saved())
    assert write(step, "1").project.phase is Phase.SAVING
    step = decide(row, boxes=box("running", launched=LATER), volumes=volumes(), **saved())
    assert write(step, "start").project.phase is Phase.RUNNING
    other_stamp = saved() | {"generations": generation(stamp=LAUNCHED - 60)}
    write(decide(row, boxes=box("stopped"), volumes=volumes(), **other_stamp), "1")
    live_head = saved() | {"generations": generation(stamp=None)}
    write(decide(row, boxes=box("stopped"), volumes=volumes(), **live_head), "1")
    former_run = saved() | {"generations": generation(run=0)}
    write(decide(row, boxes=box("stopped"), volumes=volumes(), **former_run), "1")


def test_rows_11_and_12_release_goes_on_until_it_shows() -> None:
    """Both calls may be repeated; whichever was lost is made again."""
    row = project(Phase.RELEASING)
    assert decide(row, boxes=box("stopped"), volumes=volumes(), **saved()) == Release("i-1")
    assert isinstance(decide(row, boxes=box("shutting-down"), volumes=volumes(), **saved()), Wait)


def test_row_13_the_run_is_closed_when_it_shows_terminated_with_the_same_stamp() -> None:
    """And only then do its volumes become garbage."""
    row = project(Phase.RELEASING)
    step = write(decide(row, boxes=box("terminated"), volumes=volumes("available"), **saved()), "13")
    assert (step.project.phase, step.project.closed, step.project.instance) == (Phase.READY, 1, None)
    for other in (LATER, None):
        ended = box("terminated", launched=other)
        rescue = write(decide(row, boxes=ended, volumes=volumes("available"), **saved()), "R1")
        assert rescue.project.closed == 0


def test_releasing_has_no_way_back_by_our_own_hand() -> None:
    """A late TerminateInstances of another daemon must not meet a box that we started again."""
    row = project(Phase.RELEASING, want=Want.UP)
    assert decide(row, boxes=box("stopped"), volumes=volumes(), **saved()) == Release("i-1")


@pytest.mark.parametrize("state", ["stopping", "stopped"])
@pytest.mark.parametrize("reason", ["Server.ScheduledStop", "Server.InternalError"])
def test_a_box_that_ec2_stops_for_its_host_is_saved_and_comes_back(state: str, reason: str) -> None:
    """Nobody wanted it down: a retired host, or one that failed. It starts on another one."""
    step = write(decide(project(Phase.RUNNING), boxes=box(state, reason=reason), volumes=volumes()), "1")
    assert (step.project.phase, step.project.want) == (Phase.SAVING, Want.UP)
    assert step.project.cycle is Cycle.RESTART
    assert "EC2 has stopped the box, as its host" in step.event
    for want in (Want.WARM, Want.COLD):
        asked = project(Phase.RUNNING, want=want)
        step = write(decide(asked, boxes=box(state, reason=reason), volumes=volumes()), "1")
        assert (step.project.want, step.project.cycle) == (want, Cycle.NONE)


@pytest.mark.parametrize("reason", ["Client.UserInitiatedShutdown", "Client.InstanceInitiatedShutdown", ""])
def test_a_box_that_somebody_stops_stays_down(reason: str) -> None:
    """In the console, or from inside."""
    step = write(decide(project(Phase.RUNNING), boxes=box("stopped", reason=reason), volumes=volumes()), "1")
    assert (step.project.want, step.project.cycle) == (Want.WARM, Cycle.NONE)


# RESCUE


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.SAVING, Phase.STARTING])
def test_row_r1_a_terminated_box_is_rescued_from_its_volumes(phase: Phase) -> None:
    """Ended in the console, by spot or by a script: the work is on the volumes."""
    row = project(phase)
    step = write(decide(row, boxes=box("terminated"), volumes=volumes("available")), "R1")
    assert (step.project.phase, step.project.dead, step.project.want) == (Phase.RESCUE, True, Want.COLD)
    assert step.project.save == row.saves + 1


def test_row_r1_spot_does_not_change_what_the_user_wants() -> None:
    """EC2 took it; nobody wanted it down."""
    taken = box("terminated", reason="Server.SpotInstanceTermination")
    step = write(decide(project(Phase.RUNNING), boxes=taken, volumes=volumes("available")), "R1")
    assert step.project.want is Want.UP


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.SAVING, Phase.WARM, Phase.STARTING, Phase.RELEASING])
def test_row_r1_absence_is_not_death(phase: Phase) -> None:
    """A view that lacks a live box sent it to rescue, and it stuck, in 119 of 500 simulated histories."""
    row = project(phase, since=AT - 100_000)
    why = "the instance does not show"
    assert isinstance(decide(row, waited=(why, 10_000.0), volumes=volumes()), Wait)
    for seen in ({}, {"volumes": volumes("available")[:1]}):
        assert isinstance(decide(row, waited=(why, 899.0), **seen), Wait)
    free = volumes("available")
    assert isinstance(decide(row, volumes=free, waited=(why, 200.0)), Wait)
    step = write(decide(row, volumes=free, waited=(why, 301.0)), "R1")
    assert not step.project.dead


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.SAVING, Phase.WARM, Phase.STARTING, Phase.RELEASING])
def test_row_r1_nobody_waits_for_ever_for_what_is_gone(phase: Phase) -> None:
    """Its record faded while the laptop was away, and so did a volume, or all of them: somebody is told."""
    row, why = project(phase), "the instance does not show"
    root, data = volumes("available")
    assert write(decide(row, volumes=(root,), waited=(why, 901.0)), "R1").project.phase is Phase.RESCUE
    assert isinstance(decide(row, volumes=(data,), waited=(why, 10_000.0)), Wait)  # it may run off its root
    assert isinstance(decide(row, waited=(why, 3599.0)), Wait)
    lost = write(decide(row, waited=(why, 3601.0)), "broken").project
    assert (lost.phase, lost.halted) == (Phase.BROKEN, phase)
    assert "i-1 is gone, and its volumes do not show" in lost.reason


def test_a_volume_that_is_somewhere_else_is_named_and_the_rest_is_saved() -> None:
    """Moved to another instance by hand: what is there is not held back for it, and nothing of it is touched."""
    row = project(Phase.RESCUE, dead=True)
    root, data = volumes("available")
    moved = replace(data, state="in-use", attached_to="i-other")
    step = write(decide(row, volumes=(root, moved)), "R1")
    assert step.run is not None
    assert [disk.device for disk in step.run.disks] == ["/dev/xvda"]
    assert step.run.lacks == ("/dev/sdf (vol-data) is attached to i-other",)
    left = step.run
    shot = replace(left, disks=(replace(left.disks[0], snapshot="snap-1-xvda"),))
    seen = {
        "volumes": (root, moved),
        "snapshots": snapshots()[:1],
        "images": image(snapshots={"/dev/xvda": "snap-1-xvda"}),
    }
    done = write(decide(row, run=shot, **seen), "R5")
    assert done.generations[0].lacks == step.run.lacks
    assert done.project.phase is Phase.READY
    assert "/dev/sdf (vol-data) is attached to i-other" in done.project.reason


def test_a_volume_that_is_gone_is_waited_for_and_then_named() -> None:
    """And without the root volume there is nothing that could boot: a person has to look."""
    row = project(Phase.RESCUE, dead=True)
    root, data = volumes("available")
    why = "the volume of /dev/sdf is not there"
    assert decide(row, volumes=(root,), waited=(why, 899.0)) == Wait(2.0, why)
    step = write(decide(row, volumes=(root,), waited=(why, 901.0)), "R1")
    assert step.run is not None
    assert step.run.lacks == ("/dev/sdf (vol-data) is not there",)
    rootless = decide(row, volumes=(data,), waited=("the volume of /dev/xvda is not there", 901.0))
    assert write(rootless, "broken").project.phase is Phase.BROKEN


def test_a_box_that_is_alive_after_all_leaves_the_rescue() -> None:
    """Unless it was seen terminated: then the living view is the old one."""
    row = project(Phase.RESCUE)
    assert write(decide(row, boxes=box(), volumes=volumes()), "start").project.phase is Phase.RUNNING
    assert write(decide(row, boxes=box("stopped"), volumes=volumes()), "1").project.phase is Phase.SAVING
    dead = project(Phase.RESCUE, dead=True)
    assert not isinstance(decide(dead, boxes=box(), volumes=volumes("available")), Write)


def test_rows_r2_to_r5_each_volume_then_the_image_then_the_commit() -> None:
    """One step a look, each found again after a crash."""
    row = project(Phase.RESCUE, dead=True)
    free = volumes("available")
    first = decide(row, volumes=free)
    assert isinstance(first, MakeSnapshot)
    assert (first.volume, first.tags["devbox:save"]) == ("vol-root", "1")
    second = decide(row, volumes=free, snapshots=snapshots("pending")[:1])
    assert isinstance(second, MakeSnapshot)
    assert second.volume == "vol-data"
    assert isinstance(decide(row, volumes=free, snapshots=snapshots("pending")), Wait)
    noted = write(decide(row, volumes=free, snapshots=snapshots()), "R3")
    seen = {"volumes": free, "snapshots": snapshots(), "run": noted.run}
    register = decide(noted.project, **seen)
    assert isinstance(register, MakeImageOf)
    assert register.name == "devbox/api/uid-1"
    assert register.boot == BOOT
    assert [(d.device, d.snapshot, d.iops) for d in register.disks] == [
        ("/dev/xvda", "snap-1-xvda", 3000),
        ("/dev/sdf", "snap-1-sdf", 9000),
    ]
    done = write(decide(noted.project, images=image(), **seen), "R5")
    assert (done.project.phase, done.project.head, done.project.closed) == (Phase.READY, 1, 1)
    assert done.generations[0].quality is Quality.RESCUE


def test_a_second_snapshot_of_a_quiet_volume_does_no_harm() -> None:
    """A lost answer makes two: one that is whole is taken."""
    row = project(Phase.RESCUE, dead=True)
    twice = (
        *snapshots("pending"),
        replace(snapshots()[0], id="snap-0"),
        replace(snapshots()[1], id="snap-9"),
    )
    step = write(decide(row, volumes=volumes("available"), snapshots=twice), "R3")
    assert step.run is not None
    assert [d.snapshot for d in step.run.disks] == ["snap-0", "snap-9"]


def test_a_snapshot_that_fails_means_a_new_save() -> None:
    """And three of them a person."""
    row = project(Phase.RESCUE, dead=True)
    bad = (snapshots()[0], replace(snapshots()[1], state="error"))
    step = write(decide(row, volumes=volumes("available"), snapshots=bad), "6")
    assert step.project.save == 2
    write(decide(replace(row, failures=2), volumes=volumes("available"), snapshots=bad), "broken")


@pytest.mark.parametrize(
    "left",
    [(), volumes("available")[1:], (volumes("available")[0], volumes()[1])],
    ids=["none", "no root", "in use"],
)
def test_volumes_that_stay_away_are_left_to_a_person(left: Any) -> None:
    """Nothing is committed without them, and nothing is deleted."""
    row = project(Phase.RESCUE, dead=True)
    step = decide(row, volumes=left)
    assert isinstance(step, Wait)
    write(decide(row, volumes=left, waited=(step.why, 901.0)), "broken")


def test_volumes_that_were_never_seen_attached_are_told_apart_by_where_they_came_from() -> None:
    """A box that died before its volumes were listed is still put together right."""
    free = tuple(reversed(volumes("available")))
    run = replace(RUN, disks=tuple(replace(d, volume=None) for d in DISKS))
    row = project(Phase.RESCUE, dead=True)
    step = write(decide(row, volumes=free, snapshots=snapshots(), run=run), "R3")
    assert step.run is not None
    assert {d.device: d.volume for d in step.run.disks} == {"/dev/xvda": "vol-root", "/dev/sdf": "vol-data"}
    assert isinstance(decide(row, volumes=free[:1], snapshots=snapshots(), run=run), Wait)


def test_an_image_that_was_whole_when_the_box_was_terminated_still_counts() -> None:
    """Terminated in the console between the image and the commit."""
    row = project(Phase.SAVING, **STAMPED)
    seen = {"volumes": volumes("available"), "snapshots": snapshots()}
    write(decide(row, boxes=box("terminated"), images=image(), **seen), "8")
    write(decide(row, boxes=box("terminated"), images=image("failed"), **seen), "R1")
    write(decide(row, boxes=box("terminated", launched=LATER), images=image(), **seen), "R1")


@pytest.mark.parametrize("refusal", [Refusal.BUSY, Refusal.DENIED])
def test_a_box_that_can_not_be_stopped_is_left_to_a_person_at_last(refusal: Refusal) -> None:
    """A spot instance whose request has ended takes no StopInstances: its system can still be shut down from inside."""
    seen = look(project(Phase.SAVING), boxes=box(), volumes=volumes(), hooked=True)
    assert after_refusal(seen, Stop("i-1"), refusal, "not this one", 19) is None
    step = write(after_refusal(seen, Stop("i-1"), refusal, "not this one", 20), "broken")
    assert "shut it down from inside" in step.project.reason
    assert step.project.halted is Phase.SAVING


def test_what_ec2_always_says_and_does_not_is_no_difference() -> None:
    """A billing code that is not shown is not another one; a boot mode that is not shown is lost."""
    known = replace(BOOT, platform="Windows", usage="RunInstances:0002")
    assert unlike(known, replace(known, platform=None, usage=None, architecture=None)) == []
    assert unlike(known, replace(known, usage="RunInstances")) == ["billing code"]
    assert unlike(known, replace(known, boot_mode=None)) == ["boot mode"]
