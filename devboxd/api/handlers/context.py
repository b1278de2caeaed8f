"""What handlers share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from socket import socket as Link
from typing import Protocol

import msgspec

from devboxd.api import wire
from devboxd.aws.lent import Lent
from devboxd.aws.login import LoginStep
from devboxd.control import doctor
from devboxd.control.daemon import Daemon
from devboxd.control.lifecycle.account import Progress
from devboxd.control.lifecycle.agents import Agents
from devboxd.control.lifecycle.budgets import Keeper
from devboxd.control.lifecycle.idleverbs import IdleVerbs
from devboxd.control.lifecycle.jobs import Jobs
from devboxd.control.lifecycle.money import Money
from devboxd.control.lifecycle.projects import Projects
from devboxd.control.lifecycle.reclaims import Reclaims
from devboxd.control.lifecycle.user import Asked, Finding
from devboxd.errors import DevboxError
from devboxd.host.config import Loaded
from devboxd.host.ssh_config import SshConfigState, SshFiles
from devboxd.model.box import Account, BoxRef
from devboxd.model.config import Merged
from devboxd.model.folder import in_folder
from devboxd.model.login import Login
from devboxd.model.notice import Way
from devboxd.model.project import Phase, Project
from devboxd.model.states import StoreEngine
from devboxd.model.wish import ProjectDown


class SshConfig(Protocol):
    """The generated ssh configuration on this machine."""

    @property
    def files(self) -> SshFiles: ...
    async def look(self, command: str | None) -> SshConfigState: ...
    async def write(self, command: str | None) -> SshConfigState: ...
    async def remove(self) -> SshConfigState: ...
    def paths(self) -> tuple[str, str, str]:
        """Identity file, known hosts file, configuration file."""


class Logins(Protocol):
    """Logins, and those who wait for one."""

    def known(self) -> list[Login]:
        """Every login that is in use, judged."""

    async def renew(self) -> None:
        """There is a new one: read everything anew, and let all try."""

    def rearm(self) -> None:
        """There may be: let all try."""


class Doctor(Protocol):
    """Finds out what is wrong."""

    async def machine(self, account: Account) -> list[doctor.Finding]: ...
    async def box(self, box: BoxRef) -> list[doctor.Finding]: ...


class Context(msgspec.Struct):
    """The daemon, and what only ``main`` knows of it."""

    daemon: Daemon
    socket: str
    activation: str
    started: float  # Unix seconds
    stop: Callable[[], None]
    config: Callable[[], Awaitable[Loaded]]  # as the files are at this moment
    merged: Callable[[], Merged]
    ssh_config: SshConfig
    login: Callable[[Account, str | None], AsyncIterator[LoginStep]]  # the other: a code of its MFA device
    lend: Callable[[str | None, Lent | None], Awaitable[Lent | None]]  # to a profile; returns the former ones
    logins: Logins
    doctor: Doctor
    projects: Projects
    idle: IdleVerbs
    jobs: Jobs
    agents: Agents
    reclaims: Reclaims
    open_page: Callable[[], Awaitable[str]]  # a link that works once
    tell: Callable[
        [str, str], Awaitable[Mapping[Way, DevboxError | None]]
    ]  # title, text; what came of each way
    keep_secret: Callable[[Way, str | None], Awaitable[None]]
    money: Money
    budgets: Keeper
    store_used: StoreEngine
    store_place: Callable[[StoreEngine], str]  # where that is, for people
    # Network, parameters of the template, dry run.
    set_up: Callable[[Account, str | None, Mapping[str, str], bool], AsyncIterator[Progress]]
    set_up_user: Callable[[Asked], AsyncIterator[Finding]]
    # End, and leave clients to the daemon at the other end of a connection, or to the one that systemd starts.
    hand_over: Callable[[Link | None], None] = lambda _: None
    is_ending: Callable[[], bool] = lambda: False


async def _resolved(context: Context, name: str, of: Account) -> BoxRef:
    """The box that is meant: that of a project where one has this name, in the project's own account.

    Raises:
        ProjectDown: the project has no box that runs; nothing was asked of AWS.
        BoxNotFound, BoxAmbiguous and the rest of ``Boxes.resolve``.
    """
    daemon = context.daemon
    project = context.projects.named(name)
    said = daemon.config.boxes.get(name)
    is_elsewhere = said is not None and (said.target or said.profile or said.region)  # not only a user for it
    if project is None or is_elsewhere or not may_be(of, project.account):
        return await daemon.boxes.resolve(name, of)
    if project.phase is not Phase.RUNNING or project.instance is None:
        raise ProjectDown(project)
    daemon.memory.used(project.account)
    return box_of(context, project, project.instance)


def box_of(context: Context, project: Project, instance: str) -> BoxRef:
    """The instance of a project, running or not, by the project's name and in its own account."""
    return context.daemon.settings.for_aws().box_ref(project.name, instance, project.account)


def may_be(asked: Account, own: Account) -> bool:
    """Whether an account and region that were asked for, as far as they were, are those of a project."""
    return asked.profile in (None, own.profile) and asked.region in (None, own.region)


def account(target: wire.Account) -> Account:
    """The account that a request names."""
    return Account(target.profile or None, target.region or None)


async def resolved(context: Context, asked: wire.Target, name: str | None = None) -> BoxRef:
    """The box that a request names, as it is seen from where its client stands.

    Raises:
        ConfigInvalid: the devbox.toml there has something in it that can not be.
        ProjectDown: it is the name of a project that has no box which runs.
        DevboxError: as ``Boxes.resolve``.
    """
    box = await _resolved(context, asked.box if name is None else name, account(asked))
    if asked.folder is None:
        return box
    here = in_folder(context.merged(), asked.folder.path, asked.folder.text)
    return here.merged.config.box_ref(box.name, box.target, box.account)
