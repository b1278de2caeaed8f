"""A whole life against an EC2 that others wrote: aiobotocore to moto's server.

What aws-semantics 15 lists as missing there is added, and nothing else: an image has a tagged snapshot of each volume,
and LaunchTime changes at a start. Everything that is said, tagged, filtered and shown is moto's.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devboxd.control.lifecycle.order import LaunchWish
from devboxd.model import tags
from devboxd.model.policy import Audience, Place, policy
from devboxd.model.project import Phase, Policy, Quality
from tests.lifecycle.test_simulator import daemon, until

pytest.importorskip("moto")
pytest.importorskip("flask")
ACCOUNT, REGION = "123456789012", "us-east-1"


@pytest.fixture
def ec2(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """moto's EC2 behind a server on loopback, with the settings that lead there; yields its tables."""
    from moto.backends import get_backend
    from moto.ec2.models.amis import Ami, AmiBackend
    from moto.ec2.models.instances import Instance
    from moto.server import ThreadedMotoServer

    def create_image(
        self: Any, instance_id: str, name: str, description: str, tag_specifications: list[dict[str, Any]]
    ) -> Any:
        own = {one["ResourceType"]: one["Tags"] for one in tag_specifications}
        made: Any = plain(
            self,
            instance_id,
            name,
            description,
            [s for s in tag_specifications if s["ResourceType"] != "snapshot"],
        )
        made.saved = {}
        for device, held in self.get_instance(instance_id).block_device_mapping.items():
            snapshot = self.create_snapshot(held.volume_id, "", from_ami=made.id)
            snapshot.add_tags({one["Key"]: one["Value"] for one in own["snapshot"]})
            made.saved[device] = snapshot
        return made

    def mappings(self: Any) -> list[dict[str, Any]]:
        saved = getattr(self, "saved", None) or {self.root_device_name: self.ebs_snapshot}
        return [
            {
                "DeviceName": device,
                "Ebs": {"SnapshotId": one.id, "VolumeSize": one.volume.size, "VolumeType": "gp3"},
            }
            for device, one in saved.items()
        ]

    def start(self: Any) -> Any:
        before = started(self)
        self.launch_time = self.launch_time + datetime.timedelta(seconds=61)
        return before

    plain, started = AmiBackend.create_image, Instance.start
    monkeypatch.setattr(AmiBackend, "create_image", create_image)
    monkeypatch.setattr(Ami, "block_device_mappings", property(mappings))
    monkeypatch.setattr(Instance, "start", start)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        "MOTO_EC2_LOAD_DEFAULT_AMIS": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    table = get_backend("ec2")[ACCOUNT][REGION]
    table.reset()
    people = get_backend("iam")[ACCOUNT]["aws"]
    people.reset()
    people.create_instance_profile("devbox", "/", [])
    try:
        yield table
    finally:
        server.stop()
        table.reset()
        people.reset()


async def test_launch_save_start_and_launch_again(ec2: Any, tmp_path: Path) -> None:
    """READY from what was saved of each volume, warm and cold, and nothing is left over."""
    base = ec2.register_image("base")
    base.architecture, base.root_device_type = "x86_64", "ebs"
    async with daemon(tmp_path) as projects:
        wish = LaunchWish(profile="devbox", types=("t3.small",), base=base.id, policy=Policy(grace=1.0))
        await projects.launch("work", wish)
        row = (await until(projects, "work", Phase.RUNNING)).project
        first = ec2.get_instance(row.instance)
        held = {device: one.volume_id for device, one in first.block_device_mapping.items()}
        assert held
        assert not any(one.delete_on_termination for one in first.block_device_mapping.values())

        await projects.stop("work")
        await until(projects, "work", Phase.WARM)
        await projects.up("work")
        again = await until(projects, "work", Phase.RUNNING)
        assert again.project.instance == row.instance

        await projects.terminate("work")
        done = await until(projects, "work", Phase.READY)
        newest = done.generations[-1]
        assert newest.quality is Quality.CLEAN
        assert {disk.device: disk.volume for disk in newest.disks} == held
        assert first.state == "terminated"

        await projects.up("work")
        second = await until(projects, "work", Phase.RUNNING)
        box = ec2.get_instance(second.project.instance)
        assert (box.id != first.id, box.image_id) == (True, newest.image)
        await until(projects, "work", lambda _: not set(held.values()) & set(ec2.volumes))
    kept = {one.image for one in second.generations}
    ours = [one for one in ec2.amis.values() if any(t["key"] == tags.UID for t in one.get_tags())]
    assert {one.id for one in ours} == kept


@pytest.fixture
def ann(ec2: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """moto asks its IAM: the daemon is a user who has what ``iam policy --for user`` prints. All refusals.

    moto knows actions and signatures, and neither resources nor conditions: those are tried in tests/iac/test_calls.
    """
    from moto import settings
    from moto.backends import get_backend
    from moto.core.authorization import ActionAuthenticatorMixin
    from moto.iam.access_control import IAMRequest

    def refuse(self: Any) -> None:
        refused.append(self._action)
        plain(self)

    refused: list[str] = []
    plain = IAMRequest._raise_access_denied
    monkeypatch.setattr(IAMRequest, "_raise_access_denied", refuse)
    iam = get_backend("iam")[ACCOUNT]["aws"]
    iam.create_user(REGION, "ann")
    place = Place("aws", REGION, ACCOUNT, "devbox")
    for audience in (Audience.CONNECT, Audience.USER):
        document = policy(audience, place)
        document["Statement"] = [one | {"Resource": "*", "Condition": {}} for one in document["Statement"]]
        iam.put_user_policy("ann", audience, json.dumps(document))
    key = iam.create_access_key("ann")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key.secret_access_key)
    monkeypatch.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0.0)
    monkeypatch.setattr(ActionAuthenticatorMixin, "request_count", 1)
    return refused


async def test_a_user_who_has_our_policies_is_refused_nothing(
    ec2: Any, ann: list[str], tmp_path: Path
) -> None:
    """The same life, and IAM looks at every call."""
    await test_launch_save_start_and_launch_again(ec2, tmp_path)
    assert ann == []


async def test_a_user_who_lacks_one_is_told_which(ec2: Any, ann: list[str], tmp_path: Path) -> None:
    """Or the test above says nothing."""
    from moto.backends import get_backend

    iam = get_backend("iam")[ACCOUNT]["aws"]
    document = json.loads(iam.get_user_policy("ann", Audience.USER)["policy_document"])
    for statement in document["Statement"]:
        statement["Action"] = [one for one in statement["Action"] if one != "ec2:RunInstances"] or [
            "ec2:None"
        ]
    iam.put_user_policy("ann", Audience.USER, json.dumps(document))
    base = ec2.register_image("base")
    base.architecture, base.root_device_type = "x86_64", "ebs"
    async with daemon(tmp_path) as projects:
        wish = LaunchWish(profile="devbox", types=("t3.small",), base=base.id, policy=Policy(grace=1.0))
        await projects.launch("work", wish)
        row = (await until(projects, "work", lambda one: bool(one.reason))).project
    assert (row.phase, ann) == (Phase.ABSENT, ["ec2:RunInstances"])
    assert row.reason.startswith("AWS does not allow ec2:RunInstances")
