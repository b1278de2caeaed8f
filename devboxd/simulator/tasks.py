"""Owned background tasks: every one is held, named and ended; a crash is kept and shown."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Tasks:
    """A bag of tasks with one owner. ``failures`` holds what any of them raised by mistake."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self.failures: list[BaseException] = []

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run something until it ends or ``close`` is called."""
        # The loop keeps weak references only: this set is what keeps the task alive.
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)
            log.error("simulator task %s failed", task.get_name(), exc_info=error)

    async def close(self) -> None:
        """Cancel all and wait until they are gone."""
        while self._running:
            running = list(self._running)
            for task in running:
                task.cancel()
            await asyncio.wait(running)
