"""Where projects are written down, and moving them from there to elsewhere."""

from __future__ import annotations

from devboxd.api import routes, views, wire
from devboxd.api.handlers.context import Context
from devboxd.api.handlers.table import answers
from devboxd.errors import BadRequest, DevboxError
from devboxd.model.states import StoreEngine


@answers(routes.LIST_STORES)
async def stores(context: Context, asked: wire.Nothing) -> wire.StoreList:
    """The other one may be out of reach; that is no error here."""
    used = context.store_used
    return wire.StoreList([await _store(context, engine) for engine in (used, used.other)])


async def _store(context: Context, engine: StoreEngine) -> wire.Store:
    found = wire.Store(engine.value, engine is context.store_used, context.store_place(engine))
    try:
        found.projects = [one.name for one in await context.projects.moves.in_store(engine)]
    except DevboxError as error:
        found.failure = views.failure(error)
    return found


@answers(routes.MOVE_PROJECT)
async def move(context: Context, asked: wire.MoveRequest) -> wire.Project:
    """Asked again it goes on where it was."""
    if asked.to not in set(StoreEngine):
        raise BadRequest(f"there is no store {asked.to!r}", hint=f"one of: {', '.join(StoreEngine)}")
    moved = await context.projects.moves.move(asked.project, StoreEngine(asked.to))
    return views.project(context.projects.status(moved))
