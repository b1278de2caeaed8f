"""Volumes, snapshots and images on virtual time: whose content is where, and what may be deleted when."""

from __future__ import annotations

from typing import Any

import pytest

from devboxd.simulator.ec2 import catalogue
from devboxd.simulator.ec2.faults import Fault
from devboxd.simulator.ec2.records import Volume
from tests.simulator.ec2.kit import UBUNTU, Account

NAME = "devbox/demo/1"


@pytest.fixture
def ec2() -> Account:
    return Account()


def image_shown(ec2: Account, image: str) -> dict[str, Any]:
    """What DescribeImages says of one."""
    found: dict[str, Any] = ec2.call("DescribeImages", ImageIds=[image])["Images"][0]
    return found


def contents(volumes: dict[str, Volume]) -> dict[str, int]:
    """The oracle's view: device to the number of its newest write."""
    return {device: volume.content for device, volume in volumes.items()}


# -- the content of a box ----------------------------------------------------------------------------


def test_the_work_of_a_box_survives_stop_image_terminate_and_launch(ec2: Account) -> None:
    """The whole promise in one line: every volume of the next run has what the last one wrote."""
    box = ec2.stopped()
    before = contents(ec2.volumes(box))
    image = ec2.image(box)
    ec2.terminate(box)
    again = ec2.launch(ImageId=image, BlockDeviceMappings=[])
    assert contents(ec2.volumes(again)) == before
    assert set(before) == {"/dev/sda1", "/dev/sdf"}
    assert ec2.instance(again).boots


def test_what_is_imaged_while_the_box_shuts_down_lacks_its_last_writes(ec2: Account) -> None:
    box = ec2.launch()
    ec2.model.work(box, now=ec2.now)
    ec2.call("StopInstances", InstanceIds=[box])
    ec2.call("CreateImage", InstanceId=box, Name=NAME, NoReboot=True)
    ec2.until(lambda: ec2.state(box) == "stopped")
    newest = contents(ec2.volumes(box))
    assert all(one.content < max(newest.values()) and not one.clean for one in ec2.snapshots())


def test_a_running_box_is_imaged_as_a_power_cut_would_leave_it_or_rebooted(ec2: Account) -> None:
    """NoReboot keeps the box up, and what it held in memory is not in the image."""
    box = ec2.launch()
    synced = ec2.model.work(box, now=ec2.now)
    held = ec2.model.work(box, now=ec2.now, is_synced=False)
    ec2.call("CreateImage", InstanceId=box, Name=NAME, NoReboot=True)
    assert {one.content for one in ec2.snapshots()} == {synced}
    assert {one.clean for one in ec2.snapshots()} == {False}
    ec2.wait(20)
    ec2.call("CreateImage", InstanceId=box, Name=NAME + "b")
    assert min(one.content for one in ec2.snapshots()[2:]) > held
    assert ec2.state(box) == "running"


def test_a_forced_stop_loses_what_was_in_memory_and_an_orderly_one_does_not(ec2: Account) -> None:
    for force in (True, False):
        box = ec2.launch()
        synced = ec2.model.work(box, now=ec2.now)
        held = ec2.model.work(box, now=ec2.now, is_synced=False)
        ec2.call("StopInstances", InstanceIds=[box], Force=force)
        ec2.until(lambda box=box: ec2.state(box) == "stopped")  # type: ignore[misc]
        kept = contents(ec2.volumes(box))
        assert all(number == synced for number in kept.values()) if force else min(kept.values()) > held


def test_terminating_a_stopped_box_writes_nothing(ec2: Account) -> None:
    box = ec2.stopped()
    volumes = {one.id: one.content for one in ec2.volumes(box).values()}
    ec2.terminate(box)
    assert {one: ec2.model.tables.volumes[one].content for one in volumes} == volumes


@pytest.mark.parametrize("flag", [True, False])
def test_delete_on_termination_decides_what_is_left(ec2: Account, flag: bool) -> None:
    """The default of public images is to delete: a box that was launched so loses everything."""
    box = ec2.launch(BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"DeleteOnTermination": flag}}])
    (volume,) = ec2.volumes(box).values()
    ec2.terminate(box)
    if flag:
        ec2.until(lambda: volume.id not in ec2.model.tables.volumes)
    else:
        assert ec2.model.tables.volumes[volume.id].state == "available"


