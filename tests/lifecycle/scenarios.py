"""Histories that happened to somebody, or nearly did. Each has its name, and must end well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from devboxd.model.project import Phase, Policy, Quality, Want
from devboxd.simulator.ec2.faults import Fault
from tests.lifecycle.test_crashes import UID, phase, work
from tests.lifecycle.world import Daemon, Fate, Request, World, small_spec


def up(world: World, *, spot: bool = False, policy: Policy | None = None) -> None:
    """A project whose box runs and has written."""
    world.create(UID, spec=replace(small_spec(), spot=spot), policy=policy)
    world.daemon(UID)
    world.want(UID, Want.UP)
    world.run_until(phase(world, Phase.RUNNING))
    world.run_for(30)
    work(world)


def box(world: World) -> str:
    """The instance of the project."""
    instance = world.project(UID).instance
    assert instance is not None
    return instance


def fate_of(world: World, name: str, fate: Fate, *, first: int = 1) -> None:
    """Let this befall the n-th request of a kind."""
    seen = 0

    def decide(daemon: Daemon, request: Request) -> Fate:
        nonlocal seen
        seen += request.name == name
        return fate if request.name == name and seen == first else Fate.ARRIVES

    world.fate = decide


def never_broken(world: World) -> None:
    """Nothing that a person had to look at."""
    assert not any("[broken]" in line for line in world.trace), "it needed a person"


def capacity_comes_back(world: World) -> None:
    """The first RunInstances arrives when the box already runs in another zone: a second one, for nobody."""
    fate_of(world, "RunInstances", Fate.ARRIVES_LATE)
    world.model.faults.add(Fault("no-capacity", what="us-east-1a/*", times=1))
    world.late = 200.0
    up(world)
    assert world.project(UID).attempt == 1
    world.run_for(600)
    alive = [one for one in world.model.tables.instances.values() if one.state.value == "running"]
    assert [one.id for one in alive] == [box(world)]
    assert len(world.model.tables.instances) == 2, "the late call made none"


def one_image_fails(world: World) -> None:
    """The next one is made under another name, and nobody has to be asked."""
    up(world)
    world.model.faults.add(Fault("image-fails", times=1))
    world.want(UID, Want.COLD)
    world.run_until(phase(world, Phase.READY))
    world.run_for(400)
    never_broken(world)


def terminated_in_the_console(world: World) -> None:
    """Rescued from its volumes, and what comes up again boots and holds it all."""
    up(world)
    instance = box(world)
    world.console("ModifyInstanceAttribute", InstanceId=instance, DisableApiTermination={"Value": False})
    world.console("TerminateInstances", InstanceIds=[instance])
    world.run_until(phase(world, Phase.READY))
    ledger = world.ledger(UID)
    assert ledger is not None
    assert [one.quality for one in ledger.generations] == [Quality.RESCUE]
    world.want(UID, Want.UP)
    world.run_until(phase(world, Phase.RUNNING))
    assert world.model.tables.instances[box(world)].boots, "the rescued image does not boot"
    world.run_for(400)
    never_broken(world)


def started_while_it_is_released(world: World) -> None:
    """The protection is off already when somebody starts it: it runs on, protected again."""
    up(world)
    fate_of(world, "TerminateInstances", Fate.REQUEST_LOST)
    instance = box(world)
    world.want(UID, Want.COLD)
    world.run_until(lambda: not world.model.tables.instances[instance].is_protected)
    world.run_for(0.5)
    assert world.console("StartInstances", InstanceIds=[instance]) is None
    world.run_until(phase(world, Phase.RUNNING))
    world.run_for(400)
    record = world.model.tables.instances[instance]
    assert record.state.value == "running"
    assert record.is_protected
    work(world)


def vanished_before_it_was_bound(world: World) -> None:
    """The laptop slept through the box's whole life and an hour more; its volumes are all that is left."""
    fate_of(world, "RunInstances", Fate.DIES_AFTER)
    world.restarts = lambda daemon: 8000.0
    world.create(UID)
    world.daemon(UID)
    world.want(UID, Want.UP)
    world.run_until(lambda: any(i.state.value == "running" for i in world.model.tables.instances.values()))
    (instance,) = world.model.tables.instances
    for device in ("/dev/sda1", "/dev/sdf"):
        world.model.work(instance, now=world.now, device=device)
    world.console("ModifyInstanceAttribute", InstanceId=instance, DisableApiTermination={"Value": False})
    world.console("TerminateInstances", InstanceIds=[instance])
    world.run_for(7500)
    assert not world.model.tables.instances, "it still shows"
    world.run_until(phase(world, Phase.READY))
    never_broken(world)
    assert world.project(UID).head == 1
    world.want(UID, Want.UP)
    world.run_until(phase(world, Phase.RUNNING))
    assert world.model.tables.instances[box(world)].boots
    world.run_for(400)


def many_saves(world: World) -> None:
    """Retention lets the old ones go, never the newest, and what is launched is there."""
    up(world)
    for _ in range(6):
        world.want(UID, Want.WARM)
        world.run_until(phase(world, Phase.WARM))
        world.want(UID, Want.UP)
        world.run_until(phase(world, Phase.RUNNING))
        work(world)
    world.want(UID, Want.COLD)
    world.run_until(phase(world, Phase.READY))
    world.want(UID, Want.UP)
    world.run_until(phase(world, Phase.RUNNING))
    world.run_for(900)
    ledger = world.ledger(UID)
    assert ledger is not None
    assert [one.number for one in ledger.generations] == [5, 6, 7]


