"""What EC2 offers in one account and region: base images by name, types, and places to launch into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from devboxd.aws.calls import Calls
from devboxd.aws.look import PAGE, image
from devboxd.aws.store import plain
from devboxd.errors import BadRequest, Missing
from devboxd.model.offer import Base, Ground, MachineType, Parameter, is_image_id, where
from devboxd.model.project import Place

MANAGED: Final = "devbox:managed"
SUBNET: Final = "devbox:subnet"  # public or private, on the subnets of ``init account``

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OffersApi:
    """See the module. ``prefix`` is that of ``init account``. Errors are those of ``Calls``, and BadRequest."""

    account: Calls
    region: str
    prefix: str = "devbox"

    async def base(self, name: str, architecture: str) -> Base:
        """The newest base image of this name, or the image of this id."""
        if is_image_id(name):
            found = await self._images(ImageIds=[name])
        else:
            found = await self._named(name, architecture)
        if not found:
            raise BadRequest(f"there is no image {name} for {architecture} in this region")
        newest = max(found, key=lambda one: str(one.get("CreationDate", "")))
        shown = image(newest)
        if shown.boot.architecture != architecture:
            raise BadRequest(f"{name} is for {shown.boot.architecture}, the type for {architecture}")
        if newest.get("RootDeviceType", "ebs") != "ebs":
            raise BadRequest(f"{name} keeps its root on the instance: nothing of it could be saved")
        return Base(shown.id, shown.name, shown.boot, shown.disks)

    async def _named(self, name: str, architecture: str) -> list[dict[str, Any]]:
        match where(name, architecture):
            case Parameter(path=path):
                try:
                    answer = await self.account.call("ssm", "get_parameter", Name=path)
                except Missing:
                    return []
                return await self._images(ImageIds=[answer["Parameter"]["Value"]])
            case search:
                return await self._images(
                    Owners=[search.owner],
                    Filters=[
                        {"Name": "name", "Values": [search.pattern]},
                        {"Name": "state", "Values": ["available"]},
                    ],
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
        answer = await self.account.call("ec2", "describe_instance_types", InstanceTypes=list(names))
        by_name = {item["InstanceType"]: _type(item) for item in answer["InstanceTypes"]}
        if lacking := [name for name in names if name not in by_name]:
            raise BadRequest(f"there is no type {lacking[0]} in this region")
        return tuple(by_name[name] for name in names)

    async def ground(self, types: Sequence[str], zone: str | None = None) -> Ground:
        """Where these types can go: the network of ``init account``, or else the default one.

        Raises:
            BadRequest: there is no network, or none of its zones offers any of the types.
        """
        subnets = await self._subnets([{"Name": f"tag:{MANAGED}", "Values": [self.prefix]}])
        managed = bool(subnets)
        if not subnets:
            subnets = await self._subnets([{"Name": "default-for-az", "Values": ["true"]}])
        if not subnets:
            raise BadRequest(
                "there is no network to launch into",
                hint="devboxctl init account makes one, without inbound rules",
            )
        offered = await self._offered(types)
        open_to_all = [one for one in subnets if _tag(one, SUBNET) != "private"] or subnets
        places = tuple(
            Place(name, subnet["AvailabilityZone"], subnet["SubnetId"])
            for name in types
            for subnet in sorted(open_to_all, key=lambda one: str(one["AvailabilityZone"]))
            if (name, subnet["AvailabilityZone"]) in offered and zone in (None, subnet["AvailabilityZone"])
        )
        if not places:
            raise BadRequest(
                f"no zone of the network offers {', '.join(types)}" + (f" ({zone})" if zone else "")
            )
        if not managed:
            return Ground(places)
        profile = f"{self.prefix}-{self.region}-box"
        return Ground(places, await self._groups(str(subnets[0]["VpcId"])), profile)

    async def table(self, name: str) -> list[dict[str, Any]]:
        """All items of a DynamoDB table, as plain values: for taking over what another tool wrote there."""
        items = await self.account.pages("dynamodb", "scan", "Items", TableName=name)
        return [{key: plain(value) for key, value in item.items()} for item in items]

    async def _subnets(self, filters: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return await self.account.pages(
            "ec2", "describe_subnets", "Subnets", Filters=filters, PaginationConfig=PAGE
        )

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
    )


def _tag(item: Item, key: str) -> str | None:
    return next((one.get("Value") for one in item.get("Tags", ()) if one["Key"] == key), None)
