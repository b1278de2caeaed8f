"""One lane as one end of a bridge has it: the frames that come over it, what it carries, and how well."""

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from devboxd.model.bridge.wire import (
    BEHIND,
    CHUNK,
    FORGIVEN,
    FRAME_MOST,
    LANE_FIRST,
    LANE_LEAST,
    LANE_MOST,
    LENGTH_PREFIX,
    PING,
    PING_BODY,
    PONG,
    BridgeError,
    frame_of,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from devboxd.model.bridge.stream import Chunk


class Carrying:
    """One lane: what it carries, and how well."""

    __slots__ = (
        "buffer",
        "heard_at",
        "held",
        "is_behind",
        "least",
        "limit",
        "number",
        "pings",
        "pongs",
        "round_trip",
        "sent",
        "taken",
        "wants_ping",
    )  # fmt: skip

    def __init__(self, number: int, now: float) -> None:
        self.number = number
        self.buffer = bytearray()  # of an incoming frame: FRAME_MOST
        self.held = 0  # bytes unacknowledged
        self.limit = LANE_FIRST
        self.round_trip: float | None = None  # smoothed seconds
        self.least: float | None = None  # the best so far
        self.heard_at = now
        self.is_behind = False
        self.sent: OrderedDict[int, Chunk] = OrderedDict()  # by ``id``, oldest first
        self.pings: OrderedDict[int, float] = OrderedDict()
        self.pongs: deque[int] = deque(maxlen=8)
        self.wants_ping = False
        self.taken = 0  # bytes sent in all

    # What comes ---------------------------------------------------------------------------------------------

    def frames(self, data: bytes) -> "Generator[bytes, None, None]":
        """The whole frames of what has come, however it was cut. Close it: what was not taken stays.

        Raises:
            BridgeError: a frame of a length that none has.
        """
        self.buffer += data
        position, size = 0, len(self.buffer)
        view = memoryview(self.buffer)
        try:
            while size - position >= LENGTH_PREFIX.size:
                (length,) = LENGTH_PREFIX.unpack_from(view, position)
                if not 1 <= length <= FRAME_MOST:
                    raise BridgeError(f"a frame of {length} bytes")
                end = position + LENGTH_PREFIX.size + length
                if end > size:
                    break
                yield bytes(view[position + LENGTH_PREFIX.size : end])
                position = end
        finally:
            view.release()
            del self.buffer[:position]

    # What it carries ----------------------------------------------------------------------------------------

    def carry(self, chunk: "Chunk", now: float) -> None:
        """It has a chunk from now on."""
        chunk.lane = self
        chunk.sent_at = now
        chunk.stream.bulk_bytes += len(chunk.frame)
        self.held += len(chunk.frame)
        self.sent[id(chunk)] = chunk

    def landed(self, chunk: "Chunk", now: "float | None" = None) -> None:
        """A chunk needs it no longer. ``now``: it was acknowledged, and the lane can learn from that."""
        chunk.lane = None
        self.held -= len(chunk.frame)
        del self.sent[id(chunk)]
        if now is not None:
            self.heard_at = now
            learn(self, now - chunk.sent_at)

    def give_back(self) -> "list[Chunk]":
        """Carry nothing any longer; returns what is to go over others."""
        chunks = list(self.sent.values())
        for chunk in chunks:
            chunk.lane = None
            chunk.stream.again.append(chunk)
        self.sent.clear()
        self.held = 0
        return chunks

    # Whether it lives ---------------------------------------------------------------------------------------

    @property
    def late_at(self) -> "float | None":
        """When it has given no sign for too long; None: it is asked for none, or known to be behind."""
        if self.is_behind or not (self.sent or self.pings):
            return None
        patience = max(BEHIND, 8 * (self.round_trip or 0.0))
        times = []
        if self.sent:
            sent_at = next(iter(self.sent.values())).sent_at
            times.append(min(max(sent_at, self.heard_at) + patience, sent_at + FORGIVEN * patience))
        if self.pings:
            times.append(max(next(iter(self.pings.values())), self.heard_at) + patience)
        return min(times)

    def answer(self, waiting: int) -> bytes:
        """The answers that it owes. ``waiting``: bytes that could be sent if there were more lanes."""
        out = b"".join(frame_of(PING_BODY.pack(PONG, token, waiting)) for token in self.pongs)
        self.pongs.clear()
        return out

    def ask(self, token: int, waiting: int, now: float) -> bytes:
        """Ask for a sign of life. ``waiting`` as for ``answer``."""
        self.wants_ping = False
        self.pings[token] = now
        while len(self.pings) > 8:
            self.pings.popitem(last=False)
        return frame_of(PING_BODY.pack(PING, token, waiting))


def learn(lane: Carrying, seconds: float) -> None:
    """Let the limit follow the round trip: a lane whose bytes wait behind each other holds too many."""
    # A way that became longer is believed in the course of some thousand chunks.
    lane.least = seconds if lane.least is None else min(seconds, lane.least + (seconds - lane.least) / 1000)
    lane.round_trip = (
        seconds if lane.round_trip is None else lane.round_trip + (seconds - lane.round_trip) / 8
    )
    if seconds > 2 * lane.least + 0.05:
        lane.limit = max(LANE_LEAST, lane.limit - lane.limit // 16)
    elif lane.held * 2 > lane.limit:
        lane.limit = min(LANE_MOST, lane.limit + CHUNK // 8)
