"""Types that can not boot what a project holds are refused before anything is written, or taken down, for them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from devboxd.control.lifecycle.order import LaunchWish
from devboxd.errors import BadRequest
from devboxd.model.project import Phase, Want
from devboxd.simulator.ec2 import catalogue
from devboxd.simulator.ec2.faults import Fault
from tests.lifecycle.kit import Bench, with_daemon

pytestmark = pytest.mark.looptime


@pytest.mark.parametrize("types", [("m7i.large",), ("t3.small",), ("t4g.small", "t3.small")])
@with_daemon
async def test_a_box_that_was_never_saved_keeps_its_architecture(one: Bench, types: tuple[str, ...]) -> None:
    """A type of another one would be found out when the box is down already."""
    row = await one.launched(types=("t4g.small",))
    wish, says = LaunchWish(types=types), "arm64|architecture"
    with pytest.raises(BadRequest, match=says):
        await one.projects.resize("api", types=types)
    with pytest.raises(BadRequest, match=says):
        await one.projects.launch("api", wish)
    with pytest.raises(BadRequest, match=says):
        await one.projects.plan("api", wish)
    assert (await one.projects.get("api")).project == row


@with_daemon
async def test_an_adopted_box_keeps_its_architecture_before_its_first_save(one: Bench) -> None:
    """No image of ours is under it, and none is put there."""
    donor = await one.launched("donor")
    answer = await one.account.call(
        "ec2",
        "run_instances",
        ImageId=one.model.tables.instances[donor.instance or ""].image,
        InstanceType="t4g.small",
        MinCount=1,
        MaxCount=1,
    )
    (made,) = answer["Instances"]
    await asyncio.sleep(60)
    await one.projects.adopt(made["InstanceId"], "old")
    row = (await one.until("old", lambda row: not row.adopted)).project
    with pytest.raises(BadRequest, match="arm64"):
        await one.projects.resize("old", types=("m7i.large",))
    assert (await one.projects.get("old")).project == row
    now = await one.projects.launch("old", LaunchWish(types=("t4g.large",), profile="box"))
    assert (now.spec.image, now.spec.base) == (row.spec.image, row.spec.base)


@pytest.mark.parametrize(
    ("base", "types", "says"),
    [
        ("ubuntu-24.04", ("m8g.xlarge",), None),
        ("nixos-25.05", ("t2.micro",), None),
        ("uefi-only", ("t2.micro",), "boots by uefi, which t2.micro can not"),
        ("no-ena", ("t3.small",), "lacks ENA support"),
    ],
)
@with_daemon
async def test_boot_mode_and_network_of_the_image_are_looked_at_before_a_launch(
    one: Bench, base: str, types: tuple[str, ...], says: str | None
) -> None:
    """EC2 says of both what a type can."""
    odds: dict[str, dict[str, Any]] = {
        "uefi-only": {"boot_mode": "uefi"},
        "no-ena": {"ena": False, "boot_mode": None},
    }
    odd = odds.get(base)
    asked = LaunchWish(profile="box", types=types, base=odd_image(one, odd) if odd else base)
    if says is None:
        await one.projects.launch("api", asked)
        return
    with pytest.raises(BadRequest, match=says):
        await one.projects.launch("api", asked)
    assert await one.projects.all() == []


def odd_image(one: Bench, odd: dict[str, Any]) -> str:
    """The id of a base image for Intel that was made to be so."""
    images = one.model.tables.images
    image = images[catalogue.newest("us-east-1", 1, "x86_64")]
    images[image.id] = replace(image, boot=replace(image.boot, **odd))
    return image.id


@pytest.mark.parametrize("how", ["launch", "resize"])
@with_daemon
async def test_what_was_never_launched_takes_its_image_for_another_architecture(one: Bench, how: str) -> None:
    """The first launch found no room; the next one is on the other processor, under the same key."""
    key = "arn:aws:kms:us-east-1:123456789012:key/disks"
    fault = one.model.faults.add(Fault("no-capacity", what="*/t4g.small"))
    await one.projects.launch("api", LaunchWish(profile="box", types=("t4g.small",), kms=key))
    await one.until("api", lambda row: row.phase is Phase.ABSENT and row.want is Want.COLD)
    one.model.faults.remove(fault)
    if how == "launch":
        await one.projects.launch("api", LaunchWish(types=("t3.small",)))
    else:
        await one.projects.resize("api", types=("t3.small",))
        await one.projects.up("api")
    row = (await one.until("api", Phase.RUNNING)).project
    instance = one.model.tables.instances[row.instance or ""]
    assert (instance.type, instance.boot.architecture) == ("t3.small", "x86_64")
    assert row.spec.base == "ubuntu-24.04"
    assert [each.kms_key for each in one.model.tables.volumes_of(instance.id)] == [key]


@pytest.mark.parametrize(
    "code",
    [
        "InvalidInstanceAttributeValue",
        "InvalidKMSKey.InvalidState",
        "KMSKeyNotAccessibleFault",
        "UnsupportedOperation",
        "WhoKnows",
    ],
)
@pytest.mark.parametrize("operation", ["StartInstances", "ModifyInstanceAttribute"])
@with_daemon
async def test_a_start_that_is_refused_for_good_ends(one: Bench, operation: str, code: str) -> None:
    """With the reason; the box is there, stopped, and starts when that is mended."""
    await one.launched()
    await one.projects.stop("api")
    await one.until("api", Phase.WARM)
    if operation == "ModifyInstanceAttribute":
        await one.projects.resize("api", types=("t4g.large",))
    fault = one.model.faults.add(Fault("refuse", operation=operation, code=code))
    await one.projects.up("api")
    row = (await one.until("api", lambda row: row.phase is Phase.WARM and row.want is Want.WARM)).project
    assert row.reason
    one.model.faults.remove(fault)
    await one.projects.up("api")
    assert (await one.until("api", Phase.RUNNING)).project.instance == row.instance
