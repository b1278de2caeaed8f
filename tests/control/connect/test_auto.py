"""``forward --auto`` and the programs of this machine: none of them loses its port, none of its clients strays."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from devboxd.control.base import needs
from devboxd.control.base.memory import Memory
from devboxd.control.base.needs import Listener, LocalConnection
from devboxd.control.base.shared import Shared
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.forward import Pools
from devboxd.control.connect.forwards import Forwards
from devboxd.control.connect.pool import PortPool
from devboxd.control.connect.port import PortTarget
from devboxd.control.connect.terminal import Terminal
from devboxd.errors import PortInUse
from devboxd.model.box import Account, BoxRef
from devboxd.model.forward import Facts
from devboxd.model.localports import LATELY
from devboxd.model.loose import Loose
from devboxd.model.memory import State, kept, recalled
from devboxd.model.terminal import Leaving
from devboxd.net.listen import Listeners
from tests.control.fakes import LoopClock
from tests.control.kit import Nowhere

API = BoxRef("api", "i-0123456789abcdef0", Account())


class Watcher:
    """The program on the box that reports what listens there, by hand."""

    def __init__(self) -> None:
        self.terminal: Terminal | None = None
        self.started = asyncio.Event()

    async def run(self, _spec: ExecSpec, terminal: Terminal) -> Leaving:
        self.terminal = terminal
        self.started.set()
        await asyncio.Event().wait()
        raise AssertionError

    def report(self, *ports: int) -> None:
        """The box listens on these, from now on."""
        assert self.terminal is not None
        self.terminal.output(f"dec {' '.join(map(str, ports))}\n".encode())


class Ear:
    """A listener on a table of ports."""

    path = None
    descriptors: tuple[int, ...] = ()

    def __init__(self, machine: Machine, port: int) -> None:
        self._machine = machine
        self.port = port
        self.address = f"127.0.0.1:{port}"
        machine.ours.add(port)

    async def accept(self) -> LocalConnection:
        await asyncio.Event().wait()
        raise AssertionError

    def close(self) -> None:
        self._machine.ours.discard(self.port)


class Machine:
    """A machine whose ports are tables; asked for any free port, it gives numbers from 40,000."""

    def __init__(self) -> None:
        self.theirs: set[int] = set()
        self.ours: set[int] = set()
        self.is_mute = False

    async def tcp(self, bind: str, port: int) -> Listener:
        if port in self.theirs | self.ours:
            raise PortInUse(f"{port} is in use")
        ear: Any = Ear(self, port or next(n for n in itertools.count(40_000) if n not in self.ours))
        return ear  # type: ignore[no-any-return]

    async def others(self) -> frozenset[int] | None:
        return None if self.is_mute else frozenset(self.theirs)

    def unix(self, path: str) -> Listener:
        raise AssertionError(path)

    async def connected(self, address: tuple[str, int] | str) -> LocalConnection:
        raise AssertionError(address)

    async def resumed(self, found: Loose) -> LocalConnection:
        raise AssertionError("nothing is left to it")

    def take(self, name: str) -> None:
        """Nothing was kept."""

    def keep(self, name: str, listener: Listener) -> None:
        """Nothing is."""

    def drop(self, name: str) -> None:
        """Nothing was."""

    def drop_rest(self) -> None:
        """Nothing was."""


class NoPool:
    """Nobody connects."""

    kept = 0
    sessions: tuple[()] = ()


def no_pools(_target: PortTarget) -> PortPool:
    pool: object = NoPool()
    return pool  # type: ignore[return-value]


@asynccontextmanager
async def mirroring(
    listeners: needs.Listeners, *, state: State | None = None, pools: Pools = no_pools
) -> AsyncIterator[tuple[Forwards, Watcher, Shared]]:
    """One auto forward to ``api``."""
    shared, watcher = Shared.of(LoopClock(), dice=lambda: 0.0), Watcher()
    memory = Memory(shared.news, Nowhere(), state or State())
    forwards = Forwards(shared, pools, listeners, watcher.run, memory, wait=lambda: 1.0)
    try:
        await forwards.add(API, [], auto=True, ephemeral=False)
        await watcher.started.wait()
        yield forwards, watcher, shared
    finally:
        await forwards.stop()
        await shared.tasks.stop()


def mirror_of(forwards: Forwards, port: int) -> Facts | None:
    return next((one for one in forwards.list() if one.remote == str(port)), None)


async def until(what: Callable[[], object]) -> None:
    async with asyncio.timeout(20.0):
        while not what():
            await asyncio.sleep(0.05)


def local_of(forwards: Forwards, port: int) -> int | None:
    """The local number of the mirror of a port."""
    found = mirror_of(forwards, port)
    return None if found is None or ":" not in found.local else int(found.local.rpartition(":")[2])


@pytest.mark.looptime
@pytest.mark.parametrize("steps", range(16))
async def test_a_mirror_that_is_dropped_as_all_of_it_ends_leaves_no_listener(steps: int) -> None:
    """At whichever moment: a program on the box ends, and its user removes the forward."""
    machine = Machine()
    async with mirroring(machine) as (forwards, box, _shared):
        box.report(3000)
        await until(lambda: local_of(forwards, 3000))
        await asyncio.sleep(5)
        box.report()
        for _ in range(steps):
            await asyncio.sleep(0)
        await forwards.stop()
        assert machine.ours == set()


@pytest.mark.looptime
async def test_a_port_whose_service_is_restarted_is_not_taken() -> None:
    """The bytes of its clients would reach the box, and it could not start again."""
    machine = Machine()
    machine.theirs = {5432}
    async with mirroring(machine) as (forwards, box, shared):
        await asyncio.sleep(5)
        machine.theirs = set()  # it is being restarted
        box.report(5432, 8000)
        await asyncio.sleep(3)
        assert machine.ours == {8000, 40_000}
        mirror = mirror_of(forwards, 5432)
        assert mirror is not None
        assert str(mirror.note).startswith("a program of this machine listened on 5432")
        assert local_of(forwards, 8000) == 8000
        assert str(mirror.note) in " ".join(event.text for event in shared.news.events(0))
        machine.theirs = {5432}
        box.report(8000)
        await asyncio.sleep(2)
        assert machine.ours == {8000}
        machine.theirs = set()  # for good
        await asyncio.sleep(LATELY + 10)
        box.report(5432, 8000)
        await asyncio.sleep(2)
        assert machine.ours == {8000, 5432}


@pytest.mark.looptime
async def test_the_next_daemon_knows_what_both_use() -> None:
    """After a boot the box may be reached before the service of this machine is up."""
    machine, state = Machine(), State()
    machine.theirs = {5432}
    async with mirroring(machine, state=state) as (forwards, box, _):
        box.report(5432)
        await asyncio.sleep(2)
        assert local_of(forwards, 5432) == 40_000
    machine.theirs, machine.ours = set(), set()
    state = recalled(kept(state))
    state.forwards.clear()
    async with mirroring(machine, state=state) as (forwards, box, _):
        box.report(5432)
        await asyncio.sleep(2)
        assert local_of(forwards, 5432) == 40_000
        mirror = mirror_of(forwards, 5432)
        assert "at times" in str(mirror and mirror.note)


@pytest.mark.looptime
async def test_a_mirror_finds_its_own_number_again() -> None:
    """Programs on a box are restarted, too, and other boxes have the same port."""
    machine = Machine()
    async with mirroring(machine) as (forwards, box, _):
        for _ in range(3):
            box.report(8000)
            await asyncio.sleep(2)
            assert machine.ours == {8000}
            box.report()
            await asyncio.sleep(2)
            assert machine.ours == set()
        box.report(8000)
        await asyncio.sleep(2)
        other = BoxRef("web", "i-0123456789abcdef1", Account())
        box.started.clear()
        await forwards.add(other, [], auto=True, ephemeral=False)
        await box.started.wait()
        box.report(8000)
        await asyncio.sleep(2)
        assert machine.ours == {8000, 40_000}
        assert [one.note for one in forwards.list() if one.remote == "8000"] == [
            None, "the forward to api:8000 has 8000",
        ]  # fmt: skip


@pytest.mark.looptime
async def test_a_port_that_could_not_be_had_is_left_alone_for_a_while() -> None:
    """Where the system does not say what listens, this is all that is known."""
    machine = Machine()
    machine.is_mute = True
    machine.theirs = {5432}
    async with mirroring(machine) as (forwards, box, _):
        box.report(5432)
        await asyncio.sleep(2)
        assert local_of(forwards, 5432) == 40_000
        box.report()
        await asyncio.sleep(2)
        machine.theirs = set()
        box.report(5432)
        await asyncio.sleep(2)
        assert local_of(forwards, 5432) == 40_000
        mirror = mirror_of(forwards, 5432)
        assert "listened on 5432" in str(mirror and mirror.note)


@pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel's list")
@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0"])
async def test_a_real_service_gets_its_port_back(address: str) -> None:
    """Whichever loopback address it uses; and nobody answers its clients meanwhile."""

    def serve(port: int) -> socket.socket:
        one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((address, port))
        one.listen()
        return one

    def alone() -> socket.socket:
        """At a port that nobody else has at any address, and that none is given by chance: others run this test, too."""
        for port in random.SystemRandom().sample(range(12_000, 30_000), 200):
            with contextlib.suppress(OSError):
                for host in ("127.0.0.1", "::1"):
                    socket.create_server(
                        (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
                    ).close()
                return serve(port)
        raise AssertionError("there is no free port")

    service = alone()
    port = int(service.getsockname()[1])
    async with mirroring(Listeners()) as (forwards, box, _):
        box.report(port)
        await until(lambda: mirror_of(forwards, port))
        service.close()
        box.report()
        await until(lambda: mirror_of(forwards, port) is None)
        box.report(port)
        await until(lambda: mirror_of(forwards, port))
        assert local_of(forwards, port) != port
        for host in ("127.0.0.1", "::1"):
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(host, port)
        serve(port).close()
