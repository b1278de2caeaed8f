"""Hold one session: start it, run its links one after another, and say how it ended.

What to do after what is one table, ``model.hold``; here it is asked and done. One link is carried by ``carry``,
each call is made by ``service``, and how the session ends is decided once, in ``fate``.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final
from uuid import uuid4

import msgspec

from devboxd.control.base.bells import Bell
from devboxd.control.base.needs import Link
from devboxd.control.base.shared import Shared
from devboxd.control.connect.carry import Carrier, Event, Heard, Lasting, Skipped, Tally
from devboxd.control.connect.fate import Fate
from devboxd.control.connect.plan import Plan, Sink
from devboxd.control.connect.service import Outcome, Service
from devboxd.errors import DevboxError, WrongState
from devboxd.model.hold import (
    TABLE,
    Do,
    Happened,
    Interest,
    Liveness,
    Past,
    Step,
    keeps_alive,
    liveness,
    next_step,
)
from devboxd.model.session import Ending, SessionEnd, SessionState
from devboxd.model.states import SessionKind
from devboxd.ssm import effect
from devboxd.ssm.channel import Channel
from devboxd.ssm.payload import Flag, PayloadType, flag
from devboxd.text import one_line

log = logging.getLogger(__name__)

END_GRACE: Final = 2.0  # seconds the far end has to end a port session by itself


class HeldSession:
    """One SSM session over as many links as it takes. ``Sessions`` makes and runs it."""

    def __init__(
        self, shared: Shared, service: Service, plan: Plan, sink: Sink, *, frames_per_second: float
    ) -> None:
        now = shared.time.monotonic()
        self.plan = plan
        self.state = SessionState.STARTING
        self.detail = ""
        self.changed_at = shared.time.wall()
        self.tally = Tally()
        self.channel: Channel | None = None
        self._shared = shared
        self._sink = sink
        self._service = service
        self._fate = Fate()
        self._past = Past(began=now, lost_at=now, patience=plan.wait, waits_for_login=plan.patient)
        self._carrier: Carrier | None = None
        self._lasting = Lasting(
            time=shared.time,
            network=shared.bells.network,
            tally=self.tally,
            output=sink.output,
            take=self._take,
            keep_alive=plan.keep_alive,
            frames_per_second=frames_per_second,
        )
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._connected = asyncio.Event()  # a link is up
        self._answered = Bell()  # a probe was
        self._attended = plan.attended
        self._touched_at = 0.0

    # For its owner ----------------------------------------------------------------------------------

    async def run(self) -> SessionEnd:
        """Start the session and hold it until it ends. Cancelling ends it at AWS's side, too."""
        try:
            self._fate.decide(await self._hold())
        finally:
            self._finish(Happened.STOPPED)  # where nothing else was decided: we were cancelled
            end = await self._fate.wait()
            self._set(SessionState.ENDED, end.reason)
            self._ready.set()
            self._room.set()
            self._answered.ring()
            if end.ending in (Ending.FINISHED, Ending.GONE):
                self._service.is_over()
            else:
                await self._service.end()
        return end

    async def stop(self) -> None:
        """End the session: ask the far end first where it listens, then AWS. ``run`` returns soon after."""
        self._fate.stopping = True
        listens = self.channel is not None and self.channel.ready
        asks = self.plan.kind in (SessionKind.PORT, SessionKind.SSH)  # the others do not know the flag
        if listens and asks and self.state is SessionState.ONLINE:
            self.send_now(PayloadType.FLAG, flag(Flag.TERMINATE_SESSION))
            try:
                async with asyncio.timeout(END_GRACE):
                    await self._fate.wait()
            except TimeoutError:
                pass
        self._finish(Happened.STOPPED)

    def abandon(self, reason: str) -> None:
        """End a session that is of no more use, so that its owner can start another."""
        self._finish(Happened.BROKEN, reason)

    def attend(self, is_attended: bool) -> None:
        """Say whether somebody waits for answers: then a dead far end is looked for."""
        self._attended = is_attended

    def skip_gaps(self, after: float | None) -> None:
        """Give up output that is missing for so many seconds; None: never. Its owner can have it otherwise."""
        self._lasting.skip_after = after

    async def wait_ready(self) -> None:
        """Wait until the far end takes data, and a link is up to carry it.

        Raises:
            SessionEnded: it ended instead; the error that made it fail is raised as it is.
        """
        await self._ready.wait()
        await self._connected.wait()
        self._fate.raise_if_ended(self.plan.box)

    @property
    def id(self) -> str | None:
        """The service's name for it, once there is one."""
        return self._service.id

    @property
    def stopping(self) -> bool:
        """Say whether it was told to end."""
        return self._fate.stopping

    @property
    def end(self) -> SessionEnd | None:
        """How it ended; None while it lives."""
        return self._fate.end

    @property
    def round_trip(self) -> float | None:
        """Smoothed seconds to the far end and back, once measured."""
        return self.channel.round_trip if self.channel is not None else None

    # Sending ----------------------------------------------------------------------------------------

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
            if self._fate.end is not None:
                self._fate.raise_if_ended(self.plan.box)
            channel = self.channel
            assert channel is not None
            if (room := channel.room) > 0:
                break
            self._room.clear()
            await self._room.wait()
        part, now = bytes(memoryview(data)[:room]), self._shared.time.monotonic()
        self._apply(channel.send(payload_type, part, now))
        self.tally.bytes_up += len(part)
        self.tally.used_at = now
        return len(part)

    def send_now(self, payload_type: PayloadType, data: bytes) -> None:
        """Send a size or a flag ahead of the bound. Does nothing without a channel."""
        if self.channel is not None and self._fate.end is None:
            self._apply(self.channel.send(payload_type, data, self._shared.time.monotonic()))

    def _apply(self, effects: list[effect.Effect]) -> None:
        """Send what the channel has made of our own doing. Without a link it keeps that for the next one."""
        if self._carrier is not None:
            self._carrier.apply(effects, ahead=True)

    def probe(self) -> None:
        """Ask the far end for a sign of life (it counts as activity, too)."""
        if self._carrier is not None:
            self._carrier.probe()

    async def measure(self) -> float:
        """Ask the far end for a sign of life, and return the seconds until it came.

        Raises:
            SessionEnded: the session ended instead.
        """
        await self.wait_ready()
        asked = self._shared.time.monotonic()
        self.probe()
        await self._answered.wait(None)
        self._fate.raise_if_ended(self.plan.box)
        return self._shared.time.monotonic() - asked

    # Holding ----------------------------------------------------------------------------------------

    async def _hold(self) -> SessionEnd:
        """Do what the table says, and ask it again, until the end."""
        time, service = self._shared.time, self._service
        url, step = "", Step(Do.START)
        outcome = Outcome(Happened.STARTED)
        while True:
            await self._pause(step, outcome)
            if self._fate.end is not None:
                return self._fate.end
            match step.do:
                case Do.END:
                    assert step.ending is not None
                    error = outcome.error if step.ending is Ending.FAILED else None
                    return SessionEnd(step.ending, outcome.text, error)
                case Do.RESTART:
                    await self._give_up()
                    step = Step(Do.START)
                    continue
                case Do.START:
                    outcome = await service.start()
                case Do.DIAL:
                    assert outcome.grant is not None
                    # The address of a resumed session may be left out: it is the old one then.
                    url = outcome.grant.stream_url or url
                    outcome = await self._link(url, outcome.grant.token)
                case Do.RESUME:
                    outcome = await self._resume(outcome.text)
                case Do.LOOK:
                    outcome = await self._look(outcome)
            now = time.monotonic()
            if outcome.happened is Happened.STARTED:
                self._open(now)
            self._past, step = next_step(
                self._past, outcome.happened, now, time.dice(), interest=self._interest, rang=outcome.rang
            )

    async def _pause(self, step: Step, outcome: Outcome) -> None:
        """Say what is waited for, and wait: for a login, or for as long as the network does not change."""
        if self._fate.end is not None:
            return
        if step.do is Do.RESUME:
            self._set(SessionState.RECONNECTING, outcome.text, step.wait)
        elif step.do is Do.START and step.wait:
            self._set(SessionState.STARTING, outcome.text, None if step.for_login else step.wait)
        if not step.wait:
            return
        async with self._fate.while_open():
            if step.for_login:
                await self._service.login(outcome.error, step.wait)
            else:
                await self._shared.bells.network.wait(step.wait)

    def _open(self, now: float) -> None:
        """A session exists at the service from now on."""
        assert self.id is not None
        self._lasting.started_at = now
        self.channel = Channel(
            session_id=self.id, target=self.plan.target, client_id=uuid4(), limits=self.plan.limits
        )

    async def _give_up(self) -> None:
        """Forget a session that never came to life."""
        log.warning("session %s of %s never started; starting another", self.id, self.plan.box)
        await self._service.end()
        self._service.id = self.channel = None

    async def _resume(self, why: str) -> Outcome:
        """Ask for the right to a new link. In the order of use: what somebody typed into last comes back first."""
        outcome = Outcome(Happened.RESUME_CUT, why)
        async with self._fate.while_open(), self._shared.bells.network.until_rung():
            outcome = await self._service.resume(-self.tally.used_at)
        if outcome.happened is Happened.RESUMED:
            self.tally.resumes += 1
        return outcome

    async def _look(self, lost: Outcome) -> Outcome:
        """Ask whether the session exists whose link was ``lost``."""
        rings, outcome = self._shared.bells.network.rings, lost
        async with self._fate.while_open():
            outcome = await self._service.look(lost.text)
        rang = lost.rang or rings != self._shared.bells.network.rings
        return msgspec.structs.replace(outcome, rang=rang)

    # One link ---------------------------------------------------------------------------------------

    async def _link(self, url: str, token: str) -> Outcome:
        """Dial a link and carry it until it is lost, or the session has ended."""
        network, began = self._shared.bells.network, self._shared.time.monotonic()
        rings = network.rings
        dialled: Link | Outcome = Outcome(Happened.DIAL_CUT, "the network changed")
        # What is asked over the old network may never be answered.
        async with self._fate.while_open(), network.until_rung():
            dialled = await self._service.dial(url, signed=self._past.signs)
        outcome = dialled if isinstance(dialled, Outcome) else await self._carry(dialled, token)
        lived = self._shared.time.monotonic() - began
        log.info("session %s of %s: %s after %.1f s", self.id, self.plan.box, outcome.happened.value, lived)
        return msgspec.structs.replace(outcome, rang=rings != network.rings)

    async def _carry(self, link: Link, token: str) -> Outcome:
        assert self.channel is not None
        carrier = self._carrier = Carrier(link, self.channel, self._lasting)
        happened, why = Happened.LINK_MUTE, "ended here"
        try:
            async with self._fate.while_open():
                happened, why = await carrier.run(token)
        finally:
            self._carrier = None
        log.info("session %s: %s", self.id, why)
        if happened is Happened.SILENT:
            return self._service.silent()
        return Outcome(happened, "the link was lost")

    def _take(self, event: Event) -> None:
        """Act on what the channel says; frames and output have gone their way already."""
        match event:
            case Heard():
                self._set(SessionState.ONLINE)
            case Skipped(frames):
                log.info("session %s: skipped %d frames: their repair would take long", self.id, frames)
                self._sink.skipped(frames)
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
                self._answered.ring()
                if self.state is SessionState.STALLED:
                    self._set(SessionState.ONLINE)
            case effect.Ready():
                self._ready.set()
                self._room.set()
                self._sink.ready(event)
            case effect.NeedDataKey(key_id, context):
                self._shared.tasks.spawn(f"{self.id}: data key", self._fetch_key(key_id, context))
            case effect.Closed(reason):
                self._finish(Happened.CLOSED, one_line(reason))
            case effect.Broken(reason):
                self._finish(Happened.BROKEN, reason)
            case effect.Send() | effect.SendText() | effect.Output():
                raise AssertionError("the carrier's own")

    async def _fetch_key(self, key_id: str, context: dict[str, str]) -> None:
        channel = self.channel
        assert channel is not None
        try:
            plaintext, ciphertext = await self._service.data_key(key_id, context)
        except DevboxError as error:
            self._shared.news.tell("session.key-failed", error.message, box=self.plan.box)
            self._apply(channel.data_key_failed(error.message, self._shared.time.monotonic()))
            failure = WrongState(f"the session cannot be encrypted: {error.message}", hint=error.hint)
            self._finish(Happened.KEYLESS, failure.message, failure)
        else:
            self._apply(channel.data_key(plaintext, ciphertext, self._shared.time.monotonic()))

    # Signs of life ----------------------------------------------------------------------------------

    @property
    def _interest(self) -> Interest:
        if self._attended:
            return Interest.NOW
        return Interest.LATER if self.plan.wanted else Interest.NOBODY

    def beat(self) -> None:
        """Called every ``BEAT`` seconds: notice a far end that is dead behind a live link, and keep alive."""
        carrier, now = self._carrier, self._shared.time.monotonic()
        if carrier is None or not carrier.heard_at or self.channel is None or not self.channel.ready:
            return
        policy, interest = self.plan.keep_alive, self._interest
        if keeps_alive(carrier.signs(self._touched_at), now, policy=policy, interest=interest):
            self._touch(now)
        match liveness(carrier.signs(self._touched_at), now, policy=policy, interest=interest):
            case Liveness.PROBE:
                carrier.probe()
            case Liveness.STALLED if self.state is SessionState.ONLINE:
                self._set(SessionState.STALLED, f"{self.plan.box} does not answer")

    def _touch(self, now: float) -> None:
        """Let the idle time-out of a quiet session start afresh."""
        plan = self.plan
        if not self._touched_at:
            text = (
                f"a quiet {plan.kind} session is kept from its idle time-out (keep_alive = {plan.keep_alive})"
            )
            self._shared.news.tell("session.kept-alive", text, box=plan.box)
        self._touched_at = now
        message, room = plan.touch(), self.channel.room if self.channel is not None else 0
        if message is None or (message[0] is PayloadType.OUTPUT and len(message[1]) > room):
            self.probe()
        else:
            self.send_now(*message)

    # The end, and the state until then --------------------------------------------------------------

    def _finish(self, happened: Happened, reason: str = "", error: DevboxError | None = None) -> None:
        ending = TABLE[happened].ending
        assert ending is not None
        self._fate.decide(SessionEnd(ending, reason, error))

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
