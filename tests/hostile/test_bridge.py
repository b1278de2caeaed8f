"""A hostile box, and a hostile daemon: messages of a true talk, changed. Typed errors only, bounded memory and time."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from devboxd.model.bridge import wire
from devboxd.model.bridge.end import Bridge
from devboxd.model.bridge.wire import BridgeError, Data, Opened

SLOWEST = (
    0.25  # seconds of processor time for a single message: a frame unpacks to 16 KiB, and a machine is shared
)
# Nobody reads: each stream keeps its first credit, and what was asked of it to send.
MOST_HELD = 8 * (wire.WINDOW_FIRST + wire.SEND_MOST + (1 << 16))
CHANGES = ("flip", "number", "cut", "longer", "repeat", "swap", "invent", "none")


class Party:
    """One end that is talked to; its application opens some streams, writes, reads a little and gives up at times."""

    def __init__(self, near: bool, dice: random.Random) -> None:
        self.bridge = Bridge(near=near)
        self.near = near
        self.dice = dice
        self.now = 0.0
        self.lane = 0
        self.streams: list[int] = []
        self.kept = 0  # bytes handed on, which the application has
        self.worst = 0.0
        self.errors = 0
        self.new_lane()

    def new_lane(self) -> None:
        self.bridge.lane_down(self.lane)
        self.lane += 1
        self.bridge.lane_up(self.lane, self.now)

    def act(self) -> bytes:
        """Do something, and say what there is to say."""
        self.now += self.dice.random() * 0.2
        roll = self.dice.random()
        if roll < 0.2 and len(self.bridge.streams) < 6:
            self.streams.append(self.bridge.open(b"purpose"))
        elif roll < 0.5 and self.streams:
            self.bridge.write(
                self.dice.choice(self.streams), self.dice.randbytes(self.dice.randrange(400)) * 3
            )
        elif roll < 0.55 and self.streams:
            self.bridge.finish(self.streams.pop(self.dice.randrange(len(self.streams))))
        elif roll < 0.6 and self.streams:
            self.bridge.reset(self.streams.pop(self.dice.randrange(len(self.streams))), "enough")
        elif roll < 0.65:
            self.bridge.ping(self.lane)
        self.bridge.tick(self.now)
        return self.bridge.outgoing(self.lane, self.now)

    def hear(self, data: bytes) -> None:
        began = time.process_time()
        try:
            self.bridge.received(self.lane, data, self.now)
        except BridgeError:
            self.errors += 1
            self.new_lane()
        for event in self.bridge.events():
            if isinstance(event, Data):
                self.bridge.consumed(event.stream, len(event.data), self.now)
            elif isinstance(event, Opened):
                self.streams.append(event.stream)
                del self.streams[:-8]
        if len(self.bridge.streams) > 40:  # the application takes no more
            for number in self.bridge.streams[:20]:
                self.bridge.reset(number, "too many")
        self.worst = max(self.worst, time.process_time() - began)

    @property
    def held(self) -> int:
        """Bytes that it keeps, of all kinds."""
        found = 0
        for stream in self.bridge._streams.by_number.values():
            found += len(stream.waiting) + sum(map(len, stream.pieces.values()))
            found += sum(len(chunk.frame) for chunk in stream.flight.values()) + len(stream.head or b"")
        return found + sum(len(lane.buffer) for lane in self.bridge._lanes.values())


def frames(data: bytes) -> Iterator[bytes]:
    """Whole frames, with their lengths."""
    at = 0
    while at + 4 <= len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        yield data[at:end]
        at = end


def changed(frame: bytes, dice: random.Random, before: list[bytes]) -> bytes:
    """The frame, or something else in its place."""
    body = bytearray(frame[4:])
    match dice.choice(CHANGES):
        case "flip":
            for _ in range(dice.randint(1, 4)):
                body[dice.randrange(len(body))] ^= 1 << dice.randrange(8)
        case "number":  # where offsets, sizes and credits stand
            at = dice.randrange(max(1, min(len(body), 22)))
            body[at : at + 4] = dice.choice((0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)).to_bytes(4, "big")
        case "cut":
            del body[dice.randrange(len(body)) + 1 :]
        case "longer":
            body += dice.randbytes(dice.choice((1, 8, 16, 300)))
        case "repeat":
            return frame + frame
        case "swap" if before:
            return dice.choice(before)
        case "invent":
            kind = dice.randint(0, 8)
            body = bytearray([kind]) + dice.randbytes(dice.choice((0, 4, 12, 17, 20, 64)))
        case _:
            return frame
    return len(body).to_bytes(4, "big") + bytes(body)


def fuzz(seed: int, messages: int) -> None:
    dice = random.Random(seed)
    parties = (Party(True, dice), Party(False, dice))
    before: list[bytes] = []
    sent = errors = 0
    while sent < messages:
        for party, other in (parties, parties[::-1]):
            for frame in frames(party.act()):
                bad = changed(frame, dice, before) if dice.random() < 0.5 else frame
                before.append(frame)
                del before[:-50]
                cut = dice.randrange(len(bad)) if dice.random() < 0.1 else len(bad)
                for part in (bad[:cut], bad[cut:]):
                    other.hear(part)
                sent += 1
                assert other.held <= MOST_HELD + 40 * wire.SEND_MOST, (
                    f"seed {seed}: {other.held} bytes are kept"
                )
                assert len(other.bridge._streams.skipped) <= wire.STREAMS_MOST
        if dice.random() < 0.002:  # what is beyond saving is begun anew, as after the loss of a bridgehead
            errors += sum(party.errors for party in parties)
            worst = max(party.worst for party in parties)
            parties = (Party(True, dice), Party(False, dice))
            parties[0].worst = worst
    errors += sum(party.errors for party in parties)
    worst = max(party.worst for party in parties)
    print(f"seed {seed}: {sent} messages, {errors} lanes closed, slowest {worst * 1000:.1f} ms")
    assert errors > messages // 100, "it changes too little"
    assert worst < SLOWEST


@pytest.mark.parametrize("seed", range(4))
def test_twenty_thousand_changed_messages_do_no_harm(seed: int) -> None:
    fuzz(seed, 5_000)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 120))
def test_a_million_changed_messages_do_no_harm(seed: int) -> None:
    fuzz(seed, 50_000)
