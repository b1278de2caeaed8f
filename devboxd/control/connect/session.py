"""Hold one session: start it, run its links one after another, and say how it ended.

A link dies, a session ends. Whatever a network does, this keeps trying; only the service's word
(``channel_closed``, ``ResumeSession`` without a token), an unrecoverable channel or our own ``stop`` ends
a session. Decision table: ``docs/protocol.md``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final, Protocol, TypeVar
from uuid import uuid4

import msgspec

from devboxd.aws.errors import SessionOver, Throttled
from devboxd.control.base.needs import Dialer, Grant, Link, SessionApi
from devboxd.control.base.shared import Shared
from devboxd.errors import Denied, DevboxError, LoginNeeded, NotConnected, Unreachable, WrongState
from devboxd.model.box import Account
from devboxd.model.config import LinkSettings
from devboxd.model.names import session_reason
from devboxd.model.retry import backoff
from devboxd.model.session import Ending, SessionEnd, SessionState
from devboxd.model.states import KeepAlive, SessionKind
from devboxd.net.link import LinkLost, LinkRefused
from devboxd.ssm import effect
from devboxd.ssm.channel import Channel
from devboxd.ssm.limits import Limits
from devboxd.ssm.payload import Flag, PayloadType, flag
from devboxd.text import one_line

log = logging.getLogger(__name__)
T = TypeVar("T")

STABLE_AFTER: Final = 1.0  # seconds a link must live before the back-off starts afresh
ATTENDED_WAIT: Final = 2.0  # seconds between two tries while somebody waits, at most
WANTED_WAIT: Final = 5.0  # the same for a session that somebody may come back to
OUTAGE_SHARE: Final = 30  # these bounds grow to such a part of the outage so far
SHORT_LIVES: Final = 4  # links in a row that died without a frame before we ask whether the session exists
STALLED_AFTER: Final = 4.5  # seconds without an answer before we say that the box is silent: noticed in 15
PROBE_AFTER: Final = 9.0  # seconds of silence before an attended session asks the far end
SKIP_LOOK: Final = 0.25  # seconds between two looks for a gap
AGENT_REPAIR: Final = 0.1  # seconds that the agent takes for each frame it sends again
BEAT: Final = 5.0  # seconds between two looks at all sessions
NEVER_QUIET: Final = 60.0  # seconds without traffic after which a session under ``never`` is left alone
KEEP_ALIVE: Final = 45.0  # seconds of quiet; the shortest idle time-out an account can set is 60
WAKE_ANSWER: Final = 2.5  # seconds a link has to show life after sleep or a network change
TARGET_POLL: Final = 3.0  # seconds between tries while the box is not connected
SILENT_START: Final = 20.0  # seconds the far end has for its first sign of life
SILENT_LINK: Final = 5.0  # and at least so long on each link: the network may have been away until now
SILENT_STARTS: Final = 3  # sessions that we start before we believe that the box cannot
END_GRACE: Final = 2.0  # seconds the far end has to end a port session by itself
API_END_TIMEOUT: Final = 4.0  # seconds for TerminateSession when we stop
START_ANSWER: Final = 2.0  # seconds for the answer to StartSession when we are cancelled meanwhile
TIMER_SLACK: Final = 0.25  # seconds that a new timer may be late when the present one is nearer than that


class SessionEnded(DevboxError):
    """The session that this was meant for has ended."""

    code = "session-ended"
    exit_status = 7


class Tally(msgspec.Struct):
    """Bytes and events counted for ``status``."""

    bytes_up: int = 0
    bytes_down: int = 0
    resumes: int = 0


class Sink(Protocol):
    """Who a session's output goes to. Every call is immediate and must not raise."""

    def ready(self, ready: effect.Ready) -> None: ...
    def output(self, data: bytes) -> None: ...
    def error_output(self, data: bytes) -> None: ...
    def exit_code(self, code: int) -> None: ...
    def flag(self, number: int) -> None: ...
    def notice(self, text: str) -> None: ...
    def skipped(self, frames: int) -> None: ...
    def state(self, state: SessionState, text: str, retry_in: float | None) -> None: ...


