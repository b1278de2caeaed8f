"""Instances on virtual time: how they come, go and change, and what EC2 refuses."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest

from devboxd.simulator.ec2 import catalogue
from devboxd.simulator.ec2.faults import Fault
from devboxd.simulator.ec2.records import InstanceState
from tests.simulator.ec2.kit import UBUNTU, Account

ZONE_A, ZONE_B = {"AvailabilityZone": "us-east-1a"}, {"AvailabilityZone": "us-east-1b"}


@pytest.fixture
def ec2() -> Account:
    return Account()


def shown(ec2: Account, instance: str) -> dict[str, Any]:
    """What DescribeInstances says of one."""
    answer = ec2.call("DescribeInstances", InstanceIds=[instance])
    found: dict[str, Any] = answer["Reservations"][0]["Instances"][0]
    return found


def subnet(ec2: Account, zone: str) -> str:
    """The default subnet of a zone."""
    answer = ec2.call("DescribeSubnets", Filters=[{"Name": "availability-zone", "Values": [zone]}])
    return str(answer["Subnets"][0]["SubnetId"])


def test_a_box_goes_through_every_state_and_takes_its_time(ec2: Account) -> None:
    """A reconciler that expects final states at once works in a test and fails in an account."""
    box = ec2.pending()
    seen = [ec2.state(box)]
    ec2.until(lambda: ec2.state(box) != seen[-1])
    seen.append(ec2.state(box))
    for call in ("StopInstances", "StartInstances", "TerminateInstances"):
        ec2.call(call, InstanceIds=[box])
        seen.append(ec2.state(box))
        assert ec2.until(lambda: ec2.state(box) != seen[-1]) >= 1
        seen.append(ec2.state(box))
    assert seen == (
        ["pending", "running", "stopping", "stopped", "pending", "running", "shutting-down", "terminated"]
    )


def test_the_launch_time_changes_with_every_start_and_stays_at_the_end(ec2: Account) -> None:
    """It is the stamp by which a save notices that somebody started the box behind its back."""
    box = ec2.stopped()
    first = shown(ec2, box)["LaunchTime"]
    ec2.call("StartInstances", InstanceIds=[box])
    ec2.until(lambda: ec2.state(box) == "running")
    second = shown(ec2, box)["LaunchTime"]
    assert second > first
    assert second.microsecond == 0, "EC2 shows whole seconds"
    ec2.stop(box)
    ec2.terminate(box)
    assert shown(ec2, box)["LaunchTime"] == second


@pytest.mark.parametrize(
    ("call", "state"),
    [
        ("StopInstances", "pending"), ("RebootInstances", "pending"), ("StartInstances", "stopping"),
        ("RebootInstances", "stopped"), ("StartInstances", "terminated"), ("StopInstances", "terminated"),
        ("RebootInstances", "terminated"),
    ],
)  # fmt: skip
def test_calls_in_the_wrong_state_are_refused(ec2: Account, call: str, state: str) -> None:
    box = ec2.pending()
    if state != "pending":
        ec2.until(lambda: ec2.state(box) == "running")
        ec2.call("TerminateInstances" if state == "terminated" else "StopInstances", InstanceIds=[box])
        ec2.until(lambda: ec2.state(box) == state)
    assert ec2.state(box) == state
    assert ec2.refused(call, InstanceIds=[box]) == "IncorrectInstanceState"


def test_reasons_say_who_ended_it_and_when(ec2: Account) -> None:
    """The cost meter and the notices to the user read them."""
    box = ec2.launch()
    assert "StateReason" not in shown(ec2, box)
    ec2.stop(box)
    by_user = shown(ec2, box)
    assert by_user["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert by_user["StateTransitionReason"].startswith("User initiated (2027-01-15 08:")
    assert by_user["StateTransitionReason"].endswith(" GMT)")
    ec2.call("StartInstances", InstanceIds=[box])
    ec2.until(lambda: ec2.state(box) == "running")
    assert shown(ec2, box)["StateTransitionReason"] == ""
    ec2.model.power_off(box, now=ec2.now)
    ec2.until(lambda: ec2.state(box) == "stopped")
    assert shown(ec2, box)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


def test_a_shutdown_inside_terminates_where_that_is_set_whatever_the_protection(ec2: Account) -> None:
    """The one way in which a protected box is lost: why the behaviour must be ``stop``."""
    box = ec2.launch(InstanceInitiatedShutdownBehavior="terminate", DisableApiTermination=True)
    ec2.model.power_off(box, now=ec2.now)
    ec2.until(lambda: ec2.state(box) == "terminated")


def test_termination_is_idempotent_and_the_record_fades(ec2: Account) -> None:
    """Absence is not death: tags go first, an hour later the record."""
    box = ec2.launch(TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "p", "Value": "x"}]}])
    ec2.terminate(box)
    answer = ec2.call("TerminateInstances", InstanceIds=[box])["TerminatingInstances"][0]
    assert answer["PreviousState"] == answer["CurrentState"] == {"Code": 48, "Name": "terminated"}
    by_tag = {"Filters": [{"Name": "tag:p", "Values": ["x"]}]}
    assert ec2.call("DescribeInstances", **by_tag)["Reservations"]
    ec2.wait(3100)
    assert not ec2.call("DescribeInstances", **by_tag)["Reservations"]
    assert shown(ec2, box)["State"]["Name"] == "terminated"
    ec2.wait(600)
    assert ec2.refused("DescribeInstances", InstanceIds=[box]) == "InvalidInstanceID.NotFound"


def test_protection_is_lifted_before_a_box_can_go(ec2: Account) -> None:
    box = ec2.launch(DisableApiTermination=True)
    assert ec2.refused("TerminateInstances", InstanceIds=[box]) == "OperationNotPermitted"
    ec2.call("ModifyInstanceAttribute", InstanceId=box, DisableApiTermination={"Value": False})
    ec2.terminate(box)


def test_one_protected_box_spares_those_in_its_zone_only(ec2: Account) -> None:
    """Documented for TerminateInstances: an error does not mean that nothing was terminated."""
    kept = ec2.launch(DisableApiTermination=True, Placement=ZONE_A)
    beside = ec2.launch(Placement=ZONE_A)
    elsewhere = ec2.launch(Placement=ZONE_B)
    assert ec2.refused("TerminateInstances", InstanceIds=[beside, elsewhere, kept]) == "OperationNotPermitted"
    assert [ec2.state(one) for one in (kept, beside, elsewhere)] == ["running", "running", "shutting-down"]


def test_stop_protection(ec2: Account) -> None:
    box = ec2.launch(DisableApiStop=True)
    assert ec2.refused("StopInstances", InstanceIds=[box]) == "OperationNotPermitted"
    ec2.call("ModifyInstanceAttribute", InstanceId=box, Attribute="disableApiStop", Value="false")
    ec2.stop(box)


# -- launching ---------------------------------------------------------------------------------------


def test_a_token_launches_once_in_a_zone_and_again_in_another(ec2: Account) -> None:
    """The token's scope is the zone: two boxes, one of them paid for and forgotten."""
    first = ec2.pending(ClientToken="run-1", Placement=ZONE_A)
    assert ec2.pending(ClientToken="run-1", Placement=ZONE_A) == first
    assert ec2.pending(ClientToken="run-1", Placement=ZONE_B) != first
    assert len(ec2.model.tables.instances) == 2


