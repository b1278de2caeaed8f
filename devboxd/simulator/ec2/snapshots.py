"""EBS snapshots: the point in time is the call; what follows is copying."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from devboxd.simulator.ec2 import render
from devboxd.simulator.ec2.effects import SnapshotGone, SnapshotTaken
from devboxd.simulator.ec2.errors import Ec2Error, wrong_state
from devboxd.simulator.ec2.records import Image, InstanceState, Snapshot, Tags, Volume
from devboxd.simulator.ec2.region import Event, Region
from devboxd.simulator.ec2.tags import from_specifications

_APART: Final = 15.0  # seconds between CreateSnapshot calls for one volume
_PENDING_MOST: Final = 5  # per volume; those deleted while pending count until they finish
_FAILED: Final = "Client.InternalError: the copy failed (by order of a fault)"


def take(
    region: Region, volume: Volume, *, description: str, tags: Tags, due: float | None = None
) -> Snapshot:
    """Copy a volume as it is now; ``due``: when the copies of its whole set are complete."""
    instance = region.tables.instances.get(volume.attachment.instance) if volume.attachment else None
    snapshot = Snapshot(
        id=region.new_id("snap"),
        volume=volume.id,
        size=volume.size,
        encrypted=volume.encrypted,
        kms_key=volume.kms_key,
        started=region.now,
        state="pending",
        owner=region.account,
        description=description,
        tags=tags,
        due=region.now + region.wait("snapshot") if due is None else due,
        system=volume.system,
        content=volume.content,
        clean=instance is None or instance.state is InstanceState.STOPPED,
    )
    region.put(snapshot)
    region.plan(snapshot.due - region.now, "snapshot", snapshot.id)
    region.emit(SnapshotTaken(snapshot.id, volume.id))
    return snapshot


def advance(region: Region, event: Event) -> None:
    """The copy is complete, or has failed."""
    snapshot = region.tables.snapshots.get(event.id)
    if snapshot is None or snapshot.state != "pending":
        return
    if region.draw("snapshot-fails", snapshot.volume) is not None:
        for one in list(region.tables.snapshots.values()):
            if one.id == snapshot.id or (one.batch is not None and one.batch == snapshot.batch):
                _end(region, replace(one, state="error", state_message=_FAILED))
    else:
        _end(region, replace(snapshot, state="completed", completed=region.now))


def _end(region: Region, snapshot: Snapshot) -> None:
    if snapshot.is_deleted:
        _remove(region, snapshot.id)
    else:
        region.put(snapshot)


def create_snapshot(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """CreateSnapshot."""
    volume = region.volume(params["VolumeId"])
    _check(region, volume)
    tags = from_specifications(params, ("snapshot",)).get("snapshot", {})
    made = take(region, volume, description=params.get("Description", ""), tags=tags)
    return render.snapshot(made, region.now)


def create_snapshots(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """CreateSnapshots: all volumes of an instance at one moment, complete when the last one is."""
    wanted = params["InstanceSpecification"]
    instance = region.instance(wanted["InstanceId"])
    if instance.state is InstanceState.TERMINATED:
        raise wrong_state(f"The instance '{instance.id}' is terminated.", of_instance=True)
    attached = region.tables.volumes_of(instance.id)
    excluded = set(wanted.get("ExcludeDataVolumeIds", []))
    chosen = []
    for volume in attached:
        assert volume.attachment is not None
        is_root = volume.attachment.device == instance.boot.root_device
        if volume.id in excluded and is_root:
            raise Ec2Error("InvalidParameterValue", "The root volume is excluded by ExcludeBootVolume only.")
        if volume.id not in excluded and not (is_root and wanted.get("ExcludeBootVolume")):
            chosen.append(volume)
    if excluded - {volume.id for volume in attached}:
        raise Ec2Error("InvalidParameterValue", "A volume to exclude is not attached to the instance.")
    if not chosen:
        raise Ec2Error("InvalidParameterValue", "No volume is left to take a snapshot of.")
    for volume in chosen:
        _check(region, volume)
    tags = from_specifications(params, ("snapshot",)).get("snapshot", {})
    copies = params.get("CopyTagsFromSource") == "volume"
    due = region.now + max(region.wait("snapshot") for _ in chosen)
    made = [
        take(
            region,
            volume,
            description=params.get("Description", ""),
            tags={**(volume.tags if copies else {}), **tags},
            due=due,
        )
        for volume in chosen
    ]
    for one in made:
        region.put(replace(one, batch=made[0].id))
    return {"Snapshots": [_info(render.snapshot(one, region.now)) for one in made]}


def delete_snapshot(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """DeleteSnapshot: not while a registered image boots from it; a pending one goes when it is complete."""
    snapshot = region.snapshot(params["SnapshotId"])
    if snapshot.owner != region.account:
        raise Ec2Error("AuthFailure", f"You do not own the snapshot '{snapshot.id}'")
    if (user := _user(region, snapshot.id)) is not None:
        raise Ec2Error(
            "InvalidSnapshot.InUse", f"The snapshot {snapshot.id} is currently in use by {user.id}"
        )
    if snapshot.state == "pending":
        region.put(replace(snapshot, is_deleted=True))
    else:
        _remove(region, snapshot.id)
    return {}


def delete_unused(region: Region, snapshot_id: str) -> str:
    """Delete a snapshot along with its image; returns what became of it, as DeregisterImage says."""
    snapshot = region.tables.snapshots.get(snapshot_id)
    if snapshot is None:
        return "internal-error"
    if any(snapshot_id in _snapshots(image) for image in registered(region)):
        return "skipped"
    if snapshot.state == "pending":
        region.put(replace(snapshot, is_deleted=True))
    else:
        _remove(region, snapshot_id)
    return "success"


def registered(region: Region) -> list[Image]:
    """Images that hold on to their snapshots."""
    return [one for one in region.tables.images.values() if one.state in ("pending", "available")]


def _user(region: Region, snapshot_id: str) -> Image | None:
    """The image whose root this is; one that was deregistered lately may still count."""
    for image in region.tables.images.values():
        root = next((d.snapshot for d in image.mappings if d.device == image.boot.root_device), None)
        if root != snapshot_id:
            continue
        if image.state in ("pending", "available"):
            return image
        if image.gone is not None and region.faults.any("in-use-lingers"):
            fault = region.draw("in-use-lingers", image.id)
            if fault is not None and region.now < image.gone + fault.seconds:
                return image
    return None


def _snapshots(image: Image) -> list[str]:
    return [device.snapshot for device in image.mappings if device.snapshot is not None]


def _check(region: Region, volume: Volume) -> None:
    """The limits on snapshots of one volume."""
    if volume.state not in ("available", "in-use"):
        raise wrong_state(f"The volume '{volume.id}' is in state '{volume.state}'.")
    of_it = [one for one in region.tables.snapshots.values() if one.volume == volume.id]
    if any(region.now < one.started + _APART for one in of_it):
        raise Ec2Error(
            "SnapshotCreationPerVolumeRateExceeded",
            "The maximum per volume CreateSnapshot request rate has been exceeded. Use an increasing or variable "
            "sleep interval between requests.",
        )
    if sum(one.state == "pending" for one in of_it) >= _PENDING_MOST:
        raise Ec2Error(
            "ConcurrentSnapshotLimitExceeded",
            f"Maximum allowed in-progress snapshots for a single volume exceeded ({_PENDING_MOST}).",
        )


def _remove(region: Region, snapshot_id: str) -> None:
    region.drop(snapshot_id)
    region.emit(SnapshotGone(snapshot_id))


def _info(shown: Mapping[str, Any]) -> dict[str, Any]:
    """CreateSnapshots answers in a shorter shape than DescribeSnapshots."""
    names = [
        "Description",
        "Tags",
        "Encrypted",
        "VolumeId",
        "State",
        "VolumeSize",
        "StartTime",
        "Progress",
        "OwnerId",
        "SnapshotId",
    ]
    return {name: shown[name] for name in names}
