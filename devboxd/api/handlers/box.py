"""Boxes: list, look, ping, doctor, make ssh work."""

from __future__ import annotations

from collections import Counter

from devboxd.api import routes, views, wire
from devboxd.api.handlers.context import Context, account
from devboxd.api.handlers.table import answers
from devboxd.errors import DevboxError
from devboxd.model.box import Instance
from devboxd.model.health import condition
from devboxd.text import rfc3339


@answers(routes.LIST_BOXES)
async def boxes(context: Context, asked: wire.Account) -> wire.BoxList:
    """All boxes: those of EC2, those that are configured, and those that are in use."""
    daemon = context.daemon
    of = account(asked)
    conditions: list[wire.Condition] = []
    since: float | None = None
    instances: list[Instance] = []
    try:
        instances, of, since = await daemon.boxes(of)
    except DevboxError as error:
        if error.code not in ("denied", "unreachable"):
            raise
        # Session Manager alone reaches a box; EC2 is a comfort. Show what is known without it.
        now = daemon.shared.time.wall()
        raised = condition("ec2-unavailable", now, problem=error.message, hint=error.hint)
        conditions.append(views.condition(raised))
    sessions = Counter(session.plan.target for session in daemon.sessions())
    forwards = Counter(item.box for item in daemon.forwards.list())
    names = {item.target: name for name, item in daemon.config.boxes.items() if item.target}
    found = [
        views.box(
            instance,
            of,
            name=names.get(instance.id),
            sessions=sessions[instance.id],
            forwards=forwards[names.get(instance.id) or instance.name or instance.id],
        )
        for instance in instances
        if instance.state != "terminated"
    ]
    seen = {box.id for box in found}
    in_use = {session.plan.target: session.plan.box for session in daemon.sessions()}
    for target, name in {**in_use, **names}.items():
        if target not in seen:
            found.append(wire.Box(name, target, sessions=sessions[target], forwards=forwards[name]))
    found.sort(key=lambda box: (box.name, box.id))
    return wire.BoxList(found, conditions, rfc3339(since) if since is not None else None)


@answers(routes.SHOW_BOX)
async def show(context: Context, asked: wire.Target) -> wire.Box:
    """One box, as far as it may be looked at."""
    daemon = context.daemon
    box = await daemon.resolve(asked.box, account(asked))
    instance = await daemon.instance(box) or Instance(box.target)
    return views.box(
        instance,
        box.account,
        name=box.name if box.name != box.target else None,
        connection=await daemon.connection(box),
        sessions=sum(session.plan.target == box.target for session in daemon.sessions()),
        forwards=sum(item.box == box.name for item in daemon.forwards.list()),
        user=box.user,
    )


@answers(routes.PING)
async def ping(context: Context, asked: wire.PingRequest) -> wire.Ping:
    """Round trips to the agent of a box."""
    box = await context.daemon.resolve(asked.box, account(asked))
    count = max(1, min(asked.count, 1000))
    timeout = max(1.0, min(asked.timeout, 600.0))
    trips, opening, version = await context.daemon.ping(box, count, timeout)
    return wire.Ping(box.name, trips, opening, version or None)


@answers(routes.SSH)
async def ssh(context: Context, asked: wire.SshRequest) -> wire.SshAccess:
    """Put keys in place on both ends."""
    box = await context.daemon.resolve(asked.box, account(asked))
    access = await context.daemon.ssh.prepare(box, user=asked.user, port=asked.port, hasty=False)
    identity, known_hosts, config = context.ssh_config.paths()
    return wire.SshAccess(
        box=box.name,
        user=access.user,
        identity_file=identity,
        known_hosts_file=known_hosts,
        config_file=config,
        host_keys=len(access.host_keys),
        host=f"{box.name}.devbox",
        problems=access.problems,
    )


@answers(routes.DOCTOR_BOX)
async def doctor(context: Context, asked: wire.Target) -> wire.Doctor:
    """Every check there is, on the way to a box."""
    box = await context.daemon.resolve(asked.box, account(asked))
    return await context.doctor(asked, box)
