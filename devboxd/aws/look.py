"""What EC2 shows of our projects: instances, volumes, snapshots and images, by tag and page by page.

One look serves many projects: every describe names up to two hundred of them. What the tags may have left
already (a terminated instance loses them before it fades) or never had (a volume attached by hand) is asked
for by id.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from msgspec.structs import replace

from devboxd.aws.calls import Calls
from devboxd.model import tags
from devboxd.model.project import Boot, Disk
from devboxd.model.seen import Attached, Box, Hint, Image, Observed, Snapshot, Volume
from devboxd.model.states import InstanceState

PAGE: Final = {"PageSize": 1000}
AT_A_TIME: Final = 20  # projects that are worked out without a pause
MOST_VALUES: Final = 200  # of one filter (EC2 User Guide, Filter your resources)
_STOPPED_AT: Final = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)")

Item = Mapping[str, Any]
Together = Callable[..., Awaitable[Sequence[Any]]]


async def look(
    account: Calls, wanted: Mapping[str, Hint], *, together: Together = asyncio.gather
) -> dict[str, Observed]:
    """Look at these projects, by uid. Errors are those of ``Calls``."""
    found = await together(
        _by_tag(account, "describe_instances", "Reservations", wanted),
        _by_tag(account, "describe_volumes", "Volumes", wanted),
        _by_tag(account, "describe_snapshots", "Snapshots", wanted, OwnerIds=["self"]),
        _by_tag(account, "describe_images", "Images", wanted, Owners=["self"]),
    )
    reservations, volumes, snapshots, images = found
    instances = _instances(reservations)
    lost = {one for hint in wanted.values() for one in hint.boxes} - {i["InstanceId"] for i in instances}
    instances += _instances(await _by_id(account, "describe_instances", "Reservations", "instance-id", lost))
    attached = {one.volume for item in instances for one in box(item).attached}
    named = {one for hint in wanted.values() for one in hint.volumes} | attached
    unseen = named - {item["VolumeId"] for item in volumes}
    volumes = [*volumes, *await _by_id(account, "describe_volumes", "Volumes", "volume-id", unseen)]
    return await _shares(wanted, _Found(instances, volumes, snapshots, images))


async def found(account: Calls, owner: str, *, together: Together = asyncio.gather) -> dict[str, Observed]:
    """Everything that carries this owner's tag, by uid. Errors are those of ``Calls``."""
    name, values = f"tag:{tags.OWNER}", [owner]
    reservations, volumes, snapshots, images = await together(
        _filtered(account, "describe_instances", "Reservations", name, values),
        _filtered(account, "describe_volumes", "Volumes", name, values),
        _filtered(account, "describe_snapshots", "Snapshots", name, values, OwnerIds=["self"]),
        _filtered(account, "describe_images", "Images", name, values, Owners=["self"]),
    )
    instances = _instances(reservations)
    uids = {_uid(item) for item in (*instances, *volumes, *snapshots, *images)} - {None}
    hints = {uid: Hint() for uid in sorted(filter(None, uids))}
    return await _shares(hints, _Found(instances, volumes, snapshots, images))


async def _by_tag(
    account: Calls, operation: str, key: str, uids: Iterable[str], **more: Any
) -> list[dict[str, Any]]:
    return await _filtered(account, operation, key, f"tag:{tags.UID}", sorted(uids), **more)


async def _by_id(
    account: Calls, operation: str, key: str, name: str, ids: Collection[str]
) -> list[dict[str, Any]]:
    # A filter, as a list of ids is refused when one of them is not there.
    return await _filtered(account, operation, key, name, sorted(ids))