def test_the_flag_can_be_mended_on_the_living_box(ec2: Account) -> None:
    box = ec2.launch(BlockDeviceMappings=[])
    (volume,) = ec2.volumes(box).values()
    assert volume.attachment is not None
    assert volume.attachment.delete_on_termination, "what a public image says"
    change = {"DeviceName": "/dev/sda1", "Ebs": {"DeleteOnTermination": False}}
    ec2.call("ModifyInstanceAttribute", InstanceId=box, BlockDeviceMappings=[change])
    ec2.terminate(box)
    assert ec2.model.tables.volumes[volume.id].state == "available"
    other = {"DeviceName": "/dev/sdz", "Ebs": {"DeleteOnTermination": False}}
    box = ec2.launch()
    code = ec2.refused("ModifyInstanceAttribute", InstanceId=box, BlockDeviceMappings=[other])
    assert code == "InvalidInstanceAttributeValue"


# -- images ------------------------------------------------------------------------------------------


def test_an_image_is_pending_without_snapshot_ids_and_then_whole(ec2: Account) -> None:
    """Deleting by the snapshots of a pending image would delete too little or the wrong ones."""
    box = ec2.stopped()
    tags = [
        {"ResourceType": kind, "Tags": [{"Key": "devbox:save", "Value": "r1"}]}
        for kind in ("image", "snapshot")
    ]
    made = ec2.call("CreateImage", InstanceId=box, Name=NAME, NoReboot=True, TagSpecifications=tags)[
        "ImageId"
    ]
    early = image_shown(ec2, made)
    assert early["State"] == "pending"
    assert not any("SnapshotId" in one["Ebs"] for one in early["BlockDeviceMappings"])
    assert ec2.refused_launch("InvalidAMIID.Unavailable", ImageId=made) == 400
    took = ec2.until(lambda: image_shown(ec2, made)["State"] == "available")
    assert took >= max(one.due for one in ec2.snapshots()) - ec2.now + took
    shown = image_shown(ec2, made)
    devices = {one["DeviceName"]: one["Ebs"] for one in shown["BlockDeviceMappings"]}
    assert {one["SnapshotId"] for one in devices.values()} == {one.id for one in ec2.snapshots()}
    assert devices["/dev/sdf"] | {"SnapshotId": ""} == {
        "SnapshotId": "", "VolumeSize": 20, "VolumeType": "gp3", "Iops": 4000, "Throughput": 250,
        "DeleteOnTermination": False, "Encrypted": False,
    }  # fmt: skip
    by_tag = [{"Name": "tag:devbox:save", "Values": ["r1"]}]
    assert [one["ImageId"] for one in ec2.call("DescribeImages", Filters=by_tag)["Images"]] == [made]
    assert len(ec2.call("DescribeSnapshots", Filters=by_tag)["Snapshots"]) == 2


def test_an_image_inherits_everything_that_a_launch_needs(ec2: Account) -> None:
    """What RegisterImage would have to be told; forgetting one of them makes a box that does not boot."""
    box = ec2.stopped()
    parent = image_shown(ec2, ec2.instance(box).image)
    shown = image_shown(ec2, ec2.image(box))
    for name in (
        "Architecture", "BootMode", "EnaSupport", "ImdsSupport", "PlatformDetails", "UsageOperation",
        "VirtualizationType", "RootDeviceName", "SriovNetSupport",
    ):  # fmt: skip
        assert shown[name] == parent[name], name
    assert shown["SourceInstanceId"] == box


def test_a_name_is_taken_until_its_image_is_given_up(ec2: Account) -> None:
    """The name is the only key by which a repeated CreateImage is recognised."""
    box = ec2.stopped()
    made = ec2.image(box)
    assert ec2.refused("CreateImage", InstanceId=box, Name=NAME) == "InvalidAMIName.Duplicate"
    ec2.call("DeregisterImage", ImageId=made)
    ec2.wait(20)
    ec2.image(box)
    for bad in ("x" * 129, "no#hash"):
        assert ec2.refused("CreateImage", InstanceId=box, Name=bad) == "InvalidAMIName.Malformed"


def test_terminating_the_box_spoils_the_image_that_is_being_made_of_it(ec2: Account) -> None:
    """Why nothing is terminated before the image is available."""
    for how in ("TerminateInstances", "RebootInstances"):
        box = ec2.launch()
        made = ec2.call("CreateImage", InstanceId=box, Name=NAME + how, NoReboot=True)["ImageId"]
        ec2.call(how, InstanceIds=[box])
        assert image_shown(ec2, made)["State"] == "failed"
        assert image_shown(ec2, made)["StateReason"]["Code"] == "Client.InstanceTerminated"
        assert ec2.refused_launch("InvalidAMIID.Unavailable", ImageId=made)


