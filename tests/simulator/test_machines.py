"""EC2's machines on this one: what is written on a box is in its next life, and nothing of it stays behind."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from devboxd.boxside.programs.parts.imds import Metadata
from devboxd.simulator.agent import process
from devboxd.simulator.chaos import BadFault
from devboxd.simulator.ec2 import catalogue
from devboxd.simulator.ec2.faults import KINDS
from devboxd.simulator.world import Simulator
from tests.kit.sim import MakeSimulator
from tests.simulator.api.test_endpoint import client
from tests.simulator.client import call, shell, until

ARM = catalogue.newest("us-east-1", 0, "arm64")


def request(name: str, **more: Any) -> dict[str, Any]:
    """A launch as the lifecycle makes it: two volumes that outlive the box."""
    return {
        "ImageId": ARM,
        "InstanceType": "t4g.small",
        "MinCount": 1,
        "MaxCount": 1,
        "IamInstanceProfile": {"Name": "devbox"},
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/xvda", "Ebs": {"DeleteOnTermination": False}},
            {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 5, "DeleteOnTermination": False}},
        ],
        "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name}]}],
    } | more


def media(sim: Simulator) -> list[str]:
    """The directories that play volumes and snapshots."""
    return sorted(path.name for path in sim.root.iterdir() if path.name.startswith(("vol-", "snap-")))


async def launched(sim: Simulator, ec2: Any, name: str, **more: Any) -> Path:
    """Launch a box and wait until it can be reached; returns its disk."""
    answer = await ec2.run_instances(**request(name, **more))
    box = answer["Instances"][0]["InstanceId"]
    await until(lambda: sim.machines.is_connected(box))
    return sim.box(box).disk


async def saved(ec2: Any, box: str, name: str) -> str:
    """Stop a box and make an image of it; returns the image."""
    await ec2.stop_instances(InstanceIds=[box])
    async with asyncio.timeout(10):
        while True:
            answer = await ec2.describe_instances(InstanceIds=[box])
            if answer["Reservations"][0]["Instances"][0]["State"]["Name"] == "stopped":
                break
            await asyncio.sleep(0.01)
        image = (await ec2.create_image(InstanceId=box, Name=name, NoReboot=True))["ImageId"]
        while (await ec2.describe_images(ImageIds=[image]))["Images"][0]["State"] != "available":
            await asyncio.sleep(0.01)
    return str(image)


async def test_a_file_of_run_one_is_there_in_run_two_on_every_volume(simulator: MakeSimulator) -> None:
    """The promise of the product, with real files, over the real client."""
    sim = await simulator(boxes=[])
    async with client(sim, "ec2") as ec2:
        first = await launched(sim, ec2, "work")
        one = sim.box_id("work")
        async with shell(sim, "work") as session:
            await session.type("echo precious > work/note; echo big > mnt/sdf/data; sync; echo do''ne\n")
            await session.until(lambda c: b"done" in c.output)
        (first / "work" / "link").symlink_to("note")
        image = await saved(ec2, one, "devbox/work/1")
        await ec2.terminate_instances(InstanceIds=[one])
        await until(lambda: sim.state(one) == "terminated")
        second = await launched(sim, ec2, "again", ImageId=image, BlockDeviceMappings=[])
        assert second != first
        assert (second / "work" / "note").read_text() == "precious\n"
        assert (second / "work" / "link").readlink() == Path("note")
        assert (second / "mnt" / "sdf" / "data").read_text() == "big\n"
        assert (second / "mnt" / "sdf").resolve() != (first / "mnt" / "sdf").resolve()


async def test_what_a_box_writes_after_the_image_is_not_in_it(simulator: MakeSimulator) -> None:
    """The point in time is the call, also while the image is pending and the box runs again."""
    sim = await simulator(snapshot=1.0, boxes=[])
    async with client(sim, "ec2") as ec2:
        disk = await launched(sim, ec2, "work")
        (disk / "work" / "note").write_text("before")
        await ec2.create_image(InstanceId=sim.box_id("work"), Name="devbox/work/1", NoReboot=True)
        (disk / "work" / "note").write_text("after")
        copies = [name for name in media(sim) if name.startswith("snap-")]
        notes = [sim.root / name / "work" / "note" for name in copies]
        assert [note.read_text() for note in notes if note.exists()] == ["before"]


async def test_sockets_and_temporary_files_are_not_copied(simulator: MakeSimulator) -> None:
    """A copied socket would stop the whole save; nobody misses one after a boot."""
    sim = await simulator(boxes=[])
    async with client(sim, "ec2") as ec2:
        disk = await launched(sim, ec2, "work")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(disk / "work" / "s"))
            os.mkfifo(disk / ".run" / "pipe")
            os.mkfifo(disk / "work" / "pipe")
            (disk / ".tmp" / "junk").write_text("junk")
            (disk / "work" / "dangling").symlink_to("nowhere")
            image = await saved(ec2, sim.box_id("work"), "devbox/work/1")
        second = await launched(sim, ec2, "again", ImageId=image, BlockDeviceMappings=[])
        assert [path.name for path in (second / "work").iterdir()] == ["dangling"]
        assert not list((second / ".tmp").iterdir())


async def test_modes_that_a_box_gave_its_files_are_kept_and_hinder_nothing(simulator: MakeSimulator) -> None:
    """Go's module cache is read-only, secrets are 0000 sometimes: a save takes them, a deletion removes them."""
    sim = await simulator(boxes=[])
    async with client(sim, "ec2") as ec2:
        disk = await launched(sim, ec2, "work", BlockDeviceMappings=[])
        for name, mode in (("cache", 0o500), ("closed", 0o000)):
            (disk / "work" / name).mkdir()
            (disk / "work" / name / "file").write_text(name)
            (disk / "work" / name / "file").chmod(0o000)
            (disk / "work" / name).chmod(mode)
        image = await saved(ec2, sim.box_id("work"), "devbox/work/1")
        second = await launched(sim, ec2, "again", ImageId=image, BlockDeviceMappings=[])
        assert [(second / "work" / name).stat().st_mode & 0o777 for name in ("cache", "closed")] == [0o500, 0]
        (second / "work" / "closed").chmod(0o700)
        (second / "work" / "closed" / "file").chmod(0o600)
        assert (second / "work" / "closed" / "file").read_text() == "closed"
        await ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)
        await ec2.terminate_instances(InstanceIds=[sim.box_id("work"), sim.box_id("again")])
        await until(lambda: media(sim) == [])


