"""AMIs: made of an instance, registered from snapshots, and given up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from devboxd.simulator.ec2 import power
from devboxd.simulator.ec2.errors import Ec2Error, combination, invalid, missing, wrong_state
from devboxd.simulator.ec2.records import BootAttributes, Device, Image, Instance, InstanceState, Volume
from devboxd.simulator.ec2.region import Event, Region
from devboxd.simulator.ec2.snapshots import delete_unused, take
from devboxd.simulator.ec2.tags import from_specifications

_NAME: Final = re.compile(r"[A-Za-z0-9()\[\]./'@_\- ]{3,128}")
_IMAGEABLE: Final = (InstanceState.RUNNING, InstanceState.STOPPING, InstanceState.STOPPED)
_APART: Final = 15.0  # seconds since the last snapshot of a volume; sooner, and the image fails
REGISTER: Final = (
    "Architecture BillingProducts BlockDeviceMappings BootMode Description EnaSupport ImdsSupport Name RootDeviceName "
    "SriovNetSupport TagSpecifications TpmSupport VirtualizationType"
)


def create_image(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """CreateImage: snapshots of all volumes now, an image when they are complete.

    A running instance is rebooted for it unless NoReboot is given; then the content is what a power cut
    would have left.
    """
    instance = region.instance(params["InstanceId"])
    name = _free_name(region, params["Name"])
    if instance.state not in _IMAGEABLE:
        raise wrong_state(
            f"The instance '{instance.id}' is not in a state from which an image can be created.",
            of_instance=True,
        )
    tags = from_specifications(params, ("image", "snapshot"))
    flags = _flags(region, instance, params)
    too_soon = any(_was_copied_lately(region, volume) for volume in region.tables.volumes_of(instance.id))
    if instance.state is InstanceState.RUNNING and not params.get("NoReboot"):
        power.reboot(region, instance, spoils=False)
    image_id = region.new_id("ami")
    devices, due = [], region.now
    for volume in region.tables.volumes_of(instance.id):
        assert volume.attachment is not None
        device = volume.attachment.device
        description = f"Created by CreateImage({instance.id}) for {image_id}"
        snapshot = take(region, volume, description=description, tags=tags.get("snapshot", {}))
        due = max(due, snapshot.due)
        flag = flags.get(device, volume.attachment.delete_on_termination)
        devices.append(_device_of(volume, device, snapshot.id, delete=flag))
    image = Image(
        id=image_id,
        name=name,
        owner=region.account,
        boot=_boot_of(instance),
        mappings=tuple(devices),
        created=region.now,
        state="pending",
        description=params.get("Description", ""),
        tags=tags.get("image", {}),
        source_instance=instance.id,
    )
    code = "Server.InternalError" if too_soon else None
    if (fault := region.draw("image-fails", instance.id)) is not None:
        code = fault.code
    if code is not None:
        image = replace(image, reason=(code, f"{code}: the image could not be created"))
    region.put(image)
    region.plan(due - region.now + region.wait("image"), "image", image.id)
    return {"ImageId": image.id}


def advance(region: Region, event: Event) -> None:
    """An image is complete, or cannot be any more; or a deregistered one stops showing."""
    image = region.tables.images.get(event.id)
    if image is None:
        return
    if image.state == "deregistered":
        region.drop(image.id)
    elif image.state == "pending":
        copies = [region.tables.snapshots.get(device.snapshot or "") for device in image.mappings]
        if image.reason is None and any(copy is None or copy.state != "completed" for copy in copies):
            code = "Client.InvalidSnapshot.NotFound" if None in copies else "Server.InternalError"
            image = replace(image, reason=(code, f"{code}: a snapshot of the image is not there"))
        if image.reason is not None:
            region.put(replace(image, state="failed"))
            return
        gap = region.draw("mapping-gap", image.id)
        region.put(
            replace(image, state="available", mappings_shown=region.now + (gap.seconds if gap else 0.0))
        )


def register_image(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """RegisterImage from snapshots. What is not restated has a default that does not boot on today's types."""
    name = _free_name(region, params.get("Name") or "")
    root = params.get("RootDeviceName")
    if root is None:
        raise missing("rootDeviceName")
    devices = [_registered_device(region, one) for one in params.get("BlockDeviceMappings", [])]
    if len({device.device for device in devices}) != len(devices):
        raise Ec2Error("InvalidBlockDeviceMapping", "A device name is used more than once.")
    if not any(device.device == root and device.snapshot is not None for device in devices):
        raise Ec2Error("InvalidBlockDeviceMapping", f"The root device {root} has no snapshot.")
    boot = _registered_boot(params, root)
    tags = from_specifications(params, ("image",)).get("image", {})
    image = Image(
        id=region.new_id("ami"),
        name=name,
        owner=region.account,
        boot=boot,
        mappings=tuple(devices),
        created=region.now,
        state="pending",
        description=params.get("Description", ""),
        tags=tags,
    )
    region.put(image)
    region.plan(region.wait("registering"), "image", image.id)
    return {"ImageId": image.id}


