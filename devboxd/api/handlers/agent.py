"""Agents: set up, how they are."""

from __future__ import annotations

from collections.abc import Iterable

from devboxd.api import routes, wire
from devboxd.api.handlers.context import Context, resolved
from devboxd.api.handlers.table import answers
from devboxd.boxside.agents import Answer
from devboxd.model.agent import AgentNote
from devboxd.model.box import BoxRef
from devboxd.text import one_line, rfc3339


@answers(routes.SET_UP_AGENTS)
async def set_up(context: Context, asked: wire.AgentSetUpRequest) -> wire.AgentReport:
    """All that is asked for, file by file; what can not be is said."""
    box = await resolved(context, asked)
    found = await context.daemon.hooks.set_up(
        box, asked.agent, undo=asked.undo, dry_run=asked.dry_run, user=asked.user
    )
    if not asked.dry_run:
        context.idle.look_soon(box.name)
    return _report(context, box, found)


@answers(routes.SHOW_AGENTS)
async def status(context: Context, asked: wire.AgentStatusRequest) -> wire.AgentReport:
    """One box as it is now, or all projects as they were seen last."""
    if asked.box:
        box = await resolved(context, asked)
        return _report(context, box, await context.daemon.hooks.status(box, asked.user))
    return wire.AgentReport(
        agents=[one for box, notes in context.agents.known() for one in _states(box, notes)]
    )


def _report(context: Context, box: BoxRef, found: Answer) -> wire.AgentReport:
    files = [
        wire.AgentFile(one.agent, one_line(one.file), one_line(one.said), one.changed, one.problem)
        for one in found.done
    ]
    is_told = any(one.instance == box.target for one in context.projects.remembered())
    return wire.AgentReport(files, _states(box.name, found.notes), is_told)


def _states(box: str, notes: Iterable[AgentNote]) -> list[wire.AgentState]:
    return [
        wire.AgentState(
            box,
            one_line(one.name, 60),
            str(one.state) if one.alive else "unknown",
            rfc3339(one.since),
            one.pid,
            one_line(one.text),
            one_line(one.where, 64),
        )
        for one in notes
    ]
