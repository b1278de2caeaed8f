"""Programs that benchmarks compare with, or talk to: each in a process of its own.

``python -m tests.bench.peers NAME ARGUMENTS…`` prints one line with the ports it listens on, and runs until
its standard input is closed.
"""

from __future__ import annotations

import asyncio
import os
import pty
import select
import signal
import socket
import sys
import threading
import time
import tty
from collections.abc import Callable

from aiohttp import WSMsgType, web

from devboxd.ssm import frame
from devboxd.ssm.payload import PayloadType
from tests.kit.tasks import beside

CHUNK = 64 << 10  # bytes; what devboxd.control.connect.splice reads at once
GREETING = b"SSH-2.0-bench\r\n"
FRAME_ID = bytes(range(16))


# A target: what forwards lead to ------------------------------------------------------------------------


def target() -> None:
    """Serve ``down N``, ``up N`` and ``echo`` on one port, and a greeting on another."""
    asked, greeting = (_listen() for _ in range(2))
    threading.Thread(target=_accept, args=(asked, _answer), daemon=True).start()
    threading.Thread(target=_accept, args=(greeting, _greet), daemon=True).start()
    _up(asked.getsockname()[1], greeting.getsockname()[1])
    sys.stdin.read()


def _listen() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=512)


def _accept(listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    with connection:
        try:
            line = b""
            while not line.endswith(b"\n"):
                line += connection.recv(1)
            word, _, number = line.decode().strip().partition(" ")
            if word == "down":
                data = bytes(CHUNK)
                for left in range(int(number), 0, -CHUNK):
                    connection.sendall(data[: min(left, CHUNK)])
                connection.recv(1)  # the client has it all
            elif word == "up":
                left = int(number)
                while left:
                    left -= len(connection.recv(min(left, 256 << 10)))
                connection.sendall(b"k")
                connection.recv(1)
            else:
                while data := connection.recv(CHUNK):
                    connection.sendall(data)
        except OSError:
            pass


def _greet(connection: socket.socket) -> None:
    with connection:
        try:
            connection.sendall(GREETING)
            while connection.recv(CHUNK):
                pass
        except OSError:
            pass


# A relay: the least that a forward written in asyncio could do ------------------------------------------


def relay(port: str) -> None:
    """Relay TCP connections to a local port with asyncio's streams."""
    asyncio.run(_relay(int(port)))


async def _relay(port: int) -> None:
    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port, limit=CHUNK)
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=CHUNK, backlog=512)
    _up(server.sockets[0].getsockname()[1])
    await asyncio.to_thread(sys.stdin.read)


# A gateway: frames as fast as the websocket library takes them ------------------------------------------


def gateway() -> None:
    """Be the far end of plain sessions: ``/down`` sends frames and counts answers, ``/up`` acknowledges."""
    asyncio.run(_gateway())


async def _gateway() -> None:
    async def opened(request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse(autoping=True, max_msg_size=0, compress=False)
        await websocket.prepare(request)
        await websocket.receive()  # the open message
        await websocket.send_bytes(
            frame.encode(frame.OUTPUT, 0, b"$ ", PayloadType.OUTPUT, frame.SYN, FRAME_ID, 1)
        )
        await websocket.receive()  # its acknowledgement
        return websocket

    async def down(request: web.Request) -> web.WebSocketResponse:
        count, size = int(request.query["count"]), int(request.query["size"])
        data = bytes(size)
        frames = [
            frame.encode(frame.OUTPUT, number, data, PayloadType.OUTPUT, 0, FRAME_ID, 1)
            for number in range(1, count + 1)
        ]
        websocket = await opened(request)

        async def send() -> None:
            for one in frames:
                await websocket.send_bytes(one)

        began = time.perf_counter()
        sending = beside(send())
        for _ in range(count):
            assert (await websocket.receive()).type is WSMsgType.BINARY
        rates.append(count / (time.perf_counter() - began))
        await sending
        await websocket.close()
        return websocket

    async def up(request: web.Request) -> web.WebSocketResponse:
        count = int(request.query["count"])
        websocket = await opened(request)
        began, number = 0.0, 0
        while number < count:
            message = await websocket.receive()
            began = began or time.perf_counter()
            identity = message.data[64:80]  # the peer's work: find whom to acknowledge, and do it
            sequence = int.from_bytes(message.data[48:56], "big")
            assert sequence <= number
            number += sequence == number  # else it was sent again: this machine is slow
            await websocket.send_bytes(frame.encode_acknowledge(sequence, identity, FRAME_ID, 1, frame.INPUT))
        rates.append(count / (time.perf_counter() - began))
        await websocket.receive()
        return websocket

    async def last(request: web.Request) -> web.Response:
        while not rates:
            await asyncio.sleep(0.001)
        return web.json_response(rates.pop())

    rates: list[float] = []
    application = web.Application()
    application.add_routes([web.get("/down", down), web.get("/up", up), web.get("/last", last)])
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    _up(runner.addresses[0][1])
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


# A terminal in a terminal -------------------------------------------------------------------------------


def terminal(*argv: str) -> None:
    """Run a program on a new terminal and relay this one to it: what ``script`` or ``ssh localhost`` do."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    child, master = pty.fork()
    if child == 0:
        os.execvp(argv[0], argv)
    if os.isatty(0):
        tty.setraw(0)
    while True:
        ready, _, _ = select.select([0, master], [], [])
        try:
            for source, sink in ((0, master), (master, 1)):
                if source in ready:
                    data = os.read(source, CHUNK)
                    if not data:
                        return
                    os.write(sink, data)
        except OSError:
            return


def _up(*ports: int) -> None:
    print(*ports, flush=True)


if __name__ == "__main__":
    name, *words = sys.argv[1:]
    programs: dict[str, Callable[..., None]] = {
        "target": target, "relay": relay, "gateway": gateway, "terminal": terminal,
    }  # fmt: skip
    programs[name](*words)
