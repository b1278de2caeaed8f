"""The clients that are served now: counted, because a restart asks before it cuts them, and run among our own tasks."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import TypeVar

from devboxd.control.base.shared import Shared
from devboxd.control.connect.bridged_terminal import goes_over_a_bridge
from devboxd.control.connect.sshagent import SshAgents
from devboxd.errors import DevboxError, Unreachable
from devboxd.model.attach import AttachSpec

T = TypeVar("T")


class Clients:
    """How many there are of each kind."""

    def __init__(self, shared: Shared, agents: SshAgents) -> None:
        self.attached = 0
        self.piped = 0
        self.commands = 0
        self.shells = 0  # without a multiplexer
        self._shared = shared
        self._agents = agents

    async def held(self, name: str, work: Coroutine[None, None, T]) -> T:
        """Run a client's stream among our own tasks: their end ends it, and its session at AWS's side."""

        async def outcome() -> T | DevboxError:
            try:
                return await work
            except DevboxError as error:  # for the client: no failure of the task
                return error

        if self._shared.tasks.is_closing:
            work.close()
            raise Unreachable("devboxd is stopping")
        done: T | DevboxError = await self._shared.tasks.spawn(name, outcome())
        if isinstance(done, DevboxError):
            raise done
        return done

    @contextlib.contextmanager
    def command(self) -> Iterator[None]:
        """Count a command."""
        self.commands += 1
        try:
            yield
        finally:
            self.commands -= 1

    @contextlib.asynccontextmanager
    async def joined(self, spec: AttachSpec) -> AsyncIterator[None]:
        """Count a terminal, say that it is there, and lend its agent."""
        self.attached += 1
        command, shell = spec.command is not None, spec.command is None and goes_over_a_bridge(spec)
        self.commands += command
        self.shells += shell
        self._shared.news.tell("attach.joined", f"a terminal joined {spec.session}", box=spec.box.name)
        try:
            async with contextlib.AsyncExitStack() as lent:
                if spec.agent is not None:
                    user = spec.user or spec.box.user
                    await lent.enter_async_context(self._agents.lending(spec.box, user, spec.agent))
                yield
        finally:
            self.attached -= 1
            self.commands -= command
            self.shells -= shell
            self._shared.news.tell("attach.left", f"a terminal left {spec.session}", box=spec.box.name)
