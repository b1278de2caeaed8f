"""The simulator as a fixture: a loopback AWS with boxes, for any test that needs a far end.

Use it by importing the fixture (or naming this module in ``pytest_plugins``)::

    from tests.kit.sim import simulator  # noqa: F401

    async def test_something(simulator):
        sim = await simulator()                          # boxes api, web, data; nothing waits
        sim = await simulator(boxes=["one"], stopped=["one"])
        sim = await simulator(pacing=0.001)              # any field of devboxd.simulator.options.Options
        sim.url                                          # endpoint of every API and of the websocket
        sim.environment()                                # AWS_* variables that point there
        box = sim.box("api")                             # .id (the Target), .disk (a real directory)
        await sim.fault("rst", session="last")           # see devboxd.simulator.chaos.Chaos for all names

At the end of the test the simulator is closed and must not have had a bug of its own, left a child
process behind, or leaked a descriptor.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest_asyncio

from devboxd.simulator.agent import process
from devboxd.simulator.options import FAST
from devboxd.simulator.world import Simulator


class MakeSimulator(Protocol):
    """Starts a simulator that ends with the test."""

    def __call__(
        self,
        *,
        boxes: Iterable[str] = ("api", "web", "data"),
        stopped: Iterable[str] = (),
        seed: int = 0,
        services: bool = True,
        **options: Any,
    ) -> Awaitable[Simulator]: ...


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[MakeSimulator]:
    """A factory of simulators; see the top of this module."""
    started: list[Simulator] = []
    # Not tmp_path: unix sockets of multiplexers live below, and their paths must stay short.
    folder = Path(tempfile.mkdtemp(prefix="dbx-", dir="/tmp"))
    stack = AsyncExitStack()

    async def make(
        *,
        boxes: Iterable[str] = ("api", "web", "data"),
        stopped: Iterable[str] = (),
        seed: int = 0,
        services: bool = True,
        **options: Any,
    ) -> Simulator:
        one = Simulator(
            folder / str(len(started)),
            boxes=boxes,
            stopped=stopped,
            options=replace(FAST, **options),
            seed=seed,
            services=services,
        )
        started.append(one)
        return await stack.enter_async_context(one)

    try:
        yield make
        await stack.aclose()
        for one in started:
            assert not one.failures, f"the simulator had a bug: {one.failures}"
    finally:
        await stack.aclose()
        shutil.rmtree(folder, ignore_errors=True)
    if any(one.gateway.sessions for one in started):
        assert not process.leftovers(f"{os.getpid()}."), "a simulated box left processes behind"
