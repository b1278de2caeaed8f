"""Frames of every kind, damaged and whole, by the hundred thousand: nothing raises, grows or stands still.

A hostile gateway or agent may send whatever it likes. What the channel lets through goes on into the readers that
stand behind it in the daemon: the marks of a terminal, the relay's lines, the streams of a port, a report of ports.
The seed is printed; DEVBOX_SEED repeats a run.
"""

from __future__ import annotations

import gc
import os
import random
import time
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Final
from uuid import UUID

import pytest

from devboxd.boxside.relay import RelayError, RelayReader
from devboxd.control.connect.auto import Reports
from devboxd.control.connect.screen import Screen
from devboxd.ssm import frame
from devboxd.ssm.channel import Channel, State
from devboxd.ssm.effect import ErrorOutput, NeedDataKey, Output
from devboxd.ssm.frame import encode
from devboxd.ssm.mux import Mux, MuxError
from devboxd.ssm.payload import PayloadType
from tests.hostile.test_linear import ATTACKS, NONCE
from tests.kit.farend import handshake_request

KINDS: Final = (
    frame.OUTPUT,
    frame.INPUT,
    frame.ACKNOWLEDGE,
    frame.CHANNEL_CLOSED,
    frame.START_PUBLICATION,
    frame.PAUSE_PUBLICATION,
    frame.AGENT_SESSION_STATE,
)
LONGEST_STEP: Final = 0.25  # seconds of CPU for one frame of at most 4 KiB, garbage collection included
GROWTH: Final = 48 << 20  # bytes that the process may grow by: what the bounds of docs/limits.md allow
JSON: Final = (
    b"{}",
    b"[]",
    b"null",
    b'{"AcknowledgedMessageSequenceNumber":',
    b'{"a":' * 40,
    b"\xff",
    b'"' + b"x" * 900,
)


