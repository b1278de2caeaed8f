"""All streams of one end of a bridge: whose number is which, which are over, and the credit that they share."""

from devboxd.model.bridge.stream import Stream
from devboxd.model.bridge.wire import (
    STREAMS_MOST,
    WINDOW_FIRST,
    WINDOW_HALF,
    WINDOW_MOST,
    WINDOWS_TOTAL,
    BridgeError,
)


class Streams:
    """The streams that are not over, by number."""

    def __init__(self, near: bool) -> None:
        self.by_number: dict[int, Stream] = {}
        self.parity = 0 if near else 1
        self.next = self.parity  # number of the next stream that we open
        self.seen = 1 - self.parity  # the least number of the other end's that was not seen yet
        self.skipped: set[int] = set()  # those of its numbers below that, whose first frame is on its way
        self.granted = 0  # bytes of credit beyond WINDOW_FIRST that streams hold

    def open(self) -> Stream:
        """A new one of ours.

        Raises:
            BridgeError: too many are open.
        """
        if len(self.by_number) >= STREAMS_MOST:
            raise BridgeError("too many streams are open")
        stream = self.by_number[self.next] = Stream(self.next, True)
        self.next += 2
        return stream

    def incoming(self, number: int) -> "Stream | None":
        """The stream of this number; a new one where it is the other end's next. None: it is over.

        Raises:
            BridgeError: the other end opened too many.
        """
        stream = self.by_number.get(number)
        if stream is not None:
            return stream
        if number % 2 == self.parity or (number < self.seen and number not in self.skipped):
            return None
        if len(self.by_number) + len(self.skipped) + (number - self.seen) // 2 >= STREAMS_MOST:
            raise BridgeError("too many streams")
        self.skipped.update(range(self.seen, number, 2))
        self.seen = max(self.seen, number + 2)
        self.skipped.discard(number)
        stream = self.by_number[number] = Stream(number, False)
        return stream

    def widen(self, stream: Stream, now: float) -> None:
        """Double the window of a reader that takes half of it at once: it has to fill all lanes, and be left over."""
        fast = now - stream.window_at < WINDOW_HALF
        stream.window_at = now
        more = min(stream.window, WINDOW_MOST - stream.window, WINDOWS_TOTAL - self.granted)
        if fast and more > 0:
            stream.window += more
            self.granted += more

    def forget(self, stream: Stream) -> None:
        """One is over; its credit is free for others."""
        self.granted -= stream.window - WINDOW_FIRST
        self.by_number.pop(stream.number, None)
