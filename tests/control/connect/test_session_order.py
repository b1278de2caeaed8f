"""In which order frames leave a held session when its own limit makes them wait."""

from __future__ import annotations

import asyncio

import pytest

from devboxd.model.config import LinkSettings
from devboxd.model.session import SessionState
from devboxd.ssm.limits import Limits
from tests.control.fakes import bench, now, settle
from tests.kit.tasks import beside

pytestmark = [pytest.mark.looptime, pytest.mark.timeout(30)]


async def test_a_key_overtakes_the_acknowledgements_of_a_flood_and_an_upload_does_not_starve_them() -> None:
    one = bench(settings=LinkSettings(frames_per_second=10), limits=Limits(payload=16, window_bytes=1 << 16))
    service = one.service
    running = beside(one.run())
    try:
        await one.until(SessionState.ONLINE)
        service.only.write(b"hello ")
        await one.session.wait_ready()
        for _ in range(200):
            service.only.write(b"y\n")
        await settle()
        began = now()
        await one.session.send(b"\x03")
        while not service.only.far_end.taken:
            await asyncio.sleep(0.05)
        assert now() - began < 1.0  # behind 200 acknowledgements it would have taken 20 s

        before = service.only.far_end.unacknowledged
        await one.session.send(b"x" * 16 * 100)
        await asyncio.sleep(5.0)
        assert service.only.far_end.unacknowledged <= before - 20
        assert len(service.only.far_end.taken) >= 16 * 20
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await one.shared.tasks.stop()
