"""Sleep and network changes, as one stream."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from devboxd.host.clock import Clock
from devboxd.host.wake import Fingerprint, Wakeup, network_fingerprint, wakeups


class Machine:
    """Two clocks and a network that a test moves."""

    def __init__(self) -> None:
        self.asleep = 0.0
        self.network: Fingerprint = ("10.0.0.1",)
        self.looks = 0
        self.kernel, self.inbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.inbox.setblocking(False)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def boottime(self) -> float:
        return self.monotonic() + self.asleep

    def look(self) -> Fingerprint:
        self.looks += 1
        return self.network

    def stir(self) -> None:
        self.kernel.send(b"something about a link")


@pytest.fixture
async def machine() -> AsyncIterator[Machine]:
    machine = Machine()
    yield machine
    machine.kernel.close()
    machine.inbox.close()


@contextlib.asynccontextmanager
async def watching(machine: Machine, interval: float) -> AsyncIterator[AsyncGenerator[Wakeup, None]]:
    async with contextlib.aclosing(
        wakeups(machine, interval=interval, settle=0.005, look=machine.look, messages=machine.inbox)
    ) as events:
        yield events


async def test_a_night_in_a_rucksack_is_noticed(machine: Machine) -> None:
    async with watching(machine, 0.01) as events:
        asyncio.get_running_loop().call_later(0.02, setattr, machine, "asleep", 36000.0)
        assert await anext(events) == Wakeup(slept=pytest.approx(36000.0), network=False)  # type: ignore[arg-type]


async def test_a_little_drift_is_no_sleep(machine: Machine) -> None:
    async with watching(machine, 0.005) as events:
        asyncio.get_running_loop().call_later(0.01, setattr, machine, "asleep", 1.5)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.04)


async def test_a_network_change_is_told_at_once_and_once(machine: Machine) -> None:
    """Not at the next look: five seconds are long for somebody who has just opened the lid."""
    async with watching(machine, 60.0) as events:

        def roam() -> None:
            machine.network = ("10.9.9.9",)
            for _ in range(50):
                machine.stir()

        asyncio.get_running_loop().call_later(0.01, roam)
        async with asyncio.timeout(5):
            assert await anext(events) == Wakeup(slept=0.0, network=True)
        looks = machine.looks
        assert looks <= 3, "a burst of messages is one look"


async def test_messages_without_a_change_are_not_told(machine: Machine) -> None:
    async with watching(machine, 60.0) as events:
        asyncio.get_running_loop().call_later(0.005, machine.stir)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.05)
        assert machine.looks == 2


async def test_without_messages_the_interval_has_to_do(machine: Machine) -> None:
    async with watching(machine, 0.01) as events:
        asyncio.get_running_loop().call_later(0.015, setattr, machine, "network", (None,))
        async with asyncio.timeout(5):
            assert await anext(events) == Wakeup(slept=0.0, network=True)


async def test_sleep_and_the_network_that_comes_back_with_it_are_one_event(machine: Machine) -> None:
    async with watching(machine, 60.0) as events:

        def wake() -> None:
            machine.asleep, machine.network = 100.0, ("10.9.9.9",)
            machine.stir()

        asyncio.get_running_loop().call_later(0.005, wake)
        async with asyncio.timeout(5):
            event = await anext(events)
        assert event.network
        assert event.slept == pytest.approx(100.0)


async def test_an_idle_machine_is_looked_at_rarely(machine: Machine) -> None:
    async with watching(machine, 0.02) as events:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.05)
    assert machine.looks <= 4


async def test_the_real_views_work_here() -> None:
    assert network_fingerprint() == network_fingerprint()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(wakeups(Clock())), 0.02)


CHANGE = """
import asyncio, socket, subprocess
from devboxd.host.clock import Clock
from devboxd.host.wake import wakeups

async def main():
    async for event in wakeups(Clock(), interval=60, settle=0.1):
        print(event)
        return

async def change():
    await asyncio.sleep(0.2)
    subprocess.run("ip link set lo up && ip addr add 192.0.2.7/24 dev lo", shell=True, check=True)

async def both():
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(main())
        tasks.create_task(change())

asyncio.run(both())
"""


@pytest.mark.skipif(
    not (shutil.which("unshare") and shutil.which("ip"))
    or subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode != 0,
    reason="no network namespace can be made here",
)
def test_the_kernel_tells_of_an_address_in_a_network_of_its_own() -> None:
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, "-c", CHANGE], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "Wakeup(slept=0.0, network=True)"
