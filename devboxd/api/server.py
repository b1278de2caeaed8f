"""Serve the control API on the unix socket: check the peer, parse, dispatch, answer.

What to serve stands in ``routes``, how in ``handlers``; parsing, encoding and errors are done here, once. A
fault never ends the daemon: ``except Exception`` stands here, and for streams in ``upgrade``, and the log has the traceback.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeVar, get_args

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from devboxd.api import client, upgrade
from devboxd.api.handlers.context import Context
from devboxd.api.handlers.table import HANDLERS
from devboxd.api.routes import ROUTES, Route, Shape
from devboxd.api.views import failure
from devboxd.api.wire.common import Line, Text, Variable
from devboxd.api.wire.money import Figure, Month
from devboxd.aws.asker import ASKER, Asker
from devboxd.control.base.supervisor import Supervisor
from devboxd.errors import BadRequest, DevboxError, Unreachable, http_status
from devboxd.net.listen import BACKLOG
from devboxd.net.room import accept_all
from devboxd.net.unix import PeerDenied, check_peer
from devboxd.text import one_line

log = logging.getLogger(__name__)
_http_log = logging.getLogger(f"{__name__}.http")

BODY_LIMIT: Final = 1 << 20  # bytes of a request
LINE_LIMIT: Final = 1 << 16  # bytes of the first line: a devbox.toml travels in the query of a GET
BODY_TIMEOUT: Final = 10.0  # seconds for a client to send them
ANSWER_WITHIN: Final = 45.0  # seconds for credentials that a person has to get: clients give up after 60
IDLE: Final = (
    1.0  # seconds after which a connection that has asked nothing may be closed where there are too many
)
KEPT: Final = 60.0  # seconds that a connection may wait for its next request

# What a field wants whose pattern people would not understand; by the pattern, as msgspec quotes it.
_EXPECTED: Final = {
    repr(get_args(kind)[1].pattern): what
    for kind, what in (
        (Line, "text without control characters"),
        (Text, "text without control characters"),
        (Variable, "a variable's name, with a letter or _ first"),
        (Figure, "an amount, as 40 or 12.50"),
        (Month, "a month, as 2026-12"),
    )
}
_answering: Final[set[web.RequestHandler]] = set()  # connections on which a request is being answered

RequestT = TypeVar("RequestT", bound=msgspec.Struct)
Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build(context: Context) -> web.Application:
    """The application: every route of the table with its handler."""
    application = web.Application(middlewares=[guard], client_max_size=BODY_LIMIT)
    for route in ROUTES.values():
        application.router.add_route(route.method, route.path, _serve(context, route))
    return application


def _serve(context: Context, route: Route[Any, Any]) -> Serve:
    """What aiohttp calls for one route. It is cancelled when the client leaves."""
    handler = HANDLERS[route]

    async def value(request: web.Request) -> web.StreamResponse:
        asked = await understood(request, route)
        with asking(request, ANSWER_WITHIN):
            work = handler(context, asked)
            if route.is_carried_through:
                work = carried_through(context, f"{route.method} {route.path}", work)
            return answer(await work)

    async def lines(request: web.Request) -> web.StreamResponse:
        return await _lines(request, handler(context, await understood(request, route)))

    async def frames(request: web.Request) -> web.StreamResponse:
        upgrade.check_upgrade(request)
        asked = await understood(request, route)
        with asking(request) as asker:
            return await upgrade.frames(request, await handler(context, asked), asker)

    async def pipe(request: web.Request) -> web.StreamResponse:
        upgrade.check_upgrade(request)
        asked = await understood(request, route)
        with asking(request) as asker:
            found = await handler(context, asked)
            asker.leave()  # from here on there are the bytes of others
            return await upgrade.raw(request, found)

    return {Shape.VALUE: value, Shape.LINES: lines, Shape.FRAMES: frames, Shape.BYTES: pipe}[route.shape]


@contextmanager
def asking(request: web.Request, within: float | None = None) -> Iterator[Asker]:
    """Tell calls to AWS who waits for them. ``within``: seconds by which a login that is needed has to be there."""

    def tell(text: str) -> None:
        transport = request.transport
        if isinstance(transport, asyncio.WriteTransport) and not transport.is_closing():
            told = f"HTTP/1.1 102 Processing\r\n{client.WAITS}: {one_line(text)}\r\n\r\n"
            transport.write(told.encode())

    until = None if within is None else asyncio.get_running_loop().time() + within
    asker = Asker(tell, until) if client.WAITS in request.headers else Asker(until=until)
    token = ASKER.set(asker)
    try:
        yield asker
    finally:
        asker.leave()
        ASKER.reset(token)


async def carried_through(context: Context, name: str, work: Coroutine[Any, Any, Any]) -> Any:
    """Do what changes something to its end, whether or not its client waits for the answer.

    Raises: Unreachable while the daemon stops; whatever ``work`` raises.
    """

    async def outcome() -> tuple[Any, DevboxError | None]:
        try:
            return await work, None
        except DevboxError as error:  # for the client, if it is still there: no failure of the task
            return None, error

    tasks = context.daemon.shared.tasks
    if tasks.is_closing:
        work.close()
        raise Unreachable("devboxd is stopping")
    value, error = await asyncio.shield(tasks.spawn(name, outcome()))
    if error is not None:
        raise error
    return value


async def understood(request: web.Request, route: Route[RequestT, Any]) -> RequestT:
    """Make the request of what came in path, query and body.

    Raises:
        BadRequest: not JSON, or not of the route's type, and where; or it does not come at all.
    """
    in_path = {name: request.match_info[name] for name in route.in_path}
    try:
        if route.has_body:
            asked = msgspec.json.decode(await _body(request) or b"{}", type=route.request)
            # Converted, not set: what stands in a path is held to the type of its field, too.
            return (
                msgspec.convert({**msgspec.structs.asdict(asked), **in_path}, route.request)
                if in_path
                else asked
            )
        given: dict[str, Any] = {name: text for name, text in request.query.items() if text}
        given |= {name: msgspec.json.decode(given[name]) for name in route.nested & given.keys()}
        return msgspec.convert({**given, **in_path}, route.request, strict=False)
    except (ValueError, RecursionError) as error:  # msgspec's own errors, and texts that are not UTF-8
        raise BadRequest(f"the request does not fit: {_misfit(error)}") from None


async def _body(request: web.Request) -> bytes:
    """All of it, within ``BODY_TIMEOUT``: a client that never sends it must not hold a connection for ever.

    Raises: BadRequest; Unreachable where the daemon ends first.
    """
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            return await request.read()
    except asyncio.CancelledError:
        if (me := asyncio.current_task()) is not None and me.cancelling():
            raise  # its client is gone
        # aiohttp's word for: what comes is not read any more. Nothing was done yet, and that can be said.
        raise Unreachable("devboxd is stopping") from None
    except TimeoutError:
        raise BadRequest(f"the request's body did not come within {BODY_TIMEOUT:g} s") from None
    except web.RequestPayloadError as error:
        raise BadRequest(f"the request's body cannot be read: {error}") from None


def _misfit(error: Exception) -> str:
    """What does not fit, for people."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeError):
        return "it is not UTF-8"
    text = str(error)
    for pattern, what in _EXPECTED.items():
        if f"matching regex {pattern}" in text:
            return f"Expected {what}" + text.partition("'")[2].rpartition("'")[2]
    return text


