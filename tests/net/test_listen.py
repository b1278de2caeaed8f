"""Local listeners of forwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import stat
import struct
from pathlib import Path

import pytest

from devboxd.errors import BadRequest, ListenerClosed, PortDenied, PortInUse
from devboxd.net import listen, room
from devboxd.net.listen import Connection, Listener, Listeners, adopt, expanded, listen_tcp, listen_unix
from tests.kit.tasks import beside


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short path: socket paths have a limit of about a hundred bytes."""
    return tmp_path_factory.mktemp("s")


async def pair(listener: Listener) -> tuple[Connection, asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection as seen from both ends."""
    if listener.path is not None:
        reader, writer = await asyncio.open_unix_connection(listener.path)
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    return await listener.accept(), reader, writer


async def close(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_connections_that_come_before_anybody_accepts_wait(folder: Path) -> None:
    """While a session is being resumed, a new connection waits instead of being refused."""
    listener = await listen_tcp()
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(b"hello")
    connection = await listener.accept()
    assert await connection.read() == b"hello"
    await connection.write(b"world")
    assert await reader.read(5) == b"world"
    await connection.close()
    await close(writer)
    listener.close()


async def test_each_direction_can_end_alone() -> None:
    listener = await listen_tcp()
    connection, reader, writer = await pair(listener)
    connection.finish()
    assert await reader.read() == b""
    writer.write(b"still here")
    assert await connection.read() == b"still here"
    writer.write_eof()
    assert await connection.read() == b""
    connection.finish()  # twice is no error
    await connection.close()
    await close(writer)
    listener.close()


async def test_a_reset_is_seen_as_an_error_and_not_as_an_end() -> None:
    """A download that is cut must not look complete."""
    listener = await listen_tcp()
    connection, reader, writer = await pair(listener)
    connection.reset()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    with pytest.raises(ConnectionResetError):
        await connection.write(b"x")
    await close(writer)
    listener.close()


async def test_a_writer_waits_for_a_slow_peer() -> None:
    listener = await listen_tcp()
    connection, _, writer = await pair(listener)

    async def flood() -> None:
        while True:
            await connection.write(bytes(65536))

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(flood(), 0.1)
    connection.reset()
    await close(writer)
    listener.close()


async def test_a_taken_port_is_named_with_a_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortInUse, match=str(port)) as refused:
            await listen_tcp("127.0.0.1", port)
        assert "0 for any" in (refused.value.hint or "")


async def test_a_port_is_free_again_at_once_after_its_connections_were_closed() -> None:
    listener = await listen_tcp()
    port = listener.port
    connection, _, writer = await pair(listener)
    await connection.close()  # closing first leaves TIME_WAIT on our side
    await close(writer)
    listener.close()
    (await listen_tcp("127.0.0.1", port or 0)).close()


async def test_localhost_is_both_families_on_one_port() -> None:
    """Browsers try ::1 first; whoever forwards only IPv4 gives them a pause or the wrong server."""
    listener = await listen_tcp("localhost")
    if len(listener.sockets) == 1:
        pytest.skip("no IPv6 here")
    assert {one.getsockname()[1] for one in listener.sockets} == {listener.port}
    for address in ("127.0.0.1", "::1"):
        _, writer = await asyncio.open_connection(address, listener.port)
        connection = await listener.accept()
        await connection.close()
        await close(writer)
    listener.close()


async def test_loopback_is_the_default_and_other_addresses_must_be_asked_for() -> None:
    listener = await listen_tcp()
    assert listener.address == f"127.0.0.1:{listener.port}"
    listener.close()
    everywhere = await listen_tcp("*")
    assert everywhere.address.startswith("0.0.0.0:")
    everywhere.close()


@pytest.mark.parametrize(
    "bind",
    [
        "203.0.113.1",
        "name.invalid",
        "300.1.1.1",
        "..",
        "a..b",
        "a" * 64,
        "é" * 70,
        "a\0b",
        "[",
        "]",
        "[]",
        "[[]]",
        "[127.0.0.1",
        " ",
        "xn--\udcff",
    ],
)
async def test_an_address_that_is_not_ours_is_a_bad_request(bind: str) -> None:
    with pytest.raises(BadRequest):
        await listen_tcp(bind)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may bind every port")
async def test_a_port_of_root_is_denied_with_the_reason() -> None:
    with pytest.raises(PortDenied, match="80"):
        await listen_tcp("127.0.0.1", 80)


async def test_closing_ends_an_accept_that_waits() -> None:
    listener = await listen_tcp()

    async def wait() -> None:
        with pytest.raises(ListenerClosed):
            await listener.accept()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(wait())
        await asyncio.sleep(0)
        listener.close()
    with pytest.raises(ListenerClosed):
        await listener.accept()
    listener.close()


async def test_an_accept_that_is_cancelled_loses_no_connection() -> None:
    listener = await listen_tcp()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(listener.accept(), 0.01)
    connection, _, writer = await pair(listener)
    await connection.close()
    await close(writer)
    listener.close()


async def test_a_process_without_descriptors_waits_instead_of_spinning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "FIRST_PAUSE", 0.01)
    listener = await listen_tcp()
    full = [OSError(24, "Too many open files")] * 3
    real = listener.sockets[0]

    class Full:
        def accept(self) -> tuple[socket.socket, object]:
            if full:
                raise full.pop()
            return real.accept()

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

    listener.sockets = (Full(),)  # type: ignore[assignment]
    connection, _, writer = await pair(listener)
    assert not full
    await connection.close()
    await close(writer)
    listener.close()


async def test_a_connection_that_was_reset_while_it_waited_does_not_end_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On macOS, options of a socket whose peer is gone cannot be set."""
    listener = await listen_tcp()
    bad = [OSError(22, "Invalid argument")]
    real, seen = listen._connection, []

    async def broken_once(accepted: socket.socket, address: object) -> Connection:
        seen.append(accepted)
        if bad:
            raise bad.pop()
        return await real(accepted, address)

    monkeypatch.setattr(listen, "_connection", broken_once)
    _, gone = await asyncio.open_connection("127.0.0.1", listener.port)
    connection, _, writer = await pair(listener)
    assert len(seen) == 2
    assert seen[0].fileno() == -1
    await connection.close()
    await close(writer, gone)
    listener.close()


async def test_a_unix_socket_is_for_this_user_only(folder: Path) -> None:
    listener = listen_unix(folder / "pg")
    assert stat.S_IMODE((folder / "pg").stat().st_mode) == 0o600
    connection, reader, writer = await pair(listener)
    await connection.write(b"x")
    assert await reader.read(1) == b"x"
    await connection.close()
    await close(writer)
    listener.close()
    assert not (folder / "pg").exists()


async def test_a_unix_socket_with_too_many_waiting_is_waited_for(folder: Path) -> None:
    """The loop takes its refusal for a connection that comes, and is broken."""
    path = str(folder / "small")
    listeners = Listeners()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(0)
        server.setblocking(False)
        dialing = [beside(listeners.connected(path)) for _ in range(4)]
        await asyncio.wait(dialing, return_when=asyncio.FIRST_COMPLETED)
        left = dialing.pop(next(at for at, one in enumerate(dialing) if not one.done()))
        left.cancel()
        accepted: list[socket.socket] = []
        while len(accepted) < len(dialing):
            one, _ = await asyncio.get_running_loop().sock_accept(server)
            accepted.append(one)
        for one in accepted:
            one.send(b"hello")
        for dialled in [await one for one in dialing]:
            assert await dialled.read() == b"hello"
            await dialled.close()
        for one in accepted:
            one.close()
    with pytest.raises(ConnectionRefusedError):
        await listeners.connected(path)


async def test_a_stale_socket_is_replaced_and_a_live_one_is_not(folder: Path) -> None:
    path = folder / "pg"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    first = listen_unix(path)
    with pytest.raises(PortInUse):
        listen_unix(path)
    first.close()


async def test_a_file_that_is_no_socket_is_never_removed(folder: Path) -> None:
    (folder / "notes").write_text("keep")
    with pytest.raises(BadRequest):
        listen_unix(folder / "notes")
    assert (folder / "notes").read_text() == "keep"


async def test_a_socket_that_somebody_put_in_our_place_stays(folder: Path) -> None:
    path = folder / "pg"
    first = listen_unix(path)
    path.unlink()
    second = listen_unix(path)
    first.close()
    assert path.exists()
    second.close()


async def test_bad_paths_are_told_apart(folder: Path) -> None:
    with pytest.raises(BadRequest, match="too long"):
        listen_unix(folder / ("x" * 110))
    with pytest.raises(BadRequest, match="does not exist"):
        listen_unix(folder / "none" / "pg")


async def test_an_inherited_listener_goes_on_accepting(folder: Path) -> None:
    """The descriptor store keeps forwards bound while the daemon restarts."""
    before = await listen_tcp()
    after = adopt(before.sockets[0].dup())
    before.close()
    connection, _, writer = await pair(after)
    await connection.close()
    await close(writer)
    after.close()
    unix = listen_unix(folder / "pg")
    assert adopt(unix.sockets[0]).path == folder / "pg"
    unix.close()


@pytest.mark.parametrize(
    "path", ["~nobody-here/x", "relative", "../x", "/tmp/a\0b", "/tmp/" + "é" * 60, "/nowhere/x"]
)
def test_a_path_that_cannot_be_is_refused(path: str) -> None:
    """Also where it comes out of a journal: it must not end the daemon."""
    with pytest.raises(BadRequest):
        listen_unix(expanded(path))


async def test_what_was_written_arrives_before_a_cut_does() -> None:
    """A reset throws away what is on its way: a client that reads slowly would lose the end of an answer."""
    listener = await listen_tcp()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect(("127.0.0.1", listener.port))
        connection = await listener.accept()
        answer = os.urandom(3_000_000)

        def read() -> bytes:
            got = bytearray()
            with contextlib.suppress(ConnectionResetError):
                while part := client.recv(20_000):
                    got += part
            return bytes(got)

        async def cut() -> None:
            await connection.write(answer)
            connection.finish()
            await connection.cut()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(cut())
            await asyncio.sleep(0.05)
            assert await asyncio.to_thread(read) == answer
        poll = select.poll()
        poll.register(client, 0)
        assert poll.poll(20_000)[0][1] & select.POLLERR, "a reset, and not only an end"
    listener.close()


async def test_a_client_that_is_gone_is_not_waited_for_with_a_cut() -> None:
    listener = await listen_tcp()
    client = socket.create_connection(("127.0.0.1", listener.port or 0))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection = await listener.accept()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(0.2):
            while True:
                await connection.write(bytes(1 << 20))
    client.close()
    async with asyncio.timeout(20):
        await connection.cut()
    listener.close()
