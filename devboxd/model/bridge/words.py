"""What one end of a bridge has still to say beside the bytes of streams: short words that wait for no lane to have room.

Nobody acknowledges them, so they are said again where the lane that carried them may have died with them.
"""

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from devboxd.model.bridge.stream import Stream
from devboxd.model.bridge.wire import (
    ACK,
    ACK_HEAD,
    ACK_RANGE,
    DEAD,
    DEAD_MOST,
    LANE_FIRST,
    LANE_HEAD,
    PING_BODY,
    PONG,
    RANGES_MOST,
    REASON_MOST,
    RESET,
    RESET_OK,
    STREAM_HEAD,
    STREAMS_MOST,
    frame_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


class Words:
    """Acknowledgements, resets, which lanes seem dead, and how much waits."""

    def __init__(self) -> None:
        self._acks: OrderedDict[int, Stream] = OrderedDict()  # streams that owe an acknowledgement
        self._resets: OrderedDict[int, Stream] = OrderedDict()  # streams whose reset is to be sent
        self.over: deque[int] = deque(maxlen=STREAMS_MOST)  # RESET_OK to send
        # Streams that are over here, and the lane that carried our last word on them: should it die, the other end
        # may wait for that word for ever.
        self.farewells: OrderedDict[int, int] = OrderedDict()  # STREAMS_MOST
        self.suspects: OrderedDict[int, None] = OrderedDict()  # lanes without a sign, or gone: DEAD_MOST
        self._dead: list[int] = []  # those that the other end is to be told of
        self.told_waiting = 0  # bytes; -1: nobody knows what it was told last

    def owe(self, stream: Stream) -> None:
        """Acknowledge what came of a stream, and give credit."""
        stream.owes_ack = True
        self._acks[stream.number] = stream

    def reset(self, stream: Stream) -> None:
        """Say that a stream is given up."""
        self._acks.pop(stream.number, None)
        self._resets[stream.number] = stream

    def say_over(self, number: int) -> None:
        """Tell the other end to forget a stream, too."""
        self.over.append(number)

    def forget(self, number: int) -> None:
        """A stream is over: neither its acknowledgement nor its reset is to be sent."""
        self._acks.pop(number, None)
        self._resets.pop(number, None)

    def suspect(self, lane: int) -> None:
        """Tell of this lane, and again of those before: that word may have gone over one of them."""
        self.suspects[lane] = None
        while len(self.suspects) > DEAD_MOST:
            self.suspects.popitem(last=False)
        self.tell_of_suspects()

    def trust(self, lane: int) -> None:
        """It gave a sign of life."""
        self.suspects.pop(lane, None)

    def tell_of_suspects(self) -> None:
        """Tell again of all lanes that seem dead."""
        self._dead = list(self.suspects)

    def say_again(self, lane: int, streams: "Mapping[int, Stream]") -> None:
        """What this lane carried of ours may have been acknowledgements and resets; nobody knows. ``streams``: all."""
        self.told_waiting = -1
        for stream in streams.values():
            if stream.reset is not None:
                self._resets[stream.number] = stream
            else:
                self.owe(stream)
        said = [over for over, by in self.farewells.items() if by == lane and over not in streams]
        for over in said:
            del self.farewells[over]
        self.over.extend(said)

    def put(self, lane: int, out: bytearray, most: int) -> "list[Stream]":
        """Put on a lane what is to be said, until ``out`` has ``most`` bytes; returns streams that owe no more."""
        while self._dead and len(out) < most:
            out += frame_of(LANE_HEAD.pack(DEAD, self._dead.pop()))
        while self.over and len(out) < most:
            over = self.over.popleft()
            self._remember(over, lane)
            out += frame_of(STREAM_HEAD.pack(RESET_OK, over))
        while self._resets and len(out) < most:
            number, stream = self._resets.popitem(last=False)
            reason = (stream.reset or "").encode("utf-8", "replace")[:REASON_MOST]
            out += frame_of(STREAM_HEAD.pack(RESET, number) + reason)
        said = []
        while self._acks and len(out) < most:
            number, stream = self._acks.popitem(last=False)
            stream.owes_ack = False
            out += frame_of(acknowledgement(stream))
            if stream.delivered:
                self._remember(number, lane)
                said.append(stream)
        return said

    def put_waiting(self, out: bytearray, waiting: int) -> None:
        """Say how many bytes wait, where that is not what the other end believes."""
        if abs(waiting - self.told_waiting) > LANE_FIRST or (self.told_waiting and not waiting):
            self.told_waiting = waiting
            out += frame_of(PING_BODY.pack(PONG, 0, waiting))

    def _remember(self, number: int, lane: int) -> None:
        self.farewells[number] = lane
        self.farewells.move_to_end(number)
        if len(self.farewells) > STREAMS_MOST:
            self.farewells.popitem(last=False)


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
