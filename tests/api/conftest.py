"""The real server over a unix socket, with a daemon on the simulator behind it."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest_asyncio

from devboxd.api import wire
from devboxd.api.handlers.context import Context
from devboxd.api.page.serve import PageServer
from devboxd.api.server import build, serving
from devboxd.aws.clients import Callers
from devboxd.aws.cloud import AwsCloud
from devboxd.aws.computes import AwsComputes
from devboxd.aws.lent import Lent
from devboxd.aws.login import LoginStep
from devboxd.aws.prices import AwsPrices
from devboxd.control.daemon import Daemon
from devboxd.control.doctor import Finding
from devboxd.control.errand import Agents, Errands
from devboxd.control.lifecycle import user as set_up_of_user
from devboxd.control.lifecycle.account import Progress
from devboxd.control.lifecycle.home import Lifecycle
from devboxd.control.lifecycle.prices import Prices
from devboxd.control.lifecycle.user import Asked
from devboxd.errors import DevboxError, LoginNeeded, Unreachable
from devboxd.host.config import Loaded
from devboxd.host.prices import PriceFiles
from devboxd.host.ssh_config import SshConfigState, SshFiles
from devboxd.model.box import Account, BoxRef
from devboxd.model.config import Layer, merge
from devboxd.model.login import Login, Method, Source, Verdict
from devboxd.model.notice import Way
from devboxd.model.states import LoginState, Result, StoreEngine
from devboxd.net.listen import bind_unix
from devboxd.simulator.world import Simulator
from tests.control.conftest import RealTime, daemon, make_daemon, sim
from tests.kit.sim import simulator
from tests.lifecycle.memory import MemoryStore

__all__ = ["daemon", "make_daemon", "sim", "simulator"]


class Files:
    """The ssh configuration of a machine that has none."""

    def __init__(self) -> None:
        self.files = SshFiles(Path("/ours"), Path("/users"))
        self.written: list[str | None] = []

    async def look(self, command: str | None) -> SshConfigState:
        return SshConfigState(included=False, current=bool(self.written))

    async def write(self, command: str | None) -> SshConfigState:
        self.written.append(command)
        return SshConfigState(included=True, current=True, changed=(Path("/ours"),))

    async def remove(self) -> SshConfigState:
        self.written.clear()
        return SshConfigState(included=False, current=False, changed=(Path("/ours"),))

    def paths(self) -> tuple[str, str, str]:
        return "/identity", "/known_hosts", "/config"


class Notices:
    """Ways of notices, one of which fails, and what was to be kept secret."""

    def __init__(self) -> None:
        self.kept: list[tuple[Way, str | None]] = []

    async def tell(self, title: str, text: str) -> dict[Way, DevboxError | None]:
        return {Way.DESKTOP: None, Way.NTFY: Unreachable("ntfy did not answer", hint="ask it")}

    async def keep(self, way: Way, value: str | None) -> None:
        self.kept.append((way, value))


class Logins:
    """Those who wait for a login: how often they were let go."""

    def __init__(self) -> None:
        self.renewed = 0
        self.rearmed = 0

    def known(self) -> list[Login]:
        source = Source(Method.SSO, "corp", 600.0, renews=True)
        return [Login(source, Verdict.FINE)]

    async def renew(self) -> None:
        self.renewed += 1

    def rearm(self) -> None:
        self.rearmed += 1


class Doctor:
    """Finds nothing wrong."""

    async def machine(self, account: Account) -> list[Finding]:
        return [Finding("machine", Result.OK, "here")]

    async def box(self, box: BoxRef) -> list[Finding]:
        return [Finding("box", Result.OK, box.name)]


class Server:
    """A served daemon, and a small client of our own: what it sends is what is on the wire."""

    def __init__(self, path: Path, daemon: Daemon, context: Context) -> None:
        self.path = path
        self.daemon = daemon
        self.context = context
        self.stops = 0

    async def raw(self, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send bytes on a new connection."""
        reader, writer = await asyncio.open_unix_connection(str(self.path), limit=1 << 22)
        writer.write(data)
        return reader, writer

    async def ask(
        self, method: str, path: str, body: object = None, *, headers: str = ""
    ) -> tuple[int, bytes]:
        """One request on a connection of its own: status and body."""
        reader, writer = await self.raw(
            request(method, path, body, headers=headers + "Connection: close\r\n")
        )
        async with asyncio.timeout(30):
            answer = await reader.read()
        writer.close()
        head, _, rest = answer.partition(b"\r\n\r\n")
        if b"chunked" in head.lower():
            rest = unchunk(rest)
        return int(head.split(b" ", 2)[1]), rest

    async def upgrade(self, path: str, body: object) -> Stream:
        """Ask for a stream; fails unless it is given."""
        reader, writer = await self.raw(
            request("POST", path, body, headers="Connection: Upgrade\r\nUpgrade: devbox\r\n")
        )
        async with asyncio.timeout(30):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head + await reader.read(2000)
        return Stream(reader, writer)


