"""Each call of the pipeline refused with each code that EC2 has for it, once and many times: it always comes right."""

from __future__ import annotations

from typing import Final

import pytest

from devboxd.model.project import Phase, Want
from devboxd.simulator.ec2.faults import Fault
from tests.lifecycle.memory import MemoryStore
from tests.lifecycle.test_crashes import UID, phase, two_lives, watched, work
from tests.lifecycle.world import World

PASSING: Final = (
    "InternalError",
    "ServiceUnavailable",
    "RequestLimitExceeded",
    "RequestExpired",
    "ExpiredToken",
    "AuthFailure",
    "NobodyKnowsThisCode",
)
NOT_YET: Final = {
    "RunInstances": ("InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"),
    "StartInstances": ("InvalidInstanceID.NotFound", "IncorrectInstanceState"),
    "StopInstances": ("InvalidInstanceID.NotFound", "IncorrectInstanceState"),
    "ModifyInstanceAttribute": ("InvalidInstanceID.NotFound", "IncorrectInstanceState", "UnauthorizedOperation"),
    "TerminateInstances": ("InvalidInstanceID.NotFound", "OperationNotPermitted", "UnauthorizedOperation"),
    "CreateImage": ("InvalidInstanceID.NotFound", "IncorrectInstanceState", "UnauthorizedOperation"),
    "CreateTags": ("InvalidVolume.NotFound", "InvalidID", "UnauthorizedOperation"),
    "DeleteVolume": ("VolumeInUse", "IncorrectState", "UnauthorizedOperation"),
    "CreateSnapshot": (
        "InvalidVolume.NotFound",
        "ConcurrentSnapshotLimitExceeded",
        "SnapshotCreationPerVolumeRateExceeded",
    ),
    "RegisterImage": ("InvalidSnapshot.NotFound", "IncorrectState"),
}  # fmt: skip


@pytest.mark.parametrize(
    "operation", [one for one in NOT_YET if one not in ("CreateSnapshot", "RegisterImage")]
)
@pytest.mark.parametrize("times", [1, 4])
def test_two_lives_go_on_through_refusals(operation: str, times: int) -> None:
    """The same call is made again when it helps, and looked at first."""
    for code in (*PASSING, *NOT_YET[operation]):
        world = World(MemoryStore(), seed=3)
        world.model.faults.add(Fault("refuse", operation=operation, code=code, times=times))
        with watched(world) as oracle:
            two_lives(world)
            world.run_for(1200)
            oracle.ends_well(UID)
            assert not world.model.faults.any("refuse"), f"{operation} was never called"


@pytest.mark.parametrize("operation", ["CreateSnapshot", "RegisterImage"])
def test_a_rescue_goes_on_through_refusals(operation: str) -> None:
    """The box is gone; its volumes wait."""
    for code in (*PASSING, *NOT_YET[operation]):
        for times in (1, 4):
            world = rescued_world()
            world.model.faults.add(Fault("refuse", operation=operation, code=code, times=times))
            with watched(world) as oracle:
                world.run_until(phase(world, Phase.READY))
                world.run_for(1200)
                oracle.ends_well(UID)
                assert not world.model.faults.any("refuse"), f"{operation} was never called"


def rescued_world() -> World:
    """A box that was at work when somebody terminated it in the console."""
    world = World(MemoryStore(), seed=5)
    world.create(UID)
    world.daemon(UID)
    world.want(UID, Want.UP)
    world.run_until(phase(world, Phase.RUNNING))
    world.run_for(60)
    work(world)
    instance = world.project(UID).instance
    world.console("ModifyInstanceAttribute", InstanceId=instance, DisableApiTermination={"Value": False})
    world.console("TerminateInstances", InstanceIds=[instance])
    return world


@pytest.mark.parametrize(
    "code", ["InsufficientInstanceCapacity", "Unsupported", "IdempotentParameterMismatch"]
)
def test_no_capacity_walks_the_zones(code: str) -> None:
    """The second zone takes the box; the attempt was written down before it was tried."""
    world = World(MemoryStore(), seed=4)
    world.model.faults.add(Fault("refuse", operation="RunInstances", code=code, times=2))
    world.create(UID)
    world.daemon(UID)
    with watched(world):
        world.want(UID, Want.UP)
        world.run_until(phase(world, Phase.RUNNING))
    assert world.project(UID).attempt == 2


@pytest.mark.parametrize(
    "code",
    ["VcpuLimitExceeded", "InstanceLimitExceeded", "VolumeLimitExceeded", "UnauthorizedOperation", "InvalidParameterValue"],
)  # fmt: skip
def test_what_only_a_person_can_mend_ends_the_launch_with_a_sentence(code: str) -> None:
    """No loop of refused calls, and the next ``up`` may try again."""
    world = World(MemoryStore(), seed=4)
    fault = world.model.faults.add(Fault("refuse", operation="RunInstances", code=code))
    world.create(UID)
    world.daemon(UID)
    with watched(world) as oracle:
        world.want(UID, Want.UP)
        world.run_until(lambda: world.project(UID).want is Want.COLD)
        assert world.project(UID).phase is Phase.ABSENT
        assert world.project(UID).reason
        world.model.faults.remove(fault)
        world.want(UID, Want.UP)
        world.run_until(phase(world, Phase.RUNNING))
        oracle.ends_well(UID)


def test_a_warm_box_without_capacity_goes_cold_and_comes_up_elsewhere() -> None:
    """``up`` is not tied to the zone that the stopped instance is in."""
    world = World(MemoryStore(), seed=6)
    world.create(UID)
    world.daemon(UID)
    with watched(world) as oracle:
        world.want(UID, Want.UP)
        world.run_until(phase(world, Phase.RUNNING))
        work(world)
        world.want(UID, Want.WARM)
        world.run_until(phase(world, Phase.WARM))
        zone = world.model.tables.instances[world.project(UID).instance or ""].zone
        world.model.faults.add(Fault("no-capacity", what=f"{zone}/*"))
        world.want(UID, Want.UP)
        world.run_until(phase(world, Phase.RUNNING))
        instance = world.model.tables.instances[world.project(UID).instance or ""]
        assert instance.zone != zone
        assert instance.boots
        world.run_for(600)
        oracle.ends_well(UID)


def test_a_box_whose_save_was_cancelled_is_saved_before_it_moves() -> None:
    """What it holds is on its volumes only, and the zone has no room for it."""
    world = World(MemoryStore(), seed=6)
    world.create(UID)
    world.daemon(UID)
    with watched(world) as oracle:
        world.want(UID, Want.UP)
        world.run_until(phase(world, Phase.RUNNING))
        work(world)
        instance = world.project(UID).instance or ""
        world.want(UID, Want.COLD)
        world.run_until(lambda: world.model.tables.instances[instance].state.value == "stopping")
        zone = world.model.tables.instances[instance].zone
        world.model.faults.add(Fault("no-capacity", what=f"{zone}/*"))
        world.want(UID, Want.UP)
        world.run_until(lambda: world.project(UID).run == 2 and phase(world, Phase.RUNNING)())
        assert world.model.tables.instances[world.project(UID).instance or ""].zone != zone
        assert world.project(UID).head == 1
        world.run_for(600)
        oracle.ends_well(UID)
