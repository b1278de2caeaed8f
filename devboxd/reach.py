"""What ``devboxd reconcile`` has beside AWS: the store of this machine, and sessions for what is done on a box."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from devboxd.aws.clients import Callers
from devboxd.aws.cloud import AwsCloud
from devboxd.control.base.needs import BoxCommands, Store
from devboxd.control.base.shared import Shared
from devboxd.control.base.steady import steadily
from devboxd.control.connect.execute import ExecSpec, Execution
from devboxd.control.connect.sessions import Sessions
from devboxd.control.connect.terminal import Terminal
from devboxd.control.errand import Errands
from devboxd.control.lifecycle.boxwork import BoxWork
from devboxd.errors import WrongState
from devboxd.host.config import ConfigFiles
from devboxd.host.lock import Lock
from devboxd.host.paths import Paths, private_folder
from devboxd.host.store import SqliteStore
from devboxd.model.box import Account
from devboxd.model.config import Config
from devboxd.model.terminal import Leaving
from devboxd.net.dial import DialSettings
from devboxd.net.link import Dialer


class Forgetful:
    """``needs.Ledger`` for a process that ends its sessions itself, or dies and lets them run out."""

    def session_opened(self, id_: str, account: Account) -> None:
        """See ``needs.Ledger``."""

    def session_over(self, id_: str) -> None:
        """See ``needs.Ledger``."""


def settings(environment: Mapping[str, str]) -> Config:
    """The configuration. Raises ConfigInvalid: with half of it, it could be another account."""
    loaded = ConfigFiles(Paths.from_environment(environment), environment).load()
    if loaded.error is not None:
        raise loaded.error
    return loaded.config


@asynccontextmanager
async def sessions(
    shared: Shared, callers: Callers, config: Config, environment: Mapping[str, str], me: str
) -> AsyncIterator[BoxCommands]:
    """Scripts on boxes, each in a session of its own; the configuration says as which user."""
    dialer = Dialer(DialSettings.from_environment(environment))
    held = Sessions(shared, AwsCloud(callers).sessions, dialer, Forgetful(), owner=me)
    shared.tasks.spawn("heart", steadily(shared, "heart", held.beat))

    async def execute(spec: ExecSpec, terminal: Terminal) -> Leaving:
        return await Execution(held, spec, terminal, config=config).run()

    try:
        yield BoxWork(Errands(execute, lambda: config))
    finally:
        await dialer.close()


@asynccontextmanager
async def own_store(environment: Mapping[str, str]) -> AsyncIterator[Store]:
    """The file of this machine, where no daemon of it is at work.

    Raises:
        WrongState: one is, and does all this.
    """
    paths = Paths.from_environment(environment)
    private_folder(paths.state)
    lock = Lock(paths.projects_lock)
    if not lock.take():
        raise WrongState(
            "another devboxd looks after the projects of this machine",
            hint="there is nothing to do for this one",
        )
    store = SqliteStore(paths.projects)
    try:
        yield store
    finally:
        await store.close()
        lock.leave()
