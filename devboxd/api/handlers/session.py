"""Sessions: list, end, and the three streams: attach, exec, proxy."""

from __future__ import annotations

import asyncio
import shlex
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from devboxd.api import views, wire
from devboxd.api.handlers.context import Context, account
from devboxd.api.server import answer, body, switch, take_over
from devboxd.api.stream import StreamTerminal
from devboxd.boxside.shell import MUXES, check_session_name
from devboxd.control.connect.attach import AttachSpec
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.port import Stream
from devboxd.control.connect.splice import splice
from devboxd.control.connect.terminal import Leaving, Terminal
from devboxd.errors import BadRequest, DevboxError
from devboxd.model.box import BoxRef
from devboxd.net.listen import Connection
from devboxd.net.unix import send_fd

PREPARE_TIMEOUT: Final = 45.0  # seconds for the ssh key and host key of a box before ssh itself goes on


def routes(context: Context) -> list[web.RouteDef]:
    """Routes about sessions."""
    daemon = context.daemon

    async def listed(_: web.Request) -> web.Response:
        return answer(wire.SessionList([views.session(item) for item in daemon.sessions()]))

    async def end(request: web.Request) -> web.Response:
        return answer(views.session(await daemon.end_session(request.match_info["id"])))

    async def attach(request: web.Request) -> web.StreamResponse:
        asked = await body(request, wire.AttachRequest)
        if asked.mux is not None and asked.mux not in MUXES:
            raise BadRequest(
                f"{asked.mux!r} is no multiplexer that devbox knows", hint=f"one of: {', '.join(MUXES)}"
            )
        if asked.forward_agent and not asked.ssh_auth_sock:
            raise BadRequest(
                "there is no ssh agent here to forward", hint="start one (ssh-agent), or leave out -A"
            )
        spec = AttachSpec(
            box=await daemon.resolve(asked.box, account(asked)),
            session=check_session_name(asked.session),
            raw=asked.raw,
            command=asked.command,
            user=asked.user,
            mux=asked.mux,
            columns=asked.columns,
            rows=asked.rows,
            term=asked.term,
            colorterm=asked.colorterm,
            locale=asked.locale,
            agent=asked.ssh_auth_sock if asked.forward_agent else None,
            rejoining=asked.rejoin is not None,
        )
        return await _framed(request, lambda terminal: daemon.attach(spec, terminal))

    async def execute(request: web.Request) -> web.StreamResponse:
        asked = await body(request, wire.ExecRequest)
        if not asked.argv:
            raise BadRequest("no command was given", hint="devboxctl exec BOX -- COMMAND")
        box = await daemon.resolve(asked.box, account(asked))
        if asked.tty:
            line = _shell_line(asked)
            attach_spec = AttachSpec(
                box=box,
                command=line,
                user=asked.user,
                columns=asked.columns,
                rows=asked.rows,
                term=asked.term,
            )
            return await _framed(request, lambda terminal: daemon.attach(attach_spec, terminal))
        spec = ExecSpec(
            box=box,
            argv=asked.argv,
            stdin=asked.stdin,
            user=asked.user,
            cwd=asked.cwd,
            env=dict(asked.env),
        )
        # A pager may read the last megabytes an hour later; a terminal that is stuck at its end is given up.
        return await _framed(request, lambda terminal: daemon.execute(spec, terminal), patience=None)

    async def proxy(request: web.Request) -> web.StreamResponse:
        asked = await body(request, wire.ProxyRequest)
        if not 0 < asked.port < 65536:
            raise BadRequest(f"{asked.port} is no port", hint="ports are 1 to 65535")
        box = await daemon.resolve(asked.box, account(asked))
        # Both at once; but ssh must not see a byte before the host key that it will look for is pinned.
        async with asyncio.TaskGroup() as tasks:
            if asked.ssh_user is not None:
                tasks.create_task(prepare(box, asked.ssh_user, asked.port))
            connecting = tasks.create_task(_caught(daemon.connect(box, asked.port, asked.host, asked.wait)))
        stream = connecting.result()
        if isinstance(stream, DevboxError):
            raise stream
        try:
            return await _pipe(request, stream, fd_pass=asked.fd_pass)
        finally:
            stream.close()

    async def prepare(box: BoxRef, user: str, port: int) -> None:
        """Put keys in place; what fails is an event, for ssh may well succeed with keys of its user's."""
        try:
            async with asyncio.timeout(PREPARE_TIMEOUT):
                access = await daemon.ssh.prepare(box, user=user, port=port)
        except (DevboxError, TimeoutError, OSError) as error:
            daemon.shared.news.tell(
                "ssh.unprepared", f"ssh to {box.name} goes on unprepared: {error}", box=box.name
            )
        else:
            for problem in access.problems:
                daemon.shared.news.tell("ssh.problem", problem, box=box.name)

    return [
        web.get("/v1/sessions", listed),
        web.delete("/v1/sessions/{id}", end),
        web.post("/v1/attach", attach),
        web.post("/v1/exec", execute),
        web.post("/v1/proxy", proxy),
    ]


async def _caught(work: Awaitable[Stream]) -> Stream | DevboxError:
    """Keep a failure out of the task group: it must not cancel what runs beside it."""
    try:
        return await work
    except DevboxError as error:
        return error


async def _framed(
    request: web.Request,
    work: Callable[[Terminal], Awaitable[Leaving]],
    *,
    patience: float | None = 2.0,
) -> web.StreamResponse:
    """Leave HTTP for a framed stream, and run ``work`` with the client as its terminal."""
    async with take_over(request) as own:
        await switch(own)
        terminal = await StreamTerminal.over(own.dup())
        try:
            terminal.leave(await work(terminal))
        except BaseException:
            await terminal.close(timeout=0.5)
            raise
        await terminal.close(patience)
    return web.Response()


async def _pipe(request: web.Request, stream: Stream, *, fd_pass: bool) -> web.StreamResponse:
    """Leave HTTP for raw bytes, on this connection or on a descriptor that is passed over it."""
    async with take_over(request) as own:
        await switch(own)
        if fd_pass:
            ours, theirs = socket.socketpair()
            with theirs:
                send_fd(own, theirs.fileno())
            own.shutdown(socket.SHUT_RDWR)
        else:
            ours = own.dup()
        ours.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        await splice(Connection(reader, writer, "proxy"), stream)
    return web.Response()


def _shell_line(asked: wire.ExecRequest) -> str:
    """The command for a terminal, with its folder and environment, as one shell line."""
    words = [f"cd {shlex.quote(asked.cwd)} &&"] if asked.cwd else []
    if asked.env:
        words += ["env", *(shlex.quote(f"{name}={value}") for name, value in asked.env.items())]
    return " ".join([*words, shlex.join(asked.argv)])
