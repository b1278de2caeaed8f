"""The three streams: framed for attach and exec, raw bytes or a descriptor for proxy."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct

import msgspec
import pytest

from devboxd.api import wire
from devboxd.api.stream import HIGH_WATER, STATUS_BEHIND, StreamTerminal
from devboxd.control.connect.attach import Attach
from devboxd.control.connect.execute import Execution
from devboxd.errors import Denied, WrongState
from devboxd.model.terminal import Detach, EndOfInput, Input, Leaving, Resize, Signal, StatusLine, Taken
from devboxd.simulator.world import Simulator
from tests.api.conftest import MakeServer, Server, Stream, box_id, request
from tests.control.conftest import MakeDaemon
from tests.kit.sim import MakeSimulator
from tests.kit.tasks import beside

TYPE = wire.StreamType


async def test_exec_carries_streams_input_credit_and_status(server: Server, sim: Simulator) -> None:
    """A pipeline over the wire."""
    stream = await server.upgrade(
        "exec", {"box": box_id(sim), "argv": ["sh", "-c", "cat; echo e >&2; exit 5"]}
    )
    data = os.urandom(100_000)
    for at in range(0, len(data), 8192):
        stream.send(TYPE.INPUT, data[at : at + 8192])
    stream.send(TYPE.END_OF_INPUT)
    end = await stream.end()
    assert end is not None
    assert (end.status, end.failure) == (5, None)
    assert (bytes(stream.out), bytes(stream.err)) == (data, b"e\n")
    assert stream.credit == len(data)
    assert await stream.reader.read() == b""
    stream.writer.close()


async def held(server: Server, **spec: object) -> tuple[Stream, wire.Forward]:
    """A stream that holds one forward, and that forward."""
    stream = await server.upgrade("forwards/hold", {"box": "api", "forwards": [{"port": 7, **spec}]})
    assert await stream.until(lambda one: one.answers) is None
    (answer,) = stream.answers
    (forward,) = msgspec.json.decode(answer, type=wire.ForwardList).forwards
    return stream, forward


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Denied("others may read the key"), "denied"),
        (ValueError("token=SECRET"), "internal"),
        (OSError(errno.EMFILE, "Too many open files"), "no-descriptors"),
    ],
)
@pytest.mark.parametrize("asked", ["exec", "attach"])
async def test_what_fails_once_a_stream_has_begun_is_told_in_it(
    server: Server,
    sim: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    code: str,
    asked: str,
) -> None:
    """A stream that only breaks off looks like a daemon that went away."""

    async def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Execution, "run", fail)
    monkeypatch.setattr(Attach, "run", fail)
    request: dict[str, object] = {"box": box_id(sim)}
    request |= {"argv": ["true"]} if asked == "exec" else {"mux": "none", "rows": 24, "columns": 80}
    stream = await server.upgrade(asked, request)
    end = await stream.end()
    assert end is not None
    assert end.failure is not None
    assert end.failure.code == code
    assert "SECRET" not in end.failure.message
    assert ("Traceback" in caplog.text) == (code != "denied")
    stream.writer.close()


@pytest.mark.parametrize("way", ["detach", "close", "half-close", "nonsense"])
async def test_held_forwards_go_with_their_stream(server: Server, way: str) -> None:
    """However the client goes; at once, without anything that asks again and again."""
    stream, forward = await held(server, local_port=0)
    port = int(forward.local.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    writer.close()
    match way:
        case "detach":
            stream.send(TYPE.DETACH)
            end = await stream.end()
            assert end == wire.StreamExit()
        case "close":
            stream.writer.transport.abort()
        case "half-close":
            stream.writer.write_eof()
            assert await stream.end() == wire.StreamExit()
        case "nonsense":
            stream.writer.write(b"\xff" * 64)
            await stream.end()
    async with asyncio.timeout(20):
        while server.daemon.forwards.list():
            await asyncio.sleep(0.01)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    stream.writer.close()


async def test_a_held_forward_that_somebody_keeps_stays(server: Server) -> None:
    """Asked for again without --foreground, it is not the first client's any more."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stream, forward = await held(server, local_port=port)
    body = {"box": "api", "forwards": [{"port": 7, "local_port": port}]}
    status, data = await server.ask("POST", "forwards", body)
    assert status == 200, data
    stream.send(TYPE.DETACH)
    await stream.end()
    stream.writer.close()
    assert [one.id for one in server.daemon.forwards.list()] == [forward.id]


