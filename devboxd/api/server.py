"""Serve the control API on the unix socket: check the peer, parse, dispatch, answer.

What to serve stands in ``routes``, how in ``handlers``; parsing, encoding and errors are done here, once. A
fault never ends the daemon: the one ``except Exception`` of devboxd stands here, and it logs the traceback.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from devboxd.api import upgrade, wire
from devboxd.api.handlers.context import Context
from devboxd.api.handlers.table import HANDLERS
from devboxd.api.routes import ROUTES, Route, Shape
from devboxd.api.views import failure
from devboxd.errors import BadRequest, DevboxError, http_status
from devboxd.net.unix import PeerDenied, check_peer

log = logging.getLogger(__name__)

BODY_LIMIT: Final = 1 << 20  # bytes of a request

RequestT = TypeVar("RequestT", bound=msgspec.Struct)
Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build(context: Context) -> web.Application:
    """The application: every route of the table with its handler."""
    application = web.Application(middlewares=[guard], client_max_size=BODY_LIMIT)
    for route in ROUTES.values():
        application.router.add_route(route.method, route.path, _serve(context, route))
    return application


def _serve(context: Context, route: Route[Any, Any]) -> Serve:
    """What aiohttp calls for one route."""
    handler = HANDLERS[route]

    async def value(request: web.Request) -> web.StreamResponse:
        return answer(await handler(context, await understood(request, route)))

    async def lines(request: web.Request) -> web.StreamResponse:
        return await _lines(request, handler(context, await understood(request, route)))

    async def frames(request: web.Request) -> web.StreamResponse:
        upgrade.check_upgrade(request)
        return await upgrade.frames(request, await handler(context, await understood(request, route)))

    async def pipe(request: web.Request) -> web.StreamResponse:
        upgrade.check_upgrade(request)
        return await upgrade.pipe(request, await handler(context, await understood(request, route)))

    return {Shape.VALUE: value, Shape.LINES: lines, Shape.FRAMES: frames, Shape.BYTES: pipe}[route.shape]


async def understood(request: web.Request, route: Route[RequestT, Any]) -> RequestT:
    """Make the request of what came in path, query and body.

    Raises:
        BadRequest: not JSON, or not of the route's type; says where.
    """
    in_path = {name: request.match_info[name] for name in route.in_path}
    try:
        if route.has_body:
            asked = msgspec.json.decode(await request.read() or b"{}", type=route.request)
            return msgspec.structs.replace(asked, **in_path) if in_path else asked
        given = {name: text for name, text in request.query.items() if text}
        return msgspec.convert({**given, **in_path}, route.request, strict=False)
    except msgspec.MsgspecError as error:
        raise BadRequest(f"the request does not fit: {error}") from None


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
    except Exception:  # the last line: a bug in one request must not take the daemon's sessions along
        log.exception("request %s %s failed", request.method, request.path)
        hint = "devboxctl daemon logs has the details"
        return answer(wire.Failure("internal", "the daemon failed at this request", hint), 500)


@asynccontextmanager
async def serving(application: web.Application, listener: socket.socket) -> AsyncIterator[None]:
    """Serve on an already bound socket until the block ends."""
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        yield
    finally:
        await runner.cleanup()
