"""Port sessions and their streams: one session carries many connections to one target port.

A new connection goes to the session with the fewest; when all are busy a further session is opened, up to
a bound, because the agent paces each session at less than 1 MiB/s. Sessions without connections are
ended after a while. When a session is lost its streams are reset, and the next one gets a new session.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from devboxd.control.connect.fate import SessionEnded
from devboxd.control.connect.plan import Message, Plan, Quiet
from devboxd.control.connect.sessions import Sessions
from devboxd.control.connect.stream import (
    Arrivals,
    Backlog,
    ConnectionRefused,
    Duplex,
    PortStream,
    StreamReset,
)
from devboxd.errors import Denied, DevboxError, DocumentInvalid, Unreachable, WrongState
from devboxd.model.box import BoxRef
from devboxd.model.config import Config
from devboxd.model.retry import backoff
from devboxd.model.session import Ending, SessionEnd, SessionState
from devboxd.model.states import SessionKind
from devboxd.ssm import documents, effect
from devboxd.ssm.handshake import needs_keepalive, speaks_mux
from devboxd.ssm.limits import BULK, Limits
from devboxd.ssm.mux import HEADER, Data, Finished, Mux, MuxError
from devboxd.ssm.payload import Flag, PayloadType, flag

log = logging.getLogger(__name__)

SESSION_BUFFER: Final = (
    64 << 20
)  # bytes that all readers of a session may be behind; then the slowest is reset
WRITE_CHUNK: Final = 32 << 10  # bytes of one stream at a time: others get their turn
BUSY_BYTES: Final = 256 << 10  # bytes a second over a session that make it count as busy
REFUSED_WITHIN: Final = 1.0  # seconds: a FIN this soon after the agent's flag belongs to it
NOP_AFTER: Final = 10.0  # seconds between NOPs to an agent that uses them
LARGEST_PAYLOAD: Final = 32 << 10  # bytes of one frame, once smaller ones were taken
IDLE_AFTER: Final = 60.0  # seconds without a connection after which a session that nobody keeps is ended
PROVEN: Final = 8  # frames acknowledged at one payload size before the next is tried
FIRST_LIMITS: Final = Limits(payload=1024, window_bytes=BULK.window_bytes)  # grown as the way proves wide


class PortTarget(msgspec.Struct, frozen=True):
    """A port as the box sees it, or a unix socket on it. ``host`` None: the box itself."""

    box: BoxRef
    port: int
    host: str | None = None
    path: str | None = None  # then ``port`` is 0, and only a bridge leads there


class PortSession(Quiet):
    """A held session to one port, and the streams on it."""

    def __init__(
        self,
        directory: Sessions,
        target: PortTarget,
        document: str,
        config: Config,
        *,
        wait: float | None,
        wanted: bool,
    ) -> None:
        parameters = {"portNumber": str(target.port)}
        if document == documents.REMOTE_PORT:
            parameters["host"] = target.host or "localhost"
        self.target = target
        self.document = document
        self.streams: dict[int, Arrivals] = {}
        self.multiplexed: bool | None = None
        self._directory = directory
        self._shared = directory.shared
        self.idle_since = self._shared.time.monotonic()
        self._mux = Mux()
        self._refused_at = -1e9
        self._basic: Arrivals | None = None
        self._nop_task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._backlog = Backlog()
        self._promised = False  # to a first connection
        self._begun = bytearray()  # of a frame that is partly sent
        self._sent_frames = 0  # at the present payload size
        self._rate_at = self._shared.time.monotonic()
        self._rate_bytes = 0
        plan = Plan(
            target=target.box.target,
            box=target.box.name,
            account=target.box.account,
            kind=SessionKind.SSH if document == documents.SSH else SessionKind.PORT,
            document=document,
            parameters=parameters,
            limits=FIRST_LIMITS,
            wait=wait,
            keep_alive=config.keep_alive_of(target.box),
            wanted=wanted,
            touch=self._touch,
        )
        self.held = directory.open(plan, self, config.link)

    async def run(self) -> SessionEnd:
        """Hold the session; reset its streams when it ends."""
        end = SessionEnd(Ending.STOPPED)
        try:
            end = await self._directory.hold(self.held)
            return end
        finally:
            if self._nop_task is not None:
                self._nop_task.cancel()
            error = end.error if isinstance(end.error, DevboxError) else None
            if self._basic is not None and end.ending is Ending.FINISHED and self._basic.received:
                self._basic.finish()  # without multiplexing, the target's close ends the session
            for stream in list(self.streams.values()):
                stream.fail(error or StreamReset(end.reason or "the session has ended"))
            self.streams.clear()

    @property
    def usable(self) -> bool:
        """Say whether a new stream may be opened here."""
        held = self.held
        if held.stopping or held.end is not None or held.state in (SessionState.ENDED, SessionState.STALLED):
            return False
        if self.multiplexed is None and self.document == documents.SSH:
            return not self._promised  # it will carry one connection only
        return self.multiplexed is not False or (self._basic is None and not self._promised)

    @property
    def load(self) -> tuple[int, int]:
        """How busy this session is: recent bytes per second, in steps, then streams."""
        return (1 if self.measure() > BUSY_BYTES else 0, len(self.streams))

    def measure(self) -> float:
        """Bytes a second since the last measurement that is at least two seconds old."""
        now = self._shared.time.monotonic()
        total = self.held.tally.bytes_up + self.held.tally.bytes_down
        elapsed = now - self._rate_at
        rate = (total - self._rate_bytes) / elapsed if elapsed > 0.05 else 0.0
        if elapsed > 2.0:
            self._rate_at, self._rate_bytes = now, total
        return rate

    async def open(self) -> PortStream:
        """Open a stream, waiting until the session takes data.

        Raises:
            SessionEnded, or whatever made the session fail.
        """
        self.idle_since = float("inf")
        self._promised = True
        try:
            await self.held.wait_ready()
        except BaseException:  # a caller who gave up, too: nobody else would ever let the session idle out
            self._note_idle()
            raise
        if self.multiplexed is False:
            if self._basic is not None:
                raise StreamReset("this session carries one connection only")
            number = 0
            arrivals = self._basic = self.streams[0] = Arrivals(self._backlog)
        else:
            number, opening = self._mux.open()
            arrivals = self.streams[number] = Arrivals(self._backlog)
            try:
                await self._send(opening)
            except BaseException:
                arrivals.close()
                self.close_stream(number)
                raise
        self.held.attend(True)
        return PortStream(self, number, arrivals)

    @property
    def is_online(self) -> bool:
        """Say whether a link carries this session now."""
        return self.held.state is SessionState.ONLINE

    @property
    def turn_size(self) -> int:
        """Bytes that one stream sends in its turn: whole frames, since each counts against the limit."""
        return max(1, WRITE_CHUNK // self._mux.limit) * self._mux.limit

    async def write(self, number: int, data: bytes) -> None:
        """Send one stream's bytes, in turn with the others."""
        payload = data if number == 0 else self._mux.data(number, data)
        await self._send(payload)

    async def _send(self, payload: bytes) -> None:
        # The lock is first come, first served. What has begun to go out belongs to the session: were a
        # writer cancelled in the middle of a frame, the next one's bytes would end up inside it.
        async with self._turn:
            begun, size = self._begun, len(payload)
            begun += payload
            try:
                while begun:
                    del begun[: await self.held.send_some(begun)]
            except DevboxError as error:
                raise StreamReset(error.message) from error
            except asyncio.CancelledError:
                if len(begun) >= size:
                    del begun[-size:]  # nothing of it is under way
                raise  # else the next to send (a stream's end always does) sends the rest first
            self._widen(size)

    def _widen(self, sent: int) -> None:
        """Use larger frames once the far end has acknowledged some of the present size.

        What the live service takes is unknown; the agent takes anything, and its speed grows with it.
        """
        channel = self.held.channel
        if channel is None or sent < channel.payload_size or channel.payload_size >= LARGEST_PAYLOAD:
            return
        self._sent_frames += -(-sent // channel.payload_size)
        if self._sent_frames - channel.unacknowledged >= PROVEN:
            self._sent_frames = channel.unacknowledged
            channel.payload_size = min(LARGEST_PAYLOAD, channel.payload_size * 2)
            self._mux.limit = channel.payload_size - HEADER.size

    def close_stream(self, number: int) -> None:
        """Forget a stream and tell the far end."""
        if self.streams.pop(number, None) is None:
            return
        if self.held.end is None:
            if number == 0:
                self.held.send_now(PayloadType.FLAG, flag(Flag.DISCONNECT_TO_PORT))
                self._shared.tasks.spawn("end of a plain port session", self.held.stop())
            else:
                self._shared.tasks.spawn(
                    f"close stream {number}", self._send_quietly(self._mux.finish(number))
                )
        self._note_idle()

    async def _send_quietly(self, payload: bytes) -> None:
        try:
            await self._send(payload)
        except StreamReset:
            pass  # the session is gone, and the stream with it

    def _note_idle(self) -> None:
        if not self.streams:
            self.idle_since = self._shared.time.monotonic()
            self.held.attend(False)

    # From the held session --------------------------------------------------------------------------

    def ready(self, ready: effect.Ready) -> None:
        """Both ends decide by themselves whether they multiplex; agree with the agent."""
        self.multiplexed = speaks_mux(ready.agent_version, ready.properties)
        if self.multiplexed and needs_keepalive(ready.agent_version):
            self._nop_task = self._shared.tasks.spawn("NOPs for an old agent", self._send_nops())

    def _touch(self) -> Message | None:
        """What keeps a port session alive by all accounts; a probe may not. Never inside of another frame."""
        return (PayloadType.OUTPUT, self._mux.nop()) if self.multiplexed and not self._begun else None

    async def _send_nops(self) -> None:
        while True:
            await asyncio.sleep(NOP_AFTER)
            await self._send_quietly(self._mux.nop())

    def output(self, data: bytes) -> None:
        """Bytes of all streams."""
        if not self.multiplexed:
            if self._basic is not None:
                self._arrived(0, data)
            return
        try:
            events = self._mux.received(data)
        except MuxError as error:
            log.warning("port session %s: %s", self.held.id, error)
            self._shared.tasks.spawn("end of a broken port session", self.held.stop())
            return
        for event in events:
            match event:
                case Data(number, piece):
                    self._arrived(number, piece)
                case Finished(number):
                    self._finished(number)
                case _:
                    pass

    def _arrived(self, number: int, data: bytes) -> None:
        arrivals = self.streams.get(number)
        if arrivals is not None and not arrivals.put(data):
            self.close_stream(number)
        if self._backlog.size > SESSION_BUFFER:
            number, slowest = max(self.streams.items(), key=lambda item: len(item[1]))
            slowest.fail(StreamReset("the local side stopped reading for too long"))
            self.close_stream(number)

    def _finished(self, number: int) -> None:
        stream = self.streams.pop(number, None)
        if stream is None:
            return
        refused = not stream.received and self._shared.time.monotonic() - self._refused_at < REFUSED_WITHIN
        if refused:
            self._refused_at = -1e9
            where = f"port {self.target.port}" + (f" of {self.target.host}" if self.target.host else "")
            stream.fail(ConnectionRefused(f"nothing listens on {where} ({self.target.box.name})"))
        else:
            stream.finish()
        self._shared.tasks.spawn(f"close stream {number}", self._send_quietly(self._mux.finish(number)))
        self._note_idle()

    def flag(self, number: int) -> None:
        """The target refused; the FIN of its stream follows."""
        if number == Flag.CONNECT_TO_PORT_ERROR:
            self._refused_at = self._shared.time.monotonic()


def _is_dead_target(session: PortSession) -> bool:
    """Say whether a session without multiplexing ended because nothing answered behind it."""
    end = session.held.end
    return session.multiplexed is False and end is not None and end.ending is Ending.BROKEN


Bridged = Callable[[PortTarget, float | None], Awaitable[Duplex | None]]


class PortPool:
    """The sessions to one target, and which of them a new connection gets."""

    def __init__(
        self,
        directory: Sessions,
        target: PortTarget,
        config: Config,
        *,
        idle_after: float = IDLE_AFTER,
        bridged: Bridged | None = None,
    ) -> None:
        """Make one. ``bridged``: opens a stream over the bridge to the box; None from it: there is no bridge."""
        self.target = target
        self.sessions: list[PortSession] = []
        self.kept = 0  # how many want one session to stay warm
        self.warmed = 0  # how many want it open ahead of the first connection, and open again when it is lost
        self.on_empty: Callable[[], None] = lambda: None  # no session is left
        self._directory = directory
        self._shared = directory.shared
        self._config = config
        self._idle_after = idle_after
        self._bridged = bridged
        self._documents = [documents.PORT, documents.SSH] if target.host is None else [documents.REMOTE_PORT]
        self._reaper: asyncio.Task[None] | None = None

    async def connect(self, wait: float | None = 120.0) -> Duplex:
        """Open a connection to the target.

        Args:
            wait: seconds for a box that is not connected, and for sessions that are lost on the way.

        Raises:
            ConnectionRefused comes later, from ``PortStream.read``: the far end tells only then.
            DevboxError: the session could not be opened.
        """
        if self._bridged is not None and (stream := await self._bridged(self.target, wait)) is not None:
            return stream
        if self.target.path is not None:
            raise WrongState(
                f"there is no bridge to {self.target.box.name}, and only that leads to a unix socket there",
                hint="docs/bridge.md says what it needs",
            )
        deadline = None if wait is None else self._shared.time.monotonic() + wait
        delays = backoff(self._shared.time.dice)
        while True:
            session = self._choose(wait)
            left = None if deadline is None else max(0.1, deadline - self._shared.time.monotonic())
            try:
                async with asyncio.timeout(left):
                    return await session.open()
            except (Denied, DocumentInvalid):
                # Some accounts allow only the SSH document; it carries one connection each.
                if session.document == self._documents[-1]:
                    raise
                self._documents = self._documents[-1:]  # others who waited for the same session do it, too
            except (SessionEnded, StreamReset):
                if deadline is not None and self._shared.time.monotonic() >= deadline:
                    raise
                if _is_dead_target(session):
                    raise
                await self._shared.bells.network.wait(next(delays))
            except TimeoutError:
                detail = session.held.detail or "no answer in time"
                raise Unreachable(f"{self.target.box.name} could not be reached: {detail}") from None

    def warm(self) -> None:
        """Open a session ahead of the first connection, if there is none."""
        if not any(session.usable for session in self.sessions):
            self._start(None)

    def _choose(self, wait: float | None) -> PortSession:
        usable = [session for session in self.sessions if session.usable]
        online = [session for session in usable if session.held.state is SessionState.ONLINE] or usable
        if online:
            best = min(online, key=lambda session: session.load)
            if best.load[0] == 0 or len(usable) >= self._config.forward.max_sessions:
                return best
        return self._start(wait)

    def _start(self, wait: float | None) -> PortSession:
        session = PortSession(
            self._directory,
            self.target,
            self._documents[0],
            self._config,
            wait=wait,
            wanted=self.kept > 0 and not self.sessions,
        )
        self.sessions.append(session)
        self._shared.tasks.spawn(f"port {self.target.port} of {self.target.box.name}", self._run(session))
        if self._reaper is None or self._reaper.done():
            self._reaper = self._shared.tasks.spawn(f"idle sessions to port {self.target.port}", self._reap())
        return session

    async def _run(self, session: PortSession) -> None:
        try:
            await session.run()
        finally:
            self.sessions.remove(session)
        if self.warmed and not self.sessions and not session.held.stopping and session.held.id is not None:
            self._start(None)  # it was wanted warm, and was lost

    async def _reap(self) -> None:
        """End sessions that have had no connection for a while; keep one where a forward wants it warm."""
        while self.sessions:
            await asyncio.sleep(self._idle_after / 4)
            for session in self.sessions:
                session.measure()  # or an hour of quiet would hide what goes on when the next connection comes
            now = self._shared.time.monotonic()
            idle = [s for s in self.sessions if not s.streams and now - s.idle_since >= self._idle_after]
            spare = len(self.sessions) - (1 if self.kept else 0)
            # At once, not one by one: a session that gets a connection meanwhile must not be ended.
            await asyncio.gather(*(session.held.stop() for session in idle[: max(0, spare)]))
        self.on_empty()

    async def close(self) -> None:
        """End all sessions."""
        await asyncio.gather(*(session.held.stop() for session in list(self.sessions)))