def test_images_and_snapshots_may_fail(ec2: Account) -> None:
    box = ec2.stopped()
    ec2.model.faults.add(Fault("image-fails", code="Client.InternalError", times=1))
    made = ec2.call("CreateImage", InstanceId=box, Name=NAME, NoReboot=True)["ImageId"]
    ec2.until(lambda: image_shown(ec2, made)["State"] == "failed")
    assert image_shown(ec2, made)["StateReason"]["Code"] == "Client.InternalError"
    ec2.model.faults.add(Fault("snapshot-fails", times=1))
    made = ec2.call("CreateImage", InstanceId=box, Name=NAME + "b", NoReboot=True)["ImageId"]
    ec2.until(lambda: image_shown(ec2, made)["State"] == "failed")
    assert sorted(one.state for one in ec2.snapshots()) == ["completed"] * 3 + ["error"]


def test_a_snapshot_just_before_an_image_spoils_it(ec2: Account) -> None:
    """Seen in a real account: the image fails minutes later with Server.InternalError."""
    box = ec2.stopped()
    ec2.call("CreateSnapshot", VolumeId=ec2.volumes(box)["/dev/sda1"].id)
    ec2.wait(5)
    made = ec2.call("CreateImage", InstanceId=box, Name=NAME, NoReboot=True)["ImageId"]
    ec2.until(lambda: image_shown(ec2, made)["State"] == "failed")


def test_only_the_flag_can_be_changed_in_the_mapping_of_create_image(ec2: Account) -> None:
    box = ec2.stopped()
    change = {"DeviceName": "/dev/sda1", "Ebs": {"DeleteOnTermination": True}}
    shown = image_shown(ec2, ec2.image(box, BlockDeviceMappings=[change]))
    assert [one["Ebs"]["DeleteOnTermination"] for one in shown["BlockDeviceMappings"]] == [True, False]
    bad = {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 99, "DeleteOnTermination": True}}
    code = ec2.refused("CreateImage", InstanceId=box, Name=NAME + "b", BlockDeviceMappings=[bad])
    assert code == "InvalidBlockDeviceMapping"


@pytest.mark.parametrize("state", ["pending", "terminated"])
def test_no_image_of_a_box_that_is_not_there(ec2: Account, state: str) -> None:
    box = ec2.pending()
    if state == "terminated":
        ec2.until(lambda: ec2.state(box) == "running")
        ec2.terminate(box)
    assert ec2.refused("CreateImage", InstanceId=box, Name=NAME) == "IncorrectInstanceState"


def test_a_deregistered_image_shows_a_little_longer_and_cannot_be_used(ec2: Account) -> None:
    box = ec2.stopped()
    made = ec2.image(box)
    answer = ec2.call("DeregisterImage", ImageId=made)
    assert answer == {"Return": True}
    assert len(ec2.snapshots()) == 2, "snapshots stay unless they are asked for"
    assert image_shown(ec2, made)["State"] == "deregistered"
    assert ec2.refused("DeregisterImage", ImageId=made) == "InvalidAMIID.Unavailable"
    assert ec2.refused_launch("InvalidAMIID.Unavailable", ImageId=made)
    ec2.until(lambda: made not in ec2.model.tables.images)
    assert ec2.refused("DeregisterImage", ImageId=made) == "InvalidAMIID.NotFound"


def test_snapshots_go_with_their_image_unless_another_one_needs_them(ec2: Account) -> None:
    box = ec2.stopped()
    made = ec2.image(box)
    root = next(one for one in ec2.snapshots() if one.system is not None)
    shared = register(ec2, root.id, Name="other")
    results = ec2.call("DeregisterImage", ImageId=made, DeleteAssociatedSnapshots=True)[
        "DeleteSnapshotResults"
    ]
    codes = {one["SnapshotId"]: one["ReturnCode"] for one in results}
    assert codes.pop(root.id) == "skipped"
    assert list(codes.values()) == ["success"]
    assert [one.id for one in ec2.snapshots()] == [root.id]
    assert image_shown(ec2, shared)["State"] == "available"


