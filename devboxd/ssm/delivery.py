"""Every byte once and in order, over links that come and go: the two halves of a data channel.

An ``Outbox`` keeps what the far end has not acknowledged and says what to send again; an ``Inbox`` puts
what arrives in order and says what to acknowledge. Times are monotonic seconds; nothing here sleeps.
Sources of the numbers: ``docs/protocol.md``, "Timers".
"""

from __future__ import annotations

from collections import OrderedDict, deque
from itertools import islice
from typing import Final

import msgspec

FIRST_ROUND_TRIP: Final = 0.1  # seconds; with the two below: session-manager-plugin, src/config/config.go
FIRST_TIMEOUT: Final = 0.2
RESEND_MAX: Final = 1.0  # bound of the estimate
CLOCK_GRANULARITY: Final = 0.01

BACK_OFF_MAX: Final = 4.0  # bound of the estimate times two to the number of resends
RESEND_BATCH: Final = 8  # oldest frames looked at on one timeout: real peers resend one, and crawl
EAGER_INTERVAL: Final = 0.075  # for the first frame after a handshake, which is often rejected silently
EAGER_PERIOD: Final = 2.0
PAUSED_INTERVAL: Final = 10.0  # a lost start_publication must not silence us for ever

REMEMBERED: Final = 512  # received frames that are acknowledged again after a reconnect


class RoundTrip:
    """Estimates the round-trip time and how long to wait for an acknowledgement.

    Source: RFC 6298 with the constants of both official peers (``vectors/rto.json``).
    """

    __slots__ = ("smoothed", "timeout", "variation")

    def __init__(self) -> None:
        self.smoothed = FIRST_ROUND_TRIP
        self.variation = 0.0
        self.timeout = FIRST_TIMEOUT

    def sample(self, seconds: float) -> None:
        """Take one measurement. Never one of a frame that was sent twice: which copy was answered?"""
        self.variation = 0.75 * self.variation + 0.25 * abs(self.smoothed - seconds)
        self.smoothed = 0.875 * self.smoothed + 0.125 * seconds
        self.timeout = min(RESEND_MAX, self.smoothed + max(CLOCK_GRANULARITY, 4 * self.variation))


class Waiting(msgspec.Struct, gc=False):
    """A frame on its way: its bytes on the wire, and when it was sent.

    ``since`` counts only time with a link, so that a night without one makes no frame look old.
    """

    data: bytes
    size: int
    since: float
    sent_at: float
    sends: int
    eager: bool


class Outbox:
    """Frames that the far end has not acknowledged. Nothing leaves it in any other way."""

    __slots__ = ("_lost_at", "_waiting", "bytes", "next_sequence", "paused", "round_trip")

    def __init__(self) -> None:
        self.next_sequence = 0
        self.bytes = 0  # payload bytes of all frames inside
        self.paused = False
        self.round_trip = RoundTrip()
        # In the order of their numbers. A plain dictionary whose front is emptied again and again is slow to
        # find its first entry, and a walk over the numbers from the oldest frame on as long as the far end likes.
        self._waiting: OrderedDict[int, Waiting] = OrderedDict()
        self._lost_at: float | None = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, data: bytes, size: int, now: float, *, eager: bool = False) -> bool:
        """Keep the frame ``next_sequence`` until it is acknowledged; say whether to send it now."""
        is_up = self._lost_at is None
        self._waiting[self.next_sequence] = Waiting(data, size, now, now, 1 if is_up else 0, eager)
        self.next_sequence += 1
        self.bytes += size
        return is_up

    def acknowledged(self, sequence: int, now: float) -> Waiting | None:
        """Forget a frame. None when it is not here: our resend crossed its first acknowledgement."""
        frame = self._waiting.pop(sequence, None)
        if frame is None:
            return None
        self.bytes -= frame.size
        if frame.sends == 1 and self._lost_at is None:
            self.round_trip.sample(max(0.0, now - frame.sent_at))
        return frame

    def opened(self, now: float) -> list[bytes]:
        """A link is up: return every frame to send, oldest first. The far end tolerates repeats."""
        self.paused = False
        if self._lost_at is not None:
            for frame in self._waiting.values():
                frame.since = now - max(0.0, self._lost_at - frame.since)
            self._lost_at = None
        return self.resend_all(now)

    def lost(self, now: float) -> None:
        """The link is gone: nothing is due until the next one."""
        if self._lost_at is None:
            self._lost_at = now

    def resend_all(self, now: float, *, older_than: float = -1.0) -> list[bytes]:
        """Return all frames (last sent more than ``older_than`` seconds ago) to be sent again."""
        result = []
        for frame in self._waiting.values():
            if now - frame.sent_at > older_than:
                frame.sends += 1
                frame.sent_at = now
                result.append(frame.data)
        return result

    def due(self, now: float) -> list[bytes]:
        """Return the frames whose time is up, to be sent again."""
        result = []
        for frame in self._first():
            if self._deadline(frame) <= now:
                frame.sends += 1
                frame.sent_at = now
                result.append(frame.data)
        return result

    def next_deadline(self) -> float | None:
        """When ``due`` has something to return; None without a link or without frames."""
        return min(map(self._deadline, self._first()), default=None)

    @property
    def oldest_since(self) -> float | None:
        """Since when the oldest frame has been waiting, counting only time with a link."""
        first = self._first(1)
        return first[0].since if first else None

    def _first(self, wanted: int = RESEND_BATCH) -> list[Waiting]:
        """The few oldest frames; while paused only the very oldest, and none without a link."""
        if self._lost_at is not None:
            return []
        return list(islice(self._waiting.values(), 1 if self.paused else wanted))

    def _deadline(self, frame: Waiting) -> float:
        if self.paused:
            return frame.sent_at + PAUSED_INTERVAL
        if frame.eager and frame.sent_at < frame.since + EAGER_PERIOD:
            return frame.sent_at + EAGER_INTERVAL
        # Doubling keeps a box that reads slowly from being buried under repeats.
        backed_off = self.round_trip.timeout * float(1 << min(max(frame.sends - 1, 0), 6))
        return frame.sent_at + min(backed_off, BACK_OFF_MAX)


