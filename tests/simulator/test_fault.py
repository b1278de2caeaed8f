"""Faults by name: each does to a session what it says, and the session does what the real one would."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from xml.etree import ElementTree as ET

import aiohttp
import pytest

from devboxd.simulator.chaos import BadFault
from devboxd.simulator.gateway.gateway import IDLE_TEXT
from devboxd.simulator.gateway.session import State
from devboxd.ssm.payload import PayloadType
from tests.kit.sim import MakeSimulator
from tests.simulator.client import call, connected, joined, shell, until


@pytest.mark.parametrize(
    ("fault", "parameters", "code"),
    [
        ("rst", {}, None),
        ("fin", {}, None),
        ("close", {}, 1000),
        ("close", {"code": 1001, "text": "away"}, 1001),
    ],
)
async def test_a_cut_link_is_resumed_with_its_counters(
    simulator: MakeSimulator, fault: str, parameters: dict[str, Any], code: int | None
) -> None:
    """Whatever kills the socket, the shell behind it never notices."""
    sim = await simulator()
    async with shell(sim, "api") as client:
        await client.type("V=kept; echo one-$((1+1))\n")
        await client.until(lambda c: b"one-2\r\n" in c.output)
        assert await sim.fault(fault, **parameters) == 1
        await client.until(lambda c: c.lost)
        assert code is None or client.socket.close_code == code
        # The gateway notices on its own socket, too.
        while sim.gateway.sessions[client.session].state is not State.DISCONNECTED:
            await asyncio.sleep(0)
        resumed = await call(sim, "ResumeSession", SessionId=client.session)
        async with joined(sim, resumed, client):
            await client.type("echo after-$V\n")
            await client.until(lambda c: b"after-kept\r\n" in c.output)
            await client.type("exit\n")
            assert await client.closed() == ""


async def test_output_waits_for_the_client_to_come_back(simulator: MakeSimulator) -> None:
    """Paused, the agent stops reading the terminal: nothing is lost while nobody listens."""
    sim = await simulator(resend_tick=0.01)
    async with shell(sim, "api") as client:
        await client.type('stty -echo; sleep 0.2; seq 1 2000; echo d""one\n')
        await client.until(lambda c: b"stty" in c.output)
        await sim.fault("rst")
        await client.until(lambda c: c.lost)
        await asyncio.sleep(0.3)
        async with joined(sim, await call(sim, "ResumeSession", SessionId=client.session), client):
            await client.until(lambda c: b"done" in c.output)
    assert b"".join(b"%d\r\n" % n for n in range(1, 2001)) in client.output


async def test_a_wrong_or_used_token_is_refused(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with shell(sim, "api") as client:
        resumed = await call(sim, "ResumeSession", SessionId=client.session)
        fates = []
        for token in ("wrong", resumed["TokenValue"], resumed["TokenValue"]):
            async with aiohttp.ClientSession() as http, http.ws_connect(resumed["StreamUrl"]) as socket:
                client.socket = socket
                await client.open(token)
                fates.append((await socket.receive()).type)
        refused = aiohttp.WSMsgType.CLOSE
        assert fates == [refused, aiohttp.WSMsgType.BINARY, refused]


async def test_a_resumed_session_has_a_new_url_and_the_old_one_is_dead(simulator: MakeSimulator) -> None:
    sim = await simulator()
    started = await call(sim, "StartSession", Target=sim.box("api").id)
    resumed = await call(sim, "ResumeSession", SessionId=started["SessionId"])
    assert started["StreamUrl"] != resumed["StreamUrl"]
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(started["StreamUrl"])
    assert refused.value.status == 400


async def test_frames_are_lost_repeated_and_reordered_by_the_seed(simulator: MakeSimulator) -> None:
    """Every byte arrives all the same: both peers repair what the wire does to them."""
    sim = await simulator(resend_tick=0.005)
    await sim.fault("wire", drop=0.1, duplicate=0.1, reorder=0.2)
    async with shell(sim, "api") as client:
        for number in range(10):
            await client.type(f"echo line-{number}-$((1+1))\n")
        text = [b"line-%d-2\r\n" % number for number in range(10)]
        await client.until(lambda c: all(line in c.output for line in text), wait=20)


async def test_a_black_hole_delays_and_loses_nothing(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with shell(sim, "api") as client:
        before = len(client.frames)
        await sim.fault("blackhole", seconds=0.2, session="last")
        await client.send(PayloadType.OUTPUT, b"echo through-$((1+1))\n")
        await asyncio.sleep(0.1)
        assert len(client.frames) == before
        assert not client.lost
        await client.until(lambda c: b"through-2\r\n" in c.output)


async def test_a_dead_far_end_leaves_the_gateway_answering_pings(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with shell(sim, "api") as client:
        await sim.fault("mute")
        number = await client.send(PayloadType.PARAMETER, b"{}")
        await client.socket.ping()
        session = sim.gateway.sessions[client.session]
        while not session.counts["pings"]:
            await asyncio.sleep(0)
        assert number not in client.acknowledged
        await sim.fault("clear")
        await client.send(PayloadType.PARAMETER, b"{}", sequence=number)
        await client.until(lambda c: number in c.acknowledged)


async def test_the_ends_of_a_session(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with shell(sim, "api") as client:
        await sim.fault("terminate", text="because", session="last")
        assert await client.closed() == "because"
        assert await call(sim, "ResumeSession", SessionId=client.session) == {"SessionId": client.session}
        await client.until(lambda c: c.lost)
        assert client.socket.close_code == 1000
    async with shell(sim, "api") as client:
        await sim.fault("idle")
        assert await client.closed() == IDLE_TEXT
    async with shell(sim, "api") as client:
        await sim.fault("end-silently")
        await client.until(lambda c: c.lost)
        assert client.closed_text is None
        assert await call(sim, "ResumeSession", SessionId=client.session) == {"SessionId": client.session}
    async with shell(sim, "api") as client:
        await sim.fault("forget")
        await client.until(lambda c: c.lost)
        answer = await call(sim, "ResumeSession", SessionId=client.session)
        assert answer["__type"] == "DoesNotExistException"


async def test_apis_refuse_as_told(simulator: MakeSimulator) -> None:
    sim = await simulator()
    target = sim.box("api").id
    await sim.fault("refuse-start", times=2)
    answers = [await call(sim, "StartSession", Target=target) for _ in range(3)]
    assert [answer.get("__type") for answer in answers] == ["TargetNotConnected", "TargetNotConnected", None]
    await sim.fault("expire-credentials", seconds=0.05)
    assert (await call(sim, "GetConnectionStatus", Target=target))["__type"] == "ExpiredTokenException"
    await asyncio.sleep(0.06)
    assert (await call(sim, "GetConnectionStatus", Target=target))["Status"] == "connected"
    await sim.fault("throttle", call="DescribeSessions", times=1)
    assert (await call(sim, "DescribeSessions", State="Active"))["__type"] == "ThrottlingException"
    assert "Sessions" in await call(sim, "DescribeSessions", State="Active")
    await sim.fault("refuse-dial", times=1)
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(answers[2]["StreamUrl"])
    assert refused.value.status == 403


async def test_the_agents_own_link_is_cut_and_comes_back(simulator: MakeSimulator) -> None:
    """As recorded: pause, start, and the shell goes on."""
    sim = await simulator()
    async with shell(sim, "api") as client:
        client.log.clear()
        await sim.fault("agent-cut")
        await client.until(lambda c: "start_publication" in c.log)
        assert client.log[0] == "pause_publication"
        await client.type("echo back-$((1+1))\n")
        await client.until(lambda c: b"back-2\r\n" in c.output)


async def test_an_agent_restart_spares_open_sessions(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with shell(sim, "api") as client:
        await sim.fault("agent-restart", seconds=0.1, box="api")
        answer = await call(sim, "StartSession", Target=sim.box("api").id)
        assert answer["__type"] == "TargetNotConnected"
        await client.type("echo alive-$((1+1))\n")
        await client.until(lambda c: b"alive-2\r\n" in c.output)
        await asyncio.sleep(0.1)
        assert "TokenValue" in await call(sim, "StartSession", Target=sim.box("api").id)


@pytest.mark.parametrize("silent", [True, False])
async def test_a_reboot_ends_the_sessions_of_its_box_only(simulator: MakeSimulator, silent: bool) -> None:
    sim = await simulator()
    async with shell(sim, "api") as client, shell(sim, "web") as other:
        await sim.fault("reboot", box="api", silent=silent)
        if silent:
            await client.until(lambda c: c.log[-1] == "pause_publication")
            assert client.closed_text is None
        else:
            assert await client.closed() == ""
        await other.type("echo untouched-$((1+1))\n")
        await other.until(lambda c: b"untouched-2\r\n" in c.output)


async def test_the_hourly_bye(simulator: MakeSimulator) -> None:
    sim = await simulator(bye_after=0.05)
    async with connected(sim, "api") as client:
        await client.until(lambda c: c.lost)
        assert client.socket.close_code == 1000
        assert client.closed_text is None
        assert "TokenValue" in await call(sim, "ResumeSession", SessionId=client.session)


async def test_idle_sessions_end_by_themselves(simulator: MakeSimulator) -> None:
    sim = await simulator(idle_timeout=1.0)  # a busy machine needs some of it to show a prompt
    async with shell(sim, "api") as client:
        assert await client.closed() == IDLE_TEXT


async def test_faults_over_http_as_tests_from_outside_use_them(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with shell(sim, "api") as client, aiohttp.ClientSession() as http:
        body: dict[str, object] = {"fault": "rst", "box": "api"}
        async with http.post(f"{sim.url}/_simulator/fault", json=body) as reply:
            assert await reply.json() == {"touched": 1}
        await client.until(lambda c: c.lost)
        bad: object
        for bad in (
            {"fault": "nonsense"},
            {"fault": "rst", "colour": "red"},
            [],
            {"fault": "rst", "box": "no"},
        ):
            async with http.post(f"{sim.url}/_simulator/fault", json=bad) as reply:
                assert reply.status == 400
        async with http.get(f"{sim.url}/_simulator/state") as reply:
            state = await reply.json()
        assert [box["name"] for box in state["boxes"]] == ["api", "web", "data"]
        assert state["sessions"][0]["state"] == "Disconnected"
        assert "rst" in state["faults"]


async def test_a_fault_on_all_boxes_leaves_out_those_it_cannot_touch(simulator: MakeSimulator) -> None:
    """``fault reboot`` with one box stopped must reboot the others, not answer with a traceback."""
    sim = await simulator(stopped=["data"])
    assert await sim.fault("reboot") == 2
    assert await sim.fault("box-stop") == 2
    assert await sim.fault("reboot") == 0
    await until(lambda: all(sim.state(box.id) == "stopped" for box in sim.boxes))
    assert await sim.fault("box-start") == 3
    assert await sim.fault("box-terminate", box="api") == 1
    await until(lambda: sim.state("web") == "running")
    assert await sim.fault("box-terminate") == 2
    assert await sim.fault("reboot") == await sim.fault("box-start") == await sim.fault("box-terminate") == 0


@pytest.mark.parametrize("fault", ["reboot", "box-stop", "box-start"])
async def test_a_fault_on_a_box_in_the_wrong_state_says_so(simulator: MakeSimulator, fault: str) -> None:
    sim = await simulator(boxes=["api"])
    await sim.fault("box-terminate", box="api")
    with pytest.raises(BadFault, match="not in a state from which it can be"):
        await sim.fault(fault, box="api")


NONSENSE: list[tuple[str, dict[str, Any]]] = [
    ("reboot", {"box": "no such box"}),
    ("reboot", {"box": ["api"]}),
    ("reboot", {"silent": "perhaps"}),
    ("blackhole", {}),
    ("blackhole", {"seconds": None}),
    ("blackhole", {"seconds": "long"}),
    ("blackhole", {"seconds": -1}),
    ("blackhole", {"seconds": float("nan")}),
    ("agent-cut", {"seconds": float("inf")}),
    ("agent-restart", {"seconds": [1]}),
    ("close", {"code": 7}),
    ("close", {"code": 70000}),
    ("close", {"code": 1000.5}),
    ("close", {"text": "x" * 124}),
    ("wire", {"drop": 2}),
    ("wire", {"direction": "sideways"}),
    ("wire", {"delay": {}}),
    ("refuse", {"call": ["StartSession"]}),
    ("refuse", {"call": "*", "status": 99}),
    ("refuse", {"call": "*", "status": None}),
    ("refuse", {"call": "*", "code": "a\r\nb"}),
    ("refuse", {"call": "*", "times": 1.5}),
    ("refuse", {"call": "*", "text": 1 == 1}),
]


@pytest.mark.parametrize(("fault", "parameters"), NONSENSE)
async def test_nonsense_in_a_fault_is_refused_in_one_sentence(
    simulator: MakeSimulator, fault: str, parameters: dict[str, Any]
) -> None:
    """Whoever mistypes a fault wants to read what is wrong, not a 500; and nothing must be half applied."""
    sim = await simulator(boxes=["api"])
    with pytest.raises(BadFault, match=rf"^{fault}: "):
        await sim.fault(fault, **parameters)
    body = json.dumps({"fault": fault} | parameters)
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{sim.url}/_simulator/fault", data=body) as reply:
            assert (reply.status, list(await reply.json())) == (400, ["error"])
        assert (await call(sim, "GetConnectionStatus", Target=sim.box_id("api")))["Status"] == "connected"


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff", b'"rst"', b'{"fault": 7}'])
async def test_a_request_for_a_fault_that_is_none_is_refused(simulator: MakeSimulator, body: bytes) -> None:
    sim = await simulator(boxes=["api"])
    headers = {"Content-Type": "application/json; charset=no-such"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{sim.url}/_simulator/fault", data=body, headers=headers) as reply,
    ):
        assert reply.status == 400


async def test_the_text_of_a_refusal_cannot_break_the_answer(simulator: MakeSimulator) -> None:
    """A message with markup or control characters would look like a broken service, not like a refusal."""
    sim = await simulator(boxes=["api"])
    for service in ("ec2", "sts"):
        await sim.fault("refuse", call="*", text="<b>&\x00\x1b[31m", times=1)
        headers = {
            "Authorization": "AWS4-HMAC-SHA256 Credential="
            f"AKIA/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature={'0' * 64}"
        }
        data = {"Action": "DescribeInstances" if service == "ec2" else "GetCallerIdentity"}
        async with (
            aiohttp.ClientSession() as http,
            http.post(sim.url, data=data, headers=headers) as reply,
        ):
            message = ET.fromstring(await reply.text()).find(".//{*}Message")
            assert message is not None
            assert message.text == "<b>&??[31m"


async def test_unknown_faults_are_named(simulator: MakeSimulator) -> None:
    sim = await simulator()
    with pytest.raises(BadFault, match="no fault is named"):
        await sim.fault("earthquake")
