"""What a daemon costs that has much to hold and nothing to do, and what a crowd on one forward does."""

from __future__ import annotations

import selectors
import socket
import statistics
import time
from typing import Final

import pytest

from tests.bench.kit import UNLIMITED, Peer, Settled, Usage, connect, in_turns, show

pytestmark = pytest.mark.bench

MANY: Final = 100
BOUND: Final = 150  # MB for so many sessions: see docs
WATCHED: Final = 20.0  # seconds
CROWD: Final = 200
SETTLE: Final = 3.0  # seconds for what follows a change to be over


def idle(usage: Usage) -> tuple[float, float, dict[str, float]]:
    """Watch a process: processor seconds a minute, wake-ups a second, and those by thread."""
    time.sleep(SETTLE)
    waits, used, began = usage.waits, usage.processor, time.perf_counter()
    time.sleep(WATCHED)
    seconds = time.perf_counter() - began
    threads = {name: (count - waits.get(name, count)) / seconds for name, count in usage.waits.items()}
    return (usage.processor - used) / seconds * 60, sum(threads.values()), threads


def test_a_hundred_idle_sessions_and_a_hundred_forwards() -> None:
    with Settled(UNLIMITED) as world, Peer("target") as target:
        usage = Usage(world.ensure_daemon())
        rows = []

        def look(what: str) -> None:
            processor, wakes, threads = idle(usage)
            busiest = max(threads, key=lambda name: threads[name])
            megabytes = usage.resident * 1.048576
            rows.append(
                [
                    what, f"{megabytes:.0f} MB", f"{megabytes / BOUND:.2f}", f"{processor:.2f} s/min",
                    f"{wakes:.1f}/s", f"{threads[busiest]:.1f}/s {busiest.rpartition(' ')[0]}",
                ]
            )  # fmt: skip

        look("just started")
        world.ok("ls")
        (first,) = world.forward(f"0:{target.port}")
        _echo(first)
        look("after ls, 1 session, 1 forward")
        alone = usage.resident
        # A box shares this machine's ports, and each port of a box has a session of its own. Nobody
        # answers on most of these; a session is held all the same.
        ports = [target.port - 1 - number for number in range(MANY - 1)]
        for address in world.forward(*(f"0:{port}" for port in ports)):
            with connect(address) as one:
                one.settimeout(20)
                try:
                    one.recv(1)
                except OSError:
                    pass  # reset: refused
        sessions = len(world.far_sessions())
        look(f"{sessions} sessions, {MANY} forwards")
        each = (usage.resident - alone) * 1024 / (sessions - 1)
    show(
        f"an idle daemon over {WATCHED:.0f} s (bound: {BOUND} MB)",
        ["", "RSS", "of bound", "processor", "wake-ups", "most of them"],
        rows,
    )
    print(f"  each further session with its forward: {each:.0f} KiB")
    assert sessions >= MANY


def _echo(address: tuple[str, int] | int) -> None:
    with connect(address) as one:
        one.sendall(b"echo\n!")
        assert one.recv(1) == b"!"


def crowd(address: tuple[str, int]) -> tuple[float, float]:
    """Open all connections at once; returns the seconds that the middle one and all took for an echo."""
    began = time.perf_counter()
    taken: list[float] = []
    with selectors.DefaultSelector() as selector:
        for _ in range(CROWD):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(address)
            selector.register(one, selectors.EVENT_WRITE)
        while len(taken) < CROWD:
            ready = selector.select(30)
            assert ready, f"only {len(taken)} answered"
            for key, events in ready:
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                if events & selectors.EVENT_WRITE:
                    connection.sendall(b"echo\n!")
                    selector.modify(connection, selectors.EVENT_READ)
                else:
                    assert connection.recv(1) == b"!"
                    taken.append(time.perf_counter() - began)
                    selector.unregister(connection)
                    connection.close()
    return statistics.median(taken), max(taken)


def test_two_hundred_connections_at_once_through_one_forward() -> None:
    with (
        Settled(UNLIMITED) as world,
        Settled("") as careful,
        Peer("target") as target,
        Peer("relay", str(target.port)) as relay,
    ):
        places = {
            "forward": world.forward(f"0:{target.port}")[0],
            "forward, 900 frames/s": careful.forward(f"0:{target.port}")[0],
            "asyncio relay": ("127.0.0.1", relay.port),
            "direct": ("127.0.0.1", target.port),
        }
        totals: dict[str, list[float]] = {name: [] for name in places}

        def once(name: str) -> float:
            time.sleep(0.3)  # what the last crowd left behind
            middle, total = crowd(places[name])
            totals[name].append(total)
            return middle

        for address in places.values():
            _echo(address)
        middles = in_turns(5, {name: lambda name=name: once(name) for name in places})  # type: ignore[misc]
    direct = statistics.median(totals["direct"])
    show(
        f"{CROWD} connections at once: connect, one byte there and back",
        ["", "p50", "all", "ratio"],
        [
            [
                name, f"{middles[name] * 1e3:.0f} ms", f"{statistics.median(totals[name]) * 1e3:.0f} ms",
                f"{statistics.median(totals[name]) / direct:.1f}",
            ]
            for name in places
        ],
    )  # fmt: skip
