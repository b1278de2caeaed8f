"""Boxes: list, look, ping, doctor, make ssh work."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from msgspec.structs import replace

from devboxd.api import routes, views, wire
from devboxd.api.handlers.context import Context, account, box_of, may_be, resolved
from devboxd.api.handlers.table import answers
from devboxd.control.daemon import Daemon
from devboxd.errors import BoxNotFound, Denied, DevboxError, Unreachable
from devboxd.model.box import Account, BoxRef, Instance
from devboxd.model.health import condition
from devboxd.model.listing import Alone, is_foreign, listed
from devboxd.model.names import HOST_SUFFIX, Listing, is_user, known_host
from devboxd.model.price import region_of
from devboxd.model.project import Project
from devboxd.model.states import Connection
from devboxd.model.wish import ProjectDown
from devboxd.text import rfc3339


@answers(routes.LIST_BOXES)
async def boxes(context: Context, asked: wire.BoxesRequest) -> wire.BoxList:
    """All boxes: those of EC2, those that are configured or in use, and the projects that have none now."""
    daemon = context.daemon
    of = account(asked)
    connecting = asyncio.gather(daemon.boxes.connections(of))  # at the same time, as are the projects
    try:
        look = await _look(context, of)
    except DevboxError:
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        raise
    (connections,) = await connecting
    # With an answer, a box that is not in it has no agent that ever reported.
    absent = Connection.NOT_CONNECTED if connections else Connection.UNKNOWN
    listings = daemon.boxes.listings(look.instances)
    where = daemon.config.account_of(look.of)
    known = listed(
        look.instances,
        look.projects,
        owner=None if asked.all_owners else await _owner(context, look.of, look.instances, look.projects),
        was_asked=lambda one: look.asked_ec2 and daemon.config.account_of(one.account) == where,
    )
    sessions, forwards = _sessions(daemon), _forwards(daemon)
    found = [
        views.box(
            instance,
            look.of,
            listings.get(instance.id),
            connection=connections.get(instance.id, absent),
            sessions=sessions[instance.id],
            forwards=forwards[instance.id],
            hourly=_hourly(context, instance),
            project=known.projects.get(instance.id),
        )
        for instance in known.instances
    ]
    found += [
        replace(
            views.alone(one), sessions=sessions[one.instance or ""], forwards=forwards[one.instance or ""]
        )
        for one in known.alone
    ]
    taken = {one.name.lower() for one in look.projects if one.name not in daemon.config.boxes}
    for box in found:
        if box.ref is not None and box.ref.lower() in taken and box.project is None:
            box.ref = box.id  # that name means the project
    seen = {instance.id for instance in look.instances}
    for one in known.alone:
        seen |= {one.project.name} if one.instance is None else {one.project.name, one.instance}
    found += [
        views.box(
            Instance(target),
            Account(),
            listing,
            connection=connections.get(target, Connection.UNKNOWN),
            sessions=sessions[target],
            forwards=forwards[target],
        )
        for target, listing in _unseen(daemon, listings, seen).items()
    ]
    agents = context.agents.told()
    for box in found:
        box.agents = agents.get(box.project) if box.project else None
    found.sort(key=lambda box: (box.name, box.id))
    return wire.BoxList(found, look.conditions, rfc3339(look.since) if look.since is not None else None)


@dataclass(frozen=True, slots=True)
class _Look:
    """What EC2 says, and what is written down of projects.

    Attributes:
        of: the account that was asked.
        since: of when the instances are, where EC2 could not be asked again.
        asked_ec2: whether they are of now.
    """

    of: Account
    projects: list[Project]
    instances: list[Instance] = field(default_factory=list)
    since: float | None = None
    asked_ec2: bool = False
    conditions: list[wire.Condition] = field(default_factory=list)


async def _look(context: Context, of: Account) -> _Look:
    """Ask EC2, and read the projects meanwhile.

    Raises:
        DevboxError: EC2 says nothing, and nothing is known without it.
    """
    daemon = context.daemon
    reading = asyncio.gather(_projects(context, of))
    try:
        instances, of, old = await daemon.boxes.all(of)
        (projects,) = await reading
    except DevboxError as error:
        (projects,) = await reading
        if not projects and not isinstance(error, Denied | Unreachable):
            raise
        # Session Manager alone reaches a box; EC2 is a comfort. Show what is known without it: projects are
        # written down here.
        now = daemon.shared.time.wall()
        problem = f"{error.message}; projects are shown as written down" if projects else error.message
        raised = condition("ec2-unavailable", now, problem=problem, hint=error.hint)
        return _Look(of, projects, conditions=[views.condition(raised)])
    if old is None:
        return _Look(of, projects, instances, asked_ec2=True)
    why = condition("ec2-unavailable", daemon.shared.time.wall(), problem=old.why.message, hint=old.why.hint)
    return _Look(of, projects, instances, old.since, conditions=[views.condition(why)])


def _unseen(daemon: Daemon, listings: Mapping[str, Listing], seen: Collection[str]) -> dict[str, Listing]:
    """Boxes that are configured or in use and not in the list so far, by instance id."""
    in_use = {session.plan.target: session.plan.box for session in daemon.sessions()}
    return {
        target: listings.get(target) or Listing(in_use[target], target, f"{target}{HOST_SUFFIX}")
        for target in {**in_use, **listings}
        if target not in seen
    }


async def _projects(context: Context, of: Account) -> list[Project]:
    """The projects to list: all of them, or those of the account or region that was asked for."""
    try:
        found = await context.projects.all()
    except DevboxError:  # a shared table that can not be read: as their loops saw them last
        found = context.projects.remembered()
    return [one for one in found if may_be(of, one.account)]


async def _owner(
    context: Context, of: Account, instances: Sequence[Instance], projects: Sequence[Project]
) -> str | None:
    """Who we are as the owner of boxes; None where nobody else's is in the list, or AWS does not say."""
    ours = {project.uid for project in projects}
    if not any(is_foreign(instance, "", ours) for instance in instances):
        return None
    try:
        return await context.daemon.owner_tag(of)
    except DevboxError:
        return None


