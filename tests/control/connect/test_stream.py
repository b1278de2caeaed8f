"""What waits on a connection for a reader that does not read: bounded, and never silently short."""

from __future__ import annotations

import asyncio

import pytest

from devboxd.control.connect import stream as stream_module
from devboxd.control.connect.stream import Arrivals, Backlog, ConnectionRefused, StreamReset
from tests.kit.tasks import beside


async def test_what_arrived_is_read_whole_and_then_the_end() -> None:
    """Also where the far end closed before anybody read."""
    arrivals = Arrivals(backlog := Backlog())
    assert arrivals.put(b"one ")
    assert arrivals.put(b"two")
    arrivals.finish()
    assert backlog.size == len(arrivals) == 7
    assert await arrivals.read() == b"one two"
    assert await arrivals.read() == b""
    assert backlog.size == 0


async def test_a_cut_is_no_end() -> None:
    """A program must not take half a file for a whole one."""
    arrivals = Arrivals(backlog := Backlog())
    arrivals.put(b"half")
    arrivals.fail(ConnectionRefused("nothing listens"))
    with pytest.raises(ConnectionRefused):
        await arrivals.read()
    assert backlog.size == 0


async def test_an_end_that_was_seen_is_not_turned_into_a_cut() -> None:
    """The session may well be lost afterwards."""
    arrivals = Arrivals(Backlog())
    arrivals.put(b"all")
    arrivals.finish()
    arrivals.fail(StreamReset("the session has ended"))
    assert await arrivals.read() == b"all"
    assert await arrivals.read() == b""


@pytest.mark.parametrize("piece", [b"x", b"x" * 1000])
async def test_a_box_that_sends_what_nobody_reads_fills_a_bounded_buffer(
    piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever pieces it comes: the memory held is that of the bytes."""
    monkeypatch.setattr(stream_module, "STREAM_BUFFER", 10_000)
    arrivals = Arrivals(backlog := Backlog())
    while arrivals.put(piece):
        assert backlog.size == len(arrivals) <= 10_000
    assert backlog.size == 0, "what is lost is not held"
    assert arrivals.put(piece), "what still comes is dropped"
    assert backlog.size == 0
    with pytest.raises(StreamReset, match="stopped reading"):
        await arrivals.read()


async def test_a_reader_that_waits_is_woken_by_each_kind_of_end() -> None:
    """Else a connection hangs for ever."""
    for act, error in [
        (Arrivals.finish, None),
        (Arrivals.close, None),
        (lambda a: a.fail(StreamReset("gone")), StreamReset),
    ]:
        arrivals = Arrivals(Backlog())
        reading = beside(arrivals.read())
        await asyncio.sleep(0)
        act(arrivals)
        if error is None:
            assert await reading == b""
        else:
            with pytest.raises(error):
                await reading
