"""Sessions recorded between the real client and the real agent, replayed through a channel.

The channel takes the real client's place: it gets what the gateway sent to it, and is told to send what
the real one sent. The two differ where ours is meant to be better: repeats are acknowledged, a no-op
follows the handshake, nothing is sent before its acknowledgement.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from devboxd.ssm import frame
from devboxd.ssm.channel import Channel
from devboxd.ssm.crypto import Cipher
from devboxd.ssm.effect import (
    Closed,
    Effect,
    ErrorOutput,
    ExitCode,
    FlagReceived,
    NeedDataKey,
    Output,
    Ready,
    Send,
    SendText,
)
from devboxd.ssm.limits import PORT
from devboxd.ssm.mux import Data, Finished, Mux, Opened
from devboxd.ssm.payload import PayloadType
from tests.kit.muxserver import MuxServer
from tests.ssm.support import WALL_MS, acknowledged, inputs, transcripts

LATER = (PayloadType.OUTPUT, PayloadType.SIZE, PayloadType.FLAG)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def flow(path: Path, direction: str) -> Iterator[tuple[dict[str, Any], frame.Frame]]:
    """Frames of the data channel that left in ``direction``, relayed or the gateway's own."""
    all_lines = lines(path)
    for line in all_lines:
        if line.get("dir") == direction and line.get("chan") == "data":
            origin = all_lines[line["ref"]] if line["op"] == "relay" else line
            if origin["op"] == "bin":
                yield line, frame.decode(bytes.fromhex(origin["hex"]))


@dataclass
class Replay:
    """One recorded session with our channel in it."""

    path: Path
    effects: list[Effect] = field(default_factory=list)
    pending: list[frame.Frame] = field(default_factory=list)
    key: tuple[bytes, bytes] = (b"", b"")

    def run(self) -> Channel:
        all_lines = lines(self.path)
        meta = all_lines[0]
        opening = next(json.loads(line["text"]) for line in all_lines if line.get("dir") == "client>gw")
        self.channel = channel = Channel(
            session_id=meta["session"],
            target=meta["target"],
            client_id=UUID(opening["ClientId"]),
            limits=PORT,
        )
        for line in all_lines:
            if line.get("what") == "kms_data_key":
                self.key = (bytes.fromhex(line["plaintext"]), bytes.fromhex(line["blob"]))
        used: set[int] = set()
        for line in all_lines[1:]:
            now = line["t"]
            if line["op"] == "event":
                if line["what"] == "detached" and line["role"] == "client":
                    channel.lost(now)
            elif line.get("chan") != "data":
                continue
            elif line["dir"] == "client>gw" and line["op"] == "text":
                text = json.loads(line["text"])
                request = UUID(text["RequestId"])
                self.act(channel.opened(now, token="(token)", request_id=request, wall_ms=WALL_MS), now)
            elif line["dir"] == "client>gw":
                message = frame.decode(bytes.fromhex(line["hex"]))
                if (
                    message.type == frame.INPUT
                    and message.payload_type in LATER
                    and message.sequence not in used
                ):
                    used.add(message.sequence)
                    self.pending.append(message)
                    self.pump(now)
            elif line["dir"] == "gw>client":
                origin = all_lines[line["ref"]] if line["op"] == "relay" else line
                self.act(channel.received(bytes.fromhex(origin["hex"]), now), now)
        return channel

    def act(self, effects: list[Effect], now: float) -> None:
        self.effects += effects
        for effect in effects:
            if isinstance(effect, NeedDataKey):
                self.act(self.channel.data_key(*self.key, now), now)
        self.pump(now)

    def pump(self, now: float) -> None:
        while self.pending and self.channel.ready:
            message = self.pending.pop(0)
            payload = message.payload
            if message.payload_type == PayloadType.OUTPUT and self.key[0]:
                payload = far_end(self.key[0]).decrypt(payload)
            self.effects += self.channel.send(message.payload_type, payload, now)


def far_end(key: bytes) -> Cipher:
    """The agent's view of a data key."""
    return Cipher(key[32:] + key[:32], bytes)


@pytest.fixture(scope="module", params=transcripts(), ids=lambda path: path.stem)
def replay(request: pytest.FixtureRequest) -> Replay:
    result = Replay(request.param)
    result.run()
    return result


def frames_of_agent(replay: Replay) -> dict[int, frame.Frame]:
    """What the agent's stream holds, by sequence, as the client got it."""
    return {
        message.sequence: message
        for _, message in flow(replay.path, "gw>client")
        if message.type == frame.OUTPUT
    }


def test_all_recordings_are_here() -> None:
    assert len(transcripts()) == 13


def test_the_agents_bytes_come_out_in_order(replay: Replay) -> None:
    expected: list[Effect] = []
    for _, message in sorted(frames_of_agent(replay).items()):
        payload = message.payload
        if replay.key[0] and message.payload_type in {1, 11, 12}:
            payload = Cipher(replay.key[0], bytes).decrypt(payload)
        match message.payload_type:
            case PayloadType.OUTPUT:
                expected.append(Output(payload))
            case PayloadType.STDERR:
                expected.append(ErrorOutput(payload))
            case PayloadType.EXIT_CODE:
                expected.append(ExitCode(int(payload.split()[1])))
            case PayloadType.FLAG:
                expected.append(FlagReceived(int.from_bytes(payload, "big")))
    kinds = Output | ErrorOutput | ExitCode | FlagReceived
    assert [effect for effect in replay.effects if isinstance(effect, kinds)] == expected
    assert replay.channel.missing == 0


