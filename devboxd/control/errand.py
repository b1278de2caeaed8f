"""Run a script on a project's box over a session: what the lifecycle asks of the connecting half."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from devboxd.boxside.script import squeeze
from devboxd.control.base.needs import Cloud
from devboxd.control.connect.ask import Execute, status_of
from devboxd.control.connect.audience import Capture
from devboxd.control.connect.execute import ExecSpec
from devboxd.errors import Unreachable
from devboxd.model.box import BoxRef
from devboxd.model.config import Config
from devboxd.model.project import Project
from devboxd.model.states import Connection


@dataclass(frozen=True, slots=True)
class Ran:
    """``control.base.needs.Ran``. ``output``: standard output, and behind it standard error where it failed."""

    status: int
    output: str


@dataclass(frozen=True, slots=True)
class Agents:
    """``control.base.needs.AgentOf``. ``box``: of a project, by instance."""

    cloud: Cloud
    box: Callable[[Project, str], BoxRef]

    async def __call__(self, project: Project, instance: str) -> Connection:
        """See ``AgentOf``."""
        box = self.box(project, instance)
        return await self.cloud.sessions(box.account).connection_status(box.target) or Connection.UNKNOWN


@dataclass(frozen=True, slots=True)
class Errands:
    """``control.base.needs.RunOnBox``."""

    execute: Execute
    config: Callable[[], Config]

    def box(self, project: Project, instance: str) -> BoxRef:
        """The box of a project, in the project's own account."""
        return self.config().box_ref(project.name, instance, project.account)

    async def __call__(
        self, project: Project, instance: str, script: str, *arguments: str, timeout: float
    ) -> Ran:
        """See ``RunOnBox``."""
        terminal = Capture()
        argv = ["sh", "-c", squeeze(script), "devbox", *arguments]
        spec = ExecSpec(box=self.box(project, instance), argv=argv, stdin=False, wait=timeout)
        try:
            status = await status_of(self.execute, spec, terminal, timeout)
        except TimeoutError:
            raise Unreachable(f"nothing ran on {project.name} within {timeout:.0f} s") from None
        output = terminal.stdout.decode("utf-8", "replace")
        if status != 0:
            output += terminal.stderr.decode("utf-8", "replace")
        return Ran(status, output)
