"""Real networks that go away: the daemon in one network namespace, AWS in another, a cable between them.

Needs root and ``ip netns``. Nothing but the two namespaces and their loopbacks is touched.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.kit import World, need, until

pytestmark = pytest.mark.heavy

NEAR, FAR = "10.213.77.1", "10.213.77.2"
OTHER = "10.213.77.99"  # the address after a change of networks
BOUND = 5.0  # seconds from a network that is back to the first byte

# The simulator listens on loopback: this carries its port to the cable.
_RELAY = """
import asyncio, sys
async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
async def serve(reader, writer):
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
async def main():
    server = await asyncio.start_server(serve, sys.argv[1], int(sys.argv[2]))
    await server.serve_forever()
asyncio.run(main())
"""

# Numbers over one connection, again and again; says when each came back (CLOCK_MONOTONIC is everybody's).
_PROBE = """
import socket, sys, threading, time
one = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def send():
    number = 0
    while True:
        one.sendall(b"%08d" % number)
        number += 1
        time.sleep(0.05)
threading.Thread(target=send, daemon=True).start()
number, rest = 0, b""
while True:
    data = one.recv(65536)
    if not data:
        sys.exit("the stream has ended")
    rest += data
    while len(rest) >= 8:
        if rest[:8] != b"%08d" % number:
            sys.exit(f"number {number} is {rest[:8]!r}")
        number, rest = number + 1, rest[8:]
        print(time.monotonic(), flush=True)
"""


class Cable:
    """Two namespaces and the veth pair between them."""

    def __init__(self) -> None:
        tag = f"{os.getpid() % 100000}"
        self.near, self.far = f"dbn{tag}", f"dbf{tag}"
        for name in (self.near, self.far):
            self.ip("netns", "add", name)
        self.ip(
            "link",
            "add",
            f"n{tag}",
            "netns",
            self.near,
            "type",
            "veth",
            "peer",
            "name",
            f"f{tag}",
            "netns",
            self.far,
        )
        self.port = f"n{tag}"
        for name, port, address in ((self.near, self.port, NEAR), (self.far, f"f{tag}", FAR)):
            self.ip("-n", name, "link", "set", "lo", "up")
            self.ip("-n", name, "addr", "add", f"{address}/24", "dev", port)
            self.ip("-n", name, "link", "set", port, "up")

    def ip(self, *words: str) -> None:
        """Run ip(8)."""
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"ip {' '.join(words)}: {done.stderr}")

    def near_ip(self, *words: str) -> None:
        """ip(8) at the daemon's end."""
        self.ip("-n", self.near, *words)

    def far_ip(self, *words: str) -> None:
        """ip(8) at the other end: the daemon's machine hears nothing of it."""
        self.ip("-n", self.far, *words)

    def close(self) -> None:
        """Take it down."""
        for name in (self.near, self.far):
            with contextlib.suppress(OSError):
                self.ip("netns", "del", name)


class Probe:
    """A connection through a forward that never stops talking."""

    def __init__(self, world: World, cable: Cable, port: int) -> None:
        self.replies: list[float] = []
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", cable.near, sys.executable, "-c", _PROBE, str(port)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        until(lambda: len(self.replies) > 5, "bytes come back")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.replies.append(float(line))

    def first_after(self, moment: float, patience: float = 60.0) -> float:
        """Seconds from a moment to the first byte after it."""

        def found() -> float | None:
            assert self._process.poll() is None, self._process.stderr and self._process.stderr.read()
            return min((at - moment for at in self.replies[-400:] if at > moment), default=None)

        return until(found, "a byte comes back", patience)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def cable() -> Iterator[Cable]:
    """The cable, or a skip."""
    need("ip")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    try:
        one = Cable()
    except OSError as error:
        pytest.skip(f"no network namespaces here: {error}")
    yield one
    one.close()


@pytest.fixture
def far_world(cable: Cable) -> Iterator[World]:
    """AWS at the far end, everything of ours at the near one."""
    world = World(
        far=("ip", "netns", "exec", cable.far), near=("ip", "netns", "exec", cable.near), address=FAR
    )
    world.start_simulator()
    port = world.url.rpartition(":")[2]
    relay = subprocess.Popen(["ip", "netns", "exec", cable.far, sys.executable, "-c", _RELAY, FAR, port])
    try:
        world.start_daemon()
        yield world
    finally:
        world.__exit__()
        relay.kill()
        relay.wait()


@dataclass(frozen=True)
class Outage:
    """A way for a network to go away: ip(8) before and after, at the near end or at the far one."""

    lose: str
    seconds: float
    restore: str
    far: bool = False


OUTAGES = {
    "the interface is down for 3 s": Outage("link set {port} down", 3.0, "link set {port} up"),
    "the interface is down for 40 s": Outage("link set {port} down", 40.0, "link set {port} up"),
    "the address changes": Outage(
        f"addr del {NEAR}/24 dev {{port}}", 1.0, f"addr add {OTHER}/24 dev {{port}}"
    ),
    "the route is a black hole for 20 s": Outage(
        f"route add blackhole {FAR}/32", 20.0, f"route del blackhole {FAR}/32"
    ),
    **{
        f"far away nothing comes back for {seconds} s, and nobody says so": Outage(
            f"route add blackhole {NEAR}/32", seconds, f"route del blackhole {NEAR}/32", far=True
        )
        for seconds in (4, 30, 60)
    },
}


@pytest.mark.timeout(200)
@pytest.mark.parametrize("name", OUTAGES, ids=[name.replace(" ", "-") for name in OUTAGES])
def test_terminal_and_streams_survive_and_are_back_soon(cable: Cable, far_world: World, name: str) -> None:
    """Measured from the moment when the network is back to the first byte of a stream that was open all along."""
    world = far_world
    outage = OUTAGES[name]
    ip = cable.far_ip if outage.far else cable.near_ip
    [(_, port)] = world.forward("0:7")
    with world.attached(session="netns") as terminal:
        pid = terminal.shell_pid()
        probe = Probe(world, cable, port)
        try:
            ip(*outage.lose.format(port=cable.port).split())
            lost = time.monotonic()
            while time.monotonic() < lost + outage.seconds:
                terminal.read(0.1)
            assert probe.replies[-1] < lost + 0.5, "the network was not away"
            ip(*outage.restore.format(port=cable.port).split())
            back = time.monotonic()
            took = probe.first_after(back)
            at = time.monotonic()
            assert terminal.shell_pid() == pid
            print(
                f"\n{name}: stream back {took:.2f} s after the network, terminal {at - back:.2f}..{time.monotonic() - back:.2f} s"
            )
            assert took < BOUND
            seen = len(probe.replies)
            until(lambda: len(probe.replies) > seen + 20, "the stream goes on")
        finally:
            probe.close()
        terminal.type(b"\r~.")
        assert terminal.wait() == 0
