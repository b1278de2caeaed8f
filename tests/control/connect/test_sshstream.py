"""A connection for ssh, until sshd has greeted."""

from __future__ import annotations

import asyncio

import pytest

from devboxd.control.base.time import Time
from devboxd.control.connect.sshstream import greeted
from devboxd.control.connect.stream import StreamReset
from devboxd.model.ssh import MOST_AGAIN, Ended
from tests.control.connect.test_splice import Far
from tests.control.fakes import LoopClock

BANNER = b"SSH-2.0-OpenSSH_9.9\r\n"
FULL = b"Not allowed at this time\r\n"


class Sshd:
    """Begins each connection as it is told."""

    def __init__(self, *firsts: bytes) -> None:
        self.left = list(firsts)
        self.opened: list[Far] = []
        self.ended: list[Ended] = []

    async def connect(self) -> Far:
        far = Far()
        far.said.give(self.left.pop(0))
        self.opened.append(far)
        return far

    @property
    def still_open(self) -> int:
        return sum("close" not in far.done for far in self.opened)


@pytest.mark.looptime
async def test_ssh_waits_while_sshd_has_too_many_others() -> None:
    """A playbook on ten boxes, or an editor with six channels: one too many is not a failure."""
    sshd = Sshd(b"Exceeded MaxStartups\r\n", FULL, BANNER)
    stream, note = await greeted(sshd.connect, Time(LoopClock()), sshd.ended.append, 22, "api")
    assert (await stream.read(), note) == (BANNER, None)
    assert (len(sshd.opened), sshd.still_open) == (3, 1)
    assert sshd.ended == [], "that one more was too many says nothing about keys"


@pytest.mark.looptime
async def test_ssh_is_told_of_an_sshd_that_stays_full() -> None:
    """With the last connection, and before it would think that nobody is there."""
    sshd = Sshd(*[FULL] * (MOST_AGAIN + 1))
    began = asyncio.get_running_loop().time()
    stream, note = await greeted(sshd.connect, Time(LoopClock()), sshd.ended.append, 22, "api")
    assert await stream.read() == FULL
    assert note is not None
    assert "no more connections for now" in note
    assert (sshd.left, sshd.still_open) == ([], 1)
    assert asyncio.get_running_loop().time() - began < 15


@pytest.mark.looptime
async def test_nothing_stays_open_where_sshd_says_nothing_or_nobody_waits_any_more() -> None:
    sshd = Sshd(b"")
    with pytest.raises(StreamReset, match="hung up without a greeting"):
        await greeted(sshd.connect, Time(LoopClock()), sshd.ended.append, 22, "api")
    assert sshd.still_open == 0
    sshd = Sshd(FULL, BANNER)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await greeted(sshd.connect, Time(LoopClock()), sshd.ended.append, 22, "api")
    assert (len(sshd.opened), sshd.still_open) == (1, 0)
