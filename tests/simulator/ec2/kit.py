"""A developer's account on virtual time: calls with keyword parameters, and waiting that costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from devboxd.simulator.ec2 import catalogue
from devboxd.simulator.ec2.errors import Ec2Error
from devboxd.simulator.ec2.model import Ec2Model
from devboxd.simulator.ec2.records import Instance, Snapshot, Volume

START = 1_800_000_000.0
UBUNTU = 1  # in catalogue.PUBLISHED
DEVICES = [
    {"DeviceName": "/dev/sda1", "Ebs": {"DeleteOnTermination": False}},
    {
        "DeviceName": "/dev/sdf",
        "Ebs": {"VolumeSize": 20, "VolumeType": "gp3", "Iops": 4000, "Throughput": 250, "DeleteOnTermination": False},
    },
]  # fmt: skip


@dataclass(slots=True)
class Account:
    """One model and its present time."""

    model: Ec2Model = field(default_factory=lambda: Ec2Model(now=START, is_throttled=False))
    now: float = START

    def call(self, operation: str, **params: Any) -> dict[str, Any]:
        """One call at the present time."""
        return self.model.call(operation, params, now=self.now)

    def refused(self, operation: str, **params: Any) -> str:
        """One call that must be refused; returns the code."""
        with pytest.raises(Ec2Error) as error:
            self.call(operation, **params)
        return error.value.code

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.model.settle(self.now)

    def until(self, what: Callable[[], object], most: float = 100_000.0) -> float:
        """Go from event to event until something is so; returns the seconds it took."""
        began = self.now
        while not what():
            due = self.model.next_event()
            assert due is not None, "it never will be"
            assert due - began < most, "it takes too long"
            self.now = max(self.now, due)
            self.model.settle(self.now)
        return self.now - began

    # -- shortcuts -----------------------------------------------------------------------------------

    def launch(self, **params: Any) -> str:
        """Launch one box with two volumes and wait until it runs; returns its id."""
        instance = self.pending(**params)
        self.until(lambda: self.state(instance) == "running")
        return instance

    def pending(self, **params: Any) -> str:
        """Launch one box; returns its id."""
        full: dict[str, Any] = {
            "ImageId": catalogue.newest("us-east-1", UBUNTU, "arm64"),
            "InstanceType": "t4g.small",
            "MinCount": 1,
            "MaxCount": 1,
            "BlockDeviceMappings": DEVICES,
        }
        answer = self.call("RunInstances", **(full | params))
        return str(answer["Instances"][0]["InstanceId"])

    def refused_launch(self, code: str, **params: Any) -> int:
        """Launch one box, which must be refused with this code; returns the HTTP status."""
        with pytest.raises(Ec2Error) as error:
            self.pending(**params)
        assert error.value.code == code
        return error.value.http_status

    def stopped(self, **params: Any) -> str:
        """Launch one box, let it work and stop it; returns its id."""
        instance = self.launch(**params)
        self.model.work(instance, now=self.now)
        self.stop(instance)
        return instance

    def stop(self, instance: str) -> None:
        """Stop a box and wait for it."""
        self.call("StopInstances", InstanceIds=[instance])
        self.until(lambda: self.state(instance) == "stopped")

    def terminate(self, instance: str) -> None:
        """Terminate a box and wait for it."""
        self.call("TerminateInstances", InstanceIds=[instance])
        self.until(lambda: self.state(instance) == "terminated")

    def image(self, instance: str, name: str = "devbox/demo/1", **params: Any) -> str:
        """Make an image of a box and wait until it is available; returns its id."""
        made = str(
            self.call("CreateImage", InstanceId=instance, Name=name, NoReboot=True, **params)["ImageId"]
        )
        self.until(lambda: self.model.tables.images[made].state == "available")
        return made

    # -- what is really so ---------------------------------------------------------------------------

    def instance(self, instance: str) -> Instance:
        """The record of an instance."""
        return self.model.tables.instances[instance]

    def state(self, instance: str) -> str:
        """Its state."""
        return self.instance(instance).state.value

    def volumes(self, instance: str) -> dict[str, Volume]:
        """Its volumes by device."""
        found = self.model.tables.volumes_of(instance)
        return {one.attachment.device: one for one in found if one.attachment is not None}

    def snapshots(self) -> list[Snapshot]:
        """All snapshots of ours."""
        own = self.model.region.account
        return [one for one in self.model.tables.snapshots.values() if one.owner == own]