def test_a_token_with_other_parameters_is_refused(ec2: Account) -> None:
    ec2.pending(ClientToken="run-1", Placement=ZONE_A)
    code = "IdempotentParameterMismatch"
    assert ec2.refused_launch(code, ClientToken="run-1", Placement=ZONE_A, InstanceType="t4g.medium")
    ec2.pending(ClientToken="run-2", Placement=ZONE_A, InstanceType="t4g.medium")


def test_a_token_outlives_its_instance_by_a_day(ec2: Account) -> None:
    """A laptop that slept for hours repeats its call: it must not get a second box."""
    box = ec2.launch(ClientToken="run-1", Placement=ZONE_A)
    ec2.terminate(box)
    ec2.wait(5 * 3600)
    assert box not in ec2.model.tables.instances
    assert ec2.pending(ClientToken="run-1", Placement=ZONE_A) == box
    ec2.wait(20 * 3600)
    assert ec2.pending(ClientToken="run-1", Placement=ZONE_A) != box


def test_no_capacity_is_a_server_error_and_uses_no_token(ec2: Account) -> None:
    ec2.model.faults.add(Fault("no-capacity", what="us-east-1a/*"))
    assert ec2.refused_launch("InsufficientInstanceCapacity", ClientToken="r", Placement=ZONE_A) == 500
    assert ec2.pending(ClientToken="r", Placement=ZONE_B)
    for _ in range(5):
        assert ec2.instance(ec2.pending()).zone != "us-east-1a", "without a zone EC2 chooses one that has it"
    ec2.model.faults.clear()
    assert ec2.pending(ClientToken="r", Placement=ZONE_A)


