"""Offer connections that go over a bridge to the next daemon, and go on with what the one before has left."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice

from devboxd.control.base.handing import Handing, Kind, Offer
from devboxd.control.base.needs import LocalConnection
from devboxd.control.connect.bridge_streams import BridgeStream
from devboxd.control.connect.bridges import Bridges
from devboxd.control.connect.parcel import (
    Client,
    Connection,
    HeldOver,
    Opening,
    OverBridge,
    Packing,
    Parcel,
    Piece,
    Rest,
    Unreadable,
    bridged,
    decoded,
)
from devboxd.control.connect.sshstream import SshStream
from devboxd.control.connect.stream import Duplex
from devboxd.control.connect.terminal import Portable, Terminal
from devboxd.model.loose import Loose
from devboxd.model.terminal import Leaving

log = logging.getLogger(__name__)


def carried(
    handing: Handing, connection: LocalConnection, stream: Duplex, *, forward: str | None = None
) -> AbstractContextManager[None]:
    """Offer a connection while it is carried; nothing where a session of its own carries it."""
    below = bridged(stream)
    if below is None:
        return nullcontext()

    def pack(packing: Packing) -> None:
        # What was read of the stream ahead of its reader.
        early = (stream.greeted if isinstance(stream, SshStream) else b"") + below.early
        if (loose := connection.let_go()) is None:
            return
        if not below.is_whole:
            packing.pieces.append(Rest(packing.client(loose)))
            return
        # What was read of the client, and the bridge has not taken, comes before what it has said since.
        client = packing.client(loose, before=below.unwritten, after=early)
        packing.pieces.append(Connection(client, packing.stream(below), forward))

    return handing.offered(Offer(Kind.CONNECTION, pack, lambda: below.is_whole or below.is_over))


def opening(handing: Handing, connection: LocalConnection, forward: str) -> AbstractContextManager[None]:
    """Offer a connection while it waits for its stream: the next daemon opens one, as if it had accepted it."""

    def pack(packing: Packing) -> None:
        if (loose := connection.let_go()) is not None:
            packing.pieces.append(Opening(packing.client(loose), forward))

    return handing.offered(Offer(Kind.CONNECTION, pack, lambda: True))


def rest_of(terminal: Portable) -> Offer:
    """What a client has still to get of a command that has ended."""

    def pack(packing: Packing) -> None:
        if (loose := terminal.let_go()) is not None:
            packing.pieces.append(Rest(packing.client(loose)))

    return Offer(Kind.REST, pack, lambda: True)


@dataclass(frozen=True, slots=True)
class Resumed:
    """A client with a terminal that is to be gone on with.

    Attributes:
        work: what goes on with it as the terminal; None: it only gets what is still to be sent.
        give_up: it cannot be.
        patience: seconds that the client may take for the rest afterwards; None: for ever.
    """

    name: str
    loose: Loose
    work: Callable[[Terminal], Awaitable[Leaving]] | None
    give_up: Callable[[], None]
    patience: float | None


@dataclass(slots=True)
class Inheritance:
    """What the daemon before us has left.

    Attributes:
        descriptors: those beside the parcel, by their places; None where one did not come. Ours to close.
        cut: how many clients could not be kept, and ``why``.
        kept: how many could.
    """

    parcel: Parcel | None = None
    descriptors: list[int | None] = field(default_factory=list)
    cut: int = 0
    why: str = ""
    kept: int = 0

    def lose(self, why: str, *descriptors: int | None) -> None:
        """A client cannot be kept."""
        self.cut += 1
        self.why = self.why or why
        close(descriptors)


def from_link(data: bytes, descriptors: list[int], inherited: dict[str, list[socket.socket]]) -> Inheritance:
    """What came over a link, listeners last: they are put into ``inherited``."""
    try:
        parcel = decoded(data)
    except Unreadable as error:
        close(descriptors)
        return Inheritance(cut=error.pieces, why=str(error))
    places = len(parcel.inodes)
    found = Inheritance(parcel, list(descriptors[:places]))
    rest = iter(descriptors[places:])
    for name, count in parcel.listeners.items():
        inherited[name] = [socket.socket(fileno=one) for one in islice(rest, count)]
    close(list(rest))
    return found


def by_inode(data: bytes, descriptors: list[int]) -> Inheritance:
    """What a service manager kept, which forgets the order."""
    try:
        parcel = decoded(data)
    except Unreadable as error:
        close(descriptors)
        return Inheritance(cut=error.pieces, why=str(error))
    known = {os.fstat(descriptor).st_ino: descriptor for descriptor in descriptors}
    close([one for one in descriptors if one not in known.values()])
    found = Inheritance(parcel, [known.pop(inode, None) for inode in parcel.inodes])
    close(list(known.values()))
    return found


class Estate:
    """An inheritance that is being taken up: its bridges' streams, and who takes which."""

    def __init__(self, inheritance: Inheritance, bridges: Bridges | None) -> None:
        self.inheritance = inheritance
        parcel = inheritance.parcel
        self.pieces: list[Piece] = parcel.pieces if parcel is not None else []
        self._streams: list[dict[int, BridgeStream]] = []
        if parcel is not None and bridges is not None:
            self._streams = [_thawed(bridges, held) for held in parcel.bridges]

    def loose(self, client: Client) -> Loose | None:
        """A client's connection, which is the caller's from now on."""
        descriptors = self.inheritance.descriptors
        if not 0 <= client.descriptor < len(descriptors):
            return None
        descriptor, descriptors[client.descriptor] = descriptors[client.descriptor], None
        return None if descriptor is None else Loose(descriptor, client.read, client.unsent)

    def stream(self, over: OverBridge | None) -> BridgeStream | None:
        """A stream of a bridge, which is the caller's from now on."""
        if over is None or not 0 <= over.bridge < len(self._streams):
            return None
        return self._streams[over.bridge].pop(over.number, None)

    def close(self) -> None:
        """All was taken up: what nobody wanted is closed."""
        for streams in self._streams:
            for stream in streams.values():
                stream.close()
            streams.clear()
        close(self.inheritance.descriptors)
        self.inheritance.descriptors.clear()
        self.inheritance.parcel = None


def _thawed(bridges: Bridges, held: HeldOver) -> dict[int, BridgeStream]:
    """The streams of a bridge; none where it cannot be gone on with, so that its clients are cut and no others."""
    try:
        return bridges.thaw(held)
    except Exception:  # see Heir.take_up
        log.exception("the bridge to %s of the daemon before could not be taken up", held.box.name)
        return {}


def close(descriptors: Sequence[int | None]) -> None:
    """Close descriptors."""
    for descriptor in descriptors:
        if descriptor is not None:
            os.close(descriptor)
