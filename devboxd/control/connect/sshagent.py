"""Lend the user's ssh-agent to a box, at a path there that never changes.

The bridgehead listens on ``~/.devbox/agent.sock``, and each connection to it is a stream to the agent's socket here.
Where there is no bridge a small program on the box does so, and one exec session carries all its connections. One program serves all terminals of a box and user, comes back by
itself when its session is gone, and ends with the last terminal that lends an agent. Nobody's agent is lent
unasked: it takes ``attach -A``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from devboxd.boxside import bridgehead
from devboxd.boxside.script import load_program
from devboxd.control.base.needs import Listeners
from devboxd.control.base.shared import Shared
from devboxd.control.base.supervisor import Supervisor
from devboxd.control.connect.bridges import Bridges
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.here import Here
from devboxd.control.connect.terminal import Terminal
from devboxd.errors import DevboxError
from devboxd.model.box import BoxRef
from devboxd.model.retry import Backoff
from devboxd.model.terminal import ClientMessage, Input, Leaving, StatusLine, Taken
from devboxd.text import one_line

log = logging.getLogger(__name__)

FRAME: Final = struct.Struct(">II")  # connection, length; a length of 0 closes
MOST_CONNECTIONS: Final = 32
LONGEST: Final = 1 << 18  # bytes of one frame; agents talk in small ones
READY: Final = b"ready"
MOST_WAITING: Final = 1 << 18  # bytes that wait for one side; a box that sends more loses the connection

PATH: Final = "~/.devbox/agent.sock"  # on the box; attach.sh names it, too

MOST_COMPLAINTS: Final = 20  # pieces of its standard error that go to the log

Run = Callable[[ExecSpec, Terminal], Awaitable[Leaving]]


class SshAgents:
    """The agents that are lent now."""

    def __init__(
        self, shared: Shared, run: Run, bridges: Bridges | None = None, listeners: Listeners | None = None
    ) -> None:
        """Make them. ``bridges`` and ``listeners``: to lend over a bridge, with what connects here."""
        self._shared = shared
        self._run = run
        self._bridges = bridges
        self._listeners = listeners
        self._lent: dict[tuple[str, str | None], _Lent] = {}

    @contextlib.asynccontextmanager
    async def lending(self, box: BoxRef, user: str | None, socket: str) -> AsyncIterator[None]:
        """Lend the agent at ``socket`` while the block runs. The latest terminal's agent is the one asked."""
        key, terminal = (box.target, user), object()
        lent = self._lent.get(key)
        if lent is None:
            lent = self._lent[key] = _Lent(self._shared, self._run, self._bridges, self._listeners, box, user)
            lent.start()
        lent.sockets[terminal] = socket
        try:
            yield
        finally:
            del lent.sockets[terminal]
            if not lent.sockets:
                del self._lent[key]
                await lent.stop()


class _Lent:
    """One agent lent to one user of one box: holds the program there for as long as it is wanted."""

    def __init__(
        self,
        shared: Shared,
        run: Run,
        bridges: Bridges | None,
        listeners: Listeners | None,
        box: BoxRef,
        user: str | None,
    ) -> None:
        self.sockets: dict[object, str] = {}  # by terminal, the newest last
        self._shared = shared
        self._run = run
        self._bridges = bridges
        self._listeners = listeners
        self._box = box
        self._user = user
        self._tasks = Supervisor(f"ssh agent for {box.name}")

    @property
    def socket(self) -> str:
        """The agent to ask: that of the newest terminal that is still there."""
        return next(reversed(self.sockets.values()), "")

    def start(self) -> None:
        """Serve from now on."""
        self._tasks.spawn("serve", self._serve())

    async def stop(self) -> None:
        """End the program on the box."""
        await self._tasks.stop()

    async def _serve(self) -> None:
        delays = Backoff(self._shared.time.dice, first=1.0)
        while True:
            began = self._shared.time.monotonic()
            try:
                if not await self._serve_over_bridge() and not await self._serve_over_program():
                    return
            except DevboxError as error:
                log.info("ssh agent for %s: %s", self._box.name, error.message)
            await self._shared.bells.network.wait(delays.wait_after(self._shared.time.monotonic() - began))

    async def _serve_over_program(self) -> bool:
        """Serve by a program on the box until that ends. False: the box can not run it."""
        argv = ["python3", "-c", load_program("agent_program")]
        pipe = _Pipe(lambda: self.socket)
        try:
            leaving = await self._run(ExecSpec(box=self._box, argv=argv, user=self._user, wait=None), pipe)
        finally:
            await pipe.stop()
        if leaving.status not in (126, 127):
            return True
        text = f"no ssh agent on {self._box.name}: it needs python3 there"
        self._shared.news.tell("agent.unavailable", text, box=self._box.name)
        return False

    async def _serve_over_bridge(self) -> bool:
        """Listen there until that ends. False: there is no bridge.

        Raises:
            DevboxError: the listener is gone, or the box could not be reached.
        """
        if self._bridges is None or self._listeners is None:
            return False
        connected = self._listeners.connected
        listener = await self._bridges.stream(self._box, bridgehead.listen(path=PATH), None, user=self._user)
        if listener is None:
            return False
        agent = Here(
            self._tasks,
            lambda: connected(self.socket),
            "the ssh agent here",
            MOST_CONNECTIONS,
        )
        try:
            listener.accept(agent.accepted)
            while await listener.read():
                pass  # where it listens
            return True
        finally:
            listener.close()


