"""A box that runs is waited for until a session to it answers: that is what ready means."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from devboxd.control.base.needs import AgentOf, BoxCommands
from devboxd.control.base.shared import Shared
from devboxd.errors import DevboxError, LoginNeeded
from devboxd.model.boot import Boot, Stage, after, given_up
from devboxd.model.ledger import Ledger
from devboxd.model.project import Phase, Project
from devboxd.model.states import Connection

ANSWER_EVERY: Final = 3.0  # seconds between two tries of a session while a box boots
LOGIN_EVERY: Final = 60.0  # seconds after which a login that was missing is tried again, announced or not


async def unknown(project: Project, instance: str) -> Connection:
    """``needs.AgentOf`` where nobody can ask."""
    return Connection.UNKNOWN


@dataclass(frozen=True, slots=True)
class Boots:
    """``load`` reads a project by name."""

    shared: Shared
    load: Callable[[str], Awaitable[Ledger]]
    boxes: BoxCommands
    agent: AgentOf

    async def follow(self, name: str) -> AsyncIterator[Boot]:
        """How far the box of a project is, now and at each change; the last one is READY, or DOWN: it does not run.

        Whoever leaves early leaves the box as it is. Raises what the project can not be read for, and what makes it
        useless to wait longer: a refusal of AWS that stays, or that nothing has answered for ten minutes.
        """
        time, boot, project = self.shared.time, Boot(), None
        agent: Connection | None
        error: DevboxError | None
        yield boot
        looked = time.monotonic()
        while True:
            try:
                project = (await self.load(name)).project
            except DevboxError as problem:
                if project is None or not problem.retryable:
                    raise
                agent, error = None, problem  # the store does not answer now
            else:
                if project.phase is not Phase.RUNNING or project.instance is None:
                    yield replace(boot, stage=Stage.DOWN)
                    return
                agent, error = await self._try(project, project.instance)
            if error is None:
                yield Boot(Stage.READY, "a session answered")
                return
            took, looked = time.monotonic() - looked, time.monotonic()
            last, boot = boot, after(boot, name, took, agent, error)
            if (end := given_up(boot, name, agent, error)) is not None:
                raise end
            if (boot.stage, boot.text, boot.hint) != (last.stage, last.text, last.hint):
                yield boot
            if isinstance(error, LoginNeeded):
                await self.shared.logins.wait(project.account, error, LOGIN_EVERY)
            else:
                await self.shared.bells.network.wait(ANSWER_EVERY)

    async def _try(self, project: Project, instance: str) -> tuple[Connection | None, DevboxError | None]:
        """What AWS says of the agent (None: nothing), and what a session was refused for."""
        try:
            agent = await self.agent(project, instance)
        except DevboxError as error:
            if error.retryable:
                return None, error
            agent = Connection.UNKNOWN  # a session may open all the same
        try:
            await self.boxes.reach(project, instance)
        except DevboxError as error:
            return agent, error
        return agent, None
