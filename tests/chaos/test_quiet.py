"""A day on which nothing happens, on virtual time: no drift, no leak, and few wake-ups."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from typing import Any

import pytest

from devboxd.control.base.shared import Shared
from devboxd.control.connect.plan import Plan
from devboxd.model.config import LinkSettings
from devboxd.model.hold import BEAT
from devboxd.model.session import SessionState
from devboxd.model.states import KeepAlive, SessionKind
from tests.control.fakes import FakeService, LoopClock, Sink
from tests.control.fakes import directory as sessions_of

DAY = 24 * 3600.0
PORT = {"document": "AWS-StartPortForwardingSession", "parameters": {"portNumber": "22"}}


class Wakeups:
    """Counts what the loop runs: every callback is work that a sleeping laptop has to wake for."""

    def __init__(self) -> None:
        self.count = Counter[str]()
        self._loop: Any = asyncio.get_running_loop()
        self._at = self._loop.call_at

    def __enter__(self) -> Counter[str]:
        def call_at(when: float, callback: Any, *args: Any, **more: Any) -> Any:
            self.count["timers"] += 1
            return self._at(when, callback, *args, **more)

        self._loop.call_at = call_at
        return self.count

    def __exit__(self, *_: object) -> None:
        del self._loop.call_at


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("policy", "attended", "count"),
    [
        (KeepAlive.AUTO, False, 10),
        (KeepAlive.AUTO, True, 3),
        (KeepAlive.ALWAYS, False, 10),
        (KeepAlive.NEVER, True, 10),
    ],
)
async def test_a_day_of_quiet(policy: KeepAlive, attended: bool, count: int) -> None:
    """Port sessions, hourly closed by the service, otherwise left alone."""
    service, clock = FakeService(), LoopClock()
    shared = Shared.of(clock, dice=lambda: 0.5)
    sinks = [Sink() for _ in range(count)]
    plan = Plan(
        target="i-0",
        box="api",
        kind=SessionKind.PORT,
        keep_alive=policy,
        attended=attended,
        wanted=True,
        **PORT,  # type: ignore[arg-type]
    )
    directory, _ = sessions_of(shared, service)
    sessions = [directory.open(plan, sink, LinkSettings()) for sink in sinks]

    async with asyncio.TaskGroup() as tasks:
        holders = [tasks.create_task(directory.hold(session)) for session in sessions]
        heart = tasks.create_task(directory.beat())
        for session in sessions:
            await session.wait_ready()
        await asyncio.sleep(60)
        gc.collect()
        before = (len(asyncio.all_tasks()), len(gc.get_objects()))
        began, wall = clock.monotonic(), clock.wall()
        with Wakeups() as woken:
            for _ in range(24):
                await asyncio.sleep(DAY / 24)
                for fake in service.sessions.values():
                    fake.link.cut(1000)  # "Bye", as every hour
                await asyncio.sleep(0)
        await asyncio.sleep(30)
        frames = sum(link.sent for fake in service.sessions.values() for link in fake.links)
        gc.collect()
        after = (len(asyncio.all_tasks()), len(gc.get_objects()))

        assert all(session.state is SessionState.ONLINE for session in sessions)
        assert [session.tally.resumes for session in sessions] == [24] * count
        assert service.count["start"] == count
        assert clock.monotonic() - began == pytest.approx(DAY + 30)
        assert clock.wall() - wall == pytest.approx(DAY + 30)
        per_session = woken["timers"] / count / (DAY / 60)
        print(
            f"\nkeep-alive {policy}, attended {attended}: {woken['timers']} timers in 24 h for {count} sessions "
            f"({woken['timers'] / DAY:.2f} a second in all, {per_session:.2f} a minute and session), "
            f"{frames} frames, tasks {before[0]} -> {after[0]}, objects {before[1]} -> {after[1]}"
        )
        assert after[0] == before[0]
        # Links of the past are kept by the fake service, and what they hold with them.
        assert after[1] - before[1] < 24 * count * 60
        # One heart for all sessions; a probe costs an attended session a frame, an answer and its timers.
        assert woken["timers"] < DAY / BEAT * 1.2 + count * (DAY / 9 if attended else DAY / 45) * 4
        if policy is KeepAlive.NEVER or not attended:
            assert woken["timers"] / DAY < 5.0
        for session in sessions:
            await session.stop()
        await asyncio.gather(*holders)
        heart.cancel()
    assert not directory.running
    assert all(fake.terminated or not fake.alive for fake in service.sessions.values())
