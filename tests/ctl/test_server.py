"""The client against the real server code: HTTP as aiohttp speaks it, and streams that left it."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from devboxd.api import client, routes, wire
from devboxd.api import server as server_module
from devboxd.api.handlers.context import Context
from devboxd.api.handlers.table import HANDLERS
from devboxd.api.server import build, serving
from devboxd.api.stream import StreamTerminal
from devboxd.api.upgrade import Framed, take_over
from devboxd.aws.asker import ASKER
from devboxd.errors import BoxNotFound
from devboxd.model.terminal import EndOfInput, Input, Leaving, StatusLine
from devboxd.net.unix import send_fd
from tests.ctl.terminal import Tty

BIG = os.urandom(1 << 20)


async def echo(terminal: StreamTerminal) -> Leaving:
    terminal.status(StatusLine("online"))
    while not isinstance(message := await terminal.receive(), EndOfInput):
        if isinstance(message, Input):
            terminal.credit(len(message.data))
            terminal.output(message.data)
            await terminal.drained(65536)
    return Leaving(status=3)


async def execute(_: Context, asked: wire.ExecRequest) -> Framed:
    return Framed(echo, patience=None)


async def proxy(request: web.Request) -> web.StreamResponse:
    asked = msgspec.json.decode(await request.read(), type=wire.ProxyRequest)
    async with take_over(request) as own:
        if not asked.fd_pass:
            await asyncio.get_running_loop().sock_sendall(own, BIG)
            return web.Response()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            send_fd(own, theirs.fileno())
            ours.sendall(b"from the daemon")
    return web.Response()


async def events(_: Context, asked: wire.EventsRequest) -> AsyncIterator[wire.Event]:
    for number in range(3):
        yield wire.Event(number, "now", "x", "é" * 5000)


async def missing(_: Context, asked: wire.Target) -> wire.Box:
    raise BoxNotFound("no box of that name", hint="devboxctl ls")


async def boxes(_: Context, asked: wire.Account) -> wire.BoxList:
    return wire.BoxList([wire.Box("gpu", "i-1")])


@pytest.fixture
async def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    path = client.socket_path()
    os.makedirs(os.path.dirname(path), mode=0o700)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    for route, handler in (
        (routes.EXEC, execute),
        (routes.SHOW_BOX, missing),
        (routes.EVENTS, events),
        (routes.LIST_BOXES, boxes),
    ):
        monkeypatch.setitem(HANDLERS, route, handler)
    served = {name: route for name, route in routes.ROUTES.items() if route is not routes.PROXY}
    monkeypatch.setattr(
        server_module, "ROUTES", served
    )  # its handler is to be one of ours, without a far end
    context: Any = None
    application = build(context)
    application.router.add_post(routes.PROXY.path, proxy)
    async with serving(application, listener):
        yield


def waiting() -> None:
    """As a call to AWS does whose credentials a person has to get."""
    asker = ASKER.get()
    assert asker is not None
    asker.tell("waiting for the credential_process of profile bü\r\nX-Evil: 1")


async def test_what_an_answer_waits_for_is_said_on_a_terminal(
    server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, ahead of the answer; not to programs, and to no client that did not ask for it."""

    async def slow(_: Context, asked: wire.Account) -> wire.BoxList:
        waiting()
        return await boxes(_, asked)

    async def slow_command(_: Context, asked: wire.ExecRequest) -> Framed:
        waiting()
        return await execute(_, asked)

    said = "waiting for the credential_process of profile bü"
    with monkeypatch.context() as patch:
        patch.setitem(HANDLERS, routes.LIST_BOXES, slow)
        patch.setitem(HANDLERS, routes.EXEC, slow_command)
        context: Any = None
        path = client.socket_path()
        os.unlink(path)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        async with serving(build(context), listener):
            reader, writer = await asyncio.open_unix_connection(path)
            for headers, interim in (("", False), (f"{client.WAITS}: 1\r\n", True)):
                writer.write(f"GET /v1/boxes HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
                first = await reader.readuntil(b"\r\n\r\n")
                assert first.startswith(b"HTTP/1.1 102 " if interim else b"HTTP/1.1 200 ")
                if not interim:
                    length = first.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
                    await reader.readexactly(int(length))
            assert b"\r\nX-Evil" not in first
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            writer.close()
            status, out, told = await ctl("ls", "--json")
            assert (status, told) == (0, b""), "a program reads it"
            assert (await ctl("ls"))[2] == b"", "no terminal"
            shown = await asyncio.to_thread(on_terminal, ["ls"], said)
            assert "gpu" in shown, shown
            status, out, told = await ctl("exec", "gpu", "--", "cat", typed=BIG)
            assert (status, out) == (3, BIG)


def on_terminal(words: list[str], said: str) -> str:
    """What a command shows on a terminal; ``said`` is a line of it."""
    with Tty(words, {**os.environ, "NO_COLOR": "1"}, size=(120, 24)) as tty:
        assert tty.wait() == 0
    shown = tty.screen.decode()
    assert any(line.startswith(said) for line in shown.split("\r\n")), shown
    return shown


async def test_who_comes_too_late_hears_that_nobody_has_read_what_it_asked(home: Path) -> None:
    """So it can ask the next daemon (``client.lost``). Who is in is answered."""
    path = client.socket_path()
    os.makedirs(os.path.dirname(path), mode=0o700)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    context: Any = None
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as early, socket.socket(socket.AF_UNIX) as late:
        async with serving(build(context), listener) as let_in_no_more:
            for one in (early, late):
                one.setblocking(False)
            asked = client.request_bytes("GET", "/v1/nothing").replace(b"close", b"keep-alive")
            await loop.sock_connect(early, path)
            await loop.sock_sendall(early, asked)
            assert b" 404 " in await loop.sock_recv(early, 4096)
            await let_in_no_more()
            await loop.sock_sendall(early, asked)
            assert b" 404 " in await loop.sock_recv(early, 4096)
            await loop.sock_connect(late, path)
            await loop.sock_sendall(late, client.request_bytes("GET", "/v1/nothing"))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(loop.sock_recv(late, 4096), 0.3)
        with pytest.raises(ConnectionResetError):
            await loop.sock_recv(late, 4096)


async def ctl(
    *words: str, typed: bytes = b"", stdout: int = asyncio.subprocess.PIPE
) -> tuple[int, bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "devboxctl", *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(typed)
    assert process.returncode is not None
    return process.returncode, out or b"", err


async def test_a_framed_stream_carries_every_byte(server: None) -> None:
    assert await ctl("exec", "gpu", "--", "cat", typed=BIG) == (3, BIG, b"")


async def test_a_raw_stream_carries_every_byte(server: None) -> None:
    status, out, err = await ctl("proxy", "gpu", "22")
    assert (status, err) == (0, b"")
    assert out == BIG


async def test_a_descriptor_arrives(server: None) -> None:
    ssh, stdout = socket.socketpair()
    with ssh, stdout:
        assert await ctl("proxy", "--fdpass", "gpu", "22", stdout=stdout.fileno()) == (0, b"", b"")
        _, (descriptor,), _, _ = socket.recv_fds(ssh, 10, 4)
        assert stat.S_ISSOCK(os.fstat(descriptor).st_mode)
        with socket.socket(fileno=descriptor) as pipe:
            assert pipe.recv(100) == b"from the daemon"


async def test_lines_and_failures_arrive(server: None) -> None:
    status, out, _ = await ctl("events")
    assert status == 0
    assert out.decode().splitlines() == [f"now\tx\t{'é' * 5000}"] * 3
    assert await ctl("show", "nope") == (3, b"", b"error: no box of that name\nhint: devboxctl ls\n")
    assert await ctl("ls") == (0, b"gpu\tunknown\tunknown\t\t\ti-1\t0\t0\t\t\t\n", b"")