def register(ec2: Account, snapshot: str, **params: Any) -> str:
    """RegisterImage as the rescue does it, and wait for it."""
    full: dict[str, Any] = {
        "Name": NAME,
        "RootDeviceName": "/dev/sda1",
        "Architecture": "arm64",
        "VirtualizationType": "hvm",
        "EnaSupport": True,
        "BootMode": "uefi",
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot, "VolumeType": "gp3"}}
        ],
    }
    made = str(ec2.call("RegisterImage", **(full | params))["ImageId"])
    ec2.until(lambda: image_shown(ec2, made)["State"] == "available")
    return made


def rescued(ec2: Account) -> str:
    """A snapshot of the root volume of a box that is gone."""
    box = ec2.stopped()
    volume = ec2.volumes(box)["/dev/sda1"].id
    ec2.terminate(box)
    snapshot = str(ec2.call("CreateSnapshot", VolumeId=volume)["SnapshotId"])
    ec2.until(lambda: ec2.model.tables.snapshots[snapshot].state == "completed")
    return snapshot


def test_an_image_registered_from_a_snapshot_boots_if_everything_was_restated(ec2: Account) -> None:
    snapshot = rescued(ec2)
    box = ec2.launch(ImageId=register(ec2, snapshot), BlockDeviceMappings=[])
    assert ec2.instance(box).boots
    assert ec2.volumes(box)["/dev/sda1"].content == ec2.model.tables.snapshots[snapshot].content


@pytest.mark.parametrize(
    ("left_out", "code"),
    [
        ({"Architecture": "i386"}, "InvalidParameterValue"),
        ({"VirtualizationType": "paravirtual"}, "InvalidParameterCombination"),
        ({"EnaSupport": False}, "InvalidParameterCombination"),
    ],
)
def test_what_register_image_is_not_told_has_a_default_that_does_not_launch(
    ec2: Account, left_out: dict[str, Any], code: str
) -> None:
    """The defaults of the API are those of 2008: i386, paravirtual, no ENA."""
    made = register(ec2, rescued(ec2), **left_out)
    ec2.refused_launch(code, ImageId=made, BlockDeviceMappings=[])


def test_a_system_that_needs_uefi_does_not_boot_as_bios(ec2: Account) -> None:
    """The launch succeeds, the box runs and nobody ever reaches it: only a test boot tells."""
    box = ec2.stopped(ImageId=catalogue.newest("us-east-1", UBUNTU, "arm64"))
    snapshot = next(
        one.id
        for one in ec2.model.tables.snapshots.values()
        if one.id == ec2.volumes(box)["/dev/sda1"].snapshot
    )
    made = register(ec2, snapshot, Architecture="x86_64", BootMode="legacy-bios")
    other = ec2.launch(ImageId=made, InstanceType="t3.small", BlockDeviceMappings=[])
    assert not ec2.instance(other).boots


def test_billing_codes_are_not_restored_from_snapshots(ec2: Account) -> None:
    """A Red Hat box rescued by RegisterImage is not entitled any more: it must be noticed."""
    red_hat = catalogue.newest("us-east-1", 7, "arm64")
    box = ec2.stopped(ImageId=red_hat)
    assert image_shown(ec2, red_hat)["UsageOperation"] == "RunInstances:0010"
    assert image_shown(ec2, ec2.image(box))["UsageOperation"] == "RunInstances:0010"
    shown = image_shown(ec2, register(ec2, ec2.snapshots()[0].id, Name="rescued"))
    assert (shown["PlatformDetails"], shown["UsageOperation"]) == ("Linux/UNIX", "RunInstances")


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"RootDeviceName": "/dev/xvda"}, "InvalidBlockDeviceMapping"),
        ({"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": "snap-00000000000000000"}}]},
         "InvalidSnapshot.NotFound"),
        ({"TpmSupport": "v2.0", "BootMode": "legacy-bios", "Architecture": "x86_64"}, "InvalidParameterCombination"),
        ({"BillingProducts": ["bp-6fa54006"]}, "InvalidParameterValue"),
        ({"TagSpecifications": [{"ResourceType": "snapshot", "Tags": []}]}, "InvalidParameterValue"),
    ],
)  # fmt: skip
def test_what_register_image_checks(ec2: Account, params: dict[str, Any], code: str) -> None:
    full: dict[str, Any] = {
        "Name": NAME, "RootDeviceName": "/dev/sda1", "Architecture": "arm64",
        "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": rescued(ec2)}}],
    }  # fmt: skip
    assert ec2.refused("RegisterImage", **(full | params)) == code