async def test_a_stream_ends_when_its_forwards_were_removed(server: Server) -> None:
    """``forward rm`` in another window: the command in the foreground must not hold nothing for ever."""
    stream, forward = await held(server, local_port=0)
    assert (await server.ask("DELETE", f"forwards/{forward.id}"))[0] == 200
    end = await stream.end()
    assert end == wire.StreamExit(reason="the forwards were removed")
    stream.writer.close()


async def test_exec_with_a_terminal_is_an_attach_with_a_command(server: Server, sim: Simulator) -> None:
    """Folder and environment come along, whatever is in them."""
    body = {
        "box": box_id(sim),
        "argv": ["sh", "-c", 'test -t 1 && printf "%s|%s|" "$V" "$PWD"; exit 6'],
        "tty": True,
        "env": {"V": "a 'b' $c"},
        "cwd": "/usr",
    }
    stream = await server.upgrade("exec", body)
    end = await stream.end()
    assert end is not None
    assert end.status == 6
    assert b"a 'b' $c|/usr|" in stream.out
    stream.writer.close()


async def test_attach_types_resizes_and_detaches(server: Server, sim: Simulator) -> None:
    """Without a mux: the wire is the subject."""
    stream = await server.upgrade("attach", {"box": box_id(sim), "raw": True, "columns": 90, "rows": 33})
    stream.send(TYPE.INPUT, b"stty size\n")
    await stream.until(lambda s: b"33 90" in s.out)
    stream.send(TYPE.RESIZE, wire.WINDOW_SIZE.pack(120, 40))
    # Sizes are collected for a moment.
    stream.send(TYPE.INPUT, b"until stty size | grep '40 12''0'; do sleep 0.1; done\n")
    async with asyncio.timeout(20):
        await stream.until(lambda s: b"40 120" in s.out)
    stream.send(0x42, b"of a newer client")
    stream.send(TYPE.DETACH)
    end = await stream.end()
    assert end is not None
    assert end.failure is None
    stream.writer.close()
    await until_over(sim)


@pytest.mark.parametrize(
    "bad",
    [
        struct.pack(">BI", TYPE.INPUT, wire.STREAM_MAX + 1),
        struct.pack(">BI", TYPE.RESIZE, 3) + b"abc",
        struct.pack(">BI", TYPE.SIGNAL, 0),
        struct.pack(">BI", TYPE.CREDIT_OUTPUT, 1) + b"x",
        struct.pack(">BI", TYPE.OUTPUT, 1) + b"x",
        struct.pack(">BI", TYPE.INPUT, 100) + b"half",
    ],
)
async def test_a_client_that_breaks_the_protocol_is_hung_up_on_and_its_session_ended(
    server: Server, sim: Simulator, bad: bytes
) -> None:
    """Typed errors, no crash, nothing left open."""
    stream = await server.upgrade("attach", {"box": box_id(sim), "raw": True})
    await stream.until(lambda s: s.out)
    stream.writer.write(bad)
    if bad.endswith(b"half"):
        stream.writer.write_eof()
    await stream.end()
    stream.writer.close()
    await until_over(sim)
    assert (await server.ask("GET", "status"))[0] == 200


async def test_a_stream_whose_start_fails_ends_with_the_failure(server: Server, sim: Simulator) -> None:
    """After the 101 the error travels in the stream."""
    await sim.fault("refuse-start", code="AccessDeniedException", times=None)
    stream = await server.upgrade("exec", {"box": box_id(sim), "argv": ["true"]})
    end = await stream.end()
    assert end is not None
    assert end.failure is not None
    assert (end.failure.code, end.failure.exit_status) == ("denied", 6)
    stream.writer.close()


async def test_proxy_is_nothing_but_bytes(server: Server, sim: Simulator) -> None:
    """ssh speaks right behind the 101."""
    stream = await server.upgrade("proxy", {"box": box_id(sim), "port": 7})
    data = os.urandom(300_000)
    stream.writer.write(data)
    async with asyncio.timeout(30):
        assert await stream.reader.readexactly(len(data)) == data
    stream.writer.close()


