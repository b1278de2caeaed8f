"""The bridge to one user of one box: started when first needed, held over any number of sessions.

Streams belong to the bridge, not to a session: a lane (one session) may end at any moment, its streams go on over the
next. What runs at the other end is ``boxside/programs/bridgehead.py``; what both ends say is ``model.bridge``; how many
lanes there should be is ``model.lanes``. Where a bridge can not be had (no Python on the box, documents denied,
``bridge = "never"``) ``Bridges.stream`` says so once and returns None: its caller goes today's way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import msgspec

from devboxd.boxside import bridgehead
from devboxd.control.base.shared import Shared
from devboxd.control.base.supervisor import Supervisor
from devboxd.control.connect.bridge_start import Note, Unavailable, start
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.lane import Lane, NotOurs
from devboxd.control.connect.port import PortSession, PortTarget
from devboxd.control.connect.sessions import Sessions
from devboxd.control.connect.stream import Arrivals, Backlog, ConnectionRefused, StreamReset
from devboxd.control.connect.terminal import Terminal
from devboxd.errors import Denied, DevboxError, DocumentInvalid, Unreachable, WrongState
from devboxd.model.box import BoxRef
from devboxd.model.bridge.end import Bridge
from devboxd.model.bridge.wire import PURPOSE_MOST, Answered, BridgeError, Data, Ended, Opened, Room, WasReset
from devboxd.model.config import Config
from devboxd.model.lanes import LaneSeen, Seen, Verdict, verdict
from devboxd.ssm import documents
from devboxd.text import one_line

if TYPE_CHECKING:
    from devboxd.model.bridge.wire import Event

log = logging.getLogger(__name__)

LOOK: Final = 0.25  # seconds between two looks at the lanes while there is something to carry
LOOK_QUIET: Final = 5.0  # the same while there is not
WITHOUT: Final = 600.0  # seconds that a box which can have no bridge is not asked again
WITHOUT_NOW: Final = (
    10.0  # the same where it may be able to in a moment: what comes meanwhile goes the old way
)
FIRST: Final = 20.0  # seconds that a stream waits for a bridge that never was up; then it goes the old way
LANE_TRIES: Final = 3  # lanes that fail before the first is up until the bridge is given up

Run = Callable[[ExecSpec, Terminal], Awaitable[object]]
Accepted = Callable[["BridgeStream", bytes], None]


class BridgeStream:
    """One stream over a bridge. ``read`` and ``write`` each by one task at a time."""

    def __init__(self, bridge: HeldBridge, number: int, arrivals: Arrivals) -> None:
        self.number = number
        self.bridge = bridge
        self._arrivals = arrivals

    async def read(self) -> bytes:
        """The next bytes; empty at the far end's close, and at ours.

        Raises:
            StreamReset, ConnectionRefused: there will be no more, and not by an orderly close.
        """
        data = await self._arrivals.read()
        self.bridge.consumed(self.number, len(data))
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the bridge takes no more.

        Raises:
            StreamReset: the stream is gone.
        """
        view = memoryview(data)
        while view:
            if self._arrivals.error is not None:
                raise self._arrivals.error
            taken = self.bridge.write(self.number, bytes(view))
            view = view[taken:]
            if view:
                await self.bridge.room(self.number)

    def finish(self) -> bool:
        """Send no more: the far end sees the end of input, and may still answer."""
        self.bridge.finish(self.number)
        return True

    def close(self) -> None:
        """Close both directions; what the far end still sends is dropped."""
        if not self._arrivals.closed:
            self._arrivals.close()
            self.bridge.let_go(self.number)

    @property
    def received(self) -> int:
        """Bytes that the far end has ever sent."""
        return self._arrivals.received

    @property
    def is_online(self) -> bool:
        """Whether some lane carries the bridge now."""
        return self.bridge.is_online

    @property
    def finished(self) -> bool:
        """The far end has closed; what it said before may not have been read yet."""
        return self._arrivals.finished


