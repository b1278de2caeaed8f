"""Serve the control API on the unix socket: check the peer, parse, dispatch, answer.

A fault never ends the daemon: the one ``except Exception`` of devboxd stands here, and it logs the
traceback. Streams leave HTTP by ``Upgrade``: the connection's descriptor is duplicated, and aiohttp keeps
its own end quiet until the stream is over.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from devboxd.api import wire
from devboxd.errors import BadRequest, DevboxError
from devboxd.net.unix import PeerDenied, check_peer

log = logging.getLogger(__name__)

BODY_LIMIT: Final = 1 << 20  # bytes of a request
_SWITCH: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "
    + wire.UPGRADE.encode()
    + b"\r\n\r\n"
)
_STATUS: Final = {1: 500, 2: 400, 3: 404, 4: 401, 5: 409, 6: 403, 7: 503, 8: 409, 9: 403}

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def failure(error: DevboxError) -> wire.Failure:
    """An error as clients see it."""
    return wire.Failure(error.code, error.message, error.hint, error.retryable, error.exit_status)


def answer(value: msgspec.Struct, status: int = 200) -> web.Response:
    """A JSON reply."""
    return web.Response(body=msgspec.json.encode(value), content_type="application/json", status=status)


async def body(request: web.Request, type_: type[T]) -> T:
    """Parse the request's body.

    Raises:
        BadRequest: not JSON, or not of the type; says where.
    """
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=type_)
    except msgspec.MsgspecError as error:
        raise BadRequest(f"the request does not fit: {error}") from None


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
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
        return answer(failure(error), _STATUS.get(error.exit_status, 500))
    except web.HTTPException as error:
        return answer(
            wire.Failure("bad-request", f"{request.method} {request.path}: {error.reason}", exit_status=2),
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
async def take_over(request: web.Request) -> AsyncIterator[socket.socket]:
    """Leave HTTP: yields a socket of our own on the same connection, before the 101 was sent.

    When the block ends, the connection is closed.
    """
    if request.headers.get("Upgrade", "").lower() != wire.UPGRADE:
        raise BadRequest(
            "this route needs an upgrade", hint=f"send Connection: Upgrade and Upgrade: {wire.UPGRADE}"
        )
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("it did not wait for the answer")
    assert isinstance(transport, asyncio.Transport)
    transport.pause_reading()
    own = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    own.setblocking(False)
    try:
        yield own
    finally:
        own.close()
        transport.abort()


async def switch(own: socket.socket) -> None:
    """Answer 101."""
    await asyncio.get_running_loop().sock_sendall(own, _SWITCH)


def build(routes: list[web.RouteDef]) -> web.Application:
    """The application around the handlers' routes."""
    application = web.Application(middlewares=[guard], client_max_size=BODY_LIMIT)
    application.add_routes(routes)
    return application


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
