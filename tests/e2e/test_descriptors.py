"""A daemon with 64 descriptors: what waits, what is served, and that all of it comes back.

It was lost for good once: asyncio's accept loop comes back at once where there is no descriptor, and writes a
line each time.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.kit import World, fetch, until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes in /proc")

LIMIT = 64
CROWD = 120  # connections at a time


@pytest.fixture(scope="module")
def poor_world() -> Iterator[World]:
    """A world whose daemon (and command line) may have few descriptors, and cannot raise the limit."""
    with World(near=("bash", "-c", f'ulimit -n {LIMIT}; exec "$@"', "bash")) as world:
        yield world


@pytest.fixture
def poor(poor_world: World) -> Iterator[World]:
    """In order, before and after."""
    poor_world.ensure_daemon()
    yield poor_world
    poor_world.fault("clear")
    poor_world.remove_forwards()


def descriptors(world: World) -> int:
    return len(os.listdir(f"/proc/{world.daemon_pid()}/fd"))


def seconds_of_cpu(world: World) -> float:
    words = Path(f"/proc/{world.daemon_pid()}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def over_tcp(world: World) -> Callable[[], socket.socket]:
    [address] = world.forward("0:80")
    return lambda: socket.create_connection(address)


def over_socks(world: World) -> Callable[[], socket.socket]:
    [added] = world.json("forward", "api", "-D", "0")["forwards"]
    host, _, port = added["local"].rpartition(":")

    def connect() -> socket.socket:
        one = socket.create_connection((host, int(port)))
        with contextlib.suppress(OSError):
            one.sendall(b"\x05\x01\x00" + b"\x05\x01\x00\x03\x09localhost\x00\x50")
        return one

    return connect


def over_a_unix_socket(world: World) -> Callable[[], socket.socket]:
    path = world.folder / "s.sock"
    world.ok("forward", "api", f"{path}:80")

    def connect() -> socket.socket:
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(2.0)
        one.connect(str(path))
        return one

    return connect


def that_said_something(world: World) -> Callable[[], socket.socket]:
    connect = over_tcp(world)

    def talk() -> socket.socket:
        one = connect()
        one.sendall(b"GET /slow HTTP/1.1\r\n")  # and never the rest
        return one

    return talk


def to_the_control_socket(world: World) -> Callable[[], socket.socket]:
    def connect() -> socket.socket:
        one = socket.socket(socket.AF_UNIX)
        one.connect(str(world.socket))
        return one

    return connect


def in_the_middle_of_a_request(world: World) -> Callable[[], socket.socket]:
    connect = to_the_control_socket(world)

    def begin() -> socket.socket:
        one = connect()
        one.sendall(b"POST /v1/doctor HTTP/1.1\r\nHost: x\r\n")
        return one

    return begin


WAYS = [
    over_tcp,
    over_socks,
    over_a_unix_socket,
    that_said_something,
    to_the_control_socket,
    in_the_middle_of_a_request,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_crowd_makes_it_wait_and_not_spin_and_it_comes_back(
    poor: World, way: Callable[[World], Callable[[], socket.socket]]
) -> None:
    """The status says what is wrong, nothing spins or fills the log, and all is free soon after they left."""
    [address] = poor.forward("0:80")
    fetch(address)
    before, log = descriptors(poor), len(poor.log)
    connect = way(poor)
    with ExitStack() as crowd:
        for _ in range(CROWD):
            crowd.enter_context(connect())
        until(lambda: descriptors(poor) > LIMIT - 16, "it fills up")
        status = poor.run("status")
        assert status.returncode == 0, status.stderr
        assert b"devboxd has few descriptors left" in status.stderr
        began, used = time.monotonic(), seconds_of_cpu(poor)
        time.sleep(1.0)
        assert (seconds_of_cpu(poor) - used) / (time.monotonic() - began) < 0.3, "it spins"
        assert len(poor.log) - log < 10_000
    until(lambda: descriptors(poor) <= before + 8, "they are free again", patience=10.0)
    assert fetch(address).startswith("hello from box api")
    assert poor.ok("exec", "api", "-n", "--", "echo", "back") == "back\n"
