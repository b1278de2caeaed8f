"""A bare client of the simulated gateway: speaks frames, acknowledges what it is told to, remembers all.

Not our own channel code on purpose: these tests say what the far end does, not how well we cope with it.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import aiohttp

from devboxd.simulator.world import Simulator
from devboxd.ssm import frame
from devboxd.ssm.payload import PayloadType, size

WAIT = 5.0  # seconds; nothing takes that long unless it is broken
VERSION = "1.2.707.0"


async def call(sim: Simulator, name: str, **body: Any) -> dict[str, Any]:
    """One SSM call, unsigned. An error comes back as ``{"__type": code, …}``."""
    headers = {"X-Amz-Target": f"AmazonSSM.{name}", "Content-Type": "application/x-amz-json-1.1"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(sim.url, data=json.dumps(body), headers=headers) as reply,
    ):
        answer: dict[str, Any] = json.loads(await reply.text())
        return answer


async def until(what: Callable[[], object]) -> None:
    """Wait for a fact."""
    async with asyncio.timeout(WAIT):
        while not what():
            await asyncio.sleep(0.005)


@dataclass(slots=True)
class Client:
    """One data channel. ``log`` is the story as words; ``output`` what the far end said, in order."""

    sim: Simulator
    session: str
    socket: aiohttp.ClientWebSocketResponse = field(init=False)
    log: list[str] = field(default_factory=list)
    frames: list[frame.Frame] = field(default_factory=list)
    output: bytearray = field(default_factory=bytearray)
    errors: bytearray = field(default_factory=bytearray)
    closed_text: str | None = None
    acknowledges: bool = True
    sequence: int = 0
    expected: int = 0
    early: dict[int, frame.Frame] = field(default_factory=dict)
    acknowledged: set[int] = field(default_factory=set)
    answers: bool = True  # a handshake request, by itself
    handshake_result: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    version: str = VERSION
    client_id: str = field(default_factory=lambda: str(uuid4()))
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    lost: bool = False

    async def open(self, token: str) -> None:
        """Send the open message."""
        fields = {
            "MessageSchemaVersion": "1.0",
            "RequestId": str(uuid4()),
            "TokenValue": token,
            "ClientId": self.client_id,
            "ClientVersion": self.version,
        }
        await self.socket.send_str(json.dumps(fields))

    async def read(self) -> None:
        """Take frames until the socket is gone."""
        async for message in self.socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                await self._take(frame.decode(message.data))
                self.changed.set()
        self.lost = True
        self.log.append(f"lost {self.socket.close_code}")
        self.changed.set()

    async def _take(self, one: frame.Frame) -> None:
        self.frames.append(one)
        if one.type == frame.ACKNOWLEDGE:
            number = json.loads(one.payload)["AcknowledgedMessageSequenceNumber"]
            self.acknowledged.add(number)
            self.log.append(f"ack {number}")
        elif one.type == frame.OUTPUT:
            await self._take_output(one)
        else:
            self.log.append(one.type)
            if one.type == frame.CHANNEL_CLOSED:
                self.closed_text = json.loads(one.payload)["Output"]

    async def _take_output(self, one: frame.Frame) -> None:
        kind = PayloadType(one.payload_type)
        is_repeat = one.sequence < self.expected or one.sequence in self.early
        self.log.append(f"{kind.name} {one.sequence}" + (" again" if is_repeat else ""))
        if self.acknowledges:
            await self.acknowledge(one)
        if one.sequence >= self.expected:
            self.early[one.sequence] = one
        while (ready := self.early.pop(self.expected, None)) is not None:
            self.expected += 1
            await self._deliver(ready)

    async def _deliver(self, one: frame.Frame) -> None:
        kind = PayloadType(one.payload_type)
        if kind is PayloadType.OUTPUT:
            self.output += one.payload
        elif kind is PayloadType.STDERR:
            self.errors += one.payload
        elif kind is PayloadType.HANDSHAKE_REQUEST and self.answers:
            answer = (self.handshake_result or self.agree)(json.loads(one.payload))
            await self.send(PayloadType.HANDSHAKE_RESPONSE, json.dumps(answer).encode())

    def agree(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a handshake request: success for every action."""
        actions = [
            {"ActionType": action["ActionType"], "ActionStatus": 1, "ActionResult": None, "Error": ""}
            for action in request["RequestedClientActions"]
        ]
        return {"ClientVersion": self.version, "ProcessedClientActions": actions, "Errors": None}

    async def acknowledge(self, one: frame.Frame) -> None:
        """Acknowledge one frame."""
        raw = one.id.bytes
        await self.socket.send_bytes(
            frame.encode_acknowledge(one.sequence, raw[8:] + raw[:8], uuid4().bytes, one.created_ms)
        )

    async def send(self, kind: int, data: bytes, *, sequence: int | None = None, resend: bool = True) -> int:
        """Send one stream frame, again every 50 ms until it is acknowledged; returns its sequence number."""
        if sequence is None:
            sequence, self.sequence = self.sequence, self.sequence + 1
        await self.socket.send_bytes(encode(sequence, data, kind))
        return sequence

    async def send_until_taken(self, kind: int, data: bytes) -> None:
        """Send a frame and repeat it until it is acknowledged, as a real client does."""
        number = await self.send(kind, data)
        async with asyncio.timeout(WAIT):
            while number not in self.acknowledged:
                self.changed.clear()
                try:
                    async with asyncio.timeout(0.05):
                        await self.changed.wait()
                except TimeoutError:
                    await self.send(kind, data, sequence=number)

    async def type(self, text: str | bytes) -> None:
        """Send terminal input, reliably."""
        await self.send_until_taken(PayloadType.OUTPUT, text.encode() if isinstance(text, str) else text)

    async def resize(self, columns: int, rows: int) -> None:
        """Send a terminal size, reliably."""
        await self.send_until_taken(PayloadType.SIZE, size(columns, rows))

    async def until(self, condition: Callable[[Client], object], *, wait: float = WAIT) -> None:
        """Wait until something is true; the story so far is in the error when it never is."""
        try:
            async with asyncio.timeout(wait):
                while not condition(self):
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(
                f"never happened; log: {self.log}, output: {bytes(self.output[-300:])!r}"
            ) from None

    async def closed(self) -> str:
        """Wait for channel_closed and return its text."""
        await self.until(lambda c: c.closed_text is not None)
        assert self.closed_text is not None
        return self.closed_text

    def story(self) -> list[str]:
        """The log without acknowledgements and repeats: their timing is nobody's promise."""
        return [line for line in self.log if not line.startswith("ack ") and not line.endswith(" again")]


