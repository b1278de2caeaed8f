"""What goes of a stream: cut into chunks, and kept until the other end has it. What that one says is not trusted."""

import zlib
from typing import TYPE_CHECKING

from devboxd.model.bridge.stream import Chunk, Stream
from devboxd.model.bridge.wire import (
    ACK_HEAD,
    ACK_RANGE,
    CHUNK,
    DATA,
    DATA_HEAD,
    LAST_FLAG,
    PACK_PAUSE,
    PACK_WORTH,
    PACKED_FLAG,
    SEND_MOST,
    BridgeError,
    Room,
    frame_of,
)

if TYPE_CHECKING:
    from collections import deque

    from devboxd.model.bridge.wire import Event


def cut(stream: Stream, events: "deque[Event]") -> "Chunk | None":
    """Make a chunk of what waits, as far as the other end's credit goes; ``events`` gets whether there is room then."""
    size = max(0, min(CHUNK, len(stream.waiting), stream.credit_out - stream.out_next))
    last = stream.out_end is not None and stream.out_next + size == stream.out_end
    if not size and (not last or stream.last_sent):
        return None
    data = bytes(stream.waiting[:size])
    del stream.waiting[:size]
    flags = LAST_FLAG if last else 0
    packed = packed_chunk(stream, data)
    if packed is not None:
        flags |= PACKED_FLAG
    frame = frame_of(DATA_HEAD.pack(DATA, stream.number, stream.out_next, flags, size) + (packed or data))
    chunk = Chunk(stream, stream.out_next, stream.out_next + size + (1 if last else 0), frame)
    stream.flight[chunk.offset] = chunk
    stream.out_next += size
    stream.last_sent = stream.last_sent or last
    if stream.wants_room and len(stream.waiting) <= SEND_MOST // 2:
        stream.wants_room = False
        events.append(Room(stream.number))
    return chunk


def packed_chunk(stream: Stream, data: bytes) -> "bytes | None":
    """The data in fewer bytes; None where that is not worth it, or was not for the last two chunks."""
    if len(data) < 64:
        return None
    if stream.tried >= 2:
        stream.unpacked += len(data)
        if stream.unpacked < PACK_PAUSE:
            return None
        stream.tried, stream.unpacked = 1, 0
    packed = zlib.compress(data, 1)
    if len(packed) <= len(data) * PACK_WORTH:
        stream.tried = 0
        return packed
    stream.tried += 1
    return None


def waiting_again(stream: Stream) -> "Chunk | None":
    """A chunk whose lane died and that nobody acknowledged since."""
    while stream.again:
        chunk = stream.again.popleft()
        waits: bool = stream.flight.get(chunk.offset) is chunk and chunk.lane is None
        if waits:
            return chunk
    return None


def acknowledged(stream: Stream, received: int, frame: bytes, now: float) -> None:
    """Let go of what has arrived: all up to ``received``, and what the rest of the ACK frame names.

    Raises:
        BridgeError: nothing of the kind was sent.
    """
    if received > stream.out_next + 1:
        raise BridgeError(f"stream {stream.number}: acknowledges what was not sent")
    flight = stream.flight
    while flight:
        first = next(iter(flight.values()))
        if first.end > received:
            break
        del flight[first.offset]
        if first.lane is not None:
            first.lane.landed(first, now)
    for at in range(ACK_HEAD.size, len(frame), ACK_RANGE.size):
        begin, end = ACK_RANGE.unpack_from(frame, at)
        while begin < end and begin in flight:
            chunk = flight.pop(begin)
            begin = chunk.end
            if chunk.lane is not None:
                chunk.lane.landed(chunk, now)