async def test_proxy_passes_a_descriptor_that_outlives_the_request(server: Server, sim: Simulator) -> None:
    """OpenSSH's ProxyUseFdpass: no process of ours stays in the path."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        await loop.sock_connect(client, str(server.path))
        body = {"box": box_id(sim), "port": 7, "fd_pass": True}
        await loop.sock_sendall(
            client, request("POST", "proxy", body, headers="Connection: Upgrade\r\nUpgrade: devbox\r\n")
        )
        head, descriptors = b"", list[int]()
        async with asyncio.timeout(20):
            while not descriptors:
                try:
                    data, descriptors, _, _ = socket.recv_fds(client, 4096, 1)
                except BlockingIOError:
                    await asyncio.sleep(0.005)
                    continue
                assert data, head
                head += data
        assert head.startswith(b"HTTP/1.1 101 ")
    with socket.socket(fileno=descriptors[0]) as given:
        given.setblocking(False)
        await loop.sock_sendall(given, b"hello")
        async with asyncio.timeout(10):
            assert await loop.sock_recv(given, 100) == b"hello"


async def test_proxy_to_a_closed_port_is_a_cut_and_not_an_end(server: Server, sim: Simulator) -> None:
    """The far end tells only after the 101."""
    sim.map_port("api", 9, 1)
    stream = await server.upgrade("proxy", {"box": box_id(sim), "port": 9})
    async with asyncio.timeout(10):
        try:
            assert await stream.reader.read() == b""
        except ConnectionResetError:
            pass
    stream.writer.close()


async def test_proxy_over_a_bridge_says_what_came_of_it_before_it_switches(
    sim: Simulator, make_daemon: MakeDaemon, make_server: MakeServer
) -> None:
    """A refusal is an answer with a code and a sentence, and no stream that ends."""
    server = await make_server(
        await make_daemon(sim, bridge_secret=lambda name: name.encode().rjust(32)[:32])
    )
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    upgrade = "Connection: Upgrade\r\nUpgrade: devbox\r\n"
    reader, writer = await server.raw(request("POST", "proxy", {"box": "api", "port": port}, headers=upgrade))
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"\r\nDevbox-Answered: 1\r\n" in head
    writer.close()
    silent.close()
    status, body = await server.ask("POST", "proxy", {"box": "api", "port": port}, headers=upgrade)
    failure = msgspec.json.decode(body, type=wire.Failure)
    assert (status, failure.code) == (503, "connection-refused")
    assert failure.message == f"nothing listens on port {port} of api"
    assert server.daemon.clients.piped == 0


async def test_proxy_does_not_wait_for_ever_for_a_far_end(
    sim: Simulator, make_daemon: MakeDaemon, make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that drops what it gets answers after minutes: until then its client has the stream."""
    monkeypatch.setattr("devboxd.api.handlers.session.FAR_END", 0.0)
    server = await make_server(
        await make_daemon(sim, bridge_secret=lambda name: name.encode().rjust(32)[:32])
    )
    stream = await server.upgrade("proxy", {"box": box_id(sim), "port": 7})
    stream.writer.write(b"hello")
    async with asyncio.timeout(30):
        assert await stream.reader.readexactly(5) == b"hello"
    stream.writer.close()


