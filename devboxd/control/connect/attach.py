"""Join a terminal to a session on a box, and keep it joined.

One terminal is one SSM session; what outlives it is the multiplexer on the box. What is decided on the way (which
keys are kept, when to open again, what is dropped and said) stands in ``model.attach``; what a session's output
means in ``screen``. Here both are asked, and the answers carried out.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from devboxd.boxside.shell import attach_command, prelude
from devboxd.control.connect.fate import SessionEnded
from devboxd.control.connect.joined import Joined
from devboxd.control.connect.plan import Plan, Quiet
from devboxd.control.connect.screen import CameUp, Event, Note, Once, Screen, Show, TakesText
from devboxd.control.connect.session import HeldSession
from devboxd.control.connect.sessions import Sessions
from devboxd.control.connect.terminal import Terminal
from devboxd.errors import DevboxError
from devboxd.model.attach import (
    BOX_LOOK,
    Attachment,
    AttachSpec,
    Keys,
    Outflow,
    Phase,
    Reopen,
    TypeInstead,
    looks_repaired,
    note,
    replace_in,
    while_box_is,
)
from devboxd.model.config import Config
from devboxd.model.retry import Backoff
from devboxd.model.session import SessionState
from devboxd.model.states import Connection, InstanceState, SessionKind, StreamState
from devboxd.model.terminal import Detach, EndOfInput, Input, Leaving, Resize
from devboxd.ssm import documents
from devboxd.ssm.limits import SHELL
from devboxd.ssm.payload import PayloadType, size

log = logging.getLogger(__name__)

FIRST: Final = asyncio.FIRST_COMPLETED
SIZE_REPEAT: Final = 0.2  # seconds between sizes until the first output
RESIZE_DEBOUNCE: Final = 0.05  # seconds
BACKLOG_RESUME: Final = 64 << 10  # bytes: a terminal that was behind has caught up
SILENCE_LIMIT: Final = (
    6.0  # seconds until a far end that was found silent, after 5 to 10, is tried in another session
)
CRAWL_LOOK: Final = 0.5  # seconds after a resume until we look how fast output comes
SKIP_AFTER: Final = 1.0  # seconds a frame may be missing before the screen is drawn again instead
CANCEL: Final = b"\x18"  # ends any half escape sequence
END_OF_FILE: Final = b"\x04"  # what a terminal's user would type


class _Ear(Quiet):
    """Hands what a held session says to its attach."""

    def __init__(self, attach: Attach, joined: Joined) -> None:
        self._attach = attach
        self._joined = joined

    def output(self, data: bytes) -> None:
        """Bytes of the box."""
        self._joined.first_output.set()
        self._attach.act(self._joined, self._joined.screen.output(data))

    def notice(self, text: str) -> None:
        """The administrator's text goes to the status line, not into the screen."""
        self._attach.say(text)

    def skipped(self, frames: int) -> None:
        """What was lost may have been half an escape sequence: let the mux draw afresh."""
        self._attach.redraw()

    def state(self, state: SessionState, text: str, retry_in: float | None) -> None:
        """Tell the client."""
        self._attach.session_is(self._joined, state, text, retry_in)