def test_encryption_follows_the_snapshot_and_may_not_be_restated(ec2: Account) -> None:
    device = {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": rescued(ec2), "Encrypted": True}}
    code = ec2.refused("RegisterImage", Name=NAME, RootDeviceName="/dev/sda1", BlockDeviceMappings=[device])
    assert code == "InvalidBlockDeviceMapping"


def test_a_pending_snapshot_makes_no_image(ec2: Account) -> None:
    box = ec2.stopped()
    snapshot = ec2.call("CreateSnapshot", VolumeId=ec2.volumes(box)["/dev/sda1"].id)["SnapshotId"]
    device = {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot}}
    code = ec2.refused("RegisterImage", Name=NAME, RootDeviceName="/dev/sda1", BlockDeviceMappings=[device])
    assert code == "IncorrectState"


def test_public_images_are_found_and_belong_to_others(ec2: Account) -> None:
    answer = ec2.call(
        "DescribeImages",
        Owners=["099720109477"],
        Filters=[{"Name": "name", "Values": ["ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-arm64-server-*"]}],
    )["Images"]
    newest = max(answer, key=lambda one: one["CreationDate"])
    assert newest["ImageId"] == catalogue.newest("us-east-1", UBUNTU, "arm64")
    assert ec2.refused("DeregisterImage", ImageId=newest["ImageId"]) == "AuthFailure"
    assert ec2.call("DescribeImages", Owners=["self"])["Images"] == []
    assert ec2.call("DescribeSnapshots", OwnerIds=["self"])["Snapshots"] == []
    assert ec2.call("DescribeSnapshots")["Snapshots"], "those that are public"
    amazon = ec2.call("DescribeImages", Owners=["amazon"])["Images"]
    assert {one["ImageOwnerAlias"] for one in amazon} == {"amazon"}


# -- snapshots ---------------------------------------------------------------------------------------


def test_snapshots_take_their_time_and_tell_their_progress(ec2: Account) -> None:
    box = ec2.stopped()
    made = ec2.call("CreateSnapshot", VolumeId=ec2.volumes(box)["/dev/sda1"].id, Description="hello")
    assert (made["State"], made["Progress"], made["Description"]) == ("pending", "0%", "hello")
    seen = []
    while True:
        shown = ec2.call("DescribeSnapshots", SnapshotIds=[made["SnapshotId"]])["Snapshots"][0]
        if shown["State"] == "completed":
            break
        seen.append(int(shown["Progress"].rstrip("%")))
        ec2.wait(7)
    assert seen == sorted(seen)
    assert len(set(seen)) > 2
    assert shown["Progress"] == "100%"


def test_all_volumes_of_a_box_at_one_moment(ec2: Account) -> None:
    """One moment for all: a database across two volumes is whole."""
    box = ec2.launch(TagSpecifications=[{"ResourceType": "volume", "Tags": [{"Key": "v", "Value": "1"}]}])
    ec2.model.work(box, now=ec2.now)
    answer = ec2.call(
        "CreateSnapshots",
        InstanceSpecification={"InstanceId": box},
        CopyTagsFromSource="volume",
        TagSpecifications=[{"ResourceType": "snapshot", "Tags": [{"Key": "s", "Value": "2"}]}],
    )["Snapshots"]
    assert [one["Tags"] for one in answer] == [[{"Key": "v", "Value": "1"}, {"Key": "s", "Value": "2"}]] * 2
    assert len({one.content for one in ec2.snapshots()}) == 1
    assert len({one.due for one in ec2.snapshots()}) == 1, "the set is complete when the last one is"


def test_one_failed_copy_fails_the_whole_set(ec2: Account) -> None:
    """Half a set would be a box whose disks are of two different days."""
    box = ec2.stopped()
    ec2.model.faults.add(Fault("snapshot-fails", times=1))
    ec2.call("CreateSnapshots", InstanceSpecification={"InstanceId": box})
    ec2.until(lambda: all(one.state != "pending" for one in ec2.snapshots()))
    assert [one.state for one in ec2.snapshots()] == ["error", "error"]


def test_volumes_can_be_left_out_of_a_set(ec2: Account) -> None:
    box = ec2.stopped()
    data = ec2.volumes(box)["/dev/sdf"].id
    spec = {"InstanceId": box, "ExcludeDataVolumeIds": [data]}
    (one,) = ec2.call("CreateSnapshots", InstanceSpecification=spec)["Snapshots"]
    assert one["VolumeId"] == ec2.volumes(box)["/dev/sda1"].id
    ec2.wait(20)
    (one,) = ec2.call(
        "CreateSnapshots", InstanceSpecification={"InstanceId": box, "ExcludeBootVolume": True}
    )["Snapshots"]
    assert one["VolumeId"] == data
    for bad in (
        {"InstanceId": box, "ExcludeBootVolume": True, "ExcludeDataVolumeIds": [data]},
        {"InstanceId": box, "ExcludeDataVolumeIds": ["vol-00000000000000000"]},
    ):
        assert ec2.refused("CreateSnapshots", InstanceSpecification=bad) == "InvalidParameterValue"


