"""Whatever is called in whatever order, the model's own books stay right: an oracle must not err."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from devboxd.simulator.ec2.errors import AnswerLost, Ec2Error
from devboxd.simulator.ec2.faults import KINDS, Fault
from devboxd.simulator.ec2.model import Ec2Model
from devboxd.simulator.ec2.records import InstanceState
from tests.simulator.ec2.kit import START, Account

PASSING = {"pending", "stopping", "shutting-down", "creating", "deleting", "deregistered"}


class Monkey:
    """Calls at random what could be called, with things that are there or were."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.ec2 = Account(Ec2Model(now=START, seed=seed, is_throttled=False))
        self.known: dict[str, list[str]] = {"i": [], "vol": [], "snap": [], "ami": []}
        self.number = 0
        for kind in KINDS:
            self.ec2.model.faults.add(Fault(kind, share=self.dice.choice((0.0, 0.02, 0.2))))

    def some(self, prefix: str) -> str:
        """A thing of this kind."""
        tables = self.ec2.model.tables
        every: dict[str, dict[str, Any]] = {
            "i": tables.instances, "vol": tables.volumes, "snap": tables.snapshots, "ami": tables.images,
        }  # fmt: skip
        table = every[prefix]
        seen = self.known[prefix]
        account = self.ec2.model.region.account
        seen += [
            id_ for id_, one in table.items() if id_ not in seen and getattr(one, "owner", account) == account
        ]
        return self.dice.choice(seen) if seen else f"{prefix}-0123456789abcdef0"

    def step(self) -> None:
        """One call, or something that happens by itself; then some time."""
        self.number += 1
        instance = self.some("i")
        choices: list[Callable[[], Any]] = [
            lambda: self.ec2.pending(ClientToken=f"t{self.dice.randrange(self.number)}"),
            lambda: self.ec2.pending(ImageId=self.some("ami"), BlockDeviceMappings=[]),
            lambda: self.ec2.call(
                self.dice.choice(("StartInstances", "StopInstances", "RebootInstances")), InstanceIds=[instance]
            ),
            lambda: self.ec2.call(
                "TerminateInstances", InstanceIds=[instance], **self.dice.choice(({}, {"Force": True}))
            ),
            lambda: self.ec2.call("StopInstances", InstanceIds=[instance], Force=True),
            lambda: self.ec2.call("CreateImage", InstanceId=instance, Name=f"n{self.number}", NoReboot=self.number % 2 == 0),
            lambda: self.ec2.call("CreateSnapshot", VolumeId=self.some("vol")),
            lambda: self.ec2.call("CreateSnapshots", InstanceSpecification={"InstanceId": instance}),
            lambda: self.ec2.call("DeleteSnapshot", SnapshotId=self.some("snap")),
            lambda: self.ec2.call(
                "DeregisterImage", ImageId=self.some("ami"), DeleteAssociatedSnapshots=self.number % 2 == 0
            ),
            lambda: self.ec2.call("DeleteVolume", VolumeId=self.some("vol")),
            lambda: self.ec2.call("CreateVolume", AvailabilityZone="us-east-1a", SnapshotId=self.some("snap")),
            lambda: self.ec2.call("ModifyVolume", VolumeId=self.some("vol"), Size=self.dice.randrange(8, 100)),
            lambda: self.ec2.call("CreateTags", Resources=[instance], Tags=[{"Key": "n", "Value": str(self.number)}]),
            lambda: self.ec2.call("DescribeInstances"),
            lambda: self.ec2.call("DescribeImages", Owners=["self"]),
            lambda: self.ec2.model.work(instance, now=self.ec2.now, is_synced=self.number % 2 == 0),
            lambda: self.ec2.model.power_off(instance, now=self.ec2.now),
            lambda: self.ec2.model.lose_host(instance, now=self.ec2.now),
        ]  # fmt: skip
        try:
            self.dice.choice(choices)()
        except (Ec2Error, AnswerLost, ValueError):
            pass  # most of it is refused; what counts is what is left
        self.ec2.wait(self.dice.choice((0.0, 0.1, 10.0, 100.0)))


def check_books(model: Ec2Model) -> None:
    """What must be so at every moment."""
    tables = model.tables
    for volume in tables.volumes.values():
        assert (volume.state == "in-use") == (volume.attachment is not None), volume
        if volume.attachment is not None:
            assert tables.instances[volume.attachment.instance].state is not InstanceState.TERMINATED, volume
        assert volume.unsynced is None or volume.attachment is not None, volume
    for instance in tables.instances.values():
        devices = [v.attachment.device for v in tables.volumes_of(instance.id) if v.attachment is not None]
        is_gone = instance.state is InstanceState.TERMINATED
        assert (instance.boot.root_device in devices) is not is_gone, instance
        assert len(devices) == len(set(devices))
        assert (instance.running_since is not None) <= (
            instance.state in (InstanceState.RUNNING, InstanceState.STOPPING, InstanceState.SHUTTING_DOWN)
        ), instance
    for image in tables.images.values():
        if image.state == "available" and image.owner == model.region.account:
            root = next(d.snapshot for d in image.mappings if d.device == image.boot.root_device)
            assert root in tables.snapshots, "the root snapshot of an image is never deleted"


@pytest.mark.parametrize("seed", range(12))
def test_random_calls_keep_the_books(seed: int) -> None:
    """A model that loses a volume of its own would accuse the reconciler, or acquit it."""
    monkey = Monkey(seed)
    for _ in range(300):
        monkey.step()
        check_books(monkey.ec2.model)
    monkey.ec2.model.faults.clear()
    monkey.ec2.wait(100_000)
    tables = monkey.ec2.model.tables
    for table in (tables.instances, tables.volumes, tables.images):
        for one in table.values():
            assert one.state not in PASSING, "what is under way comes to an end"
    assert not any(one.state == "pending" for one in tables.snapshots.values())
    assert not monkey.ec2.model.region.agenda or monkey.ec2.model.next_event() > monkey.ec2.now  # type: ignore[operator]
    assert len(monkey.known["i"]) > 5, "it got somewhere"


def test_the_same_seed_gives_the_same_answers_with_every_fault() -> None:
    """Replaying a failing seed is the only way to read what happened."""
    histories = []
    for _ in range(2):
        monkey = Monkey(99)
        for _ in range(200):
            monkey.step()
        histories.append([(one.at, one.operation, one.error) for one in monkey.ec2.model.history])
    assert histories[0] == histories[1]