def deregister_image(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """DeregisterImage: the name is free, the snapshots stay unless asked for, it shows a little longer."""
    image = region.image(params["ImageId"])
    if image.owner != region.account:
        raise Ec2Error("AuthFailure", f"Not authorized for image:{image.id}")
    if image.state == "deregistered":
        raise Ec2Error("InvalidAMIID.Unavailable", f"The image ID '{image.id}' is no longer available")
    region.put(replace(image, state="deregistered", gone=region.now))
    region.plan(region.wait("deregistered_shown"), "image", image.id)
    answer: dict[str, Any] = {"Return": True}
    if params.get("DeleteAssociatedSnapshots"):
        answer["DeleteSnapshotResults"] = [
            {"SnapshotId": device.snapshot, "ReturnCode": delete_unused(region, device.snapshot)}
            for device in image.mappings
            if device.snapshot is not None
        ]
    return answer


def _free_name(region: Region, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise Ec2Error(
            "InvalidAMIName.Malformed",
            "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, '(', ')', '.', "
            "'-', '/', '[', ']', '@', '\\'', ' ' and '_'",
        )
    for other in region.tables.images.values():
        if other.name == name and other.owner == region.account and _holds_its_name(region, other):
            raise Ec2Error("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {other.id}")
    return name


def _holds_its_name(region: Region, image: Image) -> bool:
    if image.state in ("pending", "available"):
        return True
    if image.gone is None or not region.faults.any("name-lingers"):
        return False
    fault = region.draw("name-lingers", image.id)
    return fault is not None and region.now < image.gone + fault.seconds


def _flags(region: Region, instance: Instance, params: Mapping[str, Any]) -> dict[str, bool]:
    """DeleteOnTermination by device: the one thing that CreateImage lets us change."""
    known = {v.attachment.device for v in region.tables.volumes_of(instance.id) if v.attachment is not None}
    flags = {}
    for one in params.get("BlockDeviceMappings", []):
        ebs = one.get("Ebs", {})
        if one.get("DeviceName") not in known or set(ebs) - {"DeleteOnTermination"} or "NoDevice" in one:
            raise Ec2Error(
                "InvalidBlockDeviceMapping",
                "Only DeleteOnTermination of attached volumes can be changed in the block device mapping.",
            )
        flags[one["DeviceName"]] = ebs["DeleteOnTermination"]
    return flags


def _was_copied_lately(region: Region, volume: Volume) -> bool:
    """Seen: CreateSnapshot and at once CreateImage gives an image that fails (boto/boto3#1698)."""
    return any(
        one.volume == volume.id and region.now < one.started + _APART
        for one in region.tables.snapshots.values()
    )


def _boot_of(instance: Instance) -> BootAttributes:
    """An image takes over everything from its instance; required tokens become the image's default."""
    strict = instance.metadata.get("HttpTokens") == "required"
    return replace(instance.boot, imds=instance.boot.imds or ("v2.0" if strict else None))


def _device_of(volume: Volume, device: str, snapshot: str, *, delete: bool) -> Device:
    settable = volume.type in ("gp3", "io1", "io2")
    return Device(
        device=device,
        snapshot=snapshot,
        size=volume.size,
        type=volume.type,
        delete_on_termination=delete,
        iops=volume.iops if settable else None,
        throughput=volume.throughput,
        encrypted=volume.encrypted,
    )


def _registered_device(region: Region, one: Mapping[str, Any]) -> Device:
    ebs = one.get("Ebs", {})
    snapshot_id = ebs.get("SnapshotId")
    size = ebs.get("VolumeSize")
    encrypted = bool(ebs.get("Encrypted"))
    if snapshot_id is not None:
        snapshot = region.snapshot(snapshot_id)
        if snapshot.state != "completed":
            raise wrong_state(f"Snapshot '{snapshot_id}' is not 'completed'.")
        if "Encrypted" in ebs:
            raise Ec2Error(
                "InvalidBlockDeviceMapping",
                f"the encrypted flag cannot be specified since device {one.get('DeviceName')} has a snapshot "
                "specified.",
            )
        if size is not None and size < snapshot.size:
            raise Ec2Error(
                "InvalidBlockDeviceMapping",
                f"Volume of size {size}GB is smaller than snapshot '{snapshot_id}', expect size>= {snapshot.size}GB",
            )
        size, encrypted = size or snapshot.size, snapshot.encrypted
    return Device(
        device=one.get("DeviceName", ""),
        snapshot=snapshot_id,
        size=size,
        type=ebs.get("VolumeType", "gp2"),
        delete_on_termination=ebs.get("DeleteOnTermination", True),
        iops=ebs.get("Iops"),
        throughput=ebs.get("Throughput"),
        encrypted=encrypted,
    )


def _registered_boot(params: Mapping[str, Any], root: str) -> BootAttributes:
    architecture = params.get("Architecture", "i386")
    mode = params.get("BootMode")
    if mode == "legacy-bios" and architecture == "arm64":
        raise combination("The boot mode legacy-bios is not supported for arm64.")
    if params.get("TpmSupport") is not None and mode != "uefi":
        raise combination("TpmSupport v2.0 requires the boot mode uefi.")
    if params.get("BillingProducts"):
        raise invalid("Your account may not use these billing products.")
    return BootAttributes(
        architecture=architecture,
        boot_mode=mode,
        ena=params.get("EnaSupport", False),
        tpm=params.get("TpmSupport"),
        imds=params.get("ImdsSupport"),
        # Billing codes are not restored from snapshots: what was Red Hat is plain Linux now.
        platform_details="Linux/UNIX",
        usage_operation="RunInstances",
        virtualization=params.get("VirtualizationType", "paravirtual"),
        root_device=root,
        sriov=params.get("SriovNetSupport"),
    )
