"""Filters and pages of the describe calls, over what they would show."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import translate
from functools import lru_cache
from re import Pattern, compile
from typing import Any, Final

from devboxd.simulator.ec2.errors import Ec2Error, combination, invalid

Shown = Mapping[str, Any]

# Filter name -> where its value stands in what is shown. Only what somebody could want of us.
INSTANCE: Final = {
    "architecture": "Architecture",
    "availability-zone": "Placement.AvailabilityZone",
    "block-device-mapping.delete-on-termination": "BlockDeviceMappings.Ebs.DeleteOnTermination",
    "block-device-mapping.device-name": "BlockDeviceMappings.DeviceName",
    "block-device-mapping.volume-id": "BlockDeviceMappings.Ebs.VolumeId",
    "client-token": "ClientToken",
    "iam-instance-profile.arn": "IamInstanceProfile.Arn",
    "image-id": "ImageId",
    "instance-id": "InstanceId",
    "instance-lifecycle": "InstanceLifecycle",
    "instance-state-code": "State.Code",
    "instance-state-name": "State.Name",
    "instance-type": "InstanceType",
    "instance.group-id": "SecurityGroups.GroupId",
    "key-name": "KeyName",
    "private-ip-address": "PrivateIpAddress",
    "root-device-name": "RootDeviceName",
    "state-reason-code": "StateReason.Code",
    "subnet-id": "SubnetId",
    "vpc-id": "VpcId",
}
VOLUME: Final = {
    "attachment.delete-on-termination": "Attachments.DeleteOnTermination",
    "attachment.device": "Attachments.Device",
    "attachment.instance-id": "Attachments.InstanceId",
    "attachment.status": "Attachments.State",
    "availability-zone": "AvailabilityZone",
    "encrypted": "Encrypted",
    "size": "Size",
    "snapshot-id": "SnapshotId",
    "status": "State",
    "volume-id": "VolumeId",
    "volume-type": "VolumeType",
}
SNAPSHOT: Final = {
    "description": "Description",
    "encrypted": "Encrypted",
    "owner-id": "OwnerId",
    "progress": "Progress",
    "snapshot-id": "SnapshotId",
    "status": "State",
    "volume-id": "VolumeId",
    "volume-size": "VolumeSize",
}
IMAGE: Final = {
    "architecture": "Architecture",
    "block-device-mapping.snapshot-id": "BlockDeviceMappings.Ebs.SnapshotId",
    "boot-mode": "BootMode",
    "description": "Description",
    "ena-support": "EnaSupport",
    "image-id": "ImageId",
    "image-type": "ImageType",
    "is-public": "Public",
    "name": "Name",
    "owner-alias": "ImageOwnerAlias",
    "owner-id": "OwnerId",
    "root-device-type": "RootDeviceType",
    "source-instance-id": "SourceInstanceId",
    "state": "State",
    "virtualization-type": "VirtualizationType",
}
SUBNET: Final = {
    "availability-zone": "AvailabilityZone",
    "availabilityZone": "AvailabilityZone",
    "availability-zone-id": "AvailabilityZoneId",
    "cidr-block": "CidrBlock",
    "default-for-az": "DefaultForAz",
    "map-public-ip-on-launch": "MapPublicIpOnLaunch",
    "state": "State",
    "subnet-id": "SubnetId",
    "vpc-id": "VpcId",
}
VPC: Final = {
    "cidr": "CidrBlock", "is-default": "IsDefault", "isDefault": "IsDefault", "state": "State", "vpc-id": "VpcId",
}  # fmt: skip
GROUP: Final = {
    "description": "Description", "group-id": "GroupId", "group-name": "GroupName", "vpc-id": "VpcId",
}  # fmt: skip
ZONE: Final = {
    "state": "State",
    "zone-name": "ZoneName",
    "zone-id": "ZoneId",
    "zone-type": "ZoneType",
    "opt-in-status": "OptInStatus",
}
TYPE: Final = {
    "instance-type": "InstanceType",
    "current-generation": "CurrentGeneration",
    "hypervisor": "Hypervisor",
    "processor-info.supported-architecture": "ProcessorInfo.SupportedArchitectures",
    "vcpu-info.default-vcpus": "VCpuInfo.DefaultVCpus",
    "memory-info.size-in-mib": "MemoryInfo.SizeInMiB",
    "supported-boot-mode": "SupportedBootModes",
    "network-info.ena-support": "NetworkInfo.EnaSupport",
    "burstable-performance-supported": "BurstablePerformanceSupported",
}
OFFERING: Final = {"instance-type": "InstanceType", "location": "Location"}
STATUS: Final = {
    "availability-zone": "AvailabilityZone",
    "instance-state-name": "InstanceState.Name",
    "instance-status.status": "InstanceStatus.Status",
    "system-status.status": "SystemStatus.Status",
}
TAG: Final = {"key": "Key", "resource-id": "ResourceId", "resource-type": "ResourceType", "value": "Value"}
MODIFICATION: Final = {"modification-state": "ModificationState", "volume-id": "VolumeId"}
REGION: Final = {"region-name": "RegionName", "endpoint": "Endpoint", "opt-in-status": "OptInStatus"}

_MOST_VALUES: Final = 200


def select(
    items: Iterable[Shown], filters: Sequence[Mapping[str, Any]], known: Mapping[str, str]
) -> list[Any]:
    """Those items that every filter lets through.

    Raises:
        Ec2Error: a filter that EC2 does not know (or that is not imitated), or one without values.
    """
    for one in filters:
        name, values = one.get("Name"), one.get("Values", [])
        if not name or not values:
            raise invalid("The filter 'null' is invalid")
        if len(values) > _MOST_VALUES:
            raise Ec2Error("FilterLimitExceeded", "The maximum number of filter values is 200.")
        if name not in known and not name.startswith("tag:") and name != "tag-key":
            raise invalid(f"The filter '{name}' is invalid")
    return [item for item in items if all(_passes(item, one, known) for one in filters)]


def page(
    params: Mapping[str, Any],
    items: Sequence[Any],
    *,
    least: int = 5,
    most: int = 1000,
    ids: str | None = None,
) -> tuple[list[Any], str | None]:
    """The part of a list that was asked for, and where to go on.

    Raises:
        Ec2Error: bad size or token, or a page of things that were named one by one.
    """
    size, token = params.get("MaxResults"), params.get("NextToken")
    if size is not None and ids is not None and params.get(ids):
        raise combination(f"The parameter {ids} cannot be used with the parameter maxResults")
    if size is not None and not least <= size <= most:
        raise invalid(f"Value ( {size} ) for parameter maxResults is invalid. Expecting {least}..{most}.")
    start = _start(token, params, items) if token else 0
    stop = len(items) if size is None else start + size
    following = _token(stop, items[stop - 1], params) if stop < len(items) else None
    return list(items[start:stop]), following


def _token(offset: int, last: Shown, params: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(
        json.dumps([offset, _identity(last), _question(params)]).encode()
    ).decode()


def _start(token: str, params: Mapping[str, Any], items: Sequence[Shown]) -> int:
    """Go on behind the last thing that was shown, wherever it stands now: others may have come or gone."""
    try:
        offset, last, question = json.loads(base64.urlsafe_b64decode(token.encode()))
    except ValueError:
        offset, last, question = 0, "", None
    if question != _question(params):
        raise Ec2Error("InvalidNextToken", "The token is invalid.")
    return next((n + 1 for n, item in enumerate(items) if _identity(item) == last), min(offset, len(items)))


def _identity(item: Shown) -> str:
    """Its id comes first in everything that is shown; tags and offerings need a second word."""
    return f"{next(iter(item.values()))}/{item.get('Key', '')}/{item.get('Location', '')}"


def _question(params: Mapping[str, Any]) -> int:
    """A token goes with the request that it came from."""
    asked = {key: value for key, value in params.items() if key not in ("NextToken", "MaxResults")}
    return zlib.crc32(json.dumps(asked, sort_keys=True, default=str).encode())


def _passes(item: Shown, one: Mapping[str, Any], known: Mapping[str, str]) -> bool:
    name = one["Name"]
    tags: Sequence[Mapping[str, str]] = item.get("Tags", [])
    if name == "tag-key":
        actual: list[Any] = [tag["Key"] for tag in tags]
    elif name.startswith("tag:"):
        actual = [tag["Value"] for tag in tags if tag["Key"] == name[4:]]
    else:
        actual = _values(item, known[name].split("."))
    return any(_pattern(wanted).match(_text(value)) for value in actual for wanted in one["Values"])


def _values(item: Any, path: list[str]) -> list[Any]:
    if isinstance(item, list):
        return [value for inner in item for value in _values(inner, path)]
    if not path:
        return [] if item is None else [item]
    return _values(item.get(path[0]), path[1:]) if isinstance(item, Mapping) else []


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@lru_cache(1000)
def _pattern(wanted: str) -> Pattern[str]:
    # Only * and ? are special, and a backslash makes them plain; brackets are not.
    escaped = wanted.replace("[", "[[]").replace("\\*", "[*]").replace("\\?", "[?]")
    return compile(translate(escaped))
