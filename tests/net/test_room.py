"""A process with few descriptors: who waits, who is served, and how it comes back."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from devboxd.net import room
from devboxd.net.listen import bind_unix, listen_tcp
from devboxd.net.room import Room, Spare, accept_all, limit, raise_limit
from tests.kit.tasks import beside


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A limit that is a little above what is open here."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/dev/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 40, before[1]))
    monkeypatch.setattr(room, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(room, "LAST_PAUSE", 0.02)
    yield highest + 40
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def fill() -> ExitStack:
    """Open descriptors until there are none."""
    held = ExitStack()
    try:
        while True:
            held.callback(os.close, os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return held


def test_the_soft_limit_is_raised_to_the_hard_one(few: int) -> None:
    """Many systems start everybody with 1,024 for the sake of select(2)."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert raise_limit() == (room.MOST if hard == resource.RLIM_INFINITY else min(hard, room.MOST))
    assert raise_limit() == limit()


@pytest.mark.parametrize("refused", [ValueError, OSError])
def test_a_limit_that_cannot_be_raised_stays(
    few: int, monkeypatch: pytest.MonkeyPatch, refused: type[Exception]
) -> None:
    def refuse(*_: object) -> None:
        raise refused

    with monkeypatch.context() as patch:
        patch.setattr(resource, "setrlimit", refuse)
        assert raise_limit() == few


async def test_who_runs_short_is_told_once_and_again_when_there_has_been_room_for_a_while(
    few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each connection that waits would fill the log."""
    monkeypatch.setattr(room, "CALM", 1.0)
    told: list[bool] = []
    one = Room()
    one.on_change = told.append
    await one.wait()
    for _ in range(2):
        held = fill()
        one.ran_out()
        one.ran_out()
        waiting = beside(one.wait())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        held.close()
        async with asyncio.timeout(5):
            await waiting
        assert told == [True], "not yet: it may be short again at once"
    async with asyncio.timeout(5):
        while told == [True]:
            await asyncio.sleep(0.01)
    assert told == [True, False]


async def test_forwards_stop_letting_in_before_all_is_taken(few: int) -> None:
    """Sessions have to be opened for those that are in, and somebody may ask for the status."""
    listener = await listen_tcp()
    listener._room = Room()
    connections, clients = [], []
    try:
        for _ in range(few):
            if listener._room.is_short:
                break
            client = socket.socket()
            client.connect(("127.0.0.1", listener.port))
            clients.append(client)
            connections.append(await listener.accept())
        assert len(connections) > 2
        free = fill()
        free.close()
        os.close(os.open(os.devnull, os.O_RDONLY))  # there is some
        late = socket.socket()
        late.connect(("127.0.0.1", listener.port))
        clients.append(late)
        accepting = beside(listener.accept())
        await asyncio.sleep(0.1)
        assert not accepting.done(), "it waits in the system's queue"
        for client, connection in zip(clients[:-1], connections, strict=True):
            client.close()
            await connection.close()
        async with asyncio.timeout(5):
            await (await accepting).close()
    finally:
        for client in clients:
            client.close()
        listener.close()


async def test_the_control_socket_serves_one_at_a_time_without_descriptors(few: int, tmp_path: Path) -> None:
    """The status says what is wrong then, and nothing spins."""
    path = tmp_path / "s"
    listener = bind_unix(path)
    listener.setblocking(False)
    served: list[socket.socket] = []

    async def take(accepted: socket.socket) -> None:
        served.append(accepted)

    one = Room()
    accepting = beside(accept_all(listener, take, lambda: None, one))
    clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    await asyncio.sleep(0)
    held = fill()
    try:
        for client in clients:
            client.connect(str(path))
        before = os.times()
        await asyncio.sleep(0.5)
        used = os.times()
        assert len(served) == 1
        assert one.is_short
        assert (used.user + used.system) - (before.user + before.system) < 0.2, "it spins"
        served[0].close()  # as soon as one is done, the next one is served
        async with asyncio.timeout(5):
            while len(served) < 2:
                await asyncio.sleep(0.01)
        held.close()
        async with asyncio.timeout(5):
            while len(served) < 3:
                await asyncio.sleep(0.01)
    finally:
        held.close()
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)
        for each in (*clients, *served, listener):
            each.close()


async def test_a_spare_descriptor_is_taken_again_when_there_is_one(few: int) -> None:
    """Until then the next client waits."""
    with socket.socket() as listener, socket.socket() as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client.connect(listener.getsockname())
        held = fill()
        spare = Spare()
        assert spare.accept(listener) is None
        held.close()
        spare.regain()
        held = fill()
        accepted = spare.accept(listener)
        assert accepted is not None
        spare.regain()
        assert spare.accept(listener) is None
        accepted.close()
        held.close()
