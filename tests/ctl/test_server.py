"""The client against the real server code: HTTP as aiohttp speaks it, and streams that left it."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from devboxd.api import client, wire
from devboxd.api.server import answer, build, serving, switch, take_over
from devboxd.api.stream import StreamTerminal
from devboxd.control.connect.terminal import EndOfInput, Input, Leaving, StatusLine
from devboxd.errors import BoxNotFound
from devboxd.net.unix import send_fd

BIG = os.urandom(1 << 20)


async def echo(request: web.Request) -> web.StreamResponse:
    async with take_over(request) as own:
        await switch(own)
        terminal = await StreamTerminal.over(own.dup())
        terminal.status(StatusLine("online"))
        while not isinstance(message := await terminal.receive(), EndOfInput):
            if isinstance(message, Input):
                terminal.credit(len(message.data))
                terminal.output(message.data)
                await terminal.drained(65536)
        terminal.leave(Leaving(status=3))
        await terminal.close()
    return web.Response()


async def proxy(request: web.Request) -> web.StreamResponse:
    asked = msgspec.json.decode(await request.read(), type=wire.ProxyRequest)
    async with take_over(request) as own:
        await switch(own)
        if not asked.fd_pass:
            await asyncio.get_running_loop().sock_sendall(own, BIG)
            return web.Response()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            send_fd(own, theirs.fileno())
            ours.sendall(b"from the daemon")
    return web.Response()


async def events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for number in range(3):
        await response.write(msgspec.json.encode(wire.Event(number, "now", "x", "é" * 5000)) + b"\n")
    return response


async def missing(request: web.Request) -> web.StreamResponse:
    raise BoxNotFound("no box of that name", hint="devboxctl ls")


async def boxes(_: web.Request) -> web.StreamResponse:
    return answer(wire.BoxList([wire.Box("gpu", "i-1")]))


@pytest.fixture
async def server(home: Path) -> AsyncIterator[None]:
    path = client.socket_path()
    os.makedirs(os.path.dirname(path), mode=0o700)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    routes = [
        web.post("/v1/exec", echo),
        web.post("/v1/proxy", proxy),
        web.post("/v1/attach", missing),
        web.get("/v1/events", events),
        web.get("/v1/boxes", boxes),
    ]
    async with serving(build(routes), listener):
        yield


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
    assert await ctl("attach", "nope") == (3, b"", b"error: no box of that name\nhint: devboxctl ls\n")
    assert await ctl("ls") == (0, b"gpu\tunknown\tunknown\t\t\ti-1\t0\t0\n", b"")
