"""Another base image under a project: rows B0 to B5, and what keeps the old root out of everything else."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from devboxd.errors import BadRequest, WrongState
from devboxd.model import rebase, wish
from devboxd.model.answer import Refusal, after_refusal, after_success
from devboxd.model.beyond import saving_only
from devboxd.model.ledger import Ledger
from devboxd.model.offer import Base, MachineType
from devboxd.model.project import Boot, Cycle, Disk, Phase, Rebase, Want
from devboxd.model.rebase import Progress
from devboxd.model.seen import Attached, Volume
from devboxd.model.step import (
    Attach,
    DropVolume,
    MakeImage,
    MakeVolume,
    MoveIn,
    Reach,
    Start,
    Stop,
    Tag,
    TakeOff,
    Wait,
    Write,
)
from tests.model.scenes import (
    AT,
    BOOT,
    DISKS,
    RUN,
    SPEC,
    box,
    decide,
    generation,
    look,
    project,
    volumes,
)
from tests.model.test_save import write

NEW_BOOT = replace(BOOT, root_device="/dev/sda1")
NEW_DISKS = (Disk("/dev/sda1", 8, "gp3", source="snap-new"),)
ASKED = Rebase("other", "ami-new", NEW_DISKS, NEW_BOOT)
BEGUN = replace(ASKED, source=1)
BASE = Base("ami-new", "other", NEW_BOOT, (Disk("/dev/sda1", 8, "gp3", snapshot="snap-new"),))
TOKEN = "uid-1-0-0"


def copy(state: str = "available", **changes: Any) -> Volume:
    """A copy of the old root."""
    disk = Disk("/dev/sdp" if state == "in-use" else "", 40, "gp3", source="snap-1-xvda")
    more = {"attached_to": "i-1", "attachment": "attached"} if state == "in-use" else {}
    return replace(Volume("vol-old", state, disk, rebase=TOKEN, **more), **changes)  # type: ignore[arg-type]


def with_old(**changes: Any) -> Any:
    """The box with the old root on it."""
    one = box(**changes)
    return replace(one, attached=(*one.attached, Attached("/dev/sdp", "vol-old", False)))


def moving(*more: Volume, reached: bool = True, boxes: Any = None, **changes: Any) -> Any:
    """The decision about a box that runs on the new image."""
    changes.setdefault("rebase", BEGUN)
    return decide(
        project(Phase.RUNNING, head=1, **changes),
        generations=(generation(1),),
        boxes=boxes or box(),
        volumes=(*volumes(), *more),
        reached=reached,
    )


# Before the launch


def test_row_b0_pins_the_way_back_and_makes_the_next_launch_use_the_image_in_one_commit() -> None:
    step = write(
        decide(project(Phase.READY, want=Want.UP, rebase=ASKED, head=1), generations=(generation(1),)),
        "rebase",
    )
    (kept,) = step.generations
    assert (kept.pins, kept.label, kept.base) == (("user",), "before the rebase onto other", SPEC.base)
    assert (step.project.spec.image, step.project.spec.base) == ("ami-new", "other")
    assert step.project.rebase == BEGUN
    assert rebase.is_first(step.project)
    assert "devboxctl launch api --from 1 goes back" in step.event


def test_generations_that_do_not_say_their_base_are_on_the_one_of_before() -> None:
    """Or going back to one of them would say the new one."""
    two = replace(generation(2), base="another")
    row = project(Phase.READY, want=Want.UP, rebase=ASKED, head=3, spec=replace(SPEC, base="before"))
    step = write(decide(row, generations=(generation(1), two, generation(3))), "rebase")
    assert [(one.number, one.base) for one in step.generations] == [(1, "before"), (3, "before")]


def test_a_label_and_a_pin_that_are_there_stay() -> None:
    one = replace(generation(1), pins=("fork:x", "user"), label="mine")
    step = write(
        decide(project(Phase.READY, want=Want.UP, rebase=ASKED, head=1), generations=(one,)), "rebase"
    )
    assert (step.generations[0].pins, step.generations[0].label) == (("fork:x", "user"), "mine")


def test_the_first_launch_has_the_images_root_and_the_generations_other_volumes() -> None:
    """As large and as fast as before; what the image has not names its snapshot."""
    step = write(
        decide(
            project(
                Phase.READY, want=Want.UP, head=1, rebase=BEGUN,
                spec=replace(SPEC, image="ami-new", base="other", disks=NEW_DISKS, boot=NEW_BOOT),
            ),
            generations=(generation(1),),
        ),
        "L1",
    )  # fmt: skip
    run = step.run
    assert run is not None
    assert (run.image, run.source, run.boot, run.carried) == ("ami-new", 1, NEW_BOOT, ("/dev/sdf",))
    root, data = run.disks
    assert (root.device, root.size_gib, root.type, root.iops, root.source) == (
        "/dev/sda1",
        40,
        "gp3",
        3000,
        "snap-new",
    )
    assert (data.device, data.size_gib, data.type, data.iops) == ("/dev/sdf", 100, "io2", 9000)
    assert data.source == generation(1).disks[1].snapshot


def test_a_launch_after_a_save_is_from_what_was_saved() -> None:
    """Also while the homes are still to be copied."""
    two = replace(generation(2), boot=NEW_BOOT, image="ami-2")
    step = write(
        decide(
            project(Phase.READY, want=Want.UP, head=2, rebase=BEGUN),
            generations=(generation(1), two),
        ),
        "L1",
    )
    assert step.run is not None
    assert (step.run.image, step.run.carried) == ("ami-2", ())
    assert step.project.rebase == BEGUN


@pytest.mark.parametrize(
    ("root", "data", "expected"),
    [
        ("/dev/sda1", "/dev/sdf", "/dev/sdf"),
        ("/dev/xvda", "/dev/sda1", "/dev/sdp"),
        ("/dev/xvda", "/dev/xvda1", "/dev/sdp"),
        ("/dev/sda1", "/dev/sda", "/dev/sdp"),
    ],
)
def test_no_volume_gets_the_device_of_the_new_root(root: str, data: str, expected: str) -> None:
    head = replace(
        generation(1), disks=(generation(1).disks[0], replace(generation(1).disks[1], device=data))
    )
    spec = replace(SPEC, disks=(Disk(root, 8, source="s"),), boot=replace(BOOT, root_device=root))
    disks, carried = rebase.ordered(spec, head)
    assert [disk.device for disk in disks] == [root, expected]
    assert carried == (expected,)


def test_going_back_takes_the_old_base_and_ends_the_rebase() -> None:
    """Also where nothing was saved on the new image: the launch is from the generation again."""
    old = replace(generation(1), base="before")
    row = project(
        Phase.READY, want=Want.UP, head=1, rebase=BEGUN, rollback=1, spec=replace(SPEC, base="other")
    )
    step = write(decide(row, generations=(old,)), "rollback")
    assert (step.project.rebase, step.project.spec.base, step.project.head) == (None, "before", 1)
    row = replace(row, head=2)
    step = write(decide(row, generations=(old, generation(2))), "rollback")
    assert (step.project.rebase, step.project.spec.base, step.project.head) == (None, "before", 3)


def test_the_way_back_is_not_retired_or_dropped_while_its_homes_are_needed() -> None:
    one = tuple(replace(generation(n), created=AT - 400 * 86400.0 + n) for n in range(1, 9))
    row = project(Phase.READY, head=8, rebase=BEGUN)
    step = decide(row, generations=one)
    assert isinstance(step, Write)
    assert [found.number for found in step.generations] == [2]
    with pytest.raises(WrongState, match="in use"):
        wish.drop(Ledger(row, RUN, one), 1, force=True)


# On the running box


def test_rows_b1_to_b4_in_their_order() -> None:
    """Nothing is made before the box has answered, and nothing attached before that."""
    assert moving(reached=False) == Reach("i-1")
    made = moving()
    assert isinstance(made, MakeVolume)
    assert (made.token, made.zone, made.disk.source) == (TOKEN, "us-east-1a", generation(1).disks[0].snapshot)
    assert (made.tags["devbox:rebase"], made.tags["devbox:owner"]) == (TOKEN, "me")
    assert "devbox:launch" not in made.tags
    assert isinstance(moving(copy("creating")), Wait)
    assert moving(copy()) == Attach("vol-old", "i-1", "/dev/sdp")
    assert isinstance(moving(copy("in-use", attachment="attaching")), Wait)
    assert moving(copy("in-use"), boxes=with_old()) == MoveIn("i-1", "vol-old", "/dev/sdp", TOKEN)


@pytest.mark.parametrize("state", ["error", "deleting"])
def test_a_copy_that_comes_to_nothing_is_made_again_under_another_token(state: str) -> None:
    step = write(moving(copy(state)), "rebase")
    assert step.project.rebase is not None
    assert rebase.token(step.project) == "uid-1-0-1"


def test_one_that_was_let_go_is_not_used_again() -> None:
    assert write(moving(copy(garbage=AT - 10)), "rebase").project.rebase == replace(BEGUN, tries=1)


def test_one_on_another_instance_is_taken_off_it() -> None:
    assert moving(copy("in-use", attached_to="i-0")) == TakeOff("vol-old", "i-0")


def test_every_save_makes_another_token() -> None:
    row = project(Phase.RUNNING, head=1, rebase=BEGUN)
    assert rebase.token(row) != rebase.token(replace(row, saves=row.saves + 1))
    assert rebase.token(row) != rebase.token(replace(row, run=row.run + 1))


@pytest.mark.parametrize("changes", [{"generations": ()}, {"boxes": box(zone=None)}])
def test_without_the_old_root_a_person_is_told(changes: dict[str, Any]) -> None:
    given = {"generations": (generation(1),), "boxes": box(), **changes}
    step = write(
        decide(project(Phase.RUNNING, head=1, rebase=BEGUN), volumes=volumes(), reached=True, **given),
        "rebase",
    )
    assert step.project.rebase is not None
    assert step.project.rebase.problem == "generation 1 is not there any more"


def test_what_the_box_says_is_written_down_when_it_is_done() -> None:
    seen = look(project(Phase.RUNNING, head=1, rebase=BEGUN), generations=(generation(1),), boxes=with_old(), volumes=(*volumes(), copy("in-use")))  # fmt: skip
    call = MoveIn("i-1", "vol-old", "/dev/sdp", TOKEN)
    assert after_success(seen, call, Progress(files=3, bytes=10)) is None
    said = Progress(True, 3, 5 << 30, "/kept", ("a note",))
    step = after_success(seen, call, said)
    assert step is not None
    assert step.project.rebase is not None
    assert step.project.rebase.done == "3 files, 5.0 GiB; what was in their place is in /kept; a note"
    assert not step.project.is_moving


# Refusals


@pytest.mark.parametrize(
    ("call", "refusal", "times", "ends"),
    [
        (MakeVolume("t", "z", DISKS[0], {}), Refusal.QUOTA, 1, True),
        (MakeVolume("t", "z", DISKS[0], {}), Refusal.DENIED, 1, True),
        (MakeVolume("t", "z", DISKS[0], {}), Refusal.GONE, 3, False),
        (MakeVolume("t", "z", DISKS[0], {}), Refusal.GONE, 8, True),
        (MakeVolume("t", "z", DISKS[0], {}), Refusal.LATER, 2, False),
        (Attach("v", "i", "d"), Refusal.BUSY, 3, False),
        (Attach("v", "i", "d"), Refusal.INVALID, 1, False),
        (Attach("v", "i", "d"), Refusal.INVALID, 3, True),
        (Attach("v", "i", "d"), Refusal.QUOTA, 1, True),
        (MoveIn("i", "v", "d", "t"), Refusal.INVALID, 1, True),
        (MoveIn("i", "v", "d", "t"), Refusal.UNKNOWN, 20, False),
        (MoveIn("i", "v", "d", "t"), Refusal.UNKNOWN, 40, True),
        (Reach("i"), Refusal.UNKNOWN, 100, False),
    ],
)
def test_a_refusal_ends_it_where_it_can_not_pass(call: Any, refusal: Refusal, times: int, ends: bool) -> None:
    seen = look(project(Phase.RUNNING, head=1, rebase=BEGUN), generations=(generation(1),))
    step = after_refusal(seen, call, refusal, "a sentence", times)
    assert (step is not None) == ends
    if step is not None:
        assert step.project.rebase is not None
        assert step.project.rebase.problem == "a sentence"
        assert "devboxctl rebase api --onto other goes on" in step.project.reason


def test_a_token_that_was_used_otherwise_makes_another_try() -> None:
    seen = look(project(Phase.RUNNING, head=1, rebase=BEGUN))
    step = after_refusal(seen, MakeVolume("t", "z", DISKS[0], {}), Refusal.MISMATCH, "used", 1)
    assert step is not None
    assert step.project.rebase == replace(BEGUN, tries=1)


def test_one_that_can_not_be_detached_is_a_persons_before_the_box_is_imaged() -> None:
    seen = look(project(Phase.SAVING))
    step = after_refusal(seen, TakeOff("vol-old", "i-1"), Refusal.DENIED, "not allowed", 1)
    assert step is not None
    assert step.project.phase is Phase.BROKEN
    assert "vol-old" in step.project.reason
    seen = look(project(Phase.RUNNING))
    assert after_refusal(seen, TakeOff("vol-old", "i-1"), Refusal.DENIED, "not allowed", 50) is None


# Out of the way


def test_it_is_no_volume_of_the_box() -> None:
    """Not in the list of what is saved, though it is attached."""
    step = moving(copy("in-use"), boxes=with_old())
    assert isinstance(step, MoveIn), "else the list would be written anew"


@pytest.mark.parametrize(
    ("phase", "state", "never"),
    [
        (Phase.SAVING, "running", Stop),
        (Phase.SAVING, "stopped", MakeImage),
        (Phase.STARTING, "stopped", Start),
    ],
)
def test_row_b5_comes_before_a_stop_an_image_and_a_start(phase: Phase, state: str, never: type) -> None:
    row = project(phase, rebase=BEGUN, head=1, want=Want.UP if phase is Phase.STARTING else Want.COLD)
    given: dict[str, Any] = {"generations": (generation(1),), "boxes": with_old(state=state), "hooked": True}
    step = decide(row, volumes=(*volumes(), copy("in-use")), **given)
    assert step == TakeOff("vol-old", "i-1", is_up=state == "running")
    step = decide(row, volumes=(*volumes(), copy("in-use", attachment="detaching")), **given)
    assert isinstance(step, Wait)
    step = decide(row, volumes=(*volumes(), copy()), **{**given, "boxes": box(state=state)})
    assert not isinstance(step, TakeOff)


def test_a_box_that_does_not_let_go_is_stopped_all_the_same_and_detached_then() -> None:
    row = project(Phase.SAVING, rebase=BEGUN, head=1)
    given: dict[str, Any] = {"generations": (generation(1),), "hooked": True}
    going = (*volumes(), copy("in-use", attachment="detaching"))
    why = "the copy of the old root is being detached"
    late = decide(row, volumes=going, boxes=with_old(), waited=(why, 61.0), **given)
    assert late == Stop("i-1")
    later = decide(row, volumes=going, boxes=with_old(state="stopped"), waited=(why, 301.0), **given)
    assert later == TakeOff("vol-old", "i-1", force=True)


def test_an_image_of_the_running_box_waits_for_it() -> None:
    step = moving(copy("in-use"), boxes=with_old(), snap=1, saves=1)
    assert step == TakeOff("vol-old", "i-1", is_up=True)


@pytest.mark.parametrize(
    "changes",
    [{"rebase": None}, {"rebase": replace(BEGUN, done="all")}, {"rebase": replace(BEGUN, problem="why")}],
)
def test_what_nobody_needs_any_more_is_detached_marked_and_deleted(changes: dict[str, Any]) -> None:
    """In three passes; and the deletion needs no grace, as a copy holds nothing of its own."""
    step = moving(copy("in-use"), boxes=with_old(), **changes)
    assert step == TakeOff("vol-old", "i-1", is_up=True)
    assert isinstance(moving(copy(), **changes), Tag)
    assert moving(copy(garbage=AT), **changes) == DropVolume("vol-old")


def test_a_box_that_holds_on_to_it_is_asked_again() -> None:
    """EC2 says busy where it is mounted still; on its way off it is only looked at."""
    given: dict[str, Any] = {"boxes": with_old(), "rebase": None}
    assert isinstance(moving(copy("in-use", attachment="detaching"), **given), Wait)
    assert moving(copy("in-use", attachment="busy"), **given) == TakeOff("vol-old", "i-1", is_up=True)


def test_a_box_that_holds_on_to_it_for_long_is_asked_once_a_minute() -> None:
    """Each time opens a session to it, and all that EC2 shows in between is that it is busy."""
    row, busy = project(Phase.RUNNING, head=1), (*volumes(), copy("in-use", attachment="busy"))
    given: dict[str, Any] = {"generations": (generation(1),), "boxes": with_old(), "volumes": busy}
    took_off = TakeOff("vol-old", "i-1", is_up=True)
    found = {
        at: decide(row, waited=("running", at), **given) for at in (10.0, 59.0, 60.0, 61.0, 70.0, 3601.0)
    }
    rests = Wait(10.0, "running")
    assert list(found.values()) == [rests, rests, took_off, took_off, rests, took_off]


@pytest.mark.parametrize(
    ("volume", "why"),
    [
        (copy("creating"), "a volume is being made of the old root"),
        (copy("in-use", attachment="attaching"), "the old root is attaching"),
        (copy("in-use", attachment="detaching"), "the old root is detaching"),
    ],
)
def test_what_ec2_takes_long_for_is_looked_at_less_often(volume: Volume, why: str) -> None:
    """A look is a call for each kind of thing that a project has: one every two seconds is for a minute."""
    given: dict[str, Any] = {
        "generations": (generation(1),),
        "boxes": with_old(),
        "volumes": (*volumes(), volume),
        "reached": True,
    }
    row = project(Phase.RUNNING, head=1, rebase=BEGUN)
    assert decide(row, waited=(why, 59.0), **given) == Wait(2.0, why)
    assert decide(row, waited=(why, 60.0), **given) == Wait(10.0, why)


@pytest.mark.parametrize("attachment", ["attached", "detaching", "busy", "attaching"])
def test_nothing_else_waits_for_one_that_does_not_come_off(attachment: str) -> None:
    """What is due now is done first; what is due later is not waited for."""
    given: dict[str, Any] = {
        "boxes": with_old(),
        "volumes": (*volumes(), copy("in-use", attachment=attachment)),
    }
    many = tuple(replace(generation(n), created=AT - 400 * 86400.0 + n) for n in range(1, 9))
    gone = write(decide(project(Phase.RUNNING, head=8), generations=many, **given), "16")
    assert [one.number for one in gone.generations] == [1]
    spent = replace(volumes("available", garbage=AT - 299.0)[0], id="vol-spent", token="uid-1-1")
    given["volumes"] = (*given["volumes"], spent)
    row = project(Phase.RUNNING, head=1, attempt=2, bound=("uid-1-0", "uid-1-2"))
    step = decide(row, generations=(generation(1),), **given)
    calls = {"attached", "busy"}
    expected = TakeOff("vol-old", "i-1", is_up=True) if attachment in calls else Wait(2.0, "running")
    assert step == expected


def test_an_image_of_the_running_box_is_given_up_where_the_old_root_does_not_come_off() -> None:
    why = "the copy of the old root is being detached"
    for attachment in ("detaching", "busy"):
        given: dict[str, Any] = {
            "boxes": with_old(),
            "volumes": (*volumes(), copy("in-use", attachment=attachment)),
        }
        row = project(Phase.RUNNING, head=1, rebase=BEGUN, snap=1, saves=1)
        assert decide(row, generations=(generation(1),), waited=(why, 299.0), **given) == Wait(2.0, why)
        step = write(decide(row, generations=(generation(1),), waited=(why, 300.0), **given), "snapshot")
        assert step.project.snap is None
        assert (
            step.project.reason == "no snapshot was made: the copy of the old root does not come off the box"
        )


def test_how_long_a_box_holds_on_to_it_is_counted_before_a_stop() -> None:
    """A call is no wait: one that is made again and again would put the stop off for ever."""
    row = project(Phase.SAVING, rebase=BEGUN, head=1)
    busy = (*volumes(), copy("in-use", attachment="busy"))
    given: dict[str, Any] = {"generations": (generation(1),), "hooked": True, "boxes": with_old()}
    why = "the copy of the old root is being detached"
    assert decide(row, volumes=busy, **given) == Wait(2.0, why)
    assert decide(row, volumes=busy, waited=(why, 61.0), **given) == Stop("i-1")


def test_one_that_is_needed_is_never_swept() -> None:
    assert isinstance(moving(copy("creating")), Wait)
    seen = look(project(Phase.RUNNING, head=1, rebase=BEGUN), volumes=(copy(),))
    assert rebase.is_needed(seen, copy())
    assert not rebase.is_needed(seen, copy(rebase="uid-1-0-7"))


@pytest.mark.parametrize("step", [MakeVolume("t", "z", DISKS[0], {}), Attach("v", "i", "d"), MoveIn("i", "v", "d", "t"), Reach("i")])  # fmt: skip
def test_the_function_of_the_account_leaves_it_to_a_daemon(step: Any) -> None:
    assert isinstance(saving_only(step), Wait)
    assert saving_only(TakeOff("v", "i")) == TakeOff("v", "i")


# What is asked


def ledger(phase: Phase, **changes: Any) -> Ledger:
    changes.setdefault("head", 1)
    return Ledger(project(phase, **changes), RUN, (generation(1),))


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.WARM, Phase.READY, Phase.SAVING, Phase.STARTING])
def test_it_may_be_asked_in_every_phase_and_wants_the_box_up(phase: Phase) -> None:
    step = write(wish.rebase(ledger(phase), "other", BASE), "wish")
    row = step.project
    assert row.want is Want.UP
    assert row.is_to_rebase
    assert row.is_let_go
    assert not row.is_wanted_up
    assert row.rebase is not None
    assert [(one.device, one.source, one.encrypted) for one in row.rebase.disks] == [
        ("/dev/sda1", "snap-new", True)
    ]
    assert wish.rebase(Ledger(row, RUN, (generation(1),)), "other", None) is None, (
        "asking twice is asking once"
    )


def test_a_project_without_anything_saved_has_nothing_to_keep() -> None:
    for phase in (Phase.ABSENT, Phase.READY, Phase.LAUNCHING):
        with pytest.raises(WrongState) as error:
            wish.rebase(ledger(phase, head=0), "other", BASE)
        assert error.value.hint == "devboxctl launch api --base other"


def test_the_same_command_goes_on_after_a_failure_and_another_image_is_refused() -> None:
    stuck = replace(BEGUN, problem="no room")
    for name in ("other", "ami-new"):
        step = write(wish.rebase(ledger(Phase.RUNNING, rebase=stuck, reason="no room"), name, None), "wish")
        assert step.project.rebase == replace(BEGUN, tries=1)
        assert step.project.reason == ""
    with pytest.raises(WrongState, match="already"):
        wish.rebase(ledger(Phase.RUNNING, rebase=stuck), "third", BASE)


def test_one_that_is_done_makes_room_for_the_next() -> None:
    done = replace(BEGUN, done="all")
    assert not wish.goes_on(ledger(Phase.RUNNING, rebase=done), "other")
    step = write(wish.rebase(ledger(Phase.RUNNING, rebase=done), "other", BASE), "wish")
    assert step.project.is_to_rebase


def test_other_wishes_take_the_place_of_one_that_has_not_begun_and_of_no_other() -> None:
    for before, after in ((ASKED, None), (BEGUN, BEGUN)):
        known = ledger(Phase.RUNNING, rebase=before)
        assert write(wish.down(known, Want.COLD), "wish").project.rebase == after
        assert write(wish.up(known, rollback=1), "wish").project.rebase == after
    assert write(wish.cancel(ledger(Phase.RUNNING, rebase=ASKED)), "wish").project.rebase is None
    row = write(
        wish.rebase(ledger(Phase.RUNNING, rollback=1, cycle=Cycle.RELAUNCH), "other", BASE), "wish"
    ).project
    assert (row.rollback, row.cycle) == (None, Cycle.NONE)


def test_a_box_on_which_homes_are_copied_is_not_idle() -> None:
    known = ledger(Phase.RUNNING, rebase=BEGUN)
    assert wish.down_if_idle(known, known.project, Want.WARM, "idle") is None
    known = ledger(Phase.RUNNING, rebase=replace(BEGUN, done="all"))
    assert wish.down_if_idle(known, known.project, Want.WARM, "idle") is not None


ARM = MachineType("m8g.large", ("arm64",), boot_modes=("uefi",), needs_ena=True)
INTEL = MachineType("t2.micro", ("i386", "x86_64"), boot_modes=("legacy-bios",))


@pytest.mark.parametrize(
    ("machine", "boot", "said"),
    [
        (ARM, NEW_BOOT, ""),
        (ARM, replace(NEW_BOOT, boot_mode=None), ""),
        (ARM, replace(NEW_BOOT, boot_mode="uefi-preferred"), ""),
        (ARM, replace(NEW_BOOT, architecture="x86_64"), "is for x86_64, and m8g.large is not"),
        (ARM, replace(NEW_BOOT, boot_mode="legacy-bios"), "boots by legacy-bios, which m8g.large can not"),
        (ARM, replace(NEW_BOOT, ena=False), "lacks ENA support"),
        (INTEL, Boot("x86_64", "uefi"), "boots by uefi, which t2.micro can not"),
        (INTEL, Boot("x86_64", "uefi-preferred"), ""),
        (INTEL, Boot("x86_64", platform="Windows"), "between Linux systems only"),
    ],
)
def test_an_image_that_the_type_can_not_boot_is_refused(machine: MachineType, boot: Boot, said: str) -> None:
    base = Base("ami-new", "other", boot, ())
    if not said:
        rebase.check_fit("other", base, (machine,), BOOT)
        return
    with pytest.raises(BadRequest, match=said):
        rebase.check_fit("other", base, (machine,), BOOT)


def test_how_it_stands_is_told() -> None:
    rows = {None: "", ASKED: "onto other, once it is saved", BEGUN: "to be copied while it runs"}
    for one, text in rows.items():
        assert text in rebase.told(project(Phase.RUNNING, rebase=one))
    assert "no room" in rebase.told(project(Phase.RUNNING, rebase=replace(BEGUN, problem="no room")))
    assert "3 files" in rebase.told(project(Phase.RUNNING, rebase=replace(BEGUN, done="3 files")))


def test_no_device_is_free_for_the_old_root() -> None:
    full = replace(box(), attached=tuple(Attached(f"/dev/sd{x}", f"v{x}", False) for x in rebase.LETTERS))
    assert rebase.free_device([one.device for one in full.attached]) is None