def answer(value: object, status: int = 200) -> web.Response:
    """A JSON reply."""
    return web.Response(body=msgspec.json.encode(value), content_type="application/json", status=status)


async def _lines(request: web.Request, lines: AsyncIterator[msgspec.Struct]) -> web.StreamResponse:
    """Answer with one JSON value per line, as they come, until the client leaves."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    try:
        async for line in lines:
            await response.write(msgspec.json.encode(line) + b"\n")
        await response.write_eof()
    except ConnectionError:
        pass  # the client has seen enough
    return response


@web.middleware
async def guard(request: web.Request, handler: Serve) -> web.StreamResponse:
    """Let in the daemon's own user only, and turn errors into answers."""
    transport = request.transport
    if transport is None:
        return web.Response(status=400)
    _answering.add(request.protocol)
    try:
        check_peer(transport.get_extra_info("socket"))
        return await handler(request)
    except PeerDenied as error:
        log.warning("refused a connection: %s", error)
        return answer(failure(error), 403)
    except DevboxError as error:
        return answer(failure(error), http_status(error.kind))
    except web.HTTPException as error:
        return answer(
            failure(BadRequest(f"{request.method} {request.path}: {error.reason}")),
            error.status,
        )
    except asyncio.CancelledError:
        raise
    except ConnectionError as error:
        log.info("request %s %s: the client left (%s)", request.method, request.path, error)
        return web.Response(status=400)  # nobody reads it
    except (
        Exception
    ) as error:  # the last line: a bug in one request must not take the daemon's sessions along
        if (told := upgrade.short_of_room(error)) is None:
            log.exception("request %s %s failed", request.method, request.path)
        told = told or upgrade.a_bug()
        return answer(failure(told), http_status(told.kind))
    finally:
        _answering.discard(request.protocol)


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether a record of the HTTP library is about us: what is not HTTP is its sender's affair."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_http_log.addFilter(_is_ours)


class _Clients:
    """The connections to the control socket."""

    def __init__(self, server: web.Server) -> None:
        self._server = server
        self._since: dict[web.RequestHandler, float] = {}

    async def take(self, accepted: socket.socket) -> None:
        """Serve one more."""
        loop = asyncio.get_running_loop()
        _, handler = await loop.connect_accepted_socket(self._server, accepted)
        known = self._server.connections
        self._since = {one: self._since[one] for one in known if one in self._since} | {handler: loop.time()}

    def hang_up_on_idle(self) -> None:
        """Close the connections on which nothing is being answered."""
        now = asyncio.get_running_loop().time()
        for handler, since in self._since.items():
            if handler not in _answering and now - since > IDLE:
                handler.force_close()


@asynccontextmanager
async def serving(
    application: web.Application, listener: socket.socket
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Serve on an already bound socket until the block ends.

    Yields what lets nobody else in: who comes after that waits for whoever listens next, or hears at the end that
    nobody has read what it asked. Who is in goes on.
    """
    runner = web.AppRunner(
        application,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=1.0,
        max_line_size=LINE_LIMIT,
        handler_cancellation=True,  # what nobody waits for any more is not worth a session or a descriptor
        keepalive_timeout=KEPT,
        auto_decompress=False,  # no client of ours compresses, and what it grows to is not bounded by what came
        logger=_http_log,
    )
    await runner.setup()
    listener.listen(BACKLOG)
    listener.setblocking(False)
    accepting = Supervisor("api")
    try:
        server = runner.server
        assert server is not None, "setup makes it"
        clients = _Clients(server)
        accepting.spawn("accept", accept_all(listener, clients.take, clients.hang_up_on_idle))
        yield accepting.stop
    finally:
        await accepting.stop()
        listener.close()
        await runner.cleanup()