class LaneFacts(msgspec.Struct, frozen=True):
    """A lane, for views. ``round_trip`` in seconds, once measured."""

    number: int
    session: str | None
    is_up: bool
    is_behind: bool
    round_trip: float | None
    held: int
    carried: int


class BridgeFacts(msgspec.Struct, frozen=True):
    """A bridge as it stands, for views."""

    box: str
    user: str | None
    lanes: list[LaneFacts]
    streams: int
    waiting: int
    without: str | None  # why there is none


class HeldBridge:
    """One bridge. Every method but ``opened`` is immediate."""

    def __init__(
        self, sessions: Sessions, box: BoxRef, user: str | None, run: Run, secret: bytes, life: bytes
    ) -> None:
        self.box = box
        self.user = user
        self.without: str | None = None  # why there can be no bridge
        self.config = Config()
        self._sessions = sessions
        self._shared: Shared = sessions.shared
        self._run = run
        self._secret = secret
        self._life = life
        self._tasks = Supervisor(f"bridge to {box.name}")
        self._bridge = Bridge(near=True)
        self._note: Note | None = None
        self._lanes: dict[int, Lane] = {}
        self._lane_count = 0
        self._streams: dict[int, Arrivals] = {}
        self._rooms: dict[int, asyncio.Event] = {}
        self._backlog = Backlog()
        self._accepting: dict[int, Accepted] = {}
        self._up = asyncio.Event()
        self._look = asyncio.Event()
        self._wanted = 0
        self._failures = 0
        self._failed_at = float("-inf")
        self._unused_since = sessions.shared.time.monotonic()
        self._checked_at = float("-inf")
        self._asks_again = WITHOUT
        self._was_up = False
        self._keeper: asyncio.Task[None] | None = None
        self._askers: list[asyncio.Future[float]] = []  # who waits for the answer to a ping

    # Streams ----------------------------------------------------------------------------------------

    async def opened(self, purpose: bytes, wait: float | None) -> BridgeStream:
        """Open a stream, as soon as some lane is up.

        Raises:
            Unavailable: this box can have no bridge.
            DevboxError: it could not be reached in time.
        """
        self._wanted += 1
        try:
            self.keep()
            patience = wait if self._was_up else FIRST if wait is None else min(wait, FIRST)
            try:
                async with asyncio.timeout(patience):
                    await self._up.wait()
            except TimeoutError:
                if not self._was_up:
                    raise Unavailable("it did not come up in time") from None
                raise Unreachable(f"{self.box.name} could not be reached in time") from None
        finally:
            self._wanted -= 1
        if self.without is not None:
            raise Unavailable(self.without)
        try:
            return self._begin(self._bridge.open(purpose))
        except BridgeError as error:
            raise Unreachable(f"{error} ({self.box.name})") from error

    def accept(self, stream: BridgeStream, accepted: Accepted) -> None:
        """Hand on what the far end's listener of this stream accepts."""
        self._accepting[stream.number] = accepted

    def _begin(self, number: int) -> BridgeStream:
        arrivals = self._streams[number] = Arrivals(self._backlog)
        self._flush()
        return BridgeStream(self, number, arrivals)

    def write(self, number: int, data: bytes) -> int:
        """Take bytes of a stream; returns how many."""
        taken = self._bridge.write(number, data)
        self._flush()
        return taken

    async def room(self, number: int) -> None:
        """Wait until a stream takes bytes again, or is gone."""
        if number in self._streams and not self._bridge.room(number):
            event = self._rooms.setdefault(number, asyncio.Event())
            self._bridge.ask_room(number)
            event.clear()
            await event.wait()

    def consumed(self, number: int, size: int) -> None:
        """The reader took bytes."""
        self._bridge.consumed(number, size, self._shared.time.monotonic())
        self._flush()

    def finish(self, number: int) -> None:
        """A stream's writer is done."""
        self._bridge.finish(number)
        self._flush()

    def let_go(self, number: int) -> None:
        """A stream's user is done with both directions."""
        arrivals = self._streams.pop(number, None)
        if arrivals is None:
            return
        if arrivals.finished:
            self._bridge.finish(number)
        else:
            self._bridge.reset(number, "closed")
        self._forget(number)
        self._flush()

    def _forget(self, number: int) -> None:
        self._streams.pop(number, None)
        self._accepting.pop(number, None)
        if (event := self._rooms.pop(number, None)) is not None:
            event.set()
        if not self._streams:
            self._unused_since = self._shared.time.monotonic()

    def _happened(self) -> None:
        """The bridge brought something."""
        for event in self._bridge.events():
            self._act(event)
        self._flush()

    def _act(self, event: Event) -> None:
        match event:
            case Data(number, data):
                arrivals = self._streams.get(number)
                if arrivals is None:
                    self._bridge.consumed(number, len(data), self._shared.time.monotonic())
                else:
                    arrivals.put(data)
            case Ended(number):
                if (arrivals := self._streams.get(number)) is not None:
                    arrivals.finish()
            case WasReset(number, reason):
                if (arrivals := self._streams.get(number)) is not None:
                    arrivals.fail(_failure(reason, self.box.name))
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
            self._bridge.reset(number, "nobody asked for this")
        else:
            accepted(self._begin(number), purpose)

    @property
    def agent_version(self) -> str:
        """Of the agent that carries its lanes; empty where it is not known."""
        channels = [lane.session.held.channel for lane in self._lanes.values()]
        return next((one.agent_version for one in channels if one is not None), "")

    async def measure(self) -> float:
        """Seconds to the bridgehead and back, over the quick lane."""
        answer: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._askers.append(answer)
        self._bridge.ping(self._bridge.order()[0])
        self._flush()
        return await answer

    def _flush(self) -> None:
        for lane in self._lanes.values():
            lane.wake()
        if self._waiting:
            self._look.set()

    # Lanes ------------------------------------------------------------------------------------------

    @property
    def is_online(self) -> bool:
        """Whether some lane carries it now."""
        return any(lane.is_up and lane.is_linked for lane in self._lanes.values())

    @property
    def _waiting(self) -> int:
        """Bytes that both ends could send if there were more lanes."""
        return self._bridge.waiting + self._bridge.peer_waiting

    def facts(self) -> BridgeFacts:
        """How it stands."""
        measured = {number: rest for number, *rest in self._bridge.lanes()}
        lanes = [
            LaneFacts(
                number,
                lane.session.held.id,
                lane.is_up,
                bool(known[3]) if (known := measured.get(number)) else False,
                known[0] if known else None,
                int(known[1] or 0) if known else 0,
                int(known[2] or 0) if known else 0,
            )
            for number, lane in self._lanes.items()
        ]
        return BridgeFacts(
            self.box.name, self.user, lanes, len(self._streams), self._bridge.waiting, self.without
        )

    def keep(self) -> None:
        """See to it that somebody holds the bridge; ask again a box that could have none."""
        now = self._shared.time.monotonic()
        if self.without is not None and now - self._checked_at > self._asks_again:
            self.without = None
            self._up.clear()
        if self.without is None and (self._keeper is None or self._keeper.done()):
            self._keeper = self._tasks.spawn("keeper", self._hold())
        self._look.set()

    async def _hold(self) -> None:
        """Hold the bridge until nobody has used it for a while."""
        try:
            while True:
                if self._note is None:
                    await self._start()
                if self.without is not None:
                    return
                said = self._decide()
                for number in said.retires:
                    if (lane := self._lanes.pop(number, None)) is not None:
                        self._bridge.lane_down(number)
                        self._shared.tasks.spawn(f"end of lane {number}", lane.session.held.stop())
                for _ in range(said.opens):
                    self._open_lane()
                if not self._lanes and not self._streams and not self._wanted and not said.opens:
                    return
                await self._sleep()
                for number in self._bridge.tick(self._shared.time.monotonic()):
                    log.info(
                        "lane %d to %s fell behind; what it carries goes over others", number, self.box.name
                    )
                self._flush()
        finally:
            if self.without is not None:
                self._up.set()

    async def _sleep(self) -> None:
        self._look.clear()
        busy = self._waiting or self._wanted or any(not lane.is_up for lane in self._lanes.values())
        deadline = self._bridge.next_deadline()
        seconds = LOOK if busy else LOOK_QUIET
        if deadline is not None:
            seconds = min(seconds, max(0.01, deadline - self._shared.time.monotonic()))
        try:
            async with asyncio.timeout(seconds):
                await self._look.wait()
        except TimeoutError:
            return
        await asyncio.sleep(0.02)  # what happens together is one look

    def _decide(self) -> Verdict:
        now = self._shared.time.monotonic()
        behind = {number for number, _, _, _, is_behind in self._bridge.lanes() if is_behind}
        return verdict(
            Seen(
                lanes=tuple(
                    LaneSeen(number, lane.is_up, number in behind, lane.is_linked, lane.quiet, lane.silent)
                    for number, lane in self._lanes.items()
                ),
                streams=len(self._streams),
                waiting=self._waiting,
                most=self.config.bridge.max_lanes,
                is_wanted=self._wanted > 0,
                unused=0.0 if self._streams or self._wanted else now - self._unused_since,
                failures=self._failures,
                since_failure=now - self._failed_at,
            )
        )

    async def _start(self) -> None:
        """Start the bridgehead, or find it."""
        try:
            self._note = await start(
                self._run, self.box, self.user, secret=self._secret, name=bridgehead.name_of(self._secret)
            )
        except Unavailable as error:
            self._give_up(str(error))
        except DevboxError as error:
            # Whatever it is (a box that is off, a login, a document that is denied), the old way says it best.
            self._give_up(error.message, WITHOUT_NOW)

    def _give_up(self, why: str, seconds: float = WITHOUT) -> None:
        self.without = why
        self._checked_at = self._shared.time.monotonic()
        self._asks_again = seconds
        if seconds < WITHOUT:
            log.info("no bridge to %s for now: %s", self.box.name, why)
            return
        self._shared.news.tell("bridge.without", f"no bridge to {self.box.name}: {why}", box=self.box.name)

    def _note_failure(self, why: str) -> None:
        log.info("bridge to %s: %s", self.box.name, why)
        self._failures += 1
        self._failed_at = self._shared.time.monotonic()

    def _open_lane(self) -> None:
        assert self._note is not None
        self._lane_count += 1
        session = PortSession(
            self._sessions,
            PortTarget(self.box, self._note.port),
            documents.PORT,
            self.config,
            wait=None,
            wanted=bool(self._streams),
        )
        lane = self._lanes[self._lane_count] = Lane(self._lane_count, session, self._shared.time)
        self._tasks.spawn(f"lane {lane.number}", self._run_lane(lane))

    async def _run_lane(self, lane: Lane) -> None:
        holder = self._tasks.spawn(f"session of lane {lane.number}", lane.session.run())
        why = "its session ended"
        try:
            stream = await lane.open(self._secret, self._life)
            lane.is_up = self._was_up = True
            self._failures = 0
            self._bridge.lane_up(lane.number, self._shared.time.monotonic())
            self._up.set()
            self._flush()
            await lane.carry(self._bridge, stream, self._happened)
        except (ConnectionRefused, NotOurs) as error:
            why = str(error)
            self._lost_head(why)
        except WrongState as error:
            why = error.message
            if not any(one.is_up for one in self._lanes.values()):
                self._lost_head(why, error)
        except (Denied, DocumentInvalid) as error:
            why = error.message
            if not self._streams:
                self._give_up(f"port sessions to {self.box.name} are not allowed: {why}")
        except (DevboxError, BridgeError, TimeoutError) as error:
            why = str(error)
        finally:
            self._lanes.pop(lane.number, None)
            self._bridge.lane_down(lane.number)
            if not lane.is_up:
                self._note_failure(f"lane {lane.number}: {why}")
                if self._failures >= LANE_TRIES and not self._was_up and self.without is None:
                    self._give_up(f"no session reaches it: {why}")
            if not any(one.is_up for one in self._lanes.values()):
                self._up.clear() if self.without is None else self._up.set()
            self._look.set()
            if not holder.done():
                self._shared.tasks.spawn(f"end of lane {lane.number}", lane.session.held.stop())

    def _lost_head(self, why: str, error: DevboxError | None = None) -> None:
        """The bridgehead is gone (the box is off or was started again, or it was killed): its streams are, too."""
        self._note = None
        for number, arrivals in list(self._streams.items()):
            arrivals.fail(error or StreamReset(f"the bridge to {self.box.name} is gone: {why}"))
            self._forget(number)
        self._bridge = Bridge(near=True)
        for lane in self._lanes.values():
            if lane.is_up:
                self._shared.tasks.spawn("end of a lane", lane.session.held.stop())
        self._lanes.clear()

    async def stop(self) -> None:
        """End all lanes; the bridgehead stays for a while."""
        await asyncio.gather(*(lane.session.held.stop() for lane in list(self._lanes.values())))
        await self._tasks.stop()