async def _filtered(
    account: Calls, operation: str, key: str, name: str, values: Sequence[str], **more: Any
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for start in range(0, len(values), MOST_VALUES):
        some = list(values[start : start + MOST_VALUES])
        found += await account.pages(
            "ec2",
            operation,
            key,
            Filters=[{"Name": name, "Values": some}],
            PaginationConfig=PAGE,
            **more,
        )
    return found


class _Found:
    """What was found, by project and by id: looked up, not searched, for each of a thousand projects."""

    def __init__(
        self,
        instances: Iterable[Item],
        volumes: Iterable[Item],
        snapshots: Iterable[Item],
        images: Iterable[Item],
    ) -> None:
        self.instances, self.volumes = _by_uid(instances), _by_uid(volumes)
        self.snapshots, self.images = _by_uid(snapshots), _by_uid(images)
        self.instance = {item["InstanceId"]: item for some in self.instances.values() for item in some}
        self.volume = {item["VolumeId"]: item for some in self.volumes.values() for item in some}

    def share(self, uid: str, hint: Hint) -> Observed:
        """One project's share. What its row names is its own, whatever the tags say."""
        own = [
            *self.instances.get(uid, ()),
            *(self.instance[one] for one in hint.boxes if one in self.instance),
        ]
        boxes = {item["InstanceId"]: box(item) for item in own}
        named = [*hint.volumes, *(one.volume for found in boxes.values() for one in found.attached)]
        disks = [*self.volumes.get(uid, ()), *(self.volume[one] for one in named if one in self.volume)]
        return Observed(
            boxes=tuple(boxes.values()),
            volumes=tuple({item["VolumeId"]: volume(item) for item in disks}.values()),
            snapshots=tuple(snapshot(item) for item in self.snapshots.get(uid, ())),
            images=tuple(image(item) for item in self.images.get(uid, ())),
        )


async def _shares(wanted: Mapping[str, Hint], found: _Found) -> dict[str, Observed]:
    """Everybody's share; with many of them the loop gets its turn in between."""
    shares = {}
    for number, (uid, hint) in enumerate(wanted.items(), 1):
        shares[uid] = found.share(uid, hint)
        if number % AT_A_TIME == 0:
            await asyncio.sleep(0)
    return shares


def _by_uid(items: Iterable[Item]) -> dict[str | None, list[Item]]:
    found: dict[str | None, list[Item]] = {}
    for item in items:
        found.setdefault(_uid(item), []).append(item)
    return found


def _instances(reservations: Iterable[Item]) -> list[Item]:
    return [item for reservation in reservations for item in reservation.get("Instances", ())]


# One of each -----------------------------------------------------------------------------------------------


def box(item: Item) -> Box:
    """An instance as DescribeInstances has it."""
    by_key = _tags(item)
    return Box(
        id=item["InstanceId"],
        state=InstanceState.read(item.get("State", {}).get("Name")),
        launched=_seconds(item.get("LaunchTime")),
        type=item.get("InstanceType", ""),
        zone=item.get("Placement", {}).get("AvailabilityZone"),
        token=by_key.get(tags.LAUNCH) or item.get("ClientToken") or None,
        attached=tuple(
            Attached(
                one.get("DeviceName", ""),
                one["Ebs"]["VolumeId"],
                bool(one["Ebs"].get("DeleteOnTermination")),
            )
            for one in item.get("BlockDeviceMappings", ())
            if "VolumeId" in one.get("Ebs", {})
        ),
        boot=_boot(item),
        reason=item.get("StateReason", {}).get("Code", ""),
        stopped=_stopped(item),
        spot_request=item.get("SpotInstanceRequestId") or None,
        address=bool(item.get("PublicIpAddress")) if item.get("State", {}).get("Name") == "running" else None,
        subnet=item.get("SubnetId") or None,
        groups=tuple(one["GroupId"] for one in item.get("SecurityGroups", ()) if one.get("GroupId")),
        profile=item.get("IamInstanceProfile", {}).get("Arn") or None,
        tags=by_key,
    )


def volume(item: Item) -> Volume:
    """A volume as DescribeVolumes has it."""
    by_key = _tags(item)
    attachment: Item = next(
        (one for one in item.get("Attachments", ()) if one.get("State") != "detached"), {}
    )
    return Volume(
        id=item["VolumeId"],
        state=item.get("State", "unknown"),
        disk=Disk(
            device=attachment.get("Device", ""),
            size_gib=int(item.get("Size", 0)),
            type=item.get("VolumeType"),
            iops=item.get("Iops"),
            throughput=item.get("Throughput"),
            kms=item.get("KmsKeyId"),
            encrypted=bool(item.get("Encrypted")),
            volume=item["VolumeId"],
            source=item.get("SnapshotId") or None,
        ),
        token=by_key.get(tags.LAUNCH),
        attached_to=attachment.get("InstanceId"),
        attachment=attachment.get("State", ""),
        rebase=by_key.get(tags.REBASE),
        garbage=_number(by_key.get(tags.GARBAGE)),
        tags=by_key,
    )


def snapshot(item: Item) -> Snapshot:
    """A snapshot as DescribeSnapshots has it."""
    by_key = _tags(item)
    return Snapshot(
        id=item["SnapshotId"],
        state=item.get("State", "unknown"),
        volume=item.get("VolumeId"),
        size_gib=int(item.get("VolumeSize", 0)),
        save=_count(by_key.get(tags.SAVE)),
        garbage=_number(by_key.get(tags.GARBAGE)),
        stored=item.get("FullSnapshotSizeInBytes"),
        run=_count(by_key.get(tags.RUN)),
    )


def image(item: Item) -> Image:
    """An image as DescribeImages has it."""
    by_key = _tags(item)
    devices = [one for one in item.get("BlockDeviceMappings", ()) if "Ebs" in one and "DeviceName" in one]
    return Image(
        id=item["ImageId"],
        name=item.get("Name", ""),
        state=item.get("State", "unknown"),
        save=_count(by_key.get(tags.SAVE)),
        run=_count(by_key.get(tags.RUN)),
        boot=replace(_boot(item), ena=bool(item.get("EnaSupport"))),  # an image without it has not
        snapshots={one["DeviceName"]: one["Ebs"].get("SnapshotId") or None for one in devices},
        disks=tuple(_disk(one) for one in devices),
        garbage=_number(by_key.get(tags.GARBAGE)),
        created=_created(item.get("CreationDate")),
        tags=by_key,
    )


def _disk(mapping: Item) -> Disk:
    ebs: Item = mapping["Ebs"]
    return Disk(
        device=mapping["DeviceName"],
        size_gib=int(ebs.get("VolumeSize", 0)),
        type=ebs.get("VolumeType"),
        iops=ebs.get("Iops"),
        throughput=ebs.get("Throughput"),
        kms=ebs.get("KmsKeyId"),
        encrypted=bool(ebs.get("Encrypted")),
        snapshot=ebs.get("SnapshotId") or None,
    )


def _boot(item: Item) -> Boot:
    """Instances and images say it in the same words."""
    return Boot(
        architecture=item.get("Architecture"),
        boot_mode=item.get("BootMode"),
        ena=item.get("EnaSupport"),
        tpm=item.get("TpmSupport"),
        sriov=item.get("SriovNetSupport"),
        virtualization=item.get("VirtualizationType"),
        root_device=item.get("RootDeviceName"),
        platform=item.get("PlatformDetails"),
        usage=item.get("UsageOperation"),
    )


# Words -----------------------------------------------------------------------------------------------------


def _tags(item: Item) -> dict[str, str]:
    return {one["Key"]: one.get("Value", "") for one in item.get("Tags", ())}


def _uid(item: Item) -> str | None:
    return next((one.get("Value") for one in item.get("Tags", ()) if one["Key"] == tags.UID), None)


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment is not None else None


def _created(text: str | None) -> float | None:
    """CreationDate of an image: ``2026-01-31T10:00:00.000Z``."""
    try:
        return datetime.fromisoformat((text or "").replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def _stopped(item: Item) -> float | None:
    """The time in ``User initiated (2026-01-31 10:00:00 GMT)``."""
    match = _STOPPED_AT.search(item.get("StateTransitionReason", ""))
    if match is None:
        return None
    return datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()


def _count(text: str | None) -> int | None:
    """A number of ours in a tag; None for what somebody else wrote there."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else None


def _number(text: str | None) -> float | None:
    if text is None:
        return None
    return float(text) if text.isascii() and text.isdigit() and len(text) < 13 else float("inf")
