"""Bridges for real: our daemon, the simulator's agent, and the bridgehead as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from devboxd.api.wire import INPUT_WINDOW
from devboxd.control.base.shared import Shared
from devboxd.control.connect.audience import Capture
from devboxd.control.connect.bridge import HeldBridge
from devboxd.control.connect.bridge_start import start
from devboxd.control.connect.bridges import Bridges
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.lane import Lane
from devboxd.control.connect.stream import ConnectionRefused, Duplex, PortStream, StreamReset
from devboxd.control.daemon import Daemon
from devboxd.errors import Unreachable, WrongState
from devboxd.model.box import Account, BoxRef
from devboxd.model.config import BridgeSettings, Config, ForwardSettings
from devboxd.model.forward import Spec
from devboxd.model.states import BridgeUse, StreamState
from devboxd.model.terminal import ClientMessage, EndOfInput, Input, Leaving, Signal, StatusLine, Taken
from devboxd.simulator.world import Simulator
from tests.control.conftest import MakeDaemon
from tests.control.fakes import LoopClock
from tests.kit.processes import is_alive
from tests.kit.sim import MakeSimulator
from tests.kit.tasks import beside


def secret(name: str) -> bytes:
    return hashlib.sha256(b"test" + name.encode()).digest()


@pytest_asyncio.fixture
async def bridged(
    sim: Simulator, make_daemon: MakeDaemon, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Daemon]:
    """A daemon with bridges. A session that ends is nothing that a task fails of."""
    yield await make_daemon(sim, bridge_secret=secret)
    failed = [
        record for record in caplog.get_records("call") if record.name == "devboxd.control.base.supervisor"
    ]
    assert not failed, [(record.getMessage(), record.exc_text) for record in failed]


async def api(daemon: Daemon) -> BoxRef:
    return await daemon.boxes.resolve("api", Account())


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """On the box: says back what it hears, and then that it heard the end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write(b"<end>")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def to_the_end(stream: Duplex) -> bytes:
    got = bytearray()
    while data := await stream.read():
        got += data
    return bytes(got)


async def run(daemon: Daemon, *argv: str, stdin: bytes = b"", **more: object) -> tuple[Leaving, bytes, bytes]:
    return await run_on(daemon, await api(daemon), *argv, stdin=stdin, **more)


async def run_on(
    daemon: Daemon, box: BoxRef, *argv: str, stdin: bytes = b"", **more: object
) -> tuple[Leaving, bytes, bytes]:
    terminal = Capture(stdin)
    spec = ExecSpec(box=box, argv=list(argv), **more)  # type: ignore[arg-type]  # as the test says
    leaving = await daemon.execute(spec, terminal)
    return leaving, bytes(terminal.stdout), bytes(terminal.stderr)


async def end_lanes(daemon: Daemon) -> None:
    """End the sessions under all bridges."""
    await asyncio.gather(*(session.stop() for session in daemon.sessions()))


async def lose_lanes(daemon: Daemon) -> None:
    """The same, and wait until that is known."""
    await end_lanes(daemon)
    while any(lane.is_up for lane in daemon.bridges()[0].lanes):
        await asyncio.sleep(0.01)


async def never(*_: object) -> PortStream:
    """A lane that does not open."""
    await asyncio.Event().wait()
    raise AssertionError


async def fails(*_: object) -> PortStream:
    """A lane that cannot be opened now."""
    raise Unreachable("not now")


def without_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """No box has what a bridgehead runs in."""
    monkeypatch.setattr(
        "devboxd.control.connect.bridge_start.in_python",
        lambda *_: ["sh", "-c", "echo problem no python3"],
    )


async def test_a_connection_half_closes_and_gets_its_answer(bridged: Daemon) -> None:
    """``echo … | nc`` loses its answer over smux; not over a bridge."""
    async with echo() as port:
        stream = await bridged.connect(await api(bridged), port, None, 30)
        await stream.write(b"question")
        assert stream.finish()
        assert await to_the_end(stream) == b"question<end>"
        stream.close()


