"""The bridge: byte streams that are carried over any number of lanes, each of which may die at any moment.

Both ends run this one state machine: the daemon as it stands, the bridgehead as part of a program that travels to
the box. So it is written in the Python that old boxes have (3.6), imports nothing of ours but its parts, and does no
I/O: bytes and the time come in, bytes and events go out.

* A *stream* is a reliable pipe with two directions, each with offsets, an acknowledgement and credit of its own.
  What a lane carried and nobody acknowledged goes again over another; what arrives twice is dropped by its offset.
* A *lane* is an ordered pipe of frames. It never holds more than its ``limit`` of unacknowledged bytes: then an outage
  loses little, and a key never waits behind a second of bulk. The limit follows the measured round trip.
* Half-close and reset are those of TCP. A reset carries its reason.

A peer is not trusted: whatever it sends, memory stays below the bounds beside each buffer, a frame costs time in
proportion to its length, and what can not be is a ``BridgeError`` that ends the lane it came over.

Here both meet; each part knows nothing of those below it in this list, and none of them knows an end:

* ``wire``: frames, bounds and events;
* ``stream`` and ``lane``: one of each, with what it holds; ``incoming`` and ``outgoing``: the two directions of a stream;
* ``streams``: all of them; ``turns``: which sends next; ``words``: what is to be said beside their bytes.
"""

import struct
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from devboxd.model.bridge.incoming import contents, place
from devboxd.model.bridge.lane import Carrying
from devboxd.model.bridge.outgoing import acknowledged
from devboxd.model.bridge.stream import Stream
from devboxd.model.bridge.streams import Streams
from devboxd.model.bridge.turns import Turns
from devboxd.model.bridge.wire import (
    ACK,
    ACK_HEAD,
    DATA,
    DATA_HEAD,
    DEAD,
    LANE_HEAD,
    PING,
    PING_BODY,
    PONG,
    PURPOSE_HEAD,
    PURPOSE_MOST,
    QUICK_BULK,
    REASON_MOST,
    RESET,
    RESET_OK,
    SEND_LEAST,
    SEND_MOST,
    SENDS_TOTAL,
    STREAM_HEAD,
    Answered,
    BridgeError,
    WasReset,
)
from devboxd.model.bridge.words import Words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devboxd.model.bridge.wire import Event


