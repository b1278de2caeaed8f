"""A daemon's control layer beside a simulator in this process, and traffic with every byte known in advance."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import re
import resource
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from devboxd.aws.clients import Callers
from devboxd.aws.cloud import AwsCloud
from devboxd.control.base.memory import Memory
from devboxd.control.base.settings import Settings
from devboxd.control.base.shared import Shared
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.daemon import Daemon
from devboxd.errors import DevboxError
from devboxd.model.attach import AttachSpec
from devboxd.model.box import Account, BoxRef
from devboxd.model.config import Config, LinkSettings
from devboxd.model.forward import Spec
from devboxd.model.memory import State
from devboxd.model.terminal import ClientMessage, EndOfInput, Input, Leaving, StatusLine, Taken
from devboxd.net.dial import DialSettings
from devboxd.net.link import Dialer
from devboxd.net.listen import Listeners
from devboxd.simulator.options import FAST
from devboxd.simulator.world import Simulator
from tests.chaos.faults import OF_A_SESSION, Cut, Generator
from tests.control.kit import NoKeys, Nowhere
from tests.kit.processes import is_alive
from tests.kit.tasks import beside

PACE = 0.02  # seconds between two writes of a stream
PIECE = 512  # bytes of one
AHEAD = 2048  # bytes on their way: what is lost in a cut comes back at ten frames a second
CATCH_UP = 60.0  # seconds for everything to arrive after the last cut


class SystemClock:
    """The system's clocks."""

    def monotonic(self) -> float:
        """Seconds."""
        return time.monotonic()

    def wall(self) -> float:
        """Unix seconds."""
        return time.time()  # noqa: TID251 - a clock has to read the clock


