"""Boxes that are there before anybody calls: the demo's, and other people's beside ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from devboxd.simulator.ec2 import catalogue
from devboxd.simulator.ec2.faults import CONSOLE
from devboxd.simulator.ec2.model import Ec2Model
from devboxd.simulator.ec2.records import Instance, InstanceState

_AGE: Final = 3600.0  # seconds since a box that was always there was launched
_AMAZON_LINUX: Final = 0  # in catalogue.PUBLISHED
PROFILE: Final = "devbox"


def box(model: Ec2Model, name: str, *, runs: bool = True, now: float, type_: str = "m7g.large") -> Instance:
    """Put an instance in place, as if launched an hour ago. Zones take turns."""
    zones = model.region.networks.zones
    made = _launch(
        model, name, now=now, type_=type_, zone=zones[len(model.tables.instances) % len(zones)].name
    )
    for volume in model.tables.volumes_of(made.id):
        assert volume.attachment is not None
        born = replace(volume.attachment, since=now - _AGE)
        model.region.put(replace(volume, created=now - _AGE, attachment=born))
    instance = replace(
        made,
        state=InstanceState.RUNNING if runs else InstanceState.STOPPED,
        launched=float(int(now - _AGE)),
        running_since=now - _AGE if runs else None,
        serial=made.serial + 1,
    )
    model.region.put(instance)
    return instance


def foreigners(model: Ec2Model, *, now: float, project: str = "demo") -> list[str]:
    """Other people's things in the same account, made to be mistaken for ours. Returns all their ids.

    A box and an image of another owner for a project of the same name, one without any tag, a volume that
    nobody uses, and a snapshot of it.
    """
    before = _ids(model)
    tags = {
        "devbox:owner": "somebody-else",
        "devbox:project": project,
        "devbox:run": "r1",
        "devbox:save": "r1-1",
    }
    theirs = box(model, project, now=now)
    _call(model, now, "CreateTags", Resources=[theirs.id], Tags=_list(tags))
    box(model, "build-server", runs=False, now=now)
    volume = _call(model, now, "CreateVolume", AvailabilityZone=theirs.zone, Size=8)["VolumeId"]
    _call(model, now, "CreateSnapshot", VolumeId=volume)
    _call(
        model, now, "CreateImage", InstanceId=theirs.id, Name=f"devbox/{project}/theirs", NoReboot=True,
        TagSpecifications=[{"ResourceType": kind, "Tags": _list(tags)} for kind in ("image", "snapshot")],
    )  # fmt: skip
    return sorted(_ids(model) - before)


def _launch(model: Ec2Model, name: str, *, now: float, type_: str, zone: str) -> Instance:
    answer = _call(
        model, now, "RunInstances",
        ImageId=catalogue.newest(model.region.name, _AMAZON_LINUX, "arm64"),
        InstanceType=type_, MinCount=1, MaxCount=1,
        Placement={"AvailabilityZone": zone},
        IamInstanceProfile={"Name": PROFILE},
        TagSpecifications=[{"ResourceType": "instance", "Tags": _list({"Name": name})}],
    )  # fmt: skip
    return model.tables.instances[answer["Instances"][0]["InstanceId"]]


def _call(model: Ec2Model, now: float, operation: str, **params: Any) -> dict[str, Any]:
    return model.call(operation, params, now=now, caller=CONSOLE)


def _list(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _ids(model: Ec2Model) -> set[str]:
    tables = model.tables
    return {*tables.instances, *tables.volumes, *tables.snapshots, *tables.images}
