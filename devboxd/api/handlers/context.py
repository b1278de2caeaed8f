"""What handlers share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import msgspec

from devboxd.api import wire
from devboxd.control.daemon import Daemon
from devboxd.host.ssh_config import SshConfigState, SshFiles
from devboxd.model.box import Account, BoxRef


class SshConfig(Protocol):
    """The generated ssh configuration on this machine."""

    @property
    def files(self) -> SshFiles: ...
    async def look(self, command: str | None) -> SshConfigState: ...
    async def write(self, command: str | None) -> SshConfigState: ...
    async def remove(self) -> SshConfigState: ...
    def paths(self) -> tuple[str, str, str]:
        """Identity file, known hosts file, configuration file."""


class Context(msgspec.Struct):
    """The daemon, and what only ``main`` knows of it."""

    daemon: Daemon
    socket: str
    activation: str
    started: float  # Unix seconds
    stop: Callable[[], None]
    config: Callable[[], Awaitable[wire.ConfigView]]
    ssh_config: SshConfig
    login: Callable[[wire.LoginRequest], AsyncIterator[wire.LoginStep]]
    doctor: Callable[[wire.Target, BoxRef | None], Awaitable[wire.Doctor]]


def account(target: wire.Account) -> Account:
    """The account that a request names."""
    return Account(target.profile or None, target.region or None)