@contextlib.asynccontextmanager
async def rig(
    seed: int, *, boxes: tuple[str, ...] = ("api",), bridge: bool = True, **options: object
) -> AsyncIterator[tuple[Simulator, Daemon]]:
    """A simulator without waiting and a daemon on it; without ``bridge`` streams die with their sessions."""
    with (
        tempfile.TemporaryDirectory(prefix="dbc-", dir="/tmp") as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        async with (
            Simulator(Path(name) / "s", boxes=boxes, options=replace(FAST, **options), seed=seed) as sim,  # type: ignore[arg-type]
            daemon_on(sim, patch, seed, bridge=bridge) as daemon,
        ):
            yield sim, daemon
        assert not sim.failures, sim.failures


@contextlib.asynccontextmanager
async def daemon_on(
    sim: Simulator,
    patch: pytest.MonkeyPatch,
    seed: int,
    state: State | None = None,
    *,
    bridge: bool = True,
) -> AsyncIterator[Daemon]:
    """A daemon without an API, stopped at the end."""
    for variable, value in sim.environment().items():
        patch.setenv(variable, value)
    clock = SystemClock()
    callers, dialer = Callers(clock), Dialer(DialSettings())
    shared = Shared.of(clock, dice=random.Random(seed).random)
    daemon = Daemon(
        shared,
        AwsCloud(callers),
        dialer,
        NoKeys(),
        Settings(shared.news, Config(link=LinkSettings(frames_per_second=0))),
        Memory(shared.news, Nowhere(), state or State(owner="chaos")),
        Listeners(),
        bridge_secret=(lambda name: hashlib.sha256(name.encode()).digest()) if bridge else None,
    )
    await daemon.start()
    try:
        yield daemon
    finally:
        await daemon.stop()
        await dialer.close()
        await callers.close()


class Bytes:
    """An endless sequence of bytes that follows from a name. ``printable``: terminals change the others."""

    def __init__(self, name: str, *, printable: bool = False) -> None:
        self._random = random.Random(name)
        self._printable = printable
        self._rest = b""

    def take(self, size: int) -> bytes:
        """The next bytes."""
        while len(self._rest) < size:
            more = self._random.randbytes(1024)
            self._rest += more.hex().encode() if self._printable else more
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


class Broken(AssertionError):
    """A byte was lost, repeated or changed, or a stream was cut."""


@dataclass
class Echo:
    """One stream of bytes there and back: what is sent, and a check of what returns."""

    name: str
    printable: bool = False
    sent: int = 0
    back: int = 0
    longest: float = 0.0  # seconds without a byte back while some were missing
    problem: str | None = None
    _source: Bytes = field(init=False)
    _expected: Bytes = field(init=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _heard: float = 0.0

    def __post_init__(self) -> None:
        self._source = Bytes(self.name, printable=self.printable)
        self._expected = Bytes(self.name, printable=self.printable)

    def next(self) -> bytes:
        """Bytes to send now."""
        if self.back == self.sent:
            self._heard = time.monotonic()
        data = self._source.take(PIECE)
        self.sent += len(data)
        return data

    def returned(self, data: bytes) -> None:
        """Check what came back."""
        now = time.monotonic()
        self.longest = max(self.longest, now - self._heard)
        self._heard = now
        wanted = self._expected.take(len(data))
        if wanted != data and self.problem is None:
            at = next(i for i, (x, y) in enumerate(zip(wanted, data, strict=True)) if x != y)
            self.problem = f"{self.name}: other bytes from {self.back + at} on: {data[at : at + 40]!r}"
        self.back += len(data)
        self._changed.set()

    def failed(self, why: object) -> None:
        """The stream was cut."""
        self.problem = (
            self.problem or f"{self.name}: {type(why).__name__}: {why} ({self.back} of {self.sent} back)"
        )
        self._changed.set()

    async def room(self, limit: int = AHEAD) -> None:
        """Wait until little is on its way."""
        while self.sent - self.back + PIECE > limit and self.problem is None:
            self._changed.clear()
            await self._changed.wait()

    async def all_back(self) -> None:
        """Wait until nothing is on its way."""
        while self.back < self.sent and self.problem is None:
            self._changed.clear()
            await self._changed.wait()

    def check(self) -> None:
        """Raise if anything was wrong."""
        if self.problem is not None:
            raise Broken(self.problem)
        if self.back != self.sent:
            raise Broken(f"{self.name}: {self.sent - self.back} of {self.sent} bytes did not come back")


class User:
    """A client of attach or exec that answers as fast as it can."""

    def __init__(self) -> None:
        self.on_output: Callable[[bytes], None] = lambda data: None
        self.text = bytearray()
        self.states: list[str] = []
        self.said: list[str] = []
        self._inbox: asyncio.Queue[ClientMessage | None] = asyncio.Queue()
        self._changed = asyncio.Event()

    def say(self, message: ClientMessage | None) -> None:
        """Send a message; None hangs up."""
        self._inbox.put_nowait(message)

    async def until(self, pattern: bytes, timeout: float = 20.0) -> re.Match[bytes]:
        """Wait for a text."""
        async with asyncio.timeout(timeout):
            while (found := re.search(pattern, bytes(self.text))) is None:
                self._changed.clear()
                await self._changed.wait()
        return found

    async def receive(self) -> ClientMessage | None:
        return await self._inbox.get()

    def output(self, data: bytes, *, error: bool = False) -> None:
        self._inbox.put_nowait(Taken(len(data)))
        if error:
            self.said.append(data.decode(errors="replace"))
            return
        self.text += data
        self.on_output(data)
        self._changed.set()

    def status(self, line: StatusLine) -> None:
        self.states.append(line.state)
        if line.text:
            self.said.append(line.text)

    def credit(self, size: int) -> None:
        pass

    def leave(self, leaving: Leaving) -> None:
        pass

    @property
    def backlog(self) -> int:
        return 0

    async def drained(self, below: int) -> None:
        pass


class Traffic:
    """Everything that a daemon carries, at the same time, with checks. ``start``, then ``finish``."""

    def __init__(self, sim: Simulator, daemon: Daemon, seed: int) -> None:
        self.sim = sim
        self.daemon = daemon
        self.echoes: list[Echo] = []
        self.done = Counter[str]()
        self.problems: list[str] = []
        self.stopping = asyncio.Event()
        self._checked = asyncio.Event()
        self._seed = seed
        self._tasks: list[asyncio.Task[None]] = []
        self._pids: dict[str, int] = {}
        self._box: BoxRef | None = None
        self._senders: list[asyncio.Task[None]] = []
        self._users: list[User] = []

    async def start(self, *, streams: int = 3) -> None:
        """Open all of it and let it flow."""
        self._box = box = await self.daemon.boxes.resolve(self.sim.box("api").id, Account())
        await self._shell(box)
        await self._exec(box)
        [facts] = await self.daemon.forwards.add(
            box, [Spec(port=7, local_port=0)], auto=False, ephemeral=True
        )
        host, _, port = facts.local.rpartition(":")
        for number in range(streams):
            await self._forward(f"forward {number}", host, int(port))
        await self._proxy(box)
        [page] = await self.daemon.forwards.add(
            box, [Spec(port=80, local_port=0)], auto=False, ephemeral=True
        )
        self._spawn(self._pages(int(page.local.rpartition(":")[2])))
        self._spawn(self._short_commands(box))

    async def finish(self) -> None:
        """No new bytes; wait until all that were sent are back; then check everything."""
        self.stopping.set()
        await asyncio.wait_for(asyncio.gather(*self._senders), CATCH_UP)
        try:
            async with asyncio.timeout(CATCH_UP):
                await asyncio.gather(*(echo.all_back() for echo in self.echoes))
        except TimeoutError:
            pass  # the check below says what is missing
        for echo in self.echoes:
            echo.check()
        for name, pid in self._pids.items():
            assert is_alive(pid), f"{name}: process {pid} is gone"
        self._checked.set()
        for user in self._users:
            user.say(EndOfInput())
        done, late = await asyncio.wait(self._tasks, timeout=CATCH_UP)
        for task in late:
            task.cancel()
        assert not late, [task.get_name() for task in late]
        for task in done:
            task.result()
        assert not self.problems, self.problems

    def summary(self) -> str:
        """What was carried."""
        total = sum(echo.back for echo in self.echoes)
        pause = max(echo.longest for echo in self.echoes)
        return f"{total / 1e6:.1f} MB back on {len(self.echoes)} streams, longest silence {pause:.1f} s, {dict(self.done)}"

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = beside(work)
        self._tasks.append(task)
        return task

    def _send(self, echo: Echo, write: Callable[[bytes], Awaitable[None]]) -> None:
        async def run() -> None:
            while not self.stopping.is_set() and echo.problem is None:
                await echo.room()
                try:
                    await write(echo.next())
                except (DevboxError, OSError) as error:
                    echo.failed(error)
                await asyncio.sleep(PACE)

        self.echoes.append(echo)
        self._senders.append(beside(run()))

    async def _shell(self, box: BoxRef) -> None:
        """A plain shell that becomes cat in a raw terminal: no multiplexer repairs anything here."""
        user, echo = User(), Echo(f"{self._seed} shell", printable=True)

        async def hold() -> None:
            leaving = await self.daemon.attach(AttachSpec(box=box, raw=True), user)
            if not self.stopping.is_set():
                echo.failed(leaving.error or leaving.reason)

        async def write(data: bytes) -> None:
            user.say(Input(data))

        self._spawn(hold())
        user.say(Input(b"stty raw -echo; echo ready''=$$.; exec cat\r"))
        self._pids["shell"] = int((await user.until(rb"ready=(\d+)\."))[1])
        await user.until(rb"ready=\d+\.\r?\n")
        await asyncio.sleep(0.1)
        user.on_output = echo.returned
        user.text.clear()
        self._ends_with(user)
        self._send(echo, write)

    def _ends_with(self, user: User) -> None:
        async def hang_up() -> None:
            await self._checked.wait()
            user.say(None)

        self._spawn(hang_up())

    async def _exec(self, box: BoxRef) -> None:
        """cat under the relay, both ways, any byte."""
        user, echo = User(), Echo(f"{self._seed} exec")
        self._users.append(user)

        async def hold() -> None:
            argv = ["sh", "-c", "echo $$ >&2; exec cat"]
            leaving = await self.daemon.execute(ExecSpec(box=box, argv=argv), user)
            if leaving.status != 0:
                echo.failed(leaving.error or f"status {leaving.status}")
                self.problems.append(f"exec: {leaving}")

        async def write(data: bytes) -> None:
            user.say(Input(data))

        self._spawn(hold())
        user.on_output = echo.returned
        async with asyncio.timeout(20):
            while not any(text.strip().isdigit() for text in user.said):
                await asyncio.sleep(0.01)
        self._pids["exec"] = int(next(text for text in user.said if text.strip().isdigit()))
        self._send(echo, write)

    async def _forward(self, name: str, host: str, port: int) -> None:
        """A TCP connection through the forward to the box's echo."""
        reader, writer = await asyncio.open_connection(host, port)
        echo = Echo(f"{self._seed} {name}")

        async def hold() -> None:
            try:
                while data := await reader.read(65536):
                    echo.returned(data)
                if not self.stopping.is_set():
                    echo.failed("end of stream")
            except OSError as error:
                echo.failed(error)
            finally:
                writer.close()

        async def write(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        async def end() -> None:
            await self.stopping.wait()
            await echo.all_back()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

        holder = self._spawn(hold())
        self._send(echo, write)
        self._spawn(end())
        holder.add_done_callback(lambda _: None)

    async def _proxy(self, box: BoxRef) -> None:
        """What ``devboxctl proxy`` uses."""
        stream = await self.daemon.connect(box, 7, None, 30.0)
        echo = Echo(f"{self._seed} proxy")

        async def hold() -> None:
            try:
                while data := await stream.read():
                    echo.returned(data)
                if not self.stopping.is_set():
                    echo.failed("end of stream")
            except DevboxError as error:
                echo.failed(error)

        async def end() -> None:
            await self.stopping.wait()
            await echo.all_back()
            stream.close()

        self._spawn(hold())
        self._send(echo, stream.write)
        self._spawn(end())

    async def _pages(self, port: int) -> None:
        """One short connection after another: what a browser does."""
        while not self.stopping.is_set():
            number = self.done["pages"]
            try:
                async with asyncio.timeout(CATCH_UP):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(f"GET /{number} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                    page = await reader.read(-1)
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
            except (OSError, TimeoutError) as error:
                self.problems.append(f"page {number}: {error!r}")
                continue
            if f"path /{number}\n".encode() not in page:
                self.problems.append(f"page {number}: {page!r}")
            self.done["pages"] += 1
            await asyncio.sleep(0.05)

    async def _short_commands(self, box: BoxRef) -> None:
        """Commands with an output of 32 KiB and a status, one after another."""
        while not self.stopping.is_set():
            number = self.done["commands"]
            user = User()
            user.say(EndOfInput())
            data = random.Random(f"{self._seed} {number}").randbytes(32 << 10)
            (self.sim.box("api").disk / "command").write_bytes(data)
            argv = ["sh", "-c", f"cat command; exit {number % 100}"]
            leaving = await self.daemon.execute(ExecSpec(box=box, argv=argv, stdin=False), user)
            if leaving.error is not None and leaving.error.code in ("login-needed", "throttled"):
                await asyncio.sleep(0.2)
                continue
            digests = [hashlib.sha256(one).hexdigest()[:12] for one in (data, bytes(user.text))]
            if leaving.status != number % 100 or digests[0] != digests[1]:
                self.problems.append(
                    f"command {number}: {leaving}, {len(user.text)} bytes {digests}, {user.said[-3:]}"
                )
            self.done["commands"] += 1
            await asyncio.sleep(0.05)


@dataclass
class Run:
    """A chaos run: cuts drawn from a seed, applied one after another."""

    sim: Simulator
    daemon: Daemon
    made: Counter[str] = field(default_factory=Counter)
    story: list[str] = field(default_factory=list)

    async def cut(self, seed: int, count: int, traffic: Traffic, *, scale: float = 1.0) -> None:
        """Make ``count`` cuts; stop early when the traffic is broken already."""
        began = time.monotonic()
        for cut in Generator(seed, scale).cuts(count):
            self.story.append(f"{time.monotonic() - began:.2f} {cut}")
            await self._apply(cut)
            self.made[cut.name] += 1
            if traffic.problems or any(echo.problem for echo in traffic.echoes):
                return
        await self.sim.fault("clear")
        self.daemon.shared.logins.renewed()

    async def _apply(self, cut: Cut) -> None:
        live = [one.id for one in self.sim.gateway.sessions.values() if not one.is_over]
        session = None if cut.everywhere or not live else live[cut.pick % len(live)]
        for name, parameters in cut.faults:
            await self._fault(name, parameters, session)
        await asyncio.sleep(cut.pause)
        for name, parameters in cut.after:
            await self._fault(name, parameters, session)
        if cut.relogin:
            await self.sim.fault("refuse", call="*", times=0)
            self.daemon.shared.logins.renewed()

    async def _fault(self, name: str, parameters: dict[str, object], session: str | None) -> None:
        await self.sim.fault(name, **parameters, **({"session": session} if name in OF_A_SESSION else {}))

    @property
    def resumes(self) -> int:
        """Links that came back."""
        return sum(
            one.counts["attached"] - 1 for one in self.sim.gateway.sessions.values() if one.counts["attached"]
        )


def open_descriptors() -> int:
    """Of this process."""
    return len(os.listdir("/proc/self/fd"))


def resident() -> int:
    """Bytes of memory of this process that are resident now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
