"""Run one command on a box: separate byte-exact streams, standard input, the exit status.

The command runs under the relay (``model.relay``) in a terminal session, because such a session survives
lost links with nothing lost. Where an account allows only the non-interactive document, that is used, with
its limits (no input; what is printed while the link is down is lost, and then the run is a failure).
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import shlex
import signal as signals
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from devboxd.aws.errors import DocumentInvalid
from devboxd.boxside import relay
from devboxd.control.base.needs import Dialer, SessionApi
from devboxd.control.base.shared import Shared
from devboxd.control.connect.attach import SIZE_REPEAT
from devboxd.control.connect.session import HeldSession, Plan, Quiet, SessionEnded
from devboxd.control.connect.terminal import Terminal
from devboxd.errors import Denied, DevboxError, Unreachable, WrongState
from devboxd.model.box import BoxRef
from devboxd.model.config import Config
from devboxd.model.session import Ending, SessionEnd, SessionState
from devboxd.model.states import SessionKind
from devboxd.model.terminal import (
    ClientMessage,
    Detach,
    EndOfInput,
    Input,
    Leaving,
    Signal,
    StatusLine,
    Taken,
)
from devboxd.ssm import documents
from devboxd.ssm.limits import SHELL
from devboxd.ssm.payload import PayloadType, size
from devboxd.text import one_line

STARTS: Final = 3  # sessions that are tried before the command runs
CONFIRM_STEP: Final = 64 << 10  # bytes of output taken before the relay is told
CRAWL_LOOK: Final = 0.5  # seconds after a resume until we look how fast output comes
CRAWL_FRAMES: Final = 8  # frames in that time that look like the agent's repairs
QUIET_LOOK: Final = 5.0  # seconds between further looks, once a link was lost
ASK_AGAIN: Final = 2.0  # seconds without the line that is missing before it is asked for once more
MOST_DAMAGES: Final = 3  # lines damaged beyond what gaps explain, before base64 is asked for
MOST_ASKED: Final = 64  # lines asked for at once
SKIP_AFTER: Final = 0.5  # seconds a frame may be missing before the relay repairs instead of the agent
END_TIMEOUT: Final = 10.0  # seconds the session has to end once the command's status is known
START_TIMEOUT: Final = 60.0  # seconds from a session that is up to a relay that answers


class ExecSpec(msgspec.Struct, frozen=True):
    """What to run, and where."""

    box: BoxRef
    argv: list[str]
    stdin: bool = True
    user: str | None = None
    cwd: str | None = None
    env: dict[str, str] = {}
    wait: float | None = 120.0


class _Relayed(Quiet):
    """Reads the relay's lines out of a session's output."""

    def __init__(self, run: Execution, nonce: str) -> None:
        self._run = run
        self.reader = relay.RelayReader(nonce)
        self.first_output = asyncio.Event()
        self.started = asyncio.Event()  # the relay greets
        self.asked = asyncio.Event()  # and has been told what to run: nothing may overtake that
        self.was_lost = False
        self.exit: relay.RelayExit | None = None
        self.error: relay.RelayError | None = None
        self.skips = 0  # gaps that we did not wait for: each may damage a line
        self.frames = 0  # since the last resume
        self.passed = 0  # bytes passed on to the client
        self.marks: deque[tuple[int, int]] = deque()  # after that many bytes, that line is taken

    def output(self, data: bytes) -> None:
        """Parse; a relay that talks nonsense ends the run."""
        self.first_output.set()
        self.frames += 1
        if self.exit is not None or self.error is not None:
            return
        try:
            for event in self.reader.feed(data):
                self._take(event)
            if self.reader.has_gap:
                self._run.changed.set()  # a line out of order is no event, but one before it is missing
        except relay.RelayError as error:
            self.error = error
            self._run.finished.set()

    def _take(self, event: relay.RelayEvent) -> None:
        match event:
            case relay.RelayReady(kind):
                self._run.set_skippable(numbered=self.reader.numbered)
                if kind == "sh":
                    self._run.say("python3 is not on the box: output comes when the command has ended")
                self.started.set()
            case relay.RelayOutput(data, error):
                self.passed += len(data)
                self.marks.append((self.passed, self.reader.seen))
                if self.reader.numbered and self.passed - self._run.taken > relay.MOST_UNTAKEN:
                    raise relay.RelayError("the box sends more output than it may")
                self._run.terminal.output(data, error=error)
            case relay.RelayCredit(taken):
                self._run.terminal.credit(taken)
            case relay.RelayExit():
                self.exit = event
                self._run.finished.set()
        self._run.changed.set()

    def skipped(self, frames: int) -> None:
        """Lines are damaged or missing here; ``Execution`` asks for them."""
        self.skips += frames

    def notice(self, text: str) -> None:
        """Never on standard output."""
        self._run.say(text)

    def state(self, state: SessionState, text: str, retry_in: float | None) -> None:
        """Tell the client."""
        if state is SessionState.RECONNECTING:
            self.was_lost = True
        elif state is SessionState.ONLINE and self.was_lost:
            self.was_lost, self.frames = False, 0
            self._run.resumed()
        if state is not SessionState.ENDED:
            self._run.terminal.status(StatusLine(state.value, text, None, retry_in))


class _Plain(Quiet):
    """Takes a non-interactive session's streams as they are."""

    def __init__(self, run: Execution) -> None:
        self._run = run
        self.status: int | None = None
        self.lost_link = False

    def output(self, data: bytes) -> None:
        """Standard output."""
        self._run.terminal.output(data)

    def error_output(self, data: bytes) -> None:
        """Standard error."""
        self._run.terminal.output(data, error=True)

    def exit_code(self, code: int) -> None:
        """The status comes before the last output."""
        self.status = code

    def notice(self, text: str) -> None:
        """Never on standard output."""
        self._run.say(text)

    def state(self, state: SessionState, text: str, retry_in: float | None) -> None:
        """Tell the client; remember a lost link: the agent throws output away meanwhile."""
        if state is SessionState.RECONNECTING:
            self.lost_link = True
        if state is not SessionState.ENDED:
            self._run.terminal.status(StatusLine(state.value, text, None, retry_in))


