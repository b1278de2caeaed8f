"""One forward: a local listener that stays bound whatever happens behind it.

A connection that arrives during an outage waits (``wait`` seconds at most) instead of being refused. Open
connections are carried through when the session resumes and reset when it is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import msgspec

from devboxd.control.base.needs import Listener, Listeners, LocalConnection
from devboxd.control.base.shared import Shared
from devboxd.control.base.supervisor import Supervisor
from devboxd.control.connect.handing import carried, opening
from devboxd.control.connect.pool import PortPool
from devboxd.control.connect.port import PortTarget
from devboxd.control.connect.socks import OK, Buffered, SocksError, accept, answer_to, reply
from devboxd.control.connect.splice import LOOK, Counted, splice
from devboxd.control.connect.stream import ConnectionRefused, Duplex, StreamReset
from devboxd.errors import DevboxError, ListenerClosed, PortDenied, PortInUse
from devboxd.model.box import BoxRef
from devboxd.model.forward import Facts, ForwardState, Spec, state_of, wanted_port

log = logging.getLogger(__name__)

SOCKS_TIMEOUT: Final = 20.0  # seconds a client has for its request
FIRST_SIGN: Final = 0.4  # seconds that a target of SOCKS has to refuse, when it is asked for the first time
REACHED_MAX: Final = 1024  # such targets that are remembered

T = TypeVar("T")
Pools = Callable[[PortTarget], PortPool]
Wait = Callable[[], float]  # seconds that a connection waits for a session, as configured now


class Forward:
    """One listener and the connections that came through it."""

    def __init__(
        self,
        shared: Shared,
        pools: Pools,
        listeners: Listeners,
        box: BoxRef,
        spec: Spec,
        *,
        id_: str,
        wait: Wait,
        auto: bool = False,
    ) -> None:
        self.id = id_
        self.box = box
        self.spec = spec
        self.saved = spec  # with the port that was found: who uses it finds it again after a restart
        self.auto = auto
        self.error: str | None = None
        self.total = 0
        self.why: str | None = None  # a mirror has another number than its port
        self._shared = shared
        self._pools = pools
        self._listeners = listeners
        self._wait = wait
        self._listener: Listener | None = None
        self._local = spec.local_path or "?"  # kept: a closed listener cannot say where it was
        self._tasks = Supervisor(f"forward {id_}")
        self._open = 0
        self._up = 0
        self._down = 0
        self._removed = False
        self._pool: PortPool | None = None
        self._reached: set[tuple[str, int]] = set()  # by SOCKS

    async def start(self, kept: Listener | None = None) -> None:
        """Bind (or take over ``kept``), then accept. The session is opened by the first connection.

        Raises:
            PortInUse, PortDenied, BadRequest: the local end cannot be had.
        """
        spec = self.spec
        if kept is not None:
            self._listener = kept
        elif spec.local_path is not None:
            self._listener = self._listeners.unix(spec.local_path)
        else:
            wanted = wanted_port(spec)
            try:
                self._listener = await self._listeners.tcp(spec.bind, wanted)
            except (PortInUse, PortDenied):
                if spec.strict or not wanted:
                    raise
                self._listener = await self._listeners.tcp(spec.bind, 0)
        if self._removed:  # while the address was looked up
            self._listener.close()
            return
        self._local = self._listener.address
        if (port := self._listener.port) not in (None, wanted_port(spec)):
            self.saved = msgspec.structs.replace(spec, local_port=port, strict=False)
        if not spec.dynamic:
            self._pool = self._pools(PortTarget(self.box, spec.port, spec.host, spec.path))
            self._pool.kept += 1
        self._tasks.spawn("accept", self._accept(self._listener))

    async def stop(self) -> None:
        """Close the listener and cut what runs through it."""
        if self._removed:
            return
        self._removed = True
        if self._listener is not None:
            self._listener.close()
        if self._pool is not None:
            self._pool.kept -= 1
        await self._tasks.stop()

    @property
    def is_removed(self) -> bool:
        """Whether it was stopped; for good."""
        return self._removed

    def pause(self) -> bool:
        """Accept nothing more. Whether nothing is being accepted now."""
        return self._listener is None or self._removed or self._listener.pause()

    def leave_listener(self) -> Sequence[int]:
        """Leave the bound local end to another daemon: its descriptors; none where that cannot be."""
        if self._listener is None or self._removed:
            return ()
        try:
            return self._listener.leave_to_another()
        except OSError:
            return ()

    @property
    def listener(self) -> Listener | None:
        """The bound local end."""
        return self._listener

    @property
    def local(self) -> str:
        """Where it listens."""
        return self._local

    def facts(self) -> Facts:
        """How it stands."""
        sessions = self._pool.sessions if self._pool is not None else []
        state = ForwardState.REMOVED
        if not self._removed:
            states = {session.held.state for session in sessions}
            state = state_of(states, is_bound=self._listener is not None, has_failed=self.error is not None)
        return Facts(
            self.id,
            self.box.name,
            state,
            self.local,
            self.spec.remote,
            self._open,
            self.total,
            self._up,
            self._down,
            len(sessions),
            self.error,
            self.auto,
            self.box.target,
            self.why,
        )

    def note(self, error: DevboxError | None) -> None:
        """Remember what the last connection failed for."""
        if error is not None and error.message != self.error:
            self._shared.news.tell("forward.failed", f"{self.local}: {error.message}", box=self.box.name)
        self.error = None if error is None else error.message

    async def _accept(self, listener: Listener) -> None:
        while True:
            try:
                connection = await listener.accept()
            except ListenerClosed:
                return
            self.begin(connection)

    def begin(self, connection: LocalConnection) -> None:
        """Serve a connection that was accepted here, by us or by the daemon before us."""
        self.total += 1
        serve = self._serve_socks if self.spec.dynamic else self._serve
        self._tasks.spawn(f"connection {self.total}", serve(connection))

    async def _serve(self, connection: LocalConnection) -> None:
        self._open += 1
        try:
            assert self._pool is not None
            try:
                with opening(self._shared.handing, connection, self.id):
                    stream = await self._connect(self._pool, connection)
            except TimeoutError:
                connection.reset()
                return
            except DevboxError as error:
                self.note(error)
                connection.reset()
                return
            await self._carry(connection, stream)
        except asyncio.CancelledError:
            connection.reset()
            raise
        finally:
            self._open -= 1

    async def _connect(self, pool: PortPool, connection: LocalConnection) -> Duplex:
        """Wait for a session, as long as the client does.

        Raises:
            TimeoutError: the client has left.
            DevboxError: there is no session in time.
        """
        return await self._while_there(connection, pool.connect(self._wait()))

    async def _while_there(self, connection: LocalConnection, work: Awaitable[T]) -> T:
        """Wait for something, as long as the client does. Raises TimeoutError where that has left."""
        loop = asyncio.get_running_loop()
        next_look: list[asyncio.TimerHandle] = []
        async with asyncio.timeout(None) as waiting:

            def look() -> None:
                if connection.has_left():
                    waiting.reschedule(loop.time())
                else:
                    next_look[:] = [loop.call_later(LOOK, look)]

            look()
            try:
                return await work
            finally:
                for handle in next_look:
                    handle.cancel()

    def resume(self, connection: LocalConnection, stream: Duplex) -> None:
        """Go on with a connection that the daemon before us had accepted here."""
        self.total += 1
        self._tasks.spawn(f"connection {self.total}", self._resume(connection, stream))

    async def _resume(self, connection: LocalConnection, stream: Duplex) -> None:
        self._open += 1
        try:
            failure = await self._spliced(connection, stream)
            self._note_socks(failure) if self.spec.dynamic else self.note(failure)
        except asyncio.CancelledError:
            connection.reset()
            raise
        finally:
            self._open -= 1

    async def _carry(self, connection: LocalConnection, stream: Duplex) -> None:
        self.note(await self._spliced(connection, stream))

    async def _spliced(self, connection: LocalConnection, stream: Duplex) -> DevboxError | None:
        with carried(self._shared.handing, connection, stream, forward=self.id):
            return await splice(Counted(connection, self.count), stream)

    async def _serve_socks(self, connection: LocalConnection) -> None:
        self._open += 1
        buffered = Buffered(connection)
        try:
            try:
                async with asyncio.timeout(SOCKS_TIMEOUT):
                    host, port = await accept(buffered)
            except (SocksError, TimeoutError, OSError) as error:
                log.info("forward %s: %s", self.id, error)
                await connection.close()
                return
            here = host in ("localhost", "127.0.0.1", "::1")
            pool = self._pools(PortTarget(self.box, port, None if here else host))
            try:
                stream = await self._connect(pool, buffered)
                early = await self._while_there(buffered, self._first_sign(stream, (host, port)))
            except DevboxError as error:
                self._note_socks(error)
                await buffered.write(reply(answer_to(error)))
                await connection.close()
                return
            await buffered.write(reply(OK) + early)
            self.count(0, len(early))
            self._note_socks(await self._spliced(buffered, stream))
        except asyncio.CancelledError:
            connection.reset()
            raise
        except OSError as error:  # TimeoutError is one, too
            log.info("forward %s: the local client left: %s", self.id, error)
            connection.reset()
        finally:
            self._open -= 1

    async def _first_sign(self, stream: Duplex, target: tuple[str, int]) -> bytes:
        """Wait until the target is connected. A client that is told that it is not shows the right error, and not a
        connection that breaks.

        Without a bridge nobody tells that it is, only that it is not: then for a moment, and not again for who was
        reached lately; returns what that one says meanwhile, if anything.

        Raises:
            DevboxError: it is not.
        """
        early = b""
        try:
            if await self._answered(stream, target[0]) or target in self._reached:
                return early
            async with asyncio.timeout(FIRST_SIGN):
                early = await stream.read()
        except TimeoutError:
            pass
        except BaseException:
            stream.close()
            raise
        if len(self._reached) >= REACHED_MAX:
            self._reached.clear()
        self._reached.add(target)
        return early

    async def _answered(self, stream: Duplex, host: str) -> bool:
        try:
            async with asyncio.timeout(self._wait()):
                return await stream.answered()
        except TimeoutError:
            raise StreamReset(f"{host} did not answer in time ({self.box.name})", "ETIMEDOUT") from None

    def _note_socks(self, error: DevboxError | None) -> None:
        """As ``note``; but that one of many targets is not there says nothing of the forward."""
        if not isinstance(error, ConnectionRefused | StreamReset):
            self.note(error)

    def count(self, up: int, down: int) -> None:
        """Bytes that passed."""
        self._up += up
        self._down += down
