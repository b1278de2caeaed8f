"""Histories with hands in the console and minds that change. Each has its name, and must end well."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

from devboxd.model import wish
from devboxd.model.project import Phase, Quality, Want
from devboxd.simulator.ec2.faults import Fault
from devboxd.simulator.ec2.records import Attachment
from tests.lifecycle.scenarios import box, fate_of, up
from tests.lifecycle.test_crashes import UID, phase, work
from tests.lifecycle.world import Fate, World, small_spec


def data_volume(world: World) -> str:
    """The second volume of the project's box."""
    return next(v.id for v in world.model.tables.volumes_of(box(world)) if v.size == 20)


def attach(world: World, volume: str, instance: str | None) -> None:
    """Somebody attaches a volume elsewhere, or detaches it."""
    record = world.model.tables.volumes[volume]
    where = Attachment(instance, "/dev/sdx", world.now, False) if instance else None
    world.model.region.put(
        dataclasses.replace(record, attachment=where, state="in-use" if instance else "available")
    )
    world.note(f"console: {volume} goes to {instance}")


def end_in_console(world: World, instance: str) -> None:
    """Protection off, and terminate."""
    world.console("ModifyInstanceAttribute", InstanceId=instance, DisableApiTermination={"Value": False})
    world.console("TerminateInstances", InstanceIds=[instance])


def volume_out_of_sight(world: World) -> None:
    """A rescue that lacks a volume saves what there is and says what it lacks; shown again, that is not deleted."""
    up(world)
    instance, data = box(world), data_volume(world)
    end_in_console(world, instance)
    world.run_until(lambda: world.model.tables.volumes[data].state == "available")
    held = world.model.tables.volumes.pop(data)
    world.run_until(phase(world, Phase.READY))
    ledger = world.ledger(UID)
    assert ledger is not None
    (only,) = ledger.generations
    assert [disk.device for disk in only.disks] == ["/dev/sda1"]
    assert only.lacks == (f"/dev/sdf ({data}) is not there",)
    assert only.lacks[0] in ledger.project.reason
    world.model.region.put(held)
    world.run_for(3600)
    assert world.model.tables.volumes[data].state == "available"
    assert not any("[broken]" in line for line in world.trace)
    world.model.tables.volumes.pop(data)


def volume_moved_to_another_box(world: World) -> None:
    """What somebody attached elsewhere is named and left alone, there and when it is free again."""
    up(world)
    instance, data = box(world), data_volume(world)
    launch = {"ImageId": small_spec().image, "InstanceType": "t4g.small", "MinCount": 1, "MaxCount": 1}
    other = world.model.call("RunInstances", launch, now=world.now, caller="console")["Instances"][0][
        "InstanceId"
    ]
    end_in_console(world, instance)
    world.run_until(lambda: world.model.tables.volumes[data].state == "available")
    attach(world, data, other)
    began = world.now
    world.run_until(phase(world, Phase.READY))
    assert world.now - began < 900, "nobody had to wait for it"
    ledger = world.ledger(UID)
    assert ledger is not None
    assert ledger.generations[0].lacks == (f"/dev/sdf ({data}) is attached to {other}",)
    world.run_for(1800)
    assert world.model.tables.volumes[data].attachment is not None
    attach(world, data, None)
    world.run_for(3600)
    assert world.model.tables.volumes[data].state == "available"
    world.want(UID, Want.UP)
    world.run_until(phase(world, Phase.RUNNING))
    assert [one.size for one in world.model.tables.volumes_of(box(world))] == [8]


def volume_detached_before_the_save(world: World) -> None:
    """No generation has it, so it is nobody's garbage: it stays, however often the box is saved since."""
    up(world)
    data = data_volume(world)
    attach(world, data, None)
    world.run_for(400)
    for _ in range(5):
        world.want(UID, Want.COLD)
        world.run_until(phase(world, Phase.READY))
        world.run_for(900)
        world.want(UID, Want.UP)
        world.run_until(phase(world, Phase.RUNNING))
    assert world.model.tables.volumes[data].state == "available"
    assert world.project(UID).closed == 5


def all_is_gone(world: World) -> None:
    """Instance and volumes deleted by hand, and the record faded: somebody is told, and the newest generation is left."""
    up(world)
    world.want(UID, Want.WARM)
    world.run_until(phase(world, Phase.WARM))
    world.want(UID, Want.UP)
    world.run_until(phase(world, Phase.RUNNING))
    instance = box(world)
    volumes = [one.id for one in world.model.tables.volumes_of(instance)]
    world.daemons[0].nap(8000.0)
    end_in_console(world, instance)
    world.let_pass(600)
    assert [world.console("DeleteVolume", VolumeId=one) for one in volumes] == [None, None]
    world.run_for(8000)
    assert instance not in world.model.tables.instances
    world.run_until(phase(world, Phase.BROKEN))
    assert "is gone, and its volumes do not show; the newest generation is 1" in world.project(UID).reason
    known = world.ledger(UID)
    assert known is not None
    given_up = wish.abandon(known, world.now).project
    world.ask(UID, "abandon", **{name: getattr(given_up, name) for name in given_up.__struct_fields__})
    world.want(UID, Want.UP)
    world.run_until(phase(world, Phase.RUNNING))
    world.run_for(400)


