"""Join a local connection with a stream of a port session.

smux version 1 knows no half-close: a FIN closes both directions at the far end, and the answer that is
still being made is lost. So the local side's end of input is not passed on while the far end may still
answer; it is after ``LINGER`` seconds without a byte from there.
"""

from __future__ import annotations

import asyncio
from typing import Final

from devboxd.control.base.needs import LocalConnection
from devboxd.control.connect.stream import Duplex, StreamReset
from devboxd.errors import DevboxError
from devboxd.ssm.mux import HEADER

READ_SIZE: Final = 2 * ((32 << 10) - HEADER.size)  # bytes: fills two of the largest frames, with smux headers
LINGER: Final = 60.0  # seconds of silence after the local side ended, before the far end is closed
FIRST_LOOK, LOOK = 0.1, 1.0  # seconds between two looks whether the local side is gone for good


async def splice(connection: LocalConnection, stream: Duplex) -> DevboxError | None:
    """Carry bytes both ways until one side is done. Both are closed on return.

    Returns the reason where the stream was cut; the local connection was reset then.
    """
    # Not a task group: the end of one side must not cut the other. Both are held here, and awaited below.
    up = asyncio.create_task(_up(connection, stream))  # noqa: TID251 - see above
    down = asyncio.create_task(_down(connection, stream))  # noqa: TID251 - see above
    failure: DevboxError | None = None
    is_orderly = False  # a connection that is cut in the middle must not look like one that has ended
    try:
        await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        if not down.done() and up.exception() is None and not await _rest(connection, stream, down):
            failure = StreamReset("the far end gave no answer after the local side had ended")
        for task in (down, up):
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                if not isinstance(error, DevboxError | OSError):
                    raise error
                failure = failure or (error if isinstance(error, DevboxError) else None)
        is_orderly = failure is None
        return failure
    finally:
        up.cancel()
        down.cancel()
        await asyncio.gather(up, down, return_exceptions=True)
        stream.close()
        if is_orderly:
            await connection.close()
        else:
            connection.reset()


async def _up(connection: LocalConnection, stream: Duplex) -> None:
    while data := await connection.read(READ_SIZE):
        try:
            await stream.write(data)
        except StreamReset:
            if not stream.finished:
                raise
            return  # nobody reads it any more, but what the far end said before it closed is still delivered


async def _down(connection: LocalConnection, stream: Duplex) -> None:
    while data := await stream.read():
        await connection.write(data)


async def _rest(connection: LocalConnection, stream: Duplex, down: asyncio.Future[None]) -> bool:
    """The local side has ended its input: let the far end know where that can be, and wait for its answer."""
    if not stream.finish():
        return await _linger(connection, stream, down)
    while not down.done() and not connection.has_left():
        await asyncio.wait({down}, timeout=LOOK)
    return True


async def _linger(connection: LocalConnection, stream: Duplex, down: asyncio.Future[None]) -> bool:
    """The local side has ended its input: wait for the far end as long as it talks. False: it does not.

    While the link is down nothing can be heard; that is no silence. Nobody waits for whom nobody is there.
    """
    silent, pause = 0.0, min(FIRST_LOOK, LINGER)
    while True:
        before = stream.received
        await asyncio.wait({down}, timeout=pause)
        if down.done() or connection.has_left():
            return True
        silent = silent + pause if stream.received == before and stream.is_online else 0.0
        if silent >= LINGER:
            return False
        pause = min(LOOK, LINGER)
