"""Build every object, join policy to the outside, run until told to stop.

This is the one place that knows all parts. Nothing here decides anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from devboxd import __version__
from devboxd.api.handlers.context import Context
from devboxd.api.page.serve import PageServer
from devboxd.api.server import build, serving
from devboxd.api.upgrade import go_on
from devboxd.aws.bill import AwsBills
from devboxd.aws.clients import Callers
from devboxd.aws.cloud import AwsCloud
from devboxd.aws.computes import AwsComputes, AwsDeadman
from devboxd.aws.http import DENIED
from devboxd.aws.login import Login
from devboxd.aws.prices import AwsPrices
from devboxd.aws.rows import SharedRows
from devboxd.aws.stack import StackApi
from devboxd.aws.user import UserApi
from devboxd.aws.watch import changes as credential_changes
from devboxd.boxside import reclaim
from devboxd.control.base.logins import LoginWatch
from devboxd.control.base.memory import Memory
from devboxd.control.base.notices import Notices
from devboxd.control.base.settings import Settings
from devboxd.control.base.shared import Shared
from devboxd.control.base.steady import steadily
from devboxd.control.connect.handing import Inheritance, by_inode, from_link
from devboxd.control.daemon import Daemon
from devboxd.control.doctor import Doctor
from devboxd.control.ending import Ending
from devboxd.control.errand import Agents, Errands
from devboxd.control.lifecycle.bills import Bills
from devboxd.control.lifecycle.deploy import deploy
from devboxd.control.lifecycle.home import Lifecycle
from devboxd.control.lifecycle.prices import Prices
from devboxd.control.lifecycle.user import Asked, Finding, UserSetUp
from devboxd.errors import DevboxError, StateNotSaved
from devboxd.host.bills import BillFiles
from devboxd.host.bridge_key import bridge_secrets
from devboxd.host.clock import Clock
from devboxd.host.config import ConfigFiles, Loaded
from devboxd.host.files import replace_file
from devboxd.host.journal import Journal
from devboxd.host.keys import LocalKeys
from devboxd.host.lock import Lock
from devboxd.host.logging import set_level, set_up
from devboxd.host.machine import new_owner
from devboxd.host.notify import notice
from devboxd.host.paths import Paths
from devboxd.host.prices import PriceFiles
from devboxd.host.starter import Starter
from devboxd.host.store import SqliteStore
from devboxd.host.systemd import DescriptorStore, Notifier, left
from devboxd.host.template import template
from devboxd.host.wake import wakeups
from devboxd.model.config import Merged
from devboxd.model.ledger import EVERY_ROW
from devboxd.model.states import StoreEngine
from devboxd.net.dial import DialSettings
from devboxd.net.handover import ask_for, leave, link_of
from devboxd.net.link import Dialer
from devboxd.net.listen import Listeners
from devboxd.net.room import ROOM, limit, raise_limit
from devboxd.net.unix import AlreadyRunning, DaemonSocket, inherited_sockets, open_daemon_socket
from devboxd.net.webhook import Webhook
from devboxd.ways import keep_secret, ways

log = logging.getLogger(__name__)

FORGET_EVERY: Final = 86400.0  # seconds between two looks for events of projects that have expired
MOST_CLIENTS: Final = 10_000  # that are handed over
START_AGAIN: Final = 75  # exit status by which the unit has us started again
NO_DAEMON: Final = 69  # EX_UNAVAILABLE: the exit status of a daemon that could not start


def main() -> int:
    """Run the daemon; returns its exit status."""
    os.umask(0o077)
    raise_limit()
    environment = os.environ
    starter = Starter.from_environment(environment)
    files: dict[str, list[int]] = {}
    inherited = inherited_sockets(environment, files)
    notifier = Notifier.from_environment(environment)
    link = link_of(environment)
    paths = Paths.from_environment(environment)
    set_up(paths.log, journald="JOURNAL_STREAM" in environment)
    try:
        paths.prepare()
        inheritance = _inheritance(link, notifier, files, inherited)
        listening = open_daemon_socket(paths.socket, inherited, state=paths.state)
    except DevboxError as error:
        again = isinstance(error, AlreadyRunning) and not error.is_elsewhere
        starter.failed(error.message, error.hint, again=again)
        sys.stderr.write(f"error: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return NO_DAEMON
    ending = Ending(leave)
    try:
        asyncio.run(
            _run(
                paths,
                environment,
                listening,
                notifier,
                Listeners(DescriptorStore(notifier, inherited)),
                starter,
                inheritance,
                ending,
            )
        )
    except Exception as error:
        starter.failed(f"{type(error).__name__}: {error}")
        raise
    finally:
        listening.close()
        ending.leave()
    return START_AGAIN if ending.starts_again and notifier.slots else 0


def _inheritance(
    link: socket.socket | None,
    notifier: Notifier,
    files: dict[str, list[int]],
    inherited: dict[str, list[socket.socket]],
) -> Inheritance | None:
    """What the daemon before us has left, if it did: its listeners are put into ``inherited``."""
    if link is not None:
        with link:
            given = ask_for(link)
        return None if given is None else from_link(given.data, given.descriptors, inherited)
    notifier.forget_left()  # before anything is done with it: what is left to us is left once, also if we fail at it
    found = left(files, inherited)
    return None if found is None else by_inode(*found)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What runs for as long as the daemon does."""

    clock: Clock
    shared: Shared
    memory: Memory
    settings: _Files
    callers: Callers
    dialer: Dialer
    keys: LocalKeys
    daemon: Daemon
    logins: LoginWatch
    notices: Notices
    store: SqliteStore
    table: SharedRows
    computes: AwsComputes
    lifecycle: Lifecycle


