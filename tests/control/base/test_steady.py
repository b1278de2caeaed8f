"""Long-lived tasks survive what nobody foresaw."""

from __future__ import annotations

import asyncio

import pytest

from devboxd.control.base.shared import Shared
from devboxd.control.base.steady import CALM, steadily
from tests.control.fakes import LoopClock
from tests.kit.tasks import beside


@pytest.mark.looptime
async def test_a_task_that_fails_is_started_again_and_that_is_told_until_it_is_calm() -> None:
    shared, runs = Shared.of(LoopClock(), dice=lambda: 0.5), []

    async def work() -> None:
        runs.append(asyncio.get_running_loop().time())
        if len(runs) < 4:
            raise ValueError("nobody foresaw this")
        await asyncio.Event().wait()

    task = beside(steadily(shared, "logins", work))
    await asyncio.sleep(60)
    assert len(runs) == 4
    assert runs[3] - runs[2] >= runs[1] - runs[0] > 0, "not at once, and later each time"
    (condition,) = shared.news.conditions()
    assert (condition.code, condition.subject) == ("task-failed", "logins")
    assert "nobody foresaw this" in condition.text
    await asyncio.sleep(CALM)
    assert shared.news.conditions() == []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.looptime
async def test_a_task_that_is_done_stays_so() -> None:
    runs = []

    async def work() -> None:
        runs.append(1)

    await steadily(Shared.of(LoopClock()), "watchdog", work)
    await asyncio.sleep(1000)
    assert runs == [1]
