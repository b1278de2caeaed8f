"""Port sessions: many connections over few sessions, byte for byte."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest

from devboxd.control.connect import port as port_module
from devboxd.control.connect import splice as splice_module
from devboxd.control.connect import stream as stream_module
from devboxd.control.connect.pool import PortPool
from devboxd.control.connect.port import PortTarget
from devboxd.control.connect.splice import splice
from devboxd.control.connect.stream import ConnectionRefused, Duplex, PortStream, StreamReset
from devboxd.control.daemon import Daemon
from devboxd.errors import BoxStopped, DevboxError
from devboxd.model.box import Account, BoxRef
from devboxd.model.config import ForwardSettings
from devboxd.model.pool import BUSY_BYTES
from devboxd.simulator.world import Simulator
from tests.control.conftest import MakeDaemon
from tests.kit.sim import MakeSimulator
from tests.kit.tasks import beside

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ECHO = 7


@asynccontextmanager
async def server(sim: Simulator, port: int, handler: Handler) -> AsyncIterator[None]:
    """Something that listens on a port of the box ``api``."""
    listening = await asyncio.start_server(handler, "127.0.0.1", 0)
    sim.map_port("api", port, listening.sockets[0].getsockname()[1])
    try:
        yield
    finally:
        listening.close()


async def api(daemon: Daemon, sim: Simulator) -> BoxRef:
    return await daemon.boxes.resolve(sim.box("api").id, Account())


async def pool_to(daemon: Daemon, sim: Simulator, port: int) -> PortPool:
    return daemon.pools.of(PortTarget(await api(daemon, sim), port))


async def read_all(stream: Duplex, size: int) -> bytes:
    data = bytearray()
    async with asyncio.timeout(30):
        while len(data) < size:
            piece = await stream.read()
            assert piece, f"the end after {len(data)} of {size} bytes"
            data += piece
    return bytes(data)


async def until(what: Callable[[], object], timeout: float = 10.0) -> None:
    """Wait for something that a real program does."""
    async with asyncio.timeout(timeout):
        while not what():
            await asyncio.sleep(0.01)


async def test_a_hundred_connections_at_once_are_byte_exact(daemon: Daemon, sim: Simulator) -> None:
    """A browser, a debugger and a file sync through one forward."""
    pool = await pool_to(daemon, sim, ECHO)

    async def one(number: int) -> None:
        data = os.urandom(20_000 + 97 * number)
        stream = await pool.connect(20.0)
        sent = beside(stream.write(data))
        assert await read_all(stream, len(data)) == data
        await sent
        stream.close()

    async with asyncio.TaskGroup() as tasks:
        for number in range(100):
            tasks.create_task(one(number))
    assert len(pool.sessions) <= 4
    assert not any(session.streams for session in pool.sessions)


async def test_a_port_where_nothing_listens_is_refused_not_closed(daemon: Daemon, sim: Simulator) -> None:
    """ "Connection refused" and an empty answer mean different things to a program."""
    sim.map_port("api", 9, 1)
    stream = await (await pool_to(daemon, sim, 9)).connect(20.0)
    with pytest.raises(ConnectionRefused, match="nothing listens on port 9"):
        await stream.read()


async def test_a_refused_connection_does_not_harm_the_others(daemon: Daemon, sim: Simulator) -> None:
    """They share the session."""

    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(hello, "127.0.0.1", 0)
    local = listening.sockets[0].getsockname()[1]
    sim.map_port("api", 4000, local)
    pool = await pool_to(daemon, sim, 4000)
    first = await pool.connect(20.0)
    assert await read_all(first, 5) == b"hello"
    listening.close()
    second = await pool.connect(20.0)
    with pytest.raises(ConnectionRefused):
        await second.read()
    listening = await asyncio.start_server(hello, "127.0.0.1", local)
    third = await pool.connect(20.0)
    assert await read_all(third, 5) == b"hello"
    assert len(pool.sessions) == 1
    assert not first.finished
    first.close()
    third.close()
    listening.close()


async def test_the_far_ends_close_is_an_end_and_not_an_error(daemon: Daemon, sim: Simulator) -> None:
    """HTTP/1.0 ends a body so."""

    async def bye(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        await writer.drain()
        writer.close()

    async with server(sim, 4001, bye):
        stream = await (await pool_to(daemon, sim, 4001)).connect(20.0)
        assert await read_all(stream, 3) == b"bye"
        assert await stream.read() == b""
        with pytest.raises(StreamReset):
            await stream.write(b"anybody?")


class Local:
    """A local connection in memory."""

    def __init__(self) -> None:
        self.typed: asyncio.Queue[bytes] = asyncio.Queue()
        self.got = bytearray()
        self.was_reset = self.was_closed = self.is_gone = False
        self.stuck = asyncio.Event()
        self.stuck.set()

    async def read(self, limit: int) -> bytes:
        return await self.typed.get()

    async def write(self, data: bytes) -> None:
        await self.stuck.wait()
        self.got += data

    def finish(self) -> None:
        raise AssertionError("smux knows no half-close")

    async def close(self) -> None:
        self.was_closed = True

    async def cut(self) -> None:
        raise AssertionError("smux knows no half-close")

    def reset(self) -> None:
        self.was_reset = True

    def let_go(self) -> None:
        return None

    def has_left(self) -> bool:
        return self.is_gone


async def test_an_answer_that_is_still_being_made_survives_the_end_of_our_input(
    daemon: Daemon, sim: Simulator
) -> None:
    """``printf request | nc``: smux knows no half-close, and a FIN would throw the answer away."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        await asyncio.sleep(0.1)
        writer.write(b"answer")
        await writer.drain()
        writer.close()

    async with server(sim, 4002, slow):
        stream = await (await pool_to(daemon, sim, 4002)).connect(20.0)
        local = Local()
        local.typed.put_nowait(b"question\n")
        local.typed.put_nowait(b"")
        assert await asyncio.wait_for(splice(local, stream), 10) is None
        assert bytes(local.got) == b"answer"
        assert local.was_closed
        assert not local.was_reset