async def test_deleted_media_leave_nothing_on_this_machine(simulator: MakeSimulator) -> None:
    sim = await simulator(boxes=[])
    async with client(sim, "ec2") as ec2:
        await launched(sim, ec2, "work", BlockDeviceMappings=[])
        box = sim.box_id("work")
        image = await saved(ec2, box, "devbox/work/1")
        assert [name.partition("-")[0] for name in media(sim)] == ["snap", "vol"]
        await ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)
        await ec2.terminate_instances(InstanceIds=[box])
        await until(lambda: media(sim) == [])


async def test_a_box_without_an_instance_profile_is_never_reached(simulator: MakeSimulator) -> None:
    """Launched without permissions for its agent: it runs, costs money and cannot be reached."""
    sim = await simulator(boxes=[])
    async with client(sim, "ec2") as ec2:
        answer = await ec2.run_instances(**(request("mute") | {"IamInstanceProfile": {}}))
        box = answer["Instances"][0]["InstanceId"]
        await until(lambda: sim.machines.state(box) == "running" and box in sim.machines.agents)
        await asyncio.sleep(0.1)
        assert not sim.machines.is_connected(box)
        assert (await call(sim, "StartSession", Target=box))["__type"] == "TargetNotConnected"


async def test_regions_do_not_know_each_other(simulator: MakeSimulator) -> None:
    sim = await simulator(boxes=["api"])
    async with client(sim, "ec2", region="eu-west-1") as ec2:
        assert not (await ec2.describe_instances())["Reservations"]
        there = catalogue.newest("eu-west-1", 0, "arm64")
        await launched(sim, ec2, "far", ImageId=there)
        assert len((await ec2.describe_instances())["Reservations"]) == 1
        with pytest.raises(ClientError, match=r"InvalidInstanceID\.NotFound"):
            await ec2.stop_instances(InstanceIds=[sim.box_id("api")])
    async with client(sim, "ec2") as ec2:
        assert len((await ec2.describe_instances())["Reservations"]) == 1


async def test_a_lost_answer_is_a_cut_connection_after_the_effect(simulator: MakeSimulator) -> None:
    """What the reconciler meets on a bad line: an error, and the box stops all the same."""
    sim = await simulator(boxes=["api"])
    async with client(sim, "ec2") as ec2:
        await sim.fault("ec2", kind="lose-answer", operation="StopInstances")
        with pytest.raises(ConnectionClosedError):
            await ec2.stop_instances(InstanceIds=[sim.box_id("api")])
        await until(lambda: sim.state("api") == "stopped")
        await sim.fault("clear")
        await ec2.start_instances(InstanceIds=[sim.box_id("api")])


