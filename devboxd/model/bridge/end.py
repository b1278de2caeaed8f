"""The bridge: byte streams that are carried over any number of lanes, each of which may die at any moment.

Both ends run this one state machine: the daemon as it stands, the bridgehead as part of a program that travels to
the box. So it is written in the Python that old boxes have (3.6), imports nothing of ours, and does no I/O: bytes
and the time come in, bytes and events go out.

* A *stream* is a reliable pipe with two directions, each with offsets, an acknowledgement and credit of its own.
  What a lane carried and nobody acknowledged goes again over another; what arrives twice is dropped by its offset.
* A *lane* is an ordered pipe of frames. It never holds more than its ``limit`` of unacknowledged bytes: then an outage
  loses little, and a key never waits behind a second of bulk. The limit follows the measured round trip.
* Half-close and reset are those of TCP. A reset carries its reason.

A peer is not trusted: whatever it sends, memory stays below the bounds beside each buffer, a frame costs time in
proportion to its length, and what can not be is a ``BridgeError`` that ends the lane it came over.

The frames stand in ``wire``.
"""

import struct
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from devboxd.model.bridge.incoming import contents, place
from devboxd.model.bridge.lane import (
    Carrying,
    learn,
)
from devboxd.model.bridge.stream import (
    Chunk,
    Stream,
    acknowledgement,
    packed_chunk,
    waiting_again,
)
from devboxd.model.bridge.wire import (
    ACK,
    ACK_HEAD,
    ACK_RANGE,
    BEHIND,
    CHUNK,
    DATA,
    DATA_HEAD,
    DEAD,
    DEAD_MOST,
    FORGIVEN,
    FRAME_MOST,
    LANE_FIRST,
    LANE_HEAD,
    LAST_FLAG,
    LENGTH_PREFIX,
    PACKED_FLAG,
    PING,
    PING_BODY,
    PONG,
    PURPOSE_HEAD,
    PURPOSE_MOST,
    QUICK_BULK,
    REASON_MOST,
    RESET,
    RESET_OK,
    SEND_MOST,
    STREAM_HEAD,
    STREAMS_MOST,
    WINDOW_FIRST,
    WINDOW_HALF,
    WINDOW_MOST,
    WINDOWS_TOTAL,
    Answered,
    BridgeError,
    Room,
    WasReset,
    frame_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devboxd.model.bridge.wire import Event


class Bridge:
    """One end. Every method is immediate; ``now`` is seconds that never run backwards."""

    def __init__(self, near: bool) -> None:
        self._streams: dict[int, Stream] = {}
        self._lanes: OrderedDict[int, Carrying] = OrderedDict()
        self._parity = 0 if near else 1
        self._next = self._parity  # number of the next stream that we open
        self._seen = 1 - self._parity  # the least number of the other end's that was not seen yet
        self._skipped: set[int] = (
            set()
        )  # numbers of the other end's below that, whose first frame is on its way
        self._turns: deque[Stream] = deque()  # streams with something to send, in turns
        self._queued: set[int] = set()  # their numbers
        self._acks: OrderedDict[int, None] = OrderedDict()  # streams that owe an acknowledgement
        self._resets: OrderedDict[int, None] = OrderedDict()  # streams whose reset is to be sent
        self._over: deque[int] = deque(maxlen=STREAMS_MOST)  # RESET_OK to send
        # Streams that are over here, and the lane that carried our last word on them: should it die, the other end
        # may wait for that word for ever.
        self._farewells: OrderedDict[int, int] = OrderedDict()  # STREAMS_MOST
        self._granted = 0  # bytes of credit beyond WINDOW_FIRST that streams hold
        self._suspects: OrderedDict[int, None] = (
            OrderedDict()
        )  # lanes that gave no sign, or are gone: DEAD_MOST
        self._dead: list[int] = []  # those that the other end is to be told of
        self._pings = 0
        self._told_waiting = 0
        self._events: deque[Event] = deque()
        self.plain = 0  # bytes of streams that went or came, and
        self.travelled = 0  # what they were on the way
        self.peer_waiting = 0  # bytes that the other end could send if it had more lanes

    # Streams --------------------------------------------------------------------------------------------

    def open(self, purpose: bytes) -> int:
        """Open a stream; returns its number.

        Raises:
            BridgeError: too many are open.
        """
        if len(purpose) > PURPOSE_MOST:
            raise ValueError("the purpose of a stream is too long")
        if len(self._streams) >= STREAMS_MOST:
            raise BridgeError("too many streams are open")
        stream = Stream(self._next, True)
        self._next += 2
        self._streams[stream.number] = stream
        stream.waiting += PURPOSE_HEAD.pack(len(purpose)) + purpose
        self._queue(stream)
        return stream.number

    def room(self, number: int) -> int:
        """How many bytes ``write`` would take; 0 for a stream that takes no more."""
        stream = self._streams.get(number)
        if stream is None or stream.out_end is not None or stream.reset is not None:
            return 0
        return max(0, SEND_MOST - len(stream.waiting))

    def write(self, number: int, data: bytes) -> int:
        """Take bytes to send; returns how many. ``Room`` is told when it could be more."""
        taken = min(len(data), self.room(number))
        stream = self._streams.get(number)
        if stream is None:
            return 0
        if taken:
            stream.waiting += data[:taken]
            self._queue(stream)
        if taken < len(data):
            stream.wants_room = True
        return taken

    def ask_room(self, number: int) -> None:
        """Tell ``Room`` when ``write`` takes bytes again."""
        stream = self._streams.get(number)
        if stream is not None:
            stream.wants_room = True

    def finish(self, number: int) -> None:
        """Send no more on this stream; what was taken still goes. The other direction stays open."""
        stream = self._streams.get(number)
        if stream is not None and stream.out_end is None and stream.reset is None:
            stream.out_end = stream.out_next + len(stream.waiting)
            self._queue(stream)

    def reset(self, number: int, reason: str = "") -> None:
        """Give a stream up in both directions; nothing more comes of it."""
        stream = self._streams.get(number)
        if stream is not None and stream.reset is None:
            self._drop_bytes(stream)
            stream.reset = reason
            self._resets[number] = None

    def consumed(self, number: int, size: int, now: float) -> None:
        """The reader took ``size`` bytes of ``Data``: the other end may send as many more."""
        stream = self._streams.get(number)
        if stream is None or stream.reset is not None:
            return
        stream.read_next += size
        if stream.read_next + stream.window - stream.credit_in >= stream.window // 2:
            self._widen(stream, now)
            stream.credit_in = max(stream.credit_in, stream.read_next + stream.window)
            self._owe(stream)

    @property
    def streams(self) -> list[int]:
        """Numbers of the streams that are not over."""
        return [number for number, stream in self._streams.items() if stream.reset is None]

    @property
    def waiting(self) -> int:
        """Bytes that could be sent now if there were more lanes."""
        return sum(self._sendable(stream) for stream in self._turns)

    def _widen(self, stream: Stream, now: float) -> None:
        """Double the window of a reader that takes half of it at once: it has to fill all lanes, and be left over."""
        fast = now - stream.window_at < WINDOW_HALF
        stream.window_at = now
        more = min(stream.window, WINDOW_MOST - stream.window, WINDOWS_TOTAL - self._granted)
        if fast and more > 0:
            stream.window += more
            self._granted += more

    def _queue(self, stream: Stream) -> None:
        if stream.number not in self._queued:
            self._queued.add(stream.number)
            self._turns.append(stream)

    def _owe(self, stream: Stream) -> None:
        stream.owes_ack = True
        self._acks[stream.number] = None

    def _sendable(self, stream: Stream) -> int:
        again = sum(len(chunk.frame) for chunk in stream.again)
        return again + max(0, min(len(stream.waiting), stream.credit_out - stream.out_next))

    def _drop_bytes(self, stream: Stream) -> None:
        """Forget what a stream holds; its lanes no longer carry it."""
        for chunk in stream.flight.values():
            self._landed(chunk)
        stream.flight.clear()
        stream.again.clear()
        del stream.waiting[:]
        stream.pieces.clear()
        del stream.starts[:]
        self._acks.pop(stream.number, None)

    def _forget(self, stream: Stream) -> None:
        self._drop_bytes(stream)
        self._granted -= stream.window - WINDOW_FIRST
        self._streams.pop(stream.number, None)
        self._resets.pop(stream.number, None)

    def _forget_if_over(self, stream: Stream) -> None:
        if stream.delivered and stream.sends_done and stream.reset is None and not stream.owes_ack:
            self._forget(stream)

    # Lanes ----------------------------------------------------------------------------------------------

    def lane_up(self, number: int, now: float) -> None:
        """A lane is open and has shown who it is. The first one that is up is the quick lane."""
        self._lanes[number] = Carrying(number, now)
        self._dead = list(self._suspects)

    def lane_down(self, number: int) -> None:
        """A lane is gone: what it carried goes again over the others."""
        lane = self._lanes.pop(number, None)
        if lane is None:
            return
        self._resend(lane)
        self._say_again(number)
        self._suspect(
            number
        )  # the other end may not see for long that it is gone: its agent may be what is dead

    def _suspect(self, number: int) -> None:
        """Tell the other end, and tell it again of those before: that word may have gone over one of them."""
        self._suspects[number] = None
        while len(self._suspects) > DEAD_MOST:
            self._suspects.popitem(last=False)
        self._dead = list(self._suspects)

    def _say_again(self, number: int) -> None:
        """What a lane carried of ours may have been acknowledgements and resets; nobody knows."""
        self._told_waiting = -1
        for stream in self._streams.values():
            if stream.reset is not None:
                self._resets[stream.number] = None
            else:
                self._owe(stream)
        said = [
            over for over, lane in self._farewells.items() if lane == number and over not in self._streams
        ]
        for over in said:
            del self._farewells[over]
        self._over.extend(said)

    def _resend(self, lane: Carrying) -> None:
        for chunk in lane.sent.values():
            chunk.lane = None
            chunk.stream.again.append(chunk)
            self._queue(chunk.stream)
        lane.sent.clear()
        lane.held = 0

    def lanes(self) -> "Iterator[tuple[int, float | None, int, int, bool]]":
        """Each lane: number, round trip in seconds, bytes unacknowledged, bytes sent in all, whether it is behind."""
        for lane in self._lanes.values():
            yield lane.number, lane.round_trip, lane.held, lane.taken, lane.is_behind

    def ping(self, number: int) -> None:
        """Ask for a sign of life over this lane; ``Answered`` tells."""
        lane = self._lanes.get(number)
        if lane is not None:
            lane.wants_ping = True

    def next_deadline(self) -> "float | None":
        """When ``tick`` has something to do; None: not before something else happens."""
        times = [self._late_at(lane) for lane in self._lanes.values() if lane.asks and not lane.is_behind]
        return min(times) if times else None

    def tick(self, now: float) -> "list[int]":
        """Notice lanes that fell behind, and send what they carry over others. Returns their numbers.

        A lane that fell behind gets nothing new until it shows a sign of life; its owner should replace it.
        """
        late = []
        for lane in self._lanes.values():
            if lane.asks and not lane.is_behind and now >= self._late_at(lane):
                self._leave(lane)
                self._suspect(lane.number)
                late.append(lane.number)
        for lane in self._lanes.values() if late else ():
            # What took one lane may have taken others, and what it carried must not find that out one by one.
            lane.wants_ping = lane.wants_ping or not lane.pings
        return late

    def _leave(self, lane: Carrying) -> None:
        """A lane gives no sign of life: use others, and ask it for one."""
        lane.is_behind = True
        lane.wants_ping = True
        self._resend(lane)
        self._say_again(lane.number)

    def _late_at(self, lane: Carrying) -> float:
        patience = max(BEHIND, 8 * (lane.round_trip or 0.0))
        times = []
        if lane.sent:
            sent_at = next(iter(lane.sent.values())).sent_at
            times.append(min(max(sent_at, lane.heard_at) + patience, sent_at + FORGIVEN * patience))
        if lane.pings:
            times.append(max(next(iter(lane.pings.values())), lane.heard_at) + patience)
        return min(times)

    # Out ------------------------------------------------------------------------------------------------

    def order(self) -> "list[int]":
        """The lanes in the order in which they should be asked for what they carry: the quick one first."""
        return list(self._lanes)

    def outgoing(self, number: int, now: float, most: int = 64 << 10) -> bytes:
        """What a lane carries next: about ``most`` bytes, as far as there are any and it may hold them."""
        lane = self._lanes.get(number)
        if lane is None or most <= 0:
            return b""
        out = bytearray()
        while lane.pongs:
            out += frame_of(PING_BODY.pack(PONG, lane.pongs.popleft(), self.waiting))
        if lane.wants_ping:
            lane.wants_ping = False
            self._pings += 1
            lane.pings[self._pings] = now
            while len(lane.pings) > 8:
                lane.pings.popitem(last=False)
            out += frame_of(PING_BODY.pack(PING, self._pings, self.waiting))
        if lane.is_behind:
            return bytes(out)
        self._put_words(lane, out, most)
        healthy = [one for one in self._lanes.values() if not one.is_behind]
        is_quick = lane is healthy[0]
        bulk_limit = min(QUICK_BULK, lane.limit) if is_quick and len(healthy) > 1 else lane.limit
        while len(out) < most and lane.held < lane.limit:
            chunk = self._next_chunk(now, lane.held < bulk_limit)
            if chunk is None:
                break
            self._carry(lane, chunk, now)
            out += chunk.frame
        lane.taken += len(out)
        return bytes(out)

    def _put_words(self, lane: Carrying, out: bytearray, most: int) -> None:
        """Everything but data: short, and never waits for a lane to have room."""
        while self._dead and len(out) < most:
            out += frame_of(LANE_HEAD.pack(DEAD, self._dead.pop()))
        while self._over and len(out) < most:
            over = self._over.popleft()
            self._remember(over, lane)
            out += frame_of(STREAM_HEAD.pack(RESET_OK, over))
        while self._resets and len(out) < most:
            number, _ = self._resets.popitem(last=False)
            reason = (self._streams[number].reset or "").encode("utf-8", "replace")[:REASON_MOST]
            out += frame_of(STREAM_HEAD.pack(RESET, number) + reason)
        while self._acks and len(out) < most:
            number, _ = self._acks.popitem(last=False)
            stream = self._streams[number]
            stream.owes_ack = False
            out += frame_of(acknowledgement(stream))
            if stream.delivered:
                self._remember(number, lane)
            self._forget_if_over(stream)
        waiting = self.waiting
        if abs(waiting - self._told_waiting) > LANE_FIRST or (self._told_waiting and not waiting):
            self._told_waiting = waiting
            out += frame_of(PING_BODY.pack(PONG, 0, waiting))

    def _remember(self, number: int, lane: Carrying) -> None:
        self._farewells[number] = lane.number
        self._farewells.move_to_end(number)
        if len(self._farewells) > STREAMS_MOST:
            self._farewells.popitem(last=False)

    def _next_chunk(self, now: float, bulk: bool) -> "Chunk | None":
        """The next chunk of the next stream: of one that sends little where there is one."""
        for wanted in (False, True) if bulk else (False,):
            for _ in range(len(self._turns)):
                stream = self._turns.popleft()
                if stream.is_bulk(now) != wanted:
                    self._turns.append(stream)
                    continue
                chunk = waiting_again(stream) or self._cut(stream)
                if chunk is None:
                    self._queued.discard(stream.number)
                    continue
                self._turns.append(stream)
                return chunk
        return None

    def _cut(self, stream: Stream) -> "Chunk | None":
        """Make a chunk of what waits, as far as the other end's credit goes."""
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
        self.plain += size
        self.travelled += len(packed or data)
        chunk = Chunk(stream, stream.out_next, stream.out_next + size + (1 if last else 0), frame)
        stream.flight[chunk.offset] = chunk
        stream.out_next += size
        stream.last_sent = stream.last_sent or last
        if stream.wants_room and len(stream.waiting) <= SEND_MOST // 2:
            stream.wants_room = False
            self._events.append(Room(stream.number))
        return chunk

    def _carry(self, lane: Carrying, chunk: Chunk, now: float) -> None:
        chunk.lane = lane.number
        chunk.sent_at = now
        chunk.stream.bulk_bytes += len(chunk.frame)
        lane.held += len(chunk.frame)
        lane.sent[id(chunk)] = chunk

    def _landed(self, chunk: Chunk, now: "float | None" = None) -> None:
        """A chunk needs its lane no longer. ``now``: it was acknowledged, and the lane can learn from that."""
        lane = self._lanes.get(chunk.lane) if chunk.lane is not None else None
        chunk.lane = None
        if lane is None:
            return
        lane.held -= len(chunk.frame)
        del lane.sent[id(chunk)]
        if now is not None:
            lane.heard_at = now
            learn(lane, now - chunk.sent_at)

    # In -------------------------------------------------------------------------------------------------

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
        self._suspects.pop(number, None)
        lane.buffer += data
        position, size = 0, len(lane.buffer)
        view = memoryview(lane.buffer)
        try:
            while size - position >= LENGTH_PREFIX.size:
                (length,) = LENGTH_PREFIX.unpack_from(view, position)
                if not 1 <= length <= FRAME_MOST:
                    raise BridgeError(f"a frame of {length} bytes")
                end = position + LENGTH_PREFIX.size + length
                if end > size:
                    break
                self._take(lane, bytes(view[position + LENGTH_PREFIX.size : end]), now)
                position = end
        finally:
            view.release()
            del lane.buffer[:position]

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

    def _incoming(self, number: int) -> "Stream | None":
        """The stream of this number; a new one where it is the other end's next. None: it is over."""
        stream = self._streams.get(number)
        if stream is not None:
            return stream
        if number % 2 == self._parity or (number < self._seen and number not in self._skipped):
            return None
        if len(self._streams) + len(self._skipped) + (number - self._seen) // 2 >= STREAMS_MOST:
            raise BridgeError("too many streams")
        self._skipped.update(range(self._seen, number, 2))
        self._seen = max(self._seen, number + 2)
        self._skipped.discard(number)
        stream = self._streams[number] = Stream(number, False)
        return stream

    def _take_data(self, frame: bytes) -> None:
        number = DATA_HEAD.unpack_from(frame)[1]
        stream = self._incoming(number)
        if stream is None:
            self._over.append(number)
            return
        if stream.reset is not None:
            return
        offset, data = contents(stream, frame)
        self.plain += len(data)
        self.travelled += len(frame) - DATA_HEAD.size
        self._owe(stream)
        place(stream, offset, data, self._events)

    def _take_ack(self, frame: bytes, now: float) -> None:
        _, number, received, credit = ACK_HEAD.unpack_from(frame)
        stream = self._streams.get(number)
        if stream is None or stream.reset is not None:
            return
        if received > stream.out_next + 1:
            raise BridgeError(f"stream {number}: acknowledges what was not sent")
        flight = stream.flight
        while flight:
            first = next(iter(flight.values()))
            if first.end > received:
                break
            del flight[first.offset]
            self._landed(first, now)
        for at in range(ACK_HEAD.size, len(frame), ACK_RANGE.size):
            begin, end = ACK_RANGE.unpack_from(frame, at)
            while begin < end and begin in flight:
                chunk = flight.pop(begin)
                begin = chunk.end
                self._landed(chunk, now)
        if credit > stream.credit_out:
            stream.credit_out = credit
            if stream.waiting:
                self._queue(stream)
        self._forget_if_over(stream)

    def _take_reset(self, frame: bytes) -> None:
        _, number = STREAM_HEAD.unpack_from(frame)
        stream = self._incoming(number)
        self._over.append(number)
        if stream is None:
            return
        if stream.reset is None and stream.head is None:
            reason = frame[STREAM_HEAD.size : STREAM_HEAD.size + REASON_MOST].decode("utf-8", "replace")
            self._events.append(WasReset(number, reason))
        self._forget(stream)

    def _take_reset_ok(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        if stream.reset is None and not (stream.delivered and stream.last_sent):
            self._events.append(WasReset(number, "the other end no longer knows this stream"))
        self._forget(stream)
