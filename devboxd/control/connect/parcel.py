"""What one daemon hands to the next so that connections and commands go on: a value, and descriptors beside it.

It exists in memory only, on its way between two processes of one user: it holds what clients and boxes have said.
Both daemons must know the same form of it: whoever changes a field here or in ``model.frozen`` raises ``FORM``.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from devboxd.boxside.said import UNREADABLE
from devboxd.control.connect.bridge_start import Note
from devboxd.control.connect.bridge_streams import BridgeStream, Streams
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.screen import Marks
from devboxd.control.connect.sshstream import SshStream
from devboxd.control.connect.stream import Duplex
from devboxd.model.attach import AttachSpec
from devboxd.model.box import BoxRef
from devboxd.model.frozen import FrozenBridge
from devboxd.model.loose import Loose

FORM: Final = 2
MAGIC: Final = b"DBXPARCL"
HEAD: Final = struct.Struct(">8sHIQ32s")  # magic, form, pieces, bytes of what follows, their SHA-256


class Unreadable(Exception):
    """It is damaged, or another version made it. ``pieces``: how many it says to hold."""

    def __init__(self, why: str, pieces: int = 0) -> None:
        super().__init__(why)
        self.pieces = pieces


class Unread(msgspec.Struct, frozen=True, array_like=True):
    """What has come of a stream, and nobody has taken: see ``stream.Arrivals``."""

    stream: int
    waiting: bytes
    received: int
    finished: bool
    tells: bool = False  # it begins with the far end's word that it is connected
    heard: bool = False  # that word was taken


class HeldOver(msgspec.Struct, frozen=True):
    """A bridge. Its secret is not here: it is made from a key that both daemons read."""

    box: BoxRef
    user: str | None
    life: bytes
    end: FrozenBridge
    note: Note | None
    lanes: int  # there have been so many: their numbers are not used again
    unread: list[Unread]


class Client(msgspec.Struct, frozen=True):
    """A client's connection. ``descriptor``: its place among those beside the parcel; the rest as in ``Loose``."""

    descriptor: int
    read: bytes
    unsent: bytes


class OverBridge(msgspec.Struct, frozen=True):
    """A stream: the place of its bridge, its number, and what its writer had taken and could not write yet."""

    bridge: int
    number: int
    unwritten: bytes


class Connection(msgspec.Struct, frozen=True, tag=True):
    """Bytes both ways. ``forward``: the id of the one that accepted it; None: a client of ``proxy``."""

    client: Client
    stream: OverBridge
    forward: str | None = None


class Opening(msgspec.Struct, frozen=True, tag=True):
    """A connection that a forward has accepted, and that waits for its stream still."""

    client: Client
    forward: str


class Command(msgspec.Struct, frozen=True, tag=True):
    """A command, and how far its records have been read both ways: see ``bridged.BridgedExecution``."""

    client: Client
    stream: OverBridge
    control: OverBridge | None
    spec: ExecSpec
    tty: tuple[int, int] | None
    untaken: int
    status: int | None
    tail: bytes
    record: tuple[bytes, int, int]  # its header so far, kind, bytes that are missing
    rest: bytes  # of the client's message that was being passed on
    owed: int  # bytes of credit for what was being written
    attach: AttachSpec | None = None  # it has a terminal
    marks: Marks | None = None
    said: list[str] = []  # notes of the start script that were passed on


class Rest(msgspec.Struct, frozen=True, tag=True):
    """Only what is still to be sent: the command has ended."""

    client: Client


Piece = Connection | Opening | Command | Rest


class Parcel(msgspec.Struct, frozen=True):
    """All of it. ``listeners``: how many descriptors of each, by name; ``inodes``: of each piece's, to know it by."""

    bridges: list[HeldOver]
    pieces: list[Piece]
    listeners: dict[str, int]
    inodes: list[int]


class Left(NamedTuple):
    """A parcel as it travels, and what goes beside it: descriptors, which are its holder's to close."""

    data: bytes
    descriptors: list[int]
    listeners: dict[str, Sequence[int]]


class Packing:
    """A parcel that is being made. It never waits."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.listeners: dict[str, Sequence[int]] = {}
        self._descriptors: list[int] = []
        self._streams: dict[Streams, dict[int, BridgeStream]] = {}

    def client(self, loose: Loose, *, before: bytes = b"", after: bytes = b"") -> Client:
        """Put a client's connection in. ``before``: what it had said before that; ``after``: what it is to be sent then."""
        self._descriptors.append(loose.descriptor)
        return Client(len(self._descriptors) - 1, before + loose.read, loose.unsent + after)

    def stream(self, stream: BridgeStream, unwritten: bytes = b"") -> OverBridge:
        """Put a stream in."""
        self._streams.setdefault(stream.streams, {})[stream.number] = stream
        return OverBridge(list(self._streams).index(stream.streams), stream.number, unwritten)

    def packed(self, frozen: dict[Streams, HeldOver]) -> Left:
        """All that was put in, with the bridges that carry it."""
        bridges = [
            msgspec.structs.replace(
                frozen[streams],
                unread=[
                    msgspec.structs.replace(one, tells=stream.telling[0], heard=stream.telling[1])
                    for one in frozen[streams].unread
                    if (stream := wanted.get(one.stream)) is not None
                ],
            )
            for streams, wanted in self._streams.items()
        ]
        listeners = {name: len(descriptors) for name, descriptors in self.listeners.items()}
        inodes = [os.fstat(descriptor).st_ino for descriptor in self._descriptors]
        return Left(
            encoded(Parcel(bridges, self.pieces, listeners, inodes)), self._descriptors, self.listeners
        )


def bridged(stream: Duplex) -> BridgeStream | None:
    """The stream of a bridge below; None where a session of its own carries it, which ends with us."""
    found = stream.carried if isinstance(stream, SshStream) else stream
    return found if isinstance(found, BridgeStream) else None


def encoded(parcel: Parcel) -> bytes:
    """As it travels."""
    body = msgspec.msgpack.encode(parcel)
    return HEAD.pack(MAGIC, FORM, len(parcel.pieces), len(body), hashlib.sha256(body).digest()) + body


def decoded(data: bytes) -> Parcel:
    """As it was.

    Raises:
        Unreadable: it was not.
    """
    if len(data) < HEAD.size:
        raise Unreadable("it broke off")
    magic, form, pieces, size, digest = HEAD.unpack_from(data)
    body = memoryview(data)[HEAD.size :]
    if magic != MAGIC:
        raise Unreadable("it is none")
    if form != FORM:
        raise Unreadable(f"another version of devboxd made it (form {form}, not {FORM})", pieces)
    if len(body) != size or hashlib.sha256(body).digest() != digest:
        raise Unreadable("it is damaged", pieces)
    try:
        return msgspec.msgpack.decode(body, type=Parcel)
    except UNREADABLE as error:
        raise Unreadable(f"it cannot be understood: {error}", pieces) from None