def test_a_stopped_box_may_find_no_capacity(ec2: Account) -> None:
    """Why a warm box must be able to go cold and come up in another zone."""
    box = ec2.stopped(Placement=ZONE_A)
    fault = ec2.model.faults.add(Fault("no-capacity", what="us-east-1a/t4g.*"))
    assert ec2.refused("StartInstances", InstanceIds=[box]) == "InsufficientInstanceCapacity"
    assert ec2.state(box) == "stopped"
    ec2.model.faults.remove(fault)
    ec2.call("StartInstances", InstanceIds=[box])


def test_a_launch_may_succeed_and_the_box_die_at_once(ec2: Account) -> None:
    """RunInstances answered 200: only watching tells that a quota or a key let it down."""
    ec2.model.faults.add(Fault("launch-dies", code="Client.VolumeLimitExceeded", times=1))
    box = ec2.pending()
    ec2.until(lambda: ec2.state(box) == "terminated")
    assert shown(ec2, box)["StateReason"]["Code"] == "Client.VolumeLimitExceeded"
    ec2.launch()


def test_a_start_may_succeed_and_the_box_be_stopped_again(ec2: Account) -> None:
    box = ec2.stopped()
    ec2.model.faults.add(Fault("start-dies", code="Server.InternalError", times=1))
    ec2.call("StartInstances", InstanceIds=[box])
    ec2.until(lambda: ec2.state(box) == "stopped")
    assert shown(ec2, box)["StateReason"]["Code"] == "Server.InternalError"
    ec2.call("StartInstances", InstanceIds=[box])
    ec2.until(lambda: ec2.state(box) == "running")


X86 = catalogue.newest("us-east-1", UBUNTU, "x86_64")


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"ImageId": "ami-00000000000000000"}, "InvalidAMIID.NotFound"),
        ({"ImageId": "nonsense"}, "InvalidAMIID.Malformed"),
        ({"InstanceType": "t4g.colossal"}, "InvalidParameterValue"),
        ({"InstanceType": "t3.small"}, "InvalidParameterValue"),  # not its architecture
        ({"InstanceType": "m8g.large", "Placement": {"AvailabilityZone": "us-east-1c"}}, "Unsupported"),
        ({"Placement": {"AvailabilityZone": "eu-west-1a"}}, "InvalidParameterValue"),
        ({"SubnetId": "subnet-00000000000000000"}, "InvalidSubnetID.NotFound"),
        ({"SecurityGroupIds": ["sg-00000000000000000"]}, "InvalidGroup.NotFound"),
        ({"SubnetId": "subnet-0", "NetworkInterfaces": [{"DeviceIndex": 0}]}, "InvalidParameterCombination"),
        ({"MinCount": 2}, "InvalidParameterValue"),
        ({"ClientToken": "x" * 65}, "InvalidParameterValue"),
        ({"UserData": "not base64!"}, "InvalidUserData.Malformed"),
        ({"UserData": base64.b64encode(b"x" * 16385).decode()}, "InvalidParameterValue"),
        ({"KernelId": "aki-1"}, "UnsupportedOperation"),
        ({"ImageId": X86, "InstanceType": "t2.micro"}, None),
        ({"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 4}}]}, "InvalidBlockDeviceMapping"),
        ({"BlockDeviceMappings": [{"DeviceName": "/dev/sdf", "Ebs": {}}]}, "InvalidBlockDeviceMapping"),
        ({"BlockDeviceMappings": [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "KmsKeyId": "k"}}]},
         "InvalidParameterDependency"),
        ({"BlockDeviceMappings": [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "VolumeType": "gp2", "Iops": 9}}]},
         "InvalidParameterCombination"),
        ({"BlockDeviceMappings": [{"DeviceName": f"/dev/sd{n}", "Ebs": {"VolumeSize": 1}} for n in range(27)]},
         "AttachmentLimitExceeded"),
        ({"InstanceMarketOptions": {"MarketType": "spot"}, "DisableApiTermination": True}, "InvalidParameterCombination"),
        ({"TagSpecifications": [{"ResourceType": "snapshot", "Tags": []}]}, "InvalidParameterValue"),
        ({"MetadataOptions": {"HttpTokens": "perhaps"}}, "InvalidParameterValue"),
    ],
)  # fmt: skip
def test_what_a_launch_checks(ec2: Account, params: dict[str, Any], code: str | None) -> None:
    """Each of these costs the user minutes when only the real account says so."""
    if code is None:
        ec2.pending(**params)
        return
    ec2.refused_launch(code, **params)
    assert not ec2.model.tables.instances
    assert not ec2.model.tables.volumes, "a refused launch leaves nothing"


