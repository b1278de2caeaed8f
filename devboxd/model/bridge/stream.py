"""One stream as one end of a bridge has it, and its bytes as they travel."""

import zlib
from collections import OrderedDict, deque

from devboxd.model.bridge.wire import (
    ACK,
    ACK_HEAD,
    ACK_RANGE,
    BULK_QUEUE,
    BULK_RATE,
    PACK_PAUSE,
    PACK_WORTH,
    RANGES_MOST,
    WINDOW_FIRST,
)


class Chunk:
    """Bytes of a stream as they travel, until they are acknowledged."""

    __slots__ = ("end", "frame", "lane", "offset", "sent_at", "stream")

    def __init__(self, stream: "Stream", offset: int, end: int, frame: bytes) -> None:
        self.stream = stream
        self.offset = offset
        self.end = end  # offset behind the last byte; the end of a stream counts as one more
        self.frame = frame
        self.lane: int | None = None
        self.sent_at = 0.0


class Stream:
    """One stream as this end has it. Offsets of what we send are ``out_``, of what we get ``in_``."""

    __slots__ = (
        "again", "bulk_bytes", "bulk_since", "credit_in", "credit_out", "delivered", "flight", "head", "in_end",
        "in_next", "last_sent", "number", "out_end", "out_next", "owes_ack", "pieces", "read_next", "reset", "starts",
        "tried", "unpacked", "waiting", "wants_room", "window", "window_at",
    )  # fmt: skip

    def __init__(self, number: int, ours: bool) -> None:
        self.number = number
        # Out
        self.waiting = bytearray()  # taken from the writer, not sent: SEND_MOST
        self.out_next = 0  # offset of the first byte of ``waiting``
        self.out_end: int | None = None  # offset of the end, once it is known
        self.last_sent = False  # the chunk that says so was made
        self.credit_out = WINDOW_FIRST  # offset that we may send up to
        self.flight: OrderedDict[int, Chunk] = OrderedDict()  # sent, not acknowledged, by offset
        self.again: deque[Chunk] = deque()  # of a lane that died
        self.wants_room = False
        self.tried = 0  # chunks in a row that did not pack
        self.unpacked = 0  # bytes since packing was given up
        self.bulk_bytes = 0
        self.bulk_since = 0.0
        # In
        self.in_next = 0  # offset of the next byte in order
        self.in_end: int | None = None
        self.credit_in = WINDOW_FIRST  # offset that the other end may send up to
        self.read_next = 0  # offset that the reader has consumed up to
        self.window = WINDOW_FIRST
        self.window_at = 0.0  # when the credit was last renewed
        self.pieces: dict[int, bytes] = {}  # beyond a gap, by offset: GAPS_MOST, within the credit
        self.starts: list[int] = []  # their offsets, sorted
        self.head: bytearray | None = None if ours else bytearray()  # the purpose, until it is whole
        self.delivered = False  # the end was told
        self.owes_ack = False
        # Reset
        self.reset: str | None = None  # we gave it up, for this reason

    @property
    def sends_done(self) -> bool:
        """Everything was sent and acknowledged, the end too."""
        return self.last_sent and not self.flight

    def is_bulk(self, now: float) -> bool:
        """Whether it sends much: then others go first."""
        if now - self.bulk_since > 0.5:
            self.bulk_since, self.bulk_bytes = now, 0
        return len(self.waiting) > BULK_QUEUE or self.bulk_bytes > BULK_RATE


def acknowledgement(stream: Stream) -> bytes:
    received = stream.in_next + (1 if stream.delivered else 0)
    body = bytearray(ACK_HEAD.pack(ACK, stream.number, received, stream.credit_in))
    begin = end = -1
    told = 0
    for start in stream.starts:
        if start != end:
            if end > 0:
                body += ACK_RANGE.pack(begin, end)
                told += 1
                if told == RANGES_MOST:
                    return bytes(body)
            begin = start
        end = start + len(stream.pieces[start])
    if end > 0:
        # An end that is known beyond the gap was received with its last piece.
        body += ACK_RANGE.pack(begin, end + (1 if end == stream.in_end else 0))
    return bytes(body)


def waiting_again(stream: Stream) -> "Chunk | None":
    """A chunk whose lane died and that nobody acknowledged since."""
    while stream.again:
        chunk = stream.again.popleft()
        waits: bool = stream.flight.get(chunk.offset) is chunk and chunk.lane is None
        if waits:
            return chunk
    return None


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
