"""A plain shell or a command on a terminal, over the bridge: it outlives the session that it was started over.

It is started by the same script as every attach (``boxside/programs/attach.sh``), so its environment, its user and
what is said on the way are the same; only the terminal belongs to the bridgehead, and not to a session. What its
client does not read waits on the box, and what is typed while no session is up arrives once, when one is.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Coroutine, Sequence

import msgspec

from devboxd.boxside.shell import attach_command
from devboxd.control.base.handing import Kind, Offer
from devboxd.control.base.time import Time
from devboxd.control.connect.bridge_streams import BridgeStream
from devboxd.control.connect.bridged import BridgedExecution
from devboxd.control.connect.bridges import Bridges
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.parcel import Command, Packing
from devboxd.control.connect.screen import CameUp, Marks, Note, Once, Screen, Show
from devboxd.control.connect.terminal import Portable, Terminal
from devboxd.model.attach import AttachSpec, note, problem
from devboxd.model.states import Mux, StreamState
from devboxd.model.terminal import ClientMessage, Detach, Leaving, StatusLine


def goes_over_a_bridge(spec: AttachSpec) -> bool:
    """Whether nothing on the box keeps what this attach starts: no multiplexer."""
    return spec.raw or spec.command is not None or spec.mux is Mux.NONE


class BridgedTerminal:
    """One terminal, from its start to the end of what runs on it."""

    def __init__(self, bridges: Bridges, spec: AttachSpec, terminal: Terminal, time: Time) -> None:
        self._bridges = bridges
        self._spec = spec
        self._shown = _Shown(spec, terminal, time)
        self._execution: BridgedExecution | None = None

    async def run(self) -> Leaving | None:
        """Hold the terminal. None: there is no bridge to this box, and nothing was run.

        Raises:
            DevboxError: the box could not be reached.
        """
        spec, shown = self._spec, self._shown
        text = attach_command(
            nonce=shown.screen.nonce,
            session=spec.session,
            term=spec.term,
            mux=Mux.NONE,
            colorterm=spec.colorterm,
            locale=spec.locale,
            command=spec.command,
            lends_agent=spec.agent is not None,
        )
        wanted = ExecSpec(box=spec.box, argv=["sh", "-c", text], user=spec.user, wait=spec.wait)
        size = (max(1, spec.rows), max(1, spec.columns))
        execution = self._execution = BridgedExecution(self._bridges, wanted, shown, size)
        return await self._held(execution, execution.run())

    def unheard(self) -> Terminal:
        """The terminal for whoever serves its client where ``run`` could not."""
        terminal = self._shown.terminal
        return terminal if self._execution is None else self._execution.unheard(terminal)

    async def go_on(
        self, command: Command, stream: BridgeStream, control: BridgeStream | None
    ) -> Leaving | None:
        """Hold one that another daemon began."""
        if command.marks is not None:
            self._shown.go_on(command.marks, command.said)
        execution = BridgedExecution.resumed(self._bridges, command, self._shown, stream, control)
        return await self._held(execution, execution.go_on())

    async def _held(
        self, execution: BridgedExecution, work: Coroutine[None, None, Leaving | None]
    ) -> Leaving | None:
        with contextlib.ExitStack() as offered:
            if isinstance(self._shown.terminal, Portable):
                offer = self._offer(execution, self._shown.terminal)
                offered.enter_context(self._bridges.handing.offered(offer))
            leaving = await work
        self._shown.finish()
        return leaving if leaving is None else self._left(leaving)

    def _offer(self, execution: BridgedExecution, terminal: Portable) -> Offer:
        def pack(packing: Packing) -> None:
            loose = terminal.let_go()
            if loose is None:
                return
            command = execution.packed(packing, packing.client(loose))
            packing.pieces.append(
                msgspec.structs.replace(
                    command,
                    attach=self._spec,
                    marks=self._shown.screen.marks(),
                    said=self._shown.notes.said,
                )
            )

        kind = Kind.SHELL if self._spec.command is None else Kind.COMMAND
        return Offer(kind, pack, lambda: execution.is_portable)

    def _left(self, leaving: Leaving) -> Leaving:
        screen = self._shown.screen
        if screen.problem is not None:
            return Leaving(error=problem(*screen.problem, box=self._spec.box.name))
        if screen.program_ended:
            return Leaving(status=screen.status)
        return Leaving() if self._shown.has_left else leaving


class _Shown:
    """The client's terminal with the start script's marks taken out of what it gets."""

    def __init__(self, spec: AttachSpec, terminal: Terminal, time: Time) -> None:
        self.screen = Screen(secrets.token_hex(8))
        self.has_left = False  # its user
        self.terminal = terminal
        self._box = spec.box.name
        self._time = time
        self.notes = Once()
        self.credit: Callable[[int], None] = terminal.credit
        self.leave: Callable[[Leaving], None] = terminal.leave

    def go_on(self, marks: Marks, said: Sequence[str]) -> None:
        """Another daemon has heard and said that much."""
        self.screen = Screen.at(marks)
        for text in said:
            self.notes.takes(text)

    async def receive(self) -> ClientMessage | None:
        """What the client says."""
        message = await self.terminal.receive()
        self.has_left = message is None or isinstance(message, Detach)
        return message

    def output(self, data: bytes, *, error: bool = False) -> None:
        """What the box says: shown, or a mark that means something."""
        for event in self.screen.output(data):
            match event:
                case Show(shown):
                    self.terminal.output(shown)
                case CameUp(kind):
                    self.status(StatusLine(StreamState.ONLINE, mux=kind))
                case Note(code, words):
                    text = note(code, words, self._box)
                    if text is not None and self.notes.takes(text):
                        self.status(StatusLine(StreamState.NOTICE, text))
                case _:
                    pass

    def status(self, line: StatusLine) -> None:
        """How the way to the box does. A terminal is joined once its shell is there, and not before."""
        if line.state == StreamState.ONLINE:
            if not self.screen.started:
                return
            line = StatusLine(StreamState.ONLINE, mux=self.screen.kind)
        elif line.state == StreamState.RECONNECTING:
            line = msgspec.structs.replace(line, since=self._time.wall())
        self.terminal.status(line)

    def finish(self) -> None:
        """Nothing more comes."""
        for event in self.screen.finish():
            if isinstance(event, Show):
                self.terminal.output(event.data)

    @property
    def backlog(self) -> int:
        return self.terminal.backlog

    async def drained(self, below: int) -> None:
        await self.terminal.drained(below)