class Execution:
    """One command, from its start to its exit status."""

    def __init__(
        self,
        shared: Shared,
        api: SessionApi,
        dialer: Dialer,
        spec: ExecSpec,
        terminal: Terminal,
        *,
        config: Config,
        on_session: Callable[[HeldSession | None], None] = lambda _: None,
    ) -> None:
        self.spec = spec
        self.terminal = terminal
        self.changed = asyncio.Event()  # something to confirm or to ask for
        self.finished = asyncio.Event()  # the relay told the end, or talks nonsense
        self._shared = shared
        self._api = api
        self._dialer = dialer
        self._link = config.link
        self._keep_alive = config.keep_alive_of(spec.box)
        self._on_session = on_session
        self._was_asked = False  # the relay may have been told what to run
        self._taken = 0  # bytes that the client wrote out
        self._confirmed = 0  # of them, when the relay was last told
        self._told = 0  # the relay's lines that we have confirmed
        self._session_now: HeldSession | None = None
        self._whole = asyncio.Lock()
        self._look_at: float | None = None  # when to see whether output crawls; set by the first lost link

    async def run(self) -> Leaving:
        """Run the command; the client's disappearance ends it."""
        try:
            try:
                for _ in range(STARTS - 1):
                    leaving = await self._run_relayed()
                    if not self._may_start_again(leaving):
                        return leaving
                return await self._run_relayed()
            except (Denied, DocumentInvalid):
                self.say(
                    f"{documents.INTERACTIVE} is not allowed here: no standard input, and a lost link is fatal"
                )
                return await self._run_plain()
        except DevboxError as error:
            return Leaving(error=error)

    @property
    def taken(self) -> int:
        """Bytes of output that the client wrote out."""
        return self._taken

    def _may_start_again(self, leaving: Leaving) -> bool:
        """A session that ended before the relay was told what to run has run nothing: try another."""
        # What a client had sent by then is gone with the first try, so one that has input is not repeated.
        return isinstance(leaving.error, Unreachable) and not self._was_asked and not self.spec.stdin

    def say(self, text: str) -> None:
        """Show text of ours on the client's standard error."""
        self.terminal.status(StatusLine("notice", text))

    # Under the relay --------------------------------------------------------------------------------

    async def _run_relayed(self) -> Leaving:
        spec, nonce = self.spec, secrets.token_hex(8)
        self.finished.clear()
        sink = _Relayed(self, nonce)
        command = relay.start_command(nonce=nonce, user=spec.user or spec.box.user, cwd=spec.cwd)
        session = self._session(documents.INTERACTIVE, {"command": command}, sink)
        self._on_session(session)
        try:
            async with asyncio.TaskGroup() as tasks:
                holder = tasks.create_task(session.run(), name="exec: session")
                starter = tasks.create_task(self._start_relay(session, sink), name="exec: start")
                keeper = tasks.create_task(self._confirm(session, sink), name="exec: confirm")
                client = tasks.create_task(self._serve_client(session, sink), name="exec: client")
                waiter = tasks.create_task(self.finished.wait(), name="exec: finished")
                await asyncio.wait({holder, client, waiter}, return_when=asyncio.FIRST_COMPLETED)
                waiter.cancel()
                starter.cancel()
                client.cancel()
                if sink.exit is not None and not holder.done():
                    # The relay leaves when its last line was taken, and the session ends by itself.
                    await _quietly(self._send(session, b"\n" + relay.taken(sink.reader.seen)))
                    await asyncio.wait({holder}, timeout=END_TIMEOUT)
                keeper.cancel()
                if not holder.done():
                    await session.stop()
        finally:
            self._on_session(None)
        return self._outcome(sink, session.end)

    def _outcome(self, sink: _Relayed, end: SessionEnd | None) -> Leaving:
        if sink.error is not None:
            raise sink.error
        if sink.exit is not None:
            if sink.exit.status == 125 and sink.exit.problem:
                return Leaving(error=WrongState(f"{sink.exit.problem} ({self.spec.box.name})"))
            if sink.exit.problem:
                text = f"{self.spec.argv[0]}: {one_line(sink.exit.problem)}\n"
                self.terminal.output(text.encode(), error=True)
            return Leaving(status=sink.exit.status)
        if end is None or end.ending is Ending.STOPPED:
            return Leaving(status=129, reason="the client left")
        if isinstance(end.error, DevboxError):
            raise end.error
        noise = one_line(sink.reader.noise.decode("utf-8", "replace"))
        what = "before the command ran" if not sink.started.is_set() else "before the command ended"
        reason = end.reason or noise or end.ending.value
        return Leaving(error=Unreachable(f"the session ended {what}: {reason}"))

    async def _start_relay(self, session: HeldSession, sink: _Relayed) -> None:
        # The terminal of a relay has no size, but a size is the one thing that may be sent this early,
        # and its acknowledgement is the first sign of life.
        while not sink.first_output.is_set():
            session.send_now(PayloadType.SIZE, size(80, 24))
            try:
                async with asyncio.timeout(SIZE_REPEAT):
                    await sink.first_output.wait()
            except TimeoutError:
                continue
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await sink.started.wait()
        except TimeoutError:
            sink.error = relay.RelayError("the box did not start the command")
            self.finished.set()
            return
        self._was_asked = True
        try:
            await self._send(session, relay.request(self.spec.argv, env=self.spec.env, stdin=self.spec.stdin))
            if sink.reader.ready and not self.spec.stdin:
                await self._send(session, relay.END_OF_INPUT)
        except SessionEnded:
            return  # the holder reports it
        sink.asked.set()

    async def _confirm(self, session: HeldSession, sink: _Relayed) -> None:
        """Tell the relay what was taken, and ask for lines that are missing."""
        reader, clock = sink.reader, self._shared.time
        asked: dict[int, float] = {}
        plain = False
        while True:
            self.changed.clear()
            now = clock.monotonic()
            number = 0
            while sink.marks and sink.marks[0][0] <= self._taken:
                number = sink.marks.popleft()[1]
            if not sink.marks and reader.numbered:
                number = reader.seen  # lines without output are taken at once
            wanted = reader.missing
            if not wanted and reader.numbered and self._look_at is not None and now >= self._look_at:
                # The agent repairs what it had sent before a cut at ten frames a second, and what is missing
                # shows only when something later arrives. A line that is not there yet costs nothing.
                self._look_at = now + QUIET_LOOK
                wanted = [reader.seen + 1] if sink.frames <= CRAWL_FRAMES else []
                sink.frames = 0
            asked = {line: at for line, at in asked.items() if line > reader.seen and now - at < ASK_AGAIN}
            wanted = [line for line in wanted if line not in asked][:MOST_ASKED]
            asked.update(dict.fromkeys(wanted, now))
            try:
                if number > self._told and (not sink.marks or self._taken - self._confirmed >= CONFIRM_STEP):
                    self._told, self._confirmed = number, self._taken
                    await self._send(session, relay.taken(number))
                if reader.damages > sink.skips + MOST_DAMAGES and not plain:
                    plain = True  # this agent does not pass all bytes
                    await self._send(session, relay.PLAIN)
                if wanted:
                    await self._send(session, relay.again(wanted))
            except SessionEnded:
                return
            waits = [ASK_AGAIN] if asked else []
            if self._look_at is not None:
                waits.append(max(0.05, self._look_at - clock.monotonic()))
            await _within(min(waits, default=None), self.changed.wait())

    async def _send(self, session: HeldSession, lines: bytes) -> None:
        """Send whole lines: several tasks talk to the relay, and each may have to wait in the middle."""
        async with self._whole:
            await session.send(lines)

    def resumed(self) -> None:
        """The session has a link again."""
        self._look_at = self._shared.time.monotonic() + CRAWL_LOOK
        self.changed.set()

    def set_skippable(self, *, numbered: bool) -> None:
        """The relay repairs gaps faster than the agent does."""
        if self._session_now is not None:
            self._session_now.skip_gaps(SKIP_AFTER if numbered else None)

    async def _serve_client(self, session: HeldSession, sink: _Relayed) -> None:
        """Pass input, signals and credit on; returns when the client is gone."""
        while True:
            message = await self.terminal.receive()
            if message is None or isinstance(message, Detach):
                return
            try:
                match message:
                    case Input(data):
                        await sink.asked.wait()
                        await self._send(session, relay.data(data))
                    case EndOfInput():
                        await sink.asked.wait()
                        if self.spec.stdin:
                            await self._send(session, relay.END_OF_INPUT)
                    case Signal(number):
                        await sink.asked.wait()
                        await self._send(session, relay.signal(number))
                    case Taken(taken):
                        self._taken += taken
                        self.changed.set()
                    case _:
                        pass
            except SessionEnded:
                return

    # Without it -------------------------------------------------------------------------------------

    async def _run_plain(self) -> Leaving:
        spec, sink = self.spec, _Plain(self)
        if spec.user or spec.box.user or spec.env:
            raise WrongState(
                f"{documents.INTERACTIVE} is not allowed here; without it neither user nor environment can be set",
                hint="leave out --user and --env, or have the document allowed",
            )
        script = ""
        if spec.cwd:
            script += f"cd {shlex.quote(spec.cwd)} || exit 125;"
        script += f"exec {shlex.join(spec.argv)}"
        encoded = base64.b64encode(script.encode()).decode()
        command = f"sh -c 'eval \"$(printf %s {encoded} | base64 -d)\"'"
        session = self._session(
            documents.NON_INTERACTIVE, {"command": command, "separateOutputStream": "true"}, sink
        )
        self._on_session(session)
        try:
            async with asyncio.TaskGroup() as tasks:
                holder = tasks.create_task(session.run(), name="exec: session")
                client = tasks.create_task(self._wait_for_client(), name="exec: client")
                await asyncio.wait({holder, client}, return_when=asyncio.FIRST_COMPLETED)
                if not holder.done():
                    await session.stop()
                client.cancel()
        finally:
            self._on_session(None)
        end = session.end
        if end is not None and isinstance(end.error, DevboxError):
            raise end.error
        if sink.lost_link:
            return Leaving(
                error=Unreachable("the link was lost while the command ran: its output is incomplete")
            )
        if sink.status is None:
            reason = end.reason if end is not None else ""
            return Leaving(
                error=Unreachable(f"the session ended without an exit status: {reason or 'no reason given'}")
            )
        return Leaving(status=sink.status if sink.status >= 0 else 128 + signals.SIGTERM)

    async def _wait_for_client(self) -> None:
        while True:
            message = await self.terminal.receive()
            if message is None or isinstance(message, Detach | Signal):
                return  # the far end cannot pass a signal on; ending the session kills the command
            if isinstance(message, Input):
                self.terminal.credit(len(message.data))

    def _session(self, document: str, parameters: dict[str, str], sink: Quiet) -> HeldSession:
        plan = Plan(
            target=self.spec.box.target,
            box=self.spec.box.name,
            account=self.spec.box.account,
            kind=SessionKind.EXEC,
            document=document,
            parameters=parameters,
            limits=SHELL,
            wait=self.spec.wait,
            keep_alive=self._keep_alive,
            attended=True,
            touch=lambda: (PayloadType.SIZE, size(80, 24)),
        )
        session = HeldSession(self._shared, self._api, self._dialer, plan, sink, self._link)
        self._session_now = session
        return session


