"""The daemon itself: status, events, configuration, login, stopping, the ssh configuration."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

from devboxd import __version__
from devboxd.api import describe, routes, views, wire
from devboxd.api.handlers.context import Context, account
from devboxd.api.handlers.table import answers, pipes, tells
from devboxd.api.upgrade import Linked
from devboxd.aws.lent import Lent
from devboxd.errors import BadRequest, DevboxError, WrongState
from devboxd.model.folder import in_folder
from devboxd.model.states import LoginState
from devboxd.text import parse_rfc3339, rfc3339


@answers(routes.STATUS)
async def status(context: Context, asked: wire.Nothing) -> wire.Status:
    """Who runs here, and how much it holds."""
    daemon = context.daemon
    return wire.Status(
        daemon_version=__version__,
        pid=os.getpid(),
        started=rfc3339(context.started),
        socket=context.socket,
        sessions=len(daemon.sessions()),
        forwards=len(daemon.forwards.list()),
        attached=daemon.clients.attached,
        piped=daemon.clients.piped,
        commands=daemon.clients.commands,
        shells=daemon.clients.shells,
        kept=views.goes_on(daemon.shared.handing.counts()),
        handed_over=views.handed_over(daemon.inherited),
        conditions=[views.condition(item) for item in daemon.shared.news.conditions()],
        activation=context.activation,
        is_ending=context.is_ending(),
        bridges=[views.bridge(item) for item in daemon.bridges()],
        logins=[views.login(item, daemon.shared.time.wall()) for item in context.logins.known()],
    )


@answers(routes.API)
async def api(context: Context, asked: wire.Nothing) -> dict[str, Any]:
    """The API, described."""
    return describe.openapi()


@tells(routes.EVENTS)
async def events(context: Context, asked: wire.EventsRequest) -> AsyncIterator[wire.Event]:
    """What happened, and with ``follow`` what happens."""
    news = context.daemon.shared.news
    if asked.follow:
        async for item in news.follow(asked.since):
            yield views.event(item)
    else:
        for item in news.events(asked.since):
            yield views.event(item)


@answers(routes.CONFIG)
async def config(context: Context, asked: wire.ConfigRequest) -> wire.ConfigView:
    """The settings in force, here or where the client stands."""
    loaded = await context.config()
    if asked.folder is None:
        return views.config(loaded)
    return views.config(loaded, in_folder(loaded.merged, asked.folder.path, asked.folder.text))


@answers(routes.IDENTITY)
async def identity(context: Context, asked: wire.Account) -> wire.Identity:
    """Ask AWS who we are."""
    daemon = context.daemon
    return views.identity(await daemon.identity(account(asked)), daemon.shared.time.wall())


@tells(routes.LOGIN)
async def login(context: Context, asked: wire.LoginRequest) -> AsyncIterator[wire.LoginStep]:
    """Progress of a login, until it is done or has failed; at the end, everything that waited for it goes on."""
    is_done = False
    try:
        whose = context.daemon.settings.for_aws().account_of(account(asked))
        async for step in context.login(whose, asked.code or None):
            is_done = step.state is LoginState.DONE
            yield views.login_step(step)
    except DevboxError as error:
        yield wire.LoginStep(LoginState.FAILED, error.message, failure=views.failure(error))
    if is_done:  # else there is nothing new, and every account would have to be set up again
        await context.logins.renew()
    else:  # whoever asks for a login may have renewed other credentials by hand
        context.logins.rearm()


@answers(routes.LEND)
async def lend(context: Context, asked: wire.LendRequest) -> wire.Identity:
    """Take over credentials, if they work."""
    if not asked.access_key_id or not asked.secret_access_key:
        raise BadRequest("an access key has two halves", hint="give both")
    daemon = context.daemon
    profile = daemon.settings.for_aws().account_of(account(asked)).profile
    try:
        expires = parse_rfc3339(asked.expires) if asked.expires else None
    except ValueError:
        expires = None  # some tool's own idea of a time: AWS knows anyway
    given = Lent(asked.access_key_id, asked.secret_access_key, asked.session_token, expires)
    former = await context.lend(profile, given)
    try:
        found = await daemon.identity(account(asked))
    except DevboxError:
        await context.lend(profile, former)
        raise
    context.logins.rearm()
    daemon.shared.news.tell("login.lent", f"a shell has lent its credentials to profile {found.profile}")
    return views.identity(found, daemon.shared.time.wall())


@answers(routes.STOP)
async def stop(context: Context, asked: wire.StopRequest) -> wire.Stopping:
    """Begin to stop."""
    if asked.restart and context.activation == "systemd":
        context.hand_over(None)
    else:
        context.stop()
    return wire.Stopping(os.getpid())


@pipes(routes.HAND_OVER)
async def hand_over(context: Context, asked: wire.Nothing) -> Linked:
    """Leave to the daemon at the other end what it can go on with, once it says that it could start."""
    if context.activation == "systemd":
        raise WrongState("systemd starts this daemon", hint="devboxctl daemon restart")
    return Linked(context.hand_over)


@answers(routes.LOOK_SSH_CONFIG)
async def look(context: Context, asked: wire.SshConfigRequest) -> wire.SshConfigResult:
    """Compare what is there with what would be written."""
    return views.ssh_config(await context.ssh_config.look(asked.command), context.ssh_config.files)


@answers(routes.WRITE_SSH_CONFIG)
async def write(context: Context, asked: wire.SshConfigRequest) -> wire.SshConfigResult:
    """Write the ssh configuration."""
    return views.ssh_config(await context.ssh_config.write(asked.command), context.ssh_config.files)


@answers(routes.REMOVE_SSH_CONFIG)
async def remove(context: Context, asked: wire.Nothing) -> wire.SshConfigResult:
    """Take the ssh configuration out again."""
    return views.ssh_config(await context.ssh_config.remove(), context.ssh_config.files)


@answers(routes.DOCTOR)
async def doctor(context: Context, asked: wire.Target) -> wire.Doctor:
    """Check what is on this machine."""
    return views.doctor(await context.doctor.machine(account(asked)))
