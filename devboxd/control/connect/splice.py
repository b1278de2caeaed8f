"""Join a local connection with a stream: bytes both ways, and the end of each way as ``model.halves`` has it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from devboxd.control.base.needs import LocalConnection
from devboxd.control.connect.stream import Duplex, StreamReset
from devboxd.errors import DevboxError
from devboxd.model.halves import Seen, Step, Way, next_step
from devboxd.model.loose import Loose
from devboxd.ssm.mux import HEADER

READ_SIZE: Final = 2 * ((32 << 10) - HEADER.size)  # bytes: fills two of the largest frames, with smux headers
LINGER: Final = (
    60.0  # seconds of silence after the local side ended, before a far end is closed that cannot be told
)
FIRST_LOOK, LOOK = 0.1, 1.0  # seconds between two looks whether the local side is gone for good


async def splice(connection: LocalConnection, stream: Duplex) -> DevboxError | None:
    """Carry bytes both ways until both have ended, or one side is gone. Both are closed on return.

    Returns the reason where the stream was cut; the local connection was reset then.
    """
    joined = _Joined(connection, stream)
    is_over = False
    try:
        await joined.end(await joined.last_step())
        is_over = True
        return joined.failure
    finally:
        if not is_over:
            stream.reset()
            connection.reset()
            await joined.stop()


class Counted:
    """A connection whose bytes are counted."""

    def __init__(self, connection: LocalConnection, count: Callable[[int, int], None]) -> None:
        """Make it. ``count`` is told bytes from it, and bytes to it."""
        self._connection = connection
        self._count = count

    async def read(self, limit: int) -> bytes:
        """As ``LocalConnection.read``."""
        data = await self._connection.read(limit)
        self._count(len(data), 0)
        return data

    async def write(self, data: bytes) -> None:
        """As ``LocalConnection.write``."""
        await self._connection.write(data)
        self._count(0, len(data))

    def finish(self) -> None:
        """As ``LocalConnection.finish``."""
        self._connection.finish()

    async def close(self) -> None:
        """As ``LocalConnection.close``."""
        await self._connection.close()

    async def cut(self) -> None:
        """As ``LocalConnection.cut``."""
        await self._connection.cut()

    def reset(self) -> None:
        """As ``LocalConnection.reset``."""
        self._connection.reset()

    def let_go(self) -> Loose | None:
        """As ``LocalConnection.let_go``."""
        return self._connection.let_go()

    def has_left(self) -> bool:
        """As ``LocalConnection.has_left``."""
        return self._connection.has_left()


class _Joined:
    """A connection and a stream that are being carried."""

    def __init__(self, connection: LocalConnection, stream: Duplex) -> None:
        self.failure: DevboxError | None = None
        self._connection = connection
        self._stream = stream
        # Not a task group: the end of one side must not cut the other. All are held here, and awaited in ``stop``.
        self._up = asyncio.create_task(self._carry_up())  # noqa: TID251 - see above
        self._down = asyncio.create_task(self._carry_down())  # noqa: TID251 - see above
        self._lost: asyncio.Task[bool] | None = None  # nobody is at the far end any more
        self._told_up = False
        self._in_hand = False  # bytes of the local side that wait for room
        self._silent = 0.0  # seconds that the far end has said nothing, since it is asked for

    async def last_step(self) -> Step:
        """Do what follows, until it is the end; returns how to end."""
        pause = min(FIRST_LOOK, LINGER)
        while True:
            step = next_step(self._seen())
            match step:
                case Step.PASS_UP:
                    self._told_up = self._stream.finish()
                case Step.PASS_DOWN:
                    self._connection.finish()
                    self._lost = asyncio.create_task(self._stream.lost())  # noqa: TID251 - as those above
                case Step.WAIT:
                    await self._change(None)
                case Step.LOOK:
                    await self._look(pause)
                    pause = min(LOOK, LINGER)
                case _:
                    return step

    async def end(self, step: Step) -> None:
        """Close both, as this step has it."""
        await self.stop()
        match step:
            case Step.CLOSE:
                self._stream.close()
                await self._connection.close()
            case Step.PART:
                await self._stream.part()
                self._stream.close()
                await self._connection.close()
            case Step.CUT:
                self._stream.close()
                await self._connection.cut()
            case _:
                if step is Step.GIVE_UP:
                    self.failure = StreamReset("the far end gave no answer after the local side had ended")
                self._stream.reset()
                self._connection.reset()

    async def stop(self) -> None:
        """Carry nothing any more."""
        tasks = [task for task in (self._up, self._down, self._lost) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _seen(self) -> Seen:
        up = self._up.result() if self._up.done() else Way.OPEN
        down = self._down.result() if self._down.done() else Way.OPEN
        if up is Way.OPEN and self._lost is not None and self._lost.done():
            up = Way.REFUSED if self._lost.result() or self._in_hand else Way.LEFT
        return Seen(
            up,
            down,
            half_closes=self._stream.half_closes,
            told_up=self._told_up,
            told_down=self._lost is not None,
            has_left=up is Way.ENDED and down is Way.OPEN and self._connection.has_left(),
            is_silent=self._silent >= LINGER,
        )

    async def _change(self, seconds: float | None) -> None:
        """Wait until a direction changes, for so many seconds at most."""
        tasks = (self._up, self._down, self._lost)
        waiting = {task for task in tasks if task is not None and not task.done()}
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)

    async def _look(self, seconds: float) -> None:
        """Wait a little for the far end. While the link is down nothing can be heard; that is no silence."""
        before = self._stream.received
        await self._change(seconds)
        quiet = self._stream.received == before and self._stream.is_online
        self._silent = self._silent + seconds if quiet else 0.0

    async def _carry_up(self) -> Way:
        """Carry what the local side says to its end."""
        connection, stream = self._connection, self._stream
        try:
            while data := await connection.read(READ_SIZE):
                self._in_hand = True
                try:
                    await stream.write(data)
                except StreamReset:
                    if not stream.finished:
                        raise
                    return Way.REFUSED  # but what the far end said before it closed is still delivered
                self._in_hand = False
        except DevboxError as error:
            self.failure = self.failure or error
            return Way.BROKEN
        except OSError:
            return Way.BROKEN
        return Way.ENDED

    async def _carry_down(self) -> Way:
        """Carry what the far end says to its end."""
        try:
            while data := await self._stream.read():
                await self._connection.write(data)
        except DevboxError as error:
            self.failure = error
            return Way.BROKEN
        except OSError:
            return Way.REFUSED
        return Way.ENDED
