"""What listens on every simulated box: a web page on port 80 and an echo on port 7."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Final

_TIMEOUT: Final = 30.0


class BoxServices:
    """Two small servers on loopback ports of this machine; the agent maps the box's ports to them."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._folder = folder
        self._servers: list[asyncio.Server] = []
        self._open: set[asyncio.StreamWriter] = set()
        self._running: set[asyncio.Task[None]] = set()

    async def start(self) -> dict[int, int]:
        """Listen; returns port of the box to port of this machine."""
        ports = {}
        for port, handler in ((80, self._web), (7, self._echo)):
            server = await asyncio.start_server(handler, "127.0.0.1", 0)
            self._servers.append(server)
            ports[port] = int(server.sockets[0].getsockname()[1])
        return ports

    async def close(self) -> None:
        """Stop, dropping whoever is connected."""
        for server in self._servers:
            server.close()
        for writer in list(self._open):
            writer.transport.abort()
        if self._running:
            await asyncio.wait(self._running)

    async def _web(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._enter(writer)
        try:
            async with asyncio.timeout(_TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode("latin-1") if head.count(b" ") >= 2 else "/"
            text = f"hello from box {self._name}\npath {path}\ndisk {self._folder}\n".encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
                b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(text), text)
            )
            await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            await self._hang_up(writer)

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._enter(writer)
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            await self._hang_up(writer)

    def _enter(self, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        if (task := asyncio.current_task()) is not None:
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _hang_up(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        self._open.discard(writer)
