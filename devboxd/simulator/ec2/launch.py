"""RunInstances: in which order a request is checked, and what comes into being."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from devboxd.simulator.ec2 import demand, render, types
from devboxd.simulator.ec2.errors import Ec2Error, invalid
from devboxd.simulator.ec2.power import boots
from devboxd.simulator.ec2.records import Attachment, Image, Instance, InstanceState, Subnet, Volume
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


def run_instances(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """RunInstances."""
    subnet = demand.wanted_subnet(region, params)
    if (known := _by_token(region, params, subnet)) is not None:
        ghosts = region.ghosts
        return _reservation(
            region, known.reservation, [region.tables.instances.get(i) or ghosts[i] for i in known.instances]
        )
    image = demand.usable_image(region, params)
    kind = demand.fitting_type(params, image)
    tags = from_specifications(params, _TAGGABLE)
    devices = demand.merged_devices(region, image, params.get("BlockDeviceMappings", []))
    demand.check_words(region, params)
    for device in devices:
        _volume(region, device, region.networks.zones[0].name, {})
    count = demand.count(params)
    candidates = [subnet] if subnet is not None else demand.default_subnets(region)
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
    spot, persistent = demand.spot(params)
    groups = params.get("SecurityGroupIds") or demand.groups_of_interfaces(params)
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
        profile=demand.profile(region, params),
        key_name=params.get("KeyName"),
        user_data=params.get("UserData"),
        metadata=demand.metadata(image, params.get("MetadataOptions", {})),
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
