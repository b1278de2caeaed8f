"""A Session Manager on virtual time: an API, a dialer and links that fail on demand, with a real far end behind.

The far end is ``tests.kit.farend.FarEnd``; what is faked is the service between it and ``control``. Nothing
here sleeps unless a latency is set, so a test with the ``looptime`` marker takes no time at all.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from devboxd.control.base.shared import Shared
from devboxd.control.connect.plan import Plan, Quiet
from devboxd.control.connect.session import HeldSession
from devboxd.control.connect.sessions import Sessions
from devboxd.errors import DevboxError, LinkLost, SessionOver, Unreachable
from devboxd.model.box import Account
from devboxd.model.config import LinkSettings
from devboxd.model.session import SessionEnd, SessionState
from devboxd.model.states import Connection, SessionKind
from devboxd.ssm import effect, frame
from devboxd.ssm.payload import Flag, PayloadType, flag
from tests.kit.farend import FarEnd, closed, handshake_request, service_message


class LoopClock:
    """The event loop's own time, virtual or not; never zero, which a real clock is not either."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time() + 1000.0

    def wall(self) -> float:
        return asyncio.get_running_loop().time() + 1_700_000_000.0


@dataclass(frozen=True)
class FakeGrant:
    session_id: str
    token: str
    stream_url: str


@dataclass(eq=False)
class FakeSession:
    """A session at the service. ``alive`` until somebody ends it."""

    id: str
    target: str
    document: str | None
    parameters: dict[str, str]
    reason: str
    far_end: FarEnd
    alive: bool = True
    terminated: bool = False  # by TerminateSession
    started: bool = False
    opens: list[dict[str, Any]] = field(default_factory=list)  # the first message of every link
    links: list[FakeLink] = field(default_factory=list)

    @property
    def link(self) -> FakeLink:
        return self.links[-1]

    def write(self, data: bytes, payload_type: int = PayloadType.OUTPUT) -> None:
        """The program writes: to the link that is there, or to be repaired later."""
        frames = self.far_end.output(data, now(), payload_type)
        for one in frames:
            self.link.deliver(one)

    def close(self, reason: str = "") -> None:
        """The service's word that it is over."""
        self.alive = False
        self.link.deliver(closed(reason))


class FakeLink:
    """One websocket of a session. ``mute``: nothing arrives at the far end any more, pings do."""

    def __init__(self, session: FakeSession) -> None:
        self.session = session
        self.mute = False
        self.dies_young = False
        self.is_closed = False
        self.sent = 0
        self._inbox: asyncio.Queue[bytes | str | None] = asyncio.Queue()  # None: dead
        self._death = ""

    def deliver(self, data: bytes) -> None:
        if not self.mute:
            self._inbox.put_nowait(data)

    def cut(self, code: int | None = 1006) -> None:
        """The link dies."""
        self._death = f"cut with {code}"
        self._inbox.put_nowait(None)
        self.session.far_end.received(service_message(frame.PAUSE_PUBLICATION), now())

    def _check(self) -> None:
        if self._death:
            # A new one each time: an exception that is kept keeps all that its traceback has seen.
            raise LinkLost(self._death)

    async def send_text(self, text: str) -> None:
        self._check()
        session = self.session
        session.opens.append(msgspec.json.decode(text))
        if self.dies_young:
            self.cut(1006)
            return
        start = service_message(frame.START_PUBLICATION)
        self.deliver(start)
        answers = session.far_end.received(start, now())
        if not session.started:
            session.started = True
            answers += session.far_end.start(now())
        for one in answers:
            self.deliver(one)

    async def send(self, data: bytes) -> None:
        self._check()
        self.sent += 1
        if self.mute:
            return
        message = frame.decode(data)
        for one in self.session.far_end.received(data, now()):
            self.deliver(one)
        ends = (
            message.type == frame.INPUT
            and message.payload_type == PayloadType.FLAG
            and message.payload == flag(Flag.TERMINATE_SESSION)
        )
        if ends and self.session.document is not None and "Port" in self.session.document:
            # TerminateSession: a port worker ends by itself.
            self.session.close()

    async def receive(self) -> bytes | str:
        found = await self._inbox.get()
        if found is None:
            self._inbox.put_nowait(None)
            raise LinkLost(self._death)
        return found

    async def close(self) -> None:
        self.is_closed = True
        self._death = self._death or "closed here"
        if self.session.alive:
            self.session.far_end.received(service_message(frame.PAUSE_PUBLICATION), now())


