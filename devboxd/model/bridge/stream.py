"""One stream as one end of a bridge has it, and its bytes as they travel."""

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from devboxd.model.bridge.wire import BULK_QUEUE, BULK_RATE, WINDOW_FIRST

if TYPE_CHECKING:
    from devboxd.model.bridge.lane import Carrying


class Chunk:
    """Bytes of a stream as they travel, until they are acknowledged."""

    __slots__ = ("end", "frame", "lane", "offset", "sent_at", "stream")

    def __init__(self, stream: "Stream", offset: int, end: int, frame: bytes) -> None:
        self.stream = stream
        self.offset = offset
        self.end = end  # offset behind the last byte; the end of a stream counts as one more
        self.frame = frame
        self.lane: Carrying | None = None  # that has it now
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
        self.waiting = bytearray()  # taken from the writer, not sent: SEND_MOST, or SEND_LEAST
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
    def takes(self) -> bool:
        """Whether its writer may still send, or end it."""
        return self.out_end is None and self.reset is None

    @property
    def sendable(self) -> int:
        """Bytes that could be sent now."""
        fresh = max(0, min(len(self.waiting), self.credit_out - self.out_next))
        return fresh + sum(len(chunk.frame) for chunk in self.again) if self.again else fresh

    @property
    def is_over(self) -> bool:
        """Both directions came to their end, and both ends know."""
        sends_done = self.delivered and self.last_sent and not self.flight
        return sends_done and self.reset is None and not self.owes_ack

    def room(self, most: int) -> int:
        """How many bytes it takes of its writer, where so many may wait."""
        return max(0, most - len(self.waiting)) if self.takes else 0

    def is_bulk(self, now: float) -> bool:
        """Whether it sends much: then others go first."""
        if now - self.bulk_since > 0.5:
            self.bulk_since, self.bulk_bytes = now, 0
        return len(self.waiting) > BULK_QUEUE or self.bulk_bytes > BULK_RATE

    def drop(self) -> None:
        """Forget all bytes of it; no lane carries them any longer."""
        for chunk in self.flight.values():
            if chunk.lane is not None:
                chunk.lane.landed(chunk)
        self.flight.clear()
        self.again.clear()
        del self.waiting[:]
        self.pieces.clear()
        del self.starts[:]
