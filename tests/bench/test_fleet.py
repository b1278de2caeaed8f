"""Many projects: calls a minute against their bound, CPU time of a look at all, and how long the loop is held up."""

from __future__ import annotations

import asyncio
import asyncio.events
import gc
import math
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.parsers import create_parser
from botocore.session import Session

from devboxd.aws.look import MOST_VALUES
from devboxd.control.lifecycle.order import LaunchWish
from devboxd.model.change import CALM
from devboxd.model.project import Phase, Policy
from devboxd.simulator.ec2 import wire
from tests.bench.kit import show
from tests.control.fakes import LoopClock
from tests.lifecycle.kit import Bench, bench, start, stop

pytestmark = pytest.mark.bench

HELD_UP = 0.05  # seconds of CPU that one callback may take
DESCRIBES = 4  # instances, volumes, snapshots, images
TICKS = 6


class Held:
    """How long each callback of the loop takes, without the simulated EC2 and the simulated store."""

    def __init__(self) -> None:
        self.elsewhere = 0.0
        self.longest = 0.0
        self.spent = 0.0

    def outside(self, call: Any) -> Any:
        """A function whose time is not ours."""

        def timed(*args: Any, **given: Any) -> Any:
            began = time.thread_time()
            try:
                return call(*args, **given)
            finally:
                self.elsewhere += time.thread_time() - began

        return timed


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """Watch every callback. The thread's own clock: what other processes take is not counted."""
    found, run = Held(), asyncio.events.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        before, began = found.elsewhere, time.thread_time()
        run(handle)
        took = time.thread_time() - began - (found.elsewhere - before)
        found.longest = max(found.longest, took)
        found.spent += took

    monkeypatch.setattr(asyncio.events.Handle, "_run", timed)
    yield found
    gc.unfreeze()


async def running(one: Bench, count: int) -> None:
    """So many projects whose boxes run."""
    for number in range(count):
        wish = LaunchWish(policy=Policy(grace=60.0), profile="box", types=("t4g.small",))
        await one.projects.launch(f"p{number:04d}", wish)
    while any(row.phase is not Phase.RUNNING for row in await one.projects.all()):
        await asyncio.sleep(5.0)
    await asyncio.sleep(2 * CALM)


@pytest.mark.looptime
@pytest.mark.parametrize("count", [1, 100, 1000])
async def test_what_a_fleet_at_rest_costs(held: Held, count: int) -> None:
    """One describe for each two hundred projects and kind, one query for all rows, nothing else."""
    one = bench()
    one.model.call = held.outside(one.model.call)  # type: ignore[method-assign]
    store: Any = one.store
    store.read_now = held.outside(store.read_now)
    await start(one)
    await running(one, count)
    gc.collect()
    gc.freeze()  # the simulated EC2 is a large heap, and no daemon has it
    await asyncio.sleep(0)  # that was a long callback of ours
    one.account.calls.clear()
    held.longest = held.spent = 0.0
    reads = store.reads
    began = LoopClock().monotonic()
    await asyncio.sleep(TICKS * CALM)
    minutes = (LoopClock().monotonic() - began) / 60
    calls = sum(one.account.calls.values())
    bound = DESCRIBES * math.ceil(count / MOST_VALUES) * TICKS
    show(
        f"a fleet of {count} at rest",
        ["EC2 calls/min", "of the bound", "queries of rows/min", "CPU of a tick", "longest callback"],
        [
            [
                f"{calls / minutes:.1f}",
                f"{calls / bound:.2f}",
                f"{(store.reads - reads) / minutes:.1f}",
                f"{1000 * held.spent / TICKS:.0f} ms",
                f"{1000 * held.longest:.0f} ms",
            ]
        ],
    )
    assert calls <= bound * 1.2
    assert held.longest < HELD_UP
    await stop(one)


@pytest.mark.parametrize("size", [100, 200, 500, 1000])
def test_how_long_a_page_of_instances_takes_to_read(size: int) -> None:
    """botocore reads an answer in one go: a thousand instances of it would hold the loop up."""
    tags = [
        {"Key": f"devbox:{name}", "Value": "x" * 20} for name in ("owner", "id", "run", "launch", "managed")
    ]
    instance = {
        "InstanceId": "i-0123456789abcdef0",
        "ImageId": "ami-0123456789abcdef0",
        "State": {"Code": 16, "Name": "running"},
        "InstanceType": "t4g.small",
        "Placement": {"AvailabilityZone": "eu-central-1a", "Tenancy": "default"},
        "Tags": tags,
        "BlockDeviceMappings": [
            {"DeviceName": f"/dev/sd{letter}", "Ebs": {"VolumeId": "vol-0123456789abcdef0", "Status": "attached"}}
            for letter in "af"
        ],
        "NetworkInterfaces": [{"NetworkInterfaceId": "eni-0123456789abcdef0", "PrivateIpAddress": "10.219.1.2"}],
    }  # fmt: skip
    answer = {"Reservations": [{"ReservationId": "r-0", "OwnerId": "1", "Instances": [instance]}] * size}
    body = wire.encode("DescribeInstances", answer, "id")
    shape = Session().get_service_model("ec2").operation_model("DescribeInstances").output_shape
    assert shape is not None
    parser = create_parser("ec2")
    spent = []
    for _ in range(3):
        began = time.thread_time()
        parser.parse({"body": body, "headers": {}, "status_code": 200}, shape)
        spent.append(time.thread_time() - began)
    show(f"a page of {size} instances", ["bytes", "CPU"], [[len(body), f"{1000 * min(spent):.0f} ms"]])