def test_every_frame_is_acknowledged_as_it_comes_repeats_too(replay: Replay) -> None:
    """Ours starts with what the real client acknowledged; on a new link it says the last ones again."""
    arrivals = [m.sequence for _, m in flow(replay.path, "gw>client") if m.type == frame.OUTPUT]
    theirs = [
        json.loads(m.payload)["AcknowledgedMessageSequenceNumber"]
        for _, m in flow(replay.path, "client>gw")
        if m.type == frame.ACKNOWLEDGE
    ]
    ours = acknowledged(replay.effects)
    links = sum(isinstance(effect, SendText) for effect in replay.effects)
    assert set(ours) == set(arrivals)
    assert set(theirs) <= set(ours)
    if links == 1:
        assert ours == arrivals


def test_acknowledgements_are_those_of_the_real_client_but_for_id_and_date(replay: Replay) -> None:
    def plain(message: frame.Frame) -> tuple[object, ...]:
        return message.type, message.sequence, message.flags, message.payload_type, message.payload

    theirs = {plain(m) for _, m in flow(replay.path, "client>gw") if m.type == frame.ACKNOWLEDGE}
    ours = {plain(frame.decode(effect.data)) for effect in replay.effects if isinstance(effect, Send)}
    assert theirs <= ours


def test_the_handshake_is_answered_as_by_the_real_client(replay: Replay) -> None:
    def answers(messages: list[frame.Frame]) -> list[dict[str, Any]]:
        result = []
        for message in messages:
            if message.payload_type == PayloadType.HANDSHAKE_RESPONSE:
                answer: dict[str, Any] = json.loads(message.payload)
                del answer["ClientVersion"]
                for action in answer["ProcessedClientActions"]:
                    (action["ActionResult"] or {}).pop("ChallengeAcknowledgement", None)  # ours is newer
                result.append(answer)
        return result

    theirs = [m for _, m in flow(replay.path, "client>gw")]
    assert answers(inputs(replay.effects)) == answers(theirs)


def test_what_the_real_client_sent_goes_out_after_the_handshake_and_unchanged(replay: Replay) -> None:
    theirs = {
        m.sequence: (m.payload_type, m.payload)
        for _, m in flow(replay.path, "client>gw")
        if m.type == frame.INPUT and m.payload_type in LATER
    }
    ours: dict[int, tuple[int, bytes]] = {
        m.sequence: (m.payload_type, m.payload) for m in inputs(replay.effects) if m.payload_type in LATER
    }
    key = replay.key[0]

    def clear(items: dict[int, tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        return [
            (type_, far_end(key).decrypt(payload) if key and type_ == PayloadType.OUTPUT else payload)
            for _, (type_, payload) in sorted(items.items())
        ]

    assert clear(ours) == clear(theirs)
    assert not replay.pending


def test_ready_comes_once_and_before_all_output(replay: Replay) -> None:
    kinds = [type(effect) for effect in replay.effects]
    ready = [number for number, kind in enumerate(kinds) if kind is Ready]
    if replay.path.stem == "remote_host_denied":
        assert not ready, "refused right after the handshake"
        return
    assert len(ready) == 1
    assert Output not in kinds[: ready[0]]


def test_the_session_ends_as_it_was_ended(replay: Replay) -> None:
    ends = [
        json.loads(m.payload)["Output"]
        for _, m in flow(replay.path, "gw>client")
        if m.type == frame.CHANNEL_CLOSED
    ]
    assert [effect.reason for effect in replay.effects if isinstance(effect, Closed)] == ends[:1]


def test_nothing_recorded_counts_as_bad(replay: Replay) -> None:
    assert set(replay.channel.drops) <= {"unknown type"}


@pytest.mark.parametrize("name", ["port", "port_closed", "remote_host"])
def test_recorded_port_bytes_are_smux(name: str) -> None:
    """Both directions parse, and what the far end says belongs to streams that we opened."""
    [path] = [path for path in transcripts() if path.stem == name]
    result = Replay(path)
    result.run()
    up = b"".join(m.payload for m in inputs(result.effects) if m.payload_type == PayloadType.OUTPUT)
    down = b"".join(effect.data for effect in result.effects if isinstance(effect, Output))
    opened = [event.stream for event in MuxServer().received(up) if isinstance(event, Opened)]
    assert opened == list(range(3, 3 + 2 * len(opened), 2))
    mux = Mux()
    assert [mux.open()[0] for _ in opened] == opened
    events = mux.received(down)
    assert {event.stream for event in events if isinstance(event, Data | Finished)} <= set(opened)
    if name == "port_closed":
        assert not any(isinstance(event, Data) for event in events)
        assert FlagReceived(3) in result.effects
