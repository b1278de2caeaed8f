"""Floods over a link: frames that are repeated, paused, acknowledged out of order."""

from __future__ import annotations

import asyncio
import time

import pytest

from devboxd.control.connect import carry
from devboxd.model.session import SessionState
from devboxd.ssm.delivery import Outbox
from devboxd.ssm.frame import PAUSE_PUBLICATION, START_PUBLICATION
from tests.control.fakes import FakeLink, bench, now, settle
from tests.kit.farend import service_message
from tests.kit.tasks import beside


class SlowLink(FakeLink):
    """A link whose sending side is stuck, as behind a full pipe."""

    stuck = False

    async def send(self, data: bytes) -> None:
        while self.stuck:
            await asyncio.sleep(0.05)
        await super().send(data)


@pytest.mark.looptime
async def test_repeated_frames_fill_a_bounded_queue_and_all_is_well_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A million of them took 430 MB. What is left out of the queue is acknowledged when it comes again."""
    monkeypatch.setattr("tests.control.fakes.FakeLink", SlowLink)
    monkeypatch.setattr(carry, "MOST_QUEUED", 500)
    one = bench()
    work = beside(one.run())
    await one.until(SessionState.ONLINE)
    one.service.only.write(b"w")
    await one.session.wait_ready()
    link = one.service.only.link
    assert isinstance(link, SlowLink)
    link.stuck = True
    await settle()
    (frame,) = one.service.only.far_end.output(b"x", now())
    for _ in range(20):
        for _ in range(500):
            link.deliver(frame)
        await asyncio.sleep(0)
        await settle()
    carrier = one.session._carrier
    assert carrier is not None
    assert len(carrier._outgoing) == 500
    link.stuck = False
    one.service.only.write(b"yz")
    for _ in range(100):
        await asyncio.sleep(0.1)
        for again in one.service.only.far_end.tick(now()):
            link.deliver(again)
    await asyncio.sleep(1)
    assert bytes(one.sink.out) == b"wxyz"
    assert not carrier._outgoing
    assert not one.service.only.far_end.unacknowledged, "what had been left out was made up for"
    await one.session.stop()
    await work


@pytest.mark.looptime
async def test_a_gateway_that_pauses_and_starts_without_end_fills_a_bounded_queue() -> None:
    """Each start makes us send all again that is not acknowledged: two small messages for a whole window."""
    one = bench()
    work = beside(one.run())
    await one.until(SessionState.ONLINE)
    one.service.only.write(b"w")
    await one.session.wait_ready()
    link = one.service.only.link
    link.mute = True
    await one.session.send(b"x" * 10_000)
    link.mute = False
    for _ in range(3000):
        link.deliver(service_message(PAUSE_PUBLICATION))
        link.deliver(service_message(START_PUBLICATION))
    await settle()
    carrier = one.session._carrier
    assert carrier is not None
    assert len(carrier._outgoing) <= carry.MOST_QUEUED
    await one.session.stop()
    await work


def busy(frames: int) -> float:
    """CPU seconds of sending so many frames to a far end that acknowledges all but the first."""
    box = Outbox()
    box.opened(0.0)
    box.add(b"never", 5, 0.0)
    began = time.thread_time()
    for sequence in range(1, frames):
        box.add(b"frame", 5, 0.0)
        box.acknowledged(sequence, 0.1)
        box.next_deadline()
        box.due(0.0)
    return time.thread_time() - began


def test_a_far_end_that_leaves_one_frame_out_for_ever_costs_no_more_the_longer_it_does() -> None:
    """Finding what to send again walked over every number since then."""
    small = min(busy(2000) for _ in range(3))
    large = min(busy(4000) for _ in range(3))
    assert large < 3 * small + 0.01
