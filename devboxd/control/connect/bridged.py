"""Run one command on a box over the bridge: it outlives the session that it was started over.

What a client may expect is what ``execute`` gives, and more: separate byte-exact streams, input, signals that overtake
it, the exit status; and no second of waiting for a terminal.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
from collections.abc import Coroutine, Sequence
from typing import Final

import msgspec

from devboxd.boxside import bridgehead
from devboxd.control.connect.bridge_streams import BridgeStream
from devboxd.control.connect.bridges import Bridges
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.stream import StreamReset
from devboxd.control.connect.terminal import Terminal
from devboxd.errors import DevboxError, Unreachable, WrongState
from devboxd.model.bridge.wire import BridgeError
from devboxd.model.terminal import Detach, EndOfInput, Input, Leaving, Resize, Signal, Taken
from devboxd.text import one_line

UNTAKEN: Final = 512 << 10  # bytes that the client has not written out before we read no more
STATUS_MOST: Final = 1024  # bytes of the record that tells the exit status


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

    @property
    def is_online(self) -> bool:
        """Whether some session carries it now; before it has begun, nobody waits."""
        return self._stream is None or self._stream.is_online

    async def run(self) -> Leaving | None:
        """Run it; the client's disappearance ends it. None: there is no bridge to this box, and nothing was run.

        Raises:
            DevboxError: the box could not be reached.
        """
        spec = self._spec
        purpose = bridgehead.command(spec.argv, env=spec.env, cwd=spec.cwd, stdin=spec.stdin, tty=self._tty)
        stream = self._stream = await self._bridges.stream(spec.box, purpose, spec.wait, user=spec.user)
        if stream is None:
            return None
        try:
            async with asyncio.TaskGroup() as tasks:
                down = tasks.create_task(_caught(self._down(stream)), name="exec: output")
                up = tasks.create_task(_caught(self._up(stream)), name="exec: client")
                await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
                for task in (up, down):
                    task.cancel()
        finally:
            stream.close()
            if self._control is not None:
                self._control.close()
        if not down.cancelled():
            return self._outcome(down.result())
        # The client left, or what it said came to nothing because the stream is gone.
        failure = up.result()
        return (
            Leaving(error=failure) if failure is not None else Leaving(status=129, reason="the client left")
        )

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
        records = bridgehead.Records()
        while data := await stream.read():
            for kind, part, is_end in records.feed(data):
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
        """What the client says; returns when it is gone."""
        while True:
            match await self._terminal.receive():
                case None | Detach():
                    return
                case Input(data) if self._spec.stdin or self._tty:
                    for at in range(0, len(data), bridgehead.RECORD_MOST):
                        part = data[at : at + bridgehead.RECORD_MOST]
                        await stream.write(bridgehead.record(bridgehead.STDIN, part))
                        self._terminal.credit(len(part))
                case EndOfInput():
                    await stream.write(bridgehead.record(bridgehead.STDIN_END, b""))
                case Signal(number):
                    await self._say(stream, bridgehead.SIGNAL, b"%d" % number)
                case Resize(columns, rows):
                    await self._say(stream, bridgehead.SIZE, b"[%d,%d]" % (rows, columns))
                case Taken(size):
                    self._untaken -= size
                    self._taken.set()
                case _:
                    pass

    async def _say(self, stream: BridgeStream, kind: int, data: bytes) -> None:
        """Signals and sizes go beside the input, and so overtake it."""
        if self._control is None:
            try:
                self._control = stream.streams.open(bridgehead.control(stream.number))
            except BridgeError as error:
                raise Unreachable(f"{error} ({self._spec.box.name})") from error
        await self._control.write(bridgehead.record(kind, data))


async def _caught(work: Coroutine[None, None, None]) -> DevboxError | None:
    """Keep a failure out of the task group: the other task decides with it what it means."""
    try:
        await work
    except DevboxError as error:
        return error
    return None


def _status(text: bytes) -> int | None:
    try:
        return msgspec.json.decode(text, type=_Exit).status
    except msgspec.MsgspecError:
        return None


def not_started(argv: Sequence[str], symbol: str, box: str) -> str:
    """What a shell would say of a command that is none; and of a whole line in one word, as ssh takes it, what does it."""
    text = f"{one_line(argv[0])}: {os.strerror(getattr(errno, symbol))} ({box})\n"
    if len(argv) == 1 and symbol == "ENOENT" and len(argv[0].split()) > 1:
        text += f"a line for a shell is run by: devboxctl exec {shlex.quote(box)} sh -c 'LINE'\n"
    return text
