"""Where projects are written down, moving them from there to elsewhere, and what a user needs to begin."""

from __future__ import annotations

from collections.abc import AsyncIterator

from devboxd.api import routes, views, wire
from devboxd.api.handlers.context import Context, account
from devboxd.api.handlers.table import answers, tells
from devboxd.control.lifecycle.user import Asked
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


def _engine(text: str) -> StoreEngine:
    """Raises BadRequest."""
    if text not in set(StoreEngine):
        raise BadRequest(f"there is no store {text!r}", hint=f"one of: {', '.join(StoreEngine)}")
    return StoreEngine(text)


@answers(routes.MOVE_PROJECT)
async def move(context: Context, asked: wire.MoveRequest) -> wire.Project:
    """Asked again it goes on where it was."""
    moved = await context.projects.moves.move(asked.project, _engine(asked.to))
    return views.project(context.projects.status(moved))


@tells(routes.SET_UP_USER)
async def set_up_user(context: Context, asked: wire.UserRequest) -> AsyncIterator[wire.UserStep]:
    """Asked again it finds what is there, and leaves it alone."""
    try:
        wanted = Asked(
            account(asked),
            asked.create_profile,
            asked.instance_profile,
            _engine(asked.store) if asked.store is not None else None,
            asked.dry_run,
        )
        async for one in context.set_up_user(wanted):
            yield wire.UserStep(wire.Check(one.name, one.result, one.text, one.hint))
        yield wire.UserStep(done=True)
    except DevboxError as error:
        yield wire.UserStep(failure=views.failure(error))
