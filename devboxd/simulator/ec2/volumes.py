"""EBS volumes: their life, and changes of size and speed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from devboxd.simulator.ec2 import render
from devboxd.simulator.ec2.effects import VolumeGone, VolumeMade, VolumeShown
from devboxd.simulator.ec2.errors import Ec2Error, combination, invalid, missing, not_found, wrong_state
from devboxd.simulator.ec2.records import Attachment, InstanceState, Modification, Snapshot, Tags, Volume
from devboxd.simulator.ec2.region import Event, Region, VolumeToken
from devboxd.simulator.ec2.tags import from_specifications
from devboxd.simulator.ec2.times import moment

# Type -> (least GiB, most GiB, least IOPS, most IOPS); None: not settable. API reference, CreateVolume.
_LIMITS: Final[dict[str, tuple[int, int, int | None, int | None]]] = {
    "gp3": (1, 65536, 3000, 80000),
    "gp2": (1, 16384, None, None),
    "io1": (4, 16384, 100, 64000),
    "io2": (4, 65536, 100, 256000),
    "st1": (125, 16384, None, None),
    "sc1": (125, 16384, None, None),
    "standard": (1, 1024, None, None),
}
_THROUGHPUT: Final = (125, 2000)  # MiB/s, gp3 only
_MODIFY_AGAIN: Final = 6 * 3600.0
_DEFAULT_KEY: Final = "alias/aws/ebs"


def settings(
    type_: str, size: int, iops: int | None, throughput: int | None
) -> tuple[int | None, int | None]:
    """Check a volume's figures; returns IOPS and throughput as they will be shown.

    Raises:
        Ec2Error: out of range, or not for this type.
    """
    least, most, least_iops, most_iops = _LIMITS[type_]
    if not least <= size <= most:
        raise invalid(f"Volume of {size}GiB is too {'small' if size < least else 'large'} for volume type {type_}; "
                      f"expecting {least}GiB to {most}GiB.")  # fmt: skip
    if throughput is not None and type_ != "gp3":
        raise combination(f"The parameter throughput is not supported for {type_} volumes.")
    if iops is not None and least_iops is None:
        raise combination(f"The parameter iops is not supported for {type_} volumes.")
    if type_ in ("io1", "io2") and iops is None:
        raise Ec2Error("MissingParameter", f"The parameter iops must be specified for {type_} volumes.")
    if iops is not None and least_iops and most_iops and not least_iops <= iops <= most_iops:
        raise invalid(f"Volume iops of {iops} is out of range; expecting {least_iops} to {most_iops}.")
    if throughput is not None and not _THROUGHPUT[0] <= throughput <= _THROUGHPUT[1]:
        raise invalid(f"Throughput of {throughput} MiB/s is out of range; expecting 125 to 2000.")
    if type_ == "gp3":
        return iops or 3000, throughput or 125
    if type_ == "gp2":
        return min(16000, max(100, 3 * size)), None
    return iops, None


def key_arn(region: Region, key: str | None) -> str:
    """The key ARN that a name, id or ARN stands for; None: the account's default for EBS."""
    key = key or _DEFAULT_KEY
    if key.startswith("arn:") and ":key/" in key:
        return key
    name = key.rpartition(":")[2]
    # An alias shows as the key behind it; which one that is follows from its name.
    key_id = UUID(bytes=sha256(name.encode()).digest()[:16]) if name.startswith("alias/") else name
    return f"arn:aws:kms:{region.name}:{region.account}:key/{key_id}"


