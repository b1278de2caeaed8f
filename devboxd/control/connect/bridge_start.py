"""Start the bridgehead on a box, or find the one that runs: one command there, and a short talk with it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from devboxd.boxside import bridgehead
from devboxd.boxside.said import UNREADABLE
from devboxd.boxside.script import digest, in_python, packed
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.terminal import Terminal
from devboxd.errors import DevboxError, Kind, Unreachable
from devboxd.model.box import BoxRef
from devboxd.model.terminal import ClientMessage, Input, Leaving, StatusLine, Taken
from devboxd.text import one_line

TALK_MOST: Final = 16 << 10  # bytes that the start may say
START_TIME: Final = 30.0  # seconds


class Unavailable(DevboxError):
    """This box can have no bridge."""

    code = "bridge-unavailable"
    kind = Kind.STATE


class CutShort(Unreachable):
    """The session in which it starts ended in the middle: another one may do."""

    code = "bridge-cut-short"


class Note(msgspec.Struct, frozen=True):
    """What the bridgehead says of itself."""

    port: int
    pid: int = 0
    path: str = ""
    was: bool = False  # it ran already
    tells: bool = (
        False  # of a connection that it stands (``bridgehead.telling``); one of an earlier daemon may not
    )


class _Talk:
    """A terminal that answers the start program: its text where it needs it, then the request."""

    def __init__(self, program: bytes, request: bytes) -> None:
        self.note: Note | None = None
        self.problem = ""
        self._program = program
        self._request = request
        self._said = bytearray()
        self._heard = 0
        self._taken = 0
        self._inbox: deque[ClientMessage] = deque()
        self._changed = asyncio.Event()
        self.stderr = bytearray()

    @property
    def backlog(self) -> int:
        return 0

    async def receive(self) -> ClientMessage | None:
        """Answers, and word of what was taken; None once it is over."""
        while not self._inbox:
            if self._taken:
                taken, self._taken = self._taken, 0
                return Taken(taken)
            if self.note is not None or self.problem:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._inbox.popleft()

    def output(self, data: bytes, *, error: bool = False) -> None:
        """Take what the start says: untrusted, and little."""
        self._taken += len(data)
        self._heard += len(data)
        if error:
            self.stderr += data[: 2000 - len(self.stderr)]
        elif self._heard > TALK_MOST:
            self.problem = "it says too much"
        else:
            self._said += data
            while b"\n" in self._said and self.note is None:
                line, _, rest = bytes(self._said).partition(b"\n")
                self._said = bytearray(rest)
                self._line(line.strip())
        self._changed.set()

    def _line(self, line: bytes) -> None:
        word, _, rest = line.partition(b" ")
        match word:
            case b"need":
                self._inbox.append(Input(self._program))
            case b"have":
                self._inbox.append(Input(self._request))
            case b"problem":
                self.problem = one_line(rest.decode("utf-8", "replace"))
            case _ if line.startswith(b"{"):
                try:
                    note = msgspec.json.decode(line, type=Note)
                except UNREADABLE as error:
                    self.problem = one_line(str(error))
                    return
                if 0 < note.port < 65536:
                    self.note = note
                else:
                    self.problem = "it names no port"
            case _:
                pass  # what a shell's start-up files print

    def status(self, line: StatusLine) -> None:
        pass

    def credit(self, size: int) -> None:
        pass

    def leave(self, leaving: Leaving) -> None:
        pass

    async def drained(self, below: int) -> None:
        pass


async def start(
    run: Callable[[ExecSpec, Terminal], Awaitable[object]],
    box: BoxRef,
    user: str | None,
    *,
    secret: bytes,
    name: str,
) -> Note:
    """Start it, or find it.

    Raises:
        Unavailable: the box cannot run one.
        CutShort: its session ended; it may run by now.
        DevboxError: the box could not be asked.
    """
    request = msgspec.json.encode({"id": name, "secret": secret.hex()}) + b"\n"
    talk = _Talk(packed(bridgehead.PROGRAM).encode() + b"\n", request)
    argv = in_python("bridge_start", digest(bridgehead.PROGRAM))
    try:
        async with asyncio.timeout(START_TIME):
            leaving = await run(ExecSpec(box=box, argv=argv, user=user), talk)
    except TimeoutError:
        raise Unreachable(f"the bridgehead on {box.name} did not start in time") from None
    if talk.note is not None:
        return talk.note
    if talk.problem:
        raise Unavailable(f"{talk.problem} ({box.name})")
    assert isinstance(leaving, Leaving)
    if isinstance(leaving.error, Unreachable):
        raise CutShort(leaving.error.message) from leaving.error
    if leaving.error is not None:
        raise leaving.error
    if leaving.status is not None and leaving.status > 128:
        raise CutShort(f"the start of the bridgehead on {box.name} was cut short")
    why = one_line(talk.stderr.decode("utf-8", "replace")) or f"it ended with status {leaving.status}"
    raise Unavailable(f"the bridgehead on {box.name} did not start: {why}")