def test_snapshots_of_one_volume_are_rationed(ec2: Account) -> None:
    """The second of two quick saves is refused, and so is the sixth that is still being copied."""
    box = ec2.stopped()
    volume = ec2.volumes(box)["/dev/sda1"].id
    ec2.model.region.delays = ec2.model.region.delays.scaled(1000)
    ec2.call("CreateSnapshot", VolumeId=volume)
    assert ec2.refused("CreateSnapshot", VolumeId=volume) == "SnapshotCreationPerVolumeRateExceeded"
    for _ in range(4):
        ec2.wait(15)
        ec2.call("CreateSnapshot", VolumeId=volume)
    ec2.wait(15)
    ec2.call("DeleteSnapshot", SnapshotId=ec2.snapshots()[0].id)  # it counts until it is complete
    assert ec2.refused("CreateSnapshot", VolumeId=volume) == "ConcurrentSnapshotLimitExceeded"


def test_the_root_snapshot_of_an_image_cannot_be_deleted(ec2: Account) -> None:
    box = ec2.stopped()
    made = ec2.image(box)
    root = next(one.id for one in ec2.snapshots() if one.system is not None)
    assert ec2.refused("DeleteSnapshot", SnapshotId=root) == "InvalidSnapshot.InUse"
    ec2.model.faults.add(Fault("in-use-lingers", seconds=100))
    ec2.call("DeregisterImage", ImageId=made)
    assert ec2.refused("DeleteSnapshot", SnapshotId=root) == "InvalidSnapshot.InUse", "for a while"
    ec2.wait(101)
    ec2.call("DeleteSnapshot", SnapshotId=root)
    assert ec2.refused("DeleteSnapshot", SnapshotId=root) == "InvalidSnapshot.NotFound"


def test_a_pending_snapshot_is_deleted_when_it_is_complete(ec2: Account) -> None:
    box = ec2.stopped()
    made = ec2.call("CreateSnapshot", VolumeId=ec2.volumes(box)["/dev/sda1"].id)["SnapshotId"]
    ec2.call("DeleteSnapshot", SnapshotId=made)
    assert [one.state for one in ec2.snapshots()] == ["pending"]
    ec2.until(lambda: not ec2.snapshots())


def test_the_snapshots_of_others_are_theirs(ec2: Account) -> None:
    public = ec2.call("DescribeSnapshots")["Snapshots"][0]["SnapshotId"]
    assert ec2.refused("DeleteSnapshot", SnapshotId=public) == "AuthFailure"


# -- volumes -----------------------------------------------------------------------------------------


def test_a_volume_is_created_used_and_deleted(ec2: Account) -> None:
    made = ec2.call("CreateVolume", AvailabilityZone="us-east-1a", Size=10, VolumeType="gp3")
    assert (made["State"], made["Iops"], made["Throughput"]) == ("creating", 3000, 125)
    assert ec2.refused("DeleteVolume", VolumeId=made["VolumeId"]) == "IncorrectState"
    ec2.until(lambda: ec2.model.tables.volumes[made["VolumeId"]].state == "available")
    ec2.call("DeleteVolume", VolumeId=made["VolumeId"])
    shown = ec2.call("DescribeVolumes", VolumeIds=[made["VolumeId"]])["Volumes"][0]
    assert shown["State"] == "deleting"
    ec2.call("DeleteVolume", VolumeId=made["VolumeId"])
    ec2.until(lambda: made["VolumeId"] not in ec2.model.tables.volumes)
    assert ec2.refused("DeleteVolume", VolumeId=made["VolumeId"]) == "InvalidVolume.NotFound"


def test_a_token_makes_one_volume_and_is_not_used_for_another(ec2: Account) -> None:
    asked = {"AvailabilityZone": "us-east-1a", "Size": 10, "ClientToken": "once"}
    made = ec2.call("CreateVolume", **asked)["VolumeId"]
    assert ec2.call("CreateVolume", **asked)["VolumeId"] == made
    assert ec2.refused("CreateVolume", **{**asked, "Size": 11}) == "IdempotentParameterMismatch"
    ec2.until(lambda: ec2.model.tables.volumes[made].state == "available")
    ec2.call("DeleteVolume", VolumeId=made)
    ec2.until(lambda: made not in ec2.model.tables.volumes)
    assert ec2.refused("CreateVolume", **asked) == "InvalidVolume.NotFound"


