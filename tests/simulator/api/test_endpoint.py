"""The endpoint through aiobotocore: its own request builders, parsers and error classes."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiobotocore.session import get_session
from botocore.config import Config
from botocore.exceptions import ClientError

from devboxd.simulator import sigv4
from devboxd.simulator.gateway.session import State
from devboxd.simulator.options import FAST
from devboxd.simulator.world import Simulator
from tests.kit.sim import MakeSimulator
from tests.net.authority import make_authority
from tests.simulator.client import Client, connected, joined, shell, until


@asynccontextmanager
async def client(
    sim: Simulator, service: str, secret: str = sigv4.SECRET_KEY, *, region: str = "us-east-1"
) -> AsyncIterator[Any]:
    config = Config(retries={"total_max_attempts": 1}, parameter_validation=True)
    session: Any = get_session()  # the overloads want a literal service name
    async with session.create_client(
        service,
        region_name=region,
        endpoint_url=sim.url,
        aws_access_key_id=sigv4.ACCESS_KEY,
        aws_secret_access_key=secret,
        config=config,
    ) as one:
        yield one


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return error.value.response["Error"]["Code"]


async def test_instances_are_described_paged_and_filtered(simulator: MakeSimulator) -> None:
    sim = await simulator(boxes=[f"box{n}" for n in range(7)], stopped=["box3"], services=False)
    async with client(sim, "ec2") as ec2:
        pages = ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 5})
        found = [i async for page in pages for r in page["Reservations"] for i in r["Instances"]]
        assert [i["InstanceId"] for i in found] == [box.id for box in sim.boxes]
        assert found[0]["Tags"] == [{"Key": "Name", "Value": "box0"}]
        assert found[3]["State"] == {"Code": 80, "Name": "stopped"}
        assert found[0]["LaunchTime"].tzinfo is not None
        filters = [
            {"Name": "tag:Name", "Values": ["box1", "box3"]},
            {"Name": "instance-state-name", "Values": ["running"]},
        ]
        answer = await ec2.describe_instances(Filters=filters)
        assert [r["Instances"][0]["InstanceId"] for r in answer["Reservations"]] == [sim.box("box1").id]
        with pytest.raises(ClientError) as error:
            await ec2.describe_instances(Filters=[{"Name": "colour", "Values": ["red"]}])
        assert code(error) == "InvalidParameterValue"
        with pytest.raises(ClientError) as error:
            await ec2.describe_instances(InstanceIds=["i-0123456789abcdef0"])
        assert code(error) == "InvalidInstanceID.NotFound"
        status = await ec2.describe_instance_status(InstanceIds=[sim.box("box0").id])
        assert status["InstanceStatuses"][0]["InstanceStatus"]["Status"] == "ok"


async def test_stopping_a_box_ends_its_sessions_and_starting_it_brings_it_back(
    simulator: MakeSimulator,
) -> None:
    sim = await simulator(agent_boot=0.05, pending=0.5)  # long enough to be seen on a busy machine
    box = sim.box("api")
    async with shell(sim, "api") as one, client(sim, "ec2") as ec2, client(sim, "ssm") as ssm:
        answer = await ec2.stop_instances(InstanceIds=[box.id])
        change = answer["StoppingInstances"][0]
        assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("running", "stopping")
        assert await one.closed() == ""
        with pytest.raises(ClientError) as error:
            await ssm.start_session(Target=box.id)
        assert code(error) == "TargetNotConnected"
        await until(lambda: sim.state("api") == "stopped")
        assert (await ec2.start_instances(InstanceIds=[box.id]))["StartingInstances"][0]["CurrentState"][
            "Name"
        ] == "pending"
        states = set()
        async with asyncio.timeout(5):
            while (await ssm.get_connection_status(Target=box.id))["Status"] != "connected":
                states.add(
                    (await ec2.describe_instances(InstanceIds=[box.id]))["Reservations"][0]["Instances"][0][
                        "State"
                    ]["Name"]
                )
        assert "pending" in states
        await ec2.reboot_instances(InstanceIds=[box.id])
        await ec2.terminate_instances(InstanceIds=[box.id])
        with pytest.raises(ClientError) as error:
            await ec2.start_instances(InstanceIds=[box.id])
        assert code(error) == "IncorrectInstanceState"


async def test_tags_and_dry_runs(simulator: MakeSimulator) -> None:
    sim = await simulator()
    box = sim.box("api").id
    async with client(sim, "ec2") as ec2:
        await ec2.create_tags(Resources=[box], Tags=[{"Key": "a", "Value": "1"}])
        assert (await ec2.describe_tags(Filters=[{"Name": "key", "Values": ["a"]}]))["Tags"][0][
            "Value"
        ] == "1"
        await ec2.delete_tags(Resources=[box], Tags=[{"Key": "a"}])
        assert not (await ec2.describe_tags(Filters=[{"Name": "key", "Values": ["a"]}]))["Tags"]
        with pytest.raises(ClientError) as error:
            await ec2.stop_instances(InstanceIds=[box], DryRun=True)
        assert code(error) == "DryRunOperation"


async def test_sessions_are_described_paged_and_filtered(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with shell(sim, "api") as one, shell(sim, "web"), client(sim, "ssm") as ssm:
        pages = ssm.get_paginator("describe_sessions").paginate(
            State="Active", PaginationConfig={"PageSize": 1}
        )
        found = [session async for page in pages for session in page["Sessions"]]
        assert [session["Target"] for session in found] == [sim.box("web").id, sim.box("api").id]
        assert found[0]["Status"] == "Connected"
        filters = [{"key": "Target", "value": sim.box("api").id}]
        answer = await ssm.describe_sessions(State="Active", Filters=filters)
        assert [session["SessionId"] for session in answer["Sessions"]] == [one.session]
        owner = [{"key": "Owner", "value": found[0]["Owner"]}]
        assert len((await ssm.describe_sessions(State="Active", Filters=owner))["Sessions"]) == 2
        await ssm.terminate_session(SessionId=one.session)
        history = (await ssm.describe_sessions(State="History"))["Sessions"]
        assert [(session["SessionId"], session["Status"]) for session in history] == [
            (one.session, "Terminated")
        ]
        assert history[0]["EndDate"] >= history[0]["StartDate"]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"DocumentName": "No-Such-Document"}, "InvalidDocument"),
        ({"DocumentName": "AWS-StartSSHSession", "Parameters": {"colour": ["red"]}}, "InvalidParameters"),
        (
            {"DocumentName": "AWS-StartSSHSession", "Parameters": {"portNumber": ["70000"]}},
            "InvalidParameters",
        ),
        ({"DocumentName": "AWS-StartInteractiveCommand"}, "InvalidParameters"),
        ({"Target": "i-0123456789abcdef0"}, "TargetNotConnected"),
    ],
)
async def test_a_wrong_start_session_is_refused(
    simulator: MakeSimulator, request_: dict[str, Any], expected: str
) -> None:
    sim = await simulator()
    async with client(sim, "ssm") as ssm:
        with pytest.raises(ClientError) as error:
            await ssm.start_session(**{"Target": sim.box("api").id} | request_)
        assert code(error) == expected


async def test_the_real_client_opens_a_session(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with client(sim, "ssm") as ssm:
        started = await ssm.start_session(Target=sim.box("api").id, Reason="a test")
        async with joined(sim, started) as one:
            await one.type("echo hello-$((1+1)); exit\n")
            await one.closed()
            assert b"hello-2" in one.output
        information = await ssm.describe_instance_information(
            Filters=[{"Key": "InstanceIds", "Values": [sim.box("web").id]}]
        )
        node = information["InstanceInformationList"][0]
        assert (node["PingStatus"], node["ComputerName"]) == ("Online", "web")
        with pytest.raises(ClientError) as error:
            await ssm.resume_session(SessionId="never-was")
        assert code(error) == "DoesNotExistException"


async def test_an_expired_login_shows_as_each_service_says_it(simulator: MakeSimulator) -> None:
    sim = await simulator()
    await sim.fault("expire-credentials")
    async with client(sim, "ssm") as ssm, client(sim, "ec2") as ec2, client(sim, "sts") as sts:
        for call, expected in (
            (ssm.describe_sessions(State="Active"), "ExpiredTokenException"),
            (ec2.describe_instances(), "RequestExpired"),
            (sts.get_caller_identity(), "ExpiredToken"),
        ):
            with pytest.raises(ClientError) as error:
                await call
            assert code(error) == expected
    await sim.fault("clear")
    async with client(sim, "sts") as sts:
        assert (await sts.get_caller_identity())["Account"] == "123456789012"


async def test_signatures_are_checked_when_asked_to(simulator: MakeSimulator) -> None:
    sim = await simulator(verify_signatures=True)
    async with client(sim, "ssm") as ssm, client(sim, "ec2") as ec2:
        assert await ssm.get_connection_status(Target=sim.box("api").id)
        assert await ec2.describe_instances()
    async with client(sim, "ssm", secret="wrong") as ssm:
        with pytest.raises(ClientError) as error:
            await ssm.get_connection_status(Target=sim.box("api").id)
        assert code(error) == "InvalidSignatureException"


async def test_a_pushed_key_lands_on_the_box(simulator: MakeSimulator) -> None:
    sim = await simulator(stopped=["data"])
    async with client(sim, "ec2-instance-connect") as connect:
        key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43 + " me"
        answer = await connect.send_ssh_public_key(
            InstanceId=sim.box("api").id, InstanceOSUser="dev", SSHPublicKey=key
        )
        assert answer["Success"]
        file = sim.box("api").disk / ".ssh" / "authorized_keys"
        assert file.read_text() == key + "\n"
        assert file.stat().st_mode & 0o777 == 0o600
        with pytest.raises(ClientError) as error:
            await connect.send_ssh_public_key(
                InstanceId=sim.box("data").id, InstanceOSUser="dev", SSHPublicKey=key
            )
        assert code(error) == "EC2InstanceStateInvalidException"


async def test_everything_else_is_motos(simulator: MakeSimulator) -> None:
    """Loaded on first need only: nobody waits two seconds for services they do not use."""
    pytest.importorskip("moto")
    sim = await simulator()
    async with client(sim, "dynamodb") as dynamodb, client(sim, "ssm") as ssm:
        await dynamodb.create_table(
            TableName="t",
            KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        await dynamodb.put_item(TableName="t", Item={"k": {"S": "1"}})
        assert (await dynamodb.get_item(TableName="t", Key={"k": {"S": "1"}}))["Item"] == {"k": {"S": "1"}}
        await ssm.put_parameter(Name="/a/b", Value="v", Type="String")
        assert (await ssm.get_parameter(Name="/a/b"))["Parameter"]["Value"] == "v"


async def test_a_schedule_in_a_group_that_there_is_not_is_refused(simulator: MakeSimulator) -> None:
    """An account that ``init account`` has not set up; a traceback would stand in the demo."""
    pytest.importorskip("moto")
    sim = await simulator()
    wanted: dict[str, Any] = {
        "Name": "stop-x",
        "GroupName": "devbox",
        "ScheduleExpression": "at(2030-01-01T00:00:00)",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "Target": {
            "Arn": "arn:aws:scheduler:::aws-sdk:ec2:stopInstances",
            "RoleArn": "arn:aws:iam::1:role/r",
        },
    }
    async with client(sim, "scheduler") as scheduler:
        with pytest.raises(ClientError) as refused:
            await scheduler.create_schedule(**wanted)
        assert code(refused) == "ResourceNotFoundException"
        await scheduler.create_schedule_group(Name="devbox")
        await scheduler.create_schedule(**wanted)


async def test_another_fault_of_moto_is_not_taken_for_a_missing_group(
    simulator: MakeSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would send whoever looks for it to the wrong place."""
    models = pytest.importorskip("moto.scheduler.models")

    def broken(*_: object, **__: object) -> None:
        raise KeyError("Mode")

    monkeypatch.setattr(models.EventBridgeSchedulerBackend, "create_schedule", broken)
    sim = await simulator()
    async with client(sim, "scheduler") as scheduler:
        with pytest.raises(ClientError) as failed:
            await scheduler.create_schedule(
                Name="stop-x",
                GroupName="devbox",
                ScheduleExpression="at(2030-01-01T00:00:00)",
                FlexibleTimeWindow={"Mode": "OFF"},
                Target={
                    "Arn": "arn:aws:scheduler:::aws-sdk:ec2:stopInstances",
                    "RoleArn": "arn:aws:iam::1:role/r",
                },
            )
        assert failed.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500


