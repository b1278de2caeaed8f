"""Join a terminal to a session on a box, and keep it joined.

One terminal is one SSM session; what outlives it is the multiplexer on the box. While a link is down the
session may still be alive: what is typed then is kept (up to ``AWAY_INPUT`` bytes) and delivered exactly
once if the session resumes. When the session turns out to be gone, what was typed and not taken is dropped
and said so, never replayed into the new one: it was meant for a screen that is no longer there.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from devboxd.aws.errors import DocumentInvalid
from devboxd.boxside.shell import Mark, MarkFilter, attach_command
from devboxd.control.base.needs import Dialer, SessionApi
from devboxd.control.base.shared import Shared
from devboxd.control.connect.session import HeldSession, Plan, Quiet, SessionEnded
from devboxd.control.connect.terminal import Detach, EndOfInput, Input, Leaving, Resize, StatusLine, Terminal
from devboxd.errors import Denied, DevboxError, Unreachable, WrongState
from devboxd.model.box import BoxRef
from devboxd.model.config import Config
from devboxd.model.retry import backoff
from devboxd.model.session import AfterEnd, Ending, SessionEnd, SessionState, after_end
from devboxd.model.states import InstanceState, KeepAlive, Mux, SessionKind, StreamState
from devboxd.ssm import documents, effect
from devboxd.ssm.limits import SHELL
from devboxd.ssm.payload import PayloadType, size
from devboxd.text import one_line

log = logging.getLogger(__name__)

SIZE_REPEAT: Final = 0.2  # seconds between sizes until the first output
RESIZE_DEBOUNCE: Final = 0.05  # seconds
AWAY_INPUT: Final = 4096  # bytes typed while the link is down that are kept
BACKLOG_LIMIT: Final = 2 << 20  # bytes a terminal may be behind before output is skipped
RAW_BACKLOG_LIMIT: Final = 64 << 20  # the same where nothing can draw the screen again: a minute and a half
BACKLOG_RESUME: Final = 64 << 10  # bytes: it has caught up
MUXES_THAT_STAY: Final = tuple(mux for mux in Mux if mux.stays)
SILENCE_LIMIT: Final = 15.0  # seconds that the far end may be silent before another session is tried
REPLACE_BEFORE: Final = 120.0  # seconds before a session's longest life that the next one is started
CRAWL_LOOK: Final = 0.5  # seconds after a resume until we look how fast output comes
CRAWL_FRAMES: Final = 8  # pieces in that time that look like the agent's repairs
SKIP_AFTER: Final = 1.0  # seconds a frame may be missing before the screen is drawn again instead
TYPED: Final = 16  # bytes: an input chunk up to this long was typed, not pasted
PREAMBLE_LIMIT: Final = 64 << 10  # bytes before the mux comes up, kept to explain a failure
OTHER_SCREEN: Final = b"\x1b[?1049h"  # what a full-screen program begins with


class AttachSpec(msgspec.Struct, frozen=True):
    """What to attach to, and what the terminal is like."""

    box: BoxRef
    session: str = "main"
    raw: bool = False
    command: str | None = None
    user: str | None = None
    mux: Mux | None = None
    columns: int = 80
    rows: int = 24
    term: str = "xterm-256color"
    colorterm: str | None = None
    locale: str | None = None
    wait: float | None = 120.0
    agent: str | None = None  # socket of an ssh agent here to lend
    rejoining: bool = False  # the daemon was restarted under a client that stayed


class _Screen(Quiet):
    """Takes the marks out of a session's output and passes the rest to the terminal."""

    def __init__(self, attach: Attach, nonce: str) -> None:
        self._attach = attach
        self.nonce = nonce
        self._filter = MarkFilter(nonce)
        self._marked = not attach.spec.raw
        self.session: HeldSession | None = None
        self.mux: str | None = None  # what the start mark said
        self.started = attach.spec.raw
        self.program_status: int | None = None
        self.program_ended = False
        self.problem: tuple[str, str] | None = None
        self.preamble = b""
        self.first_output = asyncio.Event()
        self.takes_text = asyncio.Event()  # the plain shell waits for the start command

    def ready(self, ready: effect.Ready) -> None:
        """Ready is not enough for a terminal: the first output is."""

    def output(self, data: bytes) -> None:
        """Filter, then show; hold back what comes before the mux."""
        self.first_output.set()
        if not self._marked:
            self._attach.show(self, data)
            return
        for piece in self._filter.feed(data):
            if isinstance(piece, Mark):
                self._mark(piece)
            elif self.started:
                self._attach.show(self, piece)
            else:
                self.preamble = (self.preamble + piece)[-PREAMBLE_LIMIT:]

    def _mark(self, mark: Mark) -> None:
        match mark.words:
            case ("start", *_) if self.started:
                pass  # made twice: a program that starts may throw the first one away
            case ("start", kind, user):
                self.started = True
                self.mux = one_line(kind)
                if self.session is not None:
                    # A mux can draw the screen again, so a long outage need not be caught up with.
                    self.session.skip_after = SKIP_AFTER if kind in MUXES_THAT_STAY else None
                self._attach.came_up(self, one_line(user))
                if (drawn := self.preamble.find(OTHER_SCREEN)) >= 0:  # the first mark was lost
                    self._attach.show(self, self.preamble[drawn:])
                    self.preamble = b""
            case ("type",):
                self.takes_text.set()
            case ("exit", status):
                self.program_ended = True
                self.program_status = int(status) if status.isdigit() else None
            case ("fail", code, what):
                self.problem = (code, one_line(what))
            case _:
                log.warning("unknown mark from %s", self._attach.spec.box.name)

    def finish(self) -> None:
        """No more output: show what the filter held back."""
        if rest := self._filter.flush():
            if self.started:
                self._attach.show(self, rest)
            else:
                self.preamble += rest

    def notice(self, text: str) -> None:
        """The administrator's text goes to the status line, not into the screen."""
        self._attach.say(text)

    def skipped(self, frames: int) -> None:
        """What was lost may have been half an escape sequence: end it, and let the mux draw afresh."""
        self._attach.redraw()

    def state(self, state: SessionState, text: str, retry_in: float | None) -> None:
        """Tell the client."""
        self._attach.session_state(self, state, text, retry_in)