def test_a_volume_is_attached_and_detached_as_ec2_allows(ec2: Account) -> None:
    """In its zone, at a free device, once; from a box that runs when the system has let go of it."""
    box = ec2.launch(Placement={"AvailabilityZone": "us-east-1a"})
    here, there = (
        ec2.call("CreateVolume", AvailabilityZone=f"us-east-1{zone}", Size=10)["VolumeId"] for zone in "ab"
    )
    assert ec2.refused("AttachVolume", VolumeId=here, InstanceId=box, Device="/dev/sdp") == "IncorrectState"
    ec2.until(lambda: ec2.model.tables.volumes[there].state == "available")
    ec2.until(lambda: ec2.state(box) == "running")
    refusals = {
        (there, "/dev/sdp"): "InvalidVolume.ZoneMismatch",
        (here, "/dev/sdf"): "InvalidParameterValue",
        (here, "sdp"): "InvalidParameterValue",
    }
    for (volume, device), code in refusals.items():
        assert ec2.refused("AttachVolume", VolumeId=volume, InstanceId=box, Device=device) == code
    assert ec2.call("AttachVolume", VolumeId=here, InstanceId=box, Device="/dev/sdp")["State"] == "attaching"
    ec2.wait(10)
    assert ec2.refused("AttachVolume", VolumeId=here, InstanceId=box, Device="/dev/sdo") == "VolumeInUse"
    shown = ec2.call("DescribeVolumes", VolumeIds=[here])["Volumes"][0]["Attachments"][0]
    assert (shown["State"], shown["DeleteOnTermination"]) == ("attached", False)
    ec2.model.region.held.add(here)
    assert ec2.call("DetachVolume", VolumeId=here, InstanceId=box)["State"] == "detaching"
    ec2.wait(100)
    assert ec2.model.tables.volumes[here].state == "in-use"
    (busy,) = ec2.call("DescribeVolumes", VolumeIds=[here])["Volumes"][0]["Attachments"]
    assert busy["State"] == "busy"
    ec2.stop(box)
    ec2.wait(20)
    assert ec2.model.tables.volumes[here].state == "available"
    assert ec2.refused("DetachVolume", VolumeId=here) == "IncorrectState"
    ec2.call("AttachVolume", VolumeId=here, InstanceId=box, Device="/dev/sdp")
    assert ec2.refused("DetachVolume", VolumeId=here, InstanceId="i-00000000000000000") in (
        "InvalidAttachment.NotFound",
        "InvalidInstanceID.NotFound",
    )


def test_an_attached_volume_cannot_be_deleted(ec2: Account) -> None:
    box = ec2.stopped()
    assert ec2.refused("DeleteVolume", VolumeId=ec2.volumes(box)["/dev/sdf"].id) == "VolumeInUse"


def test_a_deleted_snapshot_leaves_its_volumes_alone_and_the_other_way_round(ec2: Account) -> None:
    snapshot = rescued(ec2)
    made = ec2.call("CreateVolume", AvailabilityZone="us-east-1a", SnapshotId=snapshot)
    assert made["Size"] == ec2.model.tables.snapshots[snapshot].size
    content = ec2.model.tables.volumes[made["VolumeId"]].content
    ec2.call("DeleteSnapshot", SnapshotId=snapshot)
    assert ec2.model.tables.volumes[made["VolumeId"]].content == content


def test_encryption_and_its_key_are_inherited_all_the_way(ec2: Account) -> None:
    """The next run of an encrypted box is encrypted, by the same key, without being told."""
    device = {
        "DeviceName": "/dev/sda1",
        "Ebs": {"Encrypted": True, "KmsKeyId": "alias/mine", "DeleteOnTermination": False},
    }
    box = ec2.stopped(BlockDeviceMappings=[device])
    key = ec2.volumes(box)["/dev/sda1"].kms_key
    assert key is not None
    assert ":key/" in key, "an alias shows as the key behind it"
    image = ec2.image(box)
    again = ec2.volumes(ec2.launch(ImageId=image, BlockDeviceMappings=[]))["/dev/sda1"]
    assert (again.encrypted, again.kms_key) == (True, key)
    plain = {"DeviceName": "/dev/sda1", "Ebs": {"Encrypted": False}}
    ec2.refused_launch("InvalidParameterCombination", ImageId=image, BlockDeviceMappings=[plain])


