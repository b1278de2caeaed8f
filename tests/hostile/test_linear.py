"""Every parser of what comes from outside takes time linear in it, whatever it is.

Each is given the worst that we could think of, twice: the second time there is twice as much of it, and that may
take at most three times as long. What one megabyte costs is bounded, too: it is how long the event loop stands
still for one message. CPU time is measured, so that a busy machine changes nothing.
"""

from __future__ import annotations

import base64
import struct
import time
import zlib
from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

import pytest

from devboxctl.fast.framed import take_frames
from devboxctl.fast.screen import Modes
from devboxd.boxside.relay import RelayError, RelayReader
from devboxd.boxside.shell import MarkFilter
from devboxd.control.connect.audience import Capture
from devboxd.control.connect.auto import Reports
from devboxd.control.connect.screen import Screen
from devboxd.control.connect.sshagent import _Pipe
from devboxd.errors import DevboxError
from devboxd.model.names import host_key
from devboxd.net.link import MAX_MESSAGE
from devboxd.ssm import frame
from devboxd.ssm.channel import Channel
from devboxd.ssm.mux import Mux, MuxError
from devboxd.ssm.payload import PayloadType
from devboxd.text import one_line, printable

NONCE = "0123456789abcdef"
PREFIX = f"\x1b_devbox;{NONCE};".encode()
MEGABYTE = 1 << 20
LONGEST_STEP = 1.5  # seconds of CPU for one message of the largest size, on a slow machine


class Attack(NamedTuple):
    """What is done to one parser: prepare it, then feed it; ``unit`` is repeated to the wanted size."""

    name: str
    make: Callable[[], Callable[[bytes], object]]
    unit: bytes
    pieces: int = 1  # in how many pieces it comes


def numbered(number: int, payload: bytes, kind: bytes = b"O") -> bytes:
    head = b"%s%d" % (kind, number)
    return b"%s,%08x,%s   \n" % (head, zlib.crc32(head + payload), payload)


def reader(kind: str | None) -> Callable[[], Callable[[bytes], object]]:
    def make() -> Callable[[bytes], object]:
        relay = RelayReader(NONCE)
        relay.given = 1 << 40
        if kind is not None:
            relay.feed(f'{NONCE}:r{{"relay":"{kind}"}}\n'.encode())
        return relay.feed

    return make


def marks() -> Callable[[bytes], object]:
    return MarkFilter(NONCE).feed


def shown() -> Callable[[bytes], object]:
    screen = Screen(NONCE)
    screen.output(PREFIX + b"start;tmux;ana\x1b\\")
    return screen.output


def hidden() -> Callable[[bytes], object]:
    return Screen(NONCE).output


def mux() -> Callable[[bytes], object]:
    side = Mux()
    side.open()
    return side.received


def agent() -> Callable[[bytes], object]:
    pipe = _Pipe(lambda: "/nowhere")
    pipe.output(b"ready")
    return pipe.output


def reports() -> Callable[[bytes], object]:
    return Reports(lambda _: None).output


def channel() -> Channel:
    made = Channel(session_id="s", target="i-1", client_id=UUID(int=1))
    made.opened(1.0, token="t", request_id=UUID(int=2), wall_ms=1)
    return made


def as_frame(type_: str, payload_type: int) -> Callable[[], Callable[[bytes], object]]:
    def make() -> Callable[[bytes], object]:
        receiving = channel()

        def feed(payload: bytes) -> object:
            wire = frame.encode(type_, 0, payload, payload_type, 0, bytes(16), 1)
            return receiving.received(wire, 1.0)

        return feed

    return make


def text(function: Callable[[str], object]) -> Callable[[], Callable[[bytes], object]]:
    return lambda: lambda data: function(data.decode("utf-8", "replace"))


def frames() -> Callable[[bytes], object]:
    return lambda data: take_frames(bytearray(data))


