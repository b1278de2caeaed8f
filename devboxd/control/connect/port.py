"""Port sessions and their streams: one session carries many connections to one target port.

Which session a connection gets is the matter of a ``PortPool``. When a session is lost its streams are reset.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import msgspec

from devboxd.control.connect.plan import Message, Plan, Quiet
from devboxd.control.connect.sessions import Sessions
from devboxd.control.connect.stream import (
    Arrivals,
    Backlog,
    ConnectionRefused,
    PortStream,
    StreamReset,
)
from devboxd.errors import DevboxError
from devboxd.model.box import BoxRef
from devboxd.model.config import Config
from devboxd.model.pool import NEW, SessionSeen
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
REFUSED_WITHIN: Final = 1.0  # seconds: a FIN this soon after the agent's flag belongs to it
NOP_AFTER: Final = 10.0  # seconds between NOPs to an agent that uses them
LARGEST_PAYLOAD: Final = 32 << 10  # bytes of one frame, once smaller ones were taken
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
        self._opening = 0  # connections that wait for the session
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
    def seen(self) -> SessionSeen:
        """How it stands, for the choice among several."""
        now = self._shared.time.monotonic()
        new = sum(now - arrivals.opened_at < NEW for arrivals in self.streams.values())
        return SessionSeen(
            self.is_online, self.measure(), len(self.streams) + self._opening, new + self._opening
        )

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
        self._opening += 1
        try:
            await self.held.wait_ready()
        except BaseException:  # a caller who gave up, too: nobody else would ever let the session idle out
            self._note_idle()
            raise
        finally:
            self._opening -= 1
        now = self._shared.time.monotonic()
        if self.multiplexed is False:
            if self._basic is not None:
                raise StreamReset("this session carries one connection only")
            number = 0
            arrivals = self._basic = self.streams[0] = Arrivals(self._backlog, now)
        else:
            number, opening = self._mux.open()
            arrivals = self.streams[number] = Arrivals(self._backlog, now)
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
