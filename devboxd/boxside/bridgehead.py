"""The bridgehead as the daemon knows it: its program, its greeting, and what streams may be for.

The program is ``programs/bridgehead.py`` behind ``model/bridge.py``: both ends run the same state machine.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import msgspec

from devboxd.boxside.said import UNREADABLE

PROGRAM: Final = "bridgehead"
GREETING: Final = struct.Struct(">4s16sI32s")
MAGIC: Final = b"DBX1"
ANSWER: Final = struct.Struct(">32s32s")
_RECORD: Final = struct.Struct(">BI")
CONNECTED: Final = b"+"
GONE: Final = "GONE"  # a reset's reason: nobody is there any more, and nothing was lost by that
STDIN, STDIN_END = 0, 1
STDOUT, STDERR, EXIT = 1, 2, 3
SIGNAL, SIZE = 1, 2
RECORD_MOST: Final = 16 << 10  # bytes of input in one record: less than a new stream's credit


def greeting(life: bytes, lane: int, nonce: bytes) -> bytes:
    """What a lane says first. ``life``: 16 bytes, new whenever our end begins with no streams; ``nonce``: 32 random bytes."""
    return GREETING.pack(MAGIC, life, lane, nonce)


def proof(secret: bytes, greeting: bytes, answer: bytes) -> bytes | None:
    """What a lane says to the answer; None where the answer is not that of a bridgehead with our secret."""
    nonce, shown = ANSWER.unpack(answer)
    if not hmac.compare_digest(shown, _mac(secret, b"far", greeting, nonce)):
        return None
    return _mac(secret, b"near", greeting, nonce)


def _mac(secret: bytes, who: bytes, greeting: bytes, nonce: bytes) -> bytes:
    return hmac.new(secret, who + greeting + nonce, hashlib.sha256).digest()


def name_of(secret: bytes) -> str:
    """What a bridgehead is called on its box: tells nothing of the secret, and is the same after a restart."""
    return hashlib.sha256(b"name" + secret).hexdigest()[:16]


def accepted_by(purpose: bytes) -> int | None:
    """The stream of the listener that accepted, of a stream that the far end opened; None: it is none of those."""
    try:
        found = msgspec.json.decode(purpose, type=_Accepted)
    except UNREADABLE:
        return None
    return found.of if found.kind == "accepted" else None


class _Accepted(msgspec.Struct):
    kind: str
    of: int


# Purposes -----------------------------------------------------------------------------------------------


def tcp(host: str, port: int) -> bytes:
    """Connect to a port of the box, or of a host that the box can reach."""
    return _purpose("tcp", host=host, port=port)


def unix(path: str) -> bytes:
    """Connect to a unix socket on the box."""
    return _purpose("unix", path=path)


def telling(purpose: bytes) -> bytes:
    """The same ``tcp`` or ``unix``, where the stream shall begin with ``CONNECTED``, once it is.

    Only for a bridgehead whose note says that it tells: others send nothing but what comes.
    """
    return msgspec.json.encode(msgspec.json.decode(purpose, type=dict[str, Any]) | {"tells": True})


def listen(*, host: str = "127.0.0.1", port: int | None = None, path: str | None = None) -> bytes:
    """Listen on the box; the stream's first line says where, and each connection opens a stream ``accepted``."""
    return _purpose("listen", path=path) if path is not None else _purpose("listen", host=host, port=port)


def command(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    stdin: bool = True,
    tty: tuple[int, int] | None = None,
) -> bytes:
    """Run a command. ``tty``: rows and columns of a terminal for it."""
    return _purpose("exec", argv=list(argv), env=dict(env or {}), cwd=cwd, stdin=stdin, tty=tty)


def control(of: int) -> bytes:
    """Signals and sizes for the command of stream ``of``: they overtake its input."""
    return _purpose("control", of=of)


def watch() -> bytes:
    """Tell which ports this user's programs listen on: a line at each change, as ``listening.sh`` has it."""
    return _purpose("watch")


def agents() -> bytes:
    """Tell what coding agents say of themselves: a JSON list of their notes, a line at each change."""
    return _purpose("agents")


def _purpose(kind: str, **fields: Any) -> bytes:
    return msgspec.json.encode({"kind": kind, **fields})


# Records of a command's stream --------------------------------------------------------------------------


def record(kind: int, data: bytes) -> bytes:
    """One record of a command's stream."""
    return _RECORD.pack(kind, len(data)) + data


class Records:
    """Takes records out of a stream, however they are cut. A record is handed on in parts as it comes."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._kind = 0
        self._left = 0

    @property
    def place(self) -> tuple[bytes, int, int]:
        """Where it is: bytes of a head that is not whole, kind of the record, bytes of it that are missing."""
        return bytes(self._buffer), self._kind, self._left

    @classmethod
    def at(cls, place: tuple[bytes, int, int]) -> Self:
        """One that goes on from there."""
        records = cls()
        records._buffer += place[0]
        records._kind, records._left = place[1:]
        return records

    def feed(self, data: bytes) -> list[tuple[int, bytes, bool]]:
        """Kind, bytes, and whether the record ends here."""
        found: list[tuple[int, bytes, bool]] = []
        view = memoryview(data)
        while view:
            if self._left:
                part = bytes(view[: self._left])
                view = view[len(part) :]
                self._left -= len(part)
                found.append((self._kind, part, not self._left))
                continue
            need = _RECORD.size - len(self._buffer)
            self._buffer += view[:need]
            view = view[need:]
            if len(self._buffer) == _RECORD.size:
                self._kind, self._left = _RECORD.unpack(self._buffer)
                self._buffer.clear()
                if not self._left:
                    found.append((self._kind, b"", True))
        return found
