"""Keep a long-lived task going when it fails: the daemon would else stay deaf until its next start."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from devboxd.control.base.shared import Shared
from devboxd.model.retry import Backoff

log = logging.getLogger(__name__)

CALM: Final = 300.0  # seconds without a failure after which one is forgotten


async def steadily(shared: Shared, name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run ``work`` until it returns; after an unexpected error say so and run it again, later each time."""
    delays = Backoff(shared.time.dice, first=1.0, calm=CALM)
    while True:
        began = shared.time.monotonic()
        calming = asyncio.get_running_loop().call_later(
            CALM, shared.news.clear_condition, "task-failed", name
        )
        try:
            await work()
            return
        except Exception as error:  # a bug, or a system in a state that nobody foresaw: the rest goes on
            log.exception("%s failed and is started again", name)
            shared.news.raise_condition(
                "task-failed", name, name=name, problem=f"{type(error).__name__}: {error}"
            )
        finally:
            calming.cancel()
        await asyncio.sleep(delays.wait_after(shared.time.monotonic() - began))
