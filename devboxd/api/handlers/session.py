"""Sessions: list, end, and the three streams: attach, exec, proxy."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Sequence
from typing import Final

from devboxd.api import routes, views, wire
from devboxd.api.handlers.context import Context, resolved
from devboxd.api.handlers.table import answers, frames, pipes
from devboxd.api.upgrade import Framed, Piped
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.stream import Duplex
from devboxd.control.daemon import Daemon
from devboxd.errors import BadRequest, DevboxError
from devboxd.model.attach import AttachSpec
from devboxd.model.box import BoxRef
from devboxd.model.names import check_mux, check_session, check_user

PREPARE_TIMEOUT: Final = 45.0  # seconds for the ssh key and host key of a box before ssh itself goes on


@answers(routes.LIST_SESSIONS)
async def listed(context: Context, asked: wire.Nothing) -> wire.SessionList:
    """What AWS is told that we hold."""
    return wire.SessionList([views.session(item) for item in context.daemon.sessions()])


@answers(routes.END_SESSION)
async def end(context: Context, asked: wire.SessionId) -> wire.Session:
    """End one session."""
    return views.session(await context.daemon.end_session(asked.id))


@frames(routes.ATTACH)
async def attach(context: Context, asked: wire.AttachRequest) -> Framed:
    """Join a terminal to a box."""
    daemon = context.daemon
    if asked.forward_agent and not asked.ssh_auth_sock:
        raise BadRequest(
            "there is no ssh agent here to forward", hint="start one (ssh-agent), or leave out -A"
        )
    spec = AttachSpec(
        box=await resolved(context, asked),
        session=check_session(asked.session),
        raw=asked.raw,
        command=asked.command,
        user=_user(asked.user),
        mux=None if asked.mux is None else check_mux(asked.mux),
        columns=asked.columns,
        rows=asked.rows,
        term=asked.term,
        colorterm=asked.colorterm,
        locale=asked.locale,
        agent=asked.ssh_auth_sock if asked.forward_agent else None,
        rejoining=asked.rejoin,
    )
    return Framed(lambda terminal: daemon.attach(spec, terminal))


@frames(routes.EXEC)
async def execute(context: Context, asked: wire.ExecRequest) -> Framed:
    """Run a command on a box: on pipes, or on a terminal, which is an attach without a multiplexer."""
    daemon = context.daemon
    if not asked.argv:
        raise BadRequest("no command was given", hint="devboxctl exec BOX -- COMMAND")
    box = await resolved(context, asked)
    if asked.tty:
        attach_spec = AttachSpec(
            box=box,
            command=_shell_line(asked),
            user=_user(asked.user),
            columns=asked.columns,
            rows=asked.rows,
            term=asked.term,
        )
        return Framed(lambda terminal: daemon.attach(attach_spec, terminal))
    spec = ExecSpec(
        box=box,
        argv=asked.argv,
        stdin=asked.stdin,
        user=_user(asked.user),
        cwd=asked.cwd,
        env=dict(asked.env),
    )
    # A pager may read the last megabytes an hour later; a terminal that is stuck at its end is given up.
    return Framed(lambda terminal: daemon.execute(spec, terminal), patience=None)


@pipes(routes.PROXY)
async def proxy(context: Context, asked: wire.ProxyRequest) -> Piped:
    """Connect to a port of a box."""
    daemon = context.daemon
    box = await resolved(context, asked)
    # Both at once; but ssh must not see a byte before the host key that it will look for is pinned.
    async with asyncio.TaskGroup() as tasks:
        if asked.ssh_user is not None:
            hosts = daemon.boxes.hosts(box, asked.box)
            tasks.create_task(_prepare(daemon, box, asked.ssh_user, asked.port, hosts))
        connecting = tasks.create_task(_caught(daemon.connect(box, asked.port, asked.host, asked.wait)))
    stream = connecting.result()
    if isinstance(stream, DevboxError):
        raise stream

    def count(step: int) -> None:
        daemon.piped += step

    return Piped(stream, count, asked.fd_pass)


async def _prepare(daemon: Daemon, box: BoxRef, user: str, port: int, hosts: Sequence[str]) -> None:
    """Put keys in place; what fails is an event, for ssh may well succeed with keys of its user's."""
    try:
        async with asyncio.timeout(PREPARE_TIMEOUT):
            access = await daemon.ssh.prepare(box, user=user, port=port, hosts=hosts)
    except (DevboxError, TimeoutError, OSError) as error:
        daemon.shared.news.tell(
            "ssh.unprepared", f"ssh to {box.name} goes on unprepared: {error}", box=box.name
        )
    else:
        for problem in access.problems:
            daemon.shared.news.tell("ssh.problem", problem, box=box.name)


async def _caught(work: Awaitable[Duplex]) -> Duplex | DevboxError:
    """Keep a failure out of the task group: it must not cancel what runs beside it."""
    try:
        return await work
    except DevboxError as error:
        return error


def _user(asked: str | None) -> str | None:
    """The login name of a request. It ends on command lines here and on the box."""
    return None if asked is None else check_user(asked)


def _shell_line(asked: wire.ExecRequest) -> str:
    """The command for a terminal, with its folder and environment, as one shell line."""
    words = [f"cd {shlex.quote(asked.cwd)} &&"] if asked.cwd else []
    if asked.env:
        words += ["env", *(shlex.quote(f"{name}={value}") for name, value in asked.env.items())]
    return " ".join([*words, shlex.join(asked.argv)])
