"""Git work that is on a project's box only: looked for while the box is still there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from devboxd.control.lifecycle.boxwork import REPOSITORIES, BoxWork
from devboxd.errors import DevboxError
from devboxd.model.ledger import Ledger
from devboxd.model.project import Phase, Project
from devboxd.model.unsaved import Unsaved


class Report(msgspec.Struct, frozen=True):
    """What was found; empty where nothing runs. ``problem``: why it is not known."""

    work: tuple[Unsaved, ...] = ()
    problem: str = ""


class UnsavedWork:
    """Looks for it. ``get`` reads a project; errors are those of ``Projects``."""

    def __init__(self, get: Callable[[str], Awaitable[Ledger]], boxes: BoxWork) -> None:
        self._get = get
        self._boxes = boxes

    async def listed(self, name: str) -> list[Unsaved]:
        """All of it. Empty where nothing runs; raises where it can not be asked."""
        return await self._of((await self._get(name)).project)

    async def report(self, name: str) -> Report:
        """The same for whoever takes the box down: that it can not be asked is no obstacle, and is said.

        Raises:
            ProjectNotFound: there is none of this name.
        """
        project = (await self._get(name)).project
        try:
            return Report(tuple((await self._of(project))[:REPOSITORIES]))
        except DevboxError as error:
            return Report(problem=error.message)

    async def _of(self, project: Project) -> list[Unsaved]:
        if project.phase is not Phase.RUNNING or project.instance is None:
            return []
        return await self._boxes.unsaved(project, project.instance)
