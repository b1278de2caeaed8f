"""What each step of the lifecycle says to EC2: valid by botocore's own model, and with every trap avoided."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from msgspec.structs import replace

from devboxd.aws.ec2 import Ec2Api
from devboxd.aws.look import box, image, snapshot, volume
from devboxd.model import step
from devboxd.model.project import Boot, Disk, Place, Run
from devboxd.model.seen import Attached
from devboxd.model.states import InstanceState
from devboxd.simulator.ec2 import shapes

TAGS = {"Name": "api", "devbox:owner": "me"}
RUN = Run(
    1,
    0,
    "ami-0123456789abcdef0",
    (),
    (
        Disk("/dev/xvda", 40, "gp3", 3000, 125),
        Disk("/dev/sdf", 100, "io2", 9000, kms="arn:aws:kms:us-east-1:123456789012:key/k"),
        Disk("/dev/sdg", 10, "gp2", 100),
        Disk("/dev/sdh", 500, "st1"),
    ),
    {},
    profile="box",
    groups=("sg-0123456789abcdef0",),
    user_data="#cloud-config\n",
)
BOOT = Boot("arm64", "uefi", True, "v2.0", "simple", "hvm", "/dev/xvda", "Linux/UNIX", "RunInstances")
SAVED = tuple(replace(disk, snapshot=f"snap-0123456789abcdef{n}") for n, disk in enumerate(RUN.disks))
I, V, S, A = "i-0123456789abcdef0", "vol-0123456789abcdef0", "snap-0123456789abcdef0", "ami-0123456789abcdef0"  # noqa: E741
PLACE = Place("m8g.large", "us-east-1a", "subnet-0123456789abcdef0")
EVERY: list[Any] = [
    step.Launch("uid-1-0", PLACE, RUN, TAGS),
    step.Start(I),
    step.Stop(I),
    step.Stop(I, force=True),
    step.Reboot(I),
    step.Release(I),
    step.Release(I, "sir-12345678"),
    step.Protect(I),
    step.KeepVolumes(I, ("/dev/xvda", "/dev/sdf")),
    step.ChangeType(I, "m8g.xlarge"),
    step.GrowVolume(V, 80),
    step.MakeImage(I, "devbox/api/uid-1", TAGS),
    step.MakeSnapshot(V, "/dev/xvda", TAGS),
    step.MakeImageOf("devbox/api/uid-1", SAVED, BOOT, TAGS),
    step.Tag((V, S), {"devbox:gc": "1700000000"}, "left over"),
    step.DropVolume(V),
    step.DropImage(A),
    step.DropSnapshot(S),
    step.MakeVolume("uid-2-5-0", "us-east-1a", replace(RUN.disks[0], source=S), TAGS),
    step.Attach(V, I, "/dev/sdp"),
    step.TakeOff(V, I, is_up=True),
    step.TakeOff(V, I, force=True),
]


class Nowhere:
    """No account is needed to say what would be called."""

    async def call(self, service: str, operation: str, /, **parameters: Any) -> dict[str, Any]:
        raise AssertionError("nothing is called here")

    async def pages(
        self, service: str, operation: str, key: str, /, **parameters: Any
    ) -> list[dict[str, Any]]:
        raise AssertionError("nothing is called here")


API = Ec2Api(Nowhere())


def said(call: Any) -> dict[str, Any]:
    """The parameters of a step that is one request."""
    ((_, parameters),) = API.requests(call)
    return parameters


def test_every_step_is_here() -> None:
    """A new one has to be checked too."""
    assert {type(call) for call in EVERY} == set(get_args(step.Ec2Call))


@pytest.mark.parametrize("call", EVERY, ids=lambda call: type(call).__name__)
def test_every_request_is_valid_by_botocores_model(call: Any) -> None:
    """Names, types and allowed values."""
    for operation, parameters in API.requests(call):
        name = "".join(part.capitalize() for part in operation.split("_"))
        shapes.check(name, parameters)


def test_a_box_is_born_safe() -> None:
    """Every volume outlives it, it can not be ended by accident, its metadata need a token, and all of it is tagged."""
    request = said(EVERY[0])
    assert [one["Ebs"]["DeleteOnTermination"] for one in request["BlockDeviceMappings"]] == [False] * 4
    assert [one["Ebs"]["Encrypted"] for one in request["BlockDeviceMappings"]] == [True] * 4
    assert request["DisableApiTermination"] is True
    assert request["InstanceInitiatedShutdownBehavior"] == "stop"
    assert request["MetadataOptions"]["HttpTokens"] == "required"
    assert {one["ResourceType"] for one in request["TagSpecifications"]} == {
        "instance",
        "volume",
        "network-interface",
    }
    assert request["ClientToken"] == "uid-1-0"


def test_a_volume_is_made_with_the_speed_that_its_type_may_be_told() -> None:
    """IOPS of a gp2 volume are reported, and refused when given."""
    ebs = [one["Ebs"] for one in said(EVERY[0])["BlockDeviceMappings"]]
    kept = [{k: v for k, v in one.items() if k in ("VolumeType", "Iops", "Throughput")} for one in ebs]
    assert kept == [
        {"VolumeType": "gp3", "Iops": 3000, "Throughput": 125},
        {"VolumeType": "io2", "Iops": 9000},
        {"VolumeType": "gp2"},
        {"VolumeType": "st1"},
    ]
    assert "KmsKeyId" not in ebs[0]
    assert ebs[1]["KmsKeyId"].endswith("key/k")


def test_a_place_is_a_subnet_or_a_zone_or_left_to_ec2() -> None:
    zone = said(step.Launch("t", Place("m8g.large", "us-east-1a"), RUN, TAGS))
    assert (zone["Placement"], "SubnetId" in zone) == ({"AvailabilityZone": "us-east-1a"}, False)
    anywhere = said(step.Launch("t", Place("m8g.large"), RUN, TAGS))
    assert "Placement" not in anywhere
    assert "SubnetId" not in anywhere


def test_spot_is_asked_for_without_what_ec2_refuses_for_it() -> None:
    request = said(step.Launch("t", PLACE, replace(RUN, spot=True), TAGS))
    options = request["InstanceMarketOptions"]["SpotOptions"]
    assert options == {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"}
    assert "spot-instances-request" in {one["ResourceType"] for one in request["TagSpecifications"]}
    assert "DisableApiTermination" not in request


def test_what_the_image_has_not_names_its_snapshot() -> None:
    """A launch from another base: its data volumes come from the generation, its root from the image."""
    data = replace(RUN.disks[1], source=S)
    request = said(
        step.Launch("t", PLACE, replace(RUN, disks=(RUN.disks[0], data), carried=("/dev/sdf",)), TAGS)
    )
    assert [one["Ebs"].get("SnapshotId") for one in request["BlockDeviceMappings"]] == [None, S]


def test_a_copy_of_an_old_root_is_encrypted_tagged_and_made_once() -> None:
    request = said(step.MakeVolume("uid-2-5-0", "us-east-1a", replace(RUN.disks[0], source=S), TAGS))
    assert (request["Encrypted"], request["ClientToken"], request["SnapshotId"]) == (True, "uid-2-5-0", S)
    assert [one["ResourceType"] for one in request["TagSpecifications"]] == ["volume"]
    assert "Iops" not in request
    assert "Force" not in said(step.TakeOff(V, I, is_up=True))


def test_a_profile_may_be_a_name_or_an_arn() -> None:
    arn = "arn:aws:iam::123456789012:instance-profile/box"
    assert said(EVERY[0])["IamInstanceProfile"] == {"Name": "box"}
    assert said(step.Launch("t", PLACE, replace(RUN, profile=arn), TAGS))["IamInstanceProfile"] == {
        "Arn": arn
    }


def test_a_registered_image_restates_everything() -> None:
    """What is not said becomes i386, paravirtual and without ENA."""
    request = said(EVERY[13])
    assert request["Architecture"] == "arm64"
    assert request["VirtualizationType"] == "hvm"
    assert request["EnaSupport"] is True
    assert (request["BootMode"], request["TpmSupport"], request["SriovNetSupport"]) == (
        "uefi",
        "v2.0",
        "simple",
    )
    assert request["RootDeviceName"] == "/dev/xvda"
    assert [one["Ebs"]["SnapshotId"] for one in request["BlockDeviceMappings"]] == [d.snapshot for d in SAVED]
    plain = said(step.MakeImageOf("n", SAVED, replace(BOOT, boot_mode=None, tpm=None), TAGS))
    assert "BootMode" not in plain
    assert "TpmSupport" not in plain


def test_protection_goes_in_the_call_before_the_end() -> None:
    names = [operation for operation, _ in API.requests(step.Release(I))]
    assert names == ["modify_instance_attribute", "terminate_instances"]


def test_the_request_of_a_spot_instance_ends_before_it() -> None:
    """Or EC2 would launch another one for it."""
    names = [operation for operation, _ in API.requests(step.Release(I, "sir-12345678"))]
    assert names == ["cancel_spot_instance_requests", "terminate_instances"]


def test_an_image_never_reboots_a_box() -> None:
    """A call that comes late may meet one that runs again."""
    assert said(EVERY[11])["NoReboot"] is True


# Reading


def test_an_instance_without_most_things_is_read_as_what_it_is() -> None:
    """A terminated one says little, and its tags have faded: the client token has not."""
    seen = box({"InstanceId": I, "State": {"Name": "terminated"}, "ClientToken": "uid-1-0"})
    assert (seen.state, seen.token, seen.attached, seen.launched) == (
        InstanceState.TERMINATED,
        "uid-1-0",
        (),
        None,
    )
    assert box({"InstanceId": I, "State": {"Name": "hibernating"}}).state is InstanceState.UNKNOWN


def test_an_instance_is_read_with_its_disks_and_the_time_it_stopped() -> None:
    seen = box(
        {
            "InstanceId": I,
            "State": {"Name": "stopped"},
            "StateTransitionReason": "User initiated (2026-01-31 10:00:00 GMT)",
            "SpotInstanceRequestId": "sir-12345678",
            "BlockDeviceMappings": [
                {"DeviceName": "/dev/xvda", "Ebs": {"VolumeId": V, "DeleteOnTermination": True}},
                {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
            ],
            "Tags": [{"Key": "devbox:launch", "Value": "uid-1-1"}],
            "ClientToken": "uid-1-0",
        }
    )
    assert seen.attached == (Attached("/dev/xvda", V, True),)
    assert (seen.stopped, seen.spot_request, seen.token) == (1769853600.0, "sir-12345678", "uid-1-1")


def test_marks_and_numbers_of_ours_are_read_and_others_are_not_guessed() -> None:
    """Somebody else may write anything into a tag."""

    def tagged(key: str, value: str) -> dict[str, Any]:
        return {"Tags": [{"Key": key, "Value": value}]}

    assert snapshot({"SnapshotId": S, **tagged("devbox:save", "7")}).save == 7
    for odd in ("", "x", "-1", "1e9", "٣", "99999999999"):
        assert snapshot({"SnapshotId": S, **tagged("devbox:save", odd)}).save is None
    assert volume({"VolumeId": V, **tagged("devbox:gc", "1700000000")}).garbage == 1_700_000_000.0
    assert volume({"VolumeId": V, **tagged("devbox:gc", "soon")}).garbage == float("inf"), "never due"
    assert volume({"VolumeId": V}).garbage is None


def test_an_image_says_what_it_has_and_what_it_lacks() -> None:
    """One without EnaSupport has none: that is what a check compares with."""
    seen = image(
        {
            "ImageId": A,
            "State": "pending",
            "BlockDeviceMappings": [
                {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": S, "VolumeSize": 40, "VolumeType": "gp3"}},
                {"DeviceName": "/dev/sdf", "Ebs": {}},
                {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
            ],
            "CreationDate": "2026-01-31T10:00:00.000Z",
        }
    )
    assert seen.snapshots == {"/dev/xvda": S, "/dev/sdf": None}
    assert (seen.boot.ena, seen.created) == (False, 1769853600.0)
    assert image({"ImageId": A}).snapshots == {}