class Quiet:
    """A sink that ignores everything: inherit and override what matters."""

    def ready(self, ready: effect.Ready) -> None:
        """The far end takes data."""

    def output(self, data: bytes) -> None:
        """Bytes of the far end."""

    def error_output(self, data: bytes) -> None:
        """Standard error of a non-interactive command."""

    def exit_code(self, code: int) -> None:
        """Exit status of a non-interactive command."""

    def flag(self, number: int) -> None:
        """A flag of the far end."""

    def notice(self, text: str) -> None:
        """Text of the account's administrator."""

    def skipped(self, frames: int) -> None:
        """Output is missing here, as ``skip_after`` allowed."""

    def state(self, state: SessionState, text: str, retry_in: float | None) -> None:
        """The session's state changed."""


class Plan(msgspec.Struct, frozen=True):
    """What to start: the document and its parameters, and how patient to be about it."""

    target: str
    box: str  # the box's name, for people
    kind: SessionKind
    account: Account = Account()
    document: str | None = None
    parameters: Mapping[str, str] = {}
    limits: Limits = Limits()
    wait: float | None = 120.0  # seconds for a box that is not connected yet; None: for ever
    patient: bool = False  # wait for a login, too, instead of failing
    priority: float = 0.0  # lower goes first when many sessions come back at once
    keep_alive: KeepAlive = KeepAlive.AUTO


