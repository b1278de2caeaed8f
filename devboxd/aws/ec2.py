"""EC2's calls of the lifecycle: one function for each step of ``model.step`` that changes something there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, assert_never

from devboxd.aws.calls import Calls
from devboxd.aws.look import Together, found, look
from devboxd.model.project import Disk, Run
from devboxd.model.seen import Hint, Observed
from devboxd.model.step import (
    Attach,
    ChangeType,
    DropImage,
    DropSnapshot,
    DropVolume,
    Ec2Call,
    GrowVolume,
    KeepVolumes,
    Launch,
    MakeImage,
    MakeImageOf,
    MakeSnapshot,
    MakeVolume,
    Protect,
    Reboot,
    Release,
    Start,
    Stop,
    Tag,
    TakeOff,
)

HOPS: Final = 2  # of an answer of the metadata service: a container on the box is one hop away
_WITH_IOPS: Final = ("gp3", "io1", "io2")  # the types whose IOPS may be given; others only report theirs


@dataclass(frozen=True, slots=True)
class Ec2Api:
    """EC2 of one account and region, as ``control`` needs it."""

    account: Calls
    together: Together = field(default=asyncio.gather)

    async def look(self, wanted: Mapping[str, Hint]) -> dict[str, Observed]:
        """Everything of these projects, by uid. Errors are those of ``Calls``."""
        return await look(self.account, wanted, together=self.together)

    async def found(self, owner: str) -> dict[str, Observed]:
        """Everything of one owner, by uid. Errors are those of ``Calls``."""
        return await found(self.account, owner, together=self.together)

    async def act(self, call: Ec2Call) -> None:
        """Make one call of the table. Errors are those of ``Calls``."""
        for operation, parameters in self.requests(call):
            target = parameters.get("InstanceId") or next(iter(parameters.get("InstanceIds", ())), None)
            await self.account.call("ec2", operation, target=target, **parameters)

    def requests(self, call: Ec2Call) -> list[tuple[str, dict[str, Any]]]:
        """What this is at EC2: methods of its client and their parameters, in order."""
        match call:
            case Launch():
                return [("run_instances", launch(call))]
            case Start(instance=instance):
                return [("start_instances", {"InstanceIds": [instance]})]
            case Stop(instance=instance, force=force):
                return [("stop_instances", {"InstanceIds": [instance], "Force": force})]
            case Reboot(instance=instance):
                return [("reboot_instances", {"InstanceIds": [instance]})]
            case Release(instance=instance, spot_request=None):
                return [
                    _attribute(instance, DisableApiTermination={"Value": False}),
                    ("terminate_instances", {"InstanceIds": [instance]}),
                ]
            case Release(instance=instance, spot_request=request):
                return [
                    ("cancel_spot_instance_requests", {"SpotInstanceRequestIds": [request]}),
                    ("terminate_instances", {"InstanceIds": [instance]}),
                ]
            case Protect(instance=instance):
                return [
                    _attribute(instance, InstanceInitiatedShutdownBehavior={"Value": "stop"}),
                    _attribute(instance, DisableApiTermination={"Value": True}),
                ]
            case KeepVolumes(instance=instance, devices=devices):
                keep = [{"DeviceName": name, "Ebs": {"DeleteOnTermination": False}} for name in devices]
                return [_attribute(instance, BlockDeviceMappings=keep)]
            case ChangeType(instance=instance, type=wanted):
                return [_attribute(instance, InstanceType={"Value": wanted})]
            case Attach(volume=volume, instance=instance, device=device):
                return [("attach_volume", {"VolumeId": volume, "InstanceId": instance, "Device": device})]
            case TakeOff(volume=volume, instance=instance, force=force):
                forced = {"Force": True} if force else {}
                return [("detach_volume", {"VolumeId": volume, "InstanceId": instance, **forced})]
            case _:
                return [_of_disks(call)]


DiskCall = (
    GrowVolume
    | MakeImage
    | MakeSnapshot
    | MakeImageOf
    | MakeVolume
    | Tag
    | DropVolume
    | DropImage
    | DropSnapshot
)


def _of_disks(call: DiskCall) -> tuple[str, dict[str, Any]]:
    match call:
        case GrowVolume(volume=volume, size_gib=size):
            return "modify_volume", {"VolumeId": volume, "Size": size}
        case MakeImage():
            return "create_image", image(call)
        case MakeSnapshot(volume=volume, device=device):
            tagged = _tagged(call.tags, "snapshot")
            return "create_snapshot", {
                "VolumeId": volume,
                "Description": f"devbox: {device}",
                "TagSpecifications": tagged,
            }
        case MakeVolume():
            return "create_volume", copied(call)
        case MakeImageOf():
            return "register_image", image_of(call)
        case Tag(resources=resources):
            return "create_tags", {"Resources": list(resources), "Tags": _pairs(call.tags)}
        case DropVolume(volume=volume):
            return "delete_volume", {"VolumeId": volume}
        case DropImage(image=name):
            return "deregister_image", {"ImageId": name}
        case DropSnapshot(snapshot=snapshot):
            return "delete_snapshot", {"SnapshotId": snapshot}
        case _:
            assert_never(call)


def _attribute(instance: str, **attribute: Any) -> tuple[str, dict[str, Any]]:
    """ModifyInstanceAttribute takes one attribute a call."""
    return "modify_instance_attribute", {"InstanceId": instance, **attribute}


def launch(call: Launch) -> dict[str, Any]:
    """RunInstances: all of it out of the row, so that a repeat is the same request to the letter."""
    run, place = call.run, call.place
    request: dict[str, Any] = {
        "ImageId": run.image,
        "InstanceType": place.type,
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": call.token,
        "InstanceInitiatedShutdownBehavior": "stop",
        "MetadataOptions": {
            "HttpTokens": "required",
            "HttpEndpoint": "enabled",
            "HttpPutResponseHopLimit": HOPS,
        },
        "BlockDeviceMappings": [
            {
                "DeviceName": disk.device,
                "Ebs": {
                    **_speed(disk),
                    **_secret(disk),
                    **_carried(run, disk),
                    "DeleteOnTermination": False,
                },
            }
            for disk in run.disks
        ],
        "TagSpecifications": _tagged(call.tags, "instance", "volume", "network-interface"),
    }
    if place.subnet is not None:
        request["SubnetId"] = place.subnet
    elif place.zone is not None:
        request["Placement"] = {"AvailabilityZone": place.zone}
    if run.groups:
        request["SecurityGroupIds"] = list(run.groups)
    if run.profile is not None:
        request["IamInstanceProfile"] = {"Arn" if run.profile.startswith("arn:") else "Name": run.profile}
    if run.user_data is not None:
        request["UserData"] = run.user_data  # botocore encodes it
    if run.spot:
        # Persistent, or it could not be stopped, and an interruption would end it.
        request["InstanceMarketOptions"] = {
            "MarketType": "spot",
            "SpotOptions": {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"},
        }
        request["TagSpecifications"] += _tagged(call.tags, "spot-instances-request")
    else:
        request["DisableApiTermination"] = True  # EC2 refuses it for spot
    return request


def copied(call: MakeVolume) -> dict[str, Any]:
    """CreateVolume, with a token: a repeat is answered with what the first one made."""
    return {
        "AvailabilityZone": call.zone,
        "Size": call.disk.size_gib,
        "VolumeType": call.disk.type,
        "SnapshotId": call.disk.source,
        **_secret(call.disk),
        "ClientToken": call.token,
        "TagSpecifications": _tagged(call.tags, "volume"),
    }


def image(call: MakeImage) -> dict[str, Any]:
    """CreateImage. NoReboot always: a call that comes late may meet a box that runs again."""
    return {
        "InstanceId": call.instance,
        "Name": call.name,
        "NoReboot": True,
        "TagSpecifications": _tagged(call.tags, "image", "snapshot"),
    }


def image_of(call: MakeImageOf) -> dict[str, Any]:
    """RegisterImage: its defaults are traps (i386, paravirtual, no ENA), so everything is said."""
    boot = call.boot
    request: dict[str, Any] = {
        "Name": call.name,
        "Architecture": boot.architecture,
        "RootDeviceName": boot.root_device,
        "VirtualizationType": boot.virtualization or "hvm",
        "EnaSupport": bool(boot.ena),
        "SriovNetSupport": boot.sriov,
        "BootMode": boot.boot_mode,
        "TpmSupport": boot.tpm,
        "ImdsSupport": "v2.0",  # as every box of ours is launched
        "BlockDeviceMappings": [
            {
                "DeviceName": disk.device,
                "Ebs": {**_speed(disk), "SnapshotId": disk.snapshot, "DeleteOnTermination": False},
            }
            for disk in call.disks
        ],
        "TagSpecifications": _tagged(call.tags, "image"),
    }
    return {name: value for name, value in request.items() if value is not None}


def _speed(disk: Disk) -> dict[str, Any]:
    """Size, type and speed of a volume, as far as they may be given for its type."""
    found: dict[str, Any] = {"VolumeSize": disk.size_gib, "VolumeType": disk.type}
    if disk.type in _WITH_IOPS:
        found["Iops"] = disk.iops
    if disk.type == "gp3":
        found["Throughput"] = disk.throughput
    return {name: value for name, value in found.items() if value}


def _carried(run: Run, disk: Disk) -> dict[str, Any]:
    """The snapshot of a volume that the image has not: what the image has, EC2 takes from there."""
    return {"SnapshotId": disk.source} if disk.device in run.carried else {}


def _secret(disk: Disk) -> dict[str, Any]:
    """Encrypted always; the key where it is known."""
    return {"Encrypted": True, **({"KmsKeyId": disk.kms} if disk.kms else {})}


def _tagged(found: Mapping[str, str], *kinds: str) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": _pairs(found)} for kind in kinds]


def _pairs(found: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in found.items()]
