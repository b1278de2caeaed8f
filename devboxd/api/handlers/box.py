"""Boxes: list, look, ping, doctor, make ssh work."""

from __future__ import annotations

from collections import Counter

from aiohttp import web

from devboxd.api import views, wire
from devboxd.api.handlers.context import Context, account
from devboxd.api.server import answer, body
from devboxd.api.stream import timestamp
from devboxd.errors import DevboxError
from devboxd.model.box import Account, Instance
from devboxd.model.health import condition


def routes(context: Context) -> list[web.RouteDef]:
    """Routes about boxes."""
    daemon = context.daemon

    async def boxes(request: web.Request) -> web.Response:
        asked = Account(request.query.get("profile") or None, request.query.get("region") or None)
        conditions: list[wire.Condition] = []
        since: float | None = None
        instances: list[Instance] = []
        of = asked
        try:
            instances, of, since = await daemon.boxes(asked)
        except DevboxError as error:
            if error.code not in ("denied", "unreachable"):
                raise
            # Session Manager alone reaches a box; EC2 is a comfort. Show what is known without it.
            conditions.append(
                views.condition(
                    condition(
                        "ec2-unavailable",
                        daemon.shared.time.wall(),
                        problem=error.message,
                        hint=error.hint,
                    )
                )
            )
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
        stale = timestamp(since) if since is not None else None
        return answer(wire.BoxList(found, conditions, stale))

    async def show(request: web.Request) -> web.Response:
        asked = Account(request.query.get("profile") or None, request.query.get("region") or None)
        box = await daemon.resolve(request.match_info["box"], asked)
        instance = await daemon.instance(box) or Instance(box.target)
        connection = await daemon.connection(box)
        sessions = sum(session.plan.target == box.target for session in daemon.sessions())
        forwards = sum(item.box == box.name for item in daemon.forwards.list())
        return answer(
            views.box(
                instance,
                box.account,
                name=box.name if box.name != box.target else None,
                connection=connection,
                sessions=sessions,
                forwards=forwards,
                user=box.user,
            )
        )

    async def ping(request: web.Request) -> web.Response:
        asked = await body(request, wire.PingRequest)
        box = await daemon.resolve(request.match_info["box"], account(asked))
        count = max(1, min(asked.count, 1000))
        trips, opening, version = await daemon.ping(box, count, max(1.0, min(asked.timeout, 600.0)))
        return answer(wire.Ping(box.name, trips, opening, version or None))

    async def ssh(request: web.Request) -> web.Response:
        asked = await body(request, wire.SshRequest)
        box = await daemon.resolve(request.match_info["box"], account(asked))
        access = await daemon.ssh.prepare(box, user=asked.user, port=asked.port, hasty=False)
        identity, known_hosts, config = context.ssh_config.paths()
        return answer(
            wire.SshAccess(
                box=box.name,
                user=access.user,
                identity_file=identity,
                known_hosts_file=known_hosts,
                config_file=config,
                host_keys=len(access.host_keys),
                host=f"{box.name}.devbox",
                problems=access.problems,
            )
        )

    async def doctor(request: web.Request) -> web.Response:
        asked = await body(request, wire.Target)
        box = await daemon.resolve(request.match_info["box"], account(asked))
        return answer(await context.doctor(asked, box))

    return [
        web.get("/v1/boxes", boxes),
        web.get("/v1/boxes/{box}", show),
        web.post("/v1/boxes/{box}/ping", ping),
        web.post("/v1/boxes/{box}/ssh", ssh),
        web.post("/v1/boxes/{box}/doctor", doctor),
    ]