async def test_a_silent_far_end_is_closed_some_time_after_our_input_ended(
    daemon: Daemon, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that waits for our end of file would otherwise stay for ever."""
    monkeypatch.setattr(splice_module, "LINGER", 0.05)
    ended = asyncio.Event()

    async def patient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()
        writer.close()

    async with server(sim, 4003, patient):
        stream = await (await pool_to(daemon, sim, 4003)).connect(20.0)
        local = Local()
        local.typed.put_nowait(b"")
        failure = await asyncio.wait_for(splice(local, stream), 10)
        assert failure is not None
        assert "no answer" in failure.message, "an answer that never came must not look like an empty one"
        await asyncio.wait_for(ended.wait(), 10)


async def test_nobody_lingers_for_a_client_that_is_gone(daemon: Daemon, sim: Simulator) -> None:
    """A program that was ended in the middle would hold its descriptor, and the far end's, for a minute."""
    arrived, ended = bytearray(), asyncio.Event()

    async def patient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.extend(await reader.read())
        ended.set()
        writer.close()

    async with server(sim, 4005, patient):
        stream = await (await pool_to(daemon, sim, 4005)).connect(20.0)
        local = Local()
        local.typed.put_nowait(b"last words")
        local.typed.put_nowait(b"")
        local.is_gone = True
        assert await asyncio.wait_for(splice(local, stream), 5) is None
        assert local.was_closed
        await asyncio.wait_for(ended.wait(), 5)
        assert bytes(arrived) == b"last words"


async def test_what_the_far_end_said_before_it_closed_arrives_although_we_still_talk(
    daemon: Daemon, sim: Simulator
) -> None:
    """A server that answers 413 in the middle of an upload: the answer is the point."""

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"too large")
        await writer.drain()
        writer.close()

    async with server(sim, 4004, early):
        stream = await (await pool_to(daemon, sim, 4004)).connect(20.0)
        local = Local()
        local.stuck.clear()  # the local side is slow to take it
        work = beside(splice(local, stream))
        await until(lambda: stream.finished)
        local.typed.put_nowait(b"more of the upload")
        await asyncio.sleep(0.02)
        local.stuck.set()
        assert await asyncio.wait_for(work, 10) is None
        assert bytes(local.got) == b"too large"
        assert local.was_closed
        assert not local.was_reset