class Bridges:
    """All bridges of the daemon."""

    def __init__(
        self,
        sessions: Sessions,
        run: Run,
        secret: Callable[[str], bytes],
        life: bytes,
        config: Callable[[], Config],
    ) -> None:
        """Make it. ``secret``: 32 bytes that belong to a name, the same after a restart; ``life``: 16, new each time."""
        self._sessions = sessions
        self._run = run
        self._secret = secret
        self._life = life
        self._config = config
        self._held: dict[tuple[str, str | None], HeldBridge] = {}

    def to(self, box: BoxRef, user: str | None = None) -> HeldBridge:
        """The bridge to a user of a box (None: whoever a session is there)."""
        user = user or box.user
        key = (box.target, user)
        if key not in self._held:
            secret = self._secret(f"{box.target}/{user or ''}")
            self._held[key] = HeldBridge(self._sessions, box, user, self._run, secret, self._life)
        held = self._held[key]
        held.config = self._config()
        return held

    async def stream(
        self, box: BoxRef, purpose: bytes, wait: float | None, *, user: str | None = None
    ) -> BridgeStream | None:
        """Open a stream; None where this box can have no bridge, or shall have none.

        Raises:
            DevboxError: the box could not be reached in time.
        """
        if self._config().bridge.use == "never" or len(purpose) > PURPOSE_MOST:
            return None
        held = self.to(box, user)
        if held.without is not None:
            held.keep()
            if held.without is not None:
                return None
        try:
            return await held.opened(purpose, wait)
        except Unavailable:
            return None

    async def beside(self, stream: BridgeStream) -> BridgeStream:
        """A stream of signals and sizes for the command of another one."""
        return await stream.bridge.opened(bridgehead.control(stream.number), None)

    def standing(self, box: BoxRef) -> HeldBridge | None:
        """A bridge to a box that is up now, of whichever user."""
        found = [held for held in self._held.values() if held.box.target == box.target and held.is_online]
        return found[0] if found else None

    def facts(self) -> list[BridgeFacts]:
        """All bridges as they stand."""
        return [held.facts() for held in self._held.values()]

    async def stop(self) -> None:
        """End all lanes."""
        await asyncio.gather(*(held.stop() for held in self._held.values()))


def _failure(reason: str, box: str) -> DevboxError:
    """What a reset means here: the bridgehead's reasons begin with the symbol of an error number."""
    word, _, text = one_line(reason).partition(" ")
    if word == "ECONNREFUSED":
        return ConnectionRefused(f"nothing listens there ({box})")
    return StreamReset(f"cut by {box}: {text or word}" if word else f"cut by {box}", word)