def _join(paths: Paths, environment: Mapping[str, str], listeners: Listeners) -> _Parts:
    """Build every part, and join policy to the outside."""
    clock = Clock()
    shared = Shared.of(clock)
    memory = Memory.recall(shared.news, Journal(paths.journal), new_owner)
    files = ConfigFiles(paths, environment)
    loaded = files.load()
    settings = Settings(shared.news, loaded.config)
    callers = Callers(clock, shared.logins.heard)
    dialing = DialSettings.from_environment(environment)
    dialer, webhook = Dialer(dialing, DENIED), Webhook(dialing, DENIED)
    keys = LocalKeys(paths, memory)
    store = SqliteStore(paths.projects)
    cloud = AwsCloud(callers)
    daemon = Daemon(
        shared,
        cloud,
        dialer,
        keys,
        settings,
        memory,
        listeners,
        bridge_secret=bridge_secrets(paths.bridge_key),
    )

    def prefix() -> str:
        return daemon.config.projects.prefix

    computes = AwsComputes(callers, prefix)
    where = loaded.config.store
    table = SharedRows(
        loaded.config.table,
        lambda: settings.for_aws().account_of(where.account),
        lambda whose: callers.caller(whose.profile, whose.region),
        daemon.owner_tag,
        lambda: shared.logins.renewals,
    )

    notices = Notices(
        shared.news,
        lambda: ways(settings.config.notify, callers.caller, webhook.post),
    )

    async def tell_user(title: str, text: str) -> bool:
        """Whether it arrived on any way."""
        return any(error is None for error in (await notices.tell(title, text)).values())

    errands = Errands(daemon.execute, lambda: daemon.config)
    lifecycle = Lifecycle(
        shared,
        {StoreEngine.SQLITE: store, StoreEngine.DYNAMODB: table},
        computes,
        errands,
        me=memory.owner,
        owner=daemon.owner_tag,
        prices=Prices(shared, AwsPrices(callers), PriceFiles(paths.prices)),
        agent=Agents(cloud, errands.box),
        bills=Bills(
            shared, AwsBills(callers), BillFiles(paths.prices), lambda: settings.config.cost.calibrate
        ),
        used=where.engine,
        is_used=lambda project: any(one.plan.target == project.instance for one in daemon.sessions()),
        usual=lambda: daemon.config.idle.policy(),
        settings=lambda: daemon.config.projects,
        notify=tell_user,
        reached=tell_user,
        schedules=AwsDeadman(callers, prefix),
        tell=lambda: daemon.config.notify.agents,
        agents=lambda project: daemon.agent_changes(errands.box(project, project.instance or "")),
        reclaim=lambda project: daemon.told(errands.box(project, project.instance or ""), reclaim.argv()),
    )
    watch = LoginWatch(shared.time, shared.news, shared.logins, callers, notice)

    def reconfigured() -> None:
        daemon.reconfigured()
        lifecycle.configured(settings.config.store.engine)

    current = _Files(files, settings, loaded, reconfigured)
    return _Parts(
        clock,
        shared,
        memory,
        current,
        callers,
        dialer,
        keys,
        daemon,
        watch,
        notices,
        store,
        table,
        computes,
        lifecycle,
    )