def prepare(
    region: Region,
    *,
    zone: str,
    size: int | None,
    type_: str | None,
    iops: int | None,
    throughput: int | None,
    encrypted: bool | None,
    kms_key: str | None,
    snapshot_id: str | None,
    tags: Tags,
) -> Volume:
    """Work out a volume, empty or from a snapshot; nothing is made yet.

    Raises:
        Ec2Error: the snapshot cannot be used, or a figure is wrong.
    """
    if kms_key is not None and not encrypted:
        raise Ec2Error(
            "InvalidParameterDependency",
            "The parameter KmsKeyId requires the parameter Encrypted to be set.",
        )
    source = None if snapshot_id is None else _completed(region, snapshot_id, size, encrypted)
    if source is not None:
        size = size or source.size
        if source.encrypted:
            encrypted, kms_key = True, kms_key or source.kms_key
    if size is None:
        raise missing("size/snapshot")
    type_ = type_ or "gp2"
    shown_iops, shown_throughput = settings(type_, size, iops, throughput)
    return Volume(
        id=region.new_id("vol"),
        zone=zone,
        size=size,
        type=type_,
        iops=shown_iops,
        throughput=shown_throughput,
        encrypted=bool(encrypted),
        kms_key=key_arn(region, kms_key) if encrypted else None,
        snapshot=snapshot_id,
        created=region.now,
        state="creating",
        tags=tags,
        system=source.system if source else None,
        content=source.content if source else 0,
    )


def _completed(region: Region, snapshot_id: str, size: int | None, encrypted: bool | None) -> Snapshot:
    """The snapshot that a volume is to be made from, if one of this size and encryption can be."""
    snapshot = region.snapshot(snapshot_id)
    if snapshot.state != "completed":
        raise wrong_state(f"Snapshot '{snapshot_id}' is not 'completed'.")
    if encrypted is False and snapshot.encrypted:
        raise combination("Encrypted flag cannot be false when creating a volume from an encrypted snapshot.")
    if size is not None and size < snapshot.size:
        raise Ec2Error(
            "InvalidBlockDeviceMapping",
            f"Volume of size {size}GB is smaller than snapshot '{snapshot_id}', expect size>= {snapshot.size}GB",
        )
    return snapshot


def bring(region: Region, volume: Volume) -> None:
    """Make a volume that was prepared."""
    region.put(volume)
    region.emit(VolumeMade(volume.id, volume.snapshot))


def begin_delete(region: Region, volume: Volume) -> None:
    """It goes, and shows as ``deleting`` until it is gone; not before its snapshots are complete."""
    region.put(replace(volume, state="deleting"))
    pending = [
        one.due - region.now
        for one in region.tables.snapshots.values()
        if one.volume == volume.id and one.state == "pending"
    ]
    region.plan(max(region.wait("volume_deleted"), *pending, 0.0), "volume", volume.id)


def advance(region: Region, event: Event) -> None:
    """A passing state of a volume ends."""
    volume = region.tables.volumes.get(event.id)
    if volume is None:
        return
    if volume.state == "deleting":
        region.drop(volume.id)
        region.emit(VolumeGone(volume.id))
    elif volume.state == "creating":
        region.put(replace(volume, state="available"))
    elif (place := volume.attachment) is not None and place.state == "attaching":
        region.put(replace(volume, attachment=replace(place, state="attached")))
        region.emit(VolumeShown(place.instance))
    elif place is not None and place.state in ("detaching", "busy"):
        if _is_held(region, volume):
            region.put(replace(volume, attachment=replace(place, state="busy")))
            region.plan(region.wait("detaching"), "volume", volume.id)  # the system has it mounted
            return
        region.put(replace(volume, attachment=None, state="available"))
        region.emit(VolumeShown(place.instance))


