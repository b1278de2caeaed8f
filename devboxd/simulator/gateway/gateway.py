"""The message gateway: relays frames between a client's websocket and the agent's end of a session.

It stores nothing: what arrives while the other side is away is lost, and the two peers repair that
themselves. Sources: amazon-ssm-agent, session-manager-plugin and recorded sessions; what nobody outside
knows about the real one is chosen like in those recordings.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import socket
import struct
from collections import Counter
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

from aiohttp import WSMessage, WSMsgType, web

from devboxd.simulator import sigv4
from devboxd.simulator.clock import Clock
from devboxd.simulator.faults import Faults, Throttled
from devboxd.simulator.gateway.pipe import Pipe
from devboxd.simulator.gateway.session import AgentLink, LinkCut, Session, State, Task
from devboxd.simulator.options import Options
from devboxd.simulator.tasks import Tasks
from devboxd.ssm import frame
from devboxd.text import rfc3339

log = logging.getLogger(__name__)

_STATE_FRAME: Final = frame.AGENT_SESSION_STATE.encode()
_CONTROL_FLAGS: Final = frame.SYN | frame.FIN
IDLE_TEXT: Final = "Your session timed out due to inactivity and has been terminated."


class Gateway:
    """All sessions of one simulator."""

    def __init__(
        self, *, options: Options, clock: Clock, faults: Faults, tasks: Tasks, entropy: random.Random
    ) -> None:
        self.options = options
        self.sessions: dict[str, Session] = {}
        self.dials = Counter[str]()  # outcomes of websocket upgrades, for tests
        self._clock = clock
        self._faults = faults
        self._tasks = tasks
        self._random = entropy
        self._sockets: set[web.WebSocketResponse] = set()
        self._agents_away: dict[str, float] = {}  # session: until when (monotonic)
        self._transports: dict[web.WebSocketResponse, asyncio.BaseTransport] = {}

    # -- the API's side ------------------------------------------------------------------------------

    def create(self, target: str, task: Task, *, owner: str, reason: str) -> Session:
        """Register a session; the caller starts the agent's worker for it."""
        name = owner.rpartition("/")[2]
        session = Session(
            id=f"{name}-{self._random.getrandbits(68):017x}",
            target=target, task=task, owner=owner, reason=reason, started=self._clock.wall(),
        )  # fmt: skip
        session.last_traffic = self._clock.monotonic()
        session.to_agent = Pipe(
            session.id, "up", lambda data: self._to_agent(session, data), self._faults, self._tasks
        )
        session.to_client = Pipe(
            session.id, "down", lambda data: self._to_client(session, data), self._faults, self._tasks
        )
        self.sessions[session.id] = session
        if self.options.idle_timeout:
            self._tasks.start(self._watch_idle(session), f"idle {session.id}")
        return session

    def grant(self, session: Session, base_url: str) -> tuple[str, str]:
        """A new token and stream URL; the earlier ones end with this."""
        session.tokens.clear()
        token = f"AAEAA{self._random.getrandbits(512):0128x}"
        session.tokens.add(token)
        session.cell = (
            f"A+/{self._random.getrandbits(64):016x}=="  # opaque, and awkward to quote: as seen live
        )
        url = f"{base_url}/v1/data-channel/{quote(session.id)}?role=publish_subscribe"
        return token, f"{url}&cell-number={quote(session.cell, safe='')}"

    async def terminate(self, session: Session, output: str = "") -> None:
        """End a session for good: both sides hear ``channel_closed``, sockets close a little later."""
        if session.is_over:
            return
        session.state, session.ended, session.output = State.TERMINATED, self._clock.wall(), output
        session.tokens.clear()
        closed = self._closed_frame(session)
        await session.to_client.carry(closed, service=True)
        # Never wait for the agent here: its reader may be blocked for ever.
        self._tasks.start(session.to_agent.carry(closed, service=True), f"close {session.id}")
        self._tasks.start(self._linger(session), f"linger {session.id}")

    def end_silently(self, session: Session) -> None:
        """The session is over, but nobody says so: sockets just die and ResumeSession gives no token."""
        session.state, session.ended = State.TERMINATED, self._clock.wall()
        session.tokens.clear()
        self.cut(session, "rst")
        if session.agent is not None:
            session.agent.cut()

    def forget(self, session: Session) -> None:
        """Drop the registry entry as if the service had never known it; ResumeSession will say so."""
        self.sessions.pop(session.id, None)
        self.cut(session, "rst")

    # -- the agent's side ----------------------------------------------------------------------------

    async def attach_agent(self, session: Session) -> AgentLink:
        """Open the agent's socket for a session.

        Raises:
            LinkCut: the session is over, or the agent is kept away by a fault.
        """
        if session.is_over:
            raise LinkCut("Session is already terminated")
        if self._clock.monotonic() < self._agents_away.get(session.id, 0.0):
            raise LinkCut("no way to the gateway")
        if session.agent is not None:
            session.agent.cut()
        session.agent = AgentLink(lambda data: self.from_agent(session, data))
        link = session.agent
        await self._publication(session)
        return link

    async def cut_agent(self, session: Session, seconds: float) -> None:
        """Cut the agent's socket and keep it away for so long; a real worker gives up after some seconds."""
        self._agents_away[session.id] = self._clock.monotonic() + seconds
        await self.detach_agent(session)

    async def detach_agent(self, session: Session) -> None:
        """The agent's socket is gone (cut, or closed by the worker)."""
        if session.agent is None:
            return
        session.agent.cut()
        session.agent = None
        if not session.is_over and session.client is not None:
            await session.to_client.carry(self._service(frame.PAUSE_PUBLICATION, session), service=True)

    async def from_agent(self, session: Session, data: bytes) -> None:
        """A frame from the agent: its state reports stay here, everything else goes to the client."""
        session.counts["from_agent"] += 1
        if data.startswith(_STATE_FRAME, 4):
            if b'"SessionState":"Terminating"' in data:
                await self.terminate(session)
            return
        self._traffic(session, data)
        await session.to_client.carry(data)

    async def task_complete(self, session: Session, output: str, *, failed: bool) -> None:
        """The agent's last word on a session (it travels on its control channel)."""
        if failed and output:
            output = f"Your session has been terminated for the following reasons: {output}"
        await self.terminate(session, output)

    # -- the client's side ---------------------------------------------------------------------------

    async def data_channel(self, request: web.Request) -> web.StreamResponse:
        """Handle one websocket of a client, from the upgrade to its end."""
        session = self.sessions.get(request.match_info["session"])
        await self._faults.pass_hole(session.id if session else None)
        if (refused := self._check_upgrade(request, session)) is not None:
            self.dials["refused"] += 1
            return refused
        websocket = web.WebSocketResponse(autoping=False, max_msg_size=0, compress=False, timeout=1.0)
        await websocket.prepare(request)
        transport = request.transport
        if transport is None:
            return websocket
        if (sock := transport.get_extra_info("socket")) is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets.add(websocket)
        self._transports[websocket] = transport
        try:
            await self._serve(websocket, session)
        finally:
            self._sockets.discard(websocket)
            self._transports.pop(websocket, None)
        return websocket

    def _check_upgrade(self, request: web.Request, session: Session | None) -> web.Response | None:
        try:
            self._faults.check_api("dial", "*")
        except Throttled as fault:
            return web.Response(status=fault.refusal.status, text=fault.refusal.code)
        if "Authorization" in request.headers:
            self.dials["signed"] += 1
            if self.options.verify_signatures and (problem := sigv4.problem(request, b"", "ssmmessages")):
                return web.Response(status=403, text=problem)
        elif self.options.require_signed_upgrade:
            return web.Response(status=403, text="Missing Authentication Token")
        if request.query.get("role") != "publish_subscribe":
            return web.Response(status=400, text="role")
        if session is not None and request.query.get("cell-number") != session.cell:
            return web.Response(status=400, text="cell-number")
        return None

    async def _serve(self, websocket: web.WebSocketResponse, session: Session | None) -> None:
        try:
            async with asyncio.timeout(self.options.open_timeout):
                first = await websocket.receive()
            opened = self._opened(first, session)
        except (TimeoutError, ValueError) as error:
            self.dials["rejected"] += 1
            log.info("open message rejected: %s", error)
            await websocket.close(code=1008, message=b"refused")
            return
        self.dials["opened"] += 1
        await self._attach_client(opened, websocket)
        bye = self._tasks.start(self._say_bye(websocket), "bye") if self.options.bye_after else None
        try:
            await self._read(opened, websocket)
        finally:
            if bye is not None:
                bye.cancel()
            await self._detach_client(opened, websocket)

    def _opened(self, message: WSMessage, session: Session | None) -> Session:
        """Check the first message. The text of the error never holds the token."""
        if message.type is not WSMsgType.TEXT:
            raise ValueError(f"the first message is {message.type.name}, not text")
        fields = json.loads(message.data)
        if not isinstance(fields, dict) or fields.get("MessageSchemaVersion") != "1.0":
            raise ValueError("schema version")
        UUID(str(fields.get("RequestId")))
        if session is None or session.is_over:
            raise ValueError("no such session")
        token = fields.get("TokenValue")
        if token not in session.tokens:
            raise ValueError("wrong or used token")
        client_id = fields.get("ClientId")
        if client_id is not None:
            UUID(str(client_id))
            if session.client_id not in (None, client_id):
                raise ValueError("another ClientId")
            session.client_id = client_id
        session.tokens.discard(token)
        return session

    async def _attach_client(self, session: Session, websocket: web.WebSocketResponse) -> None:
        if session.client is not None:
            self.cut(session, "fin")
        session.client = websocket
        session.client_seen.set()
        session.state = State.CONNECTED
        session.counts["attached"] += 1
        await self._publication(session, client_is_new=True)

    async def _detach_client(self, session: Session, websocket: web.WebSocketResponse) -> None:
        if session.client is not websocket:
            return
        session.client = None
        if not session.is_over:
            session.state = State.DISCONNECTED
            await session.to_agent.carry(self._service(frame.PAUSE_PUBLICATION, session), service=True)

    async def _read(self, session: Session, websocket: web.WebSocketResponse) -> None:
        while True:
            message = await websocket.receive()
            await self._faults.pass_hole(session.id)
            if message.type is WSMsgType.BINARY:
                data: bytes = message.data
            elif message.type is WSMsgType.TEXT:
                data = message.data.encode()
            elif message.type is WSMsgType.PING:
                session.counts["pings"] += 1
                with contextlib.suppress(ConnectionError):
                    await websocket.pong(message.data)
                continue
            elif message.type is WSMsgType.PONG:
                continue
            else:
                return
            session.counts["from_client"] += 1
            self._traffic(session, data)
            await session.to_agent.carry(data)

    async def _say_bye(self, websocket: web.WebSocketResponse) -> None:
        await asyncio.sleep(self.options.bye_after)
        await websocket.close(code=1000, message=b"Bye")

    # -- both ----------------------------------------------------------------------------------------

    async def _to_agent(self, session: Session, data: bytes) -> None:
        if session.agent is None:
            session.counts["lost_up"] += 1
        else:
            await session.agent.deliver(data)

    async def _to_client(self, session: Session, data: bytes) -> None:
        websocket = session.client
        if websocket is None or websocket.closed:
            session.counts["lost_down"] += 1
            return
        try:
            await websocket.send_bytes(data)
        except ConnectionError:
            session.counts["lost_down"] += 1

    async def _publication(self, session: Session, *, client_is_new: bool = False) -> None:
        """Tell whoever is there whether the other side is."""
        both = session.client is not None and session.agent is not None
        word = self._service(frame.START_PUBLICATION if both else frame.PAUSE_PUBLICATION, session)
        pipes = [session.to_client, session.to_agent]
        for pipe, present in zip(pipes if client_is_new else pipes[::-1], (True, both), strict=True):
            if present:
                await pipe.carry(word, service=True)

    def cut(self, session: Session, how: str) -> bool:
        """Cut the client's socket: ``rst``, ``fin`` or a websocket close code (with text: ``1001 away``)."""
        websocket = session.client
        transport = self._transports.get(websocket) if websocket is not None else None
        if websocket is None or transport is None or transport.is_closing():
            return False
        if how in ("rst", "fin"):
            sock = transport.get_extra_info("socket")
            if how == "rst" and sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            assert isinstance(transport, asyncio.Transport)
            transport.abort()
        else:
            code, _, text = how.partition(" ")
            self._tasks.start(websocket.close(code=int(code), message=text.encode()), "close code")
        return True

    async def close(self) -> None:
        """Drop every socket at once."""
        for websocket in list(self._sockets):
            transport = self._transports.get(websocket)
            if isinstance(transport, asyncio.Transport):
                transport.abort()

    async def _linger(self, session: Session) -> None:
        await asyncio.sleep(self.options.linger)
        if session.client is not None:
            await session.client.close(code=1000, message=b"Bye")

    async def _watch_idle(self, session: Session) -> None:
        while not session.is_over:
            left = session.last_traffic + self.options.idle_timeout - self._clock.monotonic()
            if left <= 0:
                await self.terminate(session, IDLE_TEXT)
                return
            await asyncio.sleep(left)

    def _traffic(self, session: Session, data: bytes) -> None:
        # Stream data counts in either direction; acknowledgements do not.
        if b"_stream_data" in data[4:24]:
            session.last_traffic = self._clock.monotonic()

    def _service(self, type_: str, session: Session) -> bytes:
        payload = json.dumps({"SessionId": session.id, "SchemaVersion": 1}).encode()
        return frame.encode(type_, 0, payload, 0, _CONTROL_FLAGS, self._id().bytes, self._now_ms())

    def _closed_frame(self, session: Session) -> bytes:
        fields: dict[str, Any] = {
            "MessageType": frame.CHANNEL_CLOSED,
            "MessageId": str(self._id()),
            "DestinationId": session.target,
            "SessionId": session.id,
            "SchemaVersion": 1,
            "CreatedDate": rfc3339(int(self._clock.wall())),
            "Output": session.output,
        }
        payload = json.dumps(fields, separators=(",", ":")).encode()
        raw = self._id().bytes
        # The service's own form: 112-byte header without a payload type, the name padded with NUL.
        name = frame.CHANNEL_CLOSED.encode().ljust(32, b"\0")
        header = struct.pack(
            ">I32sIQqQ16s32sI",
            112, name, 1, self._now_ms(), 0, _CONTROL_FLAGS, raw[8:] + raw[:8], sha256(payload).digest(),
            len(payload),
        )  # fmt: skip
        return header + payload

    def _now_ms(self) -> int:
        return int(self._clock.wall() * 1000)

    def _id(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)
