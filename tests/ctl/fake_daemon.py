"""A daemon that answers what a test tells it to: HTTP/1.1 on a unix socket, upgrades, frames, descriptors.

In a thread (``FakeDaemon``) for most tests; as a process of its own (``python fake_daemon.py SOCKET``), with
an echoing attach, for those in which the daemon dies.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

INPUT, RESIZE, DETACH, END_OF_INPUT, SIGNAL, CREDIT_OUTPUT = 1, 2, 3, 4, 5, 6
OUTPUT, ERROR_OUTPUT, STATUS, EXIT, CREDIT, ANSWER = 0x81, 0x82, 0x83, 0x84, 0x85, 0x86
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: devbox\r\n\r\n"


class Gone(Exception):
    """The client hung up."""


class Peer:
    """A client whose connection was upgraded."""

    def __init__(self, connection: socket.socket, request: dict[str, Any]) -> None:
        self.connection = connection
        self.request = request

    def upgrade(self) -> None:
        self.connection.sendall(SWITCHING)

    def send(self, kind: int, payload: bytes = b"") -> None:
        try:
            self.connection.sendall(bytes((kind,)) + len(payload).to_bytes(4, "big") + payload)
        except OSError as error:
            raise Gone from error

    def status(self, state: str, **more: object) -> None:
        self.send(STATUS, json.dumps({"state": state, **more}).encode())

    def exit(self, **more: object) -> None:
        self.send(EXIT, json.dumps(more).encode())

    def receive(self) -> tuple[int, bytes]:
        head = self.exactly(5)
        return head[0], self.exactly(int.from_bytes(head[1:], "big"))

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                part = self.connection.recv(size - len(data))
            except OSError as error:
                raise Gone from error
            if not part:
                raise Gone
            data += part
        return data


def echo(peer: Peer, daemon: FakeDaemon) -> None:
    """Be a session that echoes; ``exit`` and a new line end it with status 0."""
    peer.upgrade()
    peer.status("online", mux="zellij")
    peer.send(OUTPUT, b"\x1b[?1049h\x1b[?2004hwelcome\r\n")
    typed = b""
    while True:
        kind, payload = peer.receive()
        daemon.frames.put((kind, payload))
        if kind == INPUT:
            typed += payload
            peer.send(CREDIT, len(payload).to_bytes(4, "big"))
            peer.send(OUTPUT, payload)
            if b"exit\r" in typed:
                peer.send(OUTPUT, b"\x1b[?1049l\x1b[?2004l")
                peer.exit(status=0)
                return
        elif kind == DETACH:
            peer.exit(reattach=True)
            return


Handler = Callable[[Peer, "FakeDaemon"], None]


class FakeDaemon:
    """Listens until ``close``. ``routes`` maps ``"GET ls"`` to an answer or to ``(status, answer)``.

    What a client that is waiting already will ask for has to be given here: it is served at once.
    """

    always: ClassVar[dict[str, Any]] = {}  # routes that are there before the first client

    def __init__(
        self,
        path: str | Path,
        routes: dict[str, Any] | None = None,
        streams: dict[str, Handler] | None = None,
    ) -> None:
        self.path = str(path)
        self.routes: dict[str, Any] = {**self.always, **(routes or {})}
        self.streams: dict[str, Handler] = {"attach": echo, **(streams or {})}
        self.requests: list[tuple[str, str, Any]] = []
        self.frames: queue.Queue[tuple[int, bytes]] = queue.Queue()
        self.problems: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        new = f"{self.path}.new"
        self._listener.bind(new)
        os.chmod(new, 0o600)
        self._listener.listen(64)
        # At once in the place of one that is there: who found none between them would start a real daemon.
        os.rename(new, self.path)
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """Stop as a killed daemon would: every connection breaks off, the socket file stays."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(5)
        self._listener.close()
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive(), "a handler of the fake daemon hangs"
        for connection in self._connections:
            connection.close()

    def __enter__(self) -> FakeDaemon:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        if os.path.exists(self.path):
            os.unlink(self.path)
        if self.problems:
            raise self.problems[0]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            while self._answer(connection):
                pass
        except (Gone, BrokenPipeError, ConnectionResetError):
            pass
        except BaseException as error:  # noqa: BLE001  shown by the test that owns us
            self.problems.append(error)
        finally:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _answer(self, connection: socket.socket) -> bool:
        peer = Peer(connection, {})
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += peer.exactly(1)
        first, *lines = head.decode().strip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        body = peer.exactly(int(headers.get("content-length", 0)))
        path = target.removeprefix("/v1/")
        peer.request = json.loads(body) if body else {}
        self.requests.append((method, path, peer.request))
        route = self.routes.get(f"{method} {path}", self.routes.get(f"{method} {path.partition('?')[0]}"))
        if route is None and headers.get("upgrade") == "devbox" and path in self.streams:
            self.streams[path](peer, self)
            return False
        if route is None:
            route = (404, {"code": "no-route", "message": f"no route {method} {path}"})
        if callable(route):
            route = route(peer)
        status, answer = route if isinstance(route, tuple) else (200, route)
        if isinstance(answer, list):  # NDJSON, chunked as aiohttp sends it
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for line in answer:
                data = json.dumps(line).encode() + b"\n"
                connection.sendall(b"%x\r\n%s\r\n" % (len(data), data))
            connection.sendall(b"0\r\n\r\n")
        else:
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            connection.sendall(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(data), data))
        return headers.get("connection") != "close"


def wait_for_ever() -> None:
    """Serve in this process until it is killed."""
    with FakeDaemon(sys.argv[1]) as daemon:
        print("listening", flush=True)
        daemon._accepting.join()


if __name__ == "__main__":
    wait_for_ever()
