"""Another base image under a project: its homes come over, whatever dies or is refused, and there is a way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from devboxd.model import tags
from devboxd.model.project import Phase, Project, Want
from devboxd.simulator.ec2.faults import Fault
from devboxd.simulator.ec2.records import Instance, Volume
from tests.lifecycle.memory import MemoryStore
from tests.lifecycle.scenarios import up
from tests.lifecycle.test_crashes import DEADLY, UID, fated, phase, watched, work
from tests.lifecycle.test_refusals import PASSING
from tests.lifecycle.world import Fate, World

BASE: Final = 2  # of the catalogue; its root device is called as that of the first one
OTHER_ROOT: Final = 4  # one whose root device has another name


def done(world: World) -> Callable[[], bool]:
    def is_so() -> bool:
        rebase = world.project(UID).rebase
        return rebase is not None and bool(rebase.done)

    return is_so


def box(world: World) -> Instance:
    """The record of the project's box."""
    return world.model.tables.instances[world.project(UID).instance or ""]


def copies(world: World) -> list[Volume]:
    """Copies of old roots that are there."""
    return [
        one
        for one in world.model.tables.volumes.values()
        if tags.REBASE in one.tags and one.state != "deleting"
    ]


def whole(world: World) -> None:
    """Up, onto another base, work, down, up again, work, down."""
    up(world)
    world.rebase(UID)
    world.run_until(done(world), most=8000)
    work(world)
    world.run_for(120)
    world.want(UID, Want.WARM)
    world.run_until(phase(world, Phase.WARM))
    world.want(UID, Want.UP)
    world.run_until(phase(world, Phase.RUNNING))
    work(world)
    world.want(UID, Want.COLD)
    world.run_until(phase(world, Phase.READY))
    world.run_for(400)


def play(fates: dict[int, Fate], *, script: Callable[[World], None] = whole, seed: int = 1) -> World:
    """A script, with these fates for the numbered mutations."""
    with fated(fates, seed=seed) as (world, oracle):
        script(world)
        assert oracle.settled(UID)
        oracle.ends_well(UID)
        assert not copies(world), "a copy of the old root is left"
    return world


@pytest.fixture(scope="module")
def mutations() -> int:
    """How many things the daemon changes in all of it."""
    return play({}).mutations


def test_the_homes_come_over_and_the_rest_is_the_other_image() -> None:
    """The root of the image, the data volume of before, and the generation of before is pinned and labelled."""
    world = World(MemoryStore(), seed=1)
    with watched(world) as oracle:
        up(world)
        first, data = (
            box(world),
            next(v for v in world.model.tables.volumes_of(box(world).id) if v.size == 20),
        )
        world.rebase(UID)
        world.run_until(done(world), most=8000)
        project, now = world.project(UID), box(world)
        assert now.id != first.id
        assert (now.image, project.spec.image, project.spec.base) == (
            project.spec.image,
            now.image,
            f"base-{BASE}",
        )
        ledger = world.ledger(UID)
        assert ledger is not None
        (kept,) = ledger.generations
        assert (kept.pins, kept.label) == (("user",), f"before the rebase onto base-{BASE}")
        by_device = {
            one.attachment.device: one
            for one in world.model.tables.volumes_of(now.id)
            if one.attachment is not None and tags.REBASE not in one.tags
        }
        assert sorted(by_device) == ["/dev/sda1", "/dev/sdf"]
        assert by_device["/dev/sdf"].content >= data.content
        assert (by_device["/dev/sdf"].iops, by_device["/dev/sdf"].throughput) == (4000, 250)
        world.run_for(120)
        assert not copies(world)
        world.want(UID, Want.COLD)
        world.run_until(phase(world, Phase.READY))
        ledger = world.ledger(UID)
        assert ledger is not None
        assert ledger.generations[-1].base == f"base-{BASE}"
        world.run_for(400)
        oracle.ends_well(UID)


