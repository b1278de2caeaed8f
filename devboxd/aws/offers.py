"""What EC2 offers in one account and region: base images by name, types, and places to launch into."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import replace

from devboxd.aws.calls import Calls
from devboxd.aws.look import PAGE, image
from devboxd.aws.store import plain
from devboxd.errors import BadRequest, Denied, Missing
from devboxd.model.offer import (
    NAMES,
    Base,
    Ground,
    MachineType,
    Parameter,
    Search,
    Subnet,
    is_image_id,
    where,
)
from devboxd.model.project import Network, Place
from devboxd.model.stack import PREFIX

TYPES_PAGE: Final = {"PageSize": 100}  # the most (API: DescribeInstanceTypes)
MANAGED: Final = "devbox:managed"
SUBNET: Final = "devbox:subnet"  # public or private, on the subnets of ``init account``

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OffersApi:
    """See the module. ``prefix`` is that of ``init account``. Errors are those of ``Calls``, and BadRequest."""

    account: Calls
    region: str
    prefix: str = PREFIX

    async def base(self, name: str, architecture: str) -> Base:
        """The newest base image of this name, or the image of this id."""
        if is_image_id(name):
            found = await self._images(ImageIds=[name])
        else:
            found = await self._named(name, architecture)
        if not found:
            raise BadRequest(
                f"there is no image {name} for {architecture} in this region",
                hint=f"an image id, or another one of: {', '.join(NAMES)}",
            )
        newest = max(found, key=lambda one: str(one.get("CreationDate", "")))
        shown = image(newest)
        if shown.boot.architecture != architecture:
            raise BadRequest(f"{name} is for {shown.boot.architecture}, the type for {architecture}")
        if newest.get("RootDeviceType", "ebs") != "ebs":
            raise BadRequest(f"{name} keeps its root on the instance: nothing of it could be saved")
        boot = shown.boot if "EnaSupport" in newest else replace(shown.boot, ena=None)  # EC2 will say
        return Base(shown.id, shown.name, boot, shown.disks)

    async def _named(self, name: str, architecture: str) -> list[dict[str, Any]]:
        match where(name, architecture):
            case Parameter(path=path, otherwise=search):
                refused: Denied | None = None
                try:
                    answer = await self.account.call("ssm", "get_parameter", Name=path)
                    found = await self._images(ImageIds=[answer["Parameter"]["Value"]])
                except Missing:
                    found = []
                except Denied as error:
                    found, refused = [], error
                found = found or await self._searched(search, architecture)
                if not found and refused is not None:
                    raise refused
                return found
            case search:
                return await self._searched(search, architecture)

    async def _searched(self, search: Search, architecture: str) -> list[dict[str, Any]]:
        filters = {"name": search.pattern, "state": "available", "architecture": architecture}
        return await self._images(
            Owners=[search.owner],
            Filters=[{"Name": name, "Values": [value]} for name, value in filters.items()],
        )

    async def _images(self, **request: Any) -> list[dict[str, Any]]:
        try:
            answer = await self.account.call("ec2", "describe_images", **request)
        except Missing:
            return []
        found: list[dict[str, Any]] = answer["Images"]
        return found

    async def types(self, names: Sequence[str]) -> tuple[MachineType, ...]:
        """These types, in this order; architecture is asked of EC2, never guessed from a name."""
        # By filter: by name EC2 refuses all of them where it does not know one, in words about arguments.
        found = await self.account.pages(
            "ec2",
            "describe_instance_types",
            "InstanceTypes",
            Filters=[{"Name": "instance-type", "Values": list(names)}],
            PaginationConfig=TYPES_PAGE,
        )
        by_name = {item["InstanceType"]: _type(item) for item in found}
        if lacking := [name for name in names if name not in by_name]:
            raise BadRequest(
                f"there is no instance type {lacking[0]} in {self.region}", hint="devboxctl types lists them"
            )
        return tuple(by_name[name] for name in names)

    async def ground(self, types: Sequence[str], chosen: Network) -> Ground:
        """Where these types can go: what was chosen, else the network of ``init account``, else the default one.

        Raises:
            BadRequest: there is no such network, none of its zones offers any of the types, or a security group is
                of another network.
        """
        subnets, is_ours, is_default = await self._network(chosen.subnets)
        offered = await self._offered(types)
        open_to_all = [one for one in subnets if _tag(one, SUBNET) != "private"] or subnets
        places = tuple(
            Place(name, subnet["AvailabilityZone"], subnet["SubnetId"])
            for name in types
            for subnet in sorted(open_to_all, key=lambda one: str(one["AvailabilityZone"]))
            if (name, subnet["AvailabilityZone"]) in offered
            and chosen.zone in (None, subnet["AvailabilityZone"])
        )
        if not places:
            raise _nowhere(types, chosen.zone, open_to_all, offered)
        vpcs = {str(one["VpcId"]) for one in subnets}
        groups = await self._checked_groups(chosen.groups, vpcs) if chosen.groups else ()
        if is_ours and not groups:
            groups = await self._groups(str(subnets[0]["VpcId"]))
        return Ground(
            places,
            groups,
            f"{self.prefix}-{self.region}-box" if is_ours else None,
            tuple(_subnet(one) for one in open_to_all),
            is_default,
        )

    async def _network(self, subnets: Sequence[str]) -> tuple[list[dict[str, Any]], bool, bool]:
        """The subnets; whether they are those of ``init account``; whether they are the default ones."""
        if subnets:
            try:
                found = await self._subnets(SubnetIds=list(subnets))
            except Missing as error:
                raise BadRequest(
                    f"there is no such subnet in this region: {', '.join(subnets)}", hint="look: VPC, Subnets"
                ) from error
            return found, all(_tag(one, MANAGED) == self.prefix for one in found), False
        if found := await self._subnets(Filters=[{"Name": f"tag:{MANAGED}", "Values": [self.prefix]}]):
            return found, True, False
        if found := await self._subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}]):
            return found, False, True
        raise BadRequest(
            f"there is no network to launch into: {self.region} has no default VPC",
            hint="devboxctl init account makes one without inbound rules; or name subnets: --subnet",
        )

    async def table(self, name: str) -> list[dict[str, Any]]:
        """All items of a DynamoDB table, as plain values: for taking over what another tool wrote there."""
        items = await self.account.pages("dynamodb", "scan", "Items", TableName=name)
        return [{key: plain(value) for key, value in item.items()} for item in items]

    async def _subnets(self, **request: Any) -> list[dict[str, Any]]:
        if "SubnetIds" not in request:  # EC2 takes no page size beside ids
            request["PaginationConfig"] = PAGE
        return await self.account.pages("ec2", "describe_subnets", "Subnets", **request)

    async def _checked_groups(self, groups: Sequence[str], vpcs: Container[str]) -> tuple[str, ...]:
        try:
            found = await self.account.pages(
                "ec2", "describe_security_groups", "SecurityGroups", GroupIds=list(groups)
            )
        except (Missing, BadRequest) as error:
            raise BadRequest(
                f"there is no such security group in this region: {', '.join(groups)}",
                hint="give its id: sg-…",
            ) from error
        if strange := next((one for one in found if one["VpcId"] not in vpcs), None):
            raise BadRequest(
                f"the security group {strange['GroupId']} is of another network than the subnets",
                hint="--subnet names the subnets of its network",
            )
        return tuple(groups)

    async def _groups(self, vpc: str) -> tuple[str, ...]:
        filters = [
            {"Name": "vpc-id", "Values": [vpc]},
            {"Name": "group-name", "Values": [f"{self.prefix}-box"]},
        ]
        found = await self.account.pages(
            "ec2", "describe_security_groups", "SecurityGroups", Filters=filters, PaginationConfig=PAGE
        )
        return tuple(one["GroupId"] for one in found)

    async def _offered(self, types: Sequence[str]) -> frozenset[tuple[str, str]]:
        found = await self.account.pages(
            "ec2",
            "describe_instance_type_offerings",
            "InstanceTypeOfferings",
            LocationType="availability-zone",
            Filters=[{"Name": "instance-type", "Values": list(types)}],
            PaginationConfig=PAGE,
        )
        return frozenset((one["InstanceType"], one["Location"]) for one in found)


def _type(item: Item) -> MachineType:
    return MachineType(
        item["InstanceType"],
        tuple(item.get("ProcessorInfo", {}).get("SupportedArchitectures", ())),
        int(item.get("VCpuInfo", {}).get("DefaultVCpus", 0)),
        float(item.get("MemoryInfo", {}).get("SizeInMiB", 0)) / 1024,
        tuple(item.get("SupportedBootModes", ())),
        item.get("NetworkInfo", {}).get("EnaSupport") == "required",
    )


def _nowhere(
    types: Sequence[str],
    zone: str | None,
    subnets: Sequence[Item],
    offered: frozenset[tuple[str, str]],
) -> BadRequest:
    """Why no place is left, and what there would be."""
    names, zones = ", ".join(types), sorted({str(one["AvailabilityZone"]) for one in subnets})
    with_it = [one for one in zones if any((name, one) in offered for name in types)]
    if zone is not None and zone not in zones:
        return BadRequest(f"the network has no subnet in {zone}", hint=f"it has some in: {', '.join(zones)}")
    if zone is not None and with_it:
        return BadRequest(f"{zone} does not offer {names}", hint=f"these zones do: {', '.join(with_it)}")
    return BadRequest(
        f"no zone of the network offers {names}", hint=f"its zones: {', '.join(zones)}; or try another type"
    )


def _subnet(item: Item) -> Subnet:
    return Subnet(
        item["SubnetId"], item["AvailabilityZone"], item["VpcId"], bool(item.get("MapPublicIpOnLaunch"))
    )


def _tag(item: Item, key: str) -> str | None:
    return next((one.get("Value") for one in item.get("Tags", ()) if one["Key"] == key), None)
