"""Forwards: add, list, remove."""

from __future__ import annotations

import asyncio
from typing import Final

from devboxd.api import routes, views, wire
from devboxd.api.handlers.context import Context, box_of, resolved
from devboxd.api.handlers.table import answers, frames
from devboxd.api.stream import StreamTerminal
from devboxd.api.upgrade import Framed
from devboxd.errors import BadRequest, BoxNotFound
from devboxd.model.box import BoxRef
from devboxd.model.forward import Spec, check
from devboxd.model.terminal import Detach, Leaving
from devboxd.model.wish import ProjectDown

NOT_SAVED: Final = "state-not-saved"


@answers(routes.LIST_FORWARDS)
async def listed(context: Context, asked: wire.Nothing) -> wire.ForwardList:
    """All forwards as they stand."""
    return wire.ForwardList([views.forward(item) for item in context.daemon.forwards.list()])


@answers(routes.ADD_FORWARDS)
async def add(context: Context, asked: wire.ForwardRequest) -> wire.ForwardList:
    """Add forwards that stay."""
    if asked.ephemeral:
        raise BadRequest("this route keeps its forwards", hint=f"POST {routes.HOLD_FORWARDS.path} holds them")
    specs = _specs(asked)
    box = await _box(context, asked)
    daemon = context.daemon
    facts = await daemon.forwards.add(box, specs, auto=asked.auto, ephemeral=False)
    is_kept = await daemon.memory.settled()
    found = [] if is_kept else [one for one in daemon.shared.news.conditions() if one.code == NOT_SAVED]
    return wire.ForwardList([views.forward(item) for item in facts], [views.condition(one) for one in found])


@frames(routes.HOLD_FORWARDS)
async def hold(context: Context, asked: wire.ForwardRequest) -> Framed:
    """Add forwards that go with the client, however it goes, unless others want them, too."""
    daemon = context.daemon
    specs = _specs(asked)
    box = await _box(context, asked)
    holder = object()
    facts = await daemon.forwards.add(box, specs, auto=asked.auto, ephemeral=True, holder=holder)

    async def work(terminal: StreamTerminal) -> Leaving:
        terminal.answer(wire.ForwardList([views.forward(item) for item in facts]))
        async with asyncio.TaskGroup() as tasks:
            leaving = tasks.create_task(_leaves(terminal))
            removed = tasks.create_task(daemon.forwards.removed([item.id for item in facts]))
            await asyncio.wait({leaving, removed}, return_when=asyncio.FIRST_COMPLETED)
            is_over = removed.done()
            leaving.cancel()
            removed.cancel()
        return Leaving(reason="the forwards were removed" if is_over else "")

    return Framed(
        lambda terminal: daemon.clients.held(f"forwards of {box.name}", work(terminal)),
        after=lambda: daemon.shared.tasks.spawn("forwards released", daemon.forwards.release(holder)),
    )


async def _box(context: Context, asked: wire.ForwardRequest) -> BoxRef:
    """The box that is meant; also one that is stopped: a forward waits for it.

    Raises: ProjectDown where a project has none at all; else as ``resolved``.
    """
    try:
        return await resolved(context, asked)
    except ProjectDown as down:
        if down.project.instance is None:
            raise
        return box_of(context, down.project, down.project.instance)


async def _leaves(terminal: StreamTerminal) -> None:
    """Wait until the client goes; it has nothing else to say."""
    while not isinstance(await terminal.receive(), Detach | None):
        pass


@answers(routes.REMOVE_FORWARD)
async def remove(context: Context, asked: wire.ForwardId) -> wire.Forward:
    """Remove one."""
    facts = await context.daemon.forwards.remove(asked.id)
    await context.daemon.memory.settled()
    if facts is None:
        raise BoxNotFound(f"no forward is called {asked.id!r}", hint="devboxctl forward ls")
    return views.forward(facts)


def _specs(asked: wire.ForwardRequest) -> list[Spec]:
    """What is asked for. Raises BadRequest."""
    if not asked.forwards and not asked.auto:
        raise BadRequest("no forward was named", hint="devboxctl forward BOX 8080")
    return [
        check(
            Spec(
                port=one.port or 0,
                host=one.host,
                local_port=one.local_port,
                local_path=one.local_path,
                bind=one.bind,
                dynamic=one.dynamic,
                strict=one.strict,
                path=one.path,
                reverse=one.reverse,
            )
        )
        for one in asked.forwards
    ]
