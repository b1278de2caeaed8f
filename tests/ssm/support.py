"""Shared by the tests of the data channel: recorded data, and a channel with its frames by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

from devboxd.ssm import frame
from devboxd.ssm.channel import Channel
from devboxd.ssm.effect import Effect, Output, Send
from devboxd.ssm.limits import SHELL, Limits
from devboxd.ssm.payload import PayloadType

HERE = Path(__file__).parent
SESSION = "user-0123456789abcdef0"
TARGET = "i-0123456789abcdef0"
CLIENT = UUID("00112233-4455-4677-8899-aabbccddeeff")
MESSAGE = UUID("dd01e56b-ff48-483e-a508-b5f073f31b16")
WALL_MS = 1_700_000_000_000


def vectors(name: str) -> dict[str, Any]:
    """One of the recorded vector files."""
    content: dict[str, Any] = json.loads((HERE / "vectors" / f"{name}.json").read_text())
    return content


def transcripts() -> list[Path]:
    """All recorded sessions between the real client and the real agent."""
    return sorted((HERE / "transcripts").glob("*.jsonl"))


def make_channel(limits: Limits = SHELL) -> Channel:
    """A channel without a link."""
    return Channel(session_id=SESSION, target=TARGET, client_id=CLIENT, limits=limits)


def open_channel(limits: Limits = SHELL, now: float = 0.0) -> Channel:
    """A channel whose first link is up."""
    channel = make_channel(limits)
    reopen(channel, now)
    return channel


def ready_shell(limits: Limits = SHELL) -> Channel:
    """A shell that has shown its prompt (frame 0)."""
    channel = open_channel(limits)
    channel.received(output(0, b"$ "), 0.0)
    assert channel.ready
    return channel


def reopen(channel: Channel, now: float, token: str = "token") -> list[Effect]:
    """A new link is up."""
    return channel.opened(now, token=token, request_id=UUID(int=1), wall_ms=WALL_MS)


def output(
    sequence: int, payload: bytes, payload_type: int = PayloadType.OUTPUT, id_: UUID = MESSAGE
) -> bytes:
    """A frame of the far end."""
    if payload:
        return frame.Frame(frame.OUTPUT, sequence, payload, int(payload_type), 0, id_, WALL_MS).encode()
    whole = frame.Frame(frame.OUTPUT, sequence, b"x", int(payload_type), 0, id_, WALL_MS).encode()
    return whole[:80] + bytes(32) + whole[112:116] + bytes(4)  # neither real peer can write this one


def acknowledgement(sequence: int) -> bytes:
    """The far end's acknowledgement of our frame."""
    return frame.encode_acknowledge(sequence, bytes(16), bytes(16), WALL_MS, frame.INPUT)


def sent(effects: list[Effect]) -> list[frame.Frame]:
    """The frames that go out."""
    return [frame.decode(effect.data) for effect in effects if isinstance(effect, Send)]


def acknowledged(effects: list[Effect]) -> list[int]:
    """The far end's frames that are acknowledged."""
    return [
        json.loads(message.payload)["AcknowledgedMessageSequenceNumber"]
        for message in sent(effects)
        if message.type == frame.ACKNOWLEDGE
    ]


def inputs(effects: list[Effect]) -> list[frame.Frame]:
    """The stream frames that go out."""
    return [message for message in sent(effects) if message.type == frame.INPUT]


def delivered(effects: list[Effect]) -> bytes:
    """The output that is handed out."""
    return b"".join(effect.data for effect in effects if isinstance(effect, Output))


def others(effects: list[Effect]) -> list[Effect]:
    """All effects but frames."""
    return [effect for effect in effects if not isinstance(effect, Send)]
