"""Run one command on a box: separate byte-exact streams, standard input, the exit status.

The command runs under the relay (``boxside.relay``) in a terminal session, because such a session survives
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
from collections.abc import Awaitable
from typing import Final

import msgspec

from devboxd.boxside import relay
from devboxd.control.connect.attach import SIZE_REPEAT
from devboxd.control.connect.fate import SessionEnded
from devboxd.control.connect.plan import Plan, Quiet
from devboxd.control.connect.relayed import Relayed
from devboxd.control.connect.session import HeldSession
from devboxd.control.connect.sessions import Sessions
from devboxd.control.connect.terminal import Terminal
from devboxd.errors import Denied, DevboxError, DocumentInvalid, Unreachable, WrongState
from devboxd.model.box import BoxRef
from devboxd.model.config import Config
from devboxd.model.session import Ending, SessionEnd, SessionState
from devboxd.model.states import SessionKind, StreamState
from devboxd.model.terminal import Detach, EndOfInput, Input, Leaving, Signal, StatusLine, Taken
from devboxd.ssm import documents
from devboxd.ssm.limits import SHELL
from devboxd.ssm.payload import PayloadType, size
from devboxd.text import one_line

STARTS: Final = 3  # sessions that are tried before the command runs
SKIP_AFTER: Final = 0.5  # seconds a frame may be missing before the relay repairs instead of the agent
END_TIMEOUT: Final = 10.0  # seconds the session has to end once the command's status is known
START_TIMEOUT: Final = 60.0  # seconds from a session that is up to a relay that answers
MOST_EARLY: Final = 128 << 10  # bytes of input that wait for the command: twice what an honest client sends


class ExecSpec(msgspec.Struct, frozen=True):
    """What to run, and where."""

    box: BoxRef
    argv: list[str]
    stdin: bool = True
    user: str | None = None
    cwd: str | None = None
    env: dict[str, str] = {}
    wait: float | None = 120.0


class _Run:
    """One session under the relay: what was heard in it."""

    def __init__(self, nonce: str) -> None:
        self.relayed = Relayed(nonce)
        self.session: HeldSession
        self.first_output = asyncio.Event()
        self.started = asyncio.Event()  # the relay greets
        self.changed = asyncio.Event()  # something to confirm or to ask for
        self.finished = asyncio.Event()  # the relay told the end, or talks nonsense
        self.was_lost = False


class _Ear(Quiet):
    """Hands what a session under the relay says to its execution."""

    def __init__(self, execution: Execution, run: _Run) -> None:
        self._execution = execution
        self._run = run

    def output(self, data: bytes) -> None:
        """Lines of the relay."""
        self._run.first_output.set()
        self._execution.act(self._run, self._run.relayed.output(data))

    def skipped(self, frames: int) -> None:
        """Lines are damaged or missing here, and are asked for."""
        self._run.relayed.skipped(frames)

    def state(self, state: SessionState, text: str, retry_in: float | None) -> None:
        """Tell the client."""
        self._execution.session_is(self._run, state, text, retry_in)


class _Plain(Quiet):
    """Takes a non-interactive session's streams as they are."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self.status: int | None = None
        self.lost_link = False
        self.untaken = 0  # bytes that the client has not written out
        self.too_much = asyncio.Event()

    def output(self, data: bytes, *, error: bool = False) -> None:
        """Standard output. Nothing can slow the box down here, so there is a bound."""
        self.untaken += len(data)
        if self.untaken > relay.MOST_UNREAD:
            self.too_much.set()
        else:
            self._terminal.output(data, error=error)

    def error_output(self, data: bytes) -> None:
        """Standard error."""
        self.output(data, error=True)

    def exit_code(self, code: int) -> None:
        """The status comes before the last output."""
        self.status = code

    def state(self, state: SessionState, text: str, retry_in: float | None) -> None:
        """Tell the client; remember a lost link: the agent throws output away meanwhile."""
        if state is SessionState.RECONNECTING:
            self.lost_link = True
        if state is not SessionState.ENDED:
            self._terminal.status(StatusLine(StreamState(state.value), text, None, retry_in))


