"""How much longer a command takes than EC2 itself needs for it: at most a tenth, with what EC2 takes in earnest."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from devboxd.control.lifecycle.order import LaunchWish
from devboxd.model.project import Phase, Policy
from devboxd.simulator.ec2.delays import Delays
from devboxd.simulator.ec2.model import Ec2Model
from tests.control.fakes import LoopClock
from tests.lifecycle.kit import Bench, bench, start, stop

pytestmark = pytest.mark.looptime
TICK = 0.1  # seconds
MOST = 1.1
# A machine is there in 20 to 30 s and its agent half a minute later; an incremental snapshot takes minutes.
EARNEST = Delays(
    pending=(20.0, 30.0), stopping=(20.0, 60.0), shutting_down=(20.0, 40.0), snapshot=(120.0, 400.0)
)


class Watch:
    """Adds up the time in which EC2 is at work on what it was asked for."""

    def __init__(self, one: Bench) -> None:
        self.one = one
        self.busy = 0.0

    def is_busy(self) -> bool:
        tables, now = self.one.model.tables, LoopClock().wall()
        for box in tables.instances.values():
            if box.state.value in ("pending", "stopping", "shutting-down"):
                return True
            if box.state.value == "running" and now - box.launched < self.one.runner.agent_after:
                return True
        return any(image.state == "pending" for image in tables.images.values())

    async def run(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self.one.model.settle(LoopClock().wall())
            self.busy += TICK * self.is_busy()


@contextlib.asynccontextmanager
async def measured(one: Bench, what: str) -> AsyncIterator[None]:
    """The command inside is done within the bound."""
    watch, began = Watch(one), LoopClock().wall()
    one.shared.tasks.spawn("watch", watch.run())
    yield
    took, own = LoopClock().wall() - began, watch.busy
    print(f"{what}: {took:.1f} s, EC2's own {own:.1f} s, ratio {took / own:.3f}")
    assert own > 20, "nothing was measured"
    assert took / own <= MOST, f"{what} took {took:.1f} s, of which EC2 {own:.1f} s"


async def ready(one: Bench) -> None:
    """A session to the box has answered; asked for as the command does."""
    await one.until("api", Phase.RUNNING)
    while not await one.ready("api"):
        await asyncio.sleep(1.0)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_command_takes_hardly_longer_than_ec2(seed: int) -> None:
    """Cold and warm up, and down to READY."""
    model = Ec2Model(now=LoopClock().wall(), seed=seed, delays=EARNEST, is_throttled=False)
    one = await start(bench(model=model))
    one.runner.agent_after = 45.0
    try:
        async with measured(one, "launch"):
            await one.projects.launch("api", LaunchWish(profile="box", types=("t4g.small",), policy=Policy()))
            await ready(one)
        one.work((await one.projects.get("api")).project)
        async with measured(one, "stop"):
            await one.projects.stop("api")
            await one.until("api", Phase.WARM)
        async with measured(one, "up, warm"):
            await one.projects.up("api")
            await ready(one)
        async with measured(one, "terminate"):
            await one.projects.terminate("api")
            await one.until("api", Phase.READY)
        async with measured(one, "up, cold"):
            await one.projects.up("api")
            await ready(one)
    finally:
        await stop(one)