async def test_the_console_acts_behind_our_back_and_faults_spare_it(simulator: MakeSimulator) -> None:
    sim = await simulator(boxes=["api", "web"])
    await sim.console(
        "ModifyInstanceAttribute", InstanceId=sim.box_id("api"), DisableApiTermination={"Value": True}
    )
    await sim.fault("ec2", kind="refuse", code="UnauthorizedOperation")
    async with client(sim, "ec2") as ec2:
        with pytest.raises(ClientError, match="UnauthorizedOperation"):
            await ec2.describe_instances()
    assert await sim.fault("box-terminate", box="api") == 1, "the user in the console lifts the protection"
    assert await sim.fault("box-poweroff", box="web") == 1
    await until(lambda: (sim.state("api"), sim.state("web")) == ("terminated", "stopped"))
    assert await sim.fault("box-start", box="web") == 1
    await until(lambda: sim.is_connected("web"))
    assert await sim.fault("box-lose-host", box="web") == 1
    await until(lambda: sim.state("web") == "stopped")


async def test_a_spot_box_is_interrupted_by_name(simulator: MakeSimulator) -> None:
    sim = await simulator(boxes=[])
    async with client(sim, "ec2") as ec2:
        await launched(sim, ec2, "cheap", InstanceMarketOptions={"MarketType": "spot"})
    assert await sim.fault("box-interrupt", box="cheap") == 1
    await until(lambda: sim.state("cheap") == "terminated")


async def test_a_spot_box_has_notice_before_it_is_interrupted(
    simulator: MakeSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = await simulator(boxes=["api"])
    async with client(sim, "ec2") as ec2:
        await launched(sim, ec2, "cheap", InstanceMarketOptions={"MarketType": "spot"})

    async def said(box: str) -> list[tuple[int | None, str]]:
        for name, value in sim.imds.environment(sim.box_id(box)).items():
            monkeypatch.setenv(name, value)
        questions = ("instance-life-cycle", "spot/instance-action", "events/recommendations/rebalance")
        return await asyncio.to_thread(Metadata().look, *questions)

    assert await said("api") == [(200, "on-demand"), (404, ""), (404, "")]
    assert await said("cheap") == [(200, "spot"), (404, ""), (404, "")]
    assert await sim.fault("box-rebalance") == 1, "the other one is no spot box"
    assert await sim.fault("box-notice", seconds=3600) == 1
    _, (status, notice), (likelier, _) = await said("cheap")
    assert (status, likelier, json.loads(notice)["action"]) == (200, 200, "terminate")
    await sim.fault("clear")
    assert await said("cheap") == [(200, "spot"), (404, ""), (404, "")]
    with pytest.raises(BadFault, match="api is no spot instance"):
        await sim.fault("box-notice", box="api")
    await sim.fault("box-notice", seconds=0.05, box="cheap")
    await until(lambda: sim.state("cheap") == "terminated")
    assert await said("cheap") == [(404, ""), (404, ""), (404, "")]


async def test_every_kind_of_ec2_fault_can_be_had_by_name(simulator: MakeSimulator) -> None:
    sim = await simulator(boxes=["api"])
    for kind in KINDS:
        assert await sim.fault("ec2", kind=kind, times=1) == 1
    assert all(sim.machines.ec2.faults.any(kind) for kind in KINDS)
    await sim.fault("clear")
    assert not any(sim.machines.ec2.faults.any(kind) for kind in KINDS)


async def test_stopping_a_box_ends_its_processes_and_sessions(simulator: MakeSimulator) -> None:
    sim = await simulator(boxes=["api"])
    marker = sim.machines.agents[sim.box_id("api")].marker
    async with shell(sim, "api") as session:
        await session.type("nohup sleep 1000 >nohup.log & echo st''arted\n")
        await session.until(lambda c: b"started" in c.output)
        await until(
            lambda: len(process.leftovers(marker)) >= 2
        )  # the shell, and its job as soon as it is exec'd
        async with client(sim, "ec2") as ec2:
            await ec2.stop_instances(InstanceIds=[sim.box_id("api")])
        assert await session.closed() == ""
    assert not process.leftovers(marker)