def encode(
    sequence: int, data: bytes, kind: int = PayloadType.OUTPUT, created_ms: int = 1_700_000_000_000
) -> bytes:
    """An input_stream_data frame with a fixed date; empty payloads cannot be made this way."""
    return frame.Frame(
        frame.INPUT, sequence, data, payload_type=kind, id=UUID(int=sequence + 1), created_ms=created_ms
    ).encode()


def smux(command: int, stream: int, data: bytes = b"") -> bytes:
    """One smux frame."""
    return struct.pack("<BBHI", 1, command, len(data), stream) + data


@asynccontextmanager
async def connected(
    sim: Simulator,
    box: str,
    document: str | None = None,
    *,
    version: str = VERSION,
    acknowledges: bool = True,
    answers: bool = True,
    handshake_result: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    **parameters: str,
) -> AsyncIterator[Client]:
    """Start a session on a box and open its data channel."""
    body: dict[str, Any] = {"Target": sim.box(box).id}
    if document is not None:
        body |= {"DocumentName": document, "Parameters": {key: [value] for key, value in parameters.items()}}
    started = await call(sim, "StartSession", **body)
    assert "TokenValue" in started, started
    client = Client(
        sim,
        started["SessionId"],
        acknowledges=acknowledges,
        answers=answers,
        handshake_result=handshake_result,
        version=version,
    )
    async with joined(sim, started, client):
        yield client


@asynccontextmanager
async def shell(sim: Simulator, box: str) -> AsyncIterator[Client]:
    """A shell that has shown its prompt."""
    async with connected(sim, box) as client:
        await client.until(lambda c: c.output)
        yield client


@asynccontextmanager
async def joined(
    sim: Simulator, started: Mapping[str, Any], old: Client | None = None
) -> AsyncIterator[Client]:
    """Dial a stream URL and open the channel; ``old``: go on with its identity and counters."""
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(started["StreamUrl"], autoping=True, max_msg_size=0) as socket,
        asyncio.TaskGroup() as tasks,
    ):
        client = old or Client(sim, started["SessionId"])
        client.socket = socket
        client.lost = False
        seen = len(client.frames)
        await client.open(started["TokenValue"])
        reader = tasks.create_task(client.read())
        try:
            await client.until(lambda c: len(c.frames) > seen or c.lost)
            yield client
        finally:
            reader.cancel()