def create_volume(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """CreateVolume. A token stands for what it has made, also when that is gone: nobody knows how long."""
    token, request = params.get("ClientToken"), _canonical(params)
    if token and (known := region.volume_tokens.get(token)) is not None:
        if known.request != request:
            raise Ec2Error(
                "IdempotentParameterMismatch",
                "The client token you have provided is associated with a resource that is already created with "
                "different parameters.",
            )
        if (made := region.tables.volumes.get(known.volume)) is None:
            raise not_found(known.volume)
        return render.volume(region, made)
    zone = params.get("AvailabilityZone")
    if zone is None:
        raise missing("AvailabilityZone")
    if zone not in [one.name for one in region.networks.zones]:
        raise Ec2Error("InvalidZone.NotFound", f"The zone '{zone}' does not exist.")
    volume = prepare(
        region,
        zone=zone,
        size=params.get("Size"),
        type_=params.get("VolumeType"),
        iops=params.get("Iops"),
        throughput=params.get("Throughput"),
        encrypted=params.get("Encrypted"),
        kms_key=params.get("KmsKeyId"),
        snapshot_id=params.get("SnapshotId") or None,
        tags=from_specifications(params, ("volume",)).get("volume", {}),
    )
    bring(region, volume)
    if token:
        region.volume_tokens[token] = VolumeToken(request, volume.id)
    region.plan(region.wait("volume_created"), "volume", volume.id)
    return render.volume(region, volume)


def attach_volume(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """AttachVolume: to an instance of its zone that runs or is stopped, at a device that nothing has."""
    volume, instance = region.volume(params["VolumeId"]), region.instance(params["InstanceId"])
    device = params["Device"]
    if volume.attachment is not None:
        raise Ec2Error("VolumeInUse", f"{volume.id} is already attached to an instance")
    if volume.state != "available":
        raise wrong_state(f"Volume '{volume.id}' is not 'available'.")
    if instance.state not in (InstanceState.RUNNING, InstanceState.STOPPED):
        raise wrong_state(f"Instance '{instance.id}' is not 'running'.", of_instance=True)
    if instance.zone != volume.zone:
        raise Ec2Error(
            "InvalidVolume.ZoneMismatch", "The volume is not in the same availability zone as the instance"
        )
    taken = {
        one.attachment.device for one in region.tables.volumes_of(instance.id) if one.attachment is not None
    }
    if device in taken:
        raise invalid(f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use")
    if not device.startswith(("/dev/sd", "/dev/xvd")):
        raise invalid(
            f"Value ({device}) for parameter device is invalid. {device} is not a valid EBS device name."
        )
    place = Attachment(instance.id, device, region.now, delete_on_termination=False, state="attaching")
    attached = replace(volume, state="in-use", attachment=place)
    region.put(attached)
    region.plan(region.wait("attaching"), "volume", volume.id)
    return _attachment(attached, place)


def detach_volume(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """DetachVolume: at once from a machine that does not run; else when its system lets go of it."""
    volume = region.volume(params["VolumeId"])
    place = volume.attachment
    wanted = params.get("InstanceId")
    if place is None or wanted not in (None, place.instance):
        if place is None:
            raise wrong_state(f"Volume '{volume.id}' is in the '{volume.state}' state.")
        raise Ec2Error(
            "InvalidAttachment.NotFound", f"The volume '{volume.id}' is not attached to instance '{wanted}'."
        )
    instance = region.instance(place.instance)
    is_root = place.device == instance.boot.root_device
    if is_root and instance.state is not InstanceState.STOPPED:
        raise Ec2Error(
            "OperationNotPermitted",
            f"Unable to detach root volume '{volume.id}' from instance '{instance.id}'",
        )
    going = replace(place, state="detaching")
    region.put(replace(volume, attachment=going))
    if instance.state is InstanceState.STOPPED or params.get("Force"):
        region.held.discard(volume.id)
    region.plan(region.wait("detaching"), "volume", volume.id)
    return _attachment(volume, going)


def _is_held(region: Region, volume: Volume) -> bool:
    """Whether a system that runs has it mounted."""
    place = volume.attachment
    instance = region.tables.instances.get(place.instance) if place is not None else None
    return volume.id in region.held and instance is not None and instance.state is InstanceState.RUNNING


def _attachment(volume: Volume, place: Attachment) -> dict[str, Any]:
    return {
        "VolumeId": volume.id,
        "InstanceId": place.instance,
        "Device": place.device,
        "State": place.state,
        "AttachTime": moment(place.since),
        "DeleteOnTermination": place.delete_on_termination,
    }


def _canonical(params: Mapping[str, Any]) -> str:
    """The request as it counts for its token."""
    said = {key: value for key, value in params.items() if key not in ("ClientToken", "DryRun")}
    return json.dumps(said, sort_keys=True, default=str)


def delete_volume(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """DeleteVolume: what is attached stays."""
    volume = region.volume(params["VolumeId"])
    if volume.attachment is not None:
        raise Ec2Error(
            "VolumeInUse", f"Volume {volume.id} is currently attached to {volume.attachment.instance}"
        )
    if volume.state == "deleting":
        return {}
    if volume.state not in ("available", "error"):
        raise wrong_state(f"The volume '{volume.id}' is in state '{volume.state}' and cannot be deleted.")
    begin_delete(region, volume)
    return {}


def modify_volume(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """ModifyVolume: grow it, or change its type and speed. It cannot shrink."""
    volume = region.volume(params["VolumeId"])
    if volume.state not in ("available", "in-use"):
        raise wrong_state(f"Volume '{volume.id}' is in state '{volume.state}'.")
    last = volume.modification
    if last is not None and last.state != "completed":
        raise Ec2Error(
            "IncorrectModificationState",
            f"Cannot modify volume {volume.id} in modification state {last.state.upper()}",
        )
    if last is not None and region.now < last.started + _MODIFY_AGAIN:
        raise Ec2Error(
            "VolumeModificationRateExceeded",
            "You've reached the maximum modification rate per volume limit. Wait at least 6 hours between "
            "modifications per EBS volume.",
        )
    size, type_ = params.get("Size", volume.size), params.get("VolumeType", volume.type)
    if size < volume.size:
        raise invalid(f"New size cannot be smaller than existing size ({volume.size}GiB).")
    kept = type_ == volume.type
    settable = type_ in ("gp3", "io1", "io2")
    iops, throughput = settings(
        type_,
        size,
        params.get("Iops", volume.iops if kept and settable else None),
        params.get("Throughput", volume.throughput if kept and type_ == "gp3" else None),
    )
    before = {
        "Size": volume.size,
        "VolumeType": volume.type,
        "Iops": volume.iops,
        "Throughput": volume.throughput,
    }
    after = {"Size": size, "VolumeType": type_, "Iops": iops, "Throughput": throughput}
    modification = Modification(region.now, "modifying", before, after)
    region.put(replace(volume, modification=modification))
    region.plan(region.wait("modifying"), "modification", volume.id)
    return {"VolumeModification": _modification(volume.id, modification)}


def advance_modification(region: Region, event: Event) -> None:
    """The new size is there in ``optimizing``; after that the volume can be modified again."""
    volume = region.tables.volumes.get(event.id)
    if volume is None or volume.modification is None:
        return
    done = volume.modification
    if done.state == "modifying":
        after = done.after
        region.put(
            replace(
                volume,
                size=after["Size"],
                type=after["VolumeType"],
                iops=after["Iops"],
                throughput=after["Throughput"],
                modification=replace(done, state="optimizing"),
            )
        )
        region.plan(region.wait("optimizing"), "modification", volume.id)
    elif done.state == "optimizing":
        region.put(replace(volume, modification=replace(done, state="completed", ended=region.now)))


def modifications(volumes: Iterable[Volume]) -> list[dict[str, Any]]:
    """As DescribeVolumesModifications shows them."""
    return [_modification(one.id, one.modification) for one in volumes if one.modification is not None]


def _modification(volume_id: str, one: Modification) -> dict[str, Any]:
    item: dict[str, Any] = {
        "VolumeId": volume_id,
        "ModificationState": one.state,
        "Progress": {"modifying": 0, "optimizing": 50, "completed": 100}[one.state],
        "StartTime": moment(one.started),
    }
    for word, side in (("Original", one.before), ("Target", one.after)):
        item |= {word + name: value for name, value in side.items() if value is not None}
    if one.ended is not None:
        item["EndTime"] = moment(one.ended)
    return item
