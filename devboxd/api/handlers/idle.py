"""Idle boxes: policy, leases, deadlines, and why."""

from __future__ import annotations

from typing import Any

from devboxd.api import routes, wire
from devboxd.api.handlers.context import Context
from devboxd.api.handlers.table import answers
from devboxd.control.lifecycle.idleverbs import IdleView
from devboxd.errors import BadRequest
from devboxd.model.idle_note import Decision
from devboxd.model.idle_policy import Then
from devboxd.model.lease import Lease
from devboxd.text import one_line, rfc3339


@answers(routes.SHOW_IDLE)
async def show(context: Context, asked: wire.ProjectName) -> wire.Idle:
    """As it was seen last."""
    return _view(await context.idle.show(asked.project))


@answers(routes.WHY)
async def why(context: Context, asked: wire.ProjectName) -> wire.Idle:
    """After a look at the box."""
    view = await context.idle.why(asked.project)
    found = _view(view)
    found.spot = context.reclaims.said(view.project)
    return found


@answers(routes.CHANGE_IDLE)
async def change(context: Context, asked: wire.IdleChange) -> wire.Idle:
    """All that is said, or nothing."""
    if asked.then is not None and asked.then not in set(Then):
        raise BadRequest(
            f"{asked.then!r} is nothing that can become of a box", hint=f"one of: {', '.join(Then)}"
        )
    given: dict[str, Any] = {
        "after": asked.after,
        "warn": asked.warn,
        "then": Then(asked.then) if asked.then is not None else None,
        "never": tuple(asked.never) if asked.never is not None else None,
        "max_run": asked.max_run,
        "hours": asked.hours,
        "starts": asked.starts,
        "lid": asked.lid,
        "delete": asked.delete,
    }
    found = {name: value for name, value in given.items() if value is not None}
    found |= {name: None for name in ("max_run", "lid", "delete") if found.get(name) == 0}
    if found.get("hours") == "":
        found |= {"hours": None, "starts": False}
    return _view(await context.idle.settle(asked.project, None if asked.reset else found))


@answers(routes.LIST_LEASES)
async def leases(context: Context, asked: wire.ProjectName) -> wire.LeaseList:
    """Those that hold now."""
    return _leases(await context.idle.show(asked.project))


@answers(routes.KEEP_ALIVE)
async def keep_alive(context: Context, asked: wire.LeaseRequest) -> wire.LeaseList:
    """One more."""
    found = await context.idle.keep_alive(
        asked.project,
        seconds=asked.seconds,
        until=asked.until,
        command=asked.command,
        pid=asked.pid,
        note=asked.note,
    )
    return _leases(found)


@answers(routes.DROP_LEASE)
async def drop(context: Context, asked: wire.LeaseDrop) -> wire.LeaseList:
    """One less."""
    return _leases(await context.idle.drop(asked.project, asked.lease))


@answers(routes.EXTEND)
async def extend(context: Context, asked: wire.ExtendRequest) -> wire.Idle:
    """Later."""
    return _view(await context.idle.extend(asked.project, asked.seconds))


# --------------------------------------------------------------------------------------------------------


def _leases(found: IdleView) -> wire.LeaseList:
    leases = [_lease(one) for one in found.leases]
    return wire.LeaseList(found.project.name, leases, _time(found.ahead.at))


def _lease(one: Lease) -> wire.Lease:
    return wire.Lease(one.id, one.why, rfc3339(one.since), rfc3339(one.until), one.who, one.command, one.pid)


def _decision(one: Decision) -> wire.IdleDecision:
    evidence = [wire.Evidence(*row) for row in one.evidence]
    return wire.IdleDecision(rfc3339(one.at), str(one.did), one.why, evidence, list(one.unsaved))


def _laptops(state: dict[str, Any]) -> list[wire.Laptop]:
    """Those that were here, the last one first; without the mark that makes a name unique."""
    known = sorted((state.get("here") or {}).items(), key=lambda one: -float(one[1][0]))
    return [
        wire.Laptop(one_line(name.partition("/")[0], 60), rfc3339(at), float(until) > float(state["at"]))
        for name, (at, until) in known
    ]


def _time(at: object) -> str | None:
    return rfc3339(float(at)) if isinstance(at, int | float) else None


def _view(found: IdleView) -> wire.Idle:
    policy, project, moment = found.policy, found.project, found.moment
    view = wire.Idle(
        project.name,
        str(project.phase),
        wire.IdlePolicy(
            policy.after,
            policy.warn,
            str(policy.then),
            list(policy.never),
            policy.max_run,
            policy.hours,
            policy.starts,
            found.is_own,
            policy.lid,
            policy.delete,
        ),
        held=_time(found.held),
        leases=[_lease(one) for one in found.leases],
        decisions=[_decision(one) for one in found.decisions],
        deletes=_time(found.ahead.at),
        delete_why=found.ahead.why,
    )
    if moment is None:
        return view
    view.looked, view.problem = rfc3339(moment.at), moment.problem
    if moment.answer is not None and moment.decision is not None:
        state = moment.answer.state
        view.verdict, view.minutes = str(state["verdict"]), str(state["minutes"])
        view.idle_since, view.stops = _time(state["idle_since"]), _time(moment.decision["at"])
        view.why, view.watchdog = str(moment.decision["why"]), moment.answer.timer
        view.evidence = [wire.Evidence(*row) for row in moment.rows]
        view.laptops = _laptops(state)
        if policy.lid is not None and (lid := moment.unattended) is not None:  # not of a look before
            view.lid_stops, view.lid_why = _time(lid["at"]), str(lid["why"])
            if not moment.answer.timer:
                view.lid_stops, view.lid_why = None, "the box has no watchdog, which would stop it"
    return view