def changed_my_mind(world: World) -> None:
    """Stopped in the console while it is to start, which has no room; then it is to be saved: it is not started."""
    up(world)
    instance = box(world)
    world.want(UID, Want.COLD)
    world.run_until(lambda: world.model.tables.instances[instance].state.value == "stopping")
    world.want(UID, Want.UP)
    world.run_until(phase(world, Phase.STARTING))
    world.model.faults.add(Fault("refuse", operation="StartInstances", code="InternalError"))
    world.run_for(60)
    world.want(UID, Want.COLD)
    world.model.faults.clear()
    world.run_until(phase(world, Phase.READY))
    assert not any("StartInstances" in line and line.endswith("-> ok") for line in world.trace)
    world.run_for(400)


def down_while_it_starts(world: World) -> None:
    """The start is under way when the user wants it saved: that it runs then is nobody's wish."""
    up(world)
    world.want(UID, Want.WARM)
    world.run_until(phase(world, Phase.WARM))
    world.want(UID, Want.UP)
    world.run_until(lambda: world.model.tables.instances[box(world)].state.value == "pending")
    world.want(UID, Want.COLD)
    world.run_until(phase(world, Phase.READY), most=2000)
    assert world.project(UID).want is Want.COLD
    world.run_for(900)


def late_start(world: World) -> None:
    """The start of a daemon that died arrives after the user has changed their mind: the box is saved all the same."""
    up(world)
    world.want(UID, Want.WARM)
    world.run_until(phase(world, Phase.WARM))
    fate_of(world, "StartInstances", Fate.ARRIVES_LATE)
    world.late = 100.0
    world.want(UID, Want.UP)
    world.run_until(lambda: world.daemons[0].is_dead)
    world.want(UID, Want.WARM)
    world.run_for(90)
    assert world.project(UID).phase is Phase.WARM
    world.run_until(lambda: world.model.tables.instances[box(world)].state.value == "running")
    work(world)
    world.run_until(lambda: phase(world, Phase.WARM)() and world.project(UID).head == 2, most=2000)
    world.want(UID, Want.COLD)
    world.run_until(phase(world, Phase.READY))
    world.run_for(400)


def ended_while_it_was_to_start(world: World) -> None:
    """Its save was cancelled, so what it holds is in no generation when somebody ends it: it is rescued."""
    up(world)
    instance = box(world)
    world.model.faults.add(Fault("refuse", operation="StartInstances", code="InternalError"))
    world.want(UID, Want.COLD)
    world.run_until(lambda: world.model.tables.instances[instance].state.value == "stopping")
    world.want(UID, Want.UP)
    world.run_until(lambda: world.model.tables.instances[instance].state.value == "stopped")
    world.run_for(30)
    assert world.project(UID).phase is Phase.STARTING
    end_in_console(world, instance)
    world.model.faults.clear()
    world.run_until(phase(world, Phase.READY))
    ledger = world.ledger(UID)
    assert ledger is not None
    assert [one.quality for one in ledger.generations] == [Quality.RESCUE]
    world.run_for(400)


def snapshots_are_named_late(world: World) -> None:
    """The image is there for longer than garbage is kept before it says what it is made of."""
    up(world)
    world.model.faults.add(Fault("mapping-gap", seconds=300.0))
    world.want(UID, Want.COLD)
    world.run_until(phase(world, Phase.READY), most=2000)
    assert world.project(UID).saves == 1
    world.run_for(400)


def quick_when_warm(world: World) -> None:
    """Nobody waits for views of EC2 to grow old."""
    up(world)
    world.want(UID, Want.WARM)
    world.run_until(phase(world, Phase.WARM))
    world.run_for(60)
    world.want(UID, Want.UP)
    world.run_until(phase(world, Phase.RUNNING), most=60)
    world.run_for(400)


BY_HAND: Final[dict[str, Callable[[World], None]]] = {
    one.__name__: one
    for one in (
        volume_out_of_sight,
        volume_moved_to_another_box,
        volume_detached_before_the_save,
        all_is_gone,
        changed_my_mind,
        down_while_it_starts,
        late_start,
        ended_while_it_was_to_start,
        snapshots_are_named_late,
        quick_when_warm,
    )
}