async def test_a_reader_that_stands_still_is_cut_and_the_others_go_on(
    daemon: Daemon, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A paused download must not stop every other connection, nor eat the memory."""
    monkeypatch.setattr(stream_module, "STREAM_BUFFER", 200_000)

    async def fire_hose(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(b"x" * 10_000)
                await writer.drain()
        except OSError:
            writer.close()

    async with server(sim, 4005, fire_hose):
        pool = await pool_to(daemon, sim, 4005)
        stuck, reading = await pool.connect(20.0), await pool.connect(20.0)
        data = await read_all(reading, 400_000)
        assert set(data) == {ord("x")}
        await until(lambda: cast(PortStream, stuck).number not in pool.sessions[0].streams)
        with pytest.raises(StreamReset, match="stopped reading"):
            await stuck.read()
        reading.close()


async def test_many_readers_that_stand_still_share_a_bound(
    daemon: Daemon, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred connections that nobody reads, each within its own bound: the one furthest behind is cut."""
    monkeypatch.setattr(port_module, "SESSION_BUFFER", 300_000)

    async def fixed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * int(await reader.readline()))
        await reader.read()
        writer.close()

    async with server(sim, 4006, fixed):
        pool = await pool_to(daemon, sim, 4006)
        small, large = await pool.connect(20.0), await pool.connect(20.0)
        await small.write(b"100000\n")
        await until(lambda: small.received == 100_000)
        await large.write(b"250000\n")
        await until(lambda: cast(PortStream, large).number not in pool.sessions[0].streams)
        with pytest.raises(StreamReset, match="stopped reading"):
            await large.read()
        assert await small.read() == b"x" * 100_000
        small.close()


async def test_a_busy_session_is_given_a_companion_and_idle_ones_are_retired(
    make_daemon: MakeDaemon, sim: Simulator
) -> None:
    """The agent paces a session below 1 MiB/s: an upload must not slow the page down."""
    daemon = await make_daemon(sim, idle_after=0.2, forward=ForwardSettings(max_sessions=3))

    async def sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 20):
            pass
        writer.close()

    async with server(sim, 4006, sink):
        pool = await pool_to(daemon, sim, 4006)
        busy = await pool.connect(20.0)
        pumping = True

        async def pump() -> None:
            while pumping:
                await busy.write(b"x" * 32_768)
                await asyncio.sleep(0)

        work = beside(pump())
        await until(lambda: pool.sessions[0].seen.rate > BUSY_BYTES)
        other = await pool.connect(20.0)
        assert len(pool.sessions) == 2
        pumping = False
        await work
        busy.close()
        other.close()
        await until(lambda: not pool.sessions)
        assert not daemon.sessions()
        await until(lambda: all(one.is_over for one in sim.gateway.sessions.values()))


async def test_a_forward_keeps_one_session_warm(make_daemon: MakeDaemon, sim: Simulator) -> None:
    """The next connection is there in a round trip."""
    daemon = await make_daemon(sim, idle_after=0.05)
    pool = await pool_to(daemon, sim, ECHO)
    pool.kept = 1
    (await pool.connect(20.0)).close()
    await asyncio.sleep(0.2)
    assert len(pool.sessions) == 1


async def test_a_caller_who_gives_up_does_not_keep_the_session_for_ever(
    make_daemon: MakeDaemon, simulator: MakeSimulator
) -> None:
    """Ctrl-C in ``ssh`` while the box boots; later the session comes up, and nobody needs it."""
    sim = await simulator()
    await sim.fault("refuse-start", times=1)
    daemon = await make_daemon(sim, idle_after=0.05)
    pool = await pool_to(daemon, sim, ECHO)
    waiting = beside(pool.connect(20.0))
    await until(lambda: pool.sessions)
    waiting.cancel()
    await until(lambda: not pool.sessions, timeout=15)


@pytest.mark.parametrize("at_once", [1, 5])
async def test_where_only_the_ssh_document_is_allowed_it_is_used(
    daemon: Daemon, sim: Simulator, at_once: int
) -> None:
    """One connection a session then; all who asked at the same time get theirs."""
    del sim.documents["AWS-StartPortForwardingSession"]
    pool = await pool_to(daemon, sim, ECHO)

    async def one() -> None:
        stream = await pool.connect(20.0)
        await stream.write(b"over ssh's document")
        assert await read_all(stream, 19) == b"over ssh's document"
        stream.close()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(one())
    used = {one.task.document for one in sim.gateway.sessions.values()}
    assert used == {"AWS-StartSSHSession"}
    await until(lambda: not pool.sessions)


