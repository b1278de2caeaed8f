"""``Ec2Model``: one account in one region of EC2, synchronous and without clock, socket or chance of its own.

    model = Ec2Model(seed=7, now=0.0)
    answer = model.call("RunInstances", {"ImageId": ..., "MinCount": 1, "MaxCount": 1}, now=12.5)

Requests and answers are dicts exactly as a botocore client takes and gives them (times are datetimes).
The same object stands behind the simulator's EC2 endpoint and, on virtual time, is the oracle of tests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from devboxd.simulator.ec2 import (
    catalogue,
    describe,
    images,
    instances,
    launch,
    power,
    shapes,
    snapshots,
    tags,
    volumes,
)
from devboxd.simulator.ec2.delays import Delays
from devboxd.simulator.ec2.effects import Effect
from devboxd.simulator.ec2.errors import AnswerLost, Ec2Error
from devboxd.simulator.ec2.faults import CONSOLE, Faults
from devboxd.simulator.ec2.records import InstanceState
from devboxd.simulator.ec2.region import ACCOUNT, Event, Region, Tables
from devboxd.simulator.ec2.throttle import Throttle

Params = Mapping[str, Any]
Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """How one call is answered, and the members of its request that are understood."""

    answer: Callable[[Region, Params], Answer]
    understands: frozenset[str]


def _op(answer: Callable[[Region, Params], Answer], members: str = "") -> Operation:
    return Operation(answer, frozenset({"DryRun", *members.split()}))


_PAGED: Final = "Filters MaxResults NextToken "
OPERATIONS: Final[dict[str, Operation]] = {
    "RunInstances": _op(launch.run_instances, launch.UNDERSTOOD),
    "StartInstances": _op(instances.start_instances, "InstanceIds"),
    "StopInstances": _op(instances.stop_instances, "InstanceIds Force Hibernate SkipOsShutdown"),
    "RebootInstances": _op(instances.reboot_instances, "InstanceIds"),
    "CancelSpotInstanceRequests": _op(instances.cancel_spot_requests, "SpotInstanceRequestIds"),
    "TerminateInstances": _op(instances.terminate_instances, "InstanceIds Force SkipOsShutdown"),
    "ModifyInstanceAttribute": _op(
        instances.modify_attribute, f"InstanceId Attribute Value {instances.ATTRIBUTES}"
    ),
    "ModifyInstanceMetadataOptions": _op(
        instances.modify_metadata,
        "InstanceId HttpTokens HttpPutResponseHopLimit HttpEndpoint HttpProtocolIpv6 InstanceMetadataTags",
    ),
    "GetConsoleOutput": _op(instances.console_output, "InstanceId Latest"),
    "CreateImage": _op(
        images.create_image, "InstanceId Name Description NoReboot BlockDeviceMappings TagSpecifications"
    ),
    "RegisterImage": _op(images.register_image, images.REGISTER),
    "DeregisterImage": _op(images.deregister_image, "ImageId DeleteAssociatedSnapshots"),
    "CreateSnapshot": _op(snapshots.create_snapshot, "VolumeId Description TagSpecifications"),
    "CreateSnapshots": _op(
        snapshots.create_snapshots, "InstanceSpecification Description TagSpecifications CopyTagsFromSource"
    ),
    "DeleteSnapshot": _op(snapshots.delete_snapshot, "SnapshotId"),
    "CreateVolume": _op(
        volumes.create_volume,
        "AvailabilityZone Size VolumeType Iops Throughput Encrypted KmsKeyId SnapshotId TagSpecifications ClientToken",
    ),
    "AttachVolume": _op(volumes.attach_volume, "VolumeId InstanceId Device"),
    "DetachVolume": _op(volumes.detach_volume, "VolumeId InstanceId Device Force"),
    "DeleteVolume": _op(volumes.delete_volume, "VolumeId"),
    "ModifyVolume": _op(volumes.modify_volume, "VolumeId Size VolumeType Iops Throughput"),
    "CreateTags": _op(tags.create_tags, "Resources Tags"),
    "DeleteTags": _op(tags.delete_tags, "Resources Tags"),
    "DescribeInstances": _op(describe.instances, _PAGED + "InstanceIds"),
    "DescribeInstanceStatus": _op(describe.status, _PAGED + "InstanceIds IncludeAllInstances"),
    "DescribeInstanceAttribute": _op(instances.describe_attribute, "InstanceId Attribute"),
    "DescribeInstanceTypes": _op(describe.instance_types, _PAGED + "InstanceTypes"),
    "DescribeInstanceTypeOfferings": _op(describe.offerings, _PAGED + "LocationType"),
    "DescribeSpotPriceHistory": _op(
        describe.spot_prices, "MaxResults NextToken InstanceTypes ProductDescriptions StartTime"
    ),
    "DescribeVolumes": _op(describe.volumes_, _PAGED + "VolumeIds"),
    "DescribeVolumesModifications": _op(describe.modifications, _PAGED + "VolumeIds"),
    "DescribeSnapshots": _op(describe.snapshots, _PAGED + "SnapshotIds OwnerIds"),
    "DescribeImages": _op(describe.images, _PAGED + "ImageIds Owners IncludeDeprecated IncludeDisabled"),
    "DescribeTags": _op(describe.tags, _PAGED),
    "DescribeVpcs": _op(describe.vpcs, _PAGED + "VpcIds"),
    "DescribeSubnets": _op(describe.subnets, _PAGED + "SubnetIds"),
    "DescribeSecurityGroups": _op(describe.groups, _PAGED + "GroupIds"),
    "DescribeAvailabilityZones": _op(describe.zones, "Filters ZoneNames ZoneIds AllAvailabilityZones"),
    "DescribeRegions": _op(describe.regions, "Filters RegionNames AllRegions"),
    "DescribeAddresses": _op(describe.addresses, "Filters AllocationIds PublicIps"),
}
_HAPPENINGS: Final[dict[str, Callable[[Region, Event], None]]] = {
    "instance": power.advance,
    "forget": power.forget,
    "fade": power.fade,
    "ghost": power.lay,
    "volume": volumes.advance,
    "modification": volumes.advance_modification,
    "snapshot": snapshots.advance,
    "image": images.advance,
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call that arrived, for those who check histories."""

    at: float
    caller: str
    operation: str
    params: Params
    error: str | None  # its code; None: it took effect


