"""Forwards: add, list, remove."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from devboxd.api import views, wire
from devboxd.api.handlers.context import Context, account
from devboxd.api.server import answer, body
from devboxd.errors import BadRequest, BoxNotFound
from devboxd.model.forward import Spec, check

LOOK_EVERY: Final = 0.25  # seconds: HTTP has no hook for the end of a connection between two requests


def routes(context: Context) -> list[web.RouteDef]:
    """Routes about forwards."""
    daemon = context.daemon

    async def listed(_: web.Request) -> web.Response:
        return answer(wire.ForwardList([views.forward(item) for item in daemon.forwards.list()]))

    async def add(request: web.Request) -> web.Response:
        asked = await body(request, wire.ForwardRequest)
        if not asked.forwards and not asked.auto:
            raise BadRequest("no forward was named", hint="devboxctl forward BOX 8080")
        specs = [check(_spec(item)) for item in asked.forwards]
        box = await daemon.resolve(asked.box, account(asked))
        holder = object() if asked.ephemeral else None
        facts = await daemon.forwards.add(
            box, specs, auto=asked.auto, ephemeral=asked.ephemeral, holder=holder
        )
        if holder is not None:
            daemon.shared.tasks.spawn("forwards held", hold(request.transport, holder))
        return answer(wire.ForwardList([views.forward(item) for item in facts]))

    async def hold(transport: asyncio.BaseTransport | None, holder: object) -> None:
        """Ephemeral forwards last as long as the connection that asked, however its client ends."""
        while transport is not None and not transport.is_closing():  # noqa: ASYNC110 - see LOOK_EVERY
            await asyncio.sleep(LOOK_EVERY)
        await daemon.forwards.release(holder)

    async def remove(request: web.Request) -> web.Response:
        id_ = request.match_info["id"]
        facts = await daemon.forwards.remove(id_)
        if facts is None:
            raise BoxNotFound(f"no forward is called {id_!r}", hint="devboxctl forward ls")
        return answer(views.forward(facts))

    return [
        web.get("/v1/forwards", listed),
        web.post("/v1/forwards", add),
        web.delete("/v1/forwards/{id}", remove),
    ]


def _spec(asked: wire.ForwardSpec) -> Spec:
    return Spec(
        port=asked.port or 0,
        host=asked.host,
        local_port=asked.local_port,
        local_path=asked.local_path,
        bind=asked.bind,
        dynamic=asked.dynamic,
        strict=asked.strict,
    )
