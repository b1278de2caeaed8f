"""A daemon's control layer against the simulator: everything real but the API on top."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from devboxd.aws.clients import Callers
from devboxd.aws.cloud import AwsCloud
from devboxd.control.base.memory import Memory
from devboxd.control.base.settings import Settings
from devboxd.control.base.shared import Shared
from devboxd.control.connect.handing import Inheritance
from devboxd.control.connect.pool import IDLE_AFTER
from devboxd.control.daemon import Daemon
from devboxd.model.config import Config
from devboxd.model.memory import State
from devboxd.net.dial import DialSettings
from devboxd.net.link import Dialer
from devboxd.net.listen import Listeners
from devboxd.simulator.world import Simulator
from tests.control.kit import NoKeys, Nowhere
from tests.kit.sim import MakeSimulator, simulator

__all__ = ["simulator"]

MakeDaemon = Callable[..., Awaitable[Daemon]]


class RealTime:
    """The system's clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()  # noqa: TID251 - a clock has to read the clock


@pytest_asyncio.fixture
async def sim(simulator: MakeSimulator) -> Simulator:
    """A fast simulator with three boxes."""
    return await simulator()


def reconfigure(daemon: Daemon, config: Config) -> None:
    """A file has changed."""
    daemon.settings.take(config, None)
    daemon.reconfigured()


@pytest_asyncio.fixture
async def make_daemon(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MakeDaemon]:
    """Daemons that talk to a simulator, stopped at the end of the test."""
    stack = AsyncExitStack()

    async def make(
        sim: Simulator,
        *,
        state: State | None = None,
        owner: str = "test",
        bridge_secret: Any = None,
        idle_after: float = IDLE_AFTER,
        listeners: Listeners | None = None,
        inherited: Inheritance | None = None,
        **config: Any,
    ) -> Daemon:
        for name, value in sim.environment().items():
            monkeypatch.setenv(name, value)
        clock = RealTime()
        callers = Callers(clock)
        dialer = Dialer(DialSettings())
        stack.push_async_callback(callers.close)
        stack.push_async_callback(dialer.close)
        shared = Shared.of(clock, dice=lambda: 0.0)
        state = state or State()
        state.owner = owner
        daemon = Daemon(
            shared,
            AwsCloud(callers),
            dialer,
            NoKeys(),
            Settings(shared.news, Config(**config)),
            Memory(shared.news, Nowhere(), state),
            listeners or Listeners(),
            idle_after=idle_after,
            bridge_secret=bridge_secret,
        )
        await daemon.start(inherited)
        stack.push_async_callback(daemon.stop)
        return daemon

    async with stack:
        yield make


@pytest_asyncio.fixture
async def daemon(sim: Simulator, make_daemon: MakeDaemon) -> Daemon:
    """One daemon on the simulator."""
    return await make_daemon(sim)