async def _run(
    paths: Paths,
    environment: Mapping[str, str],
    listening: DaemonSocket,
    notifier: Notifier,
    listeners: Listeners,
    starter: Starter,
    inheritance: Inheritance | None,
    ending: Ending,
) -> None:
    parts = _join(paths, environment, listeners)
    shared, daemon = parts.shared, parts.daemon
    ROOM.on_change = lambda is_short: _room_condition(shared, is_short)
    # A service manager that keeps descriptors tells nobody whether it will start us again: it closes them if not.
    shared.handing.most = MOST_CLIENTS if listening.activation != "systemd" else notifier.slots // 2
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.begun.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, ending.end)
    context = Context(
        daemon=daemon,
        socket=str(paths.socket),
        activation=listening.activation,
        started=parts.clock.wall(),
        stop=ending.end,
        hand_over=ending.hand_over,
        is_ending=ending.begun.is_set,
        config=parts.settings.load,
        merged=parts.settings.merged,
        ssh_config=parts.keys,
        login=lambda whose, code: Login(
            parts.callers.caller(whose.profile, whose.region), parts.clock, replace_file, code=code
        ).run(),
        lend=parts.callers.lend,
        logins=parts.logins,
        doctor=Doctor(daemon),
        projects=parts.lifecycle.projects,
        idle=parts.lifecycle.idle,
        jobs=parts.lifecycle.jobs,
        agents=parts.lifecycle.agents,
        reclaims=parts.lifecycle.reclaims,
        open_page=lambda: page.open(),
        tell=parts.notices.tell,
        keep_secret=keep_secret,
        money=parts.lifecycle.money,
        budgets=parts.lifecycle.budgets,
        store_used=parts.lifecycle.used,
        store_place=lambda engine: _place(parts, engine, paths),
        set_up=lambda whose, cidr, parameters, dry_run: deploy(
            StackApi(parts.callers.caller(whose.profile, whose.region), daemon.config.projects.prefix),
            shared.time,
            template(),
            cidr=cidr,
            given=parameters,
            prefix=daemon.config.projects.prefix,
            dry_run=dry_run,
        ),
        set_up_user=lambda asked: _user(parts, asked),
    )
    page = PageServer(context)
    lock = Lock(paths.projects_lock)
    try:
        lock.take()  # a reconciler may have it for a while: both can be at work, it is only that one would do
    except StateNotSaved as error:
        log.warning("%s", error.message)
    shared.tasks.spawn("memory", steadily(shared, "memory", parts.memory.run))
    try:
        # Before the first request is read: what an earlier daemon left has to be there when it is asked for.
        for resumed in await daemon.start(inheritance):
            shared.tasks.spawn(resumed.name, go_on(resumed, shared.handing))
        parts.lifecycle.start()
        async with serving(build(context), listening.socket) as let_in_no_more:
            for name, work in _watches(parts, environment, notifier).items():
                shared.tasks.spawn(name, steadily(shared, name, work))
            notifier.ready(f"serving {paths.socket}")
            starter.done()
            log.info("devboxd %s serves %s", __version__, paths.socket)
            await ending.begun.wait()
            if ending.has_heir(notifier.slots):
                await let_in_no_more()  # there is a next daemon: new clients are its own
                await daemon.settle()
                ending.pack(daemon)
            kept = ending.for_manager(notifier.slots)
            if kept is not None and not notifier.leave(*kept):
                log.error("the service manager did not take what was left for the next daemon: it is cut")
            notifier.stopping("ending sessions")
            await daemon.stop()
    finally:
        lock.leave()
        await page.close()
        await shared.tasks.stop()
        await parts.memory.finish()
        await parts.store.close()
        await parts.dialer.close()
        await parts.callers.close()