class Stream:
    """The client's end of a framed stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.out = bytearray()
        self.err = bytearray()
        self.statuses: list[wire.StreamStatus] = []
        self.answers: list[bytes] = []
        self.credit = 0

    def send(self, kind: int, payload: bytes = b"") -> None:
        self.writer.write(wire.STREAM_HEADER.pack(kind, len(payload)) + payload)

    async def frame(self) -> tuple[int, bytes] | None:
        """The next frame; None at the end."""
        try:
            async with asyncio.timeout(30):
                kind, size = wire.STREAM_HEADER.unpack(await self.reader.readexactly(5))
                return kind, await self.reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def until(self, enough: Callable[[Stream], object]) -> wire.StreamExit | None:
        """Take frames until something holds, or the stream's end: then its last word, if it had one."""
        while not enough(self):
            found = await self.frame()
            match found:
                case None:
                    return None
                case (wire.StreamType.OUTPUT, data):
                    self.out += data
                    self.send(wire.StreamType.CREDIT_OUTPUT, wire.CREDIT.pack(len(data)))
                case (wire.StreamType.ERROR_OUTPUT, data):
                    self.err += data
                    self.send(wire.StreamType.CREDIT_OUTPUT, wire.CREDIT.pack(len(data)))
                case (wire.StreamType.STATUS, data):
                    self.statuses.append(msgspec.json.decode(data, type=wire.StreamStatus))
                case (wire.StreamType.ANSWER, data):
                    self.answers.append(data)
                case (wire.StreamType.CREDIT, data):
                    self.credit += wire.CREDIT.unpack(data)[0]
                case (wire.StreamType.EXIT, data):
                    return msgspec.json.decode(data, type=wire.StreamExit)
                case _:
                    raise AssertionError(f"an unknown frame {found}")
        return None

    async def end(self) -> wire.StreamExit | None:
        """Take frames to the end."""
        return await self.until(lambda _: False)


def request(method: str, path: str, body: object = None, *, headers: str = "") -> bytes:
    """A request as bytes; ``body`` is bytes or something that becomes JSON."""
    data = b"" if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
    length = f"Content-Length: {len(data)}\r\n" if body is not None else ""
    target = path if path.startswith("/") else f"/v1/{path}"
    return f"{method} {target} HTTP/1.1\r\nHost: devboxd\r\n{headers}{length}\r\n".encode() + data


def unchunk(data: bytes) -> bytes:
    result = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        if not (length := int(size or b"0", 16)):
            break
        result += data[:length]
        data = data[length + 2 :]
    return result


def home_of(daemon: Daemon, callers: Callers, folder: Path) -> Lifecycle:
    """The projects of a daemon, in memory, on the simulator's EC2; their loops are the test's to start."""
    errands = Errands(daemon.execute, lambda: daemon.config)
    return Lifecycle(
        daemon.shared,
        {engine: MemoryStore() for engine in StoreEngine},
        AwsComputes(callers),
        errands,
        me="test",
        owner=daemon.owner_tag,
        prices=Prices(daemon.shared, AwsPrices(callers), PriceFiles(folder)),
        agent=Agents(AwsCloud(callers), errands.box),
    )


MakeServer = Callable[[Daemon], Awaitable[Server]]


@pytest_asyncio.fixture
async def make_server() -> AsyncIterator[MakeServer]:
    """Servers, closed at the end of the test."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dbx-", dir="/tmp")))

        async def login(whose: Account, code: str | None) -> AsyncIterator[LoginStep]:
            yield LoginStep(LoginState.OPEN, "", url="https://device", code="ABCD")
            if whose.profile == "broken":
                yield LoginStep(LoginState.FAILED, "", failure=LoginNeeded("nobody came"))
            else:
                yield LoginStep(LoginState.DONE, "")

        async def lend(profile: str | None, given: Lent | None) -> Lent | None:
            return None

        async def set_up_user(asked: Asked) -> AsyncIterator[set_up_of_user.Finding]:
            yield set_up_of_user.Finding("login", Result.OK, f"dry run: {asked.dry_run}")

        loaded = Loaded(merge([Layer("flag", {"defaults": {"mux": "tmux"}})]), ())

        async def config() -> Loaded:
            return loaded

        async def set_up(
            whose: Account, cidr: str | None, given: Mapping[str, str], dry_run: bool
        ) -> AsyncIterator[Progress]:
            yield Progress("done", f"{cidr} {dry_run}")

        async def make(daemon: Daemon) -> Server:
            path = folder / f"s{len(list(folder.iterdir()))}"
            listener: socket.socket = bind_unix(path)
            callers = Callers(RealTime())
            stack.push_async_callback(callers.close)
            listener.setblocking(False)
            server: Server

            def stop() -> None:
                server.stops += 1

            notices = Notices()
            home = home_of(daemon, callers, folder / "prices")
            context = Context(
                daemon=daemon,
                socket=str(path),
                activation="foreground",
                started=1_700_000_000.5,
                stop=stop,
                config=config,
                merged=lambda: loaded.merged,
                ssh_config=Files(),
                login=login,
                lend=lend,
                logins=Logins(),
                doctor=Doctor(),
                projects=home.projects,
                idle=home.idle,
                jobs=home.jobs,
                agents=home.agents,
                reclaims=home.reclaims,
                open_page=lambda: page.open(),
                tell=notices.tell,
                keep_secret=notices.keep,
                money=home.money,
                budgets=home.budgets,
                store_used=StoreEngine.SQLITE,
                store_place=lambda engine: f"in {engine}",
                set_up=set_up,
                set_up_user=set_up_user,
            )
            page = PageServer(context)
            stack.push_async_callback(page.close)
            server = Server(path, daemon, context)
            await stack.enter_async_context(serving(build(context), listener))
            return server

        yield make


@pytest_asyncio.fixture
async def server(daemon: Daemon, make_server: MakeServer) -> Server:
    """One server in front of one daemon on the simulator."""
    return await make_server(daemon)


def box_id(sim: Simulator, name: str = "api") -> str:
    """The instance id of a box."""
    return sim.box(name).id
