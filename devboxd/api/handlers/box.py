"""Boxes: list, look, ping, doctor, make ssh work."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal

from devboxd.api import routes, views, wire
from devboxd.api.handlers.context import Context, account, resolved
from devboxd.api.handlers.table import answers
from devboxd.control.daemon import Daemon
from devboxd.errors import BoxNotFound, Denied, DevboxError, Unreachable
from devboxd.model.box import Account, Instance
from devboxd.model.health import condition
from devboxd.model.names import HOST_SUFFIX, Listing, is_user, known_host
from devboxd.model.price import region_of
from devboxd.model.states import Connection, InstanceState
from devboxd.text import rfc3339


@answers(routes.LIST_BOXES)
async def boxes(context: Context, asked: wire.Account) -> wire.BoxList:
    """All boxes: those of EC2, those that are configured, and those that are in use."""
    daemon = context.daemon
    of = account(asked)
    conditions: list[wire.Condition] = []
    since: float | None = None
    instances: list[Instance] = []
    connecting = asyncio.gather(daemon.boxes.connections(of))  # at the same time
    try:
        instances, of, since = await daemon.boxes.all(of)
    except DevboxError as error:
        if not isinstance(error, Denied | Unreachable):
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            raise
        # Session Manager alone reaches a box; EC2 is a comfort. Show what is known without it.
        now = daemon.shared.time.wall()
        raised = condition("ec2-unavailable", now, problem=error.message, hint=error.hint)
        conditions.append(views.condition(raised))
    (connections,) = await connecting
    # With an answer, a box that is not in it has no agent that ever reported.
    absent = Connection.NOT_CONNECTED if connections else Connection.UNKNOWN
    listings = daemon.boxes.listings(instances)
    sessions, forwards = _sessions(daemon), _forwards(daemon)
    found = [
        views.box(
            instance,
            of,
            listings.get(instance.id),
            connection=connections.get(instance.id, absent),
            sessions=sessions[instance.id],
            forwards=forwards[instance.id],
            hourly=_hourly(context, instance),
        )
        for instance in instances
        if instance.state is not InstanceState.TERMINATED
    ]
    seen = {box.id for box in found}
    configured = {target: listing for target, listing in listings.items() if target not in seen}
    in_use = {session.plan.target: session.plan.box for session in daemon.sessions()}
    for target in {**in_use, **configured}:
        if target not in seen:
            listing = listings.get(target) or Listing(in_use[target], target, f"{target}{HOST_SUFFIX}")
            found.append(
                views.box(
                    Instance(target),
                    Account(),
                    listing,
                    connection=connections.get(target, Connection.UNKNOWN),
                    sessions=sessions[target],
                    forwards=forwards[target],
                )
            )
    found.sort(key=lambda box: (box.name, box.id))
    return wire.BoxList(found, conditions, rfc3339(since) if since is not None else None)


@answers(routes.SHOW_BOX)
async def show(context: Context, asked: wire.Target) -> wire.Box:
    """One box, as far as it may be looked at."""
    daemon = context.daemon
    box = await resolved(context, asked)
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
    return found


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
