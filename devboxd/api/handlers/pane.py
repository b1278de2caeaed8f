"""Panes: look, type."""

from __future__ import annotations

from devboxd.api import routes, wire
from devboxd.api.handlers.context import Context, resolved
from devboxd.api.handlers.table import answers


@answers(routes.PEEK)
async def peek(context: Context, asked: wire.PeekRequest) -> wire.Pane:
    """As it is now."""
    box = await resolved(context, asked)
    found = await context.daemon.panes.peek(
        box, asked.session, count=asked.lines, color=asked.color, mux=asked.mux, user=asked.user
    )
    return wire.Pane(
        box.name,
        found.mux,
        found.session,
        found.window,
        found.command,
        found.columns,
        found.rows,
        found.lines,
        found.cut,
        [wire.MuxSession(one.mux, one.name) for one in found.sessions],
    )


@answers(routes.SAY)
async def say(context: Context, asked: wire.SayRequest) -> wire.Typed:
    """Once."""
    box = await resolved(context, asked)
    found, keys = await context.daemon.panes.say(
        box, asked.session, asked.text, asked.keys, enter=asked.enter, mux=asked.mux, user=asked.user
    )
    return wire.Typed(
        box.name,
        found.mux,
        found.session,
        found.window,
        found.command,
        len(asked.text),
        [one.name for one in keys],
    )
