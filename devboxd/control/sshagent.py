"""Lend the user's ssh-agent to a box, at a path there that never changes.

A small program on the box serves ``~/.devbox/agent.sock``; each connection to it is carried over an exec
session to the agent's socket here. One program serves all terminals of a box and user, comes back by
itself when its session is gone, and ends with the last terminal that lends an agent. Nobody's agent is lent
unasked: it takes ``attach -A``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from devboxd.control.execute import ExecSpec
from devboxd.control.hub import Hub
from devboxd.control.supervisor import Supervisor
from devboxd.control.terminal import ClientMessage, Input, Leaving, StatusLine, Taken, Terminal
from devboxd.model.box import BoxRef
from devboxd.model.retry import backoff
from devboxd.model.script import load, squeeze_python

log = logging.getLogger(__name__)

FRAME: Final = struct.Struct(">II")  # connection, length; a length of 0 closes
MOST_CONNECTIONS: Final = 32
LONGEST: Final = 1 << 18  # bytes of one frame; agents talk in small ones
READY: Final = b"ready"

Run = Callable[[ExecSpec, Terminal], Awaitable[Leaving]]


class SshAgents:
    """The agents that are lent now."""

    def __init__(self, hub: Hub, run: Run) -> None:
        self._hub = hub
        self._run = run
        self._lent: dict[tuple[str, str | None], tuple[_Lent, int]] = {}

    @contextlib.asynccontextmanager
    async def lending(self, box: BoxRef, user: str | None, socket: str) -> AsyncIterator[None]:
        """Lend the agent at ``socket`` while the block runs. The latest terminal's agent is the one asked."""
        key = (box.target, user)
        lent, users = self._lent.get(key, (None, 0))
        if lent is None:
            lent = _Lent(self._hub, self._run, box, user)
            lent.start()
        lent.socket = socket
        self._lent[key] = (lent, users + 1)
        try:
            yield
        finally:
            lent, users = self._lent.pop(key)
            if users > 1:
                self._lent[key] = (lent, users - 1)
            else:
                await lent.stop()


class _Lent:
    """One agent lent to one user of one box: holds the program there for as long as it is wanted."""

    def __init__(self, hub: Hub, run: Run, box: BoxRef, user: str | None) -> None:
        self.socket = ""
        self._hub = hub
        self._run = run
        self._box = box
        self._user = user
        self._tasks = Supervisor(f"ssh agent for {box.name}")

    def start(self) -> None:
        """Serve from now on."""
        self._tasks.spawn("serve", self._serve())

    async def stop(self) -> None:
        """End the program on the box."""
        await self._tasks.stop()

    async def _serve(self) -> None:
        program = squeeze_python(load("agent_program.py", common=False))
        spec = ExecSpec(box=self._box, argv=["python3", "-c", program], user=self._user, wait=None)
        delays = backoff(self._hub.dice, first=1.0)
        while True:
            began = self._hub.clock.monotonic()
            pipe = _Pipe(lambda: self.socket)
            try:
                leaving = await self._run(spec, pipe)
            finally:
                pipe.close()
            if leaving.status in (126, 127):
                text = f"no ssh agent on {self._box.name}: it needs python3 there"
                self._hub.tell("agent.unavailable", text, box=self._box.name)
                return
            if self._hub.clock.monotonic() - began > 60:
                delays = backoff(self._hub.dice, first=1.0)
            await self._hub.network.wait(next(delays))


class _Pipe:
    """A terminal that carries agent connections: what the program prints goes to sockets here, and back."""

    def __init__(self, socket: Callable[[], str]) -> None:
        self._socket = socket
        self._inbox: asyncio.Queue[ClientMessage | None] = asyncio.Queue()
        self._buffer = b""
        self._is_ready = False
        self._connections: dict[int, asyncio.Queue[bytes]] = {}
        self._tasks = Supervisor("ssh agent connections")

    def close(self) -> None:
        """Cut all connections."""
        for queue in self._connections.values():
            queue.put_nowait(b"")

    @property
    def backlog(self) -> int:
        return 0

    async def receive(self) -> ClientMessage | None:
        return await self._inbox.get()

    def output(self, data: bytes, *, error: bool = False) -> None:
        self._inbox.put_nowait(Taken(len(data)))
        if error:
            log.info("ssh agent on the box: %s", data[:200].decode("utf-8", "replace").strip())
            return
        self._buffer += data
        if not self._is_ready:
            if not self._buffer.startswith(READY):
                return
            self._is_ready, self._buffer = True, self._buffer[len(READY) :]
        while len(self._buffer) >= FRAME.size:
            number, length = FRAME.unpack_from(self._buffer)
            if length > LONGEST:
                self._inbox.put_nowait(None)  # nonsense: end the program
                return
            if len(self._buffer) < FRAME.size + length:
                return
            payload = self._buffer[FRAME.size : FRAME.size + length]
            self._buffer = self._buffer[FRAME.size + length :]
            self._take(number, payload)

    def _take(self, number: int, payload: bytes) -> None:
        queue = self._connections.get(number)
        if queue is None:
            if not payload:
                return
            if len(self._connections) >= MOST_CONNECTIONS:
                self._send(number, b"")
                return
            queue = self._connections[number] = asyncio.Queue()
            self._tasks.spawn(f"connection {number}", self._carry(number, queue))
        queue.put_nowait(payload)

    async def _carry(self, number: int, queue: asyncio.Queue[bytes]) -> None:
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket())
        except OSError as error:
            log.info("the ssh agent here does not answer: %s", error.strerror)
            self._connections.pop(number, None)
            self._send(number, b"")
            return
        back = asyncio.ensure_future(self._back(number, reader))
        try:
            while payload := await queue.get():
                writer.write(payload)
                await writer.drain()
        except OSError:
            log.info("the ssh agent here closed a connection")
        finally:
            back.cancel()
            writer.close()
            if self._connections.pop(number, None) is not None:
                self._send(number, b"")

    async def _back(self, number: int, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(16384):
            self._send(number, data)
        if (queue := self._connections.get(number)) is not None:
            queue.put_nowait(b"")

    def _send(self, number: int, payload: bytes) -> None:
        self._inbox.put_nowait(Input(FRAME.pack(number, len(payload)) + payload))

    def status(self, line: StatusLine) -> None:
        pass

    def credit(self, size: int) -> None:
        pass

    def leave(self, leaving: Leaving) -> None:
        pass

    async def drained(self, below: int) -> None:
        pass
