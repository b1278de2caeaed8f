"""The task tree: every background task has a name and an owner, and stopping has a bound."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Supervisor:
    """Owns background tasks. A task that fails is logged with its name; it never takes others along."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False

    @property
    def is_closing(self) -> bool:
        """Say whether nothing is started any more."""
        return self._closing

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task that this supervisor keeps until it is done.

        While it stops, nothing is started any more: ``work`` is closed unrun, and the task is an empty one.
        """
        if self._closing:
            work.close()
            work = _nothing()
        # The one place that may: the set below is the strong reference that the loop does not keep.
        task = asyncio.get_running_loop().create_task(work, name=f"{self.name}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.error("task %r failed", task.get_name(), exc_info=error)

    async def stop(self, timeout: float = 5.0) -> None:
        """Cancel all tasks and wait for them, for ``timeout`` seconds at most."""
        self._closing = True
        current = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not current]
        for task in tasks:
            task.cancel()
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=timeout)
            for task in pending:
                log.error("task %r did not stop within %.0f s", task.get_name(), timeout)


async def _nothing() -> None:
    """What is started while stopping."""
