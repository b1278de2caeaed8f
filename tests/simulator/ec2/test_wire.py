"""The query protocol both ways: botocore writes the request and reads the answer, for every call there is."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from hypothesis import given
from hypothesis import strategies as st

from devboxd.simulator.ec2 import catalogue, place, shapes, wire
from devboxd.simulator.ec2.errors import Ec2Error
from devboxd.simulator.ec2.faults import CONSOLE
from devboxd.simulator.ec2.model import OPERATIONS, Ec2Model
from tests.simulator.ec2.kit import DEVICES, START, UBUNTU, Account

SERIALIZER = create_serializer("ec2")
PARSER = create_parser("ec2")
TAGS = [{"Key": "a b", "Value": "<1> & ü"}]


def spoken(operation: str, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters as they arrive, after botocore has written them into a form."""
    request = SERIALIZER.serialize_to_request(params, shapes.operation(operation))
    body = urlencode(request["body"])
    arrived = dict(parse_qsl(body, keep_blank_values=True))
    assert arrived["Action"] == operation
    return wire.decode(arrived)


def heard(operation: str, answer: dict[str, Any]) -> dict[str, Any]:
    """The answer as botocore reads it."""
    response = {"status_code": 200, "headers": {}, "body": wire.encode(operation, answer, "id-1")}
    shape: Any = shapes.operation(operation).output_shape
    parsed: dict[str, Any] = PARSER.parse(response, shape)
    assert parsed.pop("ResponseMetadata")["RequestId"] == "id-1"
    return parsed


class Wired(Account):
    """An account that is reached through the protocol; what arrives must be what was said, both ways."""

    def call(self, operation: str, **params: Any) -> dict[str, Any]:
        assert spoken(operation, params) == params
        answer = super().call(operation, **params)
        assert heard(operation, answer) == answer
        return answer


