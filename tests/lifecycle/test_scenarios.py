"""Histories with a name, every volume by itself, and what belongs to others."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from devboxd.model.project import Disk, Phase, Want
from tests.lifecycle import playing, scenarios
from tests.lifecycle.memory import MemoryStore
from tests.lifecycle.test_crashes import UID, phase, two_lives, watched
from tests.lifecycle.world import World, small_spec

KINDS = [("gp3", 3000, 125), ("gp3", 5000, 400), ("io2", 4000, None), ("gp2", None, None), ("io1", 600, None)]
DEVICES = [f"/dev/sd{letter}" for letter in "fghijklmnopqrstuvwxyz"] + [
    f"/dev/sdb{letter}" for letter in "abcd"
]


@pytest.mark.parametrize("name", playing.ALL)
def test_it_ends_well(name: str) -> None:
    """See ``scenarios`` and ``scenarios_by_hand``."""
    playing.play(name)


def shape(world: World) -> dict[str, tuple[object, ...]]:
    """What EC2 has of each volume of the project's box, by device."""
    return {
        one.attachment.device: (one.size, one.type, one.iops, one.throughput, one.encrypted)
        for one in world.model.tables.volumes_of(scenarios.box(world))
        if one.attachment is not None
    }


def contents(world: World) -> dict[str, int]:
    """What is on each of them: numbers of writes."""
    found = world.model.tables.volumes_of(scenarios.box(world))
    return {one.attachment.device: one.content for one in found if one.attachment is not None}


@pytest.mark.parametrize("how", ["terminate", "console"])
def test_twenty_six_volumes_come_back_as_they_were(how: str) -> None:
    """Content, size, type and speed of each, on its own device: saved in order, or rescued."""
    world = World(MemoryStore(), seed=9)
    kinds = [KINDS[number % len(KINDS)] for number in range(len(DEVICES))]
    data = [Disk(device, 20 + n, *kind) for n, (device, kind) in enumerate(zip(DEVICES, kinds, strict=True))]
    spec = small_spec()
    with watched(world) as oracle:
        world.create(UID, spec=replace(spec, disks=(spec.disks[0], *data)))
        world.daemon(UID)
        world.want(UID, Want.UP)
        world.run_until(phase(world, Phase.RUNNING))
        world.run_for(30)
        before = shape(world)
        assert len(before) == 26
        for device in before:
            world.model.work(scenarios.box(world), now=world.now, device=device)
        written = contents(world)
        if how == "terminate":
            world.want(UID, Want.COLD)
        else:
            instance, off = scenarios.box(world), {"Value": False}
            world.console("ModifyInstanceAttribute", InstanceId=instance, DisableApiTermination=off)
            world.console("TerminateInstances", InstanceIds=[instance])
        world.run_until(phase(world, Phase.READY))
        world.want(UID, Want.UP)
        world.run_until(phase(world, Phase.RUNNING))
        assert shape(world) == before
        # As it shuts down a box writes a last time, to each of its volumes.
        last = contents(world)
        assert sorted(last, key=last.__getitem__) == sorted(written, key=written.__getitem__)
        assert all(last[device] >= written[device] for device in written)
        world.run_for(900)
        oracle.ends_well(UID)


def test_what_is_not_ours_is_never_touched() -> None:
    """Boxes, volumes, snapshots and images of others beside ours, some under names and tags like ours."""
    world = World(MemoryStore(), seed=9)
    alike = {
        "devbox:owner": "somebody",
        "devbox:project": "project-p1",
        "devbox:id": "p2",
        "devbox:launch": "p2-1-0",
        "devbox:save": "1",
    }
    pairs = [{"Key": key, "Value": value} for key, value in alike.items()]
    tagged = [{"ResourceType": kind, "Tags": pairs} for kind in ("instance", "volume")]
    launch = {"ImageId": small_spec().image, "InstanceType": "t4g.small", "MinCount": 1, "MaxCount": 1}
    for more in ({}, {"TagSpecifications": tagged}):
        answer = world.model.call("RunInstances", {**launch, **more}, now=world.now, caller="console")
        instance = answer["Instances"][0]["InstanceId"]
        world.let_pass(60)
        world.console("CreateImage", InstanceId=instance, Name=f"devbox/project-p1/{instance}", NoReboot=True)
    world.console("CreateVolume", AvailabilityZone="us-east-1a", Size=5)
    world.let_pass(1200)

    def theirs() -> list[Any]:
        tables = world.model.tables
        everything: list[Any] = [*tables.instances.values(), *tables.volumes.values()]
        everything += [*tables.images.values(), *tables.snapshots.values()]
        return [one for one in everything if one.tags.get("devbox:owner") != "me"]

    before = theirs()
    with watched(world) as oracle:
        two_lives(world)
        oracle.ends_well(UID)
    assert theirs() == before
