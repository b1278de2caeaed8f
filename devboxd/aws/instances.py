"""EC2 instances: look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from devboxd.aws.clients import Caller
from devboxd.errors import BoxNotFound
from devboxd.model.box import Instance
from devboxd.model.states import InstanceState


@dataclass(frozen=True, slots=True)
class InstanceApi:
    """The instances of one account and region. Errors are those of ``Caller.call``."""

    caller: Caller

    async def list(self, *, tags: Mapping[str, str] | None = None) -> list[Instance]:
        """All instances, by page: those with all of ``tags`` (an empty value: the tag with any value)."""
        request: dict[str, Any] = {}
        if tags:
            request["Filters"] = [
                {"Name": f"tag:{key}", "Values": [value]} if value else {"Name": "tag-key", "Values": [key]}
                for key, value in tags.items()
            ]
        return await self._describe(**request)

    async def get(self, instance_id: str) -> Instance | None:
        """One instance; None where this account and region has none of that id."""
        try:
            found = await self._describe(InstanceIds=[instance_id])
        except BoxNotFound:
            return None
        return found[0] if found else None

    async def _describe(self, **request: Any) -> _Instances:
        reservations = await self.caller.pages("ec2", "describe_instances", "Reservations", **request)
        return [_instance(item) for reservation in reservations for item in reservation.get("Instances", ())]


_Instances = list[Instance]  # inside the class, ``list`` is its method


def _instance(item: Mapping[str, Any]) -> Instance:
    tags: Sequence[Mapping[str, str]] = item.get("Tags", ())
    by_key = {tag["Key"]: tag.get("Value", "") for tag in tags}
    launched: datetime | None = item.get("LaunchTime")
    return Instance(
        id=item["InstanceId"],
        name=by_key.get("Name") or None,
        state=InstanceState.read(item.get("State", {}).get("Name")),
        type=item.get("InstanceType"),
        zone=item.get("Placement", {}).get("AvailabilityZone"),
        launched=launched.timestamp() if launched else None,
        private_address=item.get("PrivateIpAddress"),
        platform=item.get("PlatformDetails") or item.get("Platform"),
        tags=by_key,
    )