class Attach:
    """One terminal, joined to a box for as long as its user wants."""

    def __init__(
        self,
        shared: Shared,
        api: SessionApi,
        dialer: Dialer,
        spec: AttachSpec,
        terminal: Terminal,
        *,
        config: Config,
        box_state: Callable[[], Awaitable[InstanceState | None]] | None = None,
    ) -> None:
        self.spec = spec
        self._shared = shared
        self._api = api
        self._dialer = dialer
        self._terminal = terminal
        self._link = config.link
        self._keep_alive = config.keep_alive_of(spec.box)
        self._box_state = box_state
        self._size = (max(1, spec.columns), max(1, spec.rows))
        self._screen: _Screen | None = None
        self._pending: deque[bytes] = deque()
        self._pending_size = 0
        self._unacknowledged = 0  # bytes of the last session that the far end did not confirm
        self._has_input = asyncio.Event()
        self._resized = asyncio.Event()
        self._leaving: Leaving | None = None
        self._left = asyncio.Event()
        self._skipped = 0
        self._skipping = asyncio.Event()
        self._away_since: float | None = None
        self._was_up = False
        self._kind: str | None = None  # what ran last: zellij, tmux, none, command
        self._up = asyncio.Event()  # the program of the present session runs
        self._took_over = asyncio.Event()  # so does that of the next one
        self._replaces = not spec.raw and spec.command is None
        self._was_lost = False
        self._shown = 0  # pieces of output
        self._typed_shell = False  # the document for commands is denied: type into the plain shell

    async def run(self) -> Leaving:
        """Hold the terminal until its user leaves or there is nothing left to hold."""
        async with asyncio.TaskGroup() as tasks:
            helpers = [
                tasks.create_task(self._read_client(), name="attach: client"),
                tasks.create_task(self._send_input(), name="attach: input"),
                tasks.create_task(self._send_sizes(), name="attach: size"),
                tasks.create_task(self._redraw_when_drained(), name="attach: drain"),
            ]
            keeper = tasks.create_task(self._keep(), name="attach: session")
            left = tasks.create_task(self._left.wait(), name="attach: left")
            await asyncio.wait({keeper, left}, return_when=asyncio.FIRST_COMPLETED)
            if keeper.done() and not keeper.cancelled():
                self._leaving = self._leaving or keeper.result()
            elif self._session is not None:
                await self._session.stop()
            for task in (*helpers, keeper, left):
                task.cancel()
        return self._leaving or Leaving()

    # The session ------------------------------------------------------------------------------------

    async def _keep(self) -> Leaving:
        """Run one session after another for as long as the mux is worth coming back to."""
        useless = 0
        delays = backoff(self._shared.time.dice, first=1.0)
        while True:
            try:
                end, screen = await self._one_or_two()
            except DevboxError as error:
                return Leaving(error=error)
            if screen.started and not self.spec.raw:
                useless = 0
                delays = backoff(self._shared.time.dice, first=1.0)
            else:
                useless += 1
            if self._try_typing_instead(end):
                continue
            if screen.problem is not None:
                return Leaving(error=_problem(screen.problem, self.spec))
            mux = (screen.mux or self._kind) not in (None, Mux.NONE, "command")
            if not screen.started and self._kind is None and self.spec.rejoining:
                # The daemon before us had joined it.
                mux = self.spec.command is None and self.spec.mux is not Mux.NONE
            if self._keep_alive is KeepAlive.NEVER and "inactivity" in end.reason.lower():
                return Leaving(reason=end.reason, reattach=not self.spec.raw)  # the account wants it so
            match after_end(
                end, mux=mux and not self.spec.raw, program_ended=screen.program_ended, useless_starts=useless
            ):
                case AfterEnd.LEAVE:
                    return Leaving(status=screen.program_status, reason=end.reason)
                case AfterEnd.FAIL:
                    return self._failed(end, screen)
                case AfterEnd.REOPEN:
                    await self._before_reopen(end, next(delays) if useless else 0.0)

    async def _one_or_two(self) -> tuple[SessionEnd, _Screen]:
        """Run a session; where its account limits how long one may last, the next one is up before that.

        Both are joined to the same mux for a moment; then the screen, and what is typed, belongs to the new one.
        """
        running = asyncio.ensure_future(self._run_once())
        try:
            while True:
                await asyncio.wait({running}, timeout=await self._time_left(running))
                if running.done():
                    return running.result()
                old = self._screen
                next_one = asyncio.ensure_future(self._run_once(replacing=True))
                took_over = asyncio.ensure_future(self._took_over.wait())
                try:
                    waits: set[asyncio.Future[Any]] = {next_one, took_over, running}
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                    if took_over.done() and old is not None and old.session is not None:
                        await old.session.stop()
                        await running
                        running = next_one
                    else:
                        self._replaces = False  # it did not come up: what is left of the old one is used up
                finally:
                    took_over.cancel()
                    if running is not next_one:
                        next_one.cancel()
                        await asyncio.gather(next_one, return_exceptions=True)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _time_left(self, running: asyncio.Future[tuple[SessionEnd, _Screen]]) -> float | None:
        """Seconds until the session should be replaced; None where it may last for ever, or nobody says."""
        up = asyncio.ensure_future(self._up.wait())
        waits: set[asyncio.Future[Any]] = {running, up}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
        session = self._session
        if running.done() or not self._replaces or session is None or session.id is None:
            return None
        try:
            lasts = await self._api.longest(session.id, self.spec.box.target)
        except DevboxError as error:
            log.debug("how long session %s may last is unknown: %s", session.id, error)
            return None
        return None if lasts is None else max(1.0, lasts - REPLACE_BEFORE)

    @property
    def _session(self) -> HeldSession | None:
        return self._screen.session if self._screen is not None else None

    async def _run_once(self, *, replacing: bool = False) -> tuple[SessionEnd, _Screen]:
        spec, nonce = self.spec, secrets.token_hex(8)
        screen = _Screen(self, nonce)
        self._took_over.clear()
        self._up.clear()
        if not replacing:
            self._screen = screen
        parameters: dict[str, str] = {}
        document: str | None = None
        command = ""
        if not spec.raw:
            command = attach_command(
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
            if not self._typed_shell:
                document, parameters = documents.INTERACTIVE, {"command": command}
        again = self._was_up or spec.rejoining
        plan = Plan(
            target=spec.box.target,
            box=spec.box.name,
            account=spec.box.account,
            kind=SessionKind.SHELL if spec.raw else SessionKind.MUX,
            document=document,
            parameters=parameters,
            limits=SHELL,
            wait=None if again else spec.wait,
            patient=again,
            priority=-self._shared.time.monotonic(),
            keep_alive=self._keep_alive,
        )
        session = HeldSession(self._shared, self._api, self._dialer, plan, screen, self._link)
        session.attended = True
        # A size is what resets the idle time-out of a terminal, as AWS documents it.
        session.touch = lambda: session.send_now(PayloadType.SIZE, size(*self._size))
        screen.session = session
        try:
            async with asyncio.TaskGroup() as tasks:
                opening = tasks.create_task(
                    self._open_screen(session, screen, command if self._typed_shell else None)
                )
                end = await session.run()
                opening.cancel()
            if session.channel is not None:
                self._unacknowledged = session.channel.bytes_unacknowledged
        finally:
            screen.session = None
            screen.finish()
        return end, screen

    async def _open_screen(self, session: HeldSession, screen: _Screen, typed: str | None) -> None:
        """Tell the size early and often: a full-screen program draws its first frame with it."""
        while not screen.first_output.is_set():
            session.send_now(PayloadType.SIZE, size(*self._size))
            try:
                async with asyncio.timeout(SIZE_REPEAT):
                    await screen.first_output.wait()
            except TimeoutError:
                continue
        session.send_now(PayloadType.SIZE, size(*self._size))
        if typed is None:
            return
        try:
            await session.send(_prelude(screen.nonce, len(typed.encode())))
            await screen.takes_text.wait()
            await session.send(typed.encode())
        except DevboxError as error:
            log.info("the start command could not be typed: %s", error.message)  # the session's end says more

    def _try_typing_instead(self, end: SessionEnd) -> bool:
        """Accounts that allow only the plain shell still get their mux: the command is typed into it."""
        if self._typed_shell or self.spec.raw or not isinstance(end.error, Denied | DocumentInvalid):
            return False
        self._typed_shell = True
        self.say(f"{documents.INTERACTIVE} is not allowed here; starting through the plain shell")
        return True

    async def _before_reopen(self, end: SessionEnd, delay: float) -> None:
        """Say what happened, drop what was typed for the old screen, and wait for a box that is there."""
        self._away_since = self._away_since or self._shared.time.wall()
        lost, self._unacknowledged = self._drop_pending() + self._unacknowledged, 0
        if lost:
            self.say(f"{lost} bytes typed while away may not have arrived; they are not sent again")
        why = end.reason or "the session ended"
        self._shared.news.tell("session.reopening", why, box=self.spec.box.name)
        self._status(StreamState.REOPENING, why, delay)
        if self._box_state is not None:
            while (state := await self._box_state()) is not None and state.is_stopped:
                self._status(
                    StreamState.WAITING,
                    f"the box is {state}; this goes on as soon as somebody starts it",
                    10.0,
                )
                await self._shared.bells.network.wait(10.0)
            if state is not None and state.is_gone:
                self._leaving = Leaving(
                    error=WrongState(
                        f"{self.spec.box.name} ({self.spec.box.target}) has been terminated",
                        hint="devboxctl ls shows what exists",
                    )
                )
                self._left.set()
        if delay:
            await asyncio.sleep(delay)

    def _failed(self, end: SessionEnd, screen: _Screen) -> Leaving:
        if isinstance(end.error, DevboxError):
            return Leaving(error=end.error)
        reason = end.reason or one_line(screen.preamble.decode("utf-8", "replace"))
        if end.ending is Ending.FINISHED and self.spec.raw:
            return Leaving(
                reason=reason,
                error=Unreachable(f"the shell ended: {reason}" if reason else "the shell ended"),
            )
        hint = "a plain shell ends with its session; without --raw, devbox keeps zellij or tmux for you"
        return Leaving(
            error=Unreachable(
                f"the session ended: {reason or end.ending.value}", hint=hint if self.spec.raw else None
            )
        )

    # From the session -------------------------------------------------------------------------------

    def show(self, screen: _Screen, data: bytes) -> None:
        """Pass output on; a terminal that does not read loses the middle, never blocks us."""
        if screen is not self._screen:
            return  # of a session that another has taken over from
        self._shown += 1
        limit = BACKLOG_LIMIT if screen.mux in MUXES_THAT_STAY else RAW_BACKLOG_LIMIT
        if self._skipped or self._terminal.backlog > limit:
            self._skipped += len(data)
            self._skipping.set()
            return
        self._terminal.output(data)

    def say(self, text: str) -> None:
        """Show text of ours in the status line."""
        self._status("notice", text)

    def came_up(self, screen: _Screen, user: str) -> None:
        """The program runs: the screen is the user's again."""
        kind = screen.mux or Mux.NONE
        if screen is not self._screen:
            self._screen = screen
            self._terminal.output(b"\x18")  # the old session may have stopped in the middle of a sequence
            self._took_over.set()
            self._shared.news.tell(
                "session.replaced", "joined again before the session's time was up", box=self.spec.box.name
            )
        self._up.set()
        was_away, self._away_since = self._away_since, None
        self._was_up, self._kind = True, kind
        self._has_input.set()
        text = ""
        if kind == Mux.NONE:
            text = f"neither zellij nor tmux is installed for {user}: this shell ends with its connection"
        self._terminal.status(StatusLine(StreamState.ONLINE, text, mux=kind))
        if was_away is not None:
            self._shared.news.tell("session.reopened", f"joined {kind} again", box=self.spec.box.name)

    def session_state(self, of: _Screen, state: SessionState, text: str, retry_in: float | None) -> None:
        """Show the session's state in the client's status line."""
        if of is not self._screen:
            return
        match state:
            case SessionState.ONLINE:
                if self._was_lost:
                    self._was_lost = False
                    self._shared.tasks.spawn("look after a resume", self._look_after_resume())
                if of.session is not None and not of.started:
                    of.session.send_now(PayloadType.SIZE, size(*self._size))  # a start script waits for it
                if of.started:
                    self._away_since = None
                    self._terminal.status(StatusLine(StreamState.ONLINE, mux=of.mux))
                self._has_input.set()
            case SessionState.ENDED:
                pass
            case _:
                if state is SessionState.STALLED and of.mux in MUXES_THAT_STAY and of.session is not None:
                    self._shared.tasks.spawn("a silent session", self._replace_silent(of, of.session))
                self._was_lost = self._was_lost or state is SessionState.RECONNECTING
                if self._was_up and self._away_since is None:
                    self._away_since = self._shared.time.wall()
                self._status(state.value, text, retry_in)

    async def _replace_silent(self, screen: _Screen, session: HeldSession) -> None:
        """The worker of a session can die without a word. If the agent itself lives, join through another."""
        await asyncio.sleep(SILENCE_LIMIT)
        while screen is self._screen and session.state is SessionState.STALLED:
            try:
                status = await self._api.connection_status(self.spec.box.target)
            except DevboxError:
                status = None
            if status == "connected" and session.state is SessionState.STALLED:
                session.abandon(f"{self.spec.box.name} did not answer any more")
                return
            await self._shared.bells.network.wait(SILENCE_LIMIT)

    async def _look_after_resume(self) -> None:
        """The agent repairs what it had sent before the cut at ten frames a second: draw afresh instead."""
        before, screen = self._shown, self._screen
        await asyncio.sleep(CRAWL_LOOK)
        if screen is None or screen is not self._screen or screen.mux not in MUXES_THAT_STAY:
            return
        if 0 < self._shown - before <= CRAWL_FRAMES:
            self.redraw()

    def _status(self, state: str, text: str, retry_in: float | None = None) -> None:
        self._terminal.status(StatusLine(state, text, self._away_since, retry_in))

    async def _redraw_when_drained(self) -> None:
        """When a terminal that was stuck reads again: say what it missed, and let the mux draw afresh."""
        while True:
            await self._skipping.wait()
            self._skipping.clear()
            await self._terminal.drained(BACKLOG_RESUME)
            missed, self._skipped = self._skipped, 0
            self.say(f"{missed} bytes of output were skipped: this terminal was not reading")
            self.redraw()

    def redraw(self) -> None:
        """Make the program draw its screen again: it does when its terminal changes size."""
        self._terminal.output(b"\x18")  # cancel: ends any half escape sequence
        if self._session is not None and self._screen is not None and self._screen.started:
            columns, rows = self._size
            self._session.send_now(PayloadType.SIZE, size(max(1, columns - 1), rows))
            self._session.send_now(PayloadType.SIZE, size(columns, rows))

    # From the client --------------------------------------------------------------------------------

    async def _read_client(self) -> None:
        while True:
            match await self._terminal.receive():
                case None:
                    self._leaving = Leaving(reattach=not self.spec.raw)
                    self._left.set()
                    return
                case Detach():
                    self._leaving = Leaving(reattach=not self.spec.raw)
                    self._left.set()
                    return
                case Input(data):
                    self._take_input(data)
                case Resize(columns, rows) if columns > 0 and rows > 0:
                    self._size = (columns, rows)
                    self._resized.set()
                case EndOfInput():
                    self._take_input(b"\x04")  # what a terminal's user would type
                case _:
                    pass

    def _take_input(self, data: bytes) -> None:
        online = self._session is not None and self._session.state is SessionState.ONLINE
        started = self._screen is not None and self._screen.started
        if len(data) <= TYPED and b"\x03" in data and self._pending_size:
            # An interrupt overtakes what we have not sent: that is what its typist wants.
            self._drop_pending()
        if not (online and started) and self._pending_size + len(data) > AWAY_INPUT:
            self._terminal.credit(len(data))
            self.say("typed too much while away: the rest is not kept")
            return
        self._pending.append(data)
        self._pending_size += len(data)
        self._has_input.set()

    def _drop_pending(self) -> int:
        dropped = self._pending_size
        self._pending.clear()
        self._pending_size = 0
        if dropped:
            self._terminal.credit(dropped)
        return dropped

    async def _send_input(self) -> None:
        while True:
            await self._has_input.wait()
            session, screen = self._session, self._screen
            ready = session is not None and session.state in (SessionState.ONLINE, SessionState.STALLED)
            if not self._pending or session is None or screen is None or not screen.started or not ready:
                self._has_input.clear()  # more input, the mux coming up, or the link coming back sets it again
                continue
            data = self._pending.popleft()
            # Small pieces, so that an interrupt has something left to overtake.
            if len(data) > SHELL.payload:
                self._pending.appendleft(data[SHELL.payload :])
                data = data[: SHELL.payload]
            self._pending_size -= len(data)
            try:
                await session.send(data)
            except SessionEnded:
                self._terminal.credit(len(data))
                self.say(f"{len(data)} bytes typed were not delivered: the session had ended")
                continue
            self._terminal.credit(len(data))

    async def _send_sizes(self) -> None:
        while True:
            await self._resized.wait()
            await asyncio.sleep(RESIZE_DEBOUNCE)
            self._resized.clear()
            if self._session is not None:
                self._session.send_now(PayloadType.SIZE, size(*self._size))


def _prelude(nonce: str, size: int) -> bytes:
    """What to type into a plain shell so that it runs the next ``size`` bytes in its place.

    The start command is longer than the 4095 bytes that a terminal keeps of a line, so it follows when the
    terminal edits no lines any more. The space in front keeps this out of the history of most shells.
    """
    mark = f"printf '\\033_devbox;%s;type\\033\\\\' {nonce}"
    return f' stty raw -echo; {mark}; D=$(head -c {size}); stty sane; exec sh -c "$D"\r'.encode()


def _problem(problem: tuple[str, str], spec: AttachSpec) -> DevboxError:
    """The start script's complaint as an error."""
    code, what = problem
    name = spec.box.name
    match code:
        case "no-user":
            return WrongState(f"there is no user {what!r} on {name}", hint="name another with --user")
        case "no-sudo":
            return WrongState(
                f"the session on {name} may not become {what!r}: sudo asks for a password",
                hint="leave out --user, or configure Run As for Session Manager",
            )
        case "no-mux":
            return WrongState(
                f"{what} is not installed on {name}", hint="install it, or choose with --mux tmux|none"
            )
        case _:
            return WrongState(f"{name} could not start the session ({one_line(code)})")
