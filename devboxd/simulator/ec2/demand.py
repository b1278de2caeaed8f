"""What a launch asks for: each function reads one part of the request and checks that it can be had."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final

from devboxd.simulator.ec2 import types
from devboxd.simulator.ec2.errors import Ec2Error, combination, invalid, not_found
from devboxd.simulator.ec2.records import Device, Image, Subnet
from devboxd.simulator.ec2.region import Region
from devboxd.simulator.ec2.types import InstanceType

_USER_DATA_MOST: Final = 16384  # bytes, before base64
_MOST_DEVICES: Final = 27  # a root and 26 more is what Nitro machines take


def usable_image(region: Region, params: Mapping[str, Any]) -> Image:
    """The image, if it is available and may be used. Raises Ec2Error, as all functions here do."""
    image_id = params.get("ImageId")
    if not image_id:
        raise Ec2Error("MissingParameter", "The request must contain the parameter ImageId")
    image = region.image(image_id)
    if image.state == "deregistered":
        raise Ec2Error("InvalidAMIID.Unavailable", f"The image ID '{image_id}' is no longer available")
    if image.state != "available":
        raise Ec2Error("InvalidAMIID.Unavailable", f"The image id '[{image_id}]' is not available")
    if image.owner != region.account and not image.is_public:
        raise not_found(image_id)
    return image


def fitting_type(params: Mapping[str, Any], image: Image) -> InstanceType:
    """The instance type, if EC2 lets the image run on it by what the image says of itself."""
    name = params.get("InstanceType", "m1.small")
    kind = types.known(name)
    if kind is None:
        raise invalid(f"Invalid value '{name}' for InstanceType.")
    if kind.architecture != image.boot.architecture:
        raise invalid(
            f"The architecture '{kind.architecture}' of the specified instance type does not match the architecture "
            f"'{image.boot.architecture}' of the specified AMI. Specify an instance type and an AMI that have "
            "matching architectures, and try again."
        )
    if kind.ena == "required" and not image.boot.ena:
        raise combination(
            "Enhanced networking with the Elastic Network Adapter (ENA) is required for the "
            f"'{kind.name}' instance type. Ensure that you are using an AMI that is enabled for ENA."
        )
    if image.boot.virtualization != "hvm":
        raise combination(
            f"Non-Windows instances with a virtualization type of '{image.boot.virtualization}' are not supported "
            f"for instances of type '{kind.name}'."
        )
    mode = image.boot.boot_mode
    wanted = "uefi" if mode == "uefi" else "legacy-bios" if mode == "legacy-bios" else None
    if wanted is not None and wanted not in kind.boot_modes:
        raise combination(f"The boot mode '{wanted}' of the AMI is not supported by '{kind.name}'.")
    if image.boot.tpm is not None and not kind.has_tpm:
        raise combination(
            f"The instance type '{kind.name}' does not support NitroTPM, which the AMI requires."
        )
    return kind


def wanted_subnet(region: Region, params: Mapping[str, Any]) -> Subnet | None:
    """Where it must go; None: anywhere in the default network."""
    interfaces = params.get("NetworkInterfaces", [])
    named = params.get("SubnetId")
    if interfaces and (named or params.get("SecurityGroupIds")):
        raise combination(
            "Network interfaces and an instance-level subnet ID or security groups may not be specified on the "
            "same request"
        )
    if interfaces:
        named = interfaces[0].get("SubnetId")
    zone = params.get("Placement", {}).get("AvailabilityZone")
    if zone is not None and zone not in [one.name for one in region.networks.zones]:
        raise invalid(f"Invalid availability zone: [{zone}]")
    if named is not None:
        subnet = region.networks.subnets.get(named)
        if subnet is None:
            raise not_found(named)
        if zone is not None and zone != subnet.zone:
            raise combination("The availability zone of the subnet and the requested one are not the same.")
        return subnet
    if zone is None:
        return None
    return next((one for one in default_subnets(region) if one.zone == zone), None) or _no_default_subnet(
        zone
    )


def default_subnets(region: Region) -> list[Subnet]:
    """One in each zone, if the default network is there."""
    found = [one for one in region.networks.subnets.values() if one.is_default]
    if not found:
        raise Ec2Error("VPCIdNotSpecified", "No default VPC for this user. GroupName is only supported for EC2-Classic "
                       "and default VPC.")  # fmt: skip
    return found


def merged_devices(region: Region, image: Image, wanted: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The devices of an instance: those of the image, changed and completed by the request.

    Raises:
        Ec2Error: a device twice, without a size, or with an encryption that its snapshot forbids.
    """
    found: dict[str, dict[str, Any]] = {}
    for device in image.mappings:
        found[device.device] = _from_image(device)
    named = [one.get("DeviceName", "") for one in wanted]
    if len(set(named)) != len(named):
        raise Ec2Error("InvalidBlockDeviceMapping", "A device name is used more than once.")
    for one in wanted:
        _apply(found, one)
    if image.boot.root_device not in found:
        raise Ec2Error(
            "InvalidBlockDeviceMapping", f"The root device {image.boot.root_device} is not mapped."
        )
    if len(found) > _MOST_DEVICES:
        raise Ec2Error("AttachmentLimitExceeded", f"More than {_MOST_DEVICES} volumes on one instance.")
    for name, ebs in found.items():
        if ebs.get("SnapshotId"):
            region.snapshot(ebs["SnapshotId"])
        elif "VolumeSize" not in ebs:
            raise Ec2Error("InvalidBlockDeviceMapping", f"{name}: neither a snapshot nor a size.")
    return [{"DeviceName": name, **ebs} for name, ebs in sorted(found.items())]


