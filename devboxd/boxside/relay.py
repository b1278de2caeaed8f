"""The relay: a small program on the box that carries one command's streams through a terminal session.

Non-interactive SSM sessions lose what is printed while a link is down, drop bytes that are not UTF-8 and
have no standard input. A terminal session has none of these faults, so a command runs under a relay there,
which speaks lines of base64 both ways: separate streams, byte-exact, compressed, with the exit status, and
with credit in both directions, so that a reader that stops here stops the command there.

Lines from the box, first character the kind: ``r`` ready (JSON), ``o``/``e`` output (deflate), ``c`` input
taken (bytes), ``x`` exit status, ``f`` could not start (status, text). Lines to the box: ``R`` the request
(JSON), ``i`` input, ``z`` end of input, ``s`` signal, ``k`` lines taken (number of the last), ``g`` send this
line again.

Output is not sent as base64 at first (``O``/``E``): the agent passes every byte but U+FFFD, so four bytes are
escaped and a third of the time is saved. Should lines arrive damaged all the same, ``b`` turns that off.

Lines from the box carry a number and a checksum (``o17,89abcdef,…``) and are kept there until they are taken:
after a lost link the agent repairs ten frames a second, so it is told to forget what is missing
(``Channel.skip_ahead``), and the relay is asked for the lines instead. It also stays until its last line was
taken: the agent itself waits two seconds for unacknowledged output, and then it is gone. (Without Python on
the box the relay is plain sh: no numbers, no skipping, output at the end.)
"""

from __future__ import annotations

import base64
import binascii
import shlex
import zlib
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

import msgspec

from devboxd.boxside.said import UNREADABLE
from devboxd.boxside.script import load, load_program, wrap
from devboxd.errors import DevboxError

OUTPUT_WINDOW: Final = 512 << 10  # bytes of lines kept on the box until taken: 0.7 s at the agent's pace
INPUT_WINDOW: Final = 64 << 10  # bytes we may send ahead of the relay's credit
INPUT_CHUNK: Final = 3 << 10  # bytes of input in one line: a terminal's buffer is 4 KiB
MOST_AHEAD: Final = (
    100_000  # lines not taken, or ahead of a missing one: the window holds fewer of the shortest
)
MOST_AHEAD_BYTES: Final = 4 * OUTPUT_WINDOW  # bytes of lines that wait for a missing one
MOST_UNTAKEN: Final = (
    16 << 20
)  # bytes of output that the client has not taken; an honest relay keeps to 4 MiB
MOST_UNREAD: Final = 64 << 20  # the same where nothing can slow the box down: a minute and a half
MOST_DAMAGED: Final = 20_000  # damaged lines in a row: an agent that damages all is told within its window
LONGEST_LINE: Final = 128 << 10  # bytes; the relay's own are under 34 KiB, those of sh 40 KB
LONGEST_PIECE: Final = 64 << 10  # bytes that one line unpacks to; the relay reads 16 KiB at once
MOST_MISSING: Final = 1000  # lines known to be missing that are told at once
NOISE: Final = 2000  # bytes before the greeting that are kept to explain a failure


class RelayError(DevboxError):
    """The relay on the box said something that it cannot have said."""

    code = "relay-failed"


class RelayReady(msgspec.Struct, frozen=True):
    """The relay runs. ``kind`` is python (everything works) or sh (output comes at the end)."""

    kind: str


class RelayOutput(msgspec.Struct, frozen=True):
    """Bytes of the command."""

    data: bytes
    error: bool


class RelayCredit(msgspec.Struct, frozen=True):
    """The command (or its pipe) took that many input bytes."""

    size: int


class RelayExit(msgspec.Struct, frozen=True):
    """The command's exit status; ``problem`` is set where it could not be started."""

    status: int
    problem: str | None = None


RelayEvent = RelayReady | RelayOutput | RelayCredit | RelayExit


def start_command(*, nonce: str, user: str | None, cwd: str | None) -> str:
    """The text that starts the relay. What to run follows through ``request``, unseen by any log."""
    return wrap(
        load("relay.sh"),
        "1",
        nonce,
        user or "",
        cwd or "",
        load_program("relay_program"),
    )


def request(argv: list[str], *, env: dict[str, str], stdin: bool) -> bytes:
    """The line that tells the relay what to run."""
    spec = {"argv": argv, "env": env, "stdin": stdin, "window": OUTPUT_WINDOW}
    exports = "".join(shlex.quote(f"{name}={value}") + " " for name, value in env.items())
    # A name that is no shell identifier cannot be set this way; `env` takes them all.
    script = f"exec env {exports}{shlex.join(argv)}\n" if env else f"exec {shlex.join(argv)}\n"
    return (
        b"R" + base64.b64encode(msgspec.json.encode(spec)) + b" " + base64.b64encode(script.encode()) + b"\n"
    )