def test_an_unknown_profile_is_refused_where_profiles_are_known(ec2: Account) -> None:
    ec2.model.region.profiles = {"devbox"}
    ec2.refused_launch("InvalidParameterValue", IamInstanceProfile={"Name": "other"})
    box = ec2.launch(IamInstanceProfile={"Name": "devbox"})
    assert shown(ec2, box)["IamInstanceProfile"]["Arn"].endswith(":instance-profile/devbox")


def test_the_vcpu_quota(ec2: Account) -> None:
    ec2.model.region.vcpu_limit = 4
    ec2.pending()
    ec2.pending()
    ec2.refused_launch("VcpuLimitExceeded")


def test_addresses_are_taken_and_given_back(ec2: Account) -> None:
    box, other = ec2.launch(Placement=ZONE_A), ec2.launch(Placement=ZONE_A)
    addresses = [shown(ec2, one)["PrivateIpAddress"] for one in (box, other)]
    assert len(set(addresses)) == 2
    public = shown(ec2, box)["PublicIpAddress"]
    ec2.stop(box)
    assert "PublicIpAddress" not in shown(ec2, box)
    assert shown(ec2, box)["PrivateIpAddress"] == addresses[0], "the private address stays"
    ec2.call("StartInstances", InstanceIds=[box])
    assert shown(ec2, box)["PublicIpAddress"] != public
    ec2.terminate(other)
    assert "PrivateIpAddress" not in shown(ec2, other)


# -- changing ----------------------------------------------------------------------------------------


def test_one_attribute_a_call(ec2: Account) -> None:
    box = ec2.launch()
    both: dict[str, Any] = {"DisableApiTermination": {"Value": True}, "EbsOptimized": {"Value": True}}
    assert ec2.refused("ModifyInstanceAttribute", InstanceId=box, **both) == "InvalidParameterCombination"
    assert ec2.refused("ModifyInstanceAttribute", InstanceId=box) == "MissingParameter"


def test_the_type_changes_while_stopped_and_within_the_architecture(ec2: Account) -> None:
    box = ec2.launch()
    change = {"InstanceId": box, "InstanceType": {"Value": "t4g.medium"}}
    assert ec2.refused("ModifyInstanceAttribute", **change) == "IncorrectInstanceState"
    ec2.stop(box)
    ec2.call("ModifyInstanceAttribute", **change)
    assert shown(ec2, box)["InstanceType"] == "t4g.medium"
    for bad in ("t3.medium", "nothing"):
        assert (
            ec2.refused("ModifyInstanceAttribute", InstanceId=box, InstanceType={"Value": bad})
            == "InvalidInstanceAttributeValue"
        )


@pytest.mark.parametrize(
    ("attribute", "member", "value"),
    [
        ("disableApiTermination", "DisableApiTermination", {"Value": False}),
        ("instanceInitiatedShutdownBehavior", "InstanceInitiatedShutdownBehavior", {"Value": "stop"}),
        ("instanceType", "InstanceType", {"Value": "t4g.small"}),
        ("rootDeviceName", "RootDeviceName", {"Value": "/dev/sda1"}),
        ("userData", "UserData", {"Value": "aGVsbG8="}),
    ],
)
def test_attributes_are_described(ec2: Account, attribute: str, member: str, value: object) -> None:
    box = ec2.launch(UserData="aGVsbG8=")
    answer = ec2.call("DescribeInstanceAttribute", InstanceId=box, Attribute=attribute)
    assert answer == {"InstanceId": box, member: value}


def test_metadata_options_change_and_default_to_what_the_image_says(ec2: Account) -> None:
    box = ec2.launch()
    assert shown(ec2, box)["MetadataOptions"]["HttpTokens"] == "required", "the image says v2.0"
    answer = ec2.call("ModifyInstanceMetadataOptions", InstanceId=box, HttpPutResponseHopLimit=3)
    assert answer["InstanceMetadataOptions"]["HttpPutResponseHopLimit"] == 3
    assert shown(ec2, box)["MetadataOptions"]["HttpPutResponseHopLimit"] == 3


# -- spot --------------------------------------------------------------------------------------------


def spot(**options: str) -> dict[str, Any]:
    return {"InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": options}}