class Inbox:
    """Puts the far end's frames in order. Bounded in frames and in bytes."""

    __slots__ = (
        "_early",
        "_early_bytes",
        "_heard_at",
        "_lost_at",
        "_max_bytes",
        "_max_frames",
        "expected",
        "gap_since",
        "recent",
    )

    def __init__(self, max_frames: int, max_bytes: int) -> None:
        self.expected = 0
        self.recent: deque[tuple[int, bytes]] = deque(maxlen=REMEMBERED)
        self.gap_since: float | None = None  # counts only time with a link
        self._early: dict[int, tuple[int, bytes]] = {}
        self._early_bytes = 0
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._heard_at = 0.0
        self._lost_at: float | None = None

    def accept(self, sequence: int, wire_id: bytes, payload_type: int, payload: bytes, now: float) -> bool:
        """Take a frame; say whether to acknowledge it. ``ready`` then yields what is in order.

        Repeats are acknowledged again: it was our acknowledgement that got lost, and the far end would
        go on repeating that one frame and never repair a later one. What does not fit is not
        acknowledged, so it comes again.
        """
        self._heard_at = now
        expected = self.expected
        if sequence < expected:
            return sequence >= 0
        if sequence != expected:
            if sequence >= expected + self._max_frames:
                return False
            if sequence in self._early:
                return True
            if self._early_bytes + len(payload) > self._max_bytes:
                return False
            if self.gap_since is None:
                self.gap_since = now
        elif sequence in self._early:
            return True
        self._early[sequence] = (payload_type, payload)
        self._early_bytes += len(payload)
        self.recent.append((sequence, wire_id))
        return True

    def advance(self, sequence: int, wire_id: bytes) -> bool:
        """The fast way for the expected frame while nothing is early: count it, keep nothing."""
        if sequence != self.expected or self._early:
            return False
        self.expected = sequence + 1
        self.recent.append((sequence, wire_id))
        return True

    def pop(self, now: float) -> tuple[int, bytes] | None:
        """Return payload type and payload of the expected frame, and expect the next one."""
        found = self._early.pop(self.expected, None)
        if found is None:
            return None
        self.expected += 1
        self._early_bytes -= len(found[1])
        self.gap_since = now if self._early else None
        return found

    def heard(self, now: float) -> None:
        """The far end gave another sign of life."""
        self._heard_at = now

    @property
    def missing(self) -> int:
        """How many frames are missing below the latest one that has arrived."""
        return max(self._early) + 1 - self.expected - len(self._early) if self._early else 0

    @property
    def early_bytes(self) -> int:
        """Bytes that wait for a missing frame."""
        return self._early_bytes

    def holds(self, payload_types: frozenset[int]) -> bool:
        """Say whether an early frame of one of these types waits."""
        return any(payload_type in payload_types for payload_type, _ in self._early.values())

    def skip(self) -> int | None:
        """Give up the expected frame: return its number, or None where nothing later has arrived.

        The frame must not be here (call ``pop`` until it returns None first).
        """
        if not self._early:
            return None
        self.expected += 1
        return self.expected - 1

    def lost(self, now: float) -> None:
        """The link is gone: a gap does not age."""
        if self._lost_at is None:
            self._lost_at = now

    def opened(self, now: float) -> None:
        """A link is up again."""
        if self._lost_at is not None and self.gap_since is not None:
            self.gap_since += now - self._lost_at
        self._lost_at = None

    def is_torn(self, patience: float, now: float) -> bool:
        """Say whether the expected frame will never come.

        The far end repeats its oldest frame ten times a second for as long as it lives. So a frame that
        stays away for ``patience`` seconds of link time, while the far end talks in their second half,
        no longer exists: the far end's buffer overflowed while it was offline.
        """
        deadline = self.torn_at(patience)
        return deadline is not None and deadline <= now

    def torn_at(self, patience: float) -> float | None:
        """When ``is_torn`` becomes true, as far as is known now."""
        since = self.gap_since
        if since is None or self._lost_at is not None or self._heard_at - since < patience / 2:
            return None
        return since + patience