def head_deregistered_by_hand(world: World) -> None:
    """Somebody tidied up in the console: the stopped box is the only copy, and is saved again before it goes."""
    up(world)
    world.want(UID, Want.WARM)
    world.run_until(phase(world, Phase.WARM))
    ledger = world.ledger(UID)
    assert ledger is not None
    assert world.console("DeregisterImage", ImageId=ledger.generations[-1].image) is None
    world.want(UID, Want.COLD)
    world.run_until(lambda: phase(world, Phase.READY)() and world.project(UID).head == 2)
    world.run_for(400)


def tried_before_it_goes(world: World) -> None:
    """The generation was booted once, and nothing of the trial is left."""
    up(world, policy=Policy(warm_for=1800.0, grace=60.0, verify=True))
    first = box(world)
    world.want(UID, Want.COLD)
    world.run_until(phase(world, Phase.READY), most=5000)
    ledger = world.ledger(UID)
    assert ledger is not None
    assert [one.tested for one in ledger.generations] == [True]
    probes = [one for one in world.model.tables.instances.values() if one.id != first]
    assert [one.type for one in probes] == ["t4g.small"]
    world.run_for(900)
    assert all(one.state.value == "terminated" for one in world.model.tables.instances.values())


def does_not_boot(world: World) -> None:
    """A generation that does not come up: the box stays, and somebody is told."""
    up(world, policy=Policy(warm_for=1800.0, grace=60.0, verify=True))
    first = box(world)
    fault = world.model.faults.add(Fault("no-boot"))
    world.want(UID, Want.COLD)
    world.run_until(phase(world, Phase.BROKEN), most=10_000)
    assert "does not boot" in world.project(UID).reason
    assert world.model.tables.instances[first].state.value == "stopped"
    world.model.faults.remove(fault)
    probes = [one for one in world.model.tables.instances.values() if one.id != first]
    assert [one.state.value in ("shutting-down", "terminated") for one in probes] == [True], (
        "nobody pays for it"
    )
    world.resume(UID)
    world.run_until(phase(world, Phase.READY), most=10_000)
    world.run_for(900)


def no_room_to_try(world: World) -> None:
    """The zone of the first place has none of the small type: the generation is tried in another one."""
    up(world, policy=Policy(warm_for=1800.0, grace=60.0, verify=True))
    first = box(world)
    zone = world.model.tables.instances[first].zone
    world.model.faults.add(Fault("no-capacity", what=f"{zone}/t4g.small"))
    world.want(UID, Want.COLD)
    world.run_until(phase(world, Phase.READY), most=5000)
    world.run_for(900)


def worked_on_while_we_slept(world: World) -> None:
    """Started, worked on and stopped in the console, all of it between two looks at a saved box."""
    up(world)
    world.want(UID, Want.WARM)
    world.run_until(phase(world, Phase.WARM))
    instance = box(world)
    world.daemons[0].nap(3600.0)
    world.console("StartInstances", InstanceIds=[instance])
    world.run_for(60)
    work(world)
    world.console("StopInstances", InstanceIds=[instance])
    world.want(UID, Want.COLD)
    world.run_for(3600)
    world.run_until(phase(world, Phase.READY))
    assert world.project(UID).head == 2
    world.run_for(400)


def ended_while_we_slept(world: World) -> None:
    """The same, and terminated instead of stopped: what was done since the save is on the volumes only."""
    up(world)
    world.want(UID, Want.WARM)
    world.run_until(phase(world, Phase.WARM))
    instance = box(world)
    world.daemons[0].nap(1800.0)
    world.console("StartInstances", InstanceIds=[instance])
    world.run_for(60)
    work(world)
    world.console("ModifyInstanceAttribute", InstanceId=instance, DisableApiTermination={"Value": False})
    world.console("TerminateInstances", InstanceIds=[instance])
    world.run_for(1800)
    world.run_until(phase(world, Phase.READY))
    ledger = world.ledger(UID)
    assert ledger is not None
    assert [one.quality for one in ledger.generations] == [Quality.CLEAN, Quality.RESCUE]
    world.run_for(400)


def spot_interrupted(world: World) -> None:
    """EC2 takes the instance back: it is saved and comes up again, on demand and without being asked for."""
    up(world, spot=True)
    first = box(world)
    world.model.interrupt_spot(first, now=world.now)
    world.run_until(lambda: phase(world, Phase.RUNNING)() and box(world) != first)
    instance = world.model.tables.instances[box(world)]
    assert (instance.spot, instance.is_protected) == (None, True)
    assert world.project(UID).want is Want.UP
    world.run_for(600)


def spot_given_back(world: World) -> None:
    """EC2 starts it again while it is being saved: it runs on, as what it was."""
    up(world, spot=True)
    first = box(world)
    world.model.interrupt_spot(first, now=world.now)
    world.run_until(lambda: world.project(UID).stamp is not None)
    world.restore_spot(first)
    world.run_until(phase(world, Phase.RUNNING))
    assert box(world) == first
    assert world.project(UID).want is Want.UP
    world.run_until(lambda: world.model.tables.instances[first].state.value == "running")
    work(world)
    world.run_for(400)


def spot_terminated(world: World) -> None:
    """Its request ends first, or EC2 would launch another one for it."""
    up(world, spot=True)
    world.want(UID, Want.COLD)
    world.run_until(phase(world, Phase.READY))
    assert any("CancelSpotInstanceRequests" in line for line in world.trace)
    world.run_for(400)


ALL: Final[dict[str, Callable[[World], None]]] = {
    one.__name__: one
    for one in (
        capacity_comes_back,
        one_image_fails,
        terminated_in_the_console,
        started_while_it_is_released,
        vanished_before_it_was_bound,
        many_saves,
        head_deregistered_by_hand,
        worked_on_while_we_slept,
        ended_while_we_slept,
        tried_before_it_goes,
        does_not_boot,
        no_room_to_try,
        spot_interrupted,
        spot_given_back,
        spot_terminated,
    )
}