def test_a_spot_box_is_taken_away(ec2: Account) -> None:
    box = ec2.launch(**spot())
    assert shown(ec2, box)["InstanceLifecycle"] == "spot"
    assert ec2.refused("StopInstances", InstanceIds=[box]) == "UnsupportedOperation"
    ec2.model.interrupt_spot(box, now=ec2.now)
    ec2.until(lambda: ec2.state(box) == "terminated")
    assert shown(ec2, box)["StateReason"]["Code"] == "Server.SpotInstanceTermination"


def test_a_persistent_spot_box_may_be_stopped_instead(ec2: Account) -> None:
    box = ec2.launch(**spot(SpotInstanceType="persistent", InstanceInterruptionBehavior="stop"))
    ec2.model.interrupt_spot(box, now=ec2.now)
    ec2.until(lambda: ec2.state(box) == "stopped")
    assert shown(ec2, box)["StateReason"]["Code"] == "Server.SpotInstanceShutdown"
    assert ec2.refused("StartInstances", InstanceIds=[box]) == "IncorrectSpotRequestState", "only EC2 can"
    ec2.model.restore_spot(box, now=ec2.now)
    ec2.until(lambda: ec2.state(box) == "running")
    assert ec2.instance(box).boots
    with pytest.raises(ValueError, match="not stopped by an interruption"):
        ec2.model.restore_spot(box, now=ec2.now)


# -- what boots and what does not --------------------------------------------------------------------


def test_status_checks_take_a_while_and_see_a_box_that_does_not_boot(ec2: Account) -> None:
    good = ec2.launch()
    ec2.model.faults.add(Fault("no-boot", times=1))
    bad = ec2.launch()

    def checks(box: str) -> str:
        answer = ec2.call("DescribeInstanceStatus", InstanceIds=[box])
        return str(answer["InstanceStatuses"][0]["InstanceStatus"]["Status"])

    assert checks(good) == "initializing"
    ec2.wait(300)
    assert (checks(good), checks(bad)) == ("ok", "impaired")
    with pytest.raises(ValueError, match="does not run"):
        ec2.model.work(bad, now=ec2.now)
    assert (
        "No bootable device"
        in base64.b64decode(ec2.call("GetConsoleOutput", InstanceId=bad)["Output"]).decode()
    )


def test_stopped_boxes_have_no_status_unless_all_are_asked_for(ec2: Account) -> None:
    box = ec2.stopped()
    assert ec2.call("DescribeInstanceStatus")["InstanceStatuses"] == []
    answer = ec2.call("DescribeInstanceStatus", IncludeAllInstances=True)["InstanceStatuses"][0]
    assert (answer["InstanceId"], answer["InstanceStatus"]["Status"]) == (box, "not-applicable")


def test_a_system_that_ignores_the_power_button_is_forced(ec2: Account) -> None:
    ec2.model.faults.add(Fault("stop-hangs"))
    box = ec2.launch()
    ec2.call("StopInstances", InstanceIds=[box])
    ec2.wait(300)
    assert ec2.state(box) == "stopping"
    ec2.call("StopInstances", InstanceIds=[box], Force=True)
    assert ec2.until(lambda: ec2.instance(box).state is InstanceState.STOPPED) <= 10


# -- looking -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "code"),
    [
        (["nonsense"], "InvalidInstanceID.Malformed"),
        (["vol-0123456789abcdef0"], "InvalidInstanceID.Malformed"),
        (["i-0123456789abcdef0"], "InvalidInstanceID.NotFound"),
        ([], "MissingParameter"),
    ],
)
def test_ids_are_checked_and_one_bad_one_spoils_the_call(ec2: Account, ids: list[str], code: str) -> None:
    box = ec2.launch()
    assert ec2.refused("StopInstances", InstanceIds=[*([box] if ids else []), *ids]) == code
    assert ec2.state(box) == "running"


@pytest.mark.parametrize(
    ("name", "values", "found"),
    [
        ("tag:Name", ["api"], "api"), ("tag:Name", ["a*", "w?b"], "api web"), ("tag-key", ["owner"], "web"),
        ("instance-state-name", ["stopped"], "data"), ("instance-state-name", ["running", "pending"], "api web"),
        ("instance-state-code", ["80"], "data"), ("tag:none", ["x"], ""), ("tag:Name", ["[a]pi"], ""),
        ("block-device-mapping.delete-on-termination", ["false"], "api web data"),
        ("architecture", ["x86_64"], ""),
    ],
)  # fmt: skip
def test_filters(ec2: Account, name: str, values: list[str], found: str) -> None:
    for box, more in (("api", []), ("web", [{"Key": "owner", "Value": "me"}]), ("data", [])):
        tags = [{"Key": "Name", "Value": box}, *more]
        ec2.launch(TagSpecifications=[{"ResourceType": "instance", "Tags": tags}])
    (data,) = (one.id for one in ec2.model.tables.instances.values() if one.tags["Name"] == "data")
    ec2.stop(data)
    answer = ec2.call("DescribeInstances", Filters=[{"Name": name, "Values": values}])
    boxes = [one for launch in answer["Reservations"] for one in launch["Instances"]]
    assert " ".join(tag["Value"] for one in boxes for tag in one["Tags"] if tag["Key"] == "Name") == found


