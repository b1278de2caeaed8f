"""What EC2 does to a box by itself: it retires a host, or takes a start and drops it. On virtual time, over its model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from devboxd.model.project import Phase, Want
from devboxd.simulator.ec2.faults import Fault
from tests.control.fakes import LoopClock
from tests.lifecycle.kit import Bench, with_daemon

pytestmark = pytest.mark.looptime


@with_daemon
async def test_a_box_whose_host_is_retired_comes_back(one: Bench) -> None:
    """Saved first, on the same volumes, without a word from anybody."""
    row = await one.launched()
    await one.ready("api")
    written = one.work(row)
    await one.account.call("ec2", "stop_instances", InstanceIds=[row.instance])
    tables, code = one.model.tables, "Server.ScheduledStop"
    box = tables.instances[row.instance or ""]
    tables.instances[box.id] = replace(box, reason=(code, f"{code}: Stopped due to scheduled retirement"))
    known = await one.until("api", lambda now: now.phase is Phase.RUNNING and now.launched != row.launched)
    assert (known.project.instance, known.project.want, known.project.head) == (row.instance, Want.UP, 1)
    assert one.content(row.instance)["/dev/sda1"] >= written
    texts = [event.text for event in await one.projects.events("api")]
    assert any("its host is retired; it comes back" in text for text in texts)


@with_daemon
async def test_a_start_that_is_dropped_for_want_of_room_goes_to_another_zone(one: Bench) -> None:
    """The call was accepted, so no refusal says it."""
    row = await one.launched()
    written = one.work(row)
    zone = one.model.tables.instances[row.instance or ""].zone
    await one.projects.stop("api")
    await one.until("api", Phase.WARM)
    one.model.faults.add(Fault("start-dies", code="Server.InsufficientInstanceCapacity"))
    await one.projects.up("api")
    row = (await one.until("api", Phase.RUNNING)).project
    instance = one.model.tables.instances[row.instance or ""]
    assert instance.zone != zone
    assert one.content(instance.id)["/dev/sda1"] >= written


@with_daemon
async def test_a_start_that_is_dropped_for_good_ends_and_says_why(one: Bench) -> None:
    """A key of the disks that EC2 may not use any more."""
    row = await one.launched()
    await one.projects.stop("api")
    await one.until("api", Phase.WARM)
    fault = one.model.faults.add(Fault("start-dies", code="Client.InternalError"))
    began = LoopClock().wall()
    await one.projects.up("api")
    await one.until("api", lambda now: now.phase is Phase.WARM and now.want is Want.WARM)
    assert LoopClock().wall() - began < 900.0
    texts = [event.text for event in await one.projects.events("api")]
    assert any("EC2 says Client.InternalError" in text for text in texts)
    one.model.faults.remove(fault)
    await one.projects.up("api")
    assert (await one.until("api", Phase.RUNNING)).project.instance == row.instance
