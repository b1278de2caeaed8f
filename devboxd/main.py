"""Build every object, join policy to the outside, run until told to stop.

This is the one place that knows all parts. Nothing here decides anything.
"""

from __future__ import annotations

import asyncio
import getpass
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

from devboxd import __version__
from devboxd.api import views, wire
from devboxd.api.handlers.context import Context, account
from devboxd.api.server import build, serving
from devboxd.api.views import failure
from devboxd.aws.clients import Accounts
from devboxd.aws.cloud import AwsCloud
from devboxd.aws.login import Login
from devboxd.aws.watch import changes as credential_changes
from devboxd.control.base.logins import LoginWatch
from devboxd.control.base.memory import Memory
from devboxd.control.base.settings import Settings
from devboxd.control.base.shared import Shared
from devboxd.control.base.steady import steadily
from devboxd.control.daemon import Daemon
from devboxd.control.doctor import Doctor
from devboxd.errors import DevboxError
from devboxd.host.bridge_key import bridge_secrets
from devboxd.host.clock import Clock
from devboxd.host.config import ConfigFiles, Loaded
from devboxd.host.files import replace_file
from devboxd.host.journal import Journal
from devboxd.host.keys import LocalKeys
from devboxd.host.logging import set_level, set_up
from devboxd.host.notify import notice
from devboxd.host.paths import Paths
from devboxd.host.starter import Starter
from devboxd.host.systemd import Notifier
from devboxd.host.wake import wakeups
from devboxd.model.box import Account, BoxRef
from devboxd.model.memory import recalled
from devboxd.model.states import LoginState
from devboxd.net.dial import DialSettings
from devboxd.net.link import Dialer
from devboxd.net.listen import Listener, Listeners, adopt
from devboxd.net.room import ROOM, limit, raise_limit
from devboxd.net.unix import DaemonSocket, inherited_sockets, open_daemon_socket
from devboxd.text import rfc3339

log = logging.getLogger(__name__)

NO_DAEMON: Final = 69  # EX_UNAVAILABLE: the exit status of a daemon that could not start