def test_bad_filters_are_refused(ec2: Account) -> None:
    ec2.launch()
    for bad in ({"Name": "colour", "Values": ["red"]}, {"Name": "tag:x"}, {"Values": ["x"]}):
        assert ec2.refused("DescribeInstances", Filters=[bad]) == "InvalidParameterValue"
    many = {"Name": "tag:x", "Values": [str(n) for n in range(201)]}
    assert ec2.refused("DescribeInstances", Filters=[many]) == "FilterLimitExceeded"


def test_pages_go_on_behind_what_was_shown_even_if_it_is_gone(ec2: Account) -> None:
    """A page that skips a box would make the reconciler believe that it is gone."""
    answer = ec2.call("RunInstances", ImageId=X86, InstanceType="t3.nano", MinCount=12, MaxCount=12)
    boxes = [one["InstanceId"] for one in answer["Instances"]]
    first = ec2.call("DescribeInstances", MaxResults=5)
    ec2.model.region.drop(boxes[0])
    rest = ec2.call("DescribeInstances", NextToken=first["NextToken"])
    assert [one["InstanceId"] for one in rest["Reservations"][0]["Instances"]] == boxes[5:]
    assert "NextToken" not in rest
    for bad in (
        {"NextToken": "made up"},
        {"NextToken": first["NextToken"], "Filters": [{"Name": "tag:x", "Values": ["y"]}]},
    ):
        assert ec2.refused("DescribeInstances", **bad) == "InvalidNextToken"
    assert ec2.refused("DescribeInstances", MaxResults=4) == "InvalidParameterValue"
    assert (
        ec2.refused("DescribeInstances", MaxResults=5, InstanceIds=boxes[1:2])
        == "InvalidParameterCombination"
    )


def test_a_subnet_is_where_a_box_lands(ec2: Account) -> None:
    box = ec2.launch(SubnetId=subnet(ec2, "us-east-1b"))
    assert shown(ec2, box)["Placement"]["AvailabilityZone"] == "us-east-1b"
    code = ec2.refused_launch(
        "InvalidParameterCombination", SubnetId=subnet(ec2, "us-east-1b"), Placement=ZONE_A
    )
    assert code == 400


def test_the_volumes_of_a_new_box_show_some_seconds_late(ec2: Account) -> None:
    """The answer to a launch names no volume: who records them there records nothing."""
    box = ec2.pending()
    assert shown(ec2, box)["BlockDeviceMappings"] == []
    assert {one["State"] for one in ec2.call("DescribeVolumes")["Volumes"]} == {"creating"}
    change = {"DeviceName": "/dev/sda1", "Ebs": {"DeleteOnTermination": True}}
    assert (
        ec2.refused("ModifyInstanceAttribute", InstanceId=box, BlockDeviceMappings=[change])
        == "InvalidInstanceAttributeValue"
    )
    ec2.until(lambda: ec2.state(box) == "running")
    assert len(shown(ec2, box)["BlockDeviceMappings"]) == 2
    assert {one["State"] for one in ec2.call("DescribeVolumes")["Volumes"]} == {"in-use"}


def test_describing_costs_by_the_box_and_not_by_its_square(ec2: Account) -> None:
    """The tests of a fleet of a thousand stand on this."""

    def cost(boxes: int) -> float:
        while len(ec2.model.tables.instances) < boxes:
            ec2.call("RunInstances", ImageId=X86, InstanceType="t3.nano", MinCount=50, MaxCount=50)
        seconds = []
        for _ in range(3):
            began = time.process_time()
            ec2.call("DescribeInstances")
            seconds.append(time.process_time() - began)
        return min(seconds)

    few, many = cost(100), cost(1000)
    assert many < 30 * few, f"{few * 1000:.1f} ms for 100 boxes, {many * 1000:.1f} ms for 1000"