class FakeService:
    """The API of one account and its gateway: ``SessionApi`` and ``Dialer`` in one."""

    def __init__(self, *, latency: float = 0.0) -> None:
        self.latency = latency
        self.sessions: dict[str, FakeSession] = {}
        self.calls: list[tuple[float, str]] = []
        self.errors: dict[str, deque[DevboxError]] = {}  # by call; each is used once
        self.down: dict[str, DevboxError] = {}  # by call, until taken out
        self.dials: list[Mapping[str, str]] = []
        self.young = 0  # links that die before their first message
        self.hang: set[str] = set()  # calls that never answer
        self.loses = 0  # answers to StartSession that never arrive
        self.known_active: bool | None = True
        self.keep_url = False  # ResumeSession answers without an address
        self.lasts: float | None = None  # seconds a session may last
        self.kms: tuple[bytes, bytes] | None = None
        self.account_number: str | None = "123456789012"

    # What a test looks at

    def times(self, call: str) -> list[float]:
        return [at for at, name in self.calls if name == call]

    @property
    def count(self) -> Counter[str]:
        return Counter(name for _, name in self.calls)

    @property
    def only(self) -> FakeSession:
        (session,) = self.sessions.values()
        return session

    @property
    def last(self) -> FakeSession:
        return list(self.sessions.values())[-1]

    def fail(self, call: str, *errors: DevboxError) -> None:
        self.errors.setdefault(call, deque()).extend(errors)

    def lose(self, *calls: str, **errors: DevboxError) -> None:
        """These calls never answer; those fail."""
        self.hang.update(calls)
        self.down.update(errors)

    # SessionApi

    async def _call(self, name: str) -> None:
        self.calls.append((now(), name))
        if name in self.hang:
            await asyncio.Event().wait()
        await asyncio.sleep(self.latency)
        if name in self.down:
            raise self.down[name]
        if self.errors.get(name):
            raise self.errors[name].popleft()

    def far_end(self, document: str | None, parameters: Mapping[str, str]) -> FarEnd:
        """What runs at the other end; a test may replace this."""
        if document is not None and "Port" in document:
            return FarEnd(
                request=handshake_request(type="LocalPortForwarding", portNumber=parameters["portNumber"])
            )
        return FarEnd()

    async def start(
        self, target: str, document: str | None, parameters: Mapping[str, str], *, reason: str
    ) -> FakeGrant:
        self.calls.append((now(), "start"))
        if "start" in self.hang:
            await asyncio.Event().wait()
        if "start" in self.down:
            raise self.down["start"]
        if self.errors.get("start"):
            await asyncio.sleep(self.latency)
            raise self.errors["start"].popleft()
        name = f"s-{len(self.sessions)}"
        self.sessions[name] = FakeSession(
            name, target, document, dict(parameters), reason, self.far_end(document, parameters)
        )
        await asyncio.sleep(self.latency)  # the session exists while its answer is on the way
        if self.loses:
            self.loses -= 1
            raise Unreachable("ssm:StartSession was not answered in time")
        return self._grant(name)

    def _grant(self, name: str) -> FakeGrant:
        return FakeGrant(name, f"token-{len(self.calls)}", f"wss://gateway/{name}")

    async def resume(self, session_id: str) -> FakeGrant:
        await self._call("resume")
        if not self.sessions[session_id].alive:
            raise SessionOver("the session has ended")
        grant = self._grant(session_id)
        return FakeGrant(grant.session_id, grant.token, "") if self.keep_url else grant

    async def terminate(self, session_id: str) -> None:
        await self._call("terminate")
        session = self.sessions[session_id]
        session.terminated, session.alive = True, False

    async def is_active(self, session_id: str, target: str) -> bool | None:
        await self._call("is_active")
        return self.known_active

    async def active(self, *, reason_prefix: str) -> Sequence[FakeSession]:
        await self._call("active")
        return [s for s in self.sessions.values() if s.alive and s.reason.startswith(reason_prefix)]

    async def connection_status(self, target: str) -> Connection | None:
        await self._call("connection_status")
        return Connection.CONNECTED

    async def connections(self) -> Mapping[str, Connection]:
        await self._call("connections")
        return {}

    async def account_id(self, session_id: str) -> str | None:
        await self._call("account_id")
        return self.account_number

    async def generate_data_key(self, key_id: str, context: Mapping[str, str]) -> tuple[bytes, bytes]:
        await self._call("generate_data_key")
        assert self.kms is not None
        return self.kms

    async def sign_upgrade(self, url: str) -> Mapping[str, str]:
        await self._call("sign_upgrade")
        return {"Authorization": "signed"}

    def ca_bundle(self) -> str | None:
        return None

    async def longest(self, session_id: str, target: str) -> float | None:
        return self.lasts

    async def refresh(self) -> None:
        await self._call("refresh")

    # Dialer

    async def dial(
        self, url: str, *, headers: Mapping[str, str], heartbeat: float, ca_bundle: str | None = None
    ) -> FakeLink:
        self.dials.append(headers)
        await self._call("dial")
        session = self.sessions.get(url.removeprefix("wss://gateway/"))
        if session is None:
            raise LinkLost(f"there is no gateway at {url!r}")
        link = FakeLink(session)
        if self.young:
            self.young -= 1
            link.dies_young = True
        session.links.append(link)
        return link


