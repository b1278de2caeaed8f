"""What a project needs done on its box: the user's hooks before a stop, a report of unsaved work, a larger disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from devboxd.boxside import rebase
from devboxd.boxside.script import load
from devboxd.control.base.needs import RunOnBox
from devboxd.errors import NotConnected
from devboxd.model.answer import BoxSaysNo
from devboxd.model.project import Project
from devboxd.model.rebase import Progress
from devboxd.model.step import MoveIn
from devboxd.model.unsaved import Unsaved, reported
from devboxd.text import one_line

HOOK_LIMIT: Final = 60.0  # seconds that each hook may take
HOOKS_LIMIT: Final = 300.0  # all of them, and the sync
REPORT_LIMIT: Final = 30.0  # seconds; what is not found by then is not reported
GROW_LIMIT: Final = 120.0
ANSWER_LIMIT: Final = 20.0
MOVE_LIMIT: Final = (
    60.0  # seconds to begin to copy homes, or to say how far that is; the copying has no limit
)
REPOSITORIES: Final = 100  # git repositories that are looked at


@dataclass(frozen=True, slots=True)
class BoxWork:
    """``control.base.needs.BoxCommands`` over something that runs a script on a box."""

    run: RunOnBox

    async def before_stop(self, project: Project, instance: str, *, live: bool = False) -> None:
        """See ``control.base.needs.BoxCommands``."""
        script = load("before_stop.sh", common=False)
        hooks = "pre-snapshot.d" if live else "pre-stop.d"
        await self._succeed(project, instance, script, f"{HOOK_LIMIT:.0f}", hooks, limit=HOOKS_LIMIT)

    async def grow(self, project: Project, instance: str, device: str) -> None:
        """See ``control.base.needs.BoxCommands``. The root device is the only one that grows."""
        await self._succeed(project, instance, load("grow.sh", common=False), limit=GROW_LIMIT)

    async def move_in(self, project: Project, call: MoveIn) -> Progress:
        """See ``control.base.needs.BoxCommands``."""
        asked = {"verb": "copy", "volume": call.volume, "device": call.device, "token": call.token}
        return await self._rebase(project, call.instance, asked)

    async def let_go(self, project: Project, instance: str) -> None:
        """See ``control.base.needs.BoxCommands``."""
        await self._rebase(project, instance, {"verb": "end"})

    async def _rebase(self, project: Project, instance: str, asked: dict[str, str]) -> Progress:
        text = msgspec.json.encode(asked).decode()
        script = load("rebase.sh", common=False)
        ran = await self.run(project, instance, script, rebase.program(), text, timeout=MOVE_LIMIT)
        return rebase.read(ran.output)

    async def reach(self, project: Project, instance: str) -> None:
        """See ``control.base.needs.BoxCommands``."""
        ran = await self.run(project, instance, "echo ready", timeout=ANSWER_LIMIT)
        if ran.status != 0 or "ready" not in ran.output:
            raise NotConnected(f"{instance} does not answer")

    async def unsaved(self, project: Project, instance: str) -> list[Unsaved]:
        """Git work that is on the box only. Raises what running a command raises."""
        script = load("unsaved.sh", common=False)
        ran = await self.run(project, instance, script, str(REPOSITORIES), timeout=REPORT_LIMIT)
        return reported(ran.output)

    async def _succeed(
        self, project: Project, instance: str, script: str, *arguments: str, limit: float
    ) -> None:
        ran = await self.run(project, instance, script, *arguments, timeout=limit)
        if ran.status != 0:
            raise BoxSaysNo(one_line(ran.output) or f"it exited with {ran.status}")


class NoBox:
    """``control.base.needs.BoxCommands`` where no session can be opened: nothing is done on a box from there."""

    async def before_stop(self, project: Project, instance: str, *, live: bool = False) -> None:
        """See ``control.base.needs.BoxCommands``."""
        raise _no_session(instance)

    async def reach(self, project: Project, instance: str) -> None:
        """See ``control.base.needs.BoxCommands``."""
        raise _no_session(instance)

    async def grow(self, project: Project, instance: str, device: str) -> None:
        """See ``control.base.needs.BoxCommands``."""
        raise _no_session(instance)

    async def move_in(self, project: Project, call: MoveIn) -> Progress:
        """See ``control.base.needs.BoxCommands``."""
        raise _no_session(call.instance)

    async def let_go(self, project: Project, instance: str) -> None:
        """See ``control.base.needs.BoxCommands``."""
        raise _no_session(instance)


def _no_session(instance: str) -> NotConnected:
    return NotConnected(f"no session to {instance} is opened from here")
