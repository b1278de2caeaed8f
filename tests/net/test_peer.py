"""Whether a local client is still there: half-closed is not gone."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys

import pytest

from devboxd.net import peer
from devboxd.net.listen import listen_tcp
from devboxd.net.peer import has_left

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks sock_diag(7)")


def pair(family: int) -> tuple[socket.socket, socket.socket]:
    """A client, and our end of its connection."""
    if family == socket.AF_UNIX:
        ours, client = socket.socketpair()
        return client, ours
    with socket.socket(family) as listener:
        listener.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        listener.listen()
        client = socket.socket(family)
        client.connect(listener.getsockname())
        return client, listener.accept()[0]


@linux
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_a_client_that_only_stopped_sending_is_there(family: int) -> None:
    """``printf request | nc -N`` waits for its answer."""
    client, ours = pair(family)
    with client, ours:
        assert has_left(ours) is False
        client.shutdown(socket.SHUT_WR)
        assert has_left(ours) is False
        client.close()
        assert has_left(ours) is True


@linux
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_client_that_reset_is_gone(family: int) -> None:
    client, ours = pair(family)
    with ours:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert has_left(ours) is True


def test_where_it_cannot_be_told_nobody_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that does not say, or a process without a descriptor for the question."""
    client, ours = pair(socket.AF_INET)
    with client, ours:
        client.shutdown(socket.SHUT_WR)

        def full(*_: object) -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(peer, "_is_orphan", full)
        assert has_left(ours) is None
        monkeypatch.setattr(sys, "platform", "darwin")
        assert has_left(ours) is None


@linux
async def test_a_connection_has_left_when_everything_was_read() -> None:
    """What it sent before it went is still to be carried."""
    listener = await listen_tcp()
    _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    connection = await listener.accept()
    writer.write(b"last words")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.05)
    assert not connection.has_left()
    assert await connection.read() == b"last words"
    assert await connection.read() == b""
    assert connection.has_left()
    await connection.close()
    listener.close()
