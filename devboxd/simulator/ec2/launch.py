"""RunInstances: what is checked, in which order, and what comes into being."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from devboxd.simulator.ec2 import render, types
from devboxd.simulator.ec2.errors import Ec2Error, combination, invalid, not_found
from devboxd.simulator.ec2.power import boots
from devboxd.simulator.ec2.records import Attachment, Device, Image, Instance, InstanceState, Subnet, Volume
from devboxd.simulator.ec2.region import Region, Token
from devboxd.simulator.ec2.tags import from_specifications
from devboxd.simulator.ec2.types import InstanceType
from devboxd.simulator.ec2.volumes import bring, prepare

UNDERSTOOD: Final = (
    "BlockDeviceMappings ClientToken DisableApiStop DisableApiTermination EbsOptimized IamInstanceProfile ImageId "
    "InstanceInitiatedShutdownBehavior InstanceMarketOptions InstanceType KeyName MaxCount MetadataOptions MinCount "
    "Monitoring NetworkInterfaces Placement PrivateIpAddress SecurityGroupIds SubnetId TagSpecifications UserData"
)
_TAGGABLE: Final = ("instance", "volume", "network-interface", "spot-instances-request")
_USER_DATA_MOST: Final = 16384  # bytes, before base64
_MOST_DEVICES: Final = 27  # a root and 26 more is what Nitro machines take


def run_instances(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """RunInstances."""
    subnet = _subnet(region, params)
    if (known := _by_token(region, params, subnet)) is not None:
        ghosts = region.ghosts
        return _reservation(
            region, known.reservation, [region.tables.instances.get(i) or ghosts[i] for i in known.instances]
        )
    image = _usable_image(region, params)
    kind = _kind(params, image)
    tags = from_specifications(params, _TAGGABLE)
    devices = merged_devices(region, image, params.get("BlockDeviceMappings", []))
    _check_words(region, params)
    for device in devices:
        _volume(region, device, region.networks.zones[0].name, {})
    count = _count(params)
    candidates = [subnet] if subnet is not None else _default_subnets(region)
    place = _with_capacity(region, kind, candidates, named=subnet is not None)
    _check_limits(region, kind, count)
    reservation = region.new_id("r")
    made = [
        _launch(region, params, image, kind, place, devices, tags, reservation, number)
        for number in range(count)
    ]
    if token := params.get("ClientToken"):
        request = _canonical(params)
        scope = place.zone if subnet is not None else region.name
        region.tokens[scope, token] = Token(request, reservation, tuple(one.id for one in made))
    return _reservation(region, reservation, made)


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
        name, ebs = one.get("DeviceName"), one.get("Ebs", {})
        if not name:
            raise Ec2Error("InvalidBlockDeviceMapping", "A block device mapping needs a device name.")
        if "NoDevice" in one:
            found.pop(name, None)
            continue
        if name in found and ebs.get("SnapshotId", found[name].get("SnapshotId")) != found[name].get(
            "SnapshotId"
        ):
            raise Ec2Error(
                "InvalidBlockDeviceMapping",
                f"snapshotId can only be modified on EBS devices not of the AMI: {name}",
            )
        base = found.get(name, {"DeleteOnTermination": True})
        if "VolumeType" in ebs and ebs["VolumeType"] != base.get("VolumeType"):
            base = {key: value for key, value in base.items() if key not in ("Iops", "Throughput")}
        found[name] = {**base, **ebs}
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


def has_capacity(region: Region, zone: str, kind: InstanceType) -> bool:
    """Whether a zone can take one more of this type now."""
    return region.draw("no-capacity", f"{zone}/{kind.name}") is None


def no_capacity(region: Region, kind: InstanceType, zone: str) -> Ec2Error:
    """The error when it cannot: a server error, which SDKs take for a reason to try again."""
    others = [
        one.name for one in region.networks.zones if one.name != zone and types.is_offered(kind, one.name)
    ]
    return Ec2Error(
        "InsufficientInstanceCapacity",
        f"We currently do not have sufficient {kind.name} capacity in the Availability Zone you requested ({zone}). "
        "Our system will be working on provisioning additional capacity. You can currently get "
        f"{kind.name} capacity by not specifying an Availability Zone in your request or choosing "
        f"{', '.join(others)}.",
        500,
    )


def _by_token(region: Region, params: Mapping[str, Any], subnet: Subnet | None) -> Token | None:
    """What this client token has made already. Its scope is the zone, if the request names one."""
    token = params.get("ClientToken")
    if not token:
        return None
    if len(token) > 64 or not token.isascii():
        raise invalid("The client token must have at most 64 ASCII characters.")
    known = region.tokens.get((subnet.zone if subnet is not None else region.name, token))
    if known is None:
        return None
    if any(one not in region.tables.instances and one not in region.ghosts for one in known.instances):
        return None  # a day after its end
    if known.request != _canonical(params):
        raise Ec2Error(
            "IdempotentParameterMismatch",
            "The client token you have provided is associated with a resource that is already created with "
            "different parameters.",
        )
    return known


def _canonical(params: Mapping[str, Any]) -> str:
    """The request as it counts for its token: everything but where in the zone it goes."""
    return json.dumps(
        {key: value for key, value in params.items() if key not in ("ClientToken", "DryRun")},
        sort_keys=True,
        default=str,
    )


def _usable_image(region: Region, params: Mapping[str, Any]) -> Image:
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


def _kind(params: Mapping[str, Any], image: Image) -> InstanceType:
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


def _subnet(region: Region, params: Mapping[str, Any]) -> Subnet | None:
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
    return next((one for one in _default_subnets(region) if one.zone == zone), None) or _no_default_subnet(
        zone
    )


def _no_default_subnet(zone: str) -> Subnet:
    raise Ec2Error(
        "MissingInput", f"No subnets found for the default VPC in '{zone}'. Please specify a subnet."
    )


def _default_subnets(region: Region) -> list[Subnet]:
    found = [one for one in region.networks.subnets.values() if one.is_default]
    if not found:
        raise Ec2Error("VPCIdNotSpecified", "No default VPC for this user. GroupName is only supported for EC2-Classic "
                       "and default VPC.")  # fmt: skip
    return found


def _with_capacity(region: Region, kind: InstanceType, places: Sequence[Subnet], *, named: bool) -> Subnet:
    offered = [one for one in places if types.is_offered(kind, one.zone)]
    if not offered:
        raise Ec2Error(
            "Unsupported",
            f"Your requested instance type ({kind.name}) is not supported in your requested Availability Zone "
            f"({places[0].zone}). Please retry your request by not specifying an Availability Zone or choosing "
            + ", ".join(z.name for z in region.networks.zones if types.is_offered(kind, z.name)) + ".",
        )  # fmt: skip
    order = list(offered) if named else region.entropy.sample(offered, len(offered))
    for place in order:
        if has_capacity(region, place.zone, kind):
            return place
    raise no_capacity(region, kind, order[0].zone)


def _check_limits(region: Region, kind: InstanceType, count: int) -> None:
    if region.vcpu_limit is None:
        return
    used = sum(
        found.vcpus
        for one in region.tables.instances.values()
        if one.state in (InstanceState.PENDING, InstanceState.RUNNING)
        and (found := types.known(one.type)) is not None
    )
    if used + count * kind.vcpus > region.vcpu_limit:
        raise Ec2Error(
            "VcpuLimitExceeded",
            f"You have requested more vCPU capacity than your current vCPU limit of {region.vcpu_limit} allows for "
            "the instance bucket that the specified instance type belongs to. Please visit "
            "http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.",
        )


def _check_words(region: Region, params: Mapping[str, Any]) -> None:
    """Parameters that must name something that exists, or have a form."""
    for group in (*params.get("SecurityGroupIds", []), *_groups_of_interfaces(params)):
        if group not in region.networks.groups:
            raise Ec2Error("InvalidGroup.NotFound", f"The security group '{group}' does not exist")
    if (data := params.get("UserData")) is not None:
        try:
            size = len(base64.b64decode(data, validate=True))
        except (binascii.Error, ValueError) as error:
            raise Ec2Error("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.") from error
        if size > _USER_DATA_MOST:
            raise invalid(f"User data is limited to {_USER_DATA_MOST} bytes")
    if params.get("DisableApiTermination") and _spot(params)[0] is not None:
        raise combination("DisableApiTermination cannot be used with Spot Instances.")
    _profile(region, params)


def _groups_of_interfaces(params: Mapping[str, Any]) -> list[str]:
    return [group for one in params.get("NetworkInterfaces", []) for group in one.get("Groups", [])]


def _count(params: Mapping[str, Any]) -> int:
    least, most = params["MinCount"], params["MaxCount"]
    if least < 1 or most < least:
        raise invalid("The maximum number of instances must not be below the minimum, which is at least 1.")
    return int(most)


def _profile(region: Region, params: Mapping[str, Any]) -> str | None:
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


def _spot(params: Mapping[str, Any]) -> tuple[str | None, bool]:
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


def _launch(
    region: Region,
    params: Mapping[str, Any],
    image: Image,
    kind: InstanceType,
    place: Subnet,
    devices: Sequence[Mapping[str, Any]],
    tags: Mapping[str, Mapping[str, str]],
    reservation: str,
    number: int,
) -> Instance:
    interface: Mapping[str, Any] = next(iter(params.get("NetworkInterfaces", [])), {})
    is_public = interface.get("AssociatePublicIpAddress", place.maps_public)
    spot, persistent = _spot(params)
    groups = params.get("SecurityGroupIds") or _groups_of_interfaces(params)
    instance = Instance(
        id=region.new_id("i"),
        reservation=reservation,
        image=image.id,
        type=kind.name,
        zone=place.zone,
        subnet=place.id,
        vpc=place.vpc,
        groups=tuple(groups or _default_group(region, place)),
        private_address=params.get("PrivateIpAddress") or _address(region, place),
        public_address=f"203.0.113.{region.entropy.randrange(1, 255)}" if is_public else None,
        launched=float(math.floor(region.now)),
        state=InstanceState.PENDING,
        boot=image.boot,
        tags=tags.get("instance", {}),
        client_token=params.get("ClientToken", ""),
        launch_index=number,
        is_protected=params.get("DisableApiTermination", False),
        is_stop_protected=params.get("DisableApiStop", False),
        shutdown_behavior=params.get("InstanceInitiatedShutdownBehavior", "stop"),
        profile=_profile(region, params),
        key_name=params.get("KeyName"),
        user_data=params.get("UserData"),
        metadata=_metadata(image, params.get("MetadataOptions", {})),
        spot=spot,
        spot_is_persistent=persistent,
        ebs_optimized=params.get("EbsOptimized", False),
        is_monitored=params.get("Monitoring", {}).get("Enabled", False),
    )
    if (fault := region.draw("launch-dies", instance.id)) is not None:
        instance = replace(instance, sudden_end=(InstanceState.TERMINATED, fault.code))
    region.put(instance)
    up = region.wait("pending")
    shown = region.now + min(region.wait("volume_created"), up * 0.9)
    for device in devices:
        _attach(region, instance, device, tags.get("volume", {}), since=shown)
    can_boot = boots(region, instance) and region.draw("no-boot", instance.id) is None
    instance = replace(instance, boots=can_boot)
    region.put(instance)
    region.plan(up, "instance", instance.id, instance.serial)
    return instance


def _volume(region: Region, device: Mapping[str, Any], zone: str, tags: Mapping[str, str]) -> Volume:
    return prepare(
        region,
        zone=zone,
        size=device.get("VolumeSize"),
        type_=device.get("VolumeType"),
        iops=device.get("Iops"),
        throughput=device.get("Throughput"),
        encrypted=device.get("Encrypted"),
        kms_key=device.get("KmsKeyId"),
        snapshot_id=device.get("SnapshotId") or None,
        tags=dict(tags),
    )


def _attach(
    region: Region, instance: Instance, device: Mapping[str, Any], tags: Mapping[str, str], *, since: float
) -> None:
    place = Attachment(instance.id, device["DeviceName"], since, device["DeleteOnTermination"])
    volume = _volume(region, device, instance.zone, tags)
    bring(region, replace(volume, state="in-use", attachment=place))


def _metadata(image: Image, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """An image that says so makes tokens required, with a second hop for containers."""
    strict = {"HttpTokens": "required", "HttpPutResponseHopLimit": 2} if image.boot.imds == "v2.0" else {}
    return {**strict, **wanted}


def _default_group(region: Region, place: Subnet) -> list[str]:
    return [
        one.id for one in region.networks.groups.values() if one.vpc == place.vpc and one.name == "default"
    ]


def _address(region: Region, place: Subnet) -> str:
    """The next free address; AWS keeps the first four of a subnet."""
    base, _, bits = place.cidr.partition("/")
    first = [int(part) for part in base.split(".")]
    taken = {one.private_address for one in region.tables.instances.values() if one.gone is None}
    start = (first[0] << 24) + (first[1] << 16) + (first[2] << 8) + first[3]
    for offset in range(4, (1 << (32 - int(bits))) - 1):
        number = start + offset
        address = ".".join(str((number >> shift) & 255) for shift in (24, 16, 8, 0))
        if address not in taken:
            return address
    raise Ec2Error(
        "InsufficientFreeAddressesInSubnet", f"There are not enough free addresses in subnet '{place.id}'."
    )


def _reservation(region: Region, reservation: str, instances: Sequence[Instance]) -> dict[str, Any]:
    return {
        "ReservationId": reservation,
        "OwnerId": region.account,
        "Groups": [],
        "Instances": [render.instance(region, one, region.tables.volumes_of(one.id)) for one in instances],
    }
