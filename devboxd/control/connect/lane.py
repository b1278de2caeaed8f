"""One lane of a bridge: a port session of its own to the bridgehead, from the greeting to the last frame."""

from __future__ import annotations

import asyncio
import secrets
from typing import Final, Protocol

from devboxd.boxside import bridgehead
from devboxd.control.base.time import Time
from devboxd.control.connect.port import PortSession
from devboxd.control.connect.stream import PortStream, StreamReset
from devboxd.errors import DevboxError
from devboxd.model.bridge.end import Bridge
from devboxd.model.bridge.wire import BridgeError
from devboxd.model.hold import AGENT_REPAIR
from devboxd.model.session import SessionState

GREETING_TIME: Final = 15.0  # seconds that the bridgehead has for its answer
MISSING_LOOK: Final = 0.2  # seconds between two looks for missing frames
FEW: Final = 4 << 10  # bytes that keep-alives and small talk stay below


class Pipe(Protocol):
    """An ordered pipe to the bridgehead."""

    async def read(self) -> bytes:
        """Bytes; empty at the end."""

    async def write(self, data: bytes) -> None: ...


class NotOurs(Exception):
    """What answers at the bridgehead's port does not know the secret."""


class Lane:
    """One lane. ``run`` it; it ends when its session does, or its bridge says so."""

    def __init__(self, number: int, session: PortSession, time: Time) -> None:
        self.number = number
        self.session = session
        self.is_up = False
        self._time = time
        self._wake = asyncio.Event()
        self._busy_at = time.monotonic()
        self._carried = 0
        self._exists_since: float | None = None
        self._missing = 0  # frames, at the last look
        self._missing_before = 0
        self._missing_at = time.monotonic()
        self._up = self._down = 0  # bytes since they were last counted
        self._has_asked = False  # the bridgehead, who it is

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()

    @property
    def is_linked(self) -> bool:
        """Whether its session has a link."""
        return self.session.held.state is SessionState.ONLINE

    @property
    def quiet(self) -> float:
        """Seconds since it carried more than small talk."""
        return self._time.monotonic() - self._busy_at

    @property
    def silent(self) -> float:
        """Seconds that its session exists, with a link, and the box has not answered over it."""
        held = self.session.held
        if self.is_up or held.id is None or held.state is SessionState.RECONNECTING:
            self._exists_since = None
            return 0.0
        now = self._time.monotonic()
        if self._exists_since is None:
            self._exists_since = now
        return now - self._exists_since

    def is_unanswered(self, *, is_behind: bool) -> bool:
        """Whether the box has all that was said over it, and the bridgehead answers nothing."""
        channel = self.session.held.channel
        is_handed_on = self.is_linked and channel is not None and not channel.unacknowledged
        return is_handed_on and (is_behind if self.is_up else self._has_asked)

    def take_counts(self) -> tuple[int, int]:
        """Bytes that went and came since the last call."""
        up, down, self._up, self._down = self._up, self._down, 0, 0
        return up, down

    @property
    def repair(self) -> float:
        """Seconds that the agent will need to send again what is missing. What was on its way a moment ago is not."""
        channel, now = self.session.held.channel, self._time.monotonic()
        if now - self._missing_at >= MISSING_LOOK:
            self._missing_at, self._missing_before = now, self._missing
            self._missing = channel.missing if channel is not None and self.is_linked else 0
        return min(self._missing, self._missing_before) * AGENT_REPAIR

    async def open(self, secret: bytes, life: bytes) -> PortStream:
        """Open the session and show each other who we are.

        Raises:
            NotOurs: somebody else listens there.
            ConnectionRefused: nobody does.
            DevboxError: the session could not be opened.
        """
        stream = await self.session.open()
        greeting = bridgehead.greeting(life, self.number, secrets.token_bytes(32))
        await stream.write(greeting)
        self._has_asked = True
        answer = b""
        async with asyncio.timeout(GREETING_TIME):
            while len(answer) < bridgehead.ANSWER.size:
                if not (part := await stream.read()):
                    raise StreamReset("the bridgehead hung up")
                answer += part
        proof = bridgehead.proof(secret, greeting, answer[: bridgehead.ANSWER.size])
        if proof is None or len(answer) > bridgehead.ANSWER.size:
            raise NotOurs("what answers on the box is not our bridgehead")
        await stream.write(proof)
        return stream

    async def carry(self, bridge: Bridge, pipe: Pipe, happened: Happened) -> None:
        """Carry frames both ways until the pipe ends.

        Raises:
            BridgeError: the box said what can not be.
            DevboxError: the session ended.
        """
        failure: Exception | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(self._write(bridge, pipe), name=f"lane {self.number}: write")
                try:
                    while data := await pipe.read():
                        self._down += len(data)
                        self._note(len(data))
                        bridge.received(self.number, data, self._time.monotonic())
                        happened()
                finally:
                    writer.cancel()
        except* (BridgeError, DevboxError) as group:
            failure = group.exceptions[0]  # both ends of a pipe fail of one cause
        if failure is not None:
            raise failure

    async def _write(self, bridge: Bridge, pipe: Pipe) -> None:
        while True:
            while data := bridge.outgoing(self.number, self._time.monotonic()):
                self._note(len(data))
                self._up += len(data)
                await pipe.write(data)
            self._wake.clear()
            await self._wake.wait()

    def _note(self, size: int) -> None:
        self._carried += size
        if self._carried > FEW:
            self._carried = 0
            self._busy_at = self._time.monotonic()


class Happened(Protocol):
    """Called when the bridge may have events, or may want to send."""

    def __call__(self) -> None: ...
