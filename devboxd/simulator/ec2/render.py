"""Records as the API shows them: dicts in the shapes of botocore's service model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from devboxd.simulator.ec2.records import (
    BootAttributes,
    Device,
    Image,
    Instance,
    InstanceState,
    SecurityGroup,
    Snapshot,
    Subnet,
    Tags,
    Volume,
    Vpc,
)
from devboxd.simulator.ec2.times import creation_date, moment

if TYPE_CHECKING:
    from devboxd.simulator.ec2.region import Region

Shown = dict[str, Any]
_METADATA = {
    "State": "applied",
    "HttpTokens": "optional",
    "HttpPutResponseHopLimit": 1,
    "HttpEndpoint": "enabled",
    "HttpProtocolIpv6": "disabled",
    "InstanceMetadataTags": "disabled",
}


def state(of: InstanceState) -> Shown:
    """The pair of number and name."""
    return {"Code": of.code, "Name": of.value}


def tag_list(tags: Tags) -> list[Shown]:
    """Tags in the API's form."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def instance(region: Region, one: Instance, volumes: Iterable[Volume]) -> Shown:
    """As in DescribeInstances. A volume shows some seconds after the launch only."""
    is_gone = one.state is InstanceState.TERMINATED
    item: Shown = {
        "InstanceId": one.id,
        "ImageId": one.image,
        "State": state(one.state),
        "PrivateDnsName": "" if is_gone else f"ip-{one.private_address.replace('.', '-')}.ec2.internal",
        "PublicDnsName": "",
        "StateTransitionReason": one.transition_reason,
        "AmiLaunchIndex": one.launch_index,
        "ProductCodes": [],
        "InstanceType": one.type,
        "LaunchTime": moment(one.launched),
        "Placement": {"AvailabilityZone": one.zone, "GroupName": "", "Tenancy": "default"},
        "Monitoring": {"State": "enabled" if one.is_monitored else "disabled"},
        "BlockDeviceMappings": [_attached(volume) for volume in volumes if _is_shown(region, volume)],
        "ClientToken": one.client_token,
        "EbsOptimized": one.ebs_optimized,
        "Hypervisor": "xen",  # what EC2 says of every machine
        "NetworkInterfaces": [] if is_gone else [_interface(one)],
        "SecurityGroups": [] if is_gone else _groups(region, one.groups),
        "SourceDestCheck": one.source_dest_check,
        "MetadataOptions": metadata(one.metadata),
        "Tags": tag_list(one.tags),
        "RootDeviceType": "ebs",
        **_boot(one.boot),
    }
    if not is_gone:
        item |= {"PrivateIpAddress": one.private_address, "SubnetId": one.subnet, "VpcId": one.vpc}
    if one.public_address is not None and one.state not in (InstanceState.STOPPED, InstanceState.TERMINATED):
        item["PublicIpAddress"] = one.public_address
        item["PublicDnsName"] = f"ec2-{one.public_address.replace('.', '-')}.compute-1.amazonaws.com"
    if one.state is InstanceState.PENDING:
        item["StateReason"] = {"Code": "pending", "Message": "pending"}
    elif one.reason is not None:
        item["StateReason"] = {"Code": one.reason[0], "Message": one.reason[1]}
    if one.profile is not None:
        item["IamInstanceProfile"] = {"Arn": one.profile, "Id": "AIPASIMULATOR0000000"}
    if one.key_name is not None:
        item["KeyName"] = one.key_name
    if one.spot is not None:
        item["InstanceLifecycle"] = "spot"
        item["SpotInstanceRequestId"] = f"sir-{one.id[2:10]}"
    if one.boot.boot_mode is not None:
        item["CurrentInstanceBootMode"] = (
            "uefi" if "uefi" in one.boot.firmware_started else one.boot.firmware_started
        )
    return item


def metadata(options: Mapping[str, Any]) -> Shown:
    """The metadata options that were set, over the defaults."""
    return {**_METADATA, **options}


def volume(region: Region, one: Volume) -> Shown:
    """As in DescribeVolumes."""
    item: Shown = {
        "VolumeId": one.id,
        "Size": one.size,
        "SnapshotId": one.snapshot or "",
        "AvailabilityZone": one.zone,
        "State": one.state,
        "CreateTime": moment(one.created),
        "Encrypted": one.encrypted,
        "VolumeType": one.type,
        "MultiAttachEnabled": False,
        "Attachments": [],
        "Tags": tag_list(one.tags),
    }
    for name, value in (("Iops", one.iops), ("Throughput", one.throughput), ("KmsKeyId", one.kms_key)):
        if value is not None:
            item[name] = value
    if one.attachment is not None and not _is_shown(region, one):
        item["State"] = "creating"
    elif (place := one.attachment) is not None:
        item["Attachments"] = [
            {
                "VolumeId": one.id,
                "InstanceId": place.instance,
                "Device": place.device,
                "State": place.state,
                "AttachTime": moment(place.since),
                "DeleteOnTermination": place.delete_on_termination,
            }
        ]
    return item


def snapshot(one: Snapshot, now: float) -> Shown:
    """As in DescribeSnapshots; ``now`` for the progress."""
    item: Shown = {
        "SnapshotId": one.id,
        "VolumeId": one.volume,
        "State": one.state,
        "StartTime": moment(one.started),
        "Progress": _progress(one, now),
        "OwnerId": one.owner,
        "Description": one.description,
        "VolumeSize": one.size,
        "Encrypted": one.encrypted,
        "StorageTier": "standard",
        "Tags": tag_list(one.tags),
    }
    if one.kms_key is not None:
        item["KmsKeyId"] = one.kms_key
    if one.state_message is not None:
        item["StateMessage"] = one.state_message
    if one.completed is not None:
        item["CompletionTime"] = moment(one.completed)
    return item