def data(chunk: bytes) -> bytes:
    """Lines that carry input."""
    view = memoryview(chunk)
    return b"".join(
        b"i" + base64.b64encode(view[at : at + INPUT_CHUNK]) + b"\n"
        for at in range(0, len(chunk), INPUT_CHUNK)
    )


END_OF_INPUT: Final = b"z\n"


def signal(number: int) -> bytes:
    """The line that sends a signal to the command's process group."""
    return b"s%d\n" % number


def taken(number: int) -> bytes:
    """The line that says up to which line of the relay all was taken here."""
    return b"k%d\n" % number


PADDING: Final = b"   "
"""At the end of each numbered line: the agent holds back up to three bytes that could begin a character."""

PLAIN: Final = b"b\n"
"""The line that asks for base64 from now on, and for lines that are sent again."""


def again(numbers: Iterable[int]) -> bytes:
    """The lines that ask for lines once more."""
    return b"".join(b"g%d\n" % number for number in numbers)


_PROBLEMS: Final = {
    "no-user": "there is no such user on the box",
    "no-sudo": "the session may not become that user (sudo asks for a password)",
    "no-folder": "there is no such folder on the box",
}


def unread(box: str) -> RelayError:
    """Output came that nothing could slow down, and nobody read it here."""
    return RelayError(
        f"{box} sent more than {MOST_UNREAD >> 20} MiB that was not read here",
        hint="write it into a file on the box, or install python3 there",
    )