class Execution:
    """One command, from its start to its exit status."""

    def __init__(
        self,
        sessions: Sessions,
        spec: ExecSpec,
        terminal: Terminal,
        *,
        config: Config,
    ) -> None:
        self.spec = spec
        self._terminal = terminal
        self._shared = sessions.shared
        self._sessions = sessions
        self._link = config.link
        self._keep_alive = config.keep_alive_of(spec.box)
        self._asked = asyncio.Event()  # the relay was told what to run: nothing may overtake that
        self._signal: int | None = None  # that ended the run before the command ran
        self._input: deque[bytes] = deque()  # what is to be sent, empty at the end of input
        self._waiting = 0  # bytes of it
        self._has_input = asyncio.Event()
        self._whole = asyncio.Lock()

    async def run(self) -> Leaving:
        """Run the command; the client's disappearance ends it."""
        try:
            try:
                for _ in range(STARTS - 1):
                    leaving = await self._run_relayed()
                    if self._asked.is_set() or not isinstance(leaving.error, Unreachable):
                        return leaving
                    # A session that ended before the relay was told what to run has run nothing: try another.
                return await self._run_relayed()
            except (Denied, DocumentInvalid):
                self.say(
                    f"{documents.INTERACTIVE} is not allowed here: no standard input, and a lost link is fatal"
                )
                return await self._run_plain()
        except DevboxError as error:
            return Leaving(error=error)

    def say(self, text: str) -> None:
        """Show text of ours on the client's standard error."""
        self._terminal.status(StatusLine(StreamState.NOTICE, text))

    # Under the relay --------------------------------------------------------------------------------

    async def _run_relayed(self) -> Leaving:
        spec, run = self.spec, _Run(nonce := secrets.token_hex(8))
        command = relay.start_command(nonce=nonce, user=spec.user or spec.box.user, cwd=spec.cwd)
        ear = _Ear(self, run)
        session = run.session = self._session(documents.INTERACTIVE, {"command": command}, ear)
        async with asyncio.TaskGroup() as tasks:
            holder = tasks.create_task(self._sessions.hold(session), name="exec: session")
            client = tasks.create_task(self._listen(run), name="exec: client")
            waiter = tasks.create_task(run.finished.wait(), name="exec: finished")
            starter = tasks.create_task(self._start_relay(run), name="exec: start")
            sender = tasks.create_task(self._send_input(run), name="exec: input")
            keeper = tasks.create_task(self._confirm(run), name="exec: confirm")
            await asyncio.wait({holder, client, waiter}, return_when=asyncio.FIRST_COMPLETED)
            for task in (waiter, starter, client, sender):
                task.cancel()
            if run.relayed.exit is not None and not holder.done():
                # The relay leaves when its last line was taken, and the session ends by itself.
                await _quietly(self._send(session, b"\n" + relay.taken(run.relayed.reader.seen)))
                await asyncio.wait({holder}, timeout=END_TIMEOUT)
            keeper.cancel()
            if not holder.done():
                await session.stop()
        return self._outcome(run, session.end)

    def _outcome(self, run: _Run, end: SessionEnd | None) -> Leaving:
        relayed = run.relayed
        if relayed.error is not None:
            raise relayed.error
        if relayed.exit is not None:
            if relayed.exit.status == 125 and relayed.exit.problem:
                return Leaving(error=WrongState(f"{relayed.exit.problem} ({self.spec.box.name})"))
            if relayed.exit.problem:
                text = f"{self.spec.argv[0]}: {one_line(relayed.exit.problem)}\n"
                self._terminal.output(text.encode(), error=True)
            return Leaving(status=relayed.exit.status)
        if self._signal is not None:
            return Leaving(status=128 + self._signal, reason="ended before the command ran")
        if end is None or end.ending is Ending.STOPPED:
            return Leaving(status=129, reason="the client left")
        if isinstance(end.error, DevboxError):
            raise end.error
        noise = one_line(relayed.reader.noise.decode("utf-8", "replace"))
        what = "before the command ran" if not run.started.is_set() else "before the command ended"
        reason = end.reason or noise or end.ending.value
        return Leaving(error=Unreachable(f"the session ended {what}: {reason}"))

    async def _start_relay(self, run: _Run) -> None:
        # The terminal of a relay has no size, but a size is the one thing that may be sent this early,
        # and its acknowledgement is the first sign of life.
        while not run.first_output.is_set():
            run.session.send_now(PayloadType.SIZE, size(80, 24))
            try:
                async with asyncio.timeout(SIZE_REPEAT):
                    await run.first_output.wait()
            except TimeoutError:
                continue
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await run.started.wait()
        except TimeoutError:
            run.relayed.error = relay.RelayError("the box did not start the command")
            run.finished.set()
            return
        spec = self.spec
        self._asked.set()
        await _quietly(
            self._send(run.session, relay.request(spec.argv, env=spec.env, stdin=spec.stdin))
        )  # the holder reports it
        if not spec.stdin:
            await _quietly(self._send(run.session, relay.END_OF_INPUT))

    async def _confirm(self, run: _Run) -> None:
        """Tell the relay what was taken, and ask for lines that are missing."""
        clock = self._shared.time
        while True:
            run.changed.clear()
            if lines := run.relayed.lines_due(clock.monotonic()):
                try:
                    await self._send(run.session, lines)
                except SessionEnded:
                    return
            await _within(run.relayed.next_look(clock.monotonic()), run.changed.wait())

    async def _send(self, session: HeldSession, lines: bytes) -> None:
        """Send whole lines: several tasks talk to the relay, and each may have to wait in the middle."""
        async with self._whole:
            await session.send(lines)

    # From the session -------------------------------------------------------------------------------

    def act(self, run: _Run, events: list[relay.RelayEvent]) -> None:
        """Carry out what the relay said."""
        for event in events:
            match event:
                case relay.RelayReady(kind):
                    run.session.skip_gaps(SKIP_AFTER if run.relayed.reader.numbered else None)
                    if kind == "sh":
                        self.say("python3 is not on the box: output comes when the command has ended")
                    run.started.set()
                case relay.RelayOutput(data, error):
                    self._terminal.output(data, error=error)
                case relay.RelayCredit(taken):
                    self._terminal.credit(taken)
                case relay.RelayExit():
                    run.finished.set()
        if run.relayed.error is not None:
            run.finished.set()
        run.changed.set()

    def session_is(self, run: _Run, state: SessionState, text: str, retry_in: float | None) -> None:
        """Tell the client how the session does."""
        if state is SessionState.RECONNECTING:
            run.was_lost = True
        elif state is SessionState.ONLINE and run.was_lost:
            run.was_lost = False
            run.relayed.resumed(self._shared.time.monotonic())
            run.changed.set()
        if state is not SessionState.ENDED:
            self._terminal.status(StatusLine(StreamState(state.value), text, None, retry_in))

    # From the client --------------------------------------------------------------------------------

    async def _listen(self, run: _Run) -> None:
        """Take what the client says; returns when it is gone, or wants no more before the command ran."""
        while True:
            match await self._terminal.receive():
                case None | Detach():
                    return
                case Input(data) if self.spec.stdin:
                    if self._waiting + len(data) > MOST_EARLY:
                        return  # it sends more than its credit: no client of ours does
                    self._queue(data)
                case EndOfInput() if self.spec.stdin:
                    self._queue(b"")
                case Signal(number) if not self._asked.is_set():
                    self._signal = number
                    return
                case Signal(number):
                    await _quietly(self._send(run.session, relay.signal(number)))
                case Taken(taken):
                    run.relayed.taken(taken)
                    run.changed.set()
                case _:
                    pass

    def _queue(self, data: bytes) -> None:
        self._input.append(data)
        self._waiting += len(data)
        self._has_input.set()

    async def _send_input(self, run: _Run) -> None:
        """Pass input on, once the command was asked for."""
        await self._asked.wait()
        while True:
            while self._input:
                data = self._input.popleft()
                self._waiting -= len(data)
                run.relayed.given(len(data))
                try:
                    await self._send(run.session, relay.data(data) if data else relay.END_OF_INPUT)
                except SessionEnded:
                    return  # the holder reports it
            self._has_input.clear()
            await self._has_input.wait()

    # Without it -------------------------------------------------------------------------------------

    async def _run_plain(self) -> Leaving:
        spec, sink = self.spec, _Plain(self._terminal)
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
        async with asyncio.TaskGroup() as tasks:
            holder = tasks.create_task(self._sessions.hold(session), name="exec: session")
            client = tasks.create_task(self._wait_for_client(sink), name="exec: client")
            flood = tasks.create_task(sink.too_much.wait(), name="exec: flood")
            await asyncio.wait({holder, client, flood}, return_when=asyncio.FIRST_COMPLETED)
            if not holder.done():
                await session.stop()
            client.cancel()
            flood.cancel()
        end = session.end
        if sink.too_much.is_set():
            raise relay.unread(self.spec.box.name)
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

    async def _wait_for_client(self, sink: _Plain) -> None:
        while True:
            match await self._terminal.receive():
                case None | Detach() | Signal():
                    return  # the far end cannot pass a signal on; ending the session kills the command
                case Input(data):
                    self._terminal.credit(len(data))
                case Taken(taken):
                    sink.untaken -= taken
                case _:
                    pass

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
        return self._sessions.open(plan, sink, self._link)


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
