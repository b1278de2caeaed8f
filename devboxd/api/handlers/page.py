"""The page: a link to it."""

from __future__ import annotations

from devboxd.api import routes, wire
from devboxd.api.handlers.context import Context
from devboxd.api.handlers.table import answers


@answers(routes.OPEN_PAGE)
async def open_page(context: Context, asked: wire.Nothing) -> wire.PageLink:
    """The first one makes it listen."""
    return wire.PageLink(await context.open_page())