def check_words(region: Region, params: Mapping[str, Any]) -> None:
    """Parameters that must name something that exists, or have a form."""
    for group in (*params.get("SecurityGroupIds", []), *groups_of_interfaces(params)):
        if group not in region.networks.groups:
            raise Ec2Error("InvalidGroup.NotFound", f"The security group '{group}' does not exist")
    if (data := params.get("UserData")) is not None:
        try:
            size = len(base64.b64decode(data, validate=True))
        except (binascii.Error, ValueError) as error:
            raise Ec2Error("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.") from error
        if size > _USER_DATA_MOST:
            raise invalid(f"User data is limited to {_USER_DATA_MOST} bytes")
    if params.get("DisableApiTermination") and spot(params)[0] is not None:
        raise combination("DisableApiTermination cannot be used with Spot Instances.")
    profile(region, params)


def groups_of_interfaces(params: Mapping[str, Any]) -> list[str]:
    """The security groups that are named with the interfaces."""
    return [group for one in params.get("NetworkInterfaces", []) for group in one.get("Groups", [])]


def count(params: Mapping[str, Any]) -> int:
    """How many: as many as may be, there is always room for all or for none."""
    least, most = params["MinCount"], params["MaxCount"]
    if least < 1 or most < least:
        raise invalid("The maximum number of instances must not be below the minimum, which is at least 1.")
    return int(most)


def profile(region: Region, params: Mapping[str, Any]) -> str | None:
    """The ARN of the instance profile, which must exist."""
    wanted = params.get("IamInstanceProfile", {})
    name = wanted.get("Name") or str(wanted.get("Arn", "")).rpartition("/")[2]
    if not name:
        return None
    if region.profiles is not None and name not in region.profiles:
        raise invalid(
            f"Value ({name}) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name"
        )
    return str(wanted.get("Arn") or f"arn:aws:iam::{region.account}:instance-profile/{name}")


def spot(params: Mapping[str, Any]) -> tuple[str | None, bool]:
    """What an interruption does, and whether the request is persistent; None: not spot."""
    market = params.get("InstanceMarketOptions", {})
    if market.get("MarketType") != "spot":
        return None, False
    options = market.get("SpotOptions", {})
    persistent = options.get("SpotInstanceType") == "persistent"
    behavior = options.get("InstanceInterruptionBehavior", "terminate")
    if behavior != "terminate" and not persistent:
        raise combination(f"InstanceInterruptionBehavior '{behavior}' needs a persistent Spot request.")
    return behavior, persistent


def metadata(image: Image, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """An image that says so makes tokens required, with a second hop for containers."""
    strict = {"HttpTokens": "required", "HttpPutResponseHopLimit": 2} if image.boot.imds == "v2.0" else {}
    return {**strict, **wanted}


def _apply(found: dict[str, dict[str, Any]], one: Mapping[str, Any]) -> None:
    """Change, add or leave out one device."""
    name, ebs = one.get("DeviceName"), one.get("Ebs", {})
    if not name:
        raise Ec2Error("InvalidBlockDeviceMapping", "A block device mapping needs a device name.")
    if "NoDevice" in one:
        found.pop(name, None)
        return
    known = found.get(name)
    if known is not None and ebs.get("SnapshotId", known.get("SnapshotId")) != known.get("SnapshotId"):
        raise Ec2Error(
            "InvalidBlockDeviceMapping",
            f"snapshotId can only be modified on EBS devices not of the AMI: {name}",
        )
    base = {"DeleteOnTermination": True} if known is None else known
    if "VolumeType" in ebs and ebs["VolumeType"] != base.get("VolumeType"):
        base = {key: value for key, value in base.items() if key not in ("Iops", "Throughput")}
    found[name] = {**base, **ebs}


def _no_default_subnet(zone: str) -> Subnet:
    raise Ec2Error(
        "MissingInput", f"No subnets found for the default VPC in '{zone}'. Please specify a subnet."
    )


def _from_image(device: Device) -> dict[str, Any]:
    ebs = {
        "SnapshotId": device.snapshot,
        "VolumeSize": device.size,
        "VolumeType": device.type,
        "Iops": device.iops,
        "Throughput": device.throughput,
        "DeleteOnTermination": device.delete_on_termination,
    }
    return {key: value for key, value in ebs.items() if value is not None}
