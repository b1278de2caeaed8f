"""The other end of a data channel on virtual time: the rules of the real agent, as they were observed.

Not a copy of our own code: it resends only its oldest frame, ten times a second at most; it has no flow
control; it acknowledges repeats; it loses or rejects what comes before it is ready. A client that gets
every byte across with this peer gets it across with the real one. Source: ``docs/protocol.md``.
"""

from __future__ import annotations

import heapq
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid5

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from devboxd.ssm import frame
from devboxd.ssm.channel import Channel
from devboxd.ssm.effect import (
    Broken,
    Closed,
    Effect,
    ErrorOutput,
    NeedDataKey,
    Output,
    Send,
    SendText,
    Writable,
)
from devboxd.ssm.payload import PayloadType

SPACE = UUID("6ba7b810-9dad-41d1-80b4-00c04fd430c8")
TICK = 0.1  # the agent looks at its oldest frame this often
CHALLENGE = bytes(range(64))


def handshake_request(session_type: str = "Port", *, key_id: str | None = None, **properties: str) -> bytes:
    """The agent's first message in sessions that have a handshake."""
    actions: list[dict[str, Any]] = [
        {
            "ActionType": "SessionType",
            "ActionParameters": {"SessionType": session_type, "Properties": properties or None},
        }
    ]
    if key_id is not None:
        parameters = {"KMSKeyId": key_id, "Challenge": b64encode(bytes(16)).decode()}
        actions.append({"ActionType": "KMSEncryption", "ActionParameters": parameters})
    return msgspec.json.encode({"AgentVersion": "3.3.987.0", "RequestedClientActions": actions})