class Bridge:
    """One end. Every method is immediate; ``now`` is seconds that never run backwards."""

    def __init__(self, near: bool) -> None:
        self._streams = Streams(near)
        self._lanes: OrderedDict[int, Carrying] = OrderedDict()
        self._turns = Turns()
        self._words = Words()
        self._pings = 0
        self._events: deque[Event] = deque()
        self.taken = 0  # bytes that writers ever gave to streams
        self.dropped = 0  # of them those of streams that were given up
        self._came = 0  # bytes of streams, and
        self._came_travelled = 0  # what they were on the way
        self.peer_waiting = 0  # bytes that the other end could send if it had more lanes

    # Streams --------------------------------------------------------------------------------------------

    def open(self, purpose: bytes) -> int:
        """Open a stream; returns its number.

        Raises:
            BridgeError: too many are open.
        """
        if len(purpose) > PURPOSE_MOST:
            raise ValueError("the purpose of a stream is too long")
        stream = self._streams.open()
        stream.waiting += PURPOSE_HEAD.pack(len(purpose)) + purpose
        self.taken += len(stream.waiting)
        self._turns.add(stream)
        return stream.number

    def room(self, number: int) -> int:
        """How many bytes ``write`` would take; 0 for a stream that takes no more."""
        stream = self._streams.by_number.get(number)
        return 0 if stream is None else stream.room(self._most)

    def write(self, number: int, data: bytes) -> int:
        """Take bytes to send; returns how many. ``Room`` is told when it could be more."""
        stream = self._streams.by_number.get(number)
        if stream is None:
            return 0
        taken = min(len(data), stream.room(self._most))
        if taken:
            self.taken += taken
            stream.waiting += data[:taken]
            self._turns.add(stream)
        if taken < len(data):
            stream.wants_room = True
        return taken

    def ask_room(self, number: int) -> None:
        """Tell ``Room`` when ``write`` takes bytes again."""
        stream = self._streams.by_number.get(number)
        if stream is not None:
            stream.wants_room = True

    def finish(self, number: int) -> None:
        """Send no more on this stream; what was taken still goes. The other direction stays open."""
        stream = self._streams.by_number.get(number)
        if stream is not None and stream.takes:
            stream.out_end = stream.out_next + len(stream.waiting)
            self._turns.add(stream)

    def has_arrived(self, number: int) -> bool:
        """Whether the other end has all that was taken, and its end; so it is of a stream that is over."""
        stream = self._streams.by_number.get(number)
        return stream is None or stream.reset is not None or (stream.last_sent and not stream.flight)

    def reset(self, number: int, reason: str = "") -> None:
        """Give a stream up in both directions; nothing more comes of it."""
        stream = self._streams.by_number.get(number)
        if stream is not None and stream.reset is None:
            self._drop(stream)
            stream.reset = reason
            self._words.reset(stream)

    def consumed(self, number: int, size: int, now: float) -> None:
        """The reader took ``size`` bytes of ``Data``: the other end may send as many more."""
        stream = self._streams.by_number.get(number)
        if stream is None or stream.reset is not None:
            return
        stream.read_next += size
        if stream.read_next + stream.window - stream.credit_in >= stream.window // 2:
            self._streams.widen(stream, now)
            stream.credit_in = max(stream.credit_in, stream.read_next + stream.window)
            self._words.owe(stream)

    @property
    def streams(self) -> "list[int]":
        """Numbers of the streams that are not over."""
        return [number for number, stream in self._streams.by_number.items() if stream.reset is None]

    @property
    def waiting(self) -> int:
        """Bytes that could be sent now if there were more lanes."""
        return self._turns.waiting

    @property
    def plain(self) -> int:
        """Bytes of streams that went or came."""
        return self._came + self._turns.cut

    @property
    def travelled(self) -> int:
        """What those were on the way: frames without their heads."""
        return self._came_travelled + self._turns.travelled

    @property
    def unsent(self) -> int:
        """Bytes that streams have taken of their writers and not sent."""
        return self.taken - self._turns.cut - self.dropped

    @property
    def _most(self) -> int:
        """How many of those one stream may have: many whose readers stand still must not fill the memory of this end."""
        return SEND_MOST if self.unsent < SENDS_TOTAL else SEND_LEAST

    def _drop(self, stream: Stream) -> None:
        self.dropped += len(stream.waiting)
        stream.drop()

    def _forget(self, stream: Stream) -> None:
        self._drop(stream)
        self._streams.forget(stream)
        self._words.forget(stream.number)

    # Lanes ----------------------------------------------------------------------------------------------

    def lane_up(self, number: int, now: float) -> None:
        """A lane is open and has shown who it is. The first one that is up is the quick lane."""
        self._lanes[number] = Carrying(number, now)
        self._words.tell_of_suspects()

    def lane_down(self, number: int) -> None:
        """A lane is gone: what it carried goes again over the others."""
        lane = self._lanes.pop(number, None)
        if lane is None:
            return
        self._empty(lane)
        # The other end may not see for long that it is gone: its agent may be what is dead.
        self._words.suspect(number)

    def _empty(self, lane: Carrying) -> None:
        """What a lane carries goes again over others, and what it has said is said again."""
        for chunk in lane.give_back():
            self._turns.add(chunk.stream)
        self._words.say_again(lane.number, self._streams.by_number)

    def lanes(self) -> "Iterator[tuple[int, float | None, int, int, bool]]":
        """Each lane: number, round trip in seconds, bytes unacknowledged, bytes sent in all, whether it is behind."""
        for lane in self._lanes.values():
            yield lane.number, lane.round_trip, lane.held, lane.taken, lane.is_behind

    def order(self) -> "list[int]":
        """The lanes in the order in which they should be asked for what they carry: the quick one first."""
        return list(self._lanes)

    def ping(self, number: int) -> None:
        """Ask for a sign of life over this lane; ``Answered`` tells."""
        lane = self._lanes.get(number)
        if lane is not None:
            lane.wants_ping = True

    def next_deadline(self) -> "float | None":
        """When ``tick`` has something to do; None: not before something else happens."""
        times = [at for at in (lane.late_at for lane in self._lanes.values()) if at is not None]
        return min(times) if times else None

    def tick(self, now: float) -> "list[int]":
        """Notice lanes that fell behind, and send what they carry over others. Returns their numbers.

        A lane that fell behind gets nothing new until it shows a sign of life; its owner should replace it.
        """
        late = []
        for lane in self._lanes.values():
            late_at = lane.late_at
            if late_at is not None and now >= late_at:
                self._leave(lane)
                self._words.suspect(lane.number)
                late.append(lane.number)
        for lane in self._lanes.values() if late else ():
            # What took one lane may have taken others, and what it carried must not find that out one by one.
            lane.wants_ping = lane.wants_ping or not lane.pings
        return late

    def _leave(self, lane: Carrying) -> None:
        """A lane gives no sign of life: use others, and ask it for one."""
        lane.is_behind = True
        lane.wants_ping = True
        self._empty(lane)

    # Out ------------------------------------------------------------------------------------------------

    def outgoing(self, number: int, now: float, most: int = 64 << 10) -> bytes:
        """What a lane carries next: about ``most`` bytes, as far as there are any and it may hold them."""
        lane = self._lanes.get(number)
        if lane is None or most <= 0:
            return b""
        out = bytearray()
        if lane.pongs:
            out += lane.answer(self.waiting)
        if lane.wants_ping:
            self._pings += 1
            out += lane.ask(self._pings, self.waiting, now)
        if lane.is_behind:
            return bytes(out)
        for stream in self._words.put(number, out, most):
            if stream.is_over:
                self._forget(stream)
        self._words.put_waiting(out, self._turns.waiting)
        healthy = [one for one in self._lanes.values() if not one.is_behind]
        is_quick = lane is healthy[0]
        bulk_limit = min(QUICK_BULK, lane.limit) if is_quick and len(healthy) > 1 else lane.limit
        while len(out) < most and lane.held < lane.limit:
            chunk = self._turns.next(now, lane.held < bulk_limit, self._events)
            if chunk is None:
                break
            lane.carry(chunk, now)
            out += chunk.frame
        lane.taken += len(out)
        return bytes(out)

    # In -------------------------------------------------------------------------------------------------

    @property
    def has_events(self) -> bool:
        """Whether something happened since then; also ``outgoing`` brings some."""
        return bool(self._events)

    def events(self) -> "Iterator[Event]":
        """What happened since the last call."""
        while self._events:
            yield self._events.popleft()

    def received(self, number: int, data: bytes, now: float) -> None:
        """Take bytes of a lane, however they are cut.

        Raises:
            BridgeError: the other end did what can not be; close the lane.
        """
        lane = self._lanes.get(number)
        if lane is None:
            return
        lane.heard_at = now
        lane.is_behind = False
        self._words.trust(number)
        frames = lane.frames(data)
        try:
            for frame in frames:
                self._take(lane, frame, now)
        finally:
            frames.close()

    def _take(self, lane: Carrying, frame: bytes, now: float) -> None:
        kind = frame[0]
        try:
            if kind == DATA:
                self._take_data(frame)
            elif kind == ACK:
                self._take_ack(frame, now)
            elif kind == RESET:
                self._take_reset(frame)
            elif kind == RESET_OK:
                self._take_reset_ok(STREAM_HEAD.unpack(frame)[1])
            elif kind in (PING, PONG):
                self._take_ping(lane, frame, now)
            elif kind == DEAD:
                self._take_dead(lane, LANE_HEAD.unpack(frame)[1])
            else:
                raise BridgeError(f"a frame of type {kind}")
        except struct.error:
            raise BridgeError(f"a frame of type {kind} with {len(frame)} bytes") from None

    def _take_ping(self, lane: Carrying, frame: bytes, now: float) -> None:
        kind, token, self.peer_waiting = PING_BODY.unpack(frame)
        if kind == PING:
            lane.pongs.append(token)
            return
        asked = lane.pings.pop(token, None)
        if asked is not None:
            self._events.append(Answered(lane.number, now - asked))

    def _take_dead(self, over: Carrying, number: int) -> None:
        """The other end hears nothing of a lane: what it carries may never arrive. A sign of life takes that back."""
        lane = self._lanes.get(number)
        if lane is not None and lane is not over and not lane.is_behind:
            self._leave(lane)

    def _take_data(self, frame: bytes) -> None:
        number = DATA_HEAD.unpack_from(frame)[1]
        stream = self._streams.incoming(number)
        if stream is None:
            self._words.say_over(number)
            return
        if stream.reset is not None:
            return
        offset, data = contents(stream, frame)
        self._came += len(data)
        self._came_travelled += len(frame) - DATA_HEAD.size
        self._words.owe(stream)
        place(stream, offset, data, self._events)

    def _take_ack(self, frame: bytes, now: float) -> None:
        _, number, received, credit = ACK_HEAD.unpack_from(frame)
        stream = self._streams.by_number.get(number)
        if stream is None or stream.reset is not None:
            return
        acknowledged(stream, received, frame, now)
        if credit > stream.credit_out:
            stream.credit_out = credit
            if stream.waiting:
                self._turns.add(stream)
        if stream.is_over:
            self._forget(stream)

    def _take_reset(self, frame: bytes) -> None:
        _, number = STREAM_HEAD.unpack_from(frame)
        stream = self._streams.incoming(number)
        self._words.say_over(number)
        if stream is None:
            return
        if stream.reset is None and stream.head is None:
            reason = frame[STREAM_HEAD.size : STREAM_HEAD.size + REASON_MOST].decode("utf-8", "replace")
            self._events.append(WasReset(number, reason, bool(stream.waiting or stream.flight)))
        self._forget(stream)

    def _take_reset_ok(self, number: int) -> None:
        stream = self._streams.by_number.get(number)
        if stream is None:
            return
        if stream.reset is None and not (stream.delivered and stream.last_sent):
            self._events.append(WasReset(number, "the other end no longer knows this stream", True))
        self._forget(stream)
