"""The rules that moto keeps, too: one suite on the model and on moto, so that they are not only our reading."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from botocore import xform_name
from botocore.exceptions import ClientError

from devboxd.simulator.ec2.errors import Ec2Error
from tests.simulator.ec2.kit import Account


class Moto:
    """moto's EC2 behind a real client, with the calls of ``Account``."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def call(self, operation: str, **params: Any) -> dict[str, Any]:
        """One call."""
        try:
            answer: dict[str, Any] = getattr(self._client, xform_name(operation))(**params)
        except ClientError as error:
            raise Ec2Error(error.response["Error"]["Code"], str(error)) from error
        return answer

    def refused(self, operation: str, **params: Any) -> str:
        """One call that must be refused; returns the code."""
        with pytest.raises(Ec2Error) as error:
            self.call(operation, **params)
        return error.value.code

    def settle(self) -> None:
        """Everything is done at once here."""


class Ours(Account):
    """The model, where things take time."""

    def settle(self) -> None:
        """Wait until nothing is in between any more."""
        self.wait(2000)


@pytest.fixture(params=["model", "moto"])
def ec2(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Both, by turns."""
    if request.param == "model":
        yield Ours()
        return
    moto = pytest.importorskip("moto")
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "testing")
    monkeypatch.setenv(
        "MOTO_EC2_LOAD_DEFAULT_AMIS", "true"
    )  # a simulator in this process has set it otherwise
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with moto.mock_aws():
        yield Moto(botocore.session.get_session().create_client("ec2", "us-east-1"))


def any_image(ec2: Any) -> str:
    """Some public image for x86."""
    wanted = [{"Name": "architecture", "Values": ["x86_64"]}, {"Name": "root-device-type", "Values": ["ebs"]}]
    images = ec2.call("DescribeImages", Filters=wanted)["Images"]
    return str(next(one["ImageId"] for one in images if one.get("Platform") != "windows"))


def launched(ec2: Any, **params: Any) -> str:
    """A small box that runs."""
    answer = ec2.call(
        "RunInstances", **({"ImageId": any_image(ec2), "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1} | params)
    )  # fmt: skip
    ec2.settle()
    return str(answer["Instances"][0]["InstanceId"])


def state(ec2: Any, box: str) -> str:
    """What DescribeInstances says."""
    answer = ec2.call("DescribeInstances", InstanceIds=[box])
    return str(answer["Reservations"][0]["Instances"][0]["State"]["Name"])


def test_both_protect_from_termination(ec2: Any) -> None:
    box = launched(ec2)
    ec2.call("ModifyInstanceAttribute", InstanceId=box, DisableApiTermination={"Value": True})
    assert ec2.refused("TerminateInstances", InstanceIds=[box]) == "OperationNotPermitted"
    ec2.call("ModifyInstanceAttribute", InstanceId=box, DisableApiTermination={"Value": False})
    ec2.call("TerminateInstances", InstanceIds=[box])
    ec2.settle()
    assert state(ec2, box) == "terminated"


def test_both_keep_a_volume_that_is_not_deleted_on_termination(ec2: Any) -> None:
    answer = ec2.call("DescribeImages", ImageIds=[any_image(ec2)])["Images"][0]
    device = {
        "DeviceName": answer["RootDeviceName"],
        "Ebs": {"DeleteOnTermination": False, "VolumeSize": 100},
    }
    box = launched(ec2, BlockDeviceMappings=[device])
    attached = [{"Name": "attachment.instance-id", "Values": [box]}]
    (volume,) = ec2.call("DescribeVolumes", Filters=attached)["Volumes"]
    assert ec2.refused("DeleteVolume", VolumeId=volume["VolumeId"]) == "VolumeInUse"
    ec2.call("TerminateInstances", InstanceIds=[box])
    ec2.settle()
    (volume,) = ec2.call("DescribeVolumes", VolumeIds=[volume["VolumeId"]])["Volumes"]
    assert (volume["State"], volume["Size"]) == ("available", 100)
    ec2.call("DeleteVolume", VolumeId=volume["VolumeId"])


def test_both_stop_start_and_find_by_state(ec2: Any) -> None:
    box = launched(ec2)
    stopped = [{"Name": "instance-state-name", "Values": ["stopped"]}]
    assert not ec2.call("DescribeInstances", Filters=stopped)["Reservations"]
    ec2.call("StopInstances", InstanceIds=[box])
    ec2.settle()
    assert len(ec2.call("DescribeInstances", Filters=stopped)["Reservations"]) == 1
    ec2.call("StartInstances", InstanceIds=[box])
    ec2.settle()
    assert state(ec2, box) == "running"


def test_both_find_by_tag_and_change_tags(ec2: Any) -> None:
    tags = [{"ResourceType": kind, "Tags": [{"Key": "p", "Value": "x"}]} for kind in ("instance", "volume")]
    box = launched(ec2, TagSpecifications=tags)
    launched(ec2)
    by_tag = {"Filters": [{"Name": "tag:p", "Values": ["x"]}]}
    (launch,) = ec2.call("DescribeInstances", **by_tag)["Reservations"]
    assert [one["InstanceId"] for one in launch["Instances"]] == [box]
    assert len(ec2.call("DescribeVolumes", **by_tag)["Volumes"]) == 1
    ec2.call("CreateTags", Resources=[box], Tags=[{"Key": "q", "Value": "1"}])
    ec2.call("DeleteTags", Resources=[box], Tags=[{"Key": "p"}])
    tags_now = ec2.call("DescribeTags", Filters=[{"Name": "resource-id", "Values": [box]}])["Tags"]
    assert [(one["Key"], one["Value"], one["ResourceType"]) for one in tags_now] == [("q", "1", "instance")]


@pytest.mark.parametrize(
    ("operation", "params", "code"),
    [
        ("StopInstances", {"InstanceIds": ["i-0123456789abcdef0"]}, "InvalidInstanceID.NotFound"),
        ("DescribeInstances", {"InstanceIds": ["i-0123456789abcdef0"]}, "InvalidInstanceID.NotFound"),
        ("DeleteVolume", {"VolumeId": "vol-0123456789abcdef0"}, "InvalidVolume.NotFound"),
        ("DescribeVolumes", {"VolumeIds": ["vol-0123456789abcdef0"]}, "InvalidVolume.NotFound"),
        ("CreateSnapshot", {"VolumeId": "vol-0123456789abcdef0"}, "InvalidVolume.NotFound"),
        ("DeleteSnapshot", {"SnapshotId": "snap-0123456789abcdef0"}, "InvalidSnapshot.NotFound"),
        ("DescribeSnapshots", {"SnapshotIds": ["snap-0123456789abcdef0"]}, "InvalidSnapshot.NotFound"),
        ("DescribeImages", {"ImageIds": ["ami-0123456789abcdef0"]}, "InvalidAMIID.NotFound"),
        ("DescribeSubnets", {"SubnetIds": ["subnet-0123456789abcdef0"]}, "InvalidSubnetID.NotFound"),
        ("DescribeVpcs", {"VpcIds": ["vpc-0123456789abcdef0"]}, "InvalidVpcID.NotFound"),
        ("DescribeSecurityGroups", {"GroupIds": ["sg-0123456789abcdef0"]}, "InvalidGroup.NotFound"),
        ("DescribeRegions", {"DryRun": True}, "DryRunOperation"),
    ],
)  # fmt: skip
def test_both_say_not_found_in_the_same_words(
    ec2: Any, operation: str, params: dict[str, Any], code: str
) -> None:
    assert ec2.refused(operation, **params) == code


def test_both_show_every_key_that_we_read(ec2: Any) -> None:
    """The keys of ours that moto lacks would be invented; those of the API model are checked above."""
    box = launched(ec2)
    shown = ec2.call("DescribeInstances", InstanceIds=[box])["Reservations"][0]["Instances"][0]
    for key in ("Architecture", "BlockDeviceMappings", "ImageId", "InstanceType", "LaunchTime", "Placement",
                "PrivateIpAddress", "RootDeviceName", "State", "SubnetId", "VpcId"):  # fmt: skip
        assert shown[key], key
    assert shown["Placement"]["AvailabilityZone"].startswith("us-east-1")
