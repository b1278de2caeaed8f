"""The daemon itself: status, events, configuration, login, stopping."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import msgspec
from aiohttp import web

from devboxd import __version__
from devboxd.api import views, wire
from devboxd.api.handlers.context import Context
from devboxd.api.server import answer, body
from devboxd.api.stream import timestamp
from devboxd.errors import BadRequest


def routes(context: Context) -> list[web.RouteDef]:
    """Routes about the daemon."""
    daemon = context.daemon

    async def status(_: web.Request) -> web.Response:
        return answer(
            wire.Status(
                daemon_version=__version__,
                pid=os.getpid(),
                started=timestamp(context.started),
                socket=context.socket,
                sessions=len(daemon.sessions()),
                forwards=len(daemon.forwards.list()),
                attached=daemon.attached,
                conditions=[views.condition(item) for item in daemon.shared.news.conditions()],
                activation=context.activation,
            )
        )

    async def events(request: web.Request) -> web.StreamResponse:
        try:
            since = int(request.query.get("since", "0"))
        except ValueError:
            raise BadRequest("since is the sequence number of an event") from None

        async def lines() -> AsyncIterator[msgspec.Struct]:
            if request.query.get("follow", "") not in ("", "0"):
                async for item in daemon.shared.news.follow(since):
                    yield views.event(item)
            else:
                for item in daemon.shared.news.events(since):
                    yield views.event(item)

        return await stream_lines(request, lines())

    async def config(_: web.Request) -> web.Response:
        return answer(context.config())

    async def login(request: web.Request) -> web.StreamResponse:
        return await stream_lines(request, context.login(await body(request, wire.LoginRequest)))

    async def stop(_: web.Request) -> web.Response:
        context.stop()
        return answer(wire.Stopping(os.getpid()))

    async def ssh_config_look(request: web.Request) -> web.Response:
        return answer(await context.ssh_config.look(request.query.get("command")))

    async def ssh_config_write(request: web.Request) -> web.Response:
        return answer(await context.ssh_config.write((await body(request, wire.SshConfigRequest)).command))

    async def ssh_config_remove(_: web.Request) -> web.Response:
        return answer(await context.ssh_config.remove())

    async def doctor(request: web.Request) -> web.Response:
        return answer(await context.doctor(await body(request, wire.Target), None))

    return [
        web.get("/v1/status", status),
        web.get("/v1/events", events),
        web.get("/v1/config", config),
        web.post("/v1/login", login),
        web.post("/v1/stop", stop),
        web.get("/v1/ssh-config", ssh_config_look),
        web.post("/v1/ssh-config", ssh_config_write),
        web.delete("/v1/ssh-config", ssh_config_remove),
        web.post("/v1/doctor", doctor),
    ]


async def stream_lines(request: web.Request, lines: AsyncIterator[msgspec.Struct]) -> web.StreamResponse:
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