@answers(routes.SHOW_BOX)
async def show(context: Context, asked: wire.Target) -> wire.Box:
    """One box, as far as it may be looked at, and the project that it is the box of."""
    daemon = context.daemon
    known = None
    try:
        box = await resolved(context, asked)
    except ProjectDown as down:
        known = await context.projects.get(down.project.name)
        if (row := known.project).instance is None:
            alone = views.of_project(views.alone(Alone(row)), known, context.projects.status(row))
            at = context.idle.ahead(row.uid).at
            alone.deletes = rfc3339(at) if at is not None else None
            return alone
        box = box_of(context, row, row.instance)
    instance = await daemon.boxes.instance(box) or Instance(box.target)
    called = box.name if box.name != box.target else instance.name or box.target
    found = views.box(
        instance,
        box.account,
        Listing(called, box.name, daemon.boxes.host(box) + HOST_SUFFIX),
        connection=await daemon.boxes.connection(box),
        sessions=_sessions(daemon)[box.target],
        forwards=_forwards(daemon)[box.target],
        user=box.user,
        hourly=_hourly(context, instance),
    )
    found.bridges = [views.bridge(item) for item in daemon.bridges() if item.target == box.target]
    if known is None and (project := _project_of(context, box)) is not None:
        known = await context.projects.find(project.name)
    if known is not None:
        views.of_project(found, known, context.projects.status(known.project))
        found.agents = context.agents.said(known.project.name) or None
        found.spot = context.reclaims.said(known.project) or None
    return found


def _project_of(context: Context, box: BoxRef) -> Project | None:
    return next((one for one in context.projects.remembered() if one.instance == box.target), None)


@answers(routes.REMOVE_BRIDGE)
async def remove_bridge(context: Context, asked: wire.Target) -> wire.BridgeRemoval:
    """Take away what a bridge runs and keeps on a box."""
    box = await resolved(context, asked)
    done, streams = await context.daemon.remove_bridge(box)
    return wire.BridgeRemoval(box.name, done, streams)


def _hourly(context: Context, instance: Instance) -> Decimal | None:
    """What AWS asks for an hour of it, as far as that is at hand."""
    region = region_of(instance.zone)
    return context.money.prices.of(region).hourly(instance.type or "") if region else None


def _sessions(daemon: Daemon) -> Counter[str]:
    """Held sessions, by instance id."""
    return Counter(session.plan.target for session in daemon.sessions())


def _forwards(daemon: Daemon) -> Counter[str]:
    """Forwards, by instance id: a box may be called by several names."""
    return Counter(item.target for item in daemon.forwards.list())


@answers(routes.PING)
async def ping(context: Context, asked: wire.PingRequest) -> wire.Ping:
    """Round trips to the agent of a box."""
    box = await resolved(context, asked)
    count = max(1, min(asked.count, 1000))
    timeout = max(1.0, min(asked.timeout, 600.0))
    trips, opening, version = await context.daemon.ping(box, count, timeout)
    return wire.Ping(box.name, trips, opening, version or None)


@answers(routes.SSH)
async def ssh(context: Context, asked: wire.SshRequest) -> wire.SshAccess:
    """Put keys in place on both ends."""
    boxes, user = context.daemon.boxes, asked.user
    try:
        box = await resolved(context, asked)
    except BoxNotFound:
        before, at, name = asked.box.rpartition("@")  # USER@BOX, unless a box is called so
        if not at or not is_user(before):
            raise
        box, user = await resolved(context, asked, name), user or before
    access = await context.daemon.ssh.prepare(
        box, user=user, port=asked.port, hosts=boxes.hosts(box, asked.box), fresh=asked.fresh, hasty=False
    )
    identity, known_hosts, config = context.ssh_config.paths()
    return wire.SshAccess(
        box=box.name,
        user=access.user,
        identity_file=identity,
        known_hosts_file=known_hosts,
        config_file=config,
        host_keys=len(access.host_keys),
        host=boxes.host(box) + HOST_SUFFIX,
        host_key_alias=known_host(box.target, asked.port),
        problems=[*access.problems, *(one for one in access.news if one not in access.problems)],
    )


@answers(routes.DOCTOR_BOX)
async def doctor(context: Context, asked: wire.Target) -> wire.Doctor:
    """Every check there is, on the way to a box."""
    box = await resolved(context, asked)
    return views.doctor(await context.doctor.box(box))
