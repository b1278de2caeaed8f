"""The describe calls: what to show, filtered and in pages, from the present or by a fault from the past."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from devboxd.model.price import built_in
from devboxd.simulator.ec2 import filters, render, types, volumes
from devboxd.simulator.ec2.errors import Ec2Error, malformed, not_found
from devboxd.simulator.ec2.filters import page, select
from devboxd.simulator.ec2.records import Image, Instance, InstanceState, Snapshot
from devboxd.simulator.ec2.region import ID, Region
from devboxd.simulator.ec2.tags import everything

Params = Mapping[str, Any]
Answer = dict[str, Any]
_REGIONS: Final = ("us-east-1", "us-east-2", "us-west-2", "eu-central-1", "eu-west-1")


def instances(region: Region, params: Params) -> Answer:
    """DescribeInstances, one reservation for each launch."""
    tables = region.view()
    records = _named(region, tables.instances, params.get("InstanceIds"), "i-")
    chosen = _by_tag(records, params)
    attached = tables.attached({one.id for one in chosen})
    shown = [render.instance(region, one, attached.get(one.id, [])) for one in chosen]
    found, following = page(
        params, select(shown, params.get("Filters", []), filters.INSTANCE), ids="InstanceIds"
    )
    launches: dict[str, list[Any]] = {}
    for one in found:
        launches.setdefault(tables.instances[one["InstanceId"]].reservation, []).append(one)
    reservations = [
        {"ReservationId": launch, "OwnerId": region.account, "Groups": [], "Instances": members}
        for launch, members in launches.items()
    ]
    return _answer("Reservations", reservations, following)


def status(region: Region, params: Params) -> Answer:
    """DescribeInstanceStatus."""
    records = _named(region, region.view().instances, params.get("InstanceIds"), "i-")
    wants_all = params.get("IncludeAllInstances", False)
    shown = [_status(region, one) for one in records if wants_all or one.state is InstanceState.RUNNING]
    found, following = page(
        params, select(shown, params.get("Filters", []), filters.STATUS), ids="InstanceIds"
    )
    return _answer("InstanceStatuses", found, following)


def volumes_(region: Region, params: Params) -> Answer:
    """DescribeVolumes."""
    records = _named(region, region.view().volumes, params.get("VolumeIds"), "vol-")
    shown = [render.volume(region, one) for one in _by_tag(records, params)]
    found, following = page(params, select(shown, params.get("Filters", []), filters.VOLUME), ids="VolumeIds")
    return _answer("Volumes", found, following)


def modifications(region: Region, params: Params) -> Answer:
    """DescribeVolumesModifications."""
    records = _named(region, region.tables.volumes, params.get("VolumeIds"), "vol-")
    shown = volumes.modifications(records)
    found, following = page(params, select(shown, params.get("Filters", []), filters.MODIFICATION), least=1)
    return _answer("VolumesModifications", found, following)


def snapshots(region: Region, params: Params) -> Answer:
    """DescribeSnapshots: without an owner also those that others made public."""
    records: Iterable[Snapshot] = _named(region, region.view().snapshots, params.get("SnapshotIds"), "snap-")
    records = [one for one in records if one.owner == region.account or one.is_public]
    if owners := params.get("OwnerIds"):
        wanted = {region.account if owner == "self" else owner for owner in owners}
        records = [one for one in records if one.owner in wanted]
    shown = [render.snapshot(one, region.now) for one in _by_tag(records, params)]
    found, following = page(
        params, select(shown, params.get("Filters", []), filters.SNAPSHOT), ids="SnapshotIds"
    )
    return _answer("Snapshots", found, following)


def images(region: Region, params: Params) -> Answer:
    """DescribeImages: without an owner also those that others made public."""
    records: Iterable[Image] = _named(region, region.view().images, params.get("ImageIds"), "ami-")
    records = [one for one in records if one.owner == region.account or one.is_public]
    if owners := params.get("Owners"):
        wanted = {region.account if owner == "self" else owner for owner in owners}
        records = [one for one in records if one.owner in wanted or one.alias in wanted]
    shown = [render.image(region, one) for one in _by_tag(records, params)]
    found, following = page(params, select(shown, params.get("Filters", []), filters.IMAGE), least=1)
    return _answer("Images", found, following)


def tags(region: Region, params: Params) -> Answer:
    """DescribeTags."""
    shown = [
        {"ResourceId": resource, "ResourceType": kind, "Key": key, "Value": value, "Tags": [{"Key": key, "Value": value}]}
        for resource, kind, tagged in everything(region)
        for key, value in tagged.items()
    ]  # fmt: skip
    found, following = page(params, select(shown, params.get("Filters", []), filters.TAG))
    return _answer("Tags", [{k: v for k, v in one.items() if k != "Tags"} for one in found], following)


def vpcs(region: Region, params: Params) -> Answer:
    """DescribeVpcs."""
    records = _named(region, region.networks.vpcs, params.get("VpcIds"), "vpc-")
    shown = [render.vpc(region, one) for one in records]
    found, following = page(params, select(shown, params.get("Filters", []), filters.VPC), ids="VpcIds")
    return _answer("Vpcs", found, following)


def subnets(region: Region, params: Params) -> Answer:
    """DescribeSubnets."""
    records = _named(region, region.networks.subnets, params.get("SubnetIds"), "subnet-")
    living = [one for one in region.tables.instances.values() if one.state is not InstanceState.TERMINATED]
    shown = [render.subnet(region, one, sum(i.subnet == one.id for i in living)) for one in records]
    found, following = page(params, select(shown, params.get("Filters", []), filters.SUBNET), ids="SubnetIds")
    return _answer("Subnets", found, following)


def groups(region: Region, params: Params) -> Answer:
    """DescribeSecurityGroups."""
    records = _named(region, region.networks.groups, params.get("GroupIds"), "sg-")
    shown = [render.group(region, one) for one in records]
    found, following = page(params, select(shown, params.get("Filters", []), filters.GROUP), ids="GroupIds")
    return _answer("SecurityGroups", found, following)


def zones(region: Region, params: Params) -> Answer:
    """DescribeAvailabilityZones."""
    shown = [
        {
            "ZoneName": zone.name,
            "ZoneId": zone.id,
            "ZoneType": "availability-zone",
            "State": "available",
            "RegionName": region.name,
            "GroupName": region.name,
            "NetworkBorderGroup": region.name,
            "OptInStatus": "opt-in-not-required",
            "Messages": [],
        }
        for zone in region.networks.zones
    ]
    wanted = {*params.get("ZoneNames", []), *params.get("ZoneIds", [])}
    unknown = wanted - {zone.name for zone in region.networks.zones} - {z.id for z in region.networks.zones}
    if unknown:
        raise Ec2Error("InvalidParameterValue", f"Invalid availability zone: [{sorted(unknown)[0]}]")
    if wanted:
        shown = [one for one in shown if {one["ZoneName"], one["ZoneId"]} & wanted]
    return {"AvailabilityZones": select(shown, params.get("Filters", []), filters.ZONE)}


def regions(region: Region, params: Params) -> Answer:
    """DescribeRegions."""
    shown = [
        {"RegionName": name, "Endpoint": f"ec2.{name}.amazonaws.com", "OptInStatus": "opt-in-not-required"}
        for name in sorted({*_REGIONS, region.name})
    ]
    if wanted := params.get("RegionNames"):
        if unknown := set(wanted) - {one["RegionName"] for one in shown}:
            raise Ec2Error("InvalidParameterValue", f"Invalid region names: {', '.join(sorted(unknown))}")
        shown = [one for one in shown if one["RegionName"] in wanted]
    return {"Regions": select(shown, params.get("Filters", []), filters.REGION)}


def instance_types(region: Region, params: Params) -> Answer:
    """DescribeInstanceTypes."""
    wanted = params.get("InstanceTypes") or list(types.TYPES)
    unknown = [name for name in wanted if name not in types.TYPES]
    if unknown:
        raise Ec2Error(
            "InvalidInstanceType",
            f"The following supplied instance types do not exist: [{', '.join(unknown)}]",
        )
    shown = [types.shown(types.TYPES[name]) for name in wanted]
    found, following = page(
        params, select(shown, params.get("Filters", []), filters.TYPE), most=100, ids="InstanceTypes"
    )
    return _answer("InstanceTypes", found, following)


def offerings(region: Region, params: Params) -> Answer:
    """DescribeInstanceTypeOfferings, by region, zone or zone id."""
    by = params.get("LocationType", "region")
    places: list[tuple[str, str]] = [(zone.name, zone.id) for zone in region.networks.zones]
    if by not in ("region", "availability-zone", "availability-zone-id"):
        raise Ec2Error("InvalidParameterValue", f"The location type {by} is not imitated.")
    shown: list[Answer] = []
    for kind in types.TYPES.values():
        offered = [(name, id_) for name, id_ in places if types.is_offered(kind, name)]
        names = (
            [region.name] if by == "region" else [n if by == "availability-zone" else i for n, i in offered]
        )
        shown += [{"InstanceType": kind.name, "LocationType": by, "Location": name} for name in names]
    found, following = page(params, select(shown, params.get("Filters", []), filters.OFFERING))
    return _answer("InstanceTypeOfferings", found, following)


def spot_prices(region: Region, params: Params) -> Answer:
    """DescribeSpotPriceHistory: two fifths of what a type costs on demand, and a tenth more since noon, by zone."""
    start = params.get("StartTime")
    since = start.timestamp() if isinstance(start, datetime) else region.now
    noon = region.now - region.now % 86400.0 + 43200.0
    noon -= 86400.0 if noon > region.now else 0.0
    shown: list[Answer] = []
    rates = built_in(region.name)
    for name in params.get("InstanceTypes") or [one.name for one in types.TYPES.values()]:
        hourly = rates.hourly(name)
        for number, zone in enumerate(region.networks.zones):
            if hourly is None or not types.is_offered(types.TYPES[name], zone.name):
                continue
            price = hourly * (40 + number) / 100
            changes = [(noon, price * 11 / 10), (min(since, noon) - 3600.0, price)]
            for at, amount in changes if noon > since else changes[:1]:
                shown.append(
                    {
                        "InstanceType": name,
                        "ProductDescription": "Linux/UNIX",
                        "AvailabilityZone": zone.name,
                        "SpotPrice": f"{amount:.6f}",
                        "Timestamp": datetime.fromtimestamp(int(at), UTC),
                    }
                )
    wanted = params.get("ProductDescriptions") or ["Linux/UNIX"]
    found, following = page(params, shown if "Linux/UNIX" in wanted else [])
    return _answer("SpotPriceHistory", found, following)


def addresses(region: Region, params: Params) -> Answer:
    """DescribeAddresses: there are no Elastic IPs here."""
    if unknown := [*params.get("AllocationIds", []), *params.get("PublicIps", [])]:
        raise Ec2Error("InvalidAllocationID.NotFound", f"The allocation ID '{unknown[0]}' does not exist")
    return {"Addresses": []}


def _status(region: Region, one: Instance) -> Answer:
    word = "not-applicable"
    if one.state is InstanceState.RUNNING:
        since = one.running_since if one.running_since is not None else region.now
        word = "initializing" if region.now < since + region.delays.checks[0] else "ok"
    instance_word = "impaired" if word == "ok" and not one.boots else word
    return {
        "InstanceId": one.id,
        "AvailabilityZone": one.zone,
        "InstanceState": render.state(one.state),
        "SystemStatus": {"Status": word},
        "InstanceStatus": {"Status": instance_word},
    }


def _named(region: Region, table: Mapping[str, Any], ids: list[str] | None, prefix: str) -> Any:
    """The records of these ids, in their order; all without ids."""
    if not ids:
        return list(table.values())
    for one in ids:
        if not one.startswith(prefix) or not ID.fullmatch(one):
            raise malformed(one, prefix)
    missing = [one for one in ids if one not in table]
    if missing:
        error = not_found(missing[0])
        if prefix == "i-" and len(missing) > 1:
            raise Ec2Error(error.code, f"The instance IDs '{', '.join(missing)}' do not exist")
        raise error
    return [table[one] for one in dict.fromkeys(ids)]


def _by_tag(records: Iterable[Any], params: Params) -> list[Any]:
    """Leave out early what a plain tag filter leaves out anyway: showing is what costs."""
    tests: list[Callable[[Any], bool]] = []
    for one in params.get("Filters", []):
        name, values = one.get("Name", ""), one.get("Values", [])
        if name.startswith("tag:") and not any(c in value for value in values for c in "*?\\"):
            key, wanted = name[4:], frozenset(values)
            tests.append(lambda record, key=key, wanted=wanted: record.tags.get(key) in wanted)  # type: ignore[misc]
    return [record for record in records if all(test(record) for test in tests)]


def _answer(name: str, items: list[Any], following: str | None) -> Answer:
    return {name: items} if following is None else {name: items, "NextToken": following}
