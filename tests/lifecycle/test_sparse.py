"""An EC2 that says less than ours, later, and in small pages: no field that it may leave out is leaned on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from devboxd.aws import look
from devboxd.model.project import Phase
from devboxd.model.states import InstanceState
from tests.lifecycle.memory import MemoryStore
from tests.lifecycle.scenarios import up
from tests.lifecycle.scenarios_by_hand import end_in_console
from tests.lifecycle.test_crashes import UID, phase, two_lives, watched
from tests.lifecycle.world import World

Answer = dict[str, Any]
Spare = Callable[[str, Answer], None]


def things(name: str, answer: Answer) -> Iterator[Answer]:
    """Everything that a describe lists."""
    for reservation in answer.get("Reservations", ()):
        yield from reservation["Instances"]
    for key in ("Volumes", "Snapshots", "Images"):
        yield from answer.get(key, ())


def without(*fields: str) -> Spare:
    """These fields are never there."""

    def spare(name: str, answer: Answer) -> None:
        for one in things(name, answer):
            for field in fields:
                one.pop(field, None)

    return spare


def empty(name: str, answer: Answer) -> None:
    """Lists are there and empty, as some are of instances on their way up or down."""
    for one in things(name, answer):
        one["NetworkInterfaces"] = []
        one.setdefault("Tags", [])
        if one.get("State", {}) and isinstance(one["State"], Mapping) and one["State"]["Name"] != "running":
            one["SecurityGroups"] = []


def nothing_while_pending(name: str, answer: Answer) -> None:
    """No mapping, and no zone, until it runs; an image names no snapshot until it is there."""
    for one in things(name, answer):
        state = one.get("State")
        if state == "pending" or (isinstance(state, Mapping) and state["Name"] == "pending"):
            one.pop("BlockDeviceMappings", None)
            one.pop("Placement", None)


def a_faded_end(name: str, answer: Answer) -> None:
    """A terminated instance loses nearly everything before its record goes."""
    for one in things(name, answer):
        state = one.get("State")
        if isinstance(state, Mapping) and state["Name"] == "terminated":
            for field in (
                "BlockDeviceMappings",
                "Placement",
                "StateReason",
                "StateTransitionReason",
                "EbsOptimized",
            ):
                one.pop(field, None)


SPARE: dict[str, Spare] = {
    "reasons": without("StateTransitionReason", "StateReason"),
    "place": without("Placement", "NetworkInterfaces", "PrivateIpAddress", "SubnetId", "VpcId"),
    "client token": without("ClientToken"),
    "billing": without("PlatformDetails", "UsageOperation", "Platform"),
    "dates": without("CreationDate", "CreateTime", "StartTime", "CompletionTime"),
    "progress": without(
        "Progress", "Description", "OwnerId", "Hypervisor", "RootDeviceType", "MultiAttachEnabled"
    ),
    "empty lists": empty,
    "nothing while pending": nothing_while_pending,
    "a faded end": a_faded_end,
}


class Sparse(World):
    """A world whose describes are made so."""

    spare: Spare

    def arrive(self, name: str, params: Mapping[str, Any], caller: str) -> dict[str, Any]:
        answer = super().arrive(name, params, caller)
        if name.startswith("Describe"):
            answer = copy.deepcopy(answer)
            self.spare(name, answer)
        return answer


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest that EC2 makes."""
    monkeypatch.setattr(look, "PAGE", {"PageSize": 5})


@pytest.mark.parametrize("what", SPARE)
def test_two_lives_on_an_ec2_that_says_less(what: str) -> None:
    """Saved, warm, started, released and launched again, and nothing is left over."""
    world = Sparse(MemoryStore(), seed=41)
    world.spare = SPARE[what]
    with watched(world) as oracle:
        two_lives(world)
        assert world.project(UID).head == 3
        oracle.ends_well(UID)


@pytest.mark.parametrize("what", SPARE)
def test_a_rescue_on_an_ec2_that_says_less(what: str) -> None:
    """And what comes up boots."""
    world = Sparse(MemoryStore(), seed=42)
    world.spare = SPARE[what]
    with watched(world) as oracle:
        up(world)
        end_in_console(world, world.project(UID).instance or "")
        world.run_until(phase(world, Phase.READY))
        world.run_for(600)
        oracle.ends_well(UID)


def test_a_record_that_holds_an_id_and_no_more_is_read() -> None:
    """Whatever is not said is not known, and nothing falls over it."""
    box = look.box({"InstanceId": "i-1"})
    assert (box.state, box.launched, box.zone, box.attached, box.token) == (
        InstanceState.UNKNOWN,
        None,
        None,
        (),
        None,
    )
    assert (
        look.box({"InstanceId": "i-1", "BlockDeviceMappings": [{"DeviceName": "/dev/sda1"}]}).attached == ()
    )
    assert look.volume({"VolumeId": "vol-1"}).is_there
    assert look.volume({"VolumeId": "vol-1", "Attachments": []}).attached_to is None
    assert look.snapshot({"SnapshotId": "snap-1"}).state == "unknown"
    image = look.image(
        {"ImageId": "ami-1", "BlockDeviceMappings": [{"VirtualName": "ephemeral0"}, {"Ebs": {}}]}
    )
    assert (image.state, image.snapshots, image.created) == ("unknown", {}, None)
