"""What arrives of a stream: each chunk judged, and put where it belongs. The sender is not trusted."""

from bisect import bisect_left, insort
from typing import TYPE_CHECKING

from devboxd.model.bridge.stream import Stream
from devboxd.model.bridge.wire import (
    CHUNK,
    DATA_HEAD,
    GAPS_MOST,
    LAST_FLAG,
    PACKED_FLAG,
    PURPOSE_HEAD,
    PURPOSE_MOST,
    BridgeError,
    Data,
    Ended,
    Opened,
    unpacked,
)

if TYPE_CHECKING:
    from collections import deque

    from devboxd.model.bridge.wire import Event


def contents(stream: Stream, frame: bytes) -> "tuple[int, bytes]":
    """Offset and bytes of a DATA frame; notes the end of the stream where the frame says it.

    Raises:
        BridgeError: beyond the credit or the end, or not what it says.
    """
    _, number, offset, flags, size = DATA_HEAD.unpack_from(frame)
    end = offset + size
    if size > CHUNK or end > stream.credit_in:
        raise BridgeError(f"stream {number}: bytes beyond its credit")
    if stream.in_end is not None and (end > stream.in_end or (flags & LAST_FLAG and end != stream.in_end)):
        raise BridgeError(f"stream {number}: bytes beyond its end")
    data = unpacked(frame[DATA_HEAD.size :], size) if flags & PACKED_FLAG else frame[DATA_HEAD.size :]
    if len(data) != size:
        raise BridgeError(f"stream {number}: {len(data)} bytes that should be {size}")
    if flags & LAST_FLAG:
        furthest = stream.starts[-1] + len(stream.pieces[stream.starts[-1]]) if stream.starts else 0
        if end < max(stream.in_next, furthest):
            raise BridgeError(f"stream {number}: ends before what it sent")
        stream.in_end = end
    return offset, data


def place(stream: Stream, offset: int, data: bytes, events: "deque[Event]") -> None:
    """Put a chunk where it belongs; ``events`` gets what can be handed on now.

    Raises:
        BridgeError: it overlaps what is there, or the stream ends before it began.
    """
    if offset > stream.in_next:
        keep(stream, offset, data)
    elif offset + len(data) > stream.in_next:
        if offset != stream.in_next:
            raise BridgeError(f"stream {stream.number}: chunks that overlap")
        deliver(stream, data, events)
        while stream.starts and stream.starts[0] == stream.in_next:
            deliver(stream, stream.pieces.pop(stream.starts.pop(0)), events)
        if stream.starts and stream.starts[0] < stream.in_next:
            raise BridgeError(f"stream {stream.number}: chunks that overlap")
    if stream.in_next == stream.in_end and not stream.delivered:
        if stream.head is not None:
            raise BridgeError(f"stream {stream.number}: ends before it began")
        stream.delivered = True
        events.append(Ended(stream.number))


def deliver(stream: Stream, data: bytes, events: "deque[Event]") -> None:
    """Hand on the next bytes in order; the first ones are the purpose."""
    stream.in_next += len(data)
    if stream.head is not None:
        stream.head += data
        if len(stream.head) < PURPOSE_HEAD.size:
            return
        end = PURPOSE_HEAD.size + PURPOSE_HEAD.unpack_from(stream.head)[0]
        if end > PURPOSE_MOST + PURPOSE_HEAD.size:
            raise BridgeError(f"stream {stream.number}: a purpose of {end} bytes")
        if len(stream.head) < end:
            return
        head, stream.head = bytes(stream.head), None
        stream.read_next += end
        events.append(Opened(stream.number, head[PURPOSE_HEAD.size : end]))
        data = head[end:]
    if data:
        events.append(Data(stream.number, data))


def keep(stream: Stream, offset: int, data: bytes) -> None:
    """Keep a piece beyond a gap. A sender cuts a byte into a chunk once: other overlaps are none of ours."""
    if stream.pieces.get(offset) == data and (data or offset in stream.pieces):
        return
    place = bisect_left(stream.starts, offset)
    after = stream.starts[place] if place < len(stream.starts) else None
    before = stream.starts[place - 1] if place else None
    if (after is not None and offset + len(data) > after) or (
        before is not None and before + len(stream.pieces[before]) > offset
    ):
        raise BridgeError(f"stream {stream.number}: chunks that overlap")
    if not data:
        return  # only the end: it is known now
    if len(stream.starts) >= GAPS_MOST:
        raise BridgeError(f"stream {stream.number}: too many gaps")
    insort(stream.starts, offset)
    stream.pieces[offset] = data