def test_a_root_by_another_name_is_no_problem() -> None:
    world = World(MemoryStore(), seed=1)
    with watched(world) as oracle:
        up(world)
        world.rebase(UID, line=OTHER_ROOT, root="/dev/xvda")
        world.run_until(done(world), most=8000)
        work_at(world, "/dev/xvda")
        world.want(UID, Want.COLD)
        world.run_until(phase(world, Phase.READY))
        ledger = world.ledger(UID)
        assert ledger is not None
        assert sorted(disk.device for disk in ledger.generations[-1].disks) == ["/dev/sdf", "/dev/xvda"]
        world.run_for(400)
        oracle.ends_well(UID)


def work_at(world: World, device: str) -> None:
    world.model.work(box(world).id, now=world.now, device=device)


@pytest.mark.parametrize("fate", DEADLY)
def test_any_one_thing_may_go_wrong(fate: Fate, mutations: int) -> None:
    """Each of the calls, commits and words with the box in turn."""
    for number in range(1, mutations + 1):
        play({number: fate})


def back(world: World) -> None:
    """Onto another base, and back while the homes are being copied."""
    copying(world, takes=300.0)
    world.ask(UID, "back", want=Want.UP, rollback=world.project(UID).head)
    world.run_until(lambda: world.project(UID).rebase is None and phase(world, Phase.RUNNING)(), most=8000)
    assert world.project(UID).head == 3
    work(world)
    world.want(UID, Want.COLD)
    world.run_until(phase(world, Phase.READY))
    world.run_for(400)


def copying(world: World, *, takes: float) -> None:
    """In the middle of it: homes are being copied."""
    up(world)
    world.copy_takes = takes
    world.rebase(UID)
    world.run_until(lambda: bool(world.copying), most=8000)


def ends(world: World) -> None:
    """All is copied in the end, and saved once more."""
    world.run_until(done(world), most=8000)
    work(world)
    world.want(UID, Want.COLD)
    world.run_until(phase(world, Phase.READY))
    world.run_for(400)


def stopped_meanwhile(world: World) -> None:
    """The box goes down while the homes are being copied, and they are copied when it is up again."""
    copying(world, takes=300.0)
    world.want(UID, Want.WARM)
    world.run_until(phase(world, Phase.WARM))
    assert not any(tags.REBASE in one.tags for one in world.model.tables.volumes_of(box(world).id))
    world.want(UID, Want.UP)
    world.copy_takes = 25.0
    ends(world)


def powered_off_meanwhile(world: World) -> None:
    """The same by a hand on the box, which asks nobody."""
    copying(world, takes=300.0)
    world.model.power_off(box(world).id, now=world.now)
    world.run_until(phase(world, Phase.WARM))
    world.want(UID, Want.UP)
    world.copy_takes = 25.0
    ends(world)


def snapshot_meanwhile(world: World) -> None:
    """An image of the running box has no old root in it."""
    copying(world, takes=120.0)
    number = world.project(UID).saves + 1
    world.ask(UID, "snapshot", saves=number, snap=number)
    world.run_until(lambda: world.project(UID).snap is None)
    ends(world)


def ended_meanwhile(world: World) -> None:
    """Terminated in the console while it copies: rescued without the old root, and copied on the next box."""
    copying(world, takes=300.0)
    instance = box(world).id
    world.console("ModifyInstanceAttribute", InstanceId=instance, DisableApiTermination={"Value": False})
    world.console("TerminateInstances", InstanceIds=[instance])
    world.run_until(phase(world, Phase.READY))
    world.copy_takes = 25.0
    world.want(UID, Want.UP)
    ends(world)