async def test_no_document_at_all_is_the_error(daemon: Daemon, sim: Simulator) -> None:
    """And not an endless loop."""
    del sim.documents["AWS-StartPortForwardingSession"]
    del sim.documents["AWS-StartSSHSession"]
    pool = await pool_to(daemon, sim, ECHO)
    with pytest.raises(DevboxError, match="AWS-StartSSHSession"):
        await asyncio.wait_for(pool.connect(20.0), 10)


async def test_an_agent_without_multiplexing_carries_one_connection_a_session(
    simulator: MakeSimulator, make_daemon: MakeDaemon
) -> None:
    """Agents of 2020 are still out there."""
    sim = await simulator(agent_version="2.3.672.0")
    daemon = await make_daemon(sim)
    pool = await pool_to(daemon, sim, ECHO)

    async def one(number: int) -> None:
        stream = await pool.connect(20.0)
        data = os.urandom(5000 + number)
        await stream.write(data)
        assert await read_all(stream, len(data)) == data
        stream.close()

    for number in range(2):
        await one(number)


@pytest.mark.parametrize("fault", ["rst", "fin", "close"])
async def test_streams_survive_lost_links(daemon: Daemon, sim: Simulator, fault: str) -> None:
    """An rsync in a train."""
    pool = await pool_to(daemon, sim, ECHO)
    stream = await pool.connect(20.0)
    data = os.urandom(1_500_000)
    sender = beside(stream.write(data))
    got = bytearray()
    for part in (0.1, 0.4, 0.8, 1.0):
        while len(got) < len(data) * part:
            got += await asyncio.wait_for(stream.read(), 20)
        await sim.fault(fault, session="last")
    await sender
    assert bytes(got) == data
    assert len(pool.sessions) == 1
    stream.close()


async def test_a_lost_session_resets_its_streams_and_the_next_connection_works(
    daemon: Daemon, sim: Simulator
) -> None:
    """The agent restarted: nothing can be carried over, and nothing may hang."""
    pool = await pool_to(daemon, sim, ECHO)
    streams = [await pool.connect(20.0) for _ in range(3)]
    await streams[0].write(b"up")
    assert await read_all(streams[0], 2) == b"up"
    await sim.fault("terminate", text="agent restarted")
    for stream in streams:
        with pytest.raises(StreamReset, match="agent restarted"):
            await asyncio.wait_for(stream.read(), 10)
        with pytest.raises(StreamReset):
            await stream.write(b"more")
        stream.close()
    stream = await pool.connect(20.0)
    await stream.write(b"again")
    assert await read_all(stream, 5) == b"again"
    stream.close()


async def test_a_box_that_is_off_is_an_error_within_the_wait(
    simulator: MakeSimulator, make_daemon: MakeDaemon
) -> None:
    """It says at once that somebody must start it: waiting would not help."""
    sim = await simulator(stopped=["api"])
    daemon = await make_daemon(sim)
    pool = await pool_to(daemon, sim, ECHO)
    with pytest.raises(BoxStopped):
        await asyncio.wait_for(pool.connect(60.0), 20)


async def test_hosts_behind_the_box_are_reached(daemon: Daemon, sim: Simulator) -> None:
    """A database that only the box can see."""

    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"db")
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(hello, "127.0.0.1", 0)
    try:
        number = listening.sockets[0].getsockname()[1]
        stream = await daemon.connect(await api(daemon, sim), number, "localhost", 20.0)
        assert await read_all(stream, 2) == b"db"
        stream.close()
    finally:
        listening.close()


async def test_closing_the_pool_ends_its_sessions_at_aws(daemon: Daemon, sim: Simulator) -> None:
    """And at once: the far end listens to our flag."""
    pool = await pool_to(daemon, sim, ECHO)
    await pool.connect(20.0)
    await pool.close()
    await until(lambda: not pool.sessions)
    await until(lambda: all(one.is_over for one in sim.gateway.sessions.values()))


async def test_a_port_that_is_warm_needs_no_new_session(daemon: Daemon, sim: Simulator) -> None:
    """Warm up ahead of the first connection."""
    pool = await pool_to(daemon, sim, ECHO)
    pool.warm()
    pool.warm()
    assert len(pool.sessions) == 1
    await pool.sessions[0].held.wait_ready()
    (await pool.connect(5.0)).close()
    assert len(pool.sessions) == 1