@dataclass(slots=True)
class FarEnd:
    """One agent worker: what it has taken, what it keeps for resending, and how it answers."""

    request: bytes | None = None  # None: a plain shell, which has no handshake
    data_key: bytes | None = None
    ready_after: float = 0.0  # seconds after HandshakeComplete during which data is rejected silently
    blocked: bool = False  # its program does not read: nothing at all is processed

    taken: bytearray = field(default_factory=bytearray)  # input, in order
    seen: list[tuple[int, bytes]] = field(default_factory=list)  # every payload type that is not output
    problems: list[str] = field(default_factory=list)
    response: dict[str, Any] | None = None
    expected: int = 0
    next_sequence: int = 0
    paused: bool = False
    is_complete: bool = False
    resends: int = 0
    _ready_at: float = 0.0
    _early: dict[int, frame.Frame] = field(default_factory=dict)
    _unsent: list[bytes] = field(default_factory=list)
    _waiting: dict[int, tuple[bytes, float]] = field(default_factory=dict)
    _round_trip: float = 0.1
    _variation: float = 0.0
    _timeout: float = 0.2
    _nonce: int = 0
    _ids: int = 0

    def start(self, now: float) -> list[bytes]:
        """Attach for the first time."""
        if self.request is None:
            self.is_complete = True
            return []
        return self._send(self.request, PayloadType.HANDSHAKE_REQUEST, now)

    def output(self, data: bytes, now: float, payload_type: int = PayloadType.OUTPUT) -> list[bytes]:
        """The program wrote ``data`` (at most 1024 bytes, as the agent cuts it)."""
        if self.data_key is not None and payload_type in {1, 11, 12}:
            self._nonce += 1
            nonce = self._nonce.to_bytes(12, "little")
            data = nonce + AESGCM(self.data_key[:32]).encrypt(nonce, data, None)
        return self._send(data, payload_type, now)

    def tick(self, now: float) -> list[bytes]:
        """Every ``TICK`` seconds: resend the oldest frame when its time is up, and no other."""
        if self.paused or not self._waiting:
            return []
        sequence = next(iter(self._waiting))
        data, sent_at = self._waiting[sequence]
        if now - sent_at <= self._timeout:
            return []
        self._waiting[sequence] = (data, now)
        self.resends += 1
        return [data]

    def received(self, data: bytes, now: float) -> list[bytes]:
        """Take one message from the gateway."""
        if self.blocked:
            return []
        message = frame.decode(data)
        if message.type == frame.PAUSE_PUBLICATION:
            self.paused = True
            return []
        was_paused, self.paused = self.paused, False
        answers = self._flush(now) if was_paused else []
        if message.type == frame.ACKNOWLEDGE:
            self._acknowledged(message, now)
        elif message.type == frame.INPUT:
            answers += self._input(message, now)
        return answers

    @property
    def unacknowledged(self) -> int:
        """Frames that our side has not acknowledged."""
        return len(self._waiting)

    def _input(self, message: frame.Frame, now: float) -> list[bytes]:
        if message.sequence < self.expected:
            return [self._acknowledge(message, now)]
        if message.sequence > self.expected:
            self._early[message.sequence] = message
            return [self._acknowledge(message, now)]
        if self.is_complete and now < self._ready_at:
            return []  # the plugin is not there yet: not acknowledged, and it must come again
        # The acknowledgement goes out before what the message makes us say.
        self._early[message.sequence] = message
        answers = [self._acknowledge(message, now)]
        while (ready := self._early.pop(self.expected, None)) is not None:
            self.expected += 1
            answers += self._process(ready, now)
        return answers

    def _process(self, message: frame.Frame, now: float) -> list[bytes]:
        if not message.payload:
            self.problems.append("an empty payload")
        if message.payload_type == PayloadType.HANDSHAKE_RESPONSE:
            return self._on_response(message, now)
        if message.payload_type == PayloadType.CHALLENGE_RESPONSE:
            assert self.data_key is not None
            sealed = b64decode(msgspec.json.decode(message.payload)["Challenge"])
            if AESGCM(self.data_key[32:]).decrypt(sealed[:12], sealed[12:], None) != CHALLENGE:
                self.problems.append("a wrong answer to the challenge")
            return self._complete(now)
        if not self.is_complete:
            return []  # acknowledged and thrown away
        if message.payload_type != PayloadType.OUTPUT:
            self.seen.append((message.payload_type, message.payload))
            return []
        payload = message.payload
        if self.data_key is not None:
            payload = AESGCM(self.data_key[32:]).decrypt(payload[:12], payload[12:], None)
        self.taken += payload
        return []

    def _on_response(self, message: frame.Frame, now: float) -> list[bytes]:
        if self.response is not None:
            self.problems.append("a second handshake response")
            self.blocked = True  # the real reader is stuck for good
            return []
        self.response = response = msgspec.json.decode(message.payload)
        assert isinstance(response, dict)
        failed = [action for action in response["ProcessedClientActions"] if action["ActionStatus"] != 1]
        if failed:
            return [closed(f"{failed[0]['ActionType']} failed on client")]
        if self.data_key is None:
            return self._complete(now)
        self._nonce += 1
        nonce = self._nonce.to_bytes(12, "little")
        sealed = nonce + AESGCM(self.data_key[:32]).encrypt(nonce, CHALLENGE, None)
        challenge = msgspec.json.encode({"Challenge": b64encode(sealed).decode()})
        return self._send(challenge, PayloadType.CHALLENGE_REQUEST, now)

    def _complete(self, now: float) -> list[bytes]:
        self.is_complete = True
        self._ready_at = now + self.ready_after
        text = b'{"HandshakeTimeToComplete":1500000,"CustomerMessage":"Be careful."}'
        return self._send(text, PayloadType.HANDSHAKE_COMPLETE, now)

    def _send(self, payload: bytes, payload_type: int, now: float) -> list[bytes]:
        sequence = self.next_sequence
        self.next_sequence += 1
        flags = frame.SYN if sequence == 0 else 0
        data = frame.Frame(
            frame.OUTPUT, sequence, payload, int(payload_type), flags, self._id(), 1_700_000_000_000
        ).encode()
        self._waiting[sequence] = (data, now)
        if self.paused:
            self._unsent.append(data)
            return []
        return [data]

    def _flush(self, now: float) -> list[bytes]:
        unsent, self._unsent = self._unsent, []
        return unsent

    def _acknowledge(self, message: frame.Frame, now: float) -> bytes:
        return frame.encode_acknowledge(
            message.sequence, frame.wire_id(message.id), self._id().bytes, 1, frame.INPUT
        )

    def _acknowledged(self, message: frame.Frame, now: float) -> None:
        sequence = msgspec.json.decode(message.payload)["AcknowledgedMessageSequenceNumber"]
        found = self._waiting.pop(sequence, None)
        if found is not None:
            sample = now - found[1]
            self._variation = 0.75 * self._variation + 0.25 * abs(self._round_trip - sample)
            self._round_trip = 0.875 * self._round_trip + 0.125 * sample
            self._timeout = min(1.0, self._round_trip + max(0.01, 4 * self._variation))

    def _id(self) -> UUID:
        self._ids += 1
        return uuid5(SPACE, str(self._ids)) if self._ids < 64 else UUID(int=self._ids)


def closed(reason: str = "") -> bytes:
    """The service's word that the session is over, in its own short header form."""
    body = msgspec.json.encode({"SessionId": "s", "MessageType": "channel_closed", "Output": reason})
    return service_message(frame.CHANNEL_CLOSED, body)


