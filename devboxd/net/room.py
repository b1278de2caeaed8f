"""How many descriptors this process has left, and who waits when there are few.

The limit holds for the whole process, so one ``ROOM`` is shared by all. Connections to forwards are let in while
some are left over: sessions, AWS and the control socket go first, or nobody could say what is wrong. What is
not let in waits in the system's queue.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
from collections.abc import Awaitable, Callable
from typing import Final, Never

from devboxd.errors import Unreachable

FULL: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
CALM: Final = 60.0  # seconds with room after which it is said that there is room again
FIRST_PAUSE, LAST_PAUSE = 0.1, 1.0  # seconds between two looks for room, doubling
SPARED: Final = 64  # descriptors kept from connections to forwards, at most; an eighth where there are few
MOST: Final = 1 << 20  # descriptors that are asked for; more is what some systems call "no limit"


class NoDescriptors(Unreachable):
    """This process has no descriptors left for what was asked."""

    code = "no-descriptors"

    def __init__(self) -> None:
        super().__init__(
            f"devboxd has no descriptors left (its limit is {limit()})",
            hint="end connections that nobody needs, or raise the limit: LimitNOFILE=, ulimit -Hn",
        )


def raise_limit() -> int:
    """Raise the soft limit of descriptors to the hard one, as far as the system goes along; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    for wanted in (highest, 10240):  # OPEN_MAX of macOS, whatever its hard limit says
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            continue
        break
    return limit()


def limit() -> int:
    """Descriptors that this process may have open."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST if soft == resource.RLIM_INFINITY else soft


class Room:
    """Whether connections may be let in. The system gives out the lowest free number: a high one says enough.

    ``on_change`` is told when there are few (True), and when there has been room for a while (False).
    """

    def __init__(self) -> None:
        self.on_change: Callable[[bool], None] = lambda is_short: None
        self.is_short = False
        self._calming: asyncio.TimerHandle | None = None

    def seen(self, number: int) -> None:
        """A new descriptor has this number."""
        if _is_high(number):
            self.ran_out()

    def ran_out(self) -> None:
        """There are few, or none."""
        was_told = self.is_short or self._calming is not None
        self._stop_calming()
        self.is_short = True
        if not was_told:
            self.on_change(True)

    async def wait(self) -> None:
        """Wait until there is room; at once where there is."""
        pause = FIRST_PAUSE
        while self.is_short and not self._finds_some():
            await asyncio.sleep(pause)
            pause = min(LAST_PAUSE, pause * 2)

    def _finds_some(self) -> bool:
        try:
            number = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        os.close(number)
        if _is_high(number):
            return False
        self.is_short = False
        self._calming = asyncio.get_running_loop().call_later(CALM, self._calm)
        return True

    def _calm(self) -> None:
        self._calming = None
        self.on_change(False)

    def _stop_calming(self) -> None:
        if self._calming is not None:
            self._calming.cancel()
            self._calming = None


def _is_high(number: int) -> bool:
    """Whether a descriptor with this number is one of the last."""
    most = limit()
    return number >= most - min(SPARED, most // 8)


ROOM: Final = Room()


class Spare:
    """A descriptor that is kept back, so that one more connection can be accepted when there are no others."""

    def __init__(self) -> None:
        self._number: int | None = None
        self.regain()

    def regain(self) -> None:
        """Take one again where there is one."""
        if self._number is None:
            try:
                self._number = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                pass  # later

    def accept(self, listener: socket.socket) -> socket.socket | None:
        """Accept with the spare descriptor; None where that is out already, or nobody waits any more."""
        self.regain()
        if self._number is None:
            return None
        self.close()
        try:
            return listener.accept()[0]
        except OSError:
            return None

    def close(self) -> None:
        """Give it back."""
        if self._number is not None:
            os.close(self._number)
            self._number = None


async def accept_all(
    listener: socket.socket,
    take: Callable[[socket.socket], Awaitable[object]],
    make_room: Callable[[], object],
    room: Room = ROOM,
) -> Never:
    """Accept for ever, and hand each connection to ``take``; ``make_room`` ends what is not needed.

    Not by asyncio's own loop: out of descriptors, that one comes back at once and logs, for ever. This one
    serves one client at a time then, and pauses.
    """
    loop = asyncio.get_running_loop()
    spare = Spare()
    pause = FIRST_PAUSE
    try:
        while True:
            try:
                accepted, _ = await loop.sock_accept(listener)
            except OSError as error:
                last = None
                if error.errno in FULL:
                    room.ran_out()
                    make_room()
                    last = spare.accept(listener)
                if last is None:
                    await asyncio.sleep(pause)
                    pause = min(LAST_PAUSE, pause * 2)
                    continue
                accepted = last
            pause = FIRST_PAUSE
            spare.regain()
            accepted.setblocking(False)
            try:
                await take(accepted)
            except OSError:
                accepted.close()  # it was gone before we looked
    finally:
        spare.close()