async def _quietly(work: Awaitable[None]) -> None:
    """Do something that does not matter any more once the session is gone."""
    try:
        await work
    except SessionEnded:
        return


async def _within(timeout: float | None, work: Awaitable[object]) -> None:
    """Wait for something, for ``timeout`` seconds at most."""
    try:
        async with asyncio.timeout(timeout):
            await work
    except TimeoutError:
        return


class Audience:
    """A terminal for commands that devbox itself runs: fixed input, and output that is taken at once."""

    def __init__(self, stdin: bytes = b"") -> None:
        self._messages: asyncio.Queue[ClientMessage] = asyncio.Queue()
        if stdin:
            self._messages.put_nowait(Input(stdin))
        self._messages.put_nowait(EndOfInput())

    @property
    def backlog(self) -> int:
        """Nothing is ever behind."""
        return 0

    async def receive(self) -> ClientMessage | None:
        """The prepared input, then word of what was taken."""
        return await self._messages.get()

    def output(self, data: bytes, *, error: bool = False) -> None:
        """Take it."""
        self._messages.put_nowait(Taken(len(data)))

    def status(self, line: StatusLine) -> None:
        """Nobody looks."""

    def credit(self, size: int) -> None:
        """Input is prepared."""

    def leave(self, leaving: Leaving) -> None:
        """The caller has the result."""

    async def drained(self, below: int) -> None:
        """Always."""


class Capture(Audience):
    """Collects a bounded amount of output."""

    LIMIT = 1 << 20  # bytes

    def __init__(self, stdin: bytes = b"") -> None:
        super().__init__(stdin)
        self.stdout = bytearray()
        self.stderr = bytearray()

    def output(self, data: bytes, *, error: bool = False) -> None:
        """Keep it, up to the limit."""
        super().output(data)
        into = self.stderr if error else self.stdout
        into += data[: self.LIMIT - len(into)]
