"""Pools: one for each target, and ports that are open ahead of use."""

from __future__ import annotations

from devboxd.control.connect.port import PortTarget
from devboxd.model.box import Account
from devboxd.model.config import BoxSettings, Config, ForwardSettings
from devboxd.simulator.world import Simulator
from tests.control.conftest import MakeDaemon, reconfigure
from tests.control.test_daemon import until

WARM = {"api": BoxSettings(warm=(7,)), "nobody": BoxSettings(warm=(8,))}


async def test_ports_that_the_configuration_names_are_open_ahead_of_use(
    sim: Simulator, make_daemon: MakeDaemon
) -> None:
    """A connection to them waits for no session; a name that nothing has is told, and costs no other."""
    daemon = await make_daemon(sim, boxes=WARM)
    await until(lambda: len(daemon.sessions()) == 1)
    await until(lambda: "warm.failed" in [event.kind for event in daemon.shared.news.events()])
    pool = daemon.pools.of(PortTarget(await daemon.boxes.resolve("api", Account()), 7))
    assert (pool.kept, pool.warmed) == (1, 1)
    reconfigure(daemon, Config(boxes=WARM, forward=ForwardSettings(wait=1.0)))
    reconfigure(daemon, Config(boxes=WARM, forward=ForwardSettings(wait=2.0)))
    tasks = daemon.shared.tasks
    await until(lambda: not [task for task in tasks._tasks if "warm ports" in task.get_name()])
    assert (pool.kept, pool.warmed) == (1, 1), "two changes at once count it once"
    reconfigure(daemon, Config())
    await until(lambda: (pool.kept, pool.warmed) == (0, 0))
