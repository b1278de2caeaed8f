"""Run one command on a box over the bridge: it outlives the session that it was started over.

What a client may expect is what ``execute`` gives, and more: separate byte-exact streams, input, signals that overtake
it, the exit status; and no second of waiting for a terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shlex
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from typing import Final, Self

import msgspec

from devboxd.boxside import bridgehead
from devboxd.boxside.said import UNREADABLE
from devboxd.control.base.handing import Kind, Offer
from devboxd.control.connect.audience import Overheard
from devboxd.control.connect.bridge_streams import BridgeStream
from devboxd.control.connect.bridges import Bridges
from devboxd.control.connect.execute import MOST_EARLY, ExecSpec
from devboxd.control.connect.parcel import Client, Command, Packing
from devboxd.control.connect.stream import StreamReset
from devboxd.control.connect.terminal import Portable, Terminal
from devboxd.errors import DevboxError, Unreachable, WrongState
from devboxd.model.bridge.wire import BridgeError
from devboxd.model.patience import leaves, shown
from devboxd.model.states import StreamState
from devboxd.model.terminal import (
    ClientMessage,
    Detach,
    EndOfInput,
    Input,
    Leaving,
    Resize,
    Signal,
    StatusLine,
    Taken,
)
from devboxd.text import one_line

UNTAKEN: Final = 512 << 10  # bytes that the client has not written out before we read no more
STATUS_MOST: Final = 1024  # bytes of the record that tells the exit status
FIRST_LOOK, LOOK = 0.25, 1.0  # seconds between two looks at the way to the box; a warm bridge needs none
TAKEN_LOOK: Final = 0.05  # seconds between two looks whether the box has taken a signal
CLIENT_LEFT: Final = Leaving(status=129, reason="the client left")


class _Exit(msgspec.Struct):
    status: int


class BridgedExecution:
    """One command, from its start to its exit status."""

    def __init__(
        self, bridges: Bridges, spec: ExecSpec, terminal: Terminal, tty: tuple[int, int] | None = None
    ) -> None:
        """Make it. ``tty``: rows and columns of a terminal for the command."""
        self._bridges = bridges
        self._spec = spec
        self._terminal = terminal
        self._tty = tty
        self._stream: BridgeStream | None = None
        self._control: BridgeStream | None = None
        self._untaken = 0
        self._taken = asyncio.Event()
        self._status: int | None = None
        self._tail = bytearray()
        self._records = bridgehead.Records()
        self._rest = b""  # input that the bridge has not taken: MOST_EARLY
        self._has_ended = False  # and no more comes behind that
        self._has_input = asyncio.Event()
        self._owed = 0  # bytes of credit for the part of it that is being written
        self._early: deque[ClientMessage] = deque()  # what the client said before the stream was there
        self._has_begun = False  # the box has heard of it
        self._told = StreamState.ONLINE  # to the client
        self._signalled = asyncio.Event()  # the client wants the command to end, by:
        self._signal = 0

    @classmethod
    def resumed(
        cls,
        bridges: Bridges,
        command: Command,
        terminal: Terminal,
        stream: BridgeStream,
        control: BridgeStream | None,
    ) -> Self:
        """One that another daemon began: ``go_on`` with it."""
        one = cls(bridges, command.spec, terminal, command.tty)
        one._stream, one._control = stream, control
        one._untaken, one._status = command.untaken, command.status
        one._tail += command.tail
        one._records = bridgehead.Records.at(command.record)
        one._rest, one._owed = command.rest, command.owed
        one._has_input.set()
        one._has_begun = True
        stream.unwritten = command.stream.unwritten
        if control is not None and command.control is not None:
            control.unwritten = command.control.unwritten
        return one

    @property
    def is_online(self) -> bool:
        """Whether some session carries it now; before it has begun, nobody waits."""
        return self._stream is None or self._stream.is_online

    @property
    def is_portable(self) -> bool:
        """Whether another daemon could go on with it now."""
        return self._stream is not None and self._stream.is_whole and not self._early

    def packed(self, packing: Packing, client: Client) -> Command:
        """All that another daemon has to know of it."""
        assert self._stream is not None
        control = self._control if self._control is not None and self._control.is_whole else None
        unwritten, rest, owed = self._stream.unwritten, self._rest, self._owed
        if self._has_ended:  # there is no word for an end that waits: it goes with what waits before it
            unwritten += b"".join(bridgehead.record(bridgehead.STDIN, part) for part in _parts(rest))
            unwritten += bridgehead.record(bridgehead.STDIN_END, b"")
            rest, owed = b"", owed + len(rest)
        return Command(
            client=client,
            stream=packing.stream(self._stream, unwritten),
            control=packing.stream(control, control.unwritten) if control is not None else None,
            spec=self._spec,
            tty=self._tty,
            untaken=self._untaken,
            status=self._status,
            tail=bytes(self._tail),
            record=self._records.place,
            rest=rest,
            owed=owed,
        )

    async def run(self) -> Leaving | None:
        """Run it; the client's disappearance ends it. None: there is no bridge to this box, and nothing was run.

        Raises:
            DevboxError: the box could not be reached.
        """
        spec = self._spec
        purpose = bridgehead.command(spec.argv, env=spec.env, cwd=spec.cwd, stdin=spec.stdin, tty=self._tty)
        work = self._bridges.stream(spec.box, purpose, spec.wait, user=spec.user)
        opening = asyncio.create_task(work, name="exec: stream")  # noqa: TID251 - awaited below
        leaving = asyncio.create_task(self._left_early(), name="exec: client")  # noqa: TID251 - the same
        watcher = asyncio.create_task(self._watch(), name="exec: way")  # noqa: TID251 - the same
        tasks = (opening, leaving, watcher)
        try:
            await asyncio.wait({opening, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done():
                return leaving.result()
            self._stream = opening.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._stream is None:
                _close(opening)
        return None if self._stream is None else await self.go_on()

    async def _left_early(self) -> Leaving:
        """Keep what the client says until it wants no more before the command ran."""
        early = 0
        while True:
            match message := await self._terminal.receive():
                case None | Detach():
                    return CLIENT_LEFT
                case Signal(number):
                    return Leaving(status=128 + number, reason="ended before the command ran")
                case Input(data) if (early := early + len(data)) > MOST_EARLY:
                    return CLIENT_LEFT  # it sends more than its credit: no client of ours does
                case _:
                    self._early.append(message)

    def unheard(self, terminal: Terminal) -> Terminal:
        """The terminal for whoever serves its client where ``run`` could not."""
        return Overheard(terminal, self._early) if self._early else terminal

    async def _watch(self) -> None:
        """Tell the client how the way to the box does, where there is something to tell."""
        await asyncio.sleep(FIRST_LOOK)
        while True:
            if self._stream is not None:
                self._has_begun = self._has_begun or self._stream.has_begun
            answers = self._stream is None or self._stream.answers
            state = shown(has_begun=self._has_begun, is_online=self.is_online, answers=answers)
            if state is not self._told:
                self._told = state
                self._terminal.status(StatusLine(state, self._text(state)))
            await asyncio.sleep(LOOK)

    def _text(self, state: StreamState) -> str:
        match state:
            case StreamState.STARTING:
                return f"reaching {self._spec.box.name}"
            case StreamState.RECONNECTING:
                return "the link was lost"
            case StreamState.STALLED:
                return f"the bridge's program on {self._spec.box.name} does not answer"
            case _:
                return ""

    async def go_on(self) -> Leaving:
        """Carry it to its end."""
        stream, terminal = self._stream, self._terminal
        assert stream is not None
        with contextlib.ExitStack() as offered:
            if isinstance(terminal, Portable):
                offered.enter_context(self._bridges.handing.offered(self._offer(terminal)))
            return await self._carried(stream)

    def _offer(self, terminal: Portable) -> Offer:
        def pack(packing: Packing) -> None:
            if (loose := terminal.let_go()) is not None:
                packing.pieces.append(self.packed(packing, packing.client(loose)))

        return Offer(Kind.COMMAND, pack, lambda: self.is_portable)

    async def _carried(self, stream: BridgeStream) -> Leaving:
        try:
            async with asyncio.TaskGroup() as tasks:
                down = tasks.create_task(_caught(self._down(stream)), name="exec: output")
                up = tasks.create_task(_caught(self._up(stream)), name="exec: client")
                feed = tasks.create_task(_caught(self._feed(stream)), name="exec: input")
                untaken = tasks.create_task(self._untaken_signal(stream), name="exec: signal")
                watcher = tasks.create_task(self._watch(), name="exec: way")
                await asyncio.wait({up, down, feed, untaken}, return_when=asyncio.FIRST_COMPLETED)
                for task in (up, down, feed, untaken, watcher):
                    task.cancel()
        finally:
            stream.close()
            if self._control is not None:
                self._control.close()
        if not down.cancelled():
            return self._outcome(down.result())
        for said in (up, feed):
            if not said.cancelled():
                # The client left, or what it said came to nothing because the stream is gone.
                failure = said.result()
                return Leaving(error=failure) if failure is not None else CLIENT_LEFT
        text = f"{self._spec.box.name} did not take the signal: the command is hung up once it can be reached"
        self._terminal.status(StatusLine(StreamState.NOTICE, text))
        return Leaving(status=128 + self._signal, reason="the box did not take the signal")

    async def _untaken_signal(self, stream: BridgeStream) -> None:
        """Return once a signal came that the box does not take."""
        loop = asyncio.get_running_loop()
        while True:
            await self._signalled.wait()
            self._signalled.clear()
            began = loop.time()
            while not (is_taken := self._control is not None and self._control.has_arrived):
                if leaves(is_online=stream.is_online, is_taken=is_taken, waited=loop.time() - began):
                    return
                await asyncio.sleep(TAKEN_LOOK)

    def _outcome(self, error: DevboxError | None) -> Leaving:
        if self._status is not None:
            return Leaving(status=self._status)
        if error is None:
            return Leaving(error=Unreachable(f"{self._spec.box.name} ended the command without a status"))
        symbol = error.symbol if isinstance(error, StreamReset) else ""
        if symbol == "ENOTDIR":
            return Leaving(error=WrongState(f"there is no folder {self._spec.cwd} ({self._spec.box.name})"))
        if symbol in ("ENOENT", "EACCES", "ENOEXEC", "E2BIG"):
            text = not_started(self._spec.argv, symbol, self._spec.box.name)
            self._terminal.output(text.encode("utf-8", "replace"), error=True)
            return Leaving(status=127 if symbol == "ENOENT" else 126)
        return Leaving(error=error)

    async def _down(self, stream: BridgeStream) -> None:
        """What the command says, as fast as the client takes it."""
        while data := await stream.read():
            for kind, part, is_end in self._records.feed(data):
                if kind in (bridgehead.STDOUT, bridgehead.STDERR):
                    self._untaken += len(part)
                    self._terminal.output(part, error=kind == bridgehead.STDERR)
                elif kind == bridgehead.EXIT:
                    self._tail += part[: STATUS_MOST - len(self._tail)]
                    if is_end:
                        self._status = _status(bytes(self._tail))
            if self._tty:  # a terminal's client does not say what it took
                await self._terminal.drained(UNTAKEN)
                continue
            while self._untaken > UNTAKEN:
                self._taken.clear()
                await self._taken.wait()

    async def _up(self, stream: BridgeStream) -> None:
        """What the client says; returns when it is gone. Input that the box does not take holds up nothing else."""
        if self._control is not None and self._control.unwritten:
            await self._control.write(self._control.unwritten)
        while True:
            match self._early.popleft() if self._early else await self._terminal.receive():
                case None | Detach():
                    return
                case Input(data) if self._spec.stdin or self._tty:
                    if len(self._rest) + len(data) > MOST_EARLY:
                        return  # it sends more than its credit: no client of ours does
                    self._rest += data
                    self._has_input.set()
                case EndOfInput():
                    self._has_ended = True
                    self._has_input.set()
                case Signal(number):
                    await self._say(stream, bridgehead.SIGNAL, b"%d" % number)
                    self._signal = number
                    self._signalled.set()
                case Resize(columns, rows):
                    await self._say(stream, bridgehead.SIZE, b"[%d,%d]" % (rows, columns))
                case Taken(size):
                    self._untaken -= size
                    self._taken.set()
                case _:
                    pass

    async def _feed(self, stream: BridgeStream) -> None:
        """Pass input on as the bridge takes it, and give credit for it."""
        if stream.unwritten:  # another daemon was writing it when it left
            await stream.write(stream.unwritten)
        self._credit()
        while True:
            await self._has_input.wait()
            self._has_input.clear()
            while self._rest:
                part, self._rest = self._rest[: bridgehead.RECORD_MOST], self._rest[bridgehead.RECORD_MOST :]
                self._owed = len(part)
                await stream.write(bridgehead.record(bridgehead.STDIN, part))
                self._credit()
            if self._has_ended:
                self._has_ended = False
                await stream.write(bridgehead.record(bridgehead.STDIN_END, b""))

    def _credit(self) -> None:
        if self._owed:
            self._terminal.credit(self._owed)
            self._owed = 0

    async def _say(self, stream: BridgeStream, kind: int, data: bytes) -> None:
        """Signals and sizes go beside the input, and so overtake it."""
        if self._control is None:
            try:
                self._control = stream.streams.open(bridgehead.control(stream.number))
            except BridgeError as error:
                raise Unreachable(f"{error} ({self._spec.box.name})") from error
        await self._control.write(bridgehead.record(kind, data))


class Told:
    """What a command says on its standard output over a bridge; closing it ends the command."""

    def __init__(self, stream: BridgeStream) -> None:
        self._stream = stream
        self._records = bridgehead.Records()

    async def read(self) -> bytes:
        """Some of it; none at its end. Raises as ``BridgeStream.read``."""
        while data := await self._stream.read():
            parts = self._records.feed(data)
            if said := b"".join(part for kind, part, _ in parts if kind == bridgehead.STDOUT):
                return said
        return b""

    def close(self) -> None:
        """End the command, if it runs."""
        self._stream.close()


async def _caught(work: Coroutine[None, None, None]) -> DevboxError | None:
    """Keep a failure out of the task group: the other task decides with it what it means."""
    try:
        await work
    except DevboxError as error:
        return error
    return None


def _close(opening: asyncio.Task[BridgeStream | None]) -> None:
    """Nobody wants what was opened, if it was."""
    if not opening.cancelled() and opening.exception() is None and (stream := opening.result()) is not None:
        stream.close()


def _parts(data: bytes) -> Iterator[bytes]:
    """As much as goes into one record each."""
    return (data[at : at + bridgehead.RECORD_MOST] for at in range(0, len(data), bridgehead.RECORD_MOST))


def _status(text: bytes) -> int | None:
    try:
        return msgspec.json.decode(text, type=_Exit).status
    except UNREADABLE:
        return None


def not_started(argv: Sequence[str], symbol: str, box: str) -> str:
    """What a shell would say of a command that is none; and of a whole line in one word, as ssh takes it, what does it."""
    text = f"{one_line(argv[0])}: {os.strerror(getattr(errno, symbol))} ({box})\n"
    if len(argv) == 1 and symbol == "ENOENT" and len(argv[0].split()) > 1:
        text += f"a line for a shell is run by: devboxctl exec {shlex.quote(box)} sh -c 'LINE'\n"
    return text
