"""Carry a session's channel over one link: read, write, run its timers, and find out that the link is dead.

A carrier lives as long as its link. What the far end says goes to the sink at once; what concerns the session is
handed to it as an event, and the session acts on it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import msgspec

from devboxd.control.base.bells import Bell
from devboxd.control.base.needs import Link
from devboxd.control.base.time import Time
from devboxd.errors import LinkLost
from devboxd.model.hold import (
    SKIP_LOOK,
    WAKE_ANSWER,
    Happened,
    Signs,
    link_over,
    may_ask,
    silent_start_left,
    skips_gap,
)
from devboxd.model.states import KeepAlive
from devboxd.ssm.channel import Channel, State
from devboxd.ssm.effect import Effect, Output, ProbeAnswered, Send, SendText

MOST_QUEUED: Final = 20_000  # frames that wait for the link: 20 s of acknowledgements at full pace
TIMER_SLACK: Final = 0.25  # seconds that a new timer may be late when the present one is nearer than that


class Heard(msgspec.Struct, frozen=True):
    """The first message has come over this link."""


class Skipped(msgspec.Struct, frozen=True):
    """So many frames of output were given up."""

    frames: int


Event = Effect | Heard | Skipped


class Tally(msgspec.Struct):
    """Bytes and events counted for ``status``, and when somebody last sent or got any (monotonic seconds)."""

    bytes_up: int = 0
    bytes_down: int = 0
    resumes: int = 0
    used_at: float = 0.0


@dataclass(slots=True)
class Lasting:
    """What the links of one session have in common."""

    time: Time
    network: Bell
    tally: Tally
    output: Callable[[bytes], None]
    take: Callable[[Event], None]
    keep_alive: KeepAlive
    frames_per_second: float  # a limit of ours, 0 for none; the service is said to cut at 1000
    started_at: float = 0.0  # monotonic time of the session's start
    skip_after: float | None = None  # seconds a frame may be missing before it is given up


class Carrier:
    """One link with a channel on it. ``run`` once; everything else while it runs."""

    def __init__(self, link: Link, channel: Channel, lasting: Lasting) -> None:
        self.heard_at = 0.0  # monotonic time of the last message; 0 before the first
        self.probed_at: float | None = None  # since when a probe is not answered
        self._link = link
        self._channel = channel
        self._lasting = lasting
        self._tally = lasting.tally
        self._output = lasting.output
        self._monotonic = lasting.time.monotonic
        self._opened_at = self._monotonic()
        self._outgoing: deque[bytes | str] = deque()
        self._ahead: deque[bytes | str] = deque()  # what need not wait behind a thousand acknowledgements
        self._wake_writer = asyncio.Event()
        self._wake_timer = asyncio.Event()
        self._timer_is_far = True
        self._looked_at = 0.0  # for gaps
        self._missed_before = 0
        self._is_silent = False

    async def run(self, token: str) -> tuple[Happened, str]:
        """Open the channel on the link and carry it until the link is lost or the channel is closed.

        Returns what that is to the table of the session, and why the link was lost, for the log.
        """
        channel, why = self._channel, "the channel was closed"
        wall_ms = int(self._lasting.time.wall() * 1000)
        self.apply(channel.opened(self._opened_at, token=token, request_id=uuid4(), wall_ms=wall_ms))
        try:
            async with asyncio.TaskGroup() as tasks:
                name = channel.session_id
                helpers = [
                    tasks.create_task(self._write(), name=f"{name}: write"),
                    tasks.create_task(self._time(), name=f"{name}: time"),
                    tasks.create_task(self._guard(), name=f"{name}: guard"),
                    tasks.create_task(self._demand_start(), name=f"{name}: start"),
                ]
                await self._read()
                for task in helpers:
                    task.cancel()
        except* LinkLost as group:
            why = str(group.exceptions[0])
        finally:
            lost_at = self._monotonic()
            channel.lost(lost_at)
            await self._link.close()  # which may take a moment that the link did not live
        if (me := asyncio.current_task()) is not None and me.cancelling():
            # It came with the loss of the link: Python 3.11 forgets one of two, and 3.13 says it again, here at last.
            await asyncio.sleep(0)
            raise asyncio.CancelledError
        if self._is_silent:
            return Happened.SILENT, why
        carried = (channel.heard_at or 0.0) > self._opened_at
        return link_over(lived=lost_at - self._opened_at, heard=self.heard_at > 0, carried=carried), why

    def apply(self, effects: list[Effect], *, ahead: bool = False) -> None:
        """Do what the channel says. ``ahead``: its frames need not wait behind those that are queued already."""
        outgoing = self._ahead if ahead else self._outgoing
        for item in effects:
            kind = type(item)
            if kind is Send:
                # What is left out comes again: ours when its timer is up, the far end's to be acknowledged then.
                if len(outgoing) < MOST_QUEUED:
                    outgoing.append(item.data)  # type: ignore[union-attr]
            elif kind is Output:
                data = item.data  # type: ignore[union-attr]
                tally = self._tally
                tally.bytes_down += len(data)
                tally.used_at = self.heard_at
                self._output(data)
            else:
                self._apply_rare(item)
        if outgoing:
            self._wake_writer.set()
        if self._timer_is_far:
            self._timer_is_far = False
            self._wake_timer.set()

    def _apply_rare(self, item: Effect) -> None:
        if isinstance(item, SendText):
            self._ahead.appendleft(item.text)  # nothing may come before it
            return
        if isinstance(item, ProbeAnswered):
            self.probed_at = None
        self._lasting.take(item)

    def probe(self) -> None:
        """Ask the far end for a sign of life (it counts as activity, too)."""
        if self._channel.ready:
            now = self._monotonic()
            if self.probed_at is None:
                self.probed_at = now
            self.apply(self._channel.probe(now))

    def signs(self, touched_at: float) -> Signs:
        """What was last seen of the session."""
        return Signs(
            heard_at=self.heard_at,
            far_end_at=self._channel.heard_at or 0.0,
            used_at=self._tally.used_at,
            touched_at=touched_at,
            probed_at=self.probed_at,
            waits=self._channel.unacknowledged > 0,
        )

    async def _read(self) -> None:
        channel, lasting, apply = self._channel, self._lasting, self.apply
        receive, monotonic = self._link.receive, self._monotonic
        closed, is_heard = State.CLOSED, False
        while channel.state is not closed:
            data = await receive()
            now = self.heard_at = monotonic()
            if not is_heard:
                is_heard = True
                lasting.take(Heard())
            apply(channel.received(data, now))
            if lasting.skip_after is not None and now - self._looked_at >= SKIP_LOOK:
                self._look_for_gap(lasting.skip_after, now)

    def _look_for_gap(self, patience: float, now: float) -> None:
        """Where a gap would take long to repair, and its bytes can be had otherwise, do not wait for them."""
        channel = self._channel
        missing, before = channel.missing, self._missed_before
        self._looked_at, self._missed_before = now, missing
        if skips_gap(missing, before, channel.gap_age(now), patience):
            self._missed_before = 0
            self.apply(channel.skip_ahead(now))
            self._lasting.take(Skipped(missing))

    async def _write(self) -> None:
        ahead, outgoing, link = self._ahead, self._outgoing, self._link
        wake, monotonic = self._wake_writer, self._monotonic
        rate = self._lasting.frames_per_second
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

    async def _time(self) -> None:
        """Run the channel's timers, sleeping for exactly as long as there is nothing to do."""
        channel, monotonic = self._channel, self._monotonic
        while True:
            now = monotonic()
            deadline = channel.next_deadline()
            self._wake_timer.clear()
            self._timer_is_far = deadline is None or deadline - now > TIMER_SLACK
            if self._timer_is_far:
                # What happens meanwhile may have a timer of its own that is nearer: then look again.
                try:
                    async with asyncio.timeout(None if deadline is None else deadline - now):
                        await self._wake_timer.wait()
                    continue
                except TimeoutError:
                    pass
            elif deadline is not None and deadline > now:
                await asyncio.sleep(max(0.001, deadline - now))
            self.apply(channel.tick(monotonic()))

    async def _guard(self) -> None:
        """After sleep or a network change, demand a sign of life at once instead of waiting for TCP."""
        policy, network = self._lasting.keep_alive, self._lasting.network
        while True:
            await network.wait(None)
            rung = self._monotonic()
            if not self._channel.ready or not may_ask(policy, self._tally.used_at, rung):
                continue
            self.probe()
            await asyncio.sleep(WAKE_ANSWER)
            if self.heard_at < rung:
                raise LinkLost("no sign of life after sleep or a network change")

    async def _demand_start(self) -> None:
        """A session whose far end says nothing at all was not started."""
        while self._channel.heard_at is None:
            left = silent_start_left(self._lasting.started_at, self._opened_at, self._monotonic())
            if left <= 0:
                self._is_silent = True
                raise LinkLost("the far end did not say a word")
            await asyncio.sleep(left)
