"""The loop of the bridgehead."""

import hashlib
import hmac
import json
import os
import selectors
import socket
import time
from collections import deque
from typing import TYPE_CHECKING

from devboxd.boxside.programs.head.auth import GREETING, STRANGER_TIME, STRANGERS_MOST, LaneSocket
from devboxd.boxside.programs.head.pipe import (
    GONE,
    Handler,
    Hangups,
    Listener,
    Lookup,
    Pipe,
    Queuing,
    accepted,
)
from devboxd.boxside.programs.head.program import Control, Program
from devboxd.boxside.programs.head.reach import addresses, may_connect, reason
from devboxd.boxside.programs.head.watch import Agents, Watch
from devboxd.model.bridge.end import Bridge
from devboxd.model.bridge.wire import BridgeError, Data, Ended, Opened, Room, WasReset

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Want = dict[str, Any]
    Watchable = int | socket.socket


LOOKUPS_MOST = 8  # names that are looked up at once: each has a thread


class Door(Handler):
    """A socket at which lanes ask to be let in."""

    def __init__(self, head: "Head", sock: socket.socket) -> None:
        Handler.__init__(self, head, -1)
        self.sock = sock
        self.on_time()

    def on_time(self) -> None:
        """Let them in."""
        self.head.watch(self.sock, selectors.EVENT_READ, self)

    def ready(self, mask: int) -> None:
        """A stranger."""
        one = accepted(self.head, self, self.sock)
        if one is not None:
            self.head.accept(*one)


