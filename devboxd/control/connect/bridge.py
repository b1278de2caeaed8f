"""The bridge to one user of one box: started when first needed, held over any number of sessions.

Streams belong to the bridge, not to a session: a lane (one session) may end at any moment, its streams go on over the
next. What runs at the other end is ``boxside/programs/bridgehead.py``; what both ends say is ``model.bridge``; how many
lanes there should be is ``model.lanes``. The streams themselves are in ``bridge_streams``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from devboxd.boxside import bridgehead
from devboxd.control.base.shared import Shared
from devboxd.control.base.supervisor import Supervisor
from devboxd.control.connect.bridge_facts import BridgeFacts, LaneFacts, Rate
from devboxd.control.connect.bridge_start import CutShort, Note, Unavailable, start
from devboxd.control.connect.bridge_streams import BridgeStream, Streams
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.lane import Lane, NotOurs
from devboxd.control.connect.parcel import HeldOver, Unread
from devboxd.control.connect.port import PortSession, PortTarget
from devboxd.control.connect.sessions import Sessions
from devboxd.control.connect.stream import ConnectionRefused, StreamReset
from devboxd.control.connect.terminal import Terminal
from devboxd.errors import BoxGone, BoxStopped, Denied, DevboxError, DocumentInvalid, Unreachable
from devboxd.model.box import BoxRef
from devboxd.model.bridge.wire import BridgeError
from devboxd.model.config import Config
from devboxd.model.frozen import freeze, thaw
from devboxd.model.lanes import LAST, LaneSeen, Seen, Verdict, verdict
from devboxd.model.patience import unsettled
from devboxd.model.silence import ASK_AFTER, NO_ANSWER, Silence, judge
from devboxd.ssm import documents

log = logging.getLogger(__name__)

LOOK: Final = 0.25  # seconds between two looks at the lanes while there is something to carry
LOOK_QUIET: Final = 5.0  # the same while there is not
WITHOUT: Final = 600.0  # seconds that a box which can have no bridge is not asked again
WITHOUT_NOW: Final = (
    10.0  # the same where it may be able to in a moment: what comes meanwhile goes the old way
)
FIRST: Final = 20.0  # seconds that a stream waits for a bridge that never was up; then it goes the old way
MEASURED_FROM: Final = 64 << 10  # bytes that travelled before it is said how much smaller they were
STARTS: Final = 3  # sessions that may end in the middle of the start until it is given up
ANSWER: Final = (
    2 * NO_ANSWER
)  # seconds that who opens a stream waits for a sign of life of a quiet bridgehead
DUMB: Final = "its program on the box does not answer"
LANE_TRIES: Final = 3  # lanes that fail before the first is up until the bridge is given up

Run = Callable[[ExecSpec, Terminal], Awaitable[object]]


class HeldBridge:
    """One bridge. Every method but ``opened`` is immediate."""

    def __init__(self, sessions: Sessions, box: BoxRef, user: str | None, run: Run, secret: bytes) -> None:
        self.box = box
        self.user = user
        self.without: str | None = None  # why there can be no bridge
        self.config = Config()
        self._sessions = sessions
        self._shared: Shared = sessions.shared
        self._run = run
        self._secret = secret
        self._tasks = Supervisor(f"bridge to {box.name}")
        self.streams = self._new_streams()
        self._note: Note | None = None
        self._lanes: dict[int, Lane] = {}
        self._lane_count = 0
        self._up = asyncio.Event()
        self._look = asyncio.Event()
        self._wanted = 0
        self._failures = 0
        self._failed_at = float("-inf")
        self._asks_again_at = float("-inf")
        self._was_up = False
        self._is_frozen = False
        self._keeper: asyncio.Task[None] | None = None
        self._cutting = asyncio.Lock()
        self._rate = Rate(sessions.shared.time.monotonic())
        self._heard_at = float("-inf")  # the bridgehead, over any lane
        self._heard = asyncio.Event()  # it, or how its silence is to be taken
        self._silence = Silence.NONE
        self._silences = 0  # how often that became another
        self._unanswered = 0.0  # seconds that the box has had a question of ours
        self._judged_at = 0.0

    # Streams ----------------------------------------------------------------------------------------

    async def opened(self, purpose: bytes, wait: float | None, *, connects: bool = False) -> BridgeStream:
        """Open a stream, as soon as some lane is up. ``connects``: it is one that leads to something on the box.

        Raises:
            Unavailable: this box can have no bridge.
            DevboxError: it could not be reached in time.
        """
        if self._is_frozen:
            raise Unreachable("devboxd is stopping")
        self._wanted += 1
        silences = self._silences
        try:
            self.keep()
            if self._silence is not Silence.NONE:
                raise Unavailable(DUMB)
            patience = wait if self._was_up else FIRST if wait is None else min(wait, FIRST)
            try:
                async with asyncio.timeout(patience):
                    await self._up.wait()
            except TimeoutError:
                if not self._was_up:
                    raise Unavailable("it did not come up in time") from None
                raise Unreachable(f"{self.box.name} could not be reached in time") from None
            if self.without is None and self._silences == silences:
                await self._see_life()
        finally:
            self._wanted -= 1
        if self.without is not None:
            raise Unavailable(self.without)
        if self._silences != silences:
            raise Unavailable(DUMB)
        tells = connects and self._note is not None and self._note.tells
        try:
            return self.streams.open(bridgehead.telling(purpose) if tells else purpose, tells=tells)
        except BridgeError as error:
            raise Unreachable(f"{error} ({self.box.name})") from error

    async def _see_life(self) -> None:
        """Wait until the bridgehead speaks, or its silence was judged: what it is told while it hangs may run much later."""
        if self._shared.time.monotonic() - self._heard_at <= ASK_AFTER:
            return
        self._heard.clear()
        for number in self.streams.end.order():
            self.streams.end.ping(number)
        self._flush()
        self._look.set()
        try:
            async with asyncio.timeout(ANSWER):
                await self._heard.wait()
        except TimeoutError:
            return  # it is the network: what is opened now waits for that

    def _new_streams(self) -> Streams:
        return Streams(
            self.box.name, self._shared.time, self._flush, lambda: self.is_online, lambda: self.answers
        )

    # Another daemon ---------------------------------------------------------------------------------

    def freeze(self) -> HeldOver:
        """Leave all streams to another daemon, here and now: nothing more is said or heard over the lanes of this one."""
        self._is_frozen = True
        if self._keeper is not None:
            self._keeper.cancel()
        self.streams.happened()
        return HeldOver(
            self.box,
            self.user,
            self.streams.life,
            freeze(self.streams.end),
            self._note,
            self._lane_count,
            [Unread(*one) for one in self.streams.unread()],
        )

    def thaw(self, held: HeldOver) -> dict[int, BridgeStream]:
        """Go on with the streams of another daemon, by number; those of which it left no word are reset."""
        streams = Streams(
            self.box.name,
            self._shared.time,
            self._flush,
            lambda: self.is_online,
            lambda: self.answers,
            life=held.life,
            end=thaw(held.end),
        )
        resumed = {
            one.stream: streams.resumed(
                one.stream,
                one.waiting,
                one.received,
                finished=one.finished,
                tells=one.tells,
                heard=one.heard,
            )
            for one in held.unread
        }
        # Only now, and all at once: whatever fails above leaves this bridge as if nothing had been.
        self.streams = streams
        self._note, self._lane_count, self._was_up = held.note, held.lanes, True
        streams.give_up_others()
        self.keep()
        return resumed

    # Lanes ------------------------------------------------------------------------------------------

    @property
    def is_online(self) -> bool:
        """Whether some lane carries it now."""
        return any(lane.is_up and lane.is_linked for lane in self._lanes.values())

    @property
    def answers(self) -> bool:
        """Whether the bridgehead answers what it is asked."""
        return self._silence is Silence.NONE

    @property
    def _waiting(self) -> int:
        """Bytes that both ends could send if there were more lanes."""
        return self.streams.end.waiting + self.streams.end.peer_waiting

    @property
    def _behind(self) -> set[int]:
        """Numbers of the lanes that give no sign of life."""
        return {number for number, _, _, _, is_behind in self.streams.end.lanes() if is_behind}

    @property
    def agent_version(self) -> str:
        """Of the agent that carries its lanes; empty where it is not known."""
        channels = [lane.session.held.channel for lane in self._lanes.values()]
        return next((one.agent_version for one in channels if one is not None), "")

    @property
    def _is_unsettled(self) -> bool:
        """Whether the box has yet to hear that a stream was given up, and it is not long ago."""
        is_late = self._shared.time.monotonic() - self.streams.unused_since >= LAST
        return not is_late and unsettled(self.streams.end)

    def _flush(self) -> None:
        for lane in self._lanes.values():
            lane.wake()
        # At every write and every read: what waits is added up only where that could change something.
        if not self._look.is_set() and self._waiting:
            self._look.set()

    def facts(self) -> BridgeFacts:
        """How it stands."""
        measured = {number: rest for number, *rest in self.streams.end.lanes()}
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
        plain, travelled = self.streams.end.plain, self.streams.end.travelled
        return BridgeFacts(
            self.box.name,
            self.user,
            lanes,
            len(self.streams),
            self._waiting,
            self._rate.up if lanes else 0.0,
            self._rate.down if lanes else 0.0,
            plain / travelled if travelled > MEASURED_FROM else None,
            self.without
            or (None if self.answers else f"{DUMB}; devboxctl bridge rm {self.box.name} ends it"),
            self.box.target,
        )

    def keep(self) -> None:
        """See to it that somebody holds the bridge; ask again a box that could have none."""
        if self._is_frozen:
            return
        now = self._shared.time.monotonic()
        if self.without is not None and now > self._asks_again_at:
            self._ask_again()
        if self.without is None and (self._keeper is None or self._keeper.done()):
            self._keeper = self._tasks.spawn("keeper", self._hold())
        self._look.set()

    async def _hold(self) -> None:
        """Hold the bridge until nobody has used it for a while."""
        self._judged_at = self._shared.time.monotonic()
        try:
            while True:
                if self._note is None:
                    await self._start()
                if self.without is not None:
                    return
                said = self._decide()
                for number in said.retires:
                    if (lane := self._lanes.pop(number, None)) is not None:
                        self.streams.end.lane_down(number)
                        self._shared.tasks.spawn(f"end of lane {number}", lane.session.held.stop())
                for _ in range(said.opens):
                    self._open_lane()
                is_idle = not self._lanes and not self.streams and not self._wanted
                if is_idle and not said.opens and not self._is_unsettled:
                    return
                await self._sleep()
                for number in self.streams.end.tick(self._shared.time.monotonic()):
                    log.info(
                        "lane %d to %s fell behind; what it carries goes over others", number, self.box.name
                    )
                self._judge()
                self._flush()
        finally:
            if self.without is not None:
                self._up.set()

    def _hear(self) -> None:
        """The bridgehead has said something."""
        self._heard_at = self._shared.time.monotonic()
        self._unanswered, self._silence = 0.0, Silence.NONE
        self._heard.set()

    def _judge(self) -> None:
        """See whether the bridgehead answers; give it up where it has not for long."""
        now = self._shared.time.monotonic()
        behind = self._behind
        if any(lane.is_unanswered(is_behind=lane.number in behind) for lane in self._lanes.values()):
            self._unanswered += min(now - self._judged_at, LOOK_QUIET)  # not what was slept through
        self._judged_at = now
        before, self._silence = self._silence, judge(self._unanswered, len(self.streams))
        if self._silence is Silence.NONE:
            return
        if self._silence is not before:
            self._silences += 1
            log.info("bridge to %s: %s", self.box.name, DUMB)
        if self._silence is Silence.GIVEN_UP:
            self._lost_head(DUMB)
        self._heard.set()
        self._up.set()  # who waits goes another way
        if not any(lane.is_up for lane in self._lanes.values()):
            self._up.clear()

    async def _sleep(self) -> None:
        self._look.clear()
        busy = self._waiting or self._wanted or any(not lane.is_up for lane in self._lanes.values())
        deadline = self.streams.end.next_deadline()
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
        taken = [lane.take_counts() for lane in self._lanes.values()]
        self._rate.count(sum(up for up, _ in taken), sum(down for _, down in taken), now)
        behind = self._behind
        return verdict(
            Seen(
                lanes=tuple(
                    LaneSeen(
                        number,
                        lane.is_up,
                        is_behind=number in behind,
                        is_linked=lane.is_linked,
                        quiet=lane.quiet,
                        silent=lane.silent,
                        repair=lane.repair,
                    )
                    for number, lane in self._lanes.items()
                ),
                streams=len(self.streams),
                waiting=self._waiting,
                most=self.config.bridge.max_lanes,
                is_wanted=self._wanted > 0 or self._is_unsettled,
                unused=0.0 if self.streams or self._wanted else now - self.streams.unused_since,
                failures=self._failures,
                since_failure=now - self._failed_at,
            )
        )

    async def _start(self) -> None:
        """Start the bridgehead, or find it."""
        name = bridgehead.name_of(self._secret)
        try:
            for left in range(STARTS, 0, -1):
                try:
                    self._note = await start(self._run, self.box, self.user, secret=self._secret, name=name)
                    return
                except CutShort:
                    if left == 1:
                        raise
        except Unavailable as error:
            self._give_up(str(error))
        except DevboxError as error:
            # Whatever it is (a box that is off, a login, a document that is denied), the old way says it best.
            self._give_up(error.message, WITHOUT_NOW)

    def _give_up(self, why: str, seconds: float = WITHOUT) -> None:
        self.without = why
        self._asks_again_at = self._shared.time.monotonic() + seconds
        if seconds < WITHOUT:
            log.info("no bridge to %s for now: %s", self.box.name, why)
            return
        self._shared.news.tell("bridge.without", f"no bridge to {self.box.name}: {why}", box=self.box.name)

    def _ask_again(self) -> None:
        self.without = None
        self._up.clear()

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
            wanted=len(self.streams) > 0,
        )
        lane = self._lanes[self._lane_count] = Lane(self._lane_count, session, self._shared.time)
        self._tasks.spawn(f"lane {lane.number}", self._run_lane(lane))

    async def _run_lane(self, lane: Lane) -> None:
        holder = self._tasks.spawn(f"session of lane {lane.number}", lane.session.run())
        why = "its session ended"
        streams = self.streams
        try:
            stream = await lane.open(self._secret, streams.life)
            if streams is not self.streams or self._is_frozen:
                raise StreamReset("the bridge has begun afresh meanwhile")
            if not self._was_up:
                self._shared.news.tell(
                    "bridge.up", f"connections to {self.box.name} go over a bridge", box=self.box.name
                )
            self._hear()
            lane.is_up = self._was_up = True
            self._failures = 0
            streams.end.lane_up(lane.number, self._shared.time.monotonic())
            self._up.set()
            self._flush()
            await lane.carry(streams.end, stream, lambda: self._happened(streams))
        except (ConnectionRefused, NotOurs) as error:
            why = str(error)
            if streams is self.streams:
                self._lost_head(why)
        except (BoxStopped, BoxGone) as error:
            why = error.message
            if streams is self.streams and not any(one.is_up for one in self._lanes.values()):
                self._lost_head(why, error)
        except (Denied, DocumentInvalid) as error:
            why = error.message
            if not self.streams:
                self._give_up(f"port sessions to {self.box.name} are not allowed: {why}")
        except (DevboxError, BridgeError, TimeoutError) as error:
            why = str(error)
        finally:
            self._lanes.pop(lane.number, None)
            streams.end.lane_down(lane.number)
            if not lane.is_up:
                self._note_failure(f"lane {lane.number}: {why}")
                if self._failures >= LANE_TRIES and not self._was_up and self.without is None:
                    self._give_up(f"no session reaches it: {why}")
            if not any(one.is_up for one in self._lanes.values()):
                self._up.clear() if self.without is None else self._up.set()
            self._look.set()
            if not holder.done():
                self._shared.tasks.spawn(f"end of lane {lane.number}", lane.session.held.stop())

    def _happened(self, streams: Streams) -> None:
        if streams is self.streams:
            self._hear()
        streams.happened()

    def _lost_head(self, why: str, error: DevboxError | None = None) -> None:
        """The bridgehead is gone (the box is off or was started again, or it was killed): its streams are, too."""
        if self._is_frozen:
            return
        self._note = None
        self._unanswered, self._silence = 0.0, Silence.NONE
        if self.streams:
            text = f"the bridge to {self.box.name} is gone with {len(self.streams)} streams: {why}"
            self._shared.news.tell("bridge.lost", text, box=self.box.name)
        # An old stream must not act on a new one of its number, at either end.
        lost, self.streams = self.streams, self._new_streams()
        lost.lose(error or StreamReset(f"the bridge to {self.box.name} is gone: {why}"))
        for lane in self._lanes.values():
            self._shared.tasks.spawn("end of a lane", lane.session.held.stop())
        self._lanes.clear()

    async def cut(self) -> int:
        """Give the bridge up; returns how many streams that cut. The next stream begins afresh."""
        async with self._cutting:
            streams = len(self.streams)
            await self.stop()
            self._lost_head("it was removed")
            self._was_up = False
            self._ask_again()
            self._tasks = Supervisor(f"bridge to {self.box.name}")
            if self._wanted:
                self.keep()  # who waited for a lane meanwhile waits for one of the next bridge
            return streams

    async def stop(self) -> None:
        """End all lanes; the bridgehead stays for a while."""
        await asyncio.gather(*(lane.session.held.stop() for lane in list(self._lanes.values())))
        await self._tasks.stop()
