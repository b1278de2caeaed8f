"""The simulated far end tells the same stories as the real agent did when it was recorded.

Compared is what the client is sent: kinds of messages and payloads, in order. Left out is what depends on
timing alone: acknowledgements' places, publication notices, how output is cut into frames.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from devboxd.simulator.world import Simulator
from devboxd.ssm import frame
from devboxd.ssm.payload import Flag, PayloadType, flag
from tests.kit.sim import MakeSimulator
from tests.simulator.client import Client, call, connected, smux

RECORDINGS = Path(__file__).parent.parent / "ssm" / "transcripts"
FORWARD = "AWS-StartPortForwardingSession"
SYN, FIN, PSH = range(3)


def sent_to_client(name: str) -> list[frame.Frame]:
    """The frames that left a recorded gateway for the client."""
    lines = [json.loads(line) for line in (RECORDINGS / f"{name}.jsonl").read_text().splitlines()]
    found = []
    for line in lines:
        if line.get("dir") == "gw>client" and line.get("chan") == "data":
            source = lines[line["ref"]] if line["op"] == "relay" else line
            if "hex" in source:
                found.append(frame.decode(bytes.fromhex(source["hex"])))
    return found


def story(frames: list[frame.Frame]) -> list[str]:
    """Kinds of stream payloads and the closing, each new frame once, runs of the same kind as one."""
    seen, words = set(), []
    for one in frames:
        if one.type == frame.OUTPUT and one.sequence not in seen:
            seen.add(one.sequence)
            words.append(PayloadType(one.payload_type).name)
        elif one.type == frame.CHANNEL_CLOSED:
            words.append("closed: " + json.loads(one.payload)["Output"])
    return [word for word, _ in groupby(words)]


def shape(one: frame.Frame) -> tuple[int, int, list[str]]:
    """What must be alike in two frames of one kind: flags, payload type, keys of the JSON."""
    return one.flags, one.payload_type, sorted(json.loads(one.payload))


async def shell(sim: Simulator) -> Client:
    async with connected(sim, "api") as client:
        await client.until(lambda c: c.output)
        await client.resize(80, 24)
        await client.type("stty size\n")
        await client.type("exit\n")
        await client.closed()
    return client


async def interactive(sim: Simulator) -> Client:
    text = "printf 'name? '; read n; echo hi $n; exit 3"
    async with connected(sim, "api", "AWS-StartInteractiveCommand", command=text) as client:
        await client.until(lambda c: c.output)
        await client.type("rig\n")
        await client.closed()
    assert client.output == b"name? rig\r\nhi rig\r\n"
    return client


async def merged(sim: Simulator) -> Client:
    text = "sh -c 'echo to-stdout; echo to-stderr >&2; exit 7'"
    async with connected(sim, "api", "AWS-StartNonInteractiveCommand", command=text) as client:
        await client.closed()
    return client


async def separate(sim: Simulator) -> Client:
    text = "sh -c 'echo to-stderr >&2; sleep 0.05; echo to-stdout; exit 7'"
    document = "AWS-StartNonInteractiveCommand"
    async with connected(sim, "api", document, command=text, separateOutputStream="true") as client:
        await client.closed()
    return client


async def port(sim: Simulator) -> Client:
    async with connected(sim, "api", FORWARD, portNumber="7", localPortNumber="0") as client:
        await client.until(lambda c: "HANDSHAKE_COMPLETE 1" in c.log)
        await client.type(smux(SYN, 3) + smux(PSH, 3, b"x"))
        await client.until(lambda c: smux(PSH, 3, b"x") in c.output)
        await client.type(smux(FIN, 3))
        await client.until(lambda c: smux(FIN, 3) in c.output)
        await client.send_until_taken(PayloadType.FLAG, flag(Flag.TERMINATE_SESSION))
        await client.closed()
    return client


async def port_closed(sim: Simulator) -> Client:
    sim.map_port("api", 49073, 1)  # nobody listens on tcpmux
    async with connected(sim, "api", FORWARD, portNumber="49073", localPortNumber="41131") as client:
        await client.until(lambda c: "HANDSHAKE_COMPLETE 1" in c.log)
        await client.type(smux(SYN, 3) + smux(PSH, 3, b"hello\n"))
        await client.until(lambda c: smux(FIN, 3) in c.output)
        await client.send_until_taken(PayloadType.FLAG, flag(Flag.TERMINATE_SESSION))
        await client.closed()
    return client


async def remote_denied(sim: Simulator) -> Client:
    document = "AWS-StartPortForwardingSessionToRemoteHost"
    async with connected(sim, "api", document, host="169.254.169.254", portNumber="80") as client:
        await client.closed()
    return client


async def ssh(sim: Simulator) -> Client:
    sim.map_port("api", 22, sim.machines.agents[sim.box("api").id].ports[7])
    async with connected(sim, "api", "AWS-StartSSHSession") as client:
        await client.until(lambda c: "HANDSHAKE_COMPLETE 1" in c.log)
        await client.type("SSH-2.0-client\r\n")
        await client.until(lambda c: c.output)
    return client


async def terminated(sim: Simulator) -> Client:
    async with connected(sim, "api") as client:
        await client.until(lambda c: c.output)
        await client.resize(80, 24)
        await call(sim, "TerminateSession", SessionId=client.session)
        await client.closed()
    return client


async def kms(sim: Simulator) -> Client:
    sim.use_kms()
    plaintext = b""

    def respond(request: dict[str, Any]) -> dict[str, Any]:
        nonlocal plaintext
        parameters = request["RequestedClientActions"][1]["ActionParameters"]
        context = {
            "aws:ssm:SessionId": next(iter(sim.gateway.sessions)),
            "aws:ssm:TargetId": sim.box("api").id,
            "aws:ssm:RandomChallenge": parameters["Challenge"],
        }
        plaintext, blob = sim.kms.generate_data_key(parameters["KMSKeyId"], context, 64)
        answer = Client(sim, "").agree(request)
        answer["ProcessedClientActions"][1]["ActionResult"] = {
            "KMSCipherTextKey": base64.b64encode(blob).decode(),
            "ChallengeAcknowledgement": True,
        }
        return answer

    async with connected(sim, "api", handshake_result=respond) as client:
        await client.until(lambda c: "CHALLENGE_REQUEST 1" in c.log)
        sealed = next(f.payload for f in client.frames if f.payload_type == PayloadType.CHALLENGE_REQUEST)
        raw = base64.b64decode(json.loads(sealed)["Challenge"])
        secret = AESGCM(plaintext[:32]).decrypt(raw[:12], raw[12:], None)
        answer = b"n" * 12 + AESGCM(plaintext[32:]).encrypt(b"n" * 12, secret, None)
        text = json.dumps({"Challenge": base64.b64encode(answer).decode()})
        await client.send_until_taken(PayloadType.CHALLENGE_RESPONSE, text.encode())
        await client.until(lambda c: "HANDSHAKE_COMPLETE 2" in c.log)
        await client.type(b"m" * 12 + AESGCM(plaintext[32:]).encrypt(b"m" * 12, b"exit\n", None))
        await client.closed()
    return client


SCENARIOS: list[tuple[str, Callable[[Simulator], Awaitable[Client]]]] = [
    ("shell", shell),
    ("interactive_command", interactive),
    ("noninteractive_command", merged),
    ("noninteractive_exit_code", separate),
    ("port", port),
    ("port_closed", port_closed),
    ("remote_host_denied", remote_denied),
    ("ssh", ssh),
    ("terminated", terminated),
    ("kms", kms),
]


@pytest.mark.parametrize(("name", "play"), SCENARIOS, ids=[name for name, _ in SCENARIOS])
async def test_the_far_end_tells_the_recorded_story(
    simulator: MakeSimulator, name: str, play: Callable[[Simulator], Awaitable[Client]]
) -> None:
    """Same messages, same order, same flags and the same keys in every JSON text."""
    sim = await simulator()
    recorded = sent_to_client(name)
    ours = (await play(sim)).frames
    told, heard = story(recorded), story(ours)
    # In these recordings the client hung up before the closing could reach it.
    if not told[-1].startswith("closed"):
        heard = heard[: len(told)]
    assert heard == told
    kinds = {PayloadType.HANDSHAKE_REQUEST, PayloadType.HANDSHAKE_COMPLETE, PayloadType.CHALLENGE_REQUEST}
    for kind in kinds:
        assert [shape(f) for f in dedup(ours) if f.payload_type == kind] == [
            shape(f) for f in dedup(recorded) if f.payload_type == kind
        ]
    for type_ in (frame.ACKNOWLEDGE, frame.CHANNEL_CLOSED, frame.START_PUBLICATION):
        expected = {tuple(map(str, shape(one))) for one in recorded if one.type == type_}
        if expected:
            assert {tuple(map(str, shape(one))) for one in ours if one.type == type_} == expected


def dedup(frames: list[frame.Frame]) -> list[frame.Frame]:
    """Stream frames without resent ones."""
    return list({one.sequence: one for one in frames if one.type == frame.OUTPUT}.values())


def test_handshake_requests_ask_in_the_recorded_words() -> None:
    """The recordings are there and are what these tests take them for."""
    request = next(f for f in sent_to_client("port_closed") if f.payload_type == 5)
    assert json.loads(request.payload)["RequestedClientActions"][0]["ActionParameters"]["Properties"] == {
        "localPortNumber": "41131",
        "portNumber": "49073",
        "type": "LocalPortForwarding",
    }