class HeldSession:
    """One SSM session over as many links as it takes. ``run`` once; everything else while it runs."""

    def __init__(
        self,
        shared: Shared,
        api: SessionApi,
        dialer: Dialer,
        plan: Plan,
        sink: Sink,
        settings: LinkSettings | None = None,
    ) -> None:
        self.plan = plan
        self.id: str | None = None
        self.state = SessionState.STARTING
        self.detail = ""
        self.changed_at = shared.time.wall()
        self.tally = Tally()
        self.attended = False  # somebody waits for answers: look for a dead far end
        self.wanted = False  # somebody may come back to it: keep it alive
        self.channel: Channel | None = None
        self.skip_after: float | None = None  # seconds a frame may be missing before it is given up
        self._started_at = 0.0
        self._looked = 0.0
        self._was_missing = 0
        self.touch: Callable[[], None] = self.probe  # what keeps this kind of session alive
        self._touched = 0.0
        self.on_probe: Callable[[], None] = lambda: None
        self._shared = shared
        self._api = api
        self._dialer = dialer
        self._sink = sink
        self._settings = settings or LinkSettings()
        self._client_id = uuid4()
        self._outgoing: deque[bytes | str] = deque()
        self._ahead: deque[bytes | str] = deque()  # what need not wait behind a thousand acknowledgements
        self._wake_writer = asyncio.Event()
        self._wake_timer = asyncio.Event()
        self._timer_far = True
        self._room = asyncio.Event()
        self._ready = asyncio.Event()
        self._ended = asyncio.Event()
        self._connected = asyncio.Event()  # a link is up
        self._end: SessionEnd | None = None
        self._stopping = False
        self._heard = 0.0  # monotonic time of the last message from the link
        self._lost_at = shared.time.monotonic()  # when the last link that worked was lost
        self._probed: float | None = None
        self._used = 0.0  # monotonic time of the last bytes that somebody sent or got
        self._sign = True
        self._online = False

    # For its owner ----------------------------------------------------------------------------------

    async def run(self) -> SessionEnd:
        """Start the session and hold it until it ends. Cancelling ends it at AWS's side, too."""
        end: SessionEnd | None = None
        self._shared.sessions.running[self] = None
        try:
            for _ in range(SILENT_STARTS):
                try:
                    grant = await self._start()
                except DevboxError as error:
                    end = self._end or SessionEnd(Ending.FAILED, error.message, error=error)
                    return end
                end = await self._hold(grant)
                if end.ending is not Ending.SILENT:
                    return end
                # The agent drops a session task that comes just after its own start, without a word.
                log.warning("session %s of %s never started; starting another", self.id, self.plan.box)
                await self._give_up()
                if self._stopping:
                    end = SessionEnd(Ending.STOPPED)
                    return end
            failure = Unreachable(
                f"{self.plan.box} does not start sessions",
                hint="is its agent healthy? Restart amazon-ssm-agent, or reboot the box",
            )
            end = SessionEnd(Ending.FAILED, failure.message, error=failure)
            return end
        finally:
            self._end = end = end or SessionEnd(Ending.STOPPED)
            self._set(SessionState.ENDED, end.reason)
            self._ended.set()
            self._ready.set()
            self._room.set()
            self._shared.sessions.running.pop(self, None)
            if self.id is not None and end.ending not in (Ending.FINISHED, Ending.GONE):
                await self._terminate()
            elif self.id is not None:
                self._shared.sessions.over(self.id)

    async def stop(self) -> None:
        """End the session: ask the far end first where it listens, then AWS. ``run`` returns soon after."""
        self._stopping = True
        listens = self.channel is not None and self.channel.ready
        if (
            listens
            and self.state is SessionState.ONLINE
            and self.plan.kind in (SessionKind.PORT, SessionKind.SSH)
        ):
            self.send_now(PayloadType.FLAG, flag(Flag.TERMINATE_SESSION))
            try:
                async with asyncio.timeout(END_GRACE):
                    await self._ended.wait()
            except TimeoutError:
                pass
        if not self._ended.is_set():
            self._finish(SessionEnd(Ending.STOPPED))

    def abandon(self, reason: str) -> None:
        """End a session that is of no more use, so that its owner can start another."""
        self._finish(SessionEnd(Ending.BROKEN, reason, self._ready.is_set()))

    async def wait_ready(self) -> None:
        """Wait until the far end takes data, and a link is up to carry it.

        Raises:
            SessionEnded: it ended instead; the error that made it fail is raised as it is.
        """
        await self._ready.wait()
        await self._connected.wait()
        self._raise_if_ended()

    async def ended(self) -> None:
        """Wait until the session has ended."""
        await self._ended.wait()

    @property
    def stopping(self) -> bool:
        """Say whether it was told to end."""
        return self._stopping

    @property
    def end(self) -> SessionEnd | None:
        """How it ended; None while it lives."""
        return self._end

    async def send(self, data: bytes, payload_type: PayloadType = PayloadType.OUTPUT) -> None:
        """Send bytes to the far end; waits while too much is unacknowledged. Nothing is ever dropped.

        Raises:
            SessionEnded: the session ended before all was taken.
        """
        view = memoryview(data)
        while view:
            view = view[await self.send_some(view, payload_type) :]

    async def send_some(
        self, data: bytes | bytearray | memoryview, payload_type: PayloadType = PayloadType.OUTPUT
    ) -> int:
        """Wait for room and send what fits; returns how many bytes that was. Cancelled, it has sent nothing.

        Raises:
            SessionEnded: the session ended first.
        """
        if not self._ready.is_set():
            await self._ready.wait()
        while True:
            self._raise_if_ended()
            channel = self.channel
            assert channel is not None
            if (room := channel.room) > 0:
                break
            self._room.clear()
            await self._room.wait()
        part, now = bytes(memoryview(data)[:room]), self._shared.time.monotonic()
        self._apply(channel.send(payload_type, part, now), self._ahead)
        self.tally.bytes_up += len(part)
        self._used = now
        return len(part)

    def send_now(self, payload_type: PayloadType, data: bytes) -> None:
        """Send a size or a flag ahead of the bound. Does nothing without a channel."""
        if self.channel is not None and not self._ended.is_set():
            self._apply(self.channel.send(payload_type, data, self._shared.time.monotonic()), self._ahead)

    def probe(self) -> None:
        """Ask the far end for a sign of life (it counts as activity, too)."""
        if self.channel is not None and self.channel.ready:
            now = self._shared.time.monotonic()
            if self._probed is None:
                self._probed = now
            self._apply(self.channel.probe(now))

    @property
    def round_trip(self) -> float | None:
        """Smoothed seconds to the far end and back, once measured."""
        return self.channel.round_trip if self.channel is not None else None

    # Starting ---------------------------------------------------------------------------------------

    async def _start(self) -> Grant:
        """StartSession, patient with a box that boots and with a network that is down."""
        plan, clock = self.plan, self._shared.time
        deadline = None if plan.wait is None else clock.monotonic() + plan.wait
        began = clock.monotonic()
        delays = backoff(self._shared.time.dice)
        reason = session_reason(self._shared.sessions.owner, plan.kind, self._shared.sessions.run)
        while True:
            try:
                async with self._shared.gates.of(self._api).enter(plan.priority):
                    grant = await self._ask_start(reason)
            except LoginNeeded as error:
                if not plan.patient:
                    raise
                self._set(SessionState.STARTING, error.message)
                if await self._wait_or_end(self._shared.bells.logins.wait(30.0)):
                    raise
                await self._api.refresh()
                continue
            except DevboxError as error:
                now = clock.monotonic()
                if not error.retryable or (deadline is not None and now >= deadline) or self._stopping:
                    raise
                delay = next(delays)
                if isinstance(error, NotConnected):
                    delay = TARGET_POLL * (0.7 + 0.6 * self._shared.time.dice())
                    text = f"{plan.box} is not connected to Session Manager yet ({now - began:.0f} s)"
                else:
                    text = error.message
                if deadline is not None:
                    delay = min(delay, max(0.05, deadline - now))
                self._set(SessionState.STARTING, text, delay)
                if await self._wait_or_end(self._shared.bells.network.wait(delay)):
                    raise
                continue
            self.id = grant.session_id
            self._shared.sessions.started(self.id, self.plan.box)
            return grant

    async def _ask_start(self, reason: str) -> Grant:
        """StartSession. Whoever is cancelled while AWS answers must still learn what there is to end."""
        plan = self.plan
        asking = asyncio.ensure_future(
            self._api.start(plan.target, plan.document, plan.parameters, reason=reason)
        )
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            await asyncio.wait({asking}, timeout=START_ANSWER)
            if asking.done() and not asking.cancelled() and asking.exception() is None:
                self.id = asking.result().session_id
                self._shared.sessions.started(self.id, plan.box)
            asking.cancel()
            raise

    # Holding ----------------------------------------------------------------------------------------

    async def _hold(self, grant: Grant) -> SessionEnd:
        clock = self._shared.time
        self._started_at = clock.monotonic()
        channel = self.channel = Channel(
            session_id=grant.session_id,
            target=self.plan.target,
            client_id=self._client_id,
            limits=self.plan.limits,
        )
        delays = backoff(self._shared.time.dice)
        url, short_lives = grant.stream_url, 0
        while True:
            began, dropped = clock.monotonic(), "the link was lost"
            rings = self._shared.bells.network.rings
            self._heard = 0.0
            try:
                link = await self._unless_ended(self._dial(url), or_network=True)
                end = await self._serve(link, grant) if link is not None else self._end
                if end is not None:
                    return end
            except LinkRefused as error:
                dropped = error.message
                if error.status in (401, 403):
                    self._sign = not self._sign  # some gateways want a signature, some refuse one
            except DevboxError as error:
                dropped = error.message
            channel.lost(clock.monotonic())
            self._outgoing.clear()
            self._ahead.clear()
            self._online = False
            self._probed = None
            if self._end is not None:
                return self._end
            lived = clock.monotonic() - began
            if self._heard:
                self._lost_at = clock.monotonic()
            if self._heard and lived > STABLE_AFTER:
                delays = backoff(self._shared.time.dice)
            short_lives = 0 if self._heard else short_lives + 1
            log.info("session %s of %s: %s after %.1f s", self.id, self.plan.box, dropped, lived)
            if short_lives and short_lives % SHORT_LIVES == 0 and await self._is_gone():
                return SessionEnd(Ending.GONE, "the session no longer exists", self._ready.is_set())
            # A link that lived is resumed at once, and so it is after a change of networks; one that died young
            # waits its turn.
            prompt = (self._heard and lived > STABLE_AFTER) or rings != self._shared.bells.network.rings
            delay = 0.0 if prompt else self._patience(next(delays))
            resumed = await self._resume(dropped, delay, delays)
            if isinstance(resumed, SessionEnd):
                return resumed
            # The address of a resumed session may be left out: it is the old one then.
            if resumed.stream_url:
                url = resumed.stream_url
            grant = resumed
            self.tally.resumes += 1

    async def _dial(self, url: str) -> Link:
        headers: Mapping[str, str] = {}
        if self._sign:
            try:
                headers = await self._api.sign_upgrade(url)
            except DevboxError as error:
                log.info("session %s: dialling unsigned: %s", self.id, error.message)
        return await self._dialer.dial(
            url, headers=headers, heartbeat=self._settings.heartbeat, ca_bundle=self._api.ca_bundle()
        )

    async def _resume(self, why: str, delay: float, delays: Iterator[float]) -> Grant | SessionEnd:
        """Get the right to a new link, for as long as it takes; or learn that the session is over."""
        assert self.id is not None
        text = why
        while True:
            if self._end is not None:
                return self._end
            self._set(SessionState.RECONNECTING, text, delay)
            if delay and await self._wait_or_end(self._shared.bells.network.wait(delay)):
                continue
            try:
                # In the order of use: what somebody typed into last comes back first.
                async with self._shared.gates.of(self._api).enter(-self._used):
                    grant = await self._unless_ended(self._api.resume(self.id), or_network=True)
                if grant is not None:
                    return grant
                delay = 0.0
            except SessionOver as error:
                return SessionEnd(Ending.GONE, error.message, self._ready.is_set())
            except (LoginNeeded, Denied) as error:
                # Expired or revoked: a person has to act. The session itself needs no credentials to live.
                text = error.message
                self._set(SessionState.RECONNECTING, text, 30.0)
                await self._wait_or_end(self._shared.bells.logins.wait(30.0))
                await self._api.refresh()
                delay = 0.0
            except Throttled as error:
                text = error.message
                delay = next(delays)
            except DevboxError as error:
                text = error.message
                delay = self._patience(next(delays))

    def _patience(self, delay: float) -> float:
        """Bound a wait behind which somebody sits: a network may come back without a word to us.

        The bound grows with the outage, so that a laptop that is off line for a day does not call each second.
        """
        if not (self.attended or self.wanted):
            return delay
        outage = self._shared.time.monotonic() - self._lost_at
        longest = max(ATTENDED_WAIT if self.attended else WANTED_WAIT, outage / OUTAGE_SHARE)
        return min(delay, longest * (0.5 + 0.5 * self._shared.time.dice()))

    async def _wait_or_end(self, wait: Awaitable[object]) -> bool:
        """Wait for something, or until the session is told to end; say whether it was."""
        waiter = asyncio.ensure_future(wait)
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({waiter, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
            ended.cancel()
        return self._ended.is_set()

    async def _unless_ended(self, work: Awaitable[T], *, or_network: bool = False) -> T | None:
        """The result of ``work``; None, and ``work`` cancelled, when the session is told to end first.

        With ``or_network`` also when the network changes: what was asked over the old one may never be answered.
        """
        task = asyncio.ensure_future(work)
        rung = asyncio.ensure_future(self._shared.bells.network.wait(None)) if or_network else None
        try:
            first = asyncio.wait({task, *({rung} if rung else ())}, return_when=asyncio.FIRST_COMPLETED)
            await self._wait_or_end(first)
            return await task if task.done() else None
        finally:
            task.cancel()
            if rung is not None:
                rung.cancel()

    async def _is_gone(self) -> bool:
        assert self.id is not None
        try:
            return await self._api.is_active(self.id, self.plan.target) is False
        except DevboxError:
            return False

    # One link ---------------------------------------------------------------------------------------

    async def _serve(self, link: Link, grant: Grant) -> SessionEnd | None:
        """Run one link. Returns the end of the session, or None when only the link is lost."""
        channel, clock = self.channel, self._shared.time
        assert channel is not None
        self._outgoing.clear()
        self._ahead.clear()
        self._apply(
            channel.opened(
                clock.monotonic(), token=grant.token, request_id=uuid4(), wall_ms=int(clock.wall() * 1000)
            )
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                work = [
                    tasks.create_task(self._write(link), name=f"{self.id}: write"),
                    tasks.create_task(self._time(link), name=f"{self.id}: time"),
                    tasks.create_task(self._guard(link), name=f"{self.id}: guard"),
                    tasks.create_task(self._demand_start(link), name=f"{self.id}: start"),
                ]
                reader = tasks.create_task(self._read(link), name=f"{self.id}: read")
                await self._wait_or_end(asyncio.shield(reader))
                if not self._ended.is_set():
                    await reader
                for task in (*work, reader):
                    task.cancel()
        except* LinkLost as group:
            log.info("session %s: %s", self.id, group.exceptions[0])
        finally:
            await link.close()
        return self._end

    async def _read(self, link: Link) -> None:
        channel, monotonic, apply = self.channel, self._shared.time.monotonic, self._apply
        assert channel is not None
        while self._end is None:
            data = await link.receive()
            now = self._heard = monotonic()
            if not self._online:
                self._online = True
                self._set(SessionState.ONLINE)
            apply(channel.received(data, now))
            if self.skip_after is not None and now - self._looked >= SKIP_LOOK:
                self._look_for_gap(now)

    def _look_for_gap(self, now: float) -> None:
        """Where a gap would take long to repair, and its bytes can be had otherwise, do not wait for them."""
        channel = self.channel
        assert channel is not None
        assert self.skip_after is not None
        self._looked = now
        missing = channel.missing
        repair = min(missing, self._was_missing) * AGENT_REPAIR
        self._was_missing = missing
        if missing and (repair > 2 * self.skip_after or channel.gap_age(now) > self.skip_after):
            log.info(
                "session %s: skipped %d frames that the agent would take long to repair", self.id, missing
            )
            self._apply(channel.skip_ahead(now))
            self._sink.skipped(missing)
            self._was_missing = 0

    async def _write(self, link: Link) -> None:
        ahead, outgoing = self._ahead, self._outgoing
        wake, monotonic = self._wake_writer, self._shared.time.monotonic
        rate = float(self._settings.frames_per_second)  # a limit of ours; the service is said to cut at 1000
        tokens, filled = rate, monotonic()
        turn = False
        while True:
            while ahead or outgoing:
                if rate > 0:
                    if tokens < 1:
                        now = monotonic()
                        tokens = min(rate, tokens + (now - filled) * rate)
                        filled = now
                        if tokens < 1:
                            await asyncio.sleep(max(0.001, (1 - tokens) / rate))
                            continue
                    tokens -= 1
                # In turns: a key overtakes the acknowledgements of a flood, and an upload starves none.
                turn = bool(ahead) and not (turn and outgoing)
                frame = ahead.popleft() if turn else outgoing.popleft()
                if isinstance(frame, str):
                    await link.send_text(frame)
                else:
                    await link.send(frame)
            wake.clear()
            await wake.wait()

    async def _give_up(self) -> None:
        """Forget a session that never came to life, so that ``run`` can start another."""
        await self._terminate()
        self._end = None
        self._ended.clear()
        self._online = False
        self.channel = self.id = None

    async def _demand_start(self, link: Link) -> None:
        """A session whose far end says nothing at all was not started."""
        channel = self.channel
        assert channel is not None
        opened = self._shared.time.monotonic()
        while channel.heard_at is None:
            until = max(self._started_at + SILENT_START, opened + SILENT_LINK)
            left = until - self._shared.time.monotonic()
            if left <= 0:
                self._finish(SessionEnd(Ending.SILENT, f"{self.plan.box} did not start the session"))
                return
            await asyncio.sleep(left)

    async def _time(self, link: Link) -> None:
        """Run the channel's timers, sleeping for exactly as long as there is nothing to do."""
        channel, monotonic = self.channel, self._shared.time.monotonic
        assert channel is not None
        while True:
            now = monotonic()
            deadline = channel.next_deadline()
            self._wake_timer.clear()
            self._timer_far = deadline is None or deadline - now > TIMER_SLACK
            if self._timer_far:
                # What happens meanwhile may have a timer of its own that is nearer: then look again.
                try:
                    async with asyncio.timeout(None if deadline is None else deadline - now):
                        await self._wake_timer.wait()
                    continue
                except TimeoutError:
                    pass
            elif deadline is not None and deadline > now:
                await asyncio.sleep(max(0.001, deadline - now))
            self._apply(channel.tick(monotonic()))

    def beat(self) -> None:
        """Called every ``BEAT`` seconds: notice a far end that is dead behind a live link, and keep alive.

        Asking counts as activity at the service, so it is done only where the policy lets us: ``never``
        leaves a session alone once nothing has passed for ``NEVER_QUIET`` seconds.
        """
        channel, now = self.channel, self._shared.time.monotonic()
        if channel is None or not channel.ready or not self._online:
            return
        quiet = now - self._heard
        if now - self._touched >= KEEP_ALIVE and now - self._used >= KEEP_ALIVE - BEAT:
            self._keep_alive(now)
        if self._probed is not None:
            # Over a thin line the probe waits behind what was sent before: any sign of life will do.
            silent_since = max(self._probed, channel.heard_at or 0.0)
            if now - silent_since > STALLED_AFTER and self.state is SessionState.ONLINE:
                self._set(SessionState.STALLED, f"{self.plan.box} does not answer")
        elif channel.unacknowledged or (self.attended and quiet >= PROBE_AFTER - BEAT and self._may_ask(now)):
            self.probe()

    def _may_ask(self, now: float) -> bool:
        """Say whether the policy lets us send what may count as activity."""
        return self.plan.keep_alive is not KeepAlive.NEVER or now - self._used < NEVER_QUIET

    def _keep_alive(self, now: float) -> None:
        """Touch a quiet session so that its idle time-out starts afresh, where the policy says so."""
        policy = self.plan.keep_alive
        if policy is KeepAlive.NEVER or (policy is KeepAlive.AUTO and not self.attended and not self.wanted):
            return
        if not self._touched:
            text = f"a quiet {self.plan.kind} session is kept from its idle time-out (keep_alive = {policy})"
            self._shared.news.tell("session.kept-alive", text, box=self.plan.box)
        self._touched = now
        self.touch()

    async def _guard(self, link: Link) -> None:
        """After sleep or a network change, demand a sign of life at once instead of waiting for TCP."""
        channel, monotonic = self.channel, self._shared.time.monotonic
        assert channel is not None
        while True:
            await self._shared.bells.network.wait(None)
            rung = monotonic()
            if not channel.ready or not self._may_ask(rung):
                continue
            self.probe()
            await asyncio.sleep(WAKE_ANSWER)
            if self._heard < rung:
                raise LinkLost("no sign of life after sleep or a network change")

    # Effects ----------------------------------------------------------------------------------------

    def _apply(self, effects: list[effect.Effect], queue: deque[bytes | str] | None = None) -> None:
        outgoing = self._outgoing if queue is None else queue
        for item in effects:
            kind = type(item)
            if kind is effect.Send:
                outgoing.append(item.data)  # type: ignore[union-attr]
            elif kind is effect.Output:
                data = item.data  # type: ignore[union-attr]
                self.tally.bytes_down += len(data)
                self._used = self._heard
                self._sink.output(data)
            else:
                self._apply_rare(item)
        if outgoing:
            self._wake_writer.set()
        if self._timer_far:
            self._timer_far = False
            self._wake_timer.set()

    def _apply_rare(self, item: effect.Effect) -> None:
        match item:
            case effect.SendText(text):
                self._ahead.appendleft(text)  # nothing may come before it
            case effect.Writable():
                self._room.set()
            case effect.ErrorOutput(data):
                self.tally.bytes_down += len(data)
                self._sink.error_output(data)
            case effect.ExitCode(code):
                self._sink.exit_code(code)
            case effect.FlagReceived(number):
                self._sink.flag(number)
            case effect.Notice(text):
                self._sink.notice(one_line(text))
            case effect.ProbeAnswered():
                self._probed = None
                self.on_probe()
                if self.state is SessionState.STALLED:
                    self._set(SessionState.ONLINE)
            case effect.Ready():
                self._ready.set()
                self._room.set()
                self._sink.ready(item)
            case effect.NeedDataKey(key_id, context):
                self._shared.tasks.spawn(f"{self.id}: data key", self._fetch_key(key_id, context))
            case effect.Closed(reason):
                self._finish(SessionEnd(Ending.FINISHED, one_line(reason), self._ready.is_set()))
            case effect.Broken(reason):
                self._finish(SessionEnd(Ending.BROKEN, reason, self._ready.is_set()))
            case effect.Send() | effect.Output():
                raise AssertionError("handled by the caller")

    async def _fetch_key(self, key_id: str, context: dict[str, str]) -> None:
        channel = self.channel
        assert channel is not None
        try:
            plaintext, ciphertext = await self._api.generate_data_key(key_id, context)
        except DevboxError as error:
            self._shared.news.tell("session.key-failed", error.message, box=self.plan.box)
            self._apply(channel.data_key_failed(error.message, self._shared.time.monotonic()))
            failure = WrongState(f"the session cannot be encrypted: {error.message}", hint=error.hint)
            self._finish(SessionEnd(Ending.FAILED, failure.message, error=failure))
        else:
            self._apply(channel.data_key(plaintext, ciphertext, self._shared.time.monotonic()))

    def _finish(self, end: SessionEnd) -> None:
        if self._end is None:
            self._end = end
            self._ended.set()

    def _raise_if_ended(self) -> None:
        if self._ended.is_set():
            if self._end is not None and isinstance(self._end.error, DevboxError):
                raise self._end.error
            reason = self._end.reason if self._end is not None else ""
            raise SessionEnded(reason or f"the session to {self.plan.box} has ended")

    def _set(self, state: SessionState, text: str = "", retry_in: float | None = None) -> None:
        if state is not self.state:
            self.changed_at = self._shared.time.wall()
            if {state, self.state} == {SessionState.ONLINE, SessionState.RECONNECTING}:
                verb = "resumed" if state is SessionState.ONLINE else "lost its link"
                self._shared.news.tell(
                    f"session.{state.value}",
                    f"{self.plan.kind} session {verb} {text}".strip(),
                    box=self.plan.box,
                )
        self.state = state
        self.detail = text
        if state is SessionState.RECONNECTING:
            self._connected.clear()
        elif state in (SessionState.ONLINE, SessionState.ENDED):
            self._connected.set()
        self._sink.state(state, text, retry_in)

    async def _terminate(self) -> None:
        assert self.id is not None
        try:
            async with asyncio.timeout(API_END_TIMEOUT):
                async with self._shared.gates.of(self._api).enter(-1.0):
                    await self._api.terminate(self.id)
            self._shared.sessions.over(self.id)
        except (DevboxError, TimeoutError) as error:
            # It stays in the journal, for the sweep of the next daemon.
            log.warning("session %s could not be ended at AWS: %s", self.id, error)