class Attach:
    """One terminal, joined to a box for as long as its user wants."""

    def __init__(
        self,
        sessions: Sessions,
        spec: AttachSpec,
        terminal: Terminal,
        *,
        config: Config,
        box_state: Callable[[], Awaitable[InstanceState | None]] | None = None,
    ) -> None:
        self.spec = spec
        self._shared = sessions.shared
        self._sessions = sessions
        self._api = sessions.api(spec.box.account)
        self._terminal = terminal
        self._link = config.link
        self._keep_alive = config.keep_alive_of(spec.box)
        self._box_state = box_state
        self._course = Attachment(spec, keep_alive=self._keep_alive)
        self._keys = Keys()
        self._outflow = Outflow()
        self._joined: Joined | None = None
        self._tasks = asyncio.TaskGroup()
        self._size = (max(1, spec.columns), max(1, spec.rows))
        self._has_input = asyncio.Event()
        self._resized = asyncio.Event()
        self._skipping = asyncio.Event()
        self._replaces = not spec.raw and spec.command is None
        self._was_lost = False
        self._notes = Once()

    async def run(self) -> Leaving:
        """Hold the terminal until its user leaves or there is nothing left to hold."""
        leaving = Leaving()
        async with self._tasks as tasks:
            helpers = [
                tasks.create_task(self._send_input(), name="attach: input"),
                tasks.create_task(self._send_sizes(), name="attach: size"),
                tasks.create_task(self._redraw_when_drained(), name="attach: drain"),
            ]
            keeper = tasks.create_task(self._keep(), name="attach: session")
            client = tasks.create_task(self._read_client(), name="attach: client")
            await asyncio.wait({keeper, client}, return_when=FIRST)
            if keeper.done() and not keeper.cancelled():
                leaving = keeper.result()
            else:
                leaving = Leaving(reattach=not self.spec.raw)
                if (session := self._session) is not None:
                    await session.stop()
            for task in (*helpers, keeper, client):
                task.cancel()
        return leaving

    # The session ------------------------------------------------------------------------------------

    async def _keep(self) -> Leaving:
        """Run one session after another for as long as the mux is worth coming back to."""
        delays = Backoff(self._shared.time.dice, first=1.0)
        while True:
            try:
                joined = await self._one_or_two()
            except DevboxError as error:
                return Leaving(error=error)
            following = self._course.after(joined.seen(), self._shared.time.wall())
            if isinstance(following, Leaving):
                return following
            if self._course.phase is Phase.REOPENING:
                self._drop_keys(joined.unacknowledged)
            match following:
                case TypeInstead():
                    self.say(f"{documents.INTERACTIVE} is not allowed here; starting through the plain shell")
                case Reopen(why, at_once):
                    if at_once:
                        delays.begin_again()
                    pause = 0.0 if at_once else delays.wait()
                    if (gone := await self._before_reopen(why, pause)) is not None:
                        return gone

    async def _one_or_two(self) -> Joined:
        """Run a session; where its account limits how long one may last, the next one is up before that.

        Both are joined to the same mux for a moment; then the screen, and what is typed, belongs to the new one.
        """
        current = following = self._joined = self._start()
        try:
            while True:
                await asyncio.wait({current.task}, timeout=await self._time_left(current))
                if current.task.done():
                    return current
                following = self._start()
                await asyncio.wait({following.task, following.up, current.task}, return_when=FIRST)
                if following.up.done():
                    if current.session is not None:
                        await current.session.stop()
                    await asyncio.wait({current.task})
                    current = following
                else:
                    self._replaces = False  # it did not come up: what is left of the old one is used up
                    following.task.cancel()
                    await asyncio.wait({following.task})
        finally:
            current.task.cancel()
            following.task.cancel()

    async def _time_left(self, joined: Joined) -> float | None:
        """Seconds until the session should be replaced; None where it may last for ever, or nobody says."""
        await asyncio.wait({joined.task, joined.up}, return_when=FIRST)
        session = joined.session
        if joined.task.done() or not self._replaces or session is None or session.id is None:
            return None
        try:
            return replace_in(await self._api.longest(session.id, self.spec.box.target))
        except DevboxError as error:
            log.debug("how long session %s may last is unknown: %s", session.id, error)
            return None

    def _start(self) -> Joined:
        """Start a session that joins the mux.

        Raises:
            BadRequest: the start command cannot be.
        """
        spec, typed = self.spec, self._course.is_typed
        joined = Joined(Screen(secrets.token_hex(8), raw=spec.raw))
        command = "" if spec.raw else self._command(joined.screen.nonce)
        direct = bool(command) and not typed
        plan = Plan(
            target=spec.box.target,
            box=spec.box.name,
            account=spec.box.account,
            kind=SessionKind.SHELL if spec.raw else SessionKind.MUX,
            name=None if spec.raw or spec.command else spec.session,
            document=documents.INTERACTIVE if direct else spec.box.document,
            parameters={"command": command} if direct else {},
            limits=SHELL,
            wait=None if self._course.is_patient else spec.wait,
            patient=self._course.is_patient,
            priority=-self._shared.time.monotonic(),
            keep_alive=self._keep_alive,
            attended=True,
            # A size is what resets the idle time-out of a terminal, as AWS documents it.
            touch=lambda: (PayloadType.SIZE, size(*self._size)),
        )
        ear = _Ear(self, joined)
        session = self._sessions.open(plan, ear, self._link)
        joined.session = session
        joined.task = self._tasks.create_task(
            self._hold(joined, session, command if typed else None), name="attach: hold"
        )
        return joined

    def _command(self, nonce: str) -> str:
        spec = self.spec
        return attach_command(
            nonce=nonce,
            session=spec.session,
            term=spec.term,
            user=spec.user or spec.box.user,
            mux=spec.mux or spec.box.mux,
            colorterm=spec.colorterm,
            locale=spec.locale,
            command=spec.command,
            lends_agent=spec.agent is not None,
        )

    async def _hold(self, joined: Joined, session: HeldSession, typed: str | None) -> None:
        opening = self._tasks.create_task(self._open_screen(session, joined, typed), name="attach: open")
        try:
            joined.end = await self._sessions.hold(session)
            if session.channel is not None:
                joined.unacknowledged = session.channel.bytes_unacknowledged
        finally:
            opening.cancel()
            joined.session = None
            self.act(joined, joined.screen.finish())

    async def _open_screen(self, session: HeldSession, joined: Joined, typed: str | None) -> None:
        """Tell the size early and often: a full-screen program draws its first frame with it."""
        while not joined.first_output.is_set():
            session.send_now(PayloadType.SIZE, size(*self._size))
            try:
                async with asyncio.timeout(SIZE_REPEAT):
                    await joined.first_output.wait()
            except TimeoutError:
                continue
        session.send_now(PayloadType.SIZE, size(*self._size))
        if typed is None:
            return
        try:
            await session.send(prelude(joined.screen.nonce, len(typed.encode())))
            await joined.takes_text.wait()
            await session.send(typed.encode())
        except DevboxError as error:
            log.info("the start command could not be typed: %s", error.message)  # the session's end says more

    def _drop_keys(self, unacknowledged: int) -> None:
        """What was typed for a screen that is gone is not sent to the next one."""
        verdict = self._keys.lost(unacknowledged)
        self._terminal.credit(verdict.dropped)
        if verdict.say:
            self.say(verdict.say)

    async def _before_reopen(self, why: str, delay: float) -> Leaving | None:
        """Say what happened, and wait for a box that is there. Returns the end where it never will be again."""
        self._shared.news.tell("session.reopening", why, box=self.spec.box.name)
        self._show_state(StreamState.REOPENING, why, delay)
        if self._box_state is not None:
            while isinstance(text := while_box_is(await self._box_state(), self.spec.box), str):
                self._show_state(StreamState.WAITING, text, BOX_LOOK)
                await self._shared.bells.network.wait(BOX_LOOK)
            if text is not None:
                return text
        if delay:
            await asyncio.sleep(delay)
        return None

    # From the session -------------------------------------------------------------------------------

    @property
    def _session(self) -> HeldSession | None:
        return self._joined.session if self._joined is not None else None

    def act(self, joined: Joined, events: Iterable[Event]) -> None:
        """Carry out what the output of a session means."""
        for event in events:
            match event:
                case Show(data):
                    self._show(joined, data)
                case CameUp():
                    self._came_up(joined, event)
                case Note(code, words):
                    self._note(note(code, words, self.spec.box.name))
                case TakesText():
                    joined.takes_text.set()
                case _:
                    log.warning("unknown mark from %s", self.spec.box.name)

    def _show(self, joined: Joined, data: bytes) -> None:
        if joined is not self._joined:
            return  # of a session that another has taken over from
        if self._outflow.passes(len(data), self._terminal.backlog, redrawn=joined.redrawn):
            self._terminal.output(data)
        else:
            self._skipping.set()

    def say(self, text: str) -> None:
        """Show text of ours in the status line."""
        self._show_state(StreamState.NOTICE, text)

    def _note(self, text: str | None) -> None:
        if text is not None and self._notes.takes(text):
            self.say(text)

    def _came_up(self, joined: Joined, up: CameUp) -> None:
        """The program runs: the screen is the user's again."""
        news, box = self._shared.news, self.spec.box.name
        if joined is not self._joined:
            self._joined = joined
            self._terminal.output(CANCEL)  # the old session may have stopped in the middle of a sequence
            news.tell("session.replaced", "joined again before the session's time was up", box=box)
        if joined.session is not None:
            # A mux can draw the screen again, so a long outage need not be caught up with.
            joined.session.skip_gaps(SKIP_AFTER if joined.redrawn else None)
        if not joined.up.done():
            joined.up.set_result(None)
        was_away = self._course.away_since is not None
        self._terminal.status(self._course.came_up(up.kind, up.user, up.why))
        self._has_input.set()
        if was_away:
            news.tell("session.reopened", f"joined {up.kind} again", box=box)

    def session_is(self, joined: Joined, state: SessionState, text: str, retry_in: float | None) -> None:
        """Show the session's state in the client's status line, and do what it calls for."""
        if joined is not self._joined:
            return
        session, started = joined.session, joined.screen.started
        if state is SessionState.ONLINE:
            if self._was_lost:
                self._was_lost = False
                self._shared.tasks.spawn("look after a resume", self._look_after_resume(joined))
            if session is not None and not joined.first_output.is_set():
                # A start script waits for it; and in a plain shell nothing that is typed may come before it.
                session.send_now(PayloadType.SIZE, size(*self._size))
            self._has_input.set()
        elif state is SessionState.STALLED and joined.redrawn and session is not None:
            self._shared.tasks.spawn("a silent session", self._replace_silent(joined, session))
        elif state is SessionState.RECONNECTING:
            self._was_lost = True
        now = self._shared.time.wall()
        if (line := self._course.session_is(state, text, retry_in, now, started=started)) is not None:
            self._terminal.status(line)

    async def _replace_silent(self, joined: Joined, session: HeldSession) -> None:
        """The worker of a session can die without a word. If the agent itself lives, join through another."""
        await asyncio.sleep(SILENCE_LIMIT)
        while joined is self._joined and session.state is SessionState.STALLED:
            try:
                status = await self._api.connection_status(self.spec.box.target)
            except DevboxError:
                status = None
            if status is Connection.CONNECTED and session.state is SessionState.STALLED:
                session.abandon(f"{self.spec.box.name} did not answer any more")
                return
            await self._shared.bells.network.wait(SILENCE_LIMIT)

    async def _look_after_resume(self, joined: Joined) -> None:
        """The agent repairs what it had sent before the cut at ten frames a second: draw afresh instead."""
        before = self._outflow.pieces
        await asyncio.sleep(CRAWL_LOOK)
        crawls = looks_repaired(self._outflow.pieces - before)
        if joined is self._joined and joined.redrawn and crawls:
            self.redraw()

    def _show_state(self, state: StreamState, text: str, retry_in: float | None = None) -> None:
        self._terminal.status(self._course.line(state, text, retry_in))

    async def _redraw_when_drained(self) -> None:
        """When a terminal that was stuck reads again: say what it missed, and let the mux draw afresh."""
        while True:
            await self._skipping.wait()
            self._skipping.clear()
            await self._terminal.drained(BACKLOG_RESUME)
            self.say(self._outflow.caught_up())
            self.redraw()

    def redraw(self) -> None:
        """Make the program draw its screen again: it does when its terminal changes size."""
        self._terminal.output(CANCEL)
        joined = self._joined
        if joined is not None and joined.session is not None and joined.screen.started:
            columns, rows = self._size
            joined.session.send_now(PayloadType.SIZE, size(max(1, columns - 1), rows))
            joined.session.send_now(PayloadType.SIZE, size(columns, rows))

    # From the client --------------------------------------------------------------------------------

    async def _read_client(self) -> None:
        """Take what the client sends; returns when it leaves."""
        while True:
            match await self._terminal.receive():
                case None | Detach():
                    return
                case Input(data):
                    self._take_input(data)
                case Resize(columns, rows) if columns > 0 and rows > 0:
                    self._size = (columns, rows)
                    self._resized.set()
                case EndOfInput() if self.spec.command is not None:
                    # Only to a program of our own. In a session that others share it would end their shell.
                    self._take_input(END_OF_FILE)
                case _:
                    pass

    def _take_input(self, data: bytes) -> None:
        joined = self._joined
        reaches = joined is not None and joined.is_online and joined.screen.started
        verdict = self._keys.typed(data, phase=self._course.phase, reaches=reaches)
        if verdict.dropped:
            self._terminal.credit(verdict.dropped)
        if verdict.say:
            self.say(verdict.say)
        self._has_input.set()

    async def _send_input(self) -> None:
        keys = self._keys.waiting
        while True:
            await self._has_input.wait()
            joined = self._joined
            if not keys or joined is None or joined.session is None or not joined.takes_keys:
                self._has_input.clear()  # more input, the mux coming up, or the link coming back sets it again
                continue
            data = keys.take(SHELL.payload)  # small pieces, so that an interrupt has something to overtake
            try:
                await joined.session.send(data)
            except SessionEnded:
                self.say(f"{len(data)} bytes typed were not delivered: the session had ended")
            self._terminal.credit(len(data))

    async def _send_sizes(self) -> None:
        while True:
            await self._resized.wait()
            await asyncio.sleep(RESIZE_DEBOUNCE)
            self._resized.clear()
            if (session := self._session) is not None:
                session.send_now(PayloadType.SIZE, size(*self._size))
