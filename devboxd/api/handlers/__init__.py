"""The routes, one noun a module. Handlers are short: parse, ask control, return a view."""

from __future__ import annotations

from aiohttp import web

from devboxd.api.handlers import box, daemon, forward, session
from devboxd.api.handlers.context import Context


def routes(context: Context) -> list[web.RouteDef]:
    """All routes of the API."""
    return [
        *box.routes(context),
        *daemon.routes(context),
        *forward.routes(context),
        *session.routes(context),
    ]