def service_message(type_: str, payload: bytes = b"{}") -> bytes:
    """A message of the gateway: 112-byte header, NUL padding, no date."""
    full = frame.Frame(type_, 0, payload).encode()
    return (112).to_bytes(4, "big") + type_.encode().ljust(32, b"\0") + full[36:112] + full[116:]


Fate = Callable[[], list[float]]
"""Says what becomes of the next frame: the delays of its copies in seconds; none when it is lost."""


@dataclass(slots=True)
class World:
    """A channel and a far end with a network between them, on virtual time."""

    channel: Channel
    far_end: FarEnd
    fate: Fate = lambda: [0.01]
    now: float = 100.0
    output: bytearray = field(default_factory=bytearray)
    errors: bytearray = field(default_factory=bytearray)
    effects: list[Effect] = field(default_factory=list)  # all but Send, Output and Writable
    to_send: bytearray = field(default_factory=bytearray)
    texts: list[str] = field(default_factory=list)
    sent: int = 0
    is_up: bool = False
    _queue: list[tuple[float, int, int, bytes, bool]] = field(default_factory=list)
    _order: int = 0
    _link: int = 0
    _next_tick: float = 100.0 + TICK
    _started: bool = False

    def connect(self) -> None:
        """Give the channel a new link."""
        self.is_up = True
        self._link += 1
        request = UUID(int=self._link)
        effects = self.channel.opened(
            self.now, token=f"token-{self._link}", request_id=request, wall_ms=1_700_000_000_000
        )
        self.act(effects)
        start = service_message(frame.START_PUBLICATION)
        self._fly([start], to_client=True)
        if not self._started:
            self._started = True
            self._fly(self.far_end.start(self.now), to_client=True)
        else:
            self._fly(self.far_end.received(start, self.now), to_client=True)

    def cut(self) -> None:
        """Cut the link: what flies is lost, and the gateway pauses the far end."""
        self.is_up = False
        self.channel.lost(self.now)
        self._queue.clear()
        self.far_end.received(service_message(frame.PAUSE_PUBLICATION), self.now)

    def write(self, data: bytes) -> None:
        """The far end's program writes."""
        for start in range(0, len(data), 1024):
            self._fly(self.far_end.output(data[start : start + 1024], self.now), to_client=True)

    def act(self, effects: list[Effect]) -> None:
        """Carry out what the channel asks for."""
        for effect in effects:
            match effect:
                case Send(data):
                    self.sent += 1
                    self._fly([data], to_client=False)
                case Output(data):
                    self.output += data
                case ErrorOutput(data):
                    self.errors += data
                case SendText(text):
                    self.texts.append(text)
                case Writable():
                    self.pump()
                case NeedDataKey():
                    self.effects.append(effect)
                    assert self.far_end.data_key is not None
                    self.act(self.channel.data_key(self.far_end.data_key, b"sealed", self.now))
                case _:
                    self.effects.append(effect)

    def pump(self) -> None:
        """Send as much of ``to_send`` as there is room for."""
        while self.to_send and (room := self.channel.room):
            part = bytes(self.to_send[:room])
            del self.to_send[: len(part)]
            self.act(self.channel.send(PayloadType.OUTPUT, part, self.now))

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass until ``until`` holds; say whether it did within ``seconds``."""
        end = self.now + seconds
        while not until():
            at = min(
                self._queue[0][0] if self._queue else end,
                self._next_tick,
                (self.channel.next_deadline() or end),
            )
            if at > end:
                self.now = end
                return until()
            self.now = max(self.now, at)
            if self.now >= end:
                return until()
            self._step()
        return True

    @property
    def is_over(self) -> bool:
        """Say whether the session has ended, for whatever reason."""
        return any(isinstance(effect, Broken | Closed) for effect in self.effects)

    def _step(self) -> None:
        while self._queue and self._queue[0][0] <= self.now:
            _, _, link, data, to_client = heapq.heappop(self._queue)
            if link != self._link or not self.is_up:
                continue
            if to_client:
                self.act(self.channel.received(data, self.now))
            else:
                self._fly(self.far_end.received(data, self.now), to_client=True)
        if self._next_tick <= self.now:
            self._next_tick = self.now + TICK
            self._fly(self.far_end.tick(self.now), to_client=True)
        deadline = self.channel.next_deadline()
        if deadline is not None and deadline <= self.now:
            self.act(self.channel.tick(self.now))
            later = self.channel.next_deadline()
            assert later is None or later > self.now, "the owner would spin"

    def _fly(self, messages: list[bytes], *, to_client: bool) -> None:
        if not self.is_up:
            return
        for data in messages:
            for delay in self.fate():
                self._order += 1
                heapq.heappush(self._queue, (self.now + delay, self._order, self._link, data, to_client))
