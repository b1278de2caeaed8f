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
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from devboxd.boxside.script import load, squeeze_python, wrap
from devboxd.errors import DevboxError

OUTPUT_WINDOW: Final = 512 << 10  # bytes of lines kept on the box until taken: 0.7 s at the agent's pace
INPUT_WINDOW: Final = 64 << 10  # bytes we may send ahead of the relay's credit
INPUT_CHUNK: Final = 3 << 10  # bytes of input in one line: a terminal's buffer is 4 KiB
MOST_AHEAD: Final = (
    100_000  # lines that can come before a missing one: the window holds fewer of the shortest
)
MOST_UNTAKEN: Final = (
    64 << 20
)  # bytes of output that the client has not taken; an honest relay keeps to 4 MiB
LONGEST_LINE: Final = 1 << 20  # bytes; the relay's own lines stay far below


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
        squeeze_python(load("relay_program.py", common=False)),
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


class RelayReader:
    """Parses what the relay prints. Everything before its first line is noise and kept for error texts.

    ``seen`` is the number of the last line that was taken in order; later ones wait for those that are
    missing, which the owner asks for with ``again``.
    """

    def __init__(self, nonce: str) -> None:
        self._greeting = nonce.encode() + b":"
        self._buffer = bytearray()
        self._inflate = {True: zlib.decompressobj(), False: zlib.decompressobj()}
        self.kind: str | None = None
        self.noise = b""
        self.seen = 0
        self._ahead: dict[int, bytes] = {}
        self._ahead_size = 0
        self._is_damaged = False  # a line arrived broken, and nobody knows which one
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
        """The numbers of lines that did not arrive, as far as later ones show it, in order."""
        last = max(self._ahead, default=self.seen + (1 if self._is_damaged else 0))
        return [number for number in range(self.seen + 1, last + 1) if number not in self._ahead]

    @property
    def has_gap(self) -> bool:
        """Say whether ``missing`` has something to tell."""
        return bool(self._ahead) or self._is_damaged

    def feed(self, chunk: bytes) -> list[RelayEvent]:
        """Take terminal output and return what it means.

        Raises:
            RelayError: a line that does not parse, or one that never ends.
        """
        self._buffer += chunk
        events: list[RelayEvent] = []
        start = 0
        while (end := self._buffer.find(b"\n", start)) >= 0:
            line = bytes(self._buffer[start:end]).rstrip(b"\r")
            start = end + 1
            if not self.ready:
                at = line.find(self._greeting)
                if at < 0:
                    self.noise = (self.noise + line + b"\n")[-2000:]
                    continue
                line = line[at + len(self._greeting) :]
                if line[:1] == b"r":
                    events.append(self._greet(line[1:]))
                    continue
            if self.numbered:
                events += self._numbered(line)
            elif line:
                events.append(self._parse(line))
        del self._buffer[:start]
        if len(self._buffer) > LONGEST_LINE:
            raise RelayError("a line of the relay never ends")
        return events

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
            return []
        if number <= self.seen or number in self._ahead:
            return []  # asked for, and it had only been late
        if self._ahead_size + len(line) > 4 * OUTPUT_WINDOW:
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
        except msgspec.MsgspecError as error:
            raise RelayError(f"the relay's greeting does not parse: {error}") from None
        self.kind = str(greeting.get("relay"))
        return RelayReady(self.kind)

    def _parse(self, line: bytes) -> RelayEvent:
        kind, rest = line[:1], line[1:]
        try:
            match kind:
                case b"o" | b"e":
                    return self._unpack(base64.b64decode(rest, validate=True), error=kind == b"e")
                case b"O" | b"E" if self.numbered:
                    return self._unpack(_unescape(rest), error=kind == b"E")
                case b"O" | b"E":
                    return RelayOutput(base64.b64decode(rest, validate=True), kind == b"E")
                case b"c":
                    return RelayCredit(_number(rest, 2 * INPUT_WINDOW))
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
        data = inflate.decompress(packed, LONGEST_LINE)
        if inflate.unconsumed_tail:
            raise RelayError("a line of the relay unpacks to more than it can have read")
        return RelayOutput(data, error)


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
