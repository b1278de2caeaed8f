"""A message gateway that does as it is told, and a CONNECT proxy. Both on loopback, both small."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

Serve = Callable[[web.Request, web.WebSocketResponse], Awaitable[None]]


class Gateway:
    """Where it listens, and what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[web.Request] = []


@contextlib.asynccontextmanager
async def gateway(
    serve: Serve, *, tls: ssl.SSLContext | None = None, refuse: int | None = None, **headers: str
) -> AsyncIterator[Gateway]:
    """Run ``serve`` for each websocket, or refuse every upgrade with a status."""
    found = Gateway()

    async def answer(request: web.Request) -> web.StreamResponse:
        found.requests.append(request)
        if refuse is not None:
            return web.Response(status=refuse, headers=headers)
        upgraded = web.WebSocketResponse()
        await upgraded.prepare(request)
        await serve(request, upgraded)
        return upgraded

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listening, ssl_context=tls).start()
    found.url = f"{'wss' if tls else 'ws'}://127.0.0.1:{listening.getsockname()[1]}/v1/data-channel/s-1"
    try:
        yield found
    finally:
        await runner.cleanup()


async def echo(request: web.Request, upgraded: web.WebSocketResponse) -> None:
    """Send everything back."""
    async for message in upgraded:
        if isinstance(message.data, str):
            await upgraded.send_str(message.data)
        else:
            await upgraded.send_bytes(message.data)


def reset(request: web.Request) -> None:
    """Break a connection with RST."""
    assert request.transport is not None
    raw = request.transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()


class Proxy:
    """Where it listens, and which ways it was asked for."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[str] = []


@contextlib.asynccontextmanager
async def connect_proxy(credentials: str | None = None) -> AsyncIterator[Proxy]:
    """An HTTP CONNECT proxy; with ``credentials`` (``user:password``) it wants those."""
    found = Proxy()
    wanted = credentials and "Basic " + base64.b64encode(credentials.encode()).decode()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        found.asked.append(head[0].split()[1])
        if wanted and f"Proxy-Authorization: {wanted}" not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        host, _, port = found.asked[-1].rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(copy(reader, far_writer))
            tasks.create_task(copy(far_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
