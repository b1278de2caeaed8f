"""Sessions: list, end, and the three streams: attach, exec, proxy."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from devboxd.api import routes, views, wire
from devboxd.api.handlers.context import Context, resolved
from devboxd.api.handlers.table import answers, frames, pipes
from devboxd.api.stream import StreamTerminal
from devboxd.api.upgrade import Framed, Piped
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.sshstream import greeted, without_sshd
from devboxd.control.connect.stream import ConnectionRefused, Duplex
from devboxd.control.daemon import Daemon
from devboxd.errors import BadRequest, DevboxError
from devboxd.model.attach import AttachSpec
from devboxd.model.box import BoxRef
from devboxd.model.names import check_mux, check_session, check_user
from devboxd.model.states import StreamState
from devboxd.model.terminal import Leaving, StatusLine

T = TypeVar("T")
FAR_END: Final = 20.0  # seconds that a far end may take to connect until the stream begins all the same
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
    story = "" if asked.rejoin else await context.idle.last_stop(asked.box)

    async def join(terminal: StreamTerminal) -> Leaving:
        if story:
            terminal.status(StatusLine(StreamState.NOTICE, story))
        return await daemon.attach(spec, terminal)

    return Framed(join)


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
    return Framed(
        lambda terminal: daemon.command(spec, terminal), patience=None, handing=daemon.shared.handing
    )


@pipes(routes.PROXY)
async def proxy(context: Context, asked: wire.ProxyRequest) -> Piped:
    """Connect to a port of a box."""
    daemon = context.daemon
    box = await resolved(context, asked)
    if asked.ssh_user is None:
        stream = await daemon.connect(box, asked.port, asked.host, asked.wait)
        answered = await _answered(stream, asked.port, asked.host or box.name)
        handing = daemon.shared.handing
        return Piped(stream, _counted(daemon), handing, asked.fd_pass, answered=answered)
    # Both at once; but ssh must not see a byte before the host key that it will look for is pinned.
    with contextlib.ExitStack() as undo:
        async with asyncio.TaskGroup() as tasks:
            preparing = tasks.create_task(_prepare(daemon, box, asked))
            connecting = tasks.create_task(_caught(_greeted(daemon, box, asked, undo)))
        connected = connecting.result()
        if isinstance(connected, DevboxError):
            raise connected
        stream, note = connected
        notes = [*preparing.result(), *([note] if note else ())]
        undo.pop_all()
        return Piped(stream, _counted(daemon), daemon.shared.handing, asked.fd_pass, notes)


async def _answered(stream: Duplex, port: int, host: str) -> bool:
    """Wait for the far end, so that a refusal is an answer of ours and not a connection that ends. Whether it stands.

    Raises:
        ConnectionRefused: nothing listens there.
        DevboxError: it does not stand.
    """
    try:
        async with asyncio.timeout(FAR_END):
            return await stream.answered()
    except TimeoutError:
        return False  # whoever asked may wait for longer
    except ConnectionRefused as error:
        stream.close()
        raise ConnectionRefused(f"nothing listens on port {port} of {host}") from error
    except BaseException:
        stream.close()
        raise


def _counted(daemon: Daemon) -> Callable[[int], None]:
    def count(step: int) -> None:
        daemon.clients.piped += step

    return count


async def _greeted(
    daemon: Daemon, box: BoxRef, asked: wire.ProxyRequest, undo: contextlib.ExitStack
) -> tuple[Duplex, str | None]:
    """Connect for ssh, and see whether sshd is there; with what is odd about it. ``undo`` closes it again."""
    name, port = asked.host or box.name, asked.port

    async def connect() -> Duplex:
        try:
            return await daemon.connect(box, port, asked.host, asked.wait)
        except ConnectionRefused as error:
            raise without_sshd(port, name) from error

    stream, note = await greeted(
        connect, daemon.shared.time, lambda ended: daemon.ssh.ended(box, port, ended), port, name
    )
    undo.callback(stream.close)
    return stream, note


async def _prepare(daemon: Daemon, box: BoxRef, asked: wire.ProxyRequest) -> Sequence[str]:
    """Put keys in place; what fails is said, for ssh may well succeed with keys of its user's."""
    hosts = daemon.boxes.hosts(box, asked.box)
    try:
        async with asyncio.timeout(PREPARE_TIMEOUT):
            access = await daemon.ssh.prepare(
                box, user=asked.ssh_user, port=asked.port, hosts=hosts, fresh=asked.fresh
            )
    except (DevboxError, TimeoutError, OSError) as error:
        why = "it took too long" if isinstance(error, TimeoutError) else str(error)
        text = f"ssh to {box.name} goes on unprepared: {why}"
        daemon.shared.news.tell("ssh.unprepared", text, box=box.name)
        return [text]
    for text in access.news:
        daemon.shared.news.tell("ssh.problem", text, box=box.name)
    return access.news


async def _caught(work: Awaitable[T]) -> T | DevboxError:
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