async def test_a_client_that_leaves_while_its_box_is_waited_for_is_no_failure(
    simulator: MakeSimulator,
    make_daemon: MakeDaemon,
    make_server: MakeServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Ctrl-C in ssh while the box boots: no traceback, and no connection that nobody uses."""
    sim = await simulator()
    await sim.fault("refuse-start", times=1)
    server = await make_server(await make_daemon(sim))
    body = {"box": sim.box("api").id, "port": 7}
    reader, writer = await server.raw(
        request("POST", "proxy", body, headers="Connection: Upgrade\r\nUpgrade: devbox\r\n")
    )
    while not server.daemon.sessions():
        await asyncio.sleep(0.01)
    writer.transport.abort()
    del reader
    pool = next(iter(server.daemon.pools._pools.values()))
    async with asyncio.timeout(15):
        while not (pool.sessions and pool.sessions[0].held.channel is not None):
            await asyncio.sleep(0.01)
        await pool.sessions[0].held.wait_ready()
        while pool.sessions[0].streams or pool.sessions[0].idle_since == float("inf"):
            await asyncio.sleep(0.01)
    assert "Traceback" not in caplog.text
    assert "failed" not in caplog.text


async def test_stopping_the_daemon_ends_open_streams_and_their_sessions(
    sim: Simulator, make_daemon: MakeDaemon, make_server: MakeServer
) -> None:
    """A stream that ends without its last frame means: the daemon is gone, come back."""
    daemon = await make_daemon(sim)
    server = await make_server(daemon)
    shell = await server.upgrade("attach", {"box": box_id(sim), "raw": True})
    await shell.until(lambda s: s.out)
    pipe = await server.upgrade("proxy", {"box": box_id(sim), "port": 7})
    command = await server.upgrade("exec", {"box": box_id(sim), "argv": ["sh", "-c", "echo up; sleep 60"]})
    await command.until(lambda s: s.out)
    async with asyncio.timeout(8):
        await daemon.stop()
        assert await shell.end() is None
        await command.end()
        try:
            await pipe.reader.read()
        except ConnectionResetError:
            pass
    assert all(session.is_over for session in sim.gateway.sessions.values())
    for stream in (shell, pipe, command):
        stream.writer.close()


async def until_over(sim: Simulator) -> None:
    """Wait until AWS holds nothing of ours."""
    async with asyncio.timeout(20):
        while not all(session.is_over for session in sim.gateway.sessions.values()):
            await asyncio.sleep(0.01)


# The daemon's end alone ---------------------------------------------------------------------------------


async def pair() -> tuple[StreamTerminal, asyncio.StreamReader, asyncio.StreamWriter]:
    """A terminal and its client."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    return await StreamTerminal.over(ours), reader, writer


async def test_every_message_of_a_client_is_understood_however_it_is_cut() -> None:
    """One byte at a time."""
    terminal, _, writer = await pair()
    stream = b"".join(
        wire.STREAM_HEADER.pack(kind, len(payload)) + payload
        for kind, payload in [
            (TYPE.INPUT, b"typed"),
            (TYPE.INPUT, b""),
            (TYPE.RESIZE, wire.WINDOW_SIZE.pack(80, 24)),
            (0x7F, b"of a newer client"),
            (TYPE.SIGNAL, b"\x02"),
            (TYPE.CREDIT_OUTPUT, wire.CREDIT.pack(77)),
            (TYPE.END_OF_INPUT, b""),
            (TYPE.DETACH, b""),
        ]
    )
    for at in range(len(stream)):
        writer.write(stream[at : at + 1])
        await asyncio.sleep(0)
    expected = [Input(b"typed"), Resize(80, 24), Signal(2), Taken(77), EndOfInput(), Detach()]
    assert [await terminal.receive() for _ in expected] == expected
    writer.close()
    assert await terminal.receive() is None
    await terminal.close()


async def test_who_listens_to_a_client_for_a_while_takes_nothing_from_the_next() -> None:
    """Stopped after each byte: in a frame's head, and in its payload."""
    terminal, _, writer = await pair()
    stream = wire.STREAM_HEADER.pack(TYPE.INPUT, 5) + b"typed" + wire.STREAM_HEADER.pack(TYPE.DETACH, 0)
    found = []
    for at in range(len(stream)):
        writer.write(stream[at : at + 1])
        listening = beside(terminal.receive())
        for _ in range(20):
            await asyncio.sleep(0)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        if not listening.cancelled():
            found.append(listening.result())
    assert found == [Input(b"typed"), Detach()]
    writer.close()
    await terminal.close()


async def test_what_the_daemon_says_is_framed() -> None:
    """Long output in pieces, the same status once, the failure with its code."""
    terminal, reader, writer = await pair()
    terminal.status(StatusLine("online", since=1.5, retry_in=2.0, mux="tmux"))
    terminal.status(StatusLine("online", since=1.5, retry_in=2.0, mux="tmux"))
    terminal.credit(9)
    terminal.output(b"e", error=True)
    terminal.leave(Leaving(status=1, reason="why", error=WrongState("no", hint="h"), reattach=True))
    frames = []
    for _ in range(4):
        kind, size = wire.STREAM_HEADER.unpack(await reader.readexactly(5))
        frames.append((TYPE(kind), await reader.readexactly(size)))
    assert [kind for kind, _ in frames] == [TYPE.STATUS, TYPE.CREDIT, TYPE.ERROR_OUTPUT, TYPE.EXIT]
    status = msgspec.json.decode(frames[0][1], type=wire.StreamStatus)
    assert (status.since, status.retry_in, status.mux) == ("1970-01-01T00:00:01.500Z", 2.0, "tmux")
    end = msgspec.json.decode(frames[3][1], type=wire.StreamExit)
    assert end.failure is not None
    assert (end.failure.code, end.failure.exit_status, end.reattach) == ("wrong-state", 5, True)
    await terminal.close()
    writer.close()


@pytest.mark.parametrize("below", [1, 1000, HIGH_WATER, HIGH_WATER + 1])
async def test_waiting_for_a_slow_client_ends_at_any_mark_and_never_spins(below: int) -> None:
    """At exactly the high-water mark the transport is not paused, and nobody would wake us."""
    ours, client = socket.socketpair()
    ours.setblocking(False)
    client.setblocking(False)
    terminal = await StreamTerminal.over(ours)
    while terminal.backlog < HIGH_WATER:
        terminal.output(b"x" * (min(1000, HIGH_WATER - terminal.backlog - 5) if terminal.backlog else 4000))
    waiting = beside(terminal.drained(below))
    ticks = 0
    for _ in range(20):
        await asyncio.sleep(0.001)
        ticks += 1
    assert ticks == 20, "the loop was blocked"
    assert waiting.done() is (terminal.backlog < below)

    async def swallow() -> None:
        while await asyncio.get_running_loop().sock_recv(client, 65536):
            pass

    swallower = beside(swallow())
    await asyncio.wait_for(waiting, 10)
    assert terminal.backlog < below
    await terminal.close()
    await swallower
    client.close()


async def test_waiting_for_a_client_that_is_gone_ends() -> None:
    """Or its attach would hang for ever."""
    terminal, _, writer = await pair()
    while terminal.backlog < 2 * HIGH_WATER:
        terminal.output(b"x" * 10_000)
    waiting = beside(terminal.drained(1))
    await asyncio.sleep(0)
    writer.transport.abort()
    await asyncio.wait_for(waiting, 10)
    await terminal.close()


async def test_a_thousand_states_for_a_client_that_does_not_read_are_one() -> None:
    """A link that flaps all night, and a terminal that was stopped in the evening."""
    terminal, reader, writer = await pair()
    while terminal.backlog <= STATUS_BEHIND:
        terminal.output(b"x" * 100_000)
    before = terminal.backlog
    for number in range(1000):
        terminal.status(StatusLine("reconnecting", f"try {number}"))
    assert terminal.backlog == before
    seen: list[str] = []

    async def read() -> None:
        while True:
            kind, length = wire.STREAM_HEADER.unpack(await reader.readexactly(wire.STREAM_HEADER.size))
            payload = await reader.readexactly(length)
            if kind == TYPE.STATUS:
                seen.append(msgspec.json.decode(payload, type=wire.StreamStatus).text)
            elif kind == TYPE.EXIT:
                return

    reading = beside(read())
    await terminal.drained(HIGH_WATER)
    terminal.leave(Leaving())
    await asyncio.wait_for(reading, 10)
    assert seen == ["try 999"], "the latest, and before the end"
    await terminal.close()
    writer.close()


async def test_a_client_that_took_its_time_is_hung_up_on_in_order() -> None:
    """Its transport has ended by then: another word to it was logged as a failure of the request."""
    terminal, reader, writer = await pair()
    terminal.output(bytes(1 << 20))
    closing = beside(terminal.close(None))
    await asyncio.sleep(0)
    assert terminal.backlog
    assert len(await reader.read(-1)) > 1 << 20
    await closing
    terminal.abort()
    writer.close()
