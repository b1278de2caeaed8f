"""Whose turn it is: streams that have something to send, chunk by chunk, those that send little before the others."""

from collections import deque
from typing import TYPE_CHECKING

from devboxd.model.bridge.outgoing import cut, waiting_again
from devboxd.model.bridge.stream import Chunk, Stream
from devboxd.model.bridge.wire import BEFORE_DATA

if TYPE_CHECKING:
    from devboxd.model.bridge.wire import Event


class Turns:
    """Streams in turns. One that is over is found to have nothing when its turn comes."""

    def __init__(self) -> None:
        self.cut = 0  # bytes of streams that were made chunks, and
        self.travelled = 0  # what they are on the way
        self._streams: deque[Stream] = deque()
        self._queued: set[int] = set()  # their numbers

    def add(self, stream: Stream) -> None:
        """It may have something to send."""
        if stream.number not in self._queued:
            self._queued.add(stream.number)
            self._streams.append(stream)

    @property
    def waiting(self) -> int:
        """Bytes that could be sent now if there were more lanes."""
        return sum(stream.sendable for stream in self._streams)

    def next(self, now: float, bulk: bool, events: "deque[Event]") -> "Chunk | None":
        """The next chunk of the next stream: of one that sends little where there is one. ``events`` as for ``cut``."""
        for wanted in (False, True) if bulk else (False,):
            for _ in range(len(self._streams)):
                stream = self._streams.popleft()
                if stream.is_bulk(now) != wanted:
                    self._streams.append(stream)
                    continue
                chunk = waiting_again(stream)
                if chunk is None:
                    begin = stream.out_next
                    chunk = cut(stream, events)
                    if chunk is None:
                        self._queued.discard(stream.number)
                        continue
                    self.cut += stream.out_next - begin
                    self.travelled += len(chunk.frame) - BEFORE_DATA
                self._streams.append(stream)
                return chunk
        return None
