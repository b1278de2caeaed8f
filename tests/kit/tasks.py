"""Run something beside a test."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_running: set[asyncio.Task[Any]] = set()


def beside(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task; the test waits for it or cancels it. Kept here, as the loop alone would let it vanish."""
    task = asyncio.get_running_loop().create_task(work)
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task