def image(region: Region, one: Image) -> Shown:
    """As in DescribeImages."""
    shows_snapshots = one.state != "pending" and region.now >= one.mappings_shown
    item: Shown = {
        "ImageId": one.id,
        "ImageLocation": f"{one.alias or one.owner}/{one.name}",
        "Name": one.name,
        "State": one.state,
        "OwnerId": one.owner,
        "CreationDate": creation_date(one.created),
        "Public": one.is_public,
        "ImageType": "machine",
        "RootDeviceType": "ebs",
        "Hypervisor": "xen",
        "BlockDeviceMappings": [_device(device, shows_snapshot=shows_snapshots) for device in one.mappings],
        "Tags": tag_list(one.tags),
        **_boot(one.boot),
    }
    if one.boot.imds is not None:
        item["ImdsSupport"] = one.boot.imds
    if one.description:
        item["Description"] = one.description
    if one.alias is not None:
        item["ImageOwnerAlias"] = one.alias
    if one.source_instance is not None:
        item["SourceInstanceId"] = one.source_instance
    if one.reason is not None:
        item["StateReason"] = {"Code": one.reason[0], "Message": one.reason[1]}
    return item


def vpc(region: Region, one: Vpc) -> Shown:
    """As in DescribeVpcs."""
    return {
        "VpcId": one.id,
        "State": "available",
        "CidrBlock": one.cidr,
        "IsDefault": one.is_default,
        "InstanceTenancy": "default",
        "OwnerId": region.account,
        "DhcpOptionsId": "dopt-00000000000000000",
        "Tags": tag_list(one.tags),
    }


def subnet(region: Region, one: Subnet, used: int) -> Shown:
    """As in DescribeSubnets; ``used``: addresses that instances have."""
    bits = 32 - int(one.cidr.rpartition("/")[2])
    zone = next((zone.id for zone in region.networks.zones if zone.name == one.zone), "")
    return {
        "SubnetId": one.id,
        "SubnetArn": f"arn:aws:ec2:{region.name}:{region.account}:subnet/{one.id}",
        "VpcId": one.vpc,
        "State": "available",
        "CidrBlock": one.cidr,
        "AvailabilityZone": one.zone,
        "AvailabilityZoneId": zone,
        "AvailableIpAddressCount": (1 << bits) - 5 - used,
        "DefaultForAz": one.is_default,
        "MapPublicIpOnLaunch": one.maps_public,
        "AssignIpv6AddressOnCreation": False,
        "OwnerId": region.account,
        "Tags": tag_list(one.tags),
    }


def group(region: Region, one: SecurityGroup) -> Shown:
    """As in DescribeSecurityGroups."""
    anywhere = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}], "UserIdGroupPairs": []}
    return {
        "GroupId": one.id,
        "GroupName": one.name,
        "Description": one.description,
        "VpcId": one.vpc,
        "OwnerId": region.account,
        "IpPermissions": [dict(rule) for rule in one.ingress],
        "IpPermissionsEgress": [anywhere],
        "Tags": tag_list(one.tags),
    }


def _is_shown(region: Region, one: Volume) -> bool:
    return one.attachment is not None and one.attachment.since <= region.now


def _attached(one: Volume) -> Shown:
    assert one.attachment is not None
    return {
        "DeviceName": one.attachment.device,
        "Ebs": {
            "VolumeId": one.id,
            "AttachTime": moment(one.attachment.since),
            "DeleteOnTermination": one.attachment.delete_on_termination,
            "Status": one.attachment.state,
        },
    }


def _device(one: Device, *, shows_snapshot: bool) -> Shown:
    ebs: Shown = {
        "DeleteOnTermination": one.delete_on_termination,
        "VolumeType": one.type,
        "Encrypted": one.encrypted,
    }
    if one.snapshot is not None and shows_snapshot:
        ebs["SnapshotId"] = one.snapshot
    for name, value in (("VolumeSize", one.size), ("Iops", one.iops), ("Throughput", one.throughput)):
        if value is not None:
            ebs[name] = value
    return {"DeviceName": one.device, "Ebs": ebs}


def _boot(boot: BootAttributes) -> Shown:
    item: Shown = {
        "Architecture": boot.architecture,
        "VirtualizationType": boot.virtualization,
        "RootDeviceName": boot.root_device,
        "EnaSupport": boot.ena,
        "PlatformDetails": boot.platform_details,
        "UsageOperation": boot.usage_operation,
    }
    for name, value in (
        ("BootMode", boot.boot_mode),
        ("TpmSupport", boot.tpm),
        ("SriovNetSupport", boot.sriov),
    ):
        if value is not None:
            item[name] = value
    if boot.platform_details.startswith("Windows"):
        item["Platform"] = "windows"
    return item


def _groups(region: Region, ids: tuple[str, ...]) -> list[Shown]:
    known = region.networks.groups
    return [{"GroupId": one, "GroupName": known[one].name if one in known else ""} for one in ids]


def _interface(one: Instance) -> Shown:
    return {
        "NetworkInterfaceId": f"eni-{one.id[2:]}",
        "SubnetId": one.subnet,
        "VpcId": one.vpc,
        "PrivateIpAddress": one.private_address,
        "Status": "in-use",
        "SourceDestCheck": one.source_dest_check,
    }


def _progress(one: Snapshot, now: float) -> str:
    if one.state == "completed":
        return "100%"
    share = (now - one.started) / (one.due - one.started) if one.due > one.started else 0.0
    return f"{min(99, max(0, int(share * 100)))}%"
