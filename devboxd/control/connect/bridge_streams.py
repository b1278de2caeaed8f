"""The streams of a bridge at our end: what has arrived for each, who waits to write, and who takes what the box accepts.

They know of no lanes: ``changed`` is called when there may be something to send.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from devboxd.boxside import bridgehead
from devboxd.control.base.time import Time
from devboxd.control.connect.stream import Arrivals, Backlog, ConnectionRefused, StreamReset
from devboxd.errors import DevboxError
from devboxd.model.bridge.end import Bridge
from devboxd.model.bridge.wire import Answered, Data, Ended, Opened, Room, WasReset
from devboxd.model.patience import arrived
from devboxd.text import one_line

if TYPE_CHECKING:
    from devboxd.model.bridge.wire import Event

Accepted = Callable[["BridgeStream", bytes], None]


class BridgeStream:
    """One stream over a bridge. ``read`` and ``write`` each by one task at a time."""

    def __init__(
        self, streams: Streams, number: int, arrivals: Arrivals, *, tells: bool = False, heard: bool = False
    ) -> None:
        """Make it. ``tells``: what comes begins with the far end's word that it is connected; ``heard``: that was taken."""
        self.number = number
        self.streams = streams
        self.unwritten = b""  # what ``write`` was given and the bridge has not taken
        self._arrivals = arrivals
        self._tells = tells
        self._heard = heard or not tells
        self._first = b""  # what came with that word

    async def read(self) -> bytes:
        """The next bytes; empty at the far end's close, and at ours.

        Raises:
            StreamReset, ConnectionRefused: there will be no more, and not by an orderly close.
        """
        if not self._heard:
            await self.answered()
        if first := self._first:
            self._first = b""
            return first
        return await self._next()

    async def answered(self) -> bool:
        """Wait until it is connected to something on the box; False where this bridgehead does not tell.

        Raises:
            StreamReset, ConnectionRefused: it is not, or not any more.
        """
        if not self._heard:
            data = await self._next()
            self._heard = True
            if data and not data.startswith(bridgehead.CONNECTED):
                self.close()
                raise StreamReset("the bridgehead does not keep to what it promised")
            self._first = data[len(bridgehead.CONNECTED) :]
        return self._tells

    async def _next(self) -> bytes:
        data = await self._arrivals.read()
        self.streams.consumed(self.number, len(data))
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the bridge takes no more.

        Raises:
            StreamReset: the stream is gone.
        """
        self.unwritten = data
        while self.unwritten:
            if self._arrivals.error is not None:
                raise self._arrivals.error
            self.unwritten = self.unwritten[self.streams.write(self.number, self.unwritten) :]
            if self.unwritten:
                await self.streams.room(self.number)

    def accept(self, accepted: Accepted) -> None:
        """This one stands for a listener on the box: hand on what it accepts."""
        self.streams.accept(self.number, accepted)

    def finish(self) -> bool:
        """Send no more: the far end sees the end of input, and may still answer."""
        self.streams.finish(self.number)
        return True

    @property
    def half_closes(self) -> bool:
        """Each direction ends by itself."""
        return True

    async def lost(self) -> bool:
        """Wait, after the far end's close was read, until nobody is there to be written to. Whether bytes were lost by that."""
        while self.number in self.streams:
            await self._arrivals.changed()
        return not self._arrivals.left_whole

    async def part(self) -> None:
        """Send no more, and read no more: wait until all that was written has arrived, or nobody is there."""
        self.streams.finish(self.number)
        await self.streams.arrived(self.number)

    def reset(self) -> None:
        """Cut: the far end sees a reset, not an end."""
        if not self._arrivals.closed:
            self._arrivals.close()
            self.streams.cut(self.number)

    def close(self) -> None:
        """Close both directions; what the far end still sends is dropped."""
        if not self._arrivals.closed:
            self._arrivals.close()
            self.streams.let_go(self.number)

    @property
    def early(self) -> bytes:
        """What came with the far end's word that it is connected, and was not read."""
        return self._first

    @property
    def telling(self) -> tuple[bool, bool]:
        """Whether what comes begins with that word, and whether it was taken."""
        return self._tells, self._heard

    @property
    def is_whole(self) -> bool:
        """Whether it was neither cut nor closed here."""
        return self._arrivals.error is None and self.number in self.streams

    @property
    def is_over(self) -> bool:
        """Whether it came to an orderly end, and was closed here."""
        return self._arrivals.closed and self._arrivals.finished and self._arrivals.error is None

    @property
    def received(self) -> int:
        """Bytes that the far end has ever sent."""
        word = len(bridgehead.CONNECTED) if self._tells else 0
        return max(0, self._arrivals.received - word)

    @property
    def has_begun(self) -> bool:
        """Whether the far end has heard of it."""
        return self._arrivals.received > 0 or arrived(self.streams.end, self.number)[0] > 0

    @property
    def has_arrived(self) -> bool:
        """Whether the far end has all that was written."""
        known, written = arrived(self.streams.end, self.number)
        return known == written and not self.unwritten

    @property
    def is_online(self) -> bool:
        """Whether some lane carries the bridge now."""
        return self.streams.is_online()

    @property
    def answers(self) -> bool:
        """Whether the far end answers what it is asked."""
        return self.streams.answers()

    @property
    def finished(self) -> bool:
        """The far end has closed; what it said before may not have been read yet."""
        return self._arrivals.finished


