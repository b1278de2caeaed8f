"""Reconnecting for ever must cost nothing: no descriptors, no tasks, no memory."""

from __future__ import annotations

import asyncio
import gc
import time

import pytest

from devboxd.control.daemon import Daemon
from devboxd.model import hold
from devboxd.model.attach import AttachSpec
from devboxd.model.box import Account
from devboxd.model.terminal import Input
from devboxd.simulator.world import Simulator
from tests.chaos.kit import User, open_descriptors, resident, rig
from tests.kit.tasks import beside


async def cut_and_come_back(sim: Simulator, daemon: Daemon, rounds: int) -> tuple[int, int]:
    """Cut all links and wait until a byte has been there and back on each; returns reconnects, and the most tasks."""
    made = tasks = 0
    box = await daemon.boxes.resolve(sim.box("api").id, Account())
    users, streams, holders = [], [], []
    for _ in range(3):
        user = User()
        users.append(user)
        holders.append(beside(daemon.attach(AttachSpec(box=box, raw=True), user)))
        user.say(Input(b"stty raw -echo; echo re''ady; exec cat\r"))
        await user.until(b"ready\r?\n")
    streams = [await daemon.connect(box, 7, None, 20.0) for _ in range(2)]
    for number in range(rounds):
        mark = f"<{number}>".encode()
        await sim.fault(("rst", "fin", "close")[number % 3])
        made += len(daemon.sessions())
        for user in users:
            user.text.clear()
            user.say(Input(mark))
        for stream in streams:
            await stream.write(mark)
        for user in users:
            await user.until(mark)
        for stream in streams:
            got = b""
            while len(got) < len(mark):
                got += await stream.read()
            assert got == mark
        tasks = max(tasks, len(asyncio.all_tasks()))
    for user in users:
        user.say(None)
    for stream in streams:
        stream.close()
    await asyncio.gather(*holders)
    return made, tasks


async def flat(seed: int, rounds: int, patch: pytest.MonkeyPatch) -> None:
    """Warm up, measure, reconnect many times, measure again."""
    patch.setattr(hold, "STABLE_AFTER", 0.0)  # no pause after a link that lived for a moment only
    async with rig(seed) as (sim, daemon):
        daemon.shared.time.dice = lambda: 0.0
        await cut_and_come_back(sim, daemon, 10)
        gc.collect()
        before = (open_descriptors(), len(asyncio.all_tasks()), resident())
        began = time.monotonic()
        made, most = await cut_and_come_back(sim, daemon, rounds)
        gc.collect()
        await asyncio.sleep(0.2)
        after = (open_descriptors(), len(asyncio.all_tasks()), resident())
        print(
            f"\n{made} reconnects in {time.monotonic() - began:.1f} s: descriptors {before[0]} -> {after[0]}, "
            f"tasks {before[1]} -> {after[1]} (most {most}), "
            f"resident {before[2] / 1e6:.1f} -> {after[2] / 1e6:.1f} MB (with the simulator in it)"
        )
        # The idle port session of the second half may be a new one: its socket and few tasks at both ends.
        assert after[0] <= before[0] + 6
        assert after[1] <= before[1] + 16
        assert after[2] <= before[2] + (8 << 20) + made * 400


async def test_three_hundred_reconnects_leave_nothing_behind(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The short run."""
    await flat(seed, 75, monkeypatch)


@pytest.mark.soak
async def test_ten_thousand_reconnects_leave_nothing_behind(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The long one."""
    await flat(seed, 2500, monkeypatch)