class _Pipe:
    """A terminal that carries agent connections: what the program prints goes to sockets here, and back."""

    def __init__(self, socket: Callable[[], str]) -> None:
        self._socket = socket
        self._inbox: deque[bytes] = deque()  # for the program
        self._taken = 0  # bytes of its output that are to be confirmed
        self._changed = asyncio.Event()
        self._outgoing = 0  # bytes in the inbox
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._buffer = bytearray()
        self._is_ready = False
        self._is_over = False
        self._complaints = 0
        self._last = 0  # the program counts its connections upward
        self._connections: dict[int, _Queue] = {}
        self._tasks = Supervisor("ssh agent connections")

    async def stop(self) -> None:
        """Cut all connections."""
        await self._tasks.stop()

    @property
    def backlog(self) -> int:
        return 0

    async def receive(self) -> ClientMessage | None:
        """Answers for the program, word of what was taken, and at last None where it talks nonsense."""
        while not self._is_over:
            if self._taken:
                taken, self._taken = self._taken, 0
                return Taken(taken)
            if self._inbox:
                data = self._inbox.popleft()
                self._outgoing -= len(data)
                if self._outgoing < MOST_WAITING:
                    self._has_room.set()
                return Input(data)
            self._changed.clear()
            await self._changed.wait()
        return None

    def output(self, data: bytes, *, error: bool = False) -> None:
        """Take what the box sent: untrusted. Nonsense ends the program."""
        self._taken += len(data)
        self._changed.set()
        if error:
            self._complaints += 1
            if self._complaints <= MOST_COMPLAINTS:
                log.info("ssh agent on the box: %s", one_line(data[:200].decode("utf-8", "replace")))
            return
        if self._is_over:
            return
        self._buffer += data
        if not self._is_ready:
            if not self._buffer.startswith(READY):
                if not READY.startswith(bytes(self._buffer[: len(READY)])):
                    self._end()
                return
            self._is_ready = True
            del self._buffer[: len(READY)]
        at = 0
        while len(self._buffer) - at >= FRAME.size and not self._is_over:
            number, length = FRAME.unpack_from(self._buffer, at)
            if length > LONGEST:
                self._end()
                return
            if len(self._buffer) - at < FRAME.size + length:
                break
            at += FRAME.size
            self._take(number, bytes(self._buffer[at : at + length]))
            at += length
        del self._buffer[:at]

    def _end(self) -> None:
        log.warning("the ssh agent program on the box sends what makes no sense; it is started again")
        self._is_over = True
        self._buffer.clear()
        self._changed.set()

    def _take(self, number: int, payload: bytes) -> None:
        queue = self._connections.get(number)
        if queue is None:
            # What still comes for a connection that was closed here must not open another one.
            if number <= self._last or not payload:
                return
            self._last = number
            if len(self._connections) >= MOST_CONNECTIONS:
                if self._outgoing >= MOST_WAITING:
                    self._end()  # it opens faster than it takes that it may not
                else:
                    self._send(number, b"")
                return
            queue = self._connections[number] = _Queue()
            queue.carrier = self._tasks.spawn(f"connection {number}", self._carry(number, queue))
        if not queue.put(payload):
            log.info("ssh agent: a connection sends faster than the agent here reads; it is cut")
            if queue.carrier is not None:
                queue.carrier.cancel()

    async def _carry(self, number: int, queue: _Queue) -> None:
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket())
        except OSError as error:
            log.info("the ssh agent here does not answer: %s", error.strerror)
            self._connections.pop(number, None)
            self._send(number, b"")
            return
        back = self._tasks.spawn(f"answers {number}", self._back(number, reader, queue))
        try:
            while payload := await queue.get():
                writer.write(payload)
                await writer.drain()
            writer.close()
        except OSError:
            log.info("the ssh agent here closed a connection")
        finally:
            back.cancel()
            if not writer.is_closing():
                writer.transport.abort()
            if self._connections.pop(number, None) is not None:
                self._send(number, b"")

    async def _back(self, number: int, reader: asyncio.StreamReader, queue: _Queue) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(16384):
                await self._has_room.wait()
                self._send(number, data)
        queue.end()

    def _send(self, number: int, payload: bytes) -> None:
        data = FRAME.pack(number, len(payload)) + payload
        self._outgoing += len(data)
        if self._outgoing >= MOST_WAITING:
            self._has_room.clear()
        self._inbox.append(data)
        self._changed.set()

    def status(self, line: StatusLine) -> None:
        pass

    def credit(self, size: int) -> None:
        pass

    def leave(self, leaving: Leaving) -> None:
        pass

    async def drained(self, below: int) -> None:
        pass


class _Queue:
    """What waits for an agent here: ``MOST_WAITING`` bytes at most."""

    def __init__(self) -> None:
        self.carrier: asyncio.Task[None] | None = None
        self._waiting = bytearray()
        self._is_ended = False
        self._changed = asyncio.Event()

    def put(self, payload: bytes) -> bool:
        """Add bytes, none for the end. Says False, and adds nothing, where there is no room."""
        if not payload:
            self.end()
        elif not self._is_ended:
            if len(self._waiting) + len(payload) > MOST_WAITING:
                return False
            self._waiting += payload
            self._changed.set()
        return True

    async def get(self) -> bytes:
        """What waits; empty at the end."""
        while not self._waiting and not self._is_ended:
            self._changed.clear()
            await self._changed.wait()
        waiting, self._waiting = self._waiting, bytearray()
        return bytes(waiting)

    def end(self) -> None:
        """Nothing more comes."""
        self._is_ended = True
        self._changed.set()