class Head:
    """The loop: lanes on one side, handlers of streams on the other, the bridge between."""

    def __init__(self, secret: bytes, linger: float, folder: str) -> None:
        self.secret = secret
        self.folder = folder
        self.linger = linger
        self.selector = selectors.DefaultSelector()
        self.bridge = Bridge(False)
        self.life = b""
        self.strangers: list[LaneSocket] = []
        self.lanes: dict[int, LaneSocket] = {}
        self.handlers: dict[int, Handler] = {}
        self.programs: dict[int, Program] = {}
        self.timers: dict[Handler, float] = {}
        self.lonely_since = time.monotonic()
        self.masks: dict[int, tuple[int, Any]] = {}
        self.hangups = Hangups(self)
        self.leaving: dict[int, Pipe] = {}  # to be reset once all that they said has arrived
        self.waker = -1  # a pipe whose other end the loop watches
        self.lookups: deque[Lookup] = deque()  # that wait for a thread
        self.looking = 0  # threads
        self.found: deque[Lookup] = deque()  # of threads that are done

    def proof(self, who: bytes, greeting: bytes, nonce: bytes) -> bytes:
        """What only who holds the secret can say."""
        return hmac.new(self.secret, who + greeting + nonce, hashlib.sha256).digest()

    # Watching -----------------------------------------------------------------------------------------------

    def watch(self, what: "Watchable", mask: int, owner: "Any") -> None:
        """Let ``owner.ready`` be called for these events of a socket or descriptor; none: not at all."""
        key = what if isinstance(what, int) else what.fileno()
        if self.masks.get(key) == (mask, owner):
            return
        if key in self.masks:
            if not mask:
                self.unwatch(what)
            else:
                self.selector.modify(what, mask, owner)
                self.masks[key] = (mask, owner)
        elif mask:
            self.selector.register(what, mask, owner)
            self.masks[key] = (mask, owner)

    def unwatch(self, what: "Watchable") -> None:
        """Call nobody any more."""
        key = what if isinstance(what, int) else what.fileno()
        if self.masks.pop(key, None) is not None:
            self.selector.unregister(what)

    def later(self, owner: Handler, seconds: float) -> None:
        """Call ``owner.on_time`` after so many seconds."""
        self.timers[owner] = time.monotonic() + seconds

    # Lanes --------------------------------------------------------------------------------------------------

    def accept(self, sock: socket.socket, peer: "Any") -> None:
        """A stranger. Where there are too many, the one that has waited longest goes."""
        sock.setblocking(False)
        if sock.family == socket.AF_INET:
            if len(self.strangers) * 2 >= STRANGERS_MOST and not may_connect(peer):
                sock.close()
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.strangers.append(LaneSocket(self, sock))
        if len(self.strangers) > STRANGERS_MOST:
            self.lane_lost(self.strangers[0])

    def lane_known(self, lane: "LaneSocket") -> None:
        """It has shown that it is the daemon's. A new life of its end begins with no streams."""
        _, life, number, _ = GREETING.unpack(lane.greeting)
        self.strangers.remove(lane)
        if life != self.life:
            self.begin(life)
        if number in self.lanes:
            self.lane_lost(self.lanes[number])
        lane.number = number
        self.lanes[number] = lane
        self.bridge.lane_up(number, time.monotonic())

    def begin(self, life: bytes) -> None:
        """Forget what another life of the daemon's end had open."""
        for number in list(self.handlers):
            self.drop(number, True)
        for lane in list(self.lanes.values()):
            self.lane_lost(lane)
        self.life = life
        self.bridge = Bridge(False)

    def lane_lost(self, lane: "LaneSocket") -> None:
        """It is gone; what it carried goes again over the others."""
        self.unwatch(lane.sock)
        lane.sock.close()
        if lane in self.strangers:
            self.strangers.remove(lane)
        if lane.number is not None and self.lanes.get(lane.number) is lane:
            del self.lanes[lane.number]
            self.bridge.lane_down(lane.number)
            self.lonely_since = time.monotonic()
        lane.number = None

    def lane_says(self, lane: "LaneSocket", data: bytes) -> None:
        """Frames of the daemon."""
        try:
            self.bridge.received(lane.number or 0, data, time.monotonic())
        except BridgeError:
            self.lane_lost(lane)
        self.look()

    def pump(self) -> None:
        """Put on the lanes what the bridge wants to say: a chunk on each in turn, or one would get all there is."""
        now = time.monotonic()
        order = self.bridge.order()
        while order:
            order = [number for number in order if self.pump_one(number, now)]

    def pump_one(self, number: int, now: float) -> bool:
        """Put one chunk on a lane; says False where it takes none, or there is none."""
        lane = self.lanes.get(number)
        if lane is None or lane.number is None or not lane.room:
            return False
        data = self.bridge.outgoing(number, now, 1)
        lane.out += data
        lane.flush()
        return bool(data)

    # Streams ------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Hand on what the bridge brought."""
        for event in self.bridge.events():
            if isinstance(event, Opened):
                self.opened(event.stream, event.purpose)
                continue
            handler = self.handlers.get(getattr(event, "stream", -1))
            if handler is None:
                if isinstance(event, Data):
                    self.bridge.consumed(event.stream, len(event.data), time.monotonic())
            elif isinstance(event, Data):
                handler.data(event.data)
            elif isinstance(event, Ended):
                handler.ended()
            elif isinstance(event, Room):
                handler.room()
            elif isinstance(event, WasReset):
                self.drop(event.stream, True)

    def opened(self, number: int, purpose: bytes) -> None:
        """Begin what a stream is for."""
        self.serve(number, lambda: self.handler(number, json.loads(purpose.decode())))

    def serve(self, number: int, made: "Callable[[], Handler]") -> None:
        """Have a stream served by what this makes."""
        try:
            handler = made()
        except OSError as error:
            self.give_up(number, reason(error.errno, error.filename))
        except Exception as error:  # noqa: BLE001 - whatever a purpose holds, the others go on
            self.give_up(number, f"{type(error).__name__}: {error}")
        else:
            self.handlers[number] = handler

    def handler(self, number: int, want: "Want") -> "Handler":
        """Who serves this purpose."""
        kind = want["kind"]
        if kind == "tcp":
            lookup = Lookup(self, number, want)
            try:
                lookup.found = addresses(want["host"], int(want["port"]), socket.AI_NUMERICHOST)
            except OSError:
                self.lookups.append(lookup)
                self.look_up()
                return lookup
            return lookup.serve()
        if kind == "unix":
            return Queuing(self, number, want).serve()
        if kind == "exec":
            return Program(self, number, want)
        if kind == "control":
            return Control(self, number, want)
        if kind == "listen":
            return Listener(self, number, want)
        if kind == "watch":
            return Watch(self, number, want)
        if kind == "agents":
            return Agents(self, number, want)
        raise ValueError(f"this bridgehead knows no stream of kind {kind}")

    def look_up(self) -> None:
        """Look up names that are still asked for, a few at a time."""
        while self.lookups and self.looking < LOOKUPS_MOST:
            lookup = self.lookups.popleft()
            if lookup.number in self.bridge.streams:
                self.looking += 1
                lookup.start()

    def looked_up(self, lookup: Lookup) -> None:
        """In a thread: it is done; wake the loop."""
        self.found.append(lookup)
        try:
            os.write(self.waker, b"+")
        except OSError:
            pass  # full: it will wake

    def take_found(self) -> None:
        """Go on with what was looked up and is still asked for."""
        while self.found:
            lookup = self.found.popleft()
            self.looking -= 1
            if self.handlers.get(lookup.number) is lookup:
                self.serve(lookup.number, lookup.serve)
        self.look_up()

    def give_up(self, number: int, reason: str) -> None:
        """End a stream with a reason."""
        self.bridge.reset(number, reason)
        self.drop(number, True)

    def drop(self, number: int, reset: bool = False) -> None:
        """The handler of a stream has done its work."""
        handler = self.handlers.pop(number, None)
        self.leaving.pop(number, None)
        if handler is not None:
            self.timers.pop(handler, None)
            handler.close(reset)

    def finished(self) -> None:
        """Let go of handlers whose stream is over in both directions."""
        for number in [one for one in self.leaving if self.bridge.has_arrived(one)]:
            self.give_up(number, self.leaving[number].deaf or GONE)
        alive = set(self.bridge.streams)
        for number in [one for one in self.handlers if one not in alive]:
            self.drop(number)

    # Life ---------------------------------------------------------------------------------------------------

    def reap(self) -> None:
        """Collect children that have ended. Each of them has woken us."""
        for pid, program in list(self.programs.items()):
            status = program.child.poll()
            if status is not None:
                del self.programs[pid]
                if program.number in self.handlers:
                    program.exited(status if status >= 0 else 128 - status)

    def on_time(self, now: float) -> None:
        """What is due."""
        for owner, due in list(self.timers.items()):
            if due <= now and self.timers.pop(owner, None) is not None:
                owner.on_time()
        for lane in [one for one in self.strangers if now - one.since > STRANGER_TIME]:
            self.lane_lost(lane)
        self.bridge.tick(now)

    def patience(self, now: float) -> float:
        """Seconds until something is due."""
        if self.bridge.has_events:
            return 0.0  # room for those who wait to say more
        times = [now + 60.0]
        times += self.timers.values()
        times += [lane.since + STRANGER_TIME for lane in self.strangers]
        if not self.lanes:
            times.append(self.lonely_since + self.linger)
        deadline = self.bridge.next_deadline()
        if deadline is not None:
            times.append(deadline)
        return max(0.0, min(times) - now)

    def is_forgotten(self, now: float) -> bool:
        """Whether nobody comes back: it has been too long, or its folder was removed and nobody can find it."""
        return now - self.lonely_since >= self.linger or not os.path.isdir(self.folder)

    def run(self, listeners: "list[socket.socket]", wake: int, waker: int) -> None:
        """Serve until nobody is expected any more. ``wake``, ``waker``: a pipe."""
        self.waker = waker
        for one in listeners:
            Door(self, one)
        self.watch(wake, selectors.EVENT_READ, None)
        while True:
            if not self.lanes and not self.strangers and self.is_forgotten(time.monotonic()):
                return
            woken = False
            for key, mask in self.selector.select(self.patience(time.monotonic())):
                if key.fileobj == wake:
                    os.read(wake, 4096)
                    woken = True
                elif self.masks.get(key.fd, (0, self))[1] is key.data:
                    key.data.ready(mask)  # not who had this number a moment ago
            if woken:
                self.reap()
                self.take_found()
            self.on_time(time.monotonic())
            self.look()
            self.finished()
            self.pump()
