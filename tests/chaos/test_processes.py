"""The whole product under fire: daemons killed at random moments, links cut under the installed command line."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from tests.chaos.faults import OF_A_SESSION, Generator
from tests.e2e.kit import World, fetch, until

pytestmark = pytest.mark.chaos


@pytest.fixture
def world() -> Iterator[World]:
    """A simulator and a daemon of this test's own."""
    with World() as one:
        yield one


def works(address: tuple[str, int]) -> str | None:
    """Fetch a page, if that can be done."""
    with contextlib.suppress(OSError):
        return fetch(address, timeout=3.0)
    return None


def kills(world: World, seed: int, count: int) -> None:
    """Kill the daemon in all states of life: idle, busy, starting, stopping."""
    roll = random.Random(seed)
    [address] = world.forward("0:80")
    waits: list[float] = []
    with world.attached(session="victim") as terminal:
        pid = terminal.shell_pid()
        for number in range(count):
            try:
                waits.append(_kill(world, roll, address))
                if number % 3 == 0:
                    assert terminal.shell_pid() == pid, f"kill {number}: another shell"
            except AssertionError:
                print(
                    f"kill {number}\n{world.log[-6000:]}\n{world.far_sessions()}\n{world.run('--json', 'status')}"
                )
                raise
        assert terminal.shell_pid() == pid
        terminal.type(b"\r~.")
        assert terminal.wait() == 0
        assert terminal.mode == terminal.before

    def orphans() -> set[str]:
        held = {one["id"] for one in world.json("status")["held_sessions"]}
        return {one["id"] for one in world.far_sessions()} - held

    until(lambda: not orphans(), "no orphan is left after the sweep", 40.0)
    waits.sort()
    print(
        f"\n{count} kills (seed {seed}): forward back after {waits[len(waits) // 2]:.2f} s in the middle, "
        f"{waits[-1]:.2f} s at most"
    )
    assert waits[-1] < 3.0 + 1.0  # half a second of the client's patience and a loaded machine come on top
    assert waits[len(waits) // 2] < 3.0


def _kill(world: World, roll: random.Random, address: tuple[str, int]) -> float:
    """Kill it while a command runs; returns the seconds until the forward works again."""
    words = ("exec", "api", "-n", "--", "sh", "-c", "head -c 3000000 /dev/zero; sleep 1")
    with world.start(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as busy:
        try:
            time.sleep(roll.choice((0.0, 0.05, 0.2, 0.5)) * roll.random())
            daemon = until(world.daemon_pid, "a daemon runs")
            with contextlib.suppress(ProcessLookupError):
                os.kill(daemon, signal.SIGKILL)
            killed = time.monotonic()
            until(lambda: world.daemon_pid() not in (None, daemon), "the client starts the next daemon")
            until(lambda: works(address), "the forward is back")
            took = time.monotonic() - killed
            assert busy.wait(20) in (0, 255)  # 0: it came to the next daemon
        finally:
            busy.kill()
    return took


@pytest.mark.timeout(120)
def test_a_daemon_killed_at_random_moments_costs_no_terminal_and_no_forward(world: World, seed: int) -> None:
    """The short run."""
    kills(world, seed, 4)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_daemon_killed_a_hundred_times(world: World, seed: int) -> None:
    """The long one."""
    kills(world, seed, 100)


def cuts(world: World, seed: int, count: int) -> None:
    """Cuts over the command line: exec down, exec up, a forward, a terminal."""
    data = random.Random(seed).randbytes(1 << 20)
    (world.disk() / "down").write_bytes(data)
    [address] = world.forward("0:7")
    stop, problems, done = threading.Event(), [], {"down": 0, "up": 0, "echo": 0}
    wanted = hashlib.sha256(data).hexdigest()

    def down() -> None:
        while not stop.is_set():
            run = world.run("exec", "api", "-n", "--", "cat", "down", timeout=90)
            if run.returncode or hashlib.sha256(run.stdout).hexdigest() != wanted:
                problems.append(f"down: {run.returncode} {len(run.stdout)} {run.stderr!r}")
            done["down"] += 1

    def up() -> None:
        while not stop.is_set():
            run = world.run("exec", "api", "--", "sha256sum", stdin=data, timeout=90)
            if run.returncode or run.stdout.split()[0].decode() != wanted:
                problems.append(f"up: {run.returncode} {run.stdout!r} {run.stderr!r}")
            done["up"] += 1

    def echo() -> None:
        source = random.Random(seed + 1)
        with socket.create_connection(address, timeout=60) as one:
            while not stop.is_set():
                piece = source.randbytes(2000)
                one.sendall(piece)
                got = b""
                while len(got) < len(piece):
                    more = one.recv(65536)
                    if not more:
                        problems.append("echo: ended")
                        return
                    got += more
                if got != piece:
                    problems.append("echo: other bytes")
                    return
                done["echo"] += len(piece)

    threads = [threading.Thread(target=_caught, args=(work, problems)) for work in (down, up, echo)]
    began = time.monotonic()
    with world.attached(session="steady") as terminal:
        pid = terminal.shell_pid()
        for thread in threads:
            thread.start()
        made = 0
        for cut in Generator(seed).cuts(count):
            if "expire" in cut.name:
                continue  # a new command would rightly be refused
            live = [one["id"] for one in world.far_sessions()]
            session = None if cut.everywhere or not live else live[cut.pick % len(live)]
            for name, parameters in (*cut.faults, ("pause", {}), *cut.after):
                if name == "pause":
                    time.sleep(cut.pause)
                    continue
                world.fault(name, **parameters, **({"session": session} if name in OF_A_SESSION else {}))
            made += 1
            terminal.read(0.0)
            if problems:
                break
        world.fault("clear")
        assert terminal.shell_pid() == pid
        stop.set()
        for thread in threads:
            thread.join(100)
        terminal.type(b"\r~.")
        assert terminal.wait() == 0
    print(f"\n{made} cuts (seed {seed}) in {time.monotonic() - began:.1f} s: {done}")
    assert not problems, problems


def _caught(work: object, problems: list[str]) -> None:
    try:
        work()  # type: ignore[operator]
    except (OSError, AssertionError, subprocess.TimeoutExpired) as error:
        problems.append(f"{getattr(work, '__name__', work)}: {error!r}")


@pytest.mark.timeout(150)
def test_cuts_under_the_installed_command_line_lose_nothing(world: World, seed: int) -> None:
    """The short run."""
    cuts(world, seed, 15)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_two_hundred_cuts_under_the_installed_command_line_lose_nothing(world: World, seed: int) -> None:
    """The long one."""
    cuts(world, seed, 200)