def test_every_call_passes_both_ways_unchanged() -> None:
    """A box lives and dies over the wire; a call of the model that is missing here fails the test."""
    ec2 = Wired(Ec2Model(now=START, is_throttled=False))
    for name in ("DescribeRegions", "DescribeAvailabilityZones", "DescribeVpcs", "DescribeSubnets",
                 "DescribeSecurityGroups", "DescribeAddresses", "DescribeInstanceTypes"):  # fmt: skip
        ec2.call(name)
    ec2.call("DescribeInstanceTypeOfferings", LocationType="availability-zone", MaxResults=5)
    found = ec2.call(
        "DescribeSpotPriceHistory",
        InstanceTypes=["t4g.small"],
        ProductDescriptions=["Linux/UNIX"],
        StartTime=datetime.fromtimestamp(START - 2 * 86400.0, UTC),
    )["SpotPriceHistory"]
    assert {one["AvailabilityZone"] for one in found} >= {"us-east-1a", "us-east-1b"}
    assert all(0 < float(one["SpotPrice"]) < 0.0168 for one in found)
    specs = [{"ResourceType": kind, "Tags": TAGS} for kind in ("instance", "volume")]
    box = ec2.launch(
        TagSpecifications=specs, ClientToken="t", UserData=base64.b64encode(b"#!").decode(),
        IamInstanceProfile={"Name": "p"}, MetadataOptions={"HttpTokens": "required"}, DisableApiTermination=True,
        Placement={"AvailabilityZone": "us-east-1a"},
    )  # fmt: skip
    data = ec2.volumes(box)["/dev/sdf"].id
    for attribute in ("userData", "blockDeviceMapping", "disableApiTermination", "groupSet"):
        ec2.call("DescribeInstanceAttribute", InstanceId=box, Attribute=attribute)
    ec2.call("ModifyInstanceAttribute", InstanceId=box, DisableApiTermination={"Value": False})
    ec2.call("ModifyInstanceAttribute", InstanceId=box, BlockDeviceMappings=DEVICES[:1])
    ec2.call("ModifyInstanceMetadataOptions", InstanceId=box, HttpPutResponseHopLimit=2)
    ec2.call("GetConsoleOutput", InstanceId=box)
    ec2.call("ModifyVolume", VolumeId=data, Size=30)
    ec2.call("DescribeVolumesModifications", VolumeIds=[data])
    ec2.call("RebootInstances", InstanceIds=[box])
    ec2.call("DescribeInstanceStatus", IncludeAllInstances=True)
    ec2.stop(box)
    ec2.call("ModifyInstanceAttribute", InstanceId=box, UserData={"Value": b"\0binary"})
    image = ec2.image(
        box, TagSpecifications=[{"ResourceType": kind, "Tags": TAGS} for kind in ("image", "snapshot")]
    )
    ec2.wait(20)
    ec2.call("CreateSnapshots", InstanceSpecification={"InstanceId": box}, CopyTagsFromSource="volume")
    ec2.call("StartInstances", InstanceIds=[box])
    ec2.until(lambda: ec2.state(box) == "running")
    ec2.terminate(box)
    made = ec2.call(
        "CreateSnapshot",
        VolumeId=data,
        Description="x",
        TagSpecifications=[{"ResourceType": "snapshot", "Tags": TAGS}],
    )
    ec2.until(lambda: ec2.model.tables.snapshots[made["SnapshotId"]].state == "completed")
    registered = ec2.call(
        "RegisterImage", Name="again", RootDeviceName="/dev/xvda", Architecture="arm64", EnaSupport=True,
        VirtualizationType="hvm", BootMode="uefi", TpmSupport="v2.0", ImdsSupport="v2.0",
        BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": made["SnapshotId"], "VolumeType": "gp3"}}],
    )  # fmt: skip
    ec2.call("CreateTags", Resources=[image, data], Tags=TAGS)
    for name in (
        "DescribeInstances",
        "DescribeVolumes",
        "DescribeSnapshots",
        "DescribeImages",
        "DescribeTags",
    ):
        ec2.call(name)
        ec2.call(name, Filters=[{"Name": "tag-key" if name != "DescribeTags" else "key", "Values": ["a b"]}])
    ec2.call("DeleteTags", Resources=[image], Tags=[{"Key": "a b"}])
    ec2.call("DeregisterImage", ImageId=image, DeleteAssociatedSnapshots=True)
    ec2.until(lambda: ec2.model.tables.images[registered["ImageId"]].state == "available")
    ec2.call("DeregisterImage", ImageId=registered["ImageId"])
    ec2.call("DeleteSnapshot", SnapshotId=made["SnapshotId"])
    ec2.call("DeleteVolume", VolumeId=data)
    volume = ec2.call(
        "CreateVolume", AvailabilityZone="us-east-1a", Size=5, VolumeType="io2", Iops=200, Encrypted=True
    )
    ec2.call("DescribeVolumes", VolumeIds=[volume["VolumeId"]])
    other = ec2.launch(Placement={"AvailabilityZone": "us-east-1a"})
    ec2.until(lambda: ec2.state(other) == "running")
    ec2.call("AttachVolume", VolumeId=volume["VolumeId"], InstanceId=other, Device="/dev/sdp")
    ec2.wait(10)
    ec2.call("DetachVolume", VolumeId=volume["VolumeId"], InstanceId=other)
    spot = ec2.launch(
        InstanceMarketOptions={
            "MarketType": "spot",
            "SpotOptions": {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"},
        }
    )
    (shown,) = ec2.call("DescribeInstances", InstanceIds=[spot])["Reservations"][0]["Instances"]
    ec2.call("CancelSpotInstanceRequests", SpotInstanceRequestIds=[shown["SpotInstanceRequestId"]])
    assert {one.operation for one in ec2.model.history} == set(OPERATIONS)


def test_errors_are_read_by_botocore() -> None:
    body = wire.error_xml("InvalidAMIName.Duplicate", "AMI name <x> & \0 is taken", "id-2")
    no_shape: Any = None
    parsed = PARSER.parse({"status_code": 400, "headers": {}, "body": body}, no_shape)
    assert parsed["Error"] == {"Code": "InvalidAMIName.Duplicate", "Message": "AMI name <x> & ? is taken"}
    assert parsed["ResponseMetadata"]["RequestId"] == "id-2"


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"Action": "NoSuchCall"}, "InvalidAction"),
        ({}, "InvalidAction"),
        ({"Action": "StopInstances", "Colour": "red"}, "UnknownParameter"),
        ({"Action": "StopInstances", "InstanceId.x": "i-1"}, "UnknownParameter"),
        ({"Action": "StopInstances", "InstanceId": "i-1"}, "InvalidParameterValue"),
        ({"Action": "StopInstances", "InstanceId.1.2": "i-1"}, "UnknownParameter"),
        ({"Action": "StopInstances", "InstanceId.1": "i-1", "InstanceId.1.2": "i-1"}, "UnknownParameter"),
        ({"Action": "StopInstances", "InstanceId.1.2": "i-1", "InstanceId.1": "i-1"}, "UnknownParameter"),
        ({"Action": "StopInstances", "Force": "maybe"}, "InvalidParameterValue"),
        ({"Action": "StopInstances", ".".join("x" * 40): "1"}, "UnknownParameter"),
        ({"Action": "DescribeInstances", "MaxResults": "many"}, "InvalidParameterValue"),
        ({"Action": "RunInstances", "Placement": "here"}, "InvalidParameterValue"),
        ({"Action": "ModifyInstanceAttribute", "UserData.Value": "!"}, "InvalidParameterValue"),
    ],
)
def test_a_bad_form_is_refused(form: dict[str, str], code: str) -> None:
    with pytest.raises(Ec2Error) as error:
        wire.decode(form)
    assert error.value.code == code


NAMES = st.lists(
    st.sampled_from(
        [
            "InstanceId",
            "Filter",
            "1",
            "2",
            "Name",
            "Value",
            "Ebs",
            "BlockDeviceMapping",
            "DryRun",
            "Placement",
            "x",
        ]
    ),
    min_size=1,
).map(".".join)


@given(
    st.sampled_from(sorted(OPERATIONS)),
    st.dictionaries(NAMES, st.text(max_size=5), max_size=6),
    st.booleans(),
)
def test_no_form_breaks_the_model(operation: str, form: dict[str, str], is_console: bool) -> None:
    """Whatever arrives is answered or refused with a code: never a traceback, never a half-made thing."""
    model = Ec2Model(now=START, is_throttled=False)
    place.box(model, "api", now=START)
    before = model.tables.copy()
    try:
        params = wire.decode({"Action": operation} | form)
        wire.encode(
            operation, model.call(operation, params, now=START, caller=CONSOLE if is_console else "us"), "i"
        )
    except Ec2Error as refused:
        error = refused
    else:
        return
    assert error.code
    assert model.tables == before
    wire.error_xml(error.code, error.message, "id")


def test_the_public_parameters_name_public_images() -> None:
    ec2 = Account()
    for name, image in catalogue.parameters("us-east-1").items():
        shown = ec2.call("DescribeImages", ImageIds=[image])["Images"][0]
        assert shown["Public"], name
        assert ("arm64" in name) == (shown["Architecture"] == "arm64")
    assert catalogue.newest("us-east-1", UBUNTU, "arm64") in catalogue.parameters("us-east-1").values()
