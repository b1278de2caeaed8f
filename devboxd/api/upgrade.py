"""Leaving HTTP: a request's connection becomes a stream of framed messages, or of plain bytes.

The connection's descriptor is duplicated, and aiohttp keeps its own end quiet until the stream is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from devboxd.api import wire
from devboxd.api.stream import StreamTerminal
from devboxd.aws.asker import Asker
from devboxd.control.base.handing import Handing
from devboxd.control.connect.handing import Resumed, carried, rest_of
from devboxd.control.connect.splice import splice
from devboxd.control.connect.stream import Duplex
from devboxd.errors import BadRequest, DevboxError
from devboxd.model.states import StreamState
from devboxd.model.terminal import Leaving, StatusLine
from devboxd.net.handover import READY
from devboxd.net.listen import Connection
from devboxd.net.room import FULL, ROOM, NoDescriptors
from devboxd.net.unix import send_fd
from devboxd.text import one_line

_SWITCH: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + wire.UPGRADE.encode() + b"\r\n"
)
_MOST_NOTES: Final = 8
LINK_WAIT: Final = 30.0  # seconds that another daemon has to start

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Framed:
    """What to do with the client as a terminal.

    Attributes:
        patience: seconds that the client may take for the rest afterwards; None: for ever.
        handing: where it is offered to the next daemon what such a client has still to get.
        after: what is to be done in every case, also where the client was gone before ``work`` began. It
            only begins something: whoever awaits here may be cancelled once more.
    """

    work: Callable[[StreamTerminal], Awaitable[Leaving]]
    patience: float | None = 2.0
    handing: Handing | None = None
    after: Callable[[], object] = lambda: None


@dataclass(frozen=True, slots=True)
class Piped:
    """An open connection to a port of a box.

    Attributes:
        fd_pass: the client gets it as a descriptor.
        count: told 1 when it begins to carry and -1 when it ends.
        handing: where it is offered to the next daemon.
        notes: sentences for whoever uses it.
        answered: it is known to stand at the far end.
    """

    stream: Duplex
    count: Callable[[int], None]
    handing: Handing
    fd_pass: bool = False
    notes: Sequence[str] = ()
    answered: bool = False


@dataclass(frozen=True, slots=True)
class Linked:
    """The connection is one to another daemon: ``heir`` gets it once that could start."""

    heir: Callable[[socket.socket], None]


def check_upgrade(request: web.Request) -> None:
    """Refuse a request for a stream that did not ask to leave HTTP, before anything is done for it."""
    if request.headers.get("Upgrade", "").lower() != wire.UPGRADE:
        raise BadRequest(
            "this route needs an upgrade", hint=f"send Connection: Upgrade and Upgrade: {wire.UPGRADE}"
        )


async def frames(request: web.Request, framed: Framed, asker: Asker) -> web.StreamResponse:
    """Run ``framed`` with the client as its terminal. ``asker``: who is told there what is waited for."""
    asker.leave()
    try:
        async with take_over(request) as own:
            terminal = await StreamTerminal.over(_handed_on(own))
            asker.tell = lambda text: terminal.status(StatusLine(StreamState.NOTICE, text))
            what = f"{request.method} {request.path}"
            await _to_its_end(terminal, what, framed.work(terminal), framed.patience, framed.handing)
    finally:
        framed.after()
    return web.Response()


async def go_on(resumed: Resumed, handing: Handing) -> None:
    """Go on with a client of the daemon before us, to its end."""
    try:
        terminal = await StreamTerminal.resumed(resumed.loose)
    except OSError as error:
        log.info("%s: its client is gone: %s", resumed.name, error)
        resumed.give_up()
        return
    work = resumed.work(terminal) if resumed.work is not None else None
    await _to_its_end(terminal, resumed.name, work, resumed.patience, handing)


async def _to_its_end(
    terminal: StreamTerminal,
    what: str,
    work: Awaitable[Leaving] | None,
    patience: float | None,
    handing: Handing | None,
) -> None:
    """Do the work, tell the client how it ended, and let it have the rest. ``work`` None: that only."""
    try:
        if work is not None:
            terminal.leave(await _left(what, work))
        with contextlib.ExitStack() as offered:
            if handing is not None and patience is None:
                offered.enter_context(handing.offered(rest_of(terminal)))
            await terminal.close(patience)
    except BaseException:
        await terminal.close(timeout=0.5)
        raise
    finally:
        terminal.abort()  # a second cancellation ends the closing, too


async def _left(what: str, work: Awaitable[Leaving]) -> Leaving:
    """How a client leaves. A failure is told to it like one before the stream began: it must not look like our end."""
    try:
        return await work
    except DevboxError as error:
        return Leaving(error=error)
    except ConnectionError:
        raise
    except Exception as error:
        if (told := short_of_room(error)) is None:
            log.exception("the stream of %s failed", what)
        return Leaving(error=told or a_bug())


def short_of_room(error: Exception) -> DevboxError | None:
    """What the client hears where descriptors ran out; None for every other error."""
    if not isinstance(error, OSError) or error.errno not in FULL:
        return None
    ROOM.ran_out()
    return NoDescriptors()


def a_bug() -> DevboxError:
    """What the client hears of one; the log has the rest."""
    return DevboxError("the daemon failed at this request", hint="devboxctl daemon logs has the details")


async def raw(request: web.Request, found: Piped | Linked) -> web.StreamResponse:
    """Whatever leaves HTTP and has no frames."""
    return await (link(request, found) if isinstance(found, Linked) else pipe(request, found))


async def link(request: web.Request, linked: Linked) -> web.StreamResponse:
    """Wait until the daemon at the other end could start; then this one ends. If it never can, nothing has happened."""
    async with take_over(request) as own:
        try:
            async with asyncio.timeout(LINK_WAIT):
                said = await asyncio.get_running_loop().sock_recv(own, len(READY))
        except (TimeoutError, OSError):
            said = b""
        if said == READY:
            linked.heir(own.dup())
        else:
            log.warning("another daemon was to go on with what this one holds, and could not be started")
    return web.Response()


async def pipe(request: web.Request, piped: Piped) -> web.StreamResponse:
    """Carry bytes on this connection, or on a descriptor that is passed over it."""
    piped.count(1)
    try:
        async with take_over(request, _told(piped)) as own:
            if piped.fd_pass:
                ours, theirs = socket.socketpair()
                with theirs:
                    send_fd(own, theirs.fileno())
                own.shutdown(socket.SHUT_RDWR)
            else:
                ours = _handed_on(own)
            ours.setblocking(False)
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            connection = Connection(reader, writer, "proxy")
            try:
                with carried(piped.handing, connection, piped.stream):
                    await splice(connection, piped.stream)
            finally:
                connection.reset()  # a second cancellation ends the closing, too
    finally:
        piped.count(-1)
        piped.stream.close()
    return web.Response()


@asynccontextmanager
async def take_over(request: web.Request, headers: bytes = b"") -> AsyncIterator[socket.socket]:
    """Answer 101; yields a socket of our own on the same connection, which is closed after the block."""
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("it did not wait for the answer")
    assert isinstance(transport, asyncio.Transport)
    transport.pause_reading()
    own: socket.socket = transport.get_extra_info("socket").dup()
    own.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_sendall(own, _SWITCH + headers + b"\r\n")
        yield own
    finally:
        own.close()
        transport.abort()


def _told(piped: Piped) -> bytes:
    """The headers that say something of a connection; one_line leaves neither tabs nor line breaks in notes."""
    text = "\t".join(one_line(note) for note in piped.notes[:_MOST_NOTES])
    notes = f"{wire.NOTES}: {text}\r\n" if text else ""
    return (notes + (f"{wire.ANSWERED}: 1\r\n" if piped.answered else "")).encode()


def _handed_on(own: socket.socket) -> socket.socket:
    """The same descriptor, for another owner: a stream costs two then, and not three."""
    return socket.socket(fileno=own.detach())
