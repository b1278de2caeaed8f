"""A connection that one owner lets go of and another takes up: no byte is lost, and none comes twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from devboxd.errors import ListenerClosed
from devboxd.model.loose import Loose
from devboxd.net.listen import Connection, Listeners, listen_tcp, listen_unix
from devboxd.net.loose import Tail


@contextlib.contextmanager
def pair(family: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of one connection; only the first is closed here."""
    if family == "unix":
        ours, theirs = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            theirs, _ = server.accept()
    ours.setblocking(False)
    with ours:
        yield ours, theirs


async def taken(theirs: socket.socket) -> Connection:
    return await Listeners().resumed(Loose(theirs.detach(), b"", b""))


async def received(ours: socket.socket, size: int) -> bytes:
    got = b""
    async with asyncio.timeout(20):
        while len(got) < size:
            part = await asyncio.get_running_loop().sock_recv(ours, 1 << 16)
            if not part:
                break
            got += part
    return got


@pytest.mark.parametrize("family", ["unix", "tcp"])
async def test_what_was_read_ahead_and_what_is_unsent_goes_along(family: str) -> None:
    """The peer stands still with a full buffer, and has said more than anybody took."""
    with pair(family) as (ours, theirs):
        connection = await taken(theirs)
        dice = random.Random(1)
        sent = b""
        while len(sent) < 50_000_000:
            part = dice.randbytes(30_000)
            sent += part
            writing = asyncio.gather(connection.write(part))
            await asyncio.wait({writing}, timeout=0.1)
            if not writing.done():
                break  # the peer takes no more
        assert not writing.done()
        ours.send(b"first ")
        await asyncio.sleep(0.05)  # it is read ahead
        ours.send(b"second")
        loose = connection.let_go()
        assert loose is not None
        assert loose.read in (b"first ", b"first second")
        assert loose.unsent
        assert sent.endswith(loose.unsent)
        with contextlib.suppress(OSError):
            await writing
        connection = await Listeners().resumed(loose)
        got = asyncio.gather(received(ours, len(sent)))
        assert await connection.read(6) == b"first "
        assert await connection.read(100) == b"second"
        assert (await got)[0] == sent
        ours.shutdown(socket.SHUT_WR)
        assert await connection.read(100) == b"", "its end is seen by the next owner"
        await connection.close()
        assert await received(ours, 1) == b"", "and an orderly end is one"


async def test_who_waits_for_it_sees_its_end() -> None:
    with pair("unix") as (ours, theirs):
        connection = await taken(theirs)
        reading = asyncio.gather(connection.read(10))
        await asyncio.sleep(0.01)
        loose = connection.let_go()
        assert loose is not None
        async with asyncio.timeout(5):
            assert list(await reading) == [b""]
        assert connection.let_go() is None, "it is somebody else's"
        with pytest.raises(OSError, match="closed"):
            await connection.write(b"x")
        ours.send(b"late")
        connection = await Listeners().resumed(loose)
        assert await connection.read(10) == b"late"
        connection.reset()


async def test_one_that_nobody_takes_up_is_reset() -> None:
    """What is cut in the middle must not look like what has ended."""
    with pair("tcp") as (ours, theirs):
        connection = await taken(theirs)
        loose = connection.let_go()
        assert loose is not None
        await asyncio.sleep(0.01)
        os.close(loose.descriptor)
        with pytest.raises(ConnectionResetError):
            await asyncio.get_running_loop().sock_recv(ours, 1)


async def test_one_that_is_over_cannot_be_had() -> None:
    with pair("tcp") as (_, theirs):
        connection = await taken(theirs)
        connection.reset()
        assert connection.let_go() is None


async def test_the_rest_of_one_that_is_being_closed_can_be_had() -> None:
    with pair("unix") as (ours, theirs):
        connection = await taken(theirs)
        data = random.Random(2).randbytes(5_000_000)
        writing = asyncio.gather(connection.write(data))
        await asyncio.sleep(0)
        closing = asyncio.gather(connection.close())
        await asyncio.sleep(0)
        loose = connection.let_go()
        assert loose is not None
        with contextlib.suppress(OSError):
            await writing
        await closing
        connection = await Listeners().resumed(loose)
        got = asyncio.gather(received(ours, len(data) + 1))
        await connection.close()
        assert list(await got) == [data]


async def test_a_descriptor_that_is_none_is_an_error() -> None:
    with open(os.devnull) as nothing, pytest.raises(OSError, match=r"[Ss]ocket|descriptor"):
        await Listeners().resumed(Loose(os.dup(nothing.fileno()), b"", b""))


def test_a_tail_holds_no_more_than_it_has_to() -> None:
    tail = Tail()
    for number in range(100):
        tail.wrote(bytes([number]) * 10, min(25, 10 * (number + 1)))
    assert tail.last(25) == bytes([97]) * 5 + bytes([98]) * 10 + bytes([99]) * 10
    assert sum(map(len, tail._parts)) == 30
    tail.wrote(b"x", 0)
    assert not tail._parts
    assert tail.last(0) == b""


async def test_a_listener_that_is_left_refuses_nobody_and_keeps_its_file(tmp_path: Path) -> None:
    for listener in (await listen_tcp(), listen_unix(tmp_path / "s")):
        address, family = listener.sockets[0].getsockname(), listener.sockets[0].family
        descriptors = listener.leave_to_another()
        assert listener.is_closed
        with socket.socket(family) as client:
            client.connect(address)
            for descriptor in descriptors:
                with socket.socket(fileno=descriptor) as again:
                    again.settimeout(5)
                    again.accept()[0].close()


async def test_a_listener_that_is_paused_gives_out_what_it_accepted_and_nothing_more(tmp_path: Path) -> None:
    """Who connects before is served here, who connects later by whoever the sockets are left to."""
    for listener in (await listen_tcp(), listen_unix(tmp_path / "p")):
        address, family = listener.sockets[0].getsockname(), listener.sockets[0].family
        with socket.socket(family) as early, socket.socket(family) as late:
            early.connect(address)
            accepting = asyncio.ensure_future(listener.accept())  # noqa: TID251 - awaited below
            await asyncio.sleep(0)
            assert not listener.pause(), "it is in the middle of it"
            late.connect(address)
            connection = await accepting
            assert listener.pause()
            connection.reset()
            waiting = asyncio.ensure_future(listener.accept())  # noqa: TID251 - awaited below
            await asyncio.sleep(0.05)
            assert not waiting.done()
            descriptors = listener.leave_to_another()
            with pytest.raises(ListenerClosed):
                await waiting
            for descriptor in descriptors:
                with socket.socket(fileno=descriptor) as again:
                    again.settimeout(5)
                    again.accept()[0].close()