class Streams:
    """All streams over one bridge, in one life of the far end. Every method but ``room`` and ``measure`` is immediate."""

    def __init__(
        self,
        box: str,
        time: Time,
        changed: Callable[[], None],
        is_online: Callable[[], bool],
        answers: Callable[[], bool] = lambda: True,
        *,
        life: bytes | None = None,
        end: Bridge | None = None,
    ) -> None:
        """Make it. ``changed``: there may be something to send; ``is_online``: whether some lane carries them now;
        ``answers``: whether the far end does.

        ``life`` and ``end``: those of another daemon that has left them to us.
        """
        self.end = end or Bridge(near=True)
        # The far end takes another one for the word to begin afresh.
        self.life = life or secrets.token_bytes(16)
        self.is_online = is_online
        self.answers = answers
        self.unused_since = time.monotonic()
        self._box = box
        self._time = time
        self._changed = changed
        self._streams: dict[int, Arrivals] = {}
        self._rooms: dict[int, asyncio.Event] = {}
        self._backlog = Backlog()
        self._accepting: dict[int, Accepted] = {}
        self._parting: dict[int, asyncio.Event] = {}  # who waits until all has arrived
        self._askers: list[asyncio.Future[float]] = []  # who waits for the answer to a ping

    def __len__(self) -> int:
        return len(self._streams)

    def __contains__(self, number: int) -> bool:
        return number in self._streams

    def open(self, purpose: bytes, *, tells: bool = False) -> BridgeStream:
        """Open a stream. ``tells``: its purpose wants the far end to say that it is connected.

        Raises:
            BridgeError: too many are open.
        """
        return self._begin(self.end.open(purpose), tells=tells)

    def unread(self) -> Iterator[tuple[int, bytes, int, bool]]:
        """What has come of each stream that was not cut: number, what nobody has read, bytes ever, whether it has ended."""
        for number, arrivals in self._streams.items():
            if arrivals.error is None:
                yield number, arrivals.unread, arrivals.received, arrivals.finished

    def resumed(
        self, number: int, waiting: bytes, received: int, *, finished: bool, tells: bool, heard: bool
    ) -> BridgeStream:
        """Go on with a stream of another daemon's: as ``unread`` and ``BridgeStream.telling`` have it."""
        arrivals = Arrivals(self._backlog)
        arrivals.put(waiting)
        arrivals.received = received
        if finished:
            arrivals.finish()
        self._streams[number] = arrivals
        return BridgeStream(self, number, arrivals, tells=tells, heard=heard)

    def give_up_others(self) -> None:
        """Reset what another daemon had open and nobody goes on with."""
        for number in self.end.streams:
            if number not in self._streams:
                self.end.reset(number, "closed")
        self._changed()

    def lose(self, error: DevboxError) -> None:
        """The far end is gone, and all streams with it: what is opened next belongs to others."""
        for number, arrivals in list(self._streams.items()):
            arrivals.fail(error)
            self._forget(number)

    def accept(self, number: int, accepted: Accepted) -> None:
        """Hand on what the far end's listener of this stream accepts."""
        self._accepting[number] = accepted

    def _begin(self, number: int, *, tells: bool = False) -> BridgeStream:
        arrivals = self._streams[number] = Arrivals(self._backlog)
        self._changed()
        return BridgeStream(self, number, arrivals, tells=tells)

    def write(self, number: int, data: bytes) -> int:
        """Take bytes of a stream; returns how many.

        Raises:
            StreamReset: the stream is gone.
        """
        if number not in self._streams:
            raise StreamReset("the connection is closed")
        taken = self.end.write(number, data)
        self._changed()
        return taken

    async def room(self, number: int) -> None:
        """Wait until a stream, of which ``write`` has just not taken all, takes bytes again or is gone."""
        event = self._rooms.setdefault(number, asyncio.Event())
        event.clear()
        await event.wait()

    def consumed(self, number: int, size: int) -> None:
        """The reader took bytes."""
        self.end.consumed(number, size, self._time.monotonic())
        self._changed()

    def finish(self, number: int) -> None:
        """A stream's writer is done."""
        self.end.finish(number)
        self._changed()

    async def arrived(self, number: int) -> None:
        """Wait until the far end has all that a stream's writer said, or the stream is gone."""
        while number in self._streams and not self.end.has_arrived(number):
            event = self._parting.setdefault(number, asyncio.Event())
            event.clear()
            await event.wait()

    def cut(self, number: int) -> None:
        """Reset a stream, also where the far end has closed."""
        if self._streams.pop(number, None) is not None:
            self.end.reset(number, "closed")
            self._forget(number)
            self._changed()

    def let_go(self, number: int) -> None:
        """A stream's user is done with both directions."""
        arrivals = self._streams.pop(number, None)
        if arrivals is None:
            return
        if arrivals.finished:
            self.end.finish(number)
        else:
            self.end.reset(number, "closed")
        self._forget(number)
        self._changed()

    def _forget(self, number: int) -> None:
        self._streams.pop(number, None)
        self._accepting.pop(number, None)
        for waiting in (self._rooms, self._parting):
            if (event := waiting.pop(number, None)) is not None:
                event.set()
        if not self._streams:
            self.unused_since = self._time.monotonic()

    def happened(self) -> None:
        """The bridge brought something."""
        for event in self.end.events():
            self._act(event)
        for parting in self._parting.values():
            parting.set()
        self._changed()

    def _act(self, event: Event) -> None:
        match event:
            case Data(number, data):
                arrivals = self._streams.get(number)
                if arrivals is None:
                    self.end.consumed(number, len(data), self._time.monotonic())
                else:
                    arrivals.put(data)
            case Ended(number):
                if (arrivals := self._streams.get(number)) is not None:
                    arrivals.finish()
            case WasReset(number, reason, lost):
                if (arrivals := self._streams.get(number)) is not None:
                    arrivals.left_whole = not lost and reason.startswith(bridgehead.GONE)
                    arrivals.fail(_failure(reason, self._box))
                self._forget(number)
            case Room(number):
                if (room := self._rooms.get(number)) is not None:
                    room.set()
            case Opened(number, purpose):
                self._accepted(number, purpose)
            case Answered(_, seconds):
                for asker in self._askers:
                    if not asker.done():
                        asker.set_result(seconds)
                self._askers.clear()

    def _accepted(self, number: int, purpose: bytes) -> None:
        listener = bridgehead.accepted_by(purpose)
        accepted = self._accepting.get(listener) if listener is not None else None
        if accepted is None:
            self.end.reset(number, "nobody asked for this")
        else:
            accepted(self._begin(number), purpose)

    async def measure(self) -> float:
        """Seconds to the bridgehead and back, over the quick lane."""
        answer: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._askers.append(answer)
        self.end.ping(self.end.order()[0])
        self._changed()
        return await answer


def _failure(reason: str, box: str) -> DevboxError:
    """What a reset means here: the bridgehead's reasons begin with the symbol of an error number."""
    word, _, text = one_line(reason).partition(" ")
    if word == "ECONNREFUSED":
        return ConnectionRefused(f"nothing listens there ({box})")
    return StreamReset(f"cut by {box}: {text or word}" if word else f"cut by {box}", word)