class Ec2Model:
    """A strict EC2. Everything that happens is decided by the calls, their times and the seed."""

    def __init__(
        self,
        *,
        now: float,
        seed: int = 0,
        region: str = "us-east-1",
        account: str = ACCOUNT,
        zones: int = 3,
        delays: Delays | None = None,
        is_throttled: bool = True,
        on_effect: Callable[[Effect], None] | None = None,
        history: int | None = 10_000,
    ) -> None:
        self.region = Region(
            region, account=account, seed=seed, delays=delays or Delays(), on_effect=on_effect
        )
        self.region.caller.now = now
        catalogue.populate(self.region, zones)
        self.history: deque[Call] = deque(maxlen=history)
        self.throttle: Throttle | None = Throttle() if is_throttled else None

    @property
    def faults(self) -> Faults:
        """What goes wrong; see ``faults.KINDS``."""
        return self.region.faults

    @property
    def tables(self) -> Tables:
        """What is really there: for oracles, which no caller is."""
        return self.region.tables

    # -- calls ---------------------------------------------------------------------------------------

    def call(self, operation: str, params: Params, *, now: float, caller: str = "us") -> Answer:
        """Answer one call. ``caller`` is whoever the history should name; faults spare ``console``.

        Raises:
            Ec2Error: refused, with EC2's error code.
            AnswerLost: by a fault; the call may have taken effect.
        """
        self.settle(now)
        place = self.region.caller
        place.operation, place.name = operation, caller
        try:
            answer = self._answer(operation, params, caller)
        except Ec2Error as error:
            self.history.append(Call(now, caller, operation, params, error.code))
            raise
        self.history.append(Call(now, caller, operation, params, None))
        if self.region.draw("lose-answer") is not None:
            raise AnswerLost(operation, took_effect=True)
        if (fault := self.region.draw("refuse-after")) is not None:
            raise Ec2Error(fault.code, f"{fault.code} (by order of a fault)", fault.http_status or 500)
        return answer

    def _answer(self, operation: str, params: Params, caller: str) -> Answer:
        region = self.region
        known = OPERATIONS.get(operation)
        if known is None:
            raise Ec2Error("InvalidAction", f"The action {operation} is not imitated.")
        if region.draw("lose-request") is not None:
            raise AnswerLost(operation, took_effect=False)
        if (fault := region.draw("refuse")) is not None:
            status = fault.http_status or _status(fault.code)
            raise Ec2Error(fault.code, f"{fault.code} (by order of a fault)", status)
        is_free = self.throttle is None or caller == CONSOLE
        if (
            not is_free
            and self.throttle is not None
            and not self.throttle.allows(operation, params, region.now)
        ):
            raise Ec2Error("RequestLimitExceeded", "Request limit exceeded.", 503)
        shapes.check(operation, params)
        if odd := set(params) - known.understands:
            raise Ec2Error("UnsupportedOperation", f"{operation}: {', '.join(sorted(odd))} is not imitated.")
        if params.get("DryRun"):
            raise Ec2Error("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
        if not operation.startswith(("Describe", "Get")):
            region.remember()
        return known.answer(region, params)

    # -- time ----------------------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        """Let everything happen that is due by now, in its order and at its own time."""
        region = self.region
        place = region.caller
        place.operation, place.name = "", ""
        while (event := region.next_due(now)) is not None:
            place.now = max(place.now, event.due)
            region.remember()
            _HAPPENINGS[event.kind](region, event)
        place.now = max(place.now, now)

    def next_event(self) -> float | None:
        """When something will happen by itself; None: never."""
        return self.region.agenda[0].due if self.region.agenda else None

    # -- what happens to machines, not by API --------------------------------------------------------

    def work(self, instance_id: str, *, now: float, device: str | None = None, is_synced: bool = True) -> int:
        """A box writes to its volumes (or to one). Returns the number of the write.

        What is not synced is on the medium only after the next write or an orderly shutdown.

        Raises:
            ValueError: it does not run, or its system did not come up.
        """
        self.settle(now)
        instance = self.tables.instances.get(instance_id)
        if instance is None or instance.state is not InstanceState.RUNNING or not instance.boots:
            raise ValueError(f"{instance_id} does not run")
        number = self.region.next_content()
        for volume in self.tables.volumes_of(instance_id):
            if device is not None and (volume.attachment is None or volume.attachment.device != device):
                continue
            if is_synced:
                written = replace(volume, content=number, unsynced=None)
            else:
                written = replace(volume, content=volume.unsynced or volume.content, unsynced=number)
            self.region.put(written)
        return number

    def power_off(self, instance_id: str, *, now: float) -> None:
        """``poweroff`` on the box itself: it stops, or is terminated, as its shutdown behaviour says."""
        self._to_running(instance_id, now)
        instance = self.tables.instances[instance_id]
        if instance.shutdown_behavior == "terminate":
            power.terminate(self.region, instance, by_user=False)
        else:
            power.stop(self.region, instance, force=False, by_user=False)

    def interrupt_spot(self, instance_id: str, *, now: float) -> None:
        """EC2 wants a spot instance back (the two minutes of notice are over).

        Raises:
            ValueError: it is no spot instance, or does not run.
        """
        self._to_running(instance_id, now)
        instance = self.tables.instances[instance_id]
        if instance.spot is None:
            raise ValueError(f"{instance_id} is no spot instance")
        power.interrupt(self.region, instance)

    def restore_spot(self, instance_id: str, *, now: float) -> None:
        """EC2 starts a persistent spot instance again that it had stopped.

        Raises:
            ValueError: it was not interrupted, or has not stopped yet.
        """
        self.settle(now)
        instance = self.tables.instances.get(instance_id)
        if instance is None or not instance.is_interrupted or instance.state is not InstanceState.STOPPED:
            raise ValueError(f"{instance_id} is not stopped by an interruption")
        self.region.remember()
        power.restore(self.region, instance)

    def lose_host(self, instance_id: str, *, now: float) -> None:
        """The hardware dies: the instance is stopped without an orderly shutdown (a failed recovery)."""
        self._to_running(instance_id, now)
        power.stop(self.region, self.tables.instances[instance_id], force=True, by_user=False)

    def fork(self) -> Ec2Model:
        """An independent copy in the same state, cheap: for trying what happens if."""
        copy = object.__new__(Ec2Model)
        copy.region = self.region.fork()
        copy.region.caller.now = self.region.now
        copy.history = deque(self.history, self.history.maxlen)
        copy.throttle = None if self.throttle is None else self.throttle.fork()
        return copy

    def _to_running(self, instance_id: str, now: float) -> None:
        self.settle(now)
        self.region.remember()
        instance = self.tables.instances.get(instance_id)
        if instance is None or instance.state is not InstanceState.RUNNING:
            raise ValueError(f"{instance_id} does not run")


def _status(code: str) -> int:
    """The HTTP status that goes with an error code."""
    if code in ("RequestLimitExceeded", "Unavailable", "ServiceUnavailable"):
        return 503
    if code in ("InternalError", "InternalFailure", "InsufficientInstanceCapacity"):
        return 500
    return 403 if code in ("UnauthorizedOperation", "AuthFailure", "RequestExpired") else 400