class RelayReader:
    """Parses what the relay prints, in time linear in it. What comes before its greeting is noise.

    ``seen`` is the number of the last line that was taken in order; later ones wait for those that are
    missing, which the owner asks for with ``again``. Everything that waits here is bounded, whatever the box
    sends; the owner tells what was ``given`` to the command and ``taken`` by the client.
    """

    def __init__(self, nonce: str) -> None:
        self._greeting = nonce.encode() + b":"
        self._buffer = bytearray()
        self._inflate = {True: zlib.decompressobj(), False: zlib.decompressobj()}
        self.kind: str | None = None
        self.noise = b""
        self.seen = 0
        self.given = 0  # bytes of input sent to the command
        self._credited = 0  # of them, those that the relay gave back
        self._unpacked = 0  # bytes of output so far
        self._taken = 0  # of them, those that the client wrote out
        self._marks: deque[tuple[int, int]] = deque()  # after that many bytes, that line is taken
        self._last_taken = 0
        self._ahead: dict[int, bytes] = {}
        self._ahead_size = 0
        self._is_damaged = False  # a line arrived broken, and nobody knows which one
        self._damaged_in_a_row = 0
        self.damages = 0  # how many did

    @property
    def ready(self) -> bool:
        """Say whether the relay has greeted."""
        return self.kind is not None

    @property
    def numbered(self) -> bool:
        """Say whether lines can be asked for again."""
        return self.kind == "python"

    @property
    def missing(self) -> list[int]:
        """The first numbers of lines that did not arrive, as far as later ones show it, in order."""
        last = max(self._ahead, default=self.seen + (1 if self._is_damaged else 0))
        holes = (number for number in range(self.seen + 1, last + 1) if number not in self._ahead)
        return list(islice(holes, MOST_MISSING))

    @property
    def has_gap(self) -> bool:
        """Say whether ``missing`` has something to tell."""
        return bool(self._ahead) or self._is_damaged

    def taken(self, size: int) -> None:
        """The client has written out so many bytes in all."""
        self._taken = size
        while self._marks and self._marks[0][0] <= size:
            self._last_taken = self._marks.popleft()[1]

    @property
    def last_taken(self) -> tuple[int, bool]:
        """The number of the last line that was taken, and whether none waits to be."""
        if self.numbered and not self._marks:
            return self.seen, True  # lines without output are taken at once
        return self._last_taken, not self._marks

    def feed(self, chunk: bytes) -> list[RelayEvent]:
        """Take terminal output and return what it means.

        Raises:
            RelayError: a line that does not parse, or one that never ends.
        """
        self._buffer += chunk
        events: list[RelayEvent] = []
        while not self.ready and (line := self._after_greeting()) is not None:
            events.append(self._greet(line[1:]) if line[:1] == b"r" else self._parse(line))
        if not self.ready:
            return events
        *lines, rest = bytes(self._buffer).split(b"\n")
        for line in lines:
            if self.numbered:
                events += self._numbered(line.rstrip(b"\r"))
            elif line := line.rstrip(b"\r"):
                events.append(self._parse(line))
        if lines:
            self._buffer = bytearray(rest)
        if len(rest) > LONGEST_LINE:
            raise RelayError("a line of the relay never ends")
        return events

    def _after_greeting(self) -> bytes | None:
        """The rest of the first line with our nonce, once it is whole. What stands before it is noise."""
        buffer, greeting = self._buffer, self._greeting
        start = buffer.find(greeting)
        noise = buffer if start < 0 else buffer[:start]
        if start < 0:
            self.noise = bytes(noise[-NOISE:])
            del buffer[: max(0, len(buffer) - NOISE)]
            return None
        self.noise = bytes(noise[-NOISE:]) or self.noise
        end = buffer.find(b"\n", start)
        if end < 0:
            del buffer[:start]
            if len(buffer) > LONGEST_LINE:
                raise RelayError("a line of the relay never ends")
            return None
        line = bytes(buffer[start + len(greeting) : end]).rstrip(b"\r")
        del buffer[: end + 1]
        return line

    def _numbered(self, line: bytes) -> list[RelayEvent]:
        """Check one line, and return what it and those that waited for it mean."""
        head, _, rest = line.partition(b",")
        checksum, _, payload = rest.partition(b",")
        payload = payload.removesuffix(PADDING)
        try:
            number, expected = int(head[1:]), int(checksum, 16)
        except ValueError:
            number, expected = -1, -1
        if not 0 < number <= self.seen + MOST_AHEAD or zlib.crc32(head + payload) != expected:
            self._is_damaged = True
            self.damages += 1
            self._damaged_in_a_row += 1
            if self._damaged_in_a_row > MOST_DAMAGED:
                raise RelayError("every line of the relay arrives damaged")
            return []
        self._damaged_in_a_row = 0
        if number <= self.seen or number in self._ahead:
            return []  # asked for, and it had only been late
        if self._ahead_size + len(line) > MOST_AHEAD_BYTES:
            raise RelayError("the relay sends further ahead than it may")
        self._ahead[number] = waiting = head[:1] + payload
        self._ahead_size += len(waiting)
        events: list[RelayEvent] = []
        while (ready := self._ahead.pop(self.seen + 1, None)) is not None:
            self.seen += 1
            self._ahead_size -= len(ready)
            self._is_damaged = False
            events.append(self._parse(ready))
        return events

    def _greet(self, rest: bytes) -> RelayReady:
        try:
            greeting: dict[str, Any] = msgspec.json.decode(rest, type=dict[str, Any])
        except UNREADABLE as error:
            raise RelayError(f"the relay's greeting does not parse: {error}") from None
        self.kind = str(greeting.get("relay"))
        return RelayReady(self.kind)

    def _parse(self, line: bytes) -> RelayEvent:
        kind, rest = line[:1], line[1:]
        try:
            match kind:
                case b"o" | b"e" if self.numbered:
                    return self._unpack(base64.b64decode(rest, validate=True), error=kind == b"e")
                case b"O" | b"E" if self.numbered:
                    return self._unpack(_unescape(rest), error=kind == b"E")
                case b"O" | b"E" if self.ready:
                    return self._count(base64.b64decode(rest, validate=True), error=kind == b"E")
                case b"c":
                    return self._credit(_number(rest, 2 * INPUT_WINDOW))
                case b"x":
                    return RelayExit(_number(rest, 255))
                case b"f":
                    status, _, text = rest.partition(b" ")
                    known = _PROBLEMS.get(text.decode("ascii", "replace"))
                    problem = known or base64.b64decode(text, validate=True).decode("utf-8", "replace")
                    return RelayExit(int(status), problem)
                case _:
                    raise RelayError(f"the relay said something unknown ({kind!r})")
        except (ValueError, binascii.Error, zlib.error) as error:
            raise RelayError(f"a line of the relay does not parse: {error}") from None

    def _unpack(self, packed: bytes, *, error: bool) -> RelayOutput:
        inflate = self._inflate[error]
        data = inflate.decompress(packed, LONGEST_PIECE)
        if inflate.unconsumed_tail:
            raise RelayError("a line of the relay unpacks to more than it can have read")
        return self._count(data, error=error)

    def _count(self, data: bytes, *, error: bool) -> RelayOutput:
        """Output that the client is to take: bounded, in bytes and in lines."""
        self._unpacked += len(data)
        untaken = self._unpacked - self._taken
        if not self.numbered:
            if untaken > MOST_UNREAD:
                raise unread("the box")
        elif untaken > MOST_UNTAKEN or len(self._marks) >= MOST_AHEAD:
            raise RelayError("the box sends more output than it may")
        else:
            self._marks.append((self._unpacked, self.seen))
        return RelayOutput(data, error)

    def _credit(self, size: int) -> RelayCredit:
        self._credited += size
        if self._credited > self.given:
            raise RelayError("the relay took more input than it was given")
        return RelayCredit(size)


def _number(text: bytes, most: int) -> int:
    """A number of the relay. Raises ValueError out of its range."""
    number = int(text)
    if not 0 <= number <= most:
        raise ValueError("out of range")
    return number


def _unescape(text: bytes) -> bytes:
    """Undo the relay's escapes. ``=`` comes last: it stands in front of each of the others."""
    for escaped, byte in ((b"=J", b"\n"), (b"=M", b"\r"), (b"=o", b"\xef"), (b"=}", b"=")):
        text = text.replace(escaped, byte)
    return text