class Sink(Quiet):
    """Remembers what a session told its owner."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.states: list[tuple[SessionState, str]] = []
        self.readies: list[effect.Ready] = []
        self.gaps: list[int] = []
        self.changed = asyncio.Event()

    def ready(self, ready: effect.Ready) -> None:
        self.readies.append(ready)

    def output(self, data: bytes) -> None:
        self.out += data

    def skipped(self, frames: int) -> None:
        self.gaps.append(frames)

    def state(self, state: SessionState, text: str, retry_in: float | None) -> None:
        self.states.append((state, text))
        self.changed.set()


@dataclass
class Kept:
    """A ledger that is read by the test: which sessions the next daemon would end, and whose they are."""

    open: dict[str, Account] = field(default_factory=dict)

    def session_opened(self, id_: str, account: Account) -> None:
        self.open[id_] = account

    def session_over(self, id_: str) -> None:
        self.open.pop(id_, None)


def directory(shared: Shared, service: FakeService, owner: str = "me") -> tuple[Sessions, Kept]:
    """The sessions of a daemon that has one account, and its ledger."""
    kept = Kept()
    return Sessions(shared, lambda account: service, service, kept, owner=owner), kept


@dataclass
class Bench:
    """One held session on a fake service."""

    shared: Shared
    service: FakeService
    sink: Sink
    sessions: Sessions
    kept: Kept
    session: HeldSession

    seen: int = 0

    async def run(self) -> SessionEnd:
        """Hold the session."""
        return await self.sessions.hold(self.session)

    async def until(self, state: SessionState) -> None:
        """Wait for a state that was not waited for before; it may have passed already."""
        while True:
            for at, (entered, _) in enumerate(self.sink.states[self.seen :], self.seen):
                if entered is state:
                    self.seen = at + 1
                    return
            self.sink.changed.clear()
            await self.sink.changed.wait()


def bench(
    service: FakeService | None = None,
    *,
    dice: float = 0.5,
    kind: SessionKind = SessionKind.MUX,
    settings: LinkSettings | None = None,
    **plan: Any,
) -> Bench:
    """Make a session that is not run yet."""
    service = service or FakeService()
    shared, sink = Shared.of(LoopClock(), dice=lambda: dice), Sink()
    sessions, kept = directory(shared, service)
    wanted = Plan(target="i-1", box="api", kind=kind, **plan)
    session = sessions.open(wanted, sink, settings or LinkSettings())
    return Bench(shared, service, sink, sessions, kept, session)


def now() -> float:
    """Virtual time, as ``LoopClock`` shows it."""
    return asyncio.get_running_loop().time() + 1000.0


async def settle() -> None:
    """Let everything happen that needs no time."""
    for _ in range(30):
        await asyncio.sleep(0)
