"""The relay: a small program on the box that carries one command's streams through a terminal session.

Non-interactive SSM sessions lose what is printed while a link is down, drop bytes that are not UTF-8 and
have no standard input. A terminal session has none of these faults, so a command runs under a relay there,
which speaks lines of base64 both ways: separate streams, byte-exact, compressed, with the exit status, and
with credit in both directions, so that a reader that stops here stops the command there.

Lines from the box, first character the kind: ``r`` ready (JSON), ``o``/``e`` output (deflate), ``c`` input
taken (bytes), ``x`` exit status, ``f`` could not start (status, text). Lines to the box: ``R`` the request
(JSON), ``i`` input, ``z`` end of input, ``s`` signal, ``k`` output taken (bytes).
"""

from __future__ import annotations

import base64
import binascii
import shlex
import zlib
from typing import Any, Final

import msgspec

from devboxd.errors import DevboxError
from devboxd.model.script import load, squeeze_python, wrap

OUTPUT_WINDOW: Final = 4 << 20  # bytes the relay may send ahead of our credit
INPUT_WINDOW: Final = 64 << 10  # bytes we may send ahead of the relay's credit
INPUT_CHUNK: Final = 3 << 10  # bytes of input in one line: a terminal's buffer is 4 KiB
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
    exports = "".join(f"{name}={shlex.quote(value)} " for name, value in env.items())
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


def credit(size: int) -> bytes:
    """The line that says how many output bytes were taken here."""
    return b"k%d\n" % size


_PROBLEMS: Final = {
    "no-user": "there is no such user on the box",
    "no-sudo": "the session may not become that user (sudo asks for a password)",
    "no-folder": "there is no such folder on the box",
}


class RelayReader:
    """Parses what the relay prints. Everything before its first line is noise and kept for error texts."""

    def __init__(self, nonce: str) -> None:
        self._greeting = nonce.encode() + b":"
        self._buffer = bytearray()
        self._inflate = {True: zlib.decompressobj(), False: zlib.decompressobj()}
        self.ready = False
        self.noise = b""

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
            if line:
                events.append(self._parse(line))
        del self._buffer[:start]
        if len(self._buffer) > LONGEST_LINE:
            raise RelayError("a line of the relay never ends")
        return events

    def _parse(self, line: bytes) -> RelayEvent:
        kind, rest = line[:1], line[1:]
        try:
            match kind:
                case b"o" | b"e":
                    inflate = self._inflate[kind == b"e"]
                    data = inflate.decompress(base64.b64decode(rest, validate=True), LONGEST_LINE)
                    if inflate.unconsumed_tail:
                        raise RelayError("a line of the relay unpacks to more than it can have read")
                    return RelayOutput(data, kind == b"e")
                case b"O" | b"E":
                    return RelayOutput(base64.b64decode(rest, validate=True), kind == b"E")
                case b"c":
                    return RelayCredit(int(rest))
                case b"x":
                    return RelayExit(int(rest))
                case b"f":
                    status, _, text = rest.partition(b" ")
                    known = _PROBLEMS.get(text.decode("ascii", "replace"))
                    problem = known or base64.b64decode(text, validate=True).decode("utf-8", "replace")
                    return RelayExit(int(status), problem)
                case b"r":
                    greeting: dict[str, Any] = msgspec.json.decode(rest, type=dict[str, Any])
                    self.ready = True
                    return RelayReady(str(greeting.get("relay")))
                case _:
                    raise RelayError(f"the relay said something unknown ({kind!r})")
        except (ValueError, binascii.Error, zlib.error, msgspec.MsgspecError) as error:
            raise RelayError(f"a line of the relay does not parse: {error}") from None
