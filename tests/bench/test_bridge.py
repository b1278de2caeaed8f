"""What a bridge changes: the same things with one and without, at the real agent's pace (1 KiB, then 1 ms).

Both worlds stand beside each other and each row is measured in one right after the other, so that a busy machine
slows both. The simulator plays all sessions in one process; the real agent has one for each, so with eight lanes the
true ratios are larger than these on a machine with cores to spare.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

import pytest

from tests.bench.kit import MIB, ROOT, in_turns, show
from tests.e2e.kit import BARE, World

pytestmark = pytest.mark.bench

PACE: Final = ("--set", "pacing=0.001", "--set", "first_read_delay=1.0")
SILENCE: Final = 5.0  # seconds
GIVEN_UP: Final = 60.0  # seconds
RANDOM: Final = os.urandom(MIB) * 8
TEXT: Final = b"".join(path.read_bytes() for path in sorted((ROOT / "devboxd").rglob("*.py"))) * 8
ROUNDS: Final = 3


@contextmanager
def serving() -> Iterator[int]:
    """A port that sends what one line asks for (``random 1000``), and at the end of that says that it heard it."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)

    def answer(one: socket.socket) -> None:
        with one:
            try:
                while line := _line(one):
                    kind, _, size = line.partition(b" ")
                    one.sendall({b"random": RANDOM, b"text": TEXT}[kind][: int(size)])
                one.sendall(b"end")
            except OSError:
                return  # the other side has left

    def accept() -> None:
        while True:
            try:
                one, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(one,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _line(one: socket.socket) -> bytes:
    found = b""
    while not found.endswith(b"\n") and (byte := one.recv(1)):
        found += byte
    return found.strip()


Address = tuple[str, int]


def fetch(address: Address, kind: str, size: int, at_half: Callable[[], object] | None = None) -> float:
    """Fetch bytes; returns the seconds it took, ``GIVEN_UP`` where it did not."""
    began = time.monotonic()
    with socket.create_connection(address, timeout=GIVEN_UP) as one:
        one.sendall(f"{kind} {size}\n".encode())
        left = size
        while left > 0:
            try:
                part = one.recv(64 << 10)
            except OSError:
                return GIVEN_UP
            if not part:
                return GIVEN_UP
            left -= len(part)
            if at_half is not None and left < size // 2:
                at_half()
                at_half = None
            if time.monotonic() - began > GIVEN_UP:
                return GIVEN_UP
    return time.monotonic() - began


def many(address: Address, count: int, kind: str, size: int) -> float:
    """So many connections at once; returns the seconds until all have what they wanted."""
    began = time.monotonic()
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(lambda _: fetch(address, kind, size), range(count)))
    return time.monotonic() - began


def after_silence(world: World, address: Address) -> float:
    """Seconds from the end of an outage to the end of a download."""
    took = fetch(address, "random", 3 * MIB, lambda: world.fault("blackhole", seconds=SILENCE))
    return min(GIVEN_UP, max(0.0, took - SILENCE))


def held(world: World, address: Address) -> str:
    """What becomes of a connection whose sessions are all ended."""
    with socket.create_connection(address, timeout=20) as one:
        for _ in range(3):
            one.sendall(b"random 1\n")
            try:
                if not one.recv(1):
                    return "gone"
            except OSError:
                return "reset"
            world.fault("terminate")
    return "goes on"


def half_closed(address: Address) -> str:
    """What becomes of the answer to somebody who has said everything."""
    got = b""
    with socket.create_connection(address, timeout=5) as one, contextlib.suppress(OSError):
        one.sendall(b"random 10\n")
        one.shutdown(socket.SHUT_WR)
        while part := one.recv(100):
            got += part
    return "answered" if got.endswith(b"end") else "lost"


def command(world: World) -> float:
    """Seconds of ``exec true``."""
    began = time.monotonic()
    world.ok("exec", "api", "--", "true")
    return time.monotonic() - began


@pytest.mark.timeout(900)
def test_what_a_bridge_changes() -> None:
    with serving() as port, World(*PACE, env=BARE) as bare, World(*PACE) as bridged:
        worlds = {"before": bare, "now": bridged}
        at = {name: world.forward(f"0:{port}")[0] for name, world in worlds.items()}
        for name, world in worlds.items():
            fetch(at[name], "random", 2 * MIB)  # lanes are opened as they are needed
            command(world)

        def rate(name: str, kind: str, size: int) -> Callable[[], float]:
            return lambda: size / MIB / fetch(at[name], kind, size)

        rows: list[list[str]] = []

        def measured(
            title: str, unit: str, case: Callable[[str], Callable[[], float]], rounds: int = ROUNDS
        ) -> float:
            found = in_turns(rounds, {name: case(name) for name in worlds})
            ratio = found["now"] / found["before"]
            rows.append([title, *(f"{found[name]:.2f} {unit}" for name in worlds), f"{ratio:.2f}"])
            return ratio

        random = measured("one download, random bytes", "MiB/s", lambda name: rate(name, "random", 4 * MIB))
        text = measured("one download, source text", "MiB/s", lambda name: rate(name, "text", 8 * MIB))
        measured(
            "eight downloads at once", "MiB/s", lambda name: lambda: 8 / many(at[name], 8, "random", MIB)
        )
        measured("200 connections at once", "s", lambda name: lambda: many(at[name], 200, "random", 2000))
        warm = measured("exec true, warm", "s", lambda name: lambda: command(worlds[name]))
        measured(
            f"rest of a download after {SILENCE:.0f} s of silence", "s",
            lambda name: lambda: after_silence(worlds[name], at[name]), 1,
        )  # fmt: skip
        fates = {
            "a held connection when its session ends": [held(worlds[name], at[name]) for name in worlds],
            "the answer after a half-close": [half_closed(at[name]) for name in worlds],
        }
        rows += [[title, *said, ""] for title, said in fates.items()]
    show("without a bridge and with one (simulator, the agent's pace)", ["", *worlds, "ratio"], rows)
    assert random > 2
    assert text > 4
    assert warm < 0.5
    assert [said[1] for said in fates.values()] == ["goes on", "answered"]