def _user(parts: _Parts, asked: Asked) -> AsyncIterator[Finding]:
    """``devboxctl init user``."""
    config = parts.daemon.settings.for_aws()
    whose = config.account_of(asked.account)

    async def write(settings: Mapping[str, Mapping[str, str]]) -> str | None:
        file = await parts.settings.add(settings)
        return str(file) if file is not None else None

    return UserSetUp(
        asked,
        parts.shared.time,
        api=lambda: UserApi(parts.callers.caller(whose.profile, whose.region), config.projects.prefix),
        offers=lambda: parts.computes.offers(whose),
        identity=lambda: parts.daemon.identity(asked.account),
        plan=lambda name, wish: parts.lifecycle.projects.plan(name, replace(wish, account=whose)),
        read_table=lambda: parts.table.read("", EVERY_ROW),
        write=write,
        config=config,
    ).run()


def _place(parts: _Parts, engine: StoreEngine, paths: Paths) -> str:
    """Where a store is, for people."""
    if engine is StoreEngine.SQLITE:
        return str(paths.projects)
    account = parts.daemon.config.account_of(parts.daemon.config.store.account)
    where = ", ".join(
        f"{name} {value}"
        for name, value in (("profile", account.profile), ("region", account.region))
        if value
    )
    return f"table {parts.table.table}" + (f" ({where})" if where else "")


def _watches(
    parts: _Parts, environment: Mapping[str, str], notifier: Notifier
) -> dict[str, Callable[[], Awaitable[None]]]:
    """What is looked out for, by name."""
    shared = parts.shared

    async def follow_logins() -> None:
        async for _ in credential_changes(environment):
            parts.daemon.boxes.forget()  # another account may have other boxes of these names
            await parts.logins.renew()

    async def follow_network() -> None:
        async for wake in wakeups(parts.clock):
            what = f"slept for {wake.slept:.0f} s" if wake.slept else "the network changed"
            shared.news.tell("wake", what, slept=wake.slept)
            parts.dialer.network_changed()  # what proxies refused is forgotten, too
            await parts.callers.refresh()  # connections that wait for the next call lead nowhere any more
            shared.bells.network.ring()
            shared.logins.changed.ring()  # a login may have ended meanwhile: look

    async def be_alive() -> None:
        interval = notifier.interval
        while interval:
            notifier.alive()
            await asyncio.sleep(interval)

    async def forget() -> None:
        while True:
            with contextlib.suppress(DevboxError):  # who needs the store is told; this can wait
                await parts.store.forget(parts.clock.wall())
            await asyncio.sleep(FORGET_EVERY)

    return {
        "configuration": parts.settings.follow,
        "old events": forget,
        "logins": follow_logins,
        "login expiry": parts.logins.run,
        "network": follow_network,
        "watchdog": be_alive,
    }


class _Files:
    """The files of the configuration: what they say now, and for ``devboxctl config show``."""

    def __init__(
        self, files: ConfigFiles, settings: Settings, loaded: Loaded, changed: Callable[[], None]
    ) -> None:
        self._files = files
        self._settings = settings
        self._changed = changed
        self._loaded = loaded
        settings.take(loaded.config, loaded.error, is_whole=loaded.is_whole)
        set_level(loaded.config.log.level)

    async def follow(self) -> None:
        """Use what they say, whenever they change."""
        async for loaded in self._files.watch():
            self._take(loaded)

    async def load(self) -> Loaded:
        """As they are at this moment: an editor was closed just now, and nobody may have seen it."""
        self._take(await asyncio.to_thread(self._files.load))
        return self._loaded

    async def add(self, settings: Mapping[str, Mapping[str, str]]) -> Path | None:
        """Write settings down, and use them at once. Raises StateNotSaved."""
        file = await asyncio.to_thread(self._files.add, settings)
        await self.load()
        return file

    def merged(self) -> Merged:
        """What holds, and where each of it comes from."""
        return self._loaded.merged

    def _take(self, loaded: Loaded) -> None:
        self._loaded = loaded
        if self._settings.take(loaded.config, loaded.error, is_whole=loaded.is_whole):
            set_level(loaded.config.log.level)
            self._changed()


def _room_condition(shared: Shared, is_short: bool) -> None:
    if is_short:
        shared.news.raise_condition("descriptors-short", limit=limit())
    else:
        shared.news.clear_condition("descriptors-short")