def resident() -> int:
    """Bytes of memory that this process has."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Fuzz:
    """One far end that is out of its mind, and the daemon's side of its sessions, one after another."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.seen: Counter[str] = Counter()
        self.longest = 0.0
        self.now = 1.0
        self._begin()

    def _begin(self) -> None:
        self.seen["sessions"] += 1
        self.channel = Channel(session_id="s", target="i-1", client_id=UUID(int=self.dice.getrandbits(120)))
        self.channel.opened(self.now, token="t", request_id=UUID(int=2), wall_ms=1)
        self.sequence = 0
        self.sent: list[bytes] = []
        self.reader = self._reader()
        if self.dice.random() < 0.8:
            self._give(self._frame(handshake_request(), PayloadType.HANDSHAKE_REQUEST))
            self._give(
                self._frame(
                    b'{"HandshakeTimeToComplete":1,"CustomerMessage":""}', PayloadType.HANDSHAKE_COMPLETE
                )
            )

    def _reader(self) -> Callable[[bytes], object]:
        match self.dice.randrange(4):
            case 0:
                return Screen(NONCE).output
            case 1:
                relay = RelayReader(NONCE)
                relay.feed(f'{NONCE}:r{{"relay":"python"}}\n'.encode())
                return relay.feed
            case 2:
                streams = Mux()
                streams.open()
                return streams.received
            case _:
                return Reports(lambda _: None).output

    def _payload(self) -> bytes:
        dice = self.dice
        match dice.randrange(5):
            case 0:
                return dice.randbytes(dice.randrange(1200))
            case 1 | 2:
                unit = dice.choice(ATTACKS).unit
                return (unit * (1 + 1000 // len(unit)))[: dice.randrange(1, 1100)]
            case 3:
                return dice.choice(JSON)
            case _:
                text = dice.randbytes(dice.randrange(60)).hex().encode()
                return b"o%d,%08x,%s\n" % (dice.randrange(50), zlib.crc32(text), text)

    def _frame(self, payload: bytes, payload_type: int, kind: str = frame.OUTPUT) -> bytes:
        made = encode(kind, self.sequence, payload, payload_type, 0, self.dice.randbytes(16), 1)
        self.sequence += 1
        return made

    def _next(self) -> bytes | str:
        """The next message: half of them are in order and whole, so that something gets through."""
        dice, payload = self.dice, self._payload() or b"x"  # encode refuses to make an empty one
        known = dice.choice([*PayloadType])
        match dice.randrange(20):
            case n if n < 9:
                return self._frame(payload, PayloadType.OUTPUT)
            case 9:
                return self._frame(payload, known)
            case 10:  # out of order: before, soon, and never
                at = max(0, self.sequence + dice.choice((-1, -50, 1, 2, 40, 5000, 1 << 40, (1 << 62))))
                return encode(frame.OUTPUT, at, payload, known, dice.randrange(4), dice.randbytes(16), 1)
            case 11 if self.sent:
                return dice.choice(self.sent)
            case 12:
                return encode(
                    frame.ACKNOWLEDGE, dice.randrange(1 << 40), dice.choice(JSON), 0, 0, dice.randbytes(16), 1
                )
            case 13 if dice.random() < 0.05:
                return encode(frame.CHANNEL_CLOSED, 0, dice.choice(JSON), 0, 0, dice.randbytes(16), 1)
            case 14:
                kind = dice.choice([one for one in KINDS if one != frame.CHANNEL_CLOSED])
                return encode(
                    kind,
                    dice.randrange(1 << 30),
                    payload,
                    dice.randrange(300),
                    dice.randrange(9),
                    bytes(16),
                    1,
                )
            case 15:
                return dice.randbytes(dice.randrange(4096))
            case 16:
                return payload.decode("latin-1")
            case _:
                whole = bytearray(self._frame(payload, PayloadType.OUTPUT))
                for _ in range(dice.randrange(1, 6)):
                    whole[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
                if dice.random() < 0.3:
                    del whole[dice.randrange(len(whole)) :]
                self.sequence -= 1  # it did not arrive: the next one has its number
                return bytes(whole)

    def _give(self, message: bytes | str) -> None:
        began = time.thread_time()
        for effect in self.channel.received(message, self.now):
            if isinstance(effect, Output | ErrorOutput):
                self.seen["delivered"] += 1
                try:
                    self.reader(effect.data)
                except (RelayError, MuxError) as error:
                    self.seen[type(error).__name__] += 1
                    self.reader = self._reader()
            elif isinstance(effect, NeedDataKey):
                self.channel.data_key_failed("no", self.now)
        self.longest = max(self.longest, time.thread_time() - began)

    def run(self, count: int) -> None:
        """Send so many frames; whatever is raised is a bug."""
        for number in range(count):
            message = self._next()
            if isinstance(message, bytes) and len(self.sent) < 64:
                self.sent.append(message)
            self._give(message)
            self.now += 0.001
            if number % 64 == 0:
                self.channel.tick(self.now)
                self.channel.send(PayloadType.OUTPUT, b"x" * min(self.channel.room, 3000), self.now)
            if self.channel.state is State.CLOSED or self.dice.random() < 0.0005:
                self._begin()


def run(seed: int, count: int) -> None:
    print(f"seed {seed}")
    fuzz = Fuzz(seed)
    fuzz.run(2000)  # what is made once is made
    gc.collect()
    before, began = resident(), time.thread_time()
    fuzz.run(count)
    gc.collect()
    grown, spent = resident() - before, time.thread_time() - began
    print(
        f"{count} frames in {spent:.1f} s of CPU, longest {fuzz.longest * 1000:.1f} ms, grown by "
        f"{grown / (1 << 20):.1f} MiB; {dict(fuzz.seen)}"
    )
    assert fuzz.seen["delivered"] > count // 20, "too little gets through for this to mean anything"
    assert fuzz.seen["sessions"] > 1
    assert fuzz.longest < LONGEST_STEP
    assert grown < GROWTH


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_no_frame_makes_the_daemon_fail_or_grow() -> None:
    """A fixed seed: what fails here fails again."""
    run(20, 20_000)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_no_frame_of_a_million_makes_the_daemon_fail_or_grow() -> None:
    """Another seed each time; DEVBOX_SEED repeats one."""
    run(int(os.environ.get("DEVBOX_SEED") or random.randrange(2**32)), 1_000_000)
