"""Tags: rules, tagging while creating, CreateTags and DeleteTags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from devboxd.simulator.ec2.errors import Ec2Error, invalid, not_found
from devboxd.simulator.ec2.records import Tags
from devboxd.simulator.ec2.region import Region

_MOST: Final = 50  # tags on one resource
_LONGEST_KEY: Final = 127  # characters; API reference, Tag
_LONGEST_VALUE: Final = 256
TYPES: Final = {
    "i": "instance",
    "vol": "volume",
    "snap": "snapshot",
    "ami": "image",
    "vpc": "vpc",
    "subnet": "subnet",
    "sg": "security-group",
}


def checked(tags: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """A list of Key and Value as a mapping.

    Raises:
        Ec2Error: a key is empty, repeated, reserved or too long, or there are too many.
    """
    found: dict[str, str] = {}
    for tag in tags:
        key, value = tag.get("Key", ""), tag.get("Value", "")
        if not key:
            raise invalid("Tag key cannot be empty.")
        if key.lower().startswith("aws:"):
            raise invalid("Tag keys starting with 'aws:' are reserved for internal use")
        if len(key) > _LONGEST_KEY or len(value) > _LONGEST_VALUE:
            raise invalid(f"Tag '{key[:40]}' exceeds the maximum length of key or value.")
        if key in found:
            raise invalid(f"Duplicate tag key '{key}' specified.")
        found[key] = value
    return _not_too_many(found)


def from_specifications(params: Mapping[str, Any], allowed: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """The TagSpecifications of a creating call: resource type to tags.

    Raises:
        Ec2Error: a type that this call does not create, or bad tags.
    """
    found: dict[str, dict[str, str]] = {}
    for one in params.get("TagSpecifications", []):
        kind = one.get("ResourceType", "")
        if kind not in allowed:
            raise invalid(f"'{kind}' is not a valid taggable resource type for this operation.")
        if kind in found:
            raise invalid(f"Duplicate resource type '{kind}' in the tag specifications.")
        found[kind] = checked(one.get("Tags", []))
    return found


def create_tags(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """CreateTags: all resources or none."""
    new = checked(params["Tags"])
    changed = [_not_too_many({**_tags(region, one), **new}) for one in params["Resources"]]
    for one, tags in zip(params["Resources"], changed, strict=True):
        _set(region, one, tags)
    return {}


def delete_tags(region: Region, params: Mapping[str, Any]) -> dict[str, Any]:
    """DeleteTags. Without a value whatever it is, with one only if it is that; without tags all of ours."""
    wanted = params.get("Tags")
    current = [_tags(region, one) for one in params["Resources"]]
    for one, tags in zip(params["Resources"], current, strict=True):
        left = dict(tags)
        if wanted is None:
            left = {key: value for key, value in left.items() if key.startswith("aws:")}
        for tag in wanted or []:
            if "Value" not in tag or left.get(tag["Key"]) == tag["Value"]:
                left.pop(tag["Key"], None)
        _set(region, one, left)
    return {}


def everything(region: Region) -> list[tuple[str, str, Tags]]:
    """Id, type and tags of all that can have some."""
    tables, nets = region.view(), region.networks
    every: list[Mapping[str, Any]] = [
        tables.instances, tables.volumes, tables.snapshots, tables.images, nets.vpcs, nets.subnets, nets.groups,
    ]  # fmt: skip
    return [
        (one.id, TYPES[one.id.partition("-")[0]], one.tags)
        for table in every
        for one in table.values()
        if getattr(one, "owner", region.account) == region.account
    ]


def _tags(region: Region, resource_id: str) -> Tags:
    record = _resource(region, resource_id)
    tags: Tags = record.tags
    return tags


def _resource(region: Region, resource_id: str) -> Any:
    finders = {"i": region.instance, "vol": region.volume, "snap": region.snapshot, "ami": region.image}
    prefix = resource_id.partition("-")[0]
    if prefix in finders:
        record: Any = finders[prefix](resource_id)
        if getattr(record, "owner", region.account) != region.account:
            raise Ec2Error("UnauthorizedOperation", f"You do not own {resource_id}.", 403)
        return record
    nets = region.networks
    found = nets.vpcs.get(resource_id) or nets.subnets.get(resource_id) or nets.groups.get(resource_id)
    if found is None:
        raise not_found(resource_id)
    return found


def _set(region: Region, resource_id: str, tags: Tags) -> None:
    record = replace(_resource(region, resource_id), tags=tags)
    prefix = resource_id.partition("-")[0]
    if prefix in ("i", "vol", "snap", "ami"):
        region.put(record)
    else:
        nets = region.networks
        tables: dict[str, dict[str, Any]] = {"vpc": nets.vpcs, "subnet": nets.subnets, "sg": nets.groups}
        tables[prefix][resource_id] = record


def _not_too_many(tags: dict[str, str]) -> dict[str, str]:
    if len(tags) > _MOST:
        raise Ec2Error("TagLimitExceeded", "The maximum number of Tags for a resource has been reached.")
    return tags