smux = struct.Struct("<BBHI").pack
handshake = as_frame(frame.OUTPUT, PayloadType.HANDSHAKE_REQUEST)
ATTACKS = [
    Attack("marks: half-finished", marks, PREFIX + b"x"),
    Attack("marks: prefixes", marks, PREFIX),
    Attack("marks: beginnings", marks, b"\x1b_"),
    Attack("marks: cut prefixes", marks, PREFIX[:-1]),
    Attack("marks: escapes", marks, b"\x1b"),
    Attack("marks: whole ones", marks, PREFIX + b"odd\x1b\\"),
    Attack("marks: in pieces", marks, PREFIX + b"x", 2000),
    Attack("screen: half-finished", shown, PREFIX + b"x"),
    Attack("screen: notes", shown, PREFIX + b"note;a;b\x1b\\"),
    Attack("screen: before the program", hidden, b"\x1b_x"),
    Attack("screen: before the program, in pieces", hidden, b"x\n", 2000),
    Attack("relay: noise of lines", reader(None), b"\n"),
    Attack("relay: noise without lines", reader(None), b"x", 500),
    Attack("relay: half greetings", reader(None), NONCE.encode()),
    Attack("relay: greetings that greet nobody", reader(None), NONCE.encode() + b":c1\n"),
    Attack("relay: empty lines", reader("python"), b"\n"),
    Attack("relay: short lines", reader("python"), b"x\n"),
    Attack("relay: a long line", reader("python"), b"x", 500),
    Attack("relay: numbers", reader("python"), b"o" + b"9" * 4000 + b",0,x\n"),
    Attack("relay: far ahead", reader("python"), numbered(99_999, b"x")),
    Attack("relay: sh, empty lines", reader("sh"), b"\n"),
    Attack("relay: sh, output", reader("sh"), b"O" + base64.b64encode(b"x") + b"\n"),
    Attack("smux: keepalives", mux, smux(1, 3, 0, 0)),
    Attack("smux: single bytes", mux, smux(1, 2, 1, 3) + b"x"),
    Attack("smux: empty data", mux, smux(1, 2, 0, 3)),
    Attack("smux: ends of others", mux, smux(1, 1, 0, 9)),
    Attack("smux: windows", mux, smux(1, 4, 8, 3) + bytes(8)),
    Attack("smux: in single bytes", mux, smux(1, 3, 0, 0), MEGABYTE),
    Attack("agent: ends", agent, struct.pack(">II", 0, 0)),
    Attack("agent: large ones for nobody", agent, struct.pack(">II", 0, 1 << 18) + b"x" * 4096, 256),
    Attack("ports: reports", reports, b"dec 1\n"),
    Attack("ports: no end", reports, b" 1", 500),
    Attack("frame: output", as_frame(frame.OUTPUT, PayloadType.OUTPUT), b"x"),
    Attack("frame: an acknowledgement", as_frame(frame.ACKNOWLEDGE, 0), b"["),
    Attack("frame: a handshake of brackets", handshake, b"["),
    Attack("frame: a handshake of objects", handshake, b'{"a":'),
    Attack("frame: a handshake of text", handshake, b'"\\u0041'),
    Attack("frame: an end", as_frame(frame.CHANNEL_CLOSED, 0), b'{"Output":"'),
    Attack("text: accents", text(printable), "e\u0301".encode()),
    Attack("text: directions", text(printable), "\u202e".encode()),
    Attack("text: controls", text(printable), b"\x9b"),
    Attack("text: one line of spaces", text(one_line), b" "),
    Attack("text: one line of accents", text(one_line), "\u0301".encode()),
    Attack("ssh: host keys", text(host_key), b"ssh-rsa AAAA"),
    Attack("captured output", lambda: Capture().output, b"x", 500),
    Attack("terminal: modes", lambda: Modes().watch, b"\x1b[?"),
    Attack("terminal: many modes", lambda: Modes().watch, b"\x1b[?1;2;3;4;5;6;7;8;9h"),
    Attack("terminal: modes in pieces", lambda: Modes().watch, b"\x1b[?10", 2000),
    Attack("daemon's frames", frames, b"\x83\0\0\0\0"),
]


def seconds(attack: Attack, size: int) -> float:
    """CPU seconds of this thread for so many bytes; less than that where it was refused before."""
    data = (attack.unit * (size // len(attack.unit) + 1))[:size]
    step = max(1, size // attack.pieces)
    parts = [data[at : at + step] for at in range(0, size, step)]
    feed = attack.make()
    began = time.thread_time()
    try:
        for part in parts:
            feed(part)
    except (RelayError, MuxError, DevboxError):
        pass
    return time.thread_time() - began


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
def test_twice_as_much_takes_at_most_three_times_as_long(attack: Attack) -> None:
    """One message of half-finished marks stopped the whole daemon for seven seconds, four for two minutes."""
    size = MEGABYTE // 4
    small = min(seconds(attack, size) for _ in range(3))
    large = min(seconds(attack, 2 * size) for _ in range(3))
    assert large <= 3 * small + 0.02, f"{small:.4f} s, then {large:.4f} s"


@pytest.mark.parametrize(
    "attack",
    [attack for attack in ATTACKS if attack.pieces == 1],
    ids=[attack.name for attack in ATTACKS if attack.pieces == 1],
)
def test_the_largest_message_stops_the_loop_for_a_moment_only(attack: Attack) -> None:
    """While it is read no other terminal is served."""
    assert seconds(attack, MAX_MESSAGE) < LONGEST_STEP