def main() -> int:
    """Run the daemon; returns its exit status."""
    os.umask(0o077)
    raise_limit()
    environment = os.environ
    starter = Starter.from_environment(environment)
    inherited = inherited_sockets(environment)
    notifier = Notifier.from_environment(environment)
    paths = Paths.from_environment(environment)
    set_up(paths.log, journald="JOURNAL_STREAM" in environment)
    try:
        paths.prepare()
        listening = open_daemon_socket(paths.socket, inherited, state=paths.state)
    except DevboxError as error:
        starter.failed(error.message, error.hint)
        sys.stderr.write(f"error: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return NO_DAEMON
    try:
        asyncio.run(_run(paths, environment, listening, notifier, _Listeners(notifier, inherited), starter))
    except Exception as error:
        starter.failed(f"{type(error).__name__}: {error}")
        raise
    finally:
        listening.close()
    return 0


async def _run(
    paths: Paths,
    environment: Mapping[str, str],
    listening: DaemonSocket,
    notifier: Notifier,
    listeners: _Listeners,
    starter: Starter,
) -> None:
    clock = Clock()
    shared = Shared.of(clock)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    memory = _remembered(Journal(paths.journal), shared)
    files = ConfigFiles(paths, environment)
    loaded = files.load()
    set_level(loaded.config.log.level)
    settings = Settings(shared.news, loaded.config)
    settings.take(loaded.config, loaded.error, is_whole=loaded.is_whole)
    accounts = Accounts(clock, shared.logins.heard)
    dialer = Dialer(DialSettings.from_environment(environment))
    keys = LocalKeys(paths, memory)
    daemon = Daemon(
        shared,
        AwsCloud(accounts),
        dialer,
        keys,
        settings,
        memory,
        listeners,
        bridge_secret=bridge_secrets(paths.bridge_key),
    )
    watch = LoginWatch(shared.time, shared.news, shared.logins, accounts, notice)
    current = _Current(files, loaded, settings, daemon.reconfigured)
    doctor = Doctor(daemon)
    context = Context(
        daemon=daemon,
        socket=str(paths.socket),
        activation=listening.activation,
        started=clock.wall(),
        stop=stopping.set,
        config=current.view,
        ssh_config=keys,
        login=lambda asked: _login(accounts, settings, watch, clock, asked),
        doctor=lambda asked, box: _doctor(doctor, account(asked), box),
    )
    ROOM.on_change = lambda is_short: _room_condition(shared, is_short)

    async def follow_config() -> None:
        async for new in files.watch():
            current.take(new)

    async def follow_logins() -> None:
        async for _ in credential_changes(environment):
            await watch.renew()
            daemon.boxes.forget()  # another account may have other boxes of these names

    async def follow_network() -> None:
        async for wake in wakeups(clock):
            what = f"slept for {wake.slept:.0f} s" if wake.slept else "the network changed"
            shared.news.tell("wake", what, slept=wake.slept)
            dialer.network_changed()
            await accounts.refresh()  # connections that wait for the next call lead nowhere any more
            shared.bells.network.ring()
            shared.logins.changed.ring()  # a login may have ended meanwhile: look

    async def be_alive() -> None:
        interval = notifier.interval
        while interval:
            notifier.alive()
            await asyncio.sleep(interval)

    shared.tasks.spawn("memory", steadily(shared, "memory", memory.run))
    try:
        # Before the first request is read: what an earlier daemon left has to be there when it is asked for.
        await daemon.start()
        async with serving(build(context), listening.socket):
            for name, work in (
                ("configuration", follow_config),
                ("logins", follow_logins),
                ("login expiry", watch.run),
                ("network", follow_network),
                ("watchdog", be_alive),
            ):
                shared.tasks.spawn(name, steadily(shared, name, work))
            notifier.ready(f"serving {paths.socket}")
            starter.done()
            log.info("devboxd %s serves %s", __version__, paths.socket)
            await stopping.wait()
            notifier.stopping("ending sessions")
            await daemon.stop()
    finally:
        await shared.tasks.stop()
        await memory.finish()
        await dialer.close()
        await accounts.close()


# Configuration ----------------------------------------------------------------------------------------


class _Current:
    """The files of the configuration: what they say now, and for ``devboxctl config show``."""

    def __init__(
        self, files: ConfigFiles, loaded: Loaded, settings: Settings, changed: Callable[[], None]
    ) -> None:
        self._files = files
        self._loaded = loaded
        self._settings = settings
        self._changed = changed

    def take(self, loaded: Loaded) -> None:
        """They have changed."""
        self._loaded = loaded
        if self._settings.take(loaded.config, loaded.error, is_whole=loaded.is_whole):
            set_level(loaded.config.log.level)
            self._changed()

    async def view(self) -> wire.ConfigView:
        """As they are at this moment: an editor was closed just now, and the watcher may not have seen it."""
        self.take(await asyncio.to_thread(self._files.load))
        return views.config(self._loaded)


def _room_condition(shared: Shared, is_short: bool) -> None:
    if is_short:
        shared.news.raise_condition("descriptors-short", limit=limit())
    else:
        shared.news.clear_condition("descriptors-short")


class _Listeners(Listeners):
    """Listeners of forwards in systemd's descriptor store: a restart refuses no connection."""

    def __init__(self, notifier: Notifier, inherited: dict[str, list[socket.socket]]) -> None:
        self._notifier = notifier
        self._inherited = inherited

    def take(self, name: str) -> Listener | None:
        sockets = self._inherited.pop(name, [])
        return adopt(*sockets) if sockets else None

    def keep(self, name: str, listener: object) -> None:
        assert isinstance(listener, Listener), "it comes from here"
        self._notifier.unstore(name)  # a name holds as many as were ever stored under it
        self._notifier.store(name, listener.descriptors)

    def drop(self, name: str) -> None:
        self._notifier.unstore(name)

    def drop_rest(self) -> None:
        for name in [name for name in self._inherited if name.startswith("forward-")]:
            for one in self._inherited.pop(name):
                one.close()
            self._notifier.unstore(name)


# Memory -----------------------------------------------------------------------------------------------


def _remembered(journal: Journal, shared: Shared) -> Memory:
    """What the last daemon left; the first one of all gives our sessions at AWS their mark."""
    state = recalled(journal.read())
    if not state.owner:
        # A user name or host name is no secret, but it need not be readable in every account's session list.
        state.owner = f"{getpass.getuser()}@{socket.gethostname()}"[:60] + f"/{secrets.token_hex(4)}"
    if journal.problem:
        shared.news.raise_condition("journal-lost", problem=journal.problem)
    return Memory(shared.news, journal, state)


# Requests that need more than control -------------------------------------------------------------------


async def _login(
    accounts: Accounts, settings: Settings, watch: LoginWatch, clock: Clock, asked: wire.LoginRequest
) -> AsyncIterator[wire.LoginStep]:
    """Run a login and pass its steps on; at the end, everything that waited for it goes on."""
    done = False
    try:
        account = settings.for_aws().account_of(Account(asked.profile, asked.region))
        async for step in Login(accounts.account(account.profile, account.region), clock, replace_file).run():
            done = step.state is LoginState.DONE
            yield wire.LoginStep(
                state=step.state,
                text=step.text,
                url=step.url,
                code=step.code,
                expires=None if step.expires is None else rfc3339(step.expires.timestamp()),
                failure=failure(step.failure) if step.failure is not None else None,
            )
    except DevboxError as error:
        yield wire.LoginStep(LoginState.FAILED, error.message, failure=failure(error))
    if done:  # else there is nothing new, and every account would have to be set up again
        await watch.renew()
    else:  # whoever asks for a login may have renewed other credentials by hand
        watch.rearm()


async def _doctor(doctor: Doctor, of: Account, box: BoxRef | None) -> wire.Doctor:
    findings = await (doctor.machine(of) if box is None else doctor.box(box))
    return wire.Doctor([wire.Check(f.name, f.result, f.text, f.hint, f.seconds) for f in findings])
