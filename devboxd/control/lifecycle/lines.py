"""Reports of a box: lines of a stream, of which each says all that there is, so that only the newest one matters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from devboxd.control.base.bells import Bell
from devboxd.control.base.shared import Shared
from devboxd.errors import DevboxError, LoginNeeded
from devboxd.model.project import Project
from devboxd.model.retry import Backoff

AGAIN: Final = 5.0  # seconds until a stream that ended is opened again at the latest, twice as long each time


class Stream(Protocol):
    """What the bridge carries."""

    async def read(self) -> bytes:
        """Some bytes; none at its end. Raises DevboxError."""

    def close(self) -> None: ...


Changes = Callable[[Project], Awaitable[Stream | None]]  # None: there is no bridge to this box


@dataclass(slots=True, eq=False, kw_only=True)
class Followed:
    """A box whose reports are followed: whether that goes on, and the stream, while there is one."""

    watched: bool = False
    stream: Stream | None = None

    def leave(self) -> None:
        """Who still listens to it ends."""
        if self.stream is not None:
            self.stream.close()


async def follow(
    shared: Shared,
    changes: Changes,
    box: Followed,
    project: Callable[[], Project | None],
    read: Callable[[Stream], Awaitable[bool]],
    *,
    longest: float,
) -> None:
    """Be told by the box for as long as ``project`` says that it is followed; without a bridge the next look tries again.

    ``read`` takes the reports of a stream until it ends, and says whether there was one. ``longest``: seconds until a
    stream is opened again.
    """
    delays, rest = Backoff(shared.time.dice, first=AGAIN, longest=longest), Bell()  # nobody rings
    try:
        while (known := project()) is not None:
            try:
                stream = box.stream = await changes(known)
                if stream is None:
                    return
                try:
                    # Who left it while it was being opened could not close it.
                    if project() is not None and await read(stream):
                        delays.begin_again()
                finally:
                    box.stream = None
                    stream.close()
            except LoginNeeded as error:
                await shared.logins.wait(known.account, error, longest)
                continue
            except DevboxError:
                pass  # it is opened again
            await rest.wait(delays.wait())
    finally:
        box.watched = False


async def newest(stream: Stream, most: int) -> AsyncIterator[bytes]:
    """The newest line whenever one has come, without its end; empty where it is longer than ``most`` bytes.

    Ends with the stream, or when a line is longer and does not end. Raises what reading does.
    """
    buffer = bytearray()
    while data := await stream.read():
        buffer += data
        end = buffer.rfind(b"\n", len(buffer) - len(data))
        if end >= 0:
            begin = buffer.rfind(b"\n", 0, end) + 1
            line = bytes(buffer[begin:end]) if end - begin <= most else b""
            del buffer[: end + 1]
            yield line
        elif len(buffer) > most:
            return
