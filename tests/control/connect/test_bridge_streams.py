"""The streams of a bridge at our end, with a box that says whatever it likes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from devboxd.control.base.shared import Shared
from devboxd.control.connect.bridge_streams import BridgeStream, Streams
from devboxd.control.connect.stream import StreamReset
from devboxd.model.bridge.wire import Data, Ended, WasReset
from tests.control.fakes import LoopClock
from tests.kit.tasks import beside

if TYPE_CHECKING:
    from devboxd.model.bridge.wire import Event


def streams() -> Streams:
    return Streams("api", Shared.of(LoopClock()).time, lambda: None, lambda: True)


def happened(all_: Streams, monkeypatch: pytest.MonkeyPatch, *events: Event) -> None:
    monkeypatch.setattr(all_.end, "events", lambda: list(events))
    all_.happened()


async def fails_to_write(stream: BridgeStream) -> None:
    async with asyncio.timeout(5):
        with pytest.raises(StreamReset):
            await stream.write(b"more")


async def test_a_box_that_ends_a_stream_and_then_cuts_it_is_written_to_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The end hides the cut from the reader; the writer took that for a stream without room, and never slept."""
    one = streams()
    stream = one.open(b"tcp")
    happened(one, monkeypatch, Ended(stream.number), WasReset(stream.number, "EPIPE broken"))
    assert await stream.read() == b""
    await fails_to_write(stream)


async def test_what_was_closed_is_written_to_no_more() -> None:
    stream = streams().open(b"tcp")
    stream.close()
    await fails_to_write(stream)


async def test_a_writer_that_waits_for_room_learns_of_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    one = streams()
    stream = one.open(b"tcp")
    writing = beside(stream.write(bytes(64 << 20)))
    await asyncio.sleep(0)
    happened(one, monkeypatch, Ended(stream.number), WasReset(stream.number, "EPIPE broken"))
    async with asyncio.timeout(5):
        with pytest.raises(StreamReset):
            await writing


async def test_a_bridgehead_that_says_something_else_than_that_it_is_connected_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    all_ = streams()
    stream = all_.open(b"{}", tells=True)
    happened(all_, monkeypatch, Data(stream.number, b"SSH-2.0"))
    with pytest.raises(StreamReset, match="promised"):
        await stream.read()
    assert await stream.read() == b""


async def test_who_gives_up_waiting_for_the_far_end_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    all_ = streams()
    stream = all_.open(b"{}", tells=True)
    waiting = beside(stream.answered())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    happened(all_, monkeypatch, Data(stream.number, b"+SSH"), Data(stream.number, b"-2.0"))
    assert stream.received == 7
    assert await stream.read() == b"SSH-2.0"
    happened(all_, monkeypatch, Ended(stream.number))
    assert await stream.read() == b""
