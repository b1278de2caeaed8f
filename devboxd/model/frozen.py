"""Our end of a bridge as a value: what another process needs to go on with its streams.

The far end only sees that all lanes died at once, as they may at any moment, and that others came.
"""

from __future__ import annotations

import msgspec

from devboxd.model.bridge.end import Bridge
from devboxd.model.bridge.stream import Chunk, Stream
from devboxd.model.bridge.wire import WINDOW_FIRST


class FrozenStream(msgspec.Struct, frozen=True, array_like=True):
    """One stream; the fields are those of ``Stream``. ``flight``: offset, end and frame of what nobody acknowledged."""

    number: int
    waiting: bytes
    out_next: int
    out_end: int | None
    last_sent: bool
    credit_out: int
    flight: list[tuple[int, int, bytes]]
    wants_room: bool
    tried: int
    unpacked: int
    in_next: int
    in_end: int | None
    credit_in: int
    read_next: int
    window: int
    pieces: dict[int, bytes]
    head: bytes | None
    delivered: bool
    reset: str | None


class FrozenBridge(msgspec.Struct, frozen=True, array_like=True):
    """One end; the fields are those of ``Bridge``. It has no lanes."""

    near: bool
    next: int
    seen: int
    skipped: list[int]
    over: list[int]
    farewells: list[tuple[int, int]]
    suspects: list[int]
    pings: int
    plain: int
    travelled: int
    streams: list[FrozenStream]


def freeze(bridge: Bridge) -> FrozenBridge:
    """Take the state of an end. Its lanes are gone after this, so it says and hears nothing more.

    Raises:
        ValueError: it has events that nobody took.
    """
    if bridge._events:
        raise ValueError("take the events first")
    for number in bridge.order():
        bridge.lane_down(number)
    streams, words = bridge._streams, bridge._words
    return FrozenBridge(
        near=streams.parity == 0,
        next=streams.next,
        seen=streams.seen,
        skipped=sorted(streams.skipped),
        over=list(words.over),
        farewells=list(words.farewells.items()),
        suspects=list(words.suspects),
        pings=bridge._pings,
        plain=bridge.plain,
        travelled=bridge.travelled,
        streams=[_frozen(stream) for stream in streams.by_number.values()],
    )


def thaw(state: FrozenBridge) -> Bridge:
    """An end that goes on from there."""
    bridge = Bridge(state.near)
    streams, words = bridge._streams, bridge._words
    streams.next, streams.seen = state.next, state.seen
    streams.skipped.update(state.skipped)
    words.over.extend(state.over)
    words.farewells.update(state.farewells)
    words.suspects.update(dict.fromkeys(state.suspects))
    bridge._pings = state.pings
    words.told_waiting = -1  # nobody knows whether the last word on it arrived
    bridge._came, bridge._came_travelled = state.plain, state.travelled
    for one in state.streams:
        stream = streams.by_number[one.number] = _thawed(one, state.near)
        streams.granted += stream.window - WINDOW_FIRST
        bridge.taken += len(stream.waiting)
        if stream.reset is not None:
            words.reset(stream)
            continue
        words.owe(stream)
        if stream.again or stream.waiting or stream.out_end is not None:
            bridge._turns.add(stream)
    return bridge


def _frozen(stream: Stream) -> FrozenStream:
    return FrozenStream(
        number=stream.number,
        waiting=bytes(stream.waiting),
        out_next=stream.out_next,
        out_end=stream.out_end,
        last_sent=stream.last_sent,
        credit_out=stream.credit_out,
        flight=[(chunk.offset, chunk.end, chunk.frame) for chunk in stream.flight.values()],
        wants_room=stream.wants_room,
        tried=stream.tried,
        unpacked=stream.unpacked,
        in_next=stream.in_next,
        in_end=stream.in_end,
        credit_in=stream.credit_in,
        read_next=stream.read_next,
        window=stream.window,
        pieces=stream.pieces,
        head=None if stream.head is None else bytes(stream.head),
        delivered=stream.delivered,
        reset=stream.reset,
    )


def _thawed(one: FrozenStream, near: bool) -> Stream:
    stream = Stream(one.number, one.number % 2 == (0 if near else 1))
    stream.waiting += one.waiting
    stream.out_next, stream.out_end, stream.last_sent = one.out_next, one.out_end, one.last_sent
    stream.credit_out = one.credit_out
    for offset, end, frame in one.flight:
        stream.flight[offset] = Chunk(stream, offset, end, frame)
    stream.again.extend(stream.flight.values())
    stream.wants_room, stream.tried, stream.unpacked = one.wants_room, one.tried, one.unpacked
    stream.in_next, stream.in_end = one.in_next, one.in_end
    stream.credit_in, stream.read_next, stream.window = one.credit_in, one.read_next, one.window
    stream.pieces = dict(one.pieces)
    stream.starts = sorted(one.pieces)
    stream.head = None if one.head is None else bytearray(one.head)
    stream.delivered, stream.reset = one.delivered, one.reset
    return stream
