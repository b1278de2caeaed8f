"""One lane as one end of a bridge has it: what it carries, and how well."""

from collections import OrderedDict, deque

from devboxd.model.bridge.stream import (
    Chunk,
)
from devboxd.model.bridge.wire import (
    CHUNK,
    LANE_FIRST,
    LANE_LEAST,
    LANE_MOST,
)


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

    @property
    def asks(self) -> bool:
        """Whether something it carries is to be answered."""
        return bool(self.sent or self.pings)


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