def test_a_volume_grows_in_steps_and_not_again_for_six_hours(ec2: Account) -> None:
    box = ec2.launch()
    volume = ec2.volumes(box)["/dev/sdf"].id
    assert ec2.refused("ModifyVolume", VolumeId=volume, Size=10) == "InvalidParameterValue"
    answer = ec2.call("ModifyVolume", VolumeId=volume, Size=50, Throughput=300)["VolumeModification"]
    assert (answer["ModificationState"], answer["OriginalSize"], answer["TargetSize"]) == (
        "modifying",
        20,
        50,
    )
    assert ec2.refused("ModifyVolume", VolumeId=volume, Size=60) == "IncorrectModificationState"

    def state() -> str:
        shown = ec2.call("DescribeVolumesModifications", VolumeIds=[volume])["VolumesModifications"]
        return str(shown[0]["ModificationState"])

    ec2.until(lambda: state() == "optimizing")
    grown = ec2.volumes(box)["/dev/sdf"]
    assert (grown.size, grown.iops, grown.throughput) == (50, 4000, 300)
    ec2.until(lambda: state() == "completed")
    assert ec2.refused("ModifyVolume", VolumeId=volume, Size=60) == "VolumeModificationRateExceeded"
    ec2.wait(6 * 3600)
    ec2.call("ModifyVolume", VolumeId=volume, VolumeType="io2", Iops=5000)


# -- tags --------------------------------------------------------------------------------------------


def test_tags_come_and_go_on_everything(ec2: Account) -> None:
    box = ec2.stopped()
    image = ec2.image(box)
    things = [box, image, ec2.volumes(box)["/dev/sdf"].id, ec2.snapshots()[0].id]
    ec2.call("CreateTags", Resources=things, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    found = ec2.call("DescribeTags", Filters=[{"Name": "key", "Values": ["a"]}])["Tags"]
    kinds = {one["ResourceId"]: one["ResourceType"] for one in found}
    assert [kinds[one] for one in things] == ["instance", "image", "volume", "snapshot"]
    ec2.call("DeleteTags", Resources=things[:1], Tags=[{"Key": "a", "Value": "not this"}, {"Key": "b"}])
    assert ec2.instance(box).tags == {"a": "1"}
    ec2.call("DeleteTags", Resources=things[1:])
    assert not ec2.model.tables.images[image].tags


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ([{"Key": "aws:x", "Value": ""}], "InvalidParameterValue"),
        ([{"Key": "", "Value": "x"}], "InvalidParameterValue"),
        ([{"Key": "k" * 128, "Value": ""}], "InvalidParameterValue"),
        ([{"Key": "k", "Value": "v" * 257}], "InvalidParameterValue"),
        ([{"Key": "k", "Value": "1"}, {"Key": "k", "Value": "2"}], "InvalidParameterValue"),
        ([{"Key": f"k{n}", "Value": ""} for n in range(51)], "TagLimitExceeded"),
    ],
)
def test_bad_tags_change_nothing(ec2: Account, tags: list[dict[str, str]], code: str) -> None:
    box = ec2.launch()
    assert ec2.refused("CreateTags", Resources=[box], Tags=tags) == code
    assert not ec2.instance(box).tags


def test_one_unknown_resource_spoils_the_tagging_of_all(ec2: Account) -> None:
    box = ec2.launch()
    for bad, code in (("vol-00000000000000000", "InvalidVolume.NotFound"), ("eni-0", "InvalidID")):
        assert ec2.refused("CreateTags", Resources=[box, bad], Tags=[{"Key": "a", "Value": ""}]) == code
    assert not ec2.instance(box).tags


def test_a_volume_is_not_gone_before_its_snapshots_are_complete(ec2: Account) -> None:
    """Nothing may wait for a volume to be gone: it can take as long as the copy."""
    box = ec2.stopped()
    volume = ec2.volumes(box)["/dev/sdf"].id
    ec2.terminate(box)
    made = ec2.call("CreateSnapshot", VolumeId=volume)["SnapshotId"]
    ec2.call("DeleteVolume", VolumeId=volume)
    ec2.until(lambda: volume not in ec2.model.tables.volumes)
    assert ec2.model.tables.snapshots[made].state == "completed"