SCRIPTS: Final = {
    one.__name__: one
    for one in (back, stopped_meanwhile, powered_off_meanwhile, snapshot_meanwhile, ended_meanwhile)
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_comes_between(name: str) -> None:
    """See the scripts: each alone, then with something going wrong everywhere in it."""
    count = play({}, script=SCRIPTS[name]).mutations
    for number in range(1, count + 1):
        play({number: DEADLY[number % len(DEADLY)]}, script=SCRIPTS[name])


def test_a_box_that_does_not_let_go_is_stopped_all_the_same() -> None:
    """The system holds on to the old root and can not be reached: going down, it lets go."""
    world = World(MemoryStore(), seed=1)
    with watched(world) as oracle:
        up(world)
        world.copy_takes = 1e9
        world.rebase(UID)
        world.run_until(lambda: bool(world.copying), most=8000)
        world.unreachable = 1.0
        world.want(UID, Want.COLD)
        world.run_until(phase(world, Phase.READY), most=2000)
        world.run_for(400)
        assert not copies(world)
        oracle.ends_well(UID)


NOT_YET: Final = {
    "CreateVolume": ("InvalidSnapshot.NotFound", "IncorrectState"),
    "AttachVolume": ("InvalidVolume.NotFound", "IncorrectState", "IncorrectInstanceState", "VolumeInUse"),
    "DetachVolume": ("InvalidVolume.NotFound", "IncorrectState", "InvalidAttachment.NotFound"),
    "DeleteVolume": ("VolumeInUse", "IncorrectState", "UnauthorizedOperation"),
}


@pytest.mark.parametrize("operation", NOT_YET)
@pytest.mark.parametrize("times", [1, 4])
def test_it_goes_on_through_refusals(operation: str, times: int) -> None:
    for code in (*PASSING, *NOT_YET[operation]):
        world = World(MemoryStore(), seed=3)
        world.model.faults.add(Fault("refuse", operation=operation, code=code, times=times))
        with watched(world) as oracle:
            whole(world)
            world.run_for(1200)
            oracle.ends_well(UID)
            assert not copies(world)
            assert not world.model.faults.any("refuse"), f"{operation} was never called"


def failed(world: World) -> Callable[[], bool]:
    def is_so() -> bool:
        rebase = world.project(UID).rebase
        return rebase is not None and bool(rebase.problem)

    return is_so


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ("CreateVolume", "VolumeLimitExceeded"),
        ("CreateVolume", "UnauthorizedOperation"),
        ("CreateVolume", "InsufficientVolumeCapacity"),
        ("CreateVolume", "InvalidSnapshot.NotFound"),
        ("AttachVolume", "AttachmentLimitExceeded"),
        ("AttachVolume", "UnauthorizedOperation"),
        ("AttachVolume", "InvalidParameterValue"),
    ],
)
def test_what_only_a_person_can_mend_leaves_the_box_up_and_says_how_to_go_on(
    operation: str, code: str
) -> None:
    """No loop of refused calls; the same command goes on, and the way back is there."""
    world = World(MemoryStore(), seed=4)
    fault = world.model.faults.add(Fault("refuse", operation=operation, code=code))
    with watched(world) as oracle:
        up(world)
        world.rebase(UID)
        world.run_until(failed(world), most=8000)
        project: Project = world.project(UID)
        assert project.phase is Phase.RUNNING
        assert "devboxctl rebase project-p1 --onto base-2 goes on" in project.reason
        assert "devboxctl launch project-p1 --from 1 goes back" in project.reason
        world.run_for(300)
        assert not copies(world)
        world.model.faults.remove(fault)
        world.rebase(UID)
        world.run_until(done(world), most=4000)
        assert world.project(UID).reason == ""
        world.run_for(300)
        oracle.ends_well(UID)


def test_a_launch_without_room_leaves_the_way_back_and_goes_on_when_asked_again() -> None:
    world = World(MemoryStore(), seed=4)
    with watched(world) as oracle:
        up(world)
        fault = world.model.faults.add(Fault("no-capacity", what="*/*"))
        world.rebase(UID)
        world.run_until(lambda: phase(world, Phase.READY)() and world.project(UID).want is Want.COLD)
        assert world.project(UID).head == 1
        world.model.faults.remove(fault)
        world.want(UID, Want.UP)
        world.run_until(done(world), most=4000)
        assert box(world).image == world.project(UID).spec.image
        world.run_for(300)
        oracle.ends_well(UID)
