"""How connections through a bridge end, with real sockets at both ends: as one TCP connection would."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from devboxd.control.daemon import Daemon
from devboxd.model.forward import Spec
from devboxd.simulator.world import Simulator
from tests.control.conftest import MakeDaemon
from tests.control.connect.test_bridge import api, secret

UPLOAD = os.urandom(1 << 20)
GREETING = b"hello, and that is all"
RESET = struct.pack("ii", 1, 0)

Pair = tuple["End", "End"]
WAYS = ["tcp", "socket here", "socket there", "-R", "-R to a socket here", "-R from a socket there"]


class End:
    """A program's socket."""

    def __init__(self, raw: socket.socket) -> None:
        raw.setblocking(False)
        self.raw = raw

    @property
    def is_tcp(self) -> bool:
        return self.raw.family != socket.AF_UNIX

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(30):
            await asyncio.get_running_loop().sock_sendall(self.raw, data)

    async def read(self, size: int) -> bytes:
        async with asyncio.timeout(30):
            return await asyncio.get_running_loop().sock_recv(self.raw, size)

    async def rest(self, pause: float = 0.0) -> bytes:
        """All that comes until the end."""
        got = bytearray()
        while part := await self.read(1 << 16):
            got += part
            await asyncio.sleep(pause)
        return bytes(got)

    def finish(self) -> None:
        self.raw.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.raw.close()

    def close(self) -> None:
        self.raw.close()

    async def is_refused(self) -> None:
        """Write until the system says that nobody reads."""
        async with asyncio.timeout(30):
            while True:
                try:
                    self.raw.send(b"anybody?")
                except (BrokenPipeError, ConnectionResetError):
                    return
                await asyncio.sleep(0.01)

    async def cut(self) -> None:
        """Wait for a reset."""
        async with asyncio.timeout(30):
            while True:
                poll = select.poll()
                poll.register(self.raw, 0)
                if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
                    return
                await asyncio.sleep(0.01)


async def until(what: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not what():
            await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def daemon(sim: Simulator, make_daemon: MakeDaemon) -> AsyncIterator[Daemon]:
    yield await make_daemon(sim, bridge_secret=secret)


@pytest_asyncio.fixture(params=WAYS)
async def connect(
    request: pytest.FixtureRequest, daemon: Daemon, sim: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Callable[[], Awaitable[Pair]]]:
    """Connects through a forward; gives both ends: who connects, and who serves."""
    way, box, folder = request.param, await api(daemon), tmp_path_factory.mktemp("e")
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as held:
        if way in ("socket there", "-R to a socket here"):
            path = str(folder / "s")
            server = held.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(path)
            server.listen()
            spec = Spec(path=path, local_port=0) if way == "socket there" else Spec(local_path=path)
        else:
            server = held.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = server.getsockname()[1]
            spec = Spec(local_port=port, bind="127.0.0.1") if way.startswith("-R") else Spec(port=port)
        server.setblocking(False)
        reverse = way.startswith("-R")
        there: str | int = 0
        free_port = 0
        if reverse:
            if way == "-R from a socket there":
                there = str(folder / "t")
                spec = Spec(local_port=spec.local_port, bind=spec.bind, path=there, reverse=True)
            else:
                with socket.create_server(("127.0.0.1", 0)) as free:
                    there = free_port = free.getsockname()[1]
                spec = Spec(free_port, None, spec.local_port, spec.local_path, spec.bind, reverse=True)
        elif way == "socket here":
            spec = Spec(port=spec.port, local_path=str(folder / "h"))
        elif way == "tcp":
            spec = Spec(port=spec.port, local_port=0)
        [facts] = await daemon.forwards.add(box, [spec], auto=False, ephemeral=False)
        if reverse:
            await until(lambda: daemon.forwards.list()[0].state == "online")
        address = there if reverse else facts.local

        async def connect() -> Pair:
            path = address if isinstance(address, str) and address.startswith("/") else None
            one = held.enter_context(socket.socket(socket.AF_INET if path is None else socket.AF_UNIX))
            one.setblocking(False)
            number = int(str(address).rpartition(":")[2]) if path is None else 0
            await loop.sock_connect(one, path or ("127.0.0.1", number))
            async with asyncio.timeout(60):
                accepted, _ = await loop.sock_accept(server)
            return End(one), End(held.enter_context(accepted))

        yield connect


Connect = Callable[[], Awaitable[Pair]]


def is_over(daemon: Daemon) -> bool:
    """Whether nothing of any connection is left; a reverse forward has a stream for its listener."""
    forwards = daemon.forwards.list()
    listening = sum(one.reverse for one in forwards)
    streams = sum(one.streams for one in daemon.bridges())
    return streams == listening and not any(one.connections for one in forwards)


async def test_whoever_ends_first_still_gets_everything(connect: Connect, daemon: Daemon) -> None:
    """A server that greets, ends, and reads an upload; and the other way round."""
    for turn in range(2):
        pair = await connect()
        first, second = pair if turn else pair[::-1]
        await first.send(GREETING)
        first.finish()
        assert await second.rest() == GREETING
        async with asyncio.TaskGroup() as tasks:
            got = tasks.create_task(first.rest())
            await second.send(UPLOAD)
            second.finish()
        assert got.result() == UPLOAD
        await until(lambda: is_over(daemon))


async def test_who_sends_everything_and_leaves_is_heard_to_the_end(connect: Connect, daemon: Daemon) -> None:
    """``close`` right after the last byte, whatever the other side still says, and however slowly it reads."""
    for turn in range(2):
        pair = await connect()
        first, second = pair if turn else pair[::-1]
        await second.send(b"and this")
        await asyncio.gather(first.send(UPLOAD), first.read(100))
        first.close()
        assert await second.rest(pause=0.005) == UPLOAD
        second.close()
        await until(lambda: is_over(daemon))


async def test_a_reset_is_one_at_the_other_end(connect: Connect, daemon: Daemon) -> None:
    """Before the end, and after the end of either direction."""
    for turn in range(6):
        pair = await connect()
        first, second = pair if turn % 2 else pair[::-1]
        if not first.is_tcp:  # those know no reset
            first.close()
            second.close()
            continue
        await first.send(b"a")
        await second.send(b"b")
        assert (await first.read(1), await second.read(1)) == (b"b", b"a")
        if turn // 2 == 1:
            first.finish()
            assert await second.rest() == b""
        elif turn // 2 == 2:
            second.finish()
            assert await first.rest() == b""
        first.reset()
        if turn // 2 == 1:  # it had said everything: who writes to it then is told
            await second.is_refused()
        elif second.is_tcp:
            await second.cut()
        else:
            await second.is_refused()
        second.close()
        await until(lambda: is_over(daemon))


async def test_nothing_is_left_of_an_end_that_is_gone(connect: Connect, daemon: Daemon) -> None:
    """One side closes altogether; the other one sees an end, keeps silent, writes at last, and learns of it."""
    for turn in range(2):
        pair = await connect()
        gone, silent = pair if turn else pair[::-1]
        await gone.send(GREETING)
        await asyncio.sleep(0.05)
        gone.close()
        assert await silent.rest() == GREETING
        await silent.is_refused()
        await until(lambda: is_over(daemon))
        silent.close()