async def test_a_missing_moto_is_said_so(simulator: MakeSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "moto.moto_server.werkzeug_app", None)
    sim = await simulator()
    async with client(sim, "dynamodb") as dynamodb:
        with pytest.raises(ClientError, match="pip install"):
            await dynamodb.list_tables()


async def test_nonsense_is_answered_not_crashed_on(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with aiohttp.ClientSession() as http:
        headers = {"X-Amz-Target": "AmazonSSM.StartSession"}
        for body in (b"", b"[]", b"{", b"\xff", json.dumps({"Target": 7}).encode()):
            async with http.post(sim.url, data=body, headers=headers) as reply:
                assert reply.status == 400
        async with http.get(f"{sim.url}/v1/data-channel/none?role=publish_subscribe") as reply:
            assert reply.status == 400


async def test_everything_works_over_tls(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    async with Simulator(tmp_path / "sim", options=FAST, ssl_context=authority.server) as sim:
        assert sim.url.startswith("https://")
        headers = {"X-Amz-Target": "AmazonSSM.StartSession"}
        trusted = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=authority.bundle))
        async with (
            aiohttp.ClientSession(connector=trusted) as http,
            http.post(sim.url, json={"Target": sim.box("api").id}, headers=headers) as reply,
        ):
            started = json.loads(await reply.text())
            assert started["StreamUrl"].startswith("wss://127.0.0.1")
            async with http.ws_connect(started["StreamUrl"]) as socket:
                one = Client(sim, started["SessionId"])
                one.socket = socket
                await one.open(started["TokenValue"])
                assert (await socket.receive()).type is aiohttp.WSMsgType.BINARY


async def test_closing_leaves_no_descriptor_and_no_process(simulator: MakeSimulator) -> None:
    """Ten lives of a simulator with open sessions cost nothing that stays."""

    def descriptors() -> int:
        return len(os.listdir("/dev/fd"))

    sim = await simulator()
    async with shell(sim, "api"):
        pass
    before = descriptors()
    for _ in range(3):
        async with Simulator(sim.root / "again", options=sim.options) as again:
            async with connected(again, "web"):
                pass
            async with (
                shell(again, "api") as one,
                connected(again, "api", "AWS-StartPortForwardingSession", portNumber="7"),
            ):
                await one.type("sleep 1000 & sleep 1000 &\n")
                assert again.gateway.sessions[one.session].state is State.CONNECTED
        assert not again.failures
    assert descriptors() <= before