async def test_a_refused_port_is_refused(bridged: Daemon) -> None:
    async with echo() as port:
        pass
    stream = await bridged.connect(await api(bridged), port, None, 30)
    with pytest.raises(ConnectionRefused):
        await stream.read()
    stream.close()


async def test_whether_a_connection_stands_is_known_before_its_first_byte(bridged: Daemon) -> None:
    """And no byte of it is lost or made up by that."""
    async with echo() as port:
        box = await api(bridged)
        stream = await bridged.connect(box, port, None, 30)
        assert await stream.answered()
        assert await stream.answered()
        assert stream.received == 0
        await stream.write(b"question")
        assert stream.finish()
        assert await to_the_end(stream) == b"question<end>"
        assert stream.received == len(b"question<end>")
        stream.close()
    refused = await bridged.connect(box, port, None, 30)
    with pytest.raises(ConnectionRefused):
        await refused.answered()
    refused.close()


async def test_a_bridgehead_of_an_earlier_daemon_is_not_asked_what_it_does_not_tell(
    bridged: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It outlives the daemon that started it, and says nothing but what comes."""

    async def found(*given: Any, **more: Any) -> Any:
        return msgspec.structs.replace(await start(*given, **more), tells=False)

    monkeypatch.setattr("devboxd.control.connect.bridge.start", found)
    async with echo() as port:
        stream = await bridged.connect(await api(bridged), port, None, 30)
        assert not await stream.answered()
        await stream.write(b"+")
        assert stream.finish()
        assert await to_the_end(stream) == b"+<end>"
        stream.close()


async def test_a_stream_outlives_its_sessions(bridged: Daemon) -> None:
    """An idle time-out, TerminateSession, a restart of the agent: a held connection goes on."""
    async with echo() as port:
        stream = await bridged.connect(await api(bridged), port, None, 30)
        for turn in range(4):
            await end_lanes(bridged)
            await stream.write(b"turn %d" % turn)
            got = b""
            async with asyncio.timeout(30):
                while len(got) < 6:
                    got += await stream.read()
            assert got == b"turn %d" % turn
        stream.close()


async def test_a_session_that_the_agent_loses_as_it_starts_is_not_waited_for(
    bridged: Daemon, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing for twenty seconds before its owner gives it up; another one is there at once."""
    monkeypatch.setattr("devboxd.model.lanes.SILENT", 0.3)
    async with echo() as port:
        stream = await bridged.connect(await api(bridged), port, None, 30)
        await stream.write(b"one")
        assert await stream.read() == b"one"
        await sim.fault("agent-restart", seconds=0.0, drops=1, box="api")
        await sim.fault("terminate")
        await stream.write(b"two")
        async with asyncio.timeout(10):
            assert await stream.read() == b"two"
        stream.close()


async def test_bulk_survives_sessions_that_end_and_uses_several(bridged: Daemon) -> None:
    """Every byte once and in order, over more lanes than one."""
    data, most = os.urandom(6 << 20), 0
    async with echo() as port, asyncio.TaskGroup() as tasks:
        stream = await bridged.connect(await api(bridged), port, None, 30)

        async def send() -> None:
            await stream.write(data)
            stream.finish()

        tasks.create_task(send())
        got, cuts = bytearray(), 0
        while part := await stream.read():
            got += part
            most = max(most, len(bridged.sessions()))
            if len(got) > (cuts + 1) << 20:
                cuts += 1
                await bridged.sessions()[cuts % len(bridged.sessions())].stop()
        stream.close()
    assert bytes(got) == data + b"<end>"
    assert cuts >= 5
    assert most > 2


async def test_one_download_uses_several_sessions_soon(
    simulator: MakeSimulator, make_daemon: MakeDaemon
) -> None:
    """At the agent's own pace one session gives 0.7 MiB/s, and only the box knows that there is more to send."""
    sim = await simulator(pacing=0.001)
    daemon = await make_daemon(sim, bridge_secret=secret)
    data, most = os.urandom(5 << 20), 0

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        stream = await daemon.connect(await api(daemon), server.sockets[0].getsockname()[1], None, 30)
        got = bytearray()
        while part := await stream.read():
            got += part
            most = max(most, len(daemon.sessions()))
        stream.close()
    assert got == data
    assert most >= 5


async def test_lanes_that_crawl_after_a_cut_are_replaced(
    simulator: MakeSimulator, make_daemon: MakeDaemon
) -> None:
    """What was on its way is lost, and the agent sends ten frames of it a second: another session is there sooner."""
    sim = await simulator(pacing=0.001)
    daemon = await make_daemon(sim, bridge_secret=secret)
    data = os.urandom(6 << 20)
    cut: list[str] = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        stream = await daemon.connect(await api(daemon), server.sockets[0].getsockname()[1], None, 30)
        got = bytearray()
        while part := await stream.read():
            got += part
            if not cut and len(got) > 2 << 20 and sum(lane.is_up for lane in daemon.bridges()[0].lanes) > 1:
                await sim.fault("wire", drop=1.0, direction="down")
                async with asyncio.timeout(30):
                    while len(cut) < 2:
                        await asyncio.sleep(0.15)
                        live = [one for one in sim.gateway.sessions.values() if not one.is_over]
                        # Fewer frames than that are sent again sooner than a session is opened.
                        cut = [one.id for one in live if one.to_client.lost > 20]
                await sim.fault("wire")
        stream.close()
    assert got == data
    assert len(cut) > 1
    replaced = [one for one in cut if sim.gateway.sessions[one].is_over]
    assert len(replaced) > len(cut) // 2, "they were waited for"


async def test_a_command_is_what_exec_gives(bridged: Daemon) -> None:
    """Separate streams, input, status; as without a bridge."""
    assert await run(bridged, "sh", "-c", "echo out; echo err >&2; exit 37") == (
        Leaving(status=37), b"out\n", b"err\n",
    )  # fmt: skip
    assert await run(bridged, "sort", stdin=b"b\na\n") == (Leaving(status=0), b"a\nb\n", b"")
    leaving, _, stderr = await run(bridged, "no-such-command")
    assert (leaving.status, b"no-such-command" in stderr) == (127, True)
    leaving, _, _ = await run(bridged, "pwd", cwd="/no/such/folder")
    assert leaving.error is not None
    assert leaving.error.code == "wrong-state"


async def test_a_command_outlives_its_session(bridged: Daemon) -> None:
    """Output and status are complete although every session ends in the middle."""
    await run(bridged, "true")
    script = "for i in 1 2 3 4 5 6; do echo $i; sleep 0.3; done; exit 9"
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(run(bridged, "sh", "-c", script))
        for _ in range(4):
            await asyncio.sleep(0.5)
            await end_lanes(bridged)
    assert running.result() == (Leaving(status=9), b"1\n2\n3\n4\n5\n6\n", b"")


async def test_a_command_that_is_longer_than_a_purpose_goes_todays_way(bridged: Daemon) -> None:
    word = "x" * (40 << 10)
    assert (await run(bridged, "printf", "%s", word))[1].decode() == word


async def test_a_box_without_python_goes_todays_way(
    sim: Simulator, make_daemon: MakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that works today may stop working; and it is said once."""
    without_python(monkeypatch)
    daemon = await make_daemon(sim, bridge_secret=secret)
    async with echo() as port:
        stream = await daemon.connect(await api(daemon), port, None, 30)
        assert not stream.finish()  # smux
        await stream.write(b"x")
        assert await stream.read() == b"x"
        stream.close()
    assert (await run(daemon, "echo", "hi"))[1] == b"hi\n"
    told = [event for event in daemon.shared.news.events() if event.kind == "bridge.without"]
    assert [event.text for event in told] == ["no bridge to api: no python3 (api)"]


async def test_never_means_never(sim: Simulator, make_daemon: MakeDaemon) -> None:
    daemon = await make_daemon(sim, bridge_secret=secret, bridge=BridgeSettings(use=BridgeUse.NEVER))
    assert (await run(daemon, "echo", "hi"))[1] == b"hi\n"
    assert daemon.bridges() == []


async def test_a_killed_bridgehead_resets_its_streams_and_comes_back(bridged: Daemon) -> None:
    """A box that was started again: what was open is gone, what comes next is not."""
    async with echo() as port:
        box = await api(bridged)
        stream = await bridged.connect(box, port, None, 30)
        await stream.write(b"x")
        assert await stream.read() == b"x"
        leaving, pid, _ = await run(bridged, "sh", "-c", "echo $PPID")
        assert leaving.status == 0
        os.kill(int(pid), 9)
        async with asyncio.timeout(60):
            with pytest.raises(StreamReset):
                await to_the_end(stream)
            stream.close()
            again = await bridged.connect(box, port, None, 30)
            await again.write(b"again")
            assert await again.read() == b"again"
        again.close()


async def hung(daemon: Daemon) -> int:
    """The bridgehead stands still from now on; its number."""
    _, pid, _ = await run(daemon, "sh", "-c", "echo $PPID")
    os.kill(int(pid), 19)
    return int(pid)


async def test_a_bridgehead_that_hangs_is_told_no_command_and_is_replaced(
    bridged: Daemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``exec`` waited for ten minutes. The command runs once, another way, and the next one over a new bridge."""
    monkeypatch.setattr("devboxd.model.silence.NO_ANSWER", 0.5)
    monkeypatch.setattr("devboxd.control.connect.bridge.ASK_AFTER", 0.0)
    runs = tmp_path / "runs"
    pid = await hung(bridged)
    async with asyncio.timeout(60):
        leaving, _, _ = await run(bridged, "sh", "-c", f"echo run >> {runs}")
        assert leaving.status == 0
        assert runs.read_text() == "run\n"
        while True:
            assert (await run(bridged, "true"))[0].status == 0
            if [one for one in bridged.bridges() if one.lanes and not one.without and not is_alive(pid)]:
                break
    assert runs.read_text() == "run\n"


async def test_what_goes_over_a_bridgehead_that_hangs_waits_for_it(
    bridged: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It swaps, or was frozen for a while: nothing is cut, and what is new goes another way. It is said."""
    monkeypatch.setattr("devboxd.model.silence.NO_ANSWER", 0.5)
    monkeypatch.setattr("devboxd.control.connect.bridge.ASK_AFTER", 0.0)
    async with echo() as port:
        stream = await bridged.connect(await api(bridged), port, None, 30)
        await stream.write(b"x")
        assert await stream.read() == b"x"
        pid = await hung(bridged)
        try:
            async with asyncio.timeout(60):
                await stream.write(b"late")
                assert (await run(bridged, "echo", "hi"))[1] == b"hi\n"
                [facts] = bridged.bridges()
                assert facts.without is not None
                assert facts.without.endswith("does not answer; devboxctl bridge rm api ends it")
                assert facts.streams == 1
        finally:
            os.kill(pid, 18)
        async with asyncio.timeout(60):
            assert await stream.read() == b"late"
            assert [one.without for one in bridged.bridges()] == [None]
            assert await run(bridged, "sh", "-c", "echo $PPID") == (Leaving(status=0), b"%d\n" % pid, b"")
        stream.close()


async def test_what_goes_over_a_bridgehead_that_hangs_for_minutes_is_cut(
    bridged: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its user is told, and not left to wait for ever."""
    monkeypatch.setattr("devboxd.model.silence.NO_ANSWER", 0.2)
    monkeypatch.setattr("devboxd.model.silence.GIVEN_UP", 1.0)
    async with echo() as port:
        stream = await bridged.connect(await api(bridged), port, None, 30)
        pid = await hung(bridged)
        async with asyncio.timeout(60):
            await stream.write(b"x")
            with pytest.raises(StreamReset, match="does not answer"):
                await to_the_end(stream)
            while is_alive(pid):
                await asyncio.sleep(0.05)
        stream.close()


async def test_what_a_lost_bridge_left_does_not_touch_the_next_one(bridged: Daemon) -> None:
    """Its streams have the same numbers, and their users close them when they please."""
    async with echo() as port:
        box = await api(bridged)
        old = await bridged.connect(box, port, None, 30)
        await old.write(b"x")
        assert await old.read() == b"x"
        _, pid, _ = await run(bridged, "sh", "-c", "echo $PPID")
        os.kill(int(pid), 9)
        async with asyncio.timeout(60):
            with pytest.raises(StreamReset):
                await to_the_end(old)
            new = await bridged.connect(box, port, None, 30)
            old.finish()
            old.close()
            await new.write(b"new")
            assert await new.read() == b"new"
            await new.write(b"and open")
            assert await new.read() == b"and open"
        new.close()


async def test_a_bridge_that_was_given_up_begins_afresh_at_a_bridgehead_that_still_runs(
    bridged: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may not have been ended: what we number from nought again must be new to it."""
    monkeypatch.setattr("devboxd.control.daemon.load", lambda name, common: "true")
    async with echo() as port:
        box = await api(bridged)
        stream = await bridged.connect(box, port, None, 30)
        await stream.write(b"the first")
        assert await stream.read() == b"the first"
        assert await bridged.remove_bridge(box) == ([], 1)
        stream.close()
        async with asyncio.timeout(30):
            again = await bridged.connect(box, port, None, 30)
            assert again.finish()
            assert await to_the_end(again) == b"<end>"
        again.close()


async def test_who_waits_while_a_bridge_is_given_up_gets_the_next_one(
    bridged: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else may ask for it, and so nobody would begin it."""

    monkeypatch.setattr("devboxd.control.daemon.load", lambda name, common: "true")
    async with echo() as port:
        box = await api(bridged)
        (await bridged.connect(box, port, None, 30)).close()
        with monkeypatch.context() as patched:
            patched.setattr(Lane, "open", never)
            await lose_lanes(bridged)
            waiting = beside(bridged.connect(box, port, None, 60))
            await asyncio.sleep(0.1)
            assert not waiting.done()
        await bridged.remove_bridge(box)
        async with asyncio.timeout(15):
            stream = await waiting
            await stream.write(b"x")
            assert await stream.read() == b"x"
        stream.close()


async def test_a_bridge_that_begins_while_others_are_given_up_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another request may open one at any moment."""
    sessions: Any = SimpleNamespace(shared=Shared.of(LoopClock()))
    nobody_runs: Any = None
    bridges = Bridges(sessions, nobody_runs, secret, Config)
    box = BoxRef("api", "i-0123456789abcdef0", Account())
    was_cut = list[str | None]()

    async def cut(held: HeldBridge) -> int:
        was_cut.append(held.user)
        bridges.to(box, f"{held.user}-late")
        await asyncio.sleep(0)
        return 1

    monkeypatch.setattr(HeldBridge, "cut", cut)
    bridges.to(box, "a")
    bridges.to(box, "b")
    assert await bridges.cut(box) == 2
    assert was_cut == ["a", "b"]


async def test_a_lane_that_cannot_be_encrypted_is_no_box_that_is_gone(
    bridged: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that AWS does not give for a moment cost every open connection."""
    refusals = [WrongState("the session cannot be encrypted: slow down")]
    opened = Lane.open

    async def open_later(lane: Lane, *given: bytes) -> PortStream:
        if refusals:
            raise refusals.pop()
        return await opened(lane, *given)

    async with echo() as port:
        stream = await bridged.connect(await api(bridged), port, None, 30)
        await stream.write(b"x")
        assert await stream.read() == b"x"
        monkeypatch.setattr(Lane, "open", open_later)
        await end_lanes(bridged)
        async with asyncio.timeout(30):
            await stream.write(b"y")
            assert await stream.read() == b"y"
        assert not refusals
        stream.close()


async def test_a_signal_that_no_lane_carries_does_not_hold_up_its_client(
    bridged: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever presses Ctrl-C and then leaves is gone at once, also without a network."""

    class Client(Capture):
        async def receive(self) -> ClientMessage | None:
            while not self.stdout:
                await asyncio.sleep(0.01)
            if not said:
                monkeypatch.setattr(Lane, "open", never)
                await lose_lanes(bridged)
            said.append(Signal(2))
            return said[-1] if len(said) == 1 else None

    said = list[Signal]()
    spec = ExecSpec(box=await api(bridged), argv=["sh", "-c", "echo up; exec sleep 600"])
    async with asyncio.timeout(20):
        assert await bridged.execute(spec, Client()) == Leaving(status=129, reason="the client left")


class Interrupted(Capture):
    """A client that sends a signal once it is told ``state``, and then waits for the end."""

    def __init__(self, state: StreamState, number: int = 2) -> None:
        super().__init__()
        self.told: list[StatusLine] = []
        self.is_time = asyncio.Event()
        self.has_sent = False
        self._state = state
        self._number = number

    def status(self, line: StatusLine) -> None:
        self.told.append(line)
        if line.state == self._state:
            self.is_time.set()

    async def receive(self) -> ClientMessage | None:
        await self.is_time.wait()
        if self.has_sent:
            await asyncio.Event().wait()
        self.has_sent = True
        return Signal(self._number)


@pytest.mark.parametrize("number", [2, 15])
async def test_the_first_signal_ends_the_wait_for_a_bridge(
    bridged: Daemon, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The command ran all the same, once there was one."""
    monkeypatch.setattr(Lane, "open", never)
    client = Interrupted(StreamState.STARTING, number)
    async with asyncio.timeout(20):
        leaving = await bridged.execute(ExecSpec(box=await api(bridged), argv=["true"]), client)
    assert leaving == Leaving(status=128 + number, reason="ended before the command ran")
    assert [line.text for line in client.told] == ["reaching api"]
    assert bridged.bridges()[0].streams == 0, "nothing waits for it to be told to the box"


async def test_a_signal_that_a_silent_box_does_not_take_ends_the_wait_for_it(
    bridged: Daemon, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With links that nobody knows to be dead: ``exec`` neither said a word nor ended."""
    monkeypatch.setattr("devboxd.model.patience.TAKEN_WITHIN", 0.3)
    assert (await run(bridged, "true"))[0].status == 0
    await sim.fault("blackhole", seconds=600)
    client = Interrupted(StreamState.STARTING)
    async with asyncio.timeout(20):
        leaving = await bridged.execute(ExecSpec(box=await api(bridged), argv=["true"]), client)
    assert leaving == Leaving(status=130, reason="the box did not take the signal")
    assert "did not take the signal" in client.told[-1].text
    await sim.fault("clear")


async def test_a_signal_without_a_session_ends_the_wait_at_once_and_hangs_the_command_up(
    bridged: Daemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is told that the link was lost; what it has started ends when the box is reached again."""
    mark = tmp_path / "hung-up"
    # What the shell says of it on a pipe that is closed by then would end it before that.
    script = f"exec 2>/dev/null; trap 'echo > {mark}; exit' HUP; echo up; while :; do sleep 0.05; done"
    client = Interrupted(StreamState.RECONNECTING)
    running = beside(bridged.execute(ExecSpec(box=await api(bridged), argv=["sh", "-c", script]), client))
    async with asyncio.timeout(60):
        while not client.stdout:
            await asyncio.sleep(0.01)
        with monkeypatch.context() as patched:
            patched.setattr(Lane, "open", fails)
            await lose_lanes(bridged)
            leaving = await running
        assert leaving == Leaving(status=130, reason="the box did not take the signal")
        assert "the link was lost" in [line.text for line in client.told]
        while not mark.exists():
            await asyncio.sleep(0.01)


async def test_a_command_that_has_the_signal_may_take_its_time(
    bridged: Daemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And its client is told nothing while all is well."""
    monkeypatch.setattr("devboxd.model.patience.TAKEN_WITHIN", 0.2)
    mark = tmp_path / "go-on"
    script = f"trap 'while [ ! -e {mark} ]; do sleep 0.01; done; exit 7' INT; echo up; while :; do sleep 0.05; done"

    class Client(Interrupted):
        def output(self, data: bytes, *, error: bool = False) -> None:
            super().output(data, error=error)
            self.is_time.set()

    client = Client(StreamState.NOTICE)
    running = beside(bridged.execute(ExecSpec(box=await api(bridged), argv=["sh", "-c", script]), client))
    async with asyncio.timeout(30):
        while not client.has_sent:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.6)  # three times as long as a box may take
        assert not running.done()
        mark.touch()
        assert (await running).status == 7
    assert "did not take" not in "".join(line.text for line in client.told)


class Feeding(Capture):
    """A client that sends ``size`` bytes as it is given credit; ``last`` is said once there is no more to send, or no more credit from a command that runs."""

    def __init__(self, size: int, last: ClientMessage | None) -> None:
        super().__init__()
        self.got = 0
        self._size = size
        self._last: list[ClientMessage | None] = [last]
        self._allowed = INPUT_WINDOW

    async def receive(self) -> ClientMessage | None:
        while True:
            if part := min(self._size, self._allowed, 8192):
                self._size, self._allowed = self._size - part, self._allowed - part
                return Input(bytes(part))
            if self._taken:
                taken, self._taken = self._taken, 0
                return Taken(taken)
            if self._last and not self._size:
                return self._last.pop()
            self._changed.clear()
            try:
                async with asyncio.timeout(0.5 if self._last else None):
                    await self._changed.wait()
            except TimeoutError:
                if self.got and not isinstance(self._last[0], EndOfInput):
                    return self._last.pop()

    def output(self, data: bytes, *, error: bool = False) -> None:
        super().output(data, error=error)
        self.got += len(data)

    def credit(self, size: int) -> None:
        self._allowed += size
        self._changed.set()


async def test_output_is_taken_while_input_waits(bridged: Daemon) -> None:
    """A program that says much more than it is told: its input waited for room, and the word of what was taken for that."""
    size, times = 2 << 20, 20
    program = f"import sys\nfor one in iter(lambda: sys.stdin.buffer.read(4096), b''): sys.stdout.buffer.write(one * {times})"
    client = Feeding(size, EndOfInput())
    spec = ExecSpec(box=await api(bridged), argv=[sys.executable, "-c", program])
    async with asyncio.timeout(60):
        assert await bridged.execute(spec, client) == Leaving(status=0)
    assert client.got == size * times


@pytest.mark.parametrize(
    ("last", "leaving"),
    [(Signal(15), Leaving(status=143)), (None, Leaving(status=129, reason="the client left"))],
)
async def test_who_interrupts_or_leaves_is_heard_while_input_waits(
    bridged: Daemon, last: Signal | None, leaving: Leaving
) -> None:
    """For a program that does not read it: Ctrl-C did nothing, and it ran on when its client was killed."""
    spec = ExecSpec(box=await api(bridged), argv=["sh", "-c", "echo up; exec sleep 600"])
    async with asyncio.timeout(60):
        assert await bridged.execute(spec, Feeding(4 << 20, last)) == leaving


async def test_what_a_client_said_before_there_was_no_bridge_is_not_lost(
    sim: Simulator, make_daemon: MakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old way gets all of it, in order."""
    without_python(monkeypatch)
    daemon = await make_daemon(sim, bridge_secret=secret)
    assert (await run(daemon, "cat", stdin=b"all of it"))[1] == b"all of it"


async def test_a_box_that_can_have_no_bridge_is_asked_again_after_it_was_given_up(
    sim: Simulator, make_daemon: MakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes then waits for the answer: it was given a stream that nothing ever carried."""
    without_python(monkeypatch)
    daemon = await make_daemon(sim, bridge_secret=secret)
    assert (await run(daemon, "echo", "hi"))[1] == b"hi\n"
    await daemon.remove_bridge(await api(daemon))
    async with asyncio.timeout(15):
        assert (await run(daemon, "echo", "again"))[1] == b"again\n"


async def test_a_forward_goes_over_the_bridge(sim: Simulator, make_daemon: MakeDaemon) -> None:
    """And says so, and survives the end of its sessions with its connections open."""
    daemon = await make_daemon(sim, bridge_secret=secret, forward=ForwardSettings(wait=20))
    async with echo() as port:
        [facts] = await daemon.forwards.add(
            await api(daemon), [Spec(port=port, local_port=0)], auto=False, ephemeral=False
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", int(facts.local.rpartition(":")[2]))
        for turn in (b"1", b"2", b"3"):
            writer.write(turn)
            async with asyncio.timeout(30):
                assert await reader.readexactly(1) == turn
            await end_lanes(daemon)
        writer.write_eof()
        assert await reader.read() == b"<end>"
        writer.close()


@contextlib.contextmanager
def crowded() -> Iterator[socket.socket]:
    """A listener of the box that takes nobody more: who connects hears nothing until it is closed."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield listener


async def asks_socks(daemon: Daemon, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client of a new dynamic forward that has asked for a port of the box, and waits for the answer."""
    [facts] = await daemon.forwards.add(
        await api(daemon), [Spec(dynamic=True, local_port=0)], auto=False, ephemeral=False
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", int(facts.local.rpartition(":")[2]))
    writer.write(b"\x05\x01\x00" + bytes([5, 1, 0, 1, 127, 0, 0, 1]) + port.to_bytes(2, "big"))
    assert await reader.readexactly(2) == b"\x05\x00"
    while not [one for one in daemon.bridges() if one.streams]:
        await asyncio.sleep(0.01)
    return reader, writer


async def test_socks_says_of_no_target_that_it_is_connected_before_it_is(bridged: Daemon) -> None:
    """After 0.4 s it did, and the client saw a connection that broke."""
    async with asyncio.timeout(60):
        with crowded() as listener:
            reader, writer = await asks_socks(bridged, listener.getsockname()[1])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    raise AssertionError(await reader.readexactly(1))
        assert (await reader.readexactly(10))[1] == 5
        writer.close()


async def test_a_target_of_socks_is_waited_for_as_long_as_configured(
    sim: Simulator, make_daemon: MakeDaemon
) -> None:
    daemon = await make_daemon(sim, bridge_secret=secret, forward=ForwardSettings(wait=5))
    async with asyncio.timeout(60):
        with crowded() as listener:
            await run(daemon, "true")  # or its start would take of that time
            reader, writer = await asks_socks(daemon, listener.getsockname()[1])
            assert (await reader.readexactly(10))[1] == 4
            writer.close()


async def test_a_client_of_socks_that_leaves_is_not_waited_for(bridged: Daemon) -> None:
    async with asyncio.timeout(60):
        with crowded() as listener:
            _, writer = await asks_socks(bridged, listener.getsockname()[1])
            writer.close()
            while bridged.bridges()[0].streams:
                await asyncio.sleep(0.01)


async def test_a_box_that_is_off_is_called_that_at_once(bridged: Daemon, sim: Simulator) -> None:
    """The bridge must not hide what the old way says best, nor wait two minutes for it."""
    box = await api(bridged)
    await sim.fault("box-stop", box="api")
    async with asyncio.timeout(10):
        leaving, _, _ = await run_on(bridged, box, "true")
    assert leaving.error is not None
    assert leaving.error.code == "box-stopped"


async def test_what_runs_on_a_box_that_is_switched_off_ends_with_that(
    bridged: Daemon, sim: Simulator
) -> None:
    """Its programs are gone: ``exec`` sat there without a word, for as long as nobody ended it."""
    box = await api(bridged)
    assert (await run_on(bridged, box, "true"))[0].status == 0
    work = beside(run_on(bridged, box, "sleep", "600"))
    await asyncio.sleep(1)
    await sim.fault("box-stop", box="api")
    async with asyncio.timeout(60):
        leaving, _, _ = await work
    assert leaving.error is not None
    assert leaving.error.code == "box-stopped"


async def test_a_bridgehead_that_no_session_reaches_goes_todays_way(
    sim: Simulator, make_daemon: MakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands in its way: port sessions, a firewall on loopback, another program on its port."""

    async def refused(*_: object) -> None:
        raise ConnectionRefused("nothing listens there")

    monkeypatch.setattr("devboxd.control.connect.lane.Lane.open", refused)
    daemon = await make_daemon(sim, bridge_secret=secret)
    async with asyncio.timeout(60):
        assert (await run(daemon, "echo", "hi"))[1] == b"hi\n"
