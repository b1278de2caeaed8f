"""Base images by name: a public parameter, and a search where there is none or nobody may read it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from devboxd.aws.calls import Calls
from devboxd.aws.offers import OffersApi
from devboxd.errors import BadRequest, Denied, DevboxError, Missing
from devboxd.model.offer import NAMES, Parameter, where

REFUSED = Denied("AWS does not allow ssm:GetParameter")


def listed(image: str, created: str) -> dict[str, Any]:
    return {
        "ImageId": image,
        "Name": f"made {created}",
        "CreationDate": created,
        "Architecture": "arm64",
        "RootDeviceType": "ebs",
        "State": "available",
        "BlockDeviceMappings": [],
    }


class Account:
    """An account in which a parameter says one thing, and a search finds another."""

    region = "eu-central-1"

    def __init__(self, parameter: str | DevboxError, *found: dict[str, Any]) -> None:
        self.parameter, self.found = parameter, found
        self.searched: list[dict[str, Any]] = []

    async def call(self, service: str, operation: str, **request: Any) -> dict[str, Any]:
        if operation == "get_parameter":
            if isinstance(self.parameter, DevboxError):
                raise self.parameter
            return {"Parameter": {"Value": self.parameter}}
        assert (service, operation) == ("ec2", "describe_images")
        if "ImageIds" in request:
            if request["ImageIds"] == ["ami-0deadbeef"]:
                raise Missing("it was deregistered")
            return {"Images": [listed(request["ImageIds"][0], "2026-01-01T00:00:00.000Z")]}
        self.searched.append(request)
        return {"Images": list(self.found)}

    async def base(self, name: str = "ubuntu-24.04") -> str:
        return (await OffersApi(cast(Calls, self), self.region).base(name, "arm64")).image


@pytest.mark.parametrize("parameter", [Missing("no such parameter"), REFUSED, "ami-0deadbeef"])
async def test_what_no_parameter_names_is_searched(parameter: str | DevboxError) -> None:
    account = Account(
        parameter,
        listed("ami-00000001", "2026-05-01T00:00:00.000Z"),
        listed("ami-00000002", "2026-06-01T00:00:00.000Z"),
    )
    assert await account.base() == "ami-00000002", "the newest"
    (request,) = account.searched
    assert request["Owners"] == ["099720109477"]
    by_name = {one["Name"]: one["Values"] for one in request["Filters"]}
    assert by_name["name"] == ["ubuntu/images/hvm-ssd*/ubuntu-*-24.04-arm64-server-*"]
    assert by_name["architecture"] == ["arm64"]
    assert by_name["state"] == ["available"]


async def test_what_a_parameter_names_is_not_searched() -> None:
    account = Account("ami-00000009", listed("ami-00000001", "2026-05-01T00:00:00.000Z"))
    assert await account.base() == "ami-00000009"
    assert account.searched == []


async def test_what_is_nowhere_says_so_and_a_refusal_is_told() -> None:
    with pytest.raises(BadRequest, match=r"there is no image ubuntu-24\.04 for arm64"):
        await Account(Missing("none")).base()
    with pytest.raises(Denied, match="ssm:GetParameter"):
        await Account(REFUSED).base()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("architecture", ["arm64", "x86_64"])
def test_every_name_is_whole(name: str, architecture: str) -> None:
    found = where(name, architecture)
    search = found.otherwise if isinstance(found, Parameter) else found
    for text in (search.pattern, found.path if isinstance(found, Parameter) else search.owner):
        assert "{" not in text
        assert text.isprintable()
