"""How the daemon ends: told to, to be started again, or leaving what it holds to the one at the end of a link."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence

from devboxd.control.connect.handing import close
from devboxd.control.connect.parcel import Left
from devboxd.control.daemon import Daemon

log = logging.getLogger(__name__)


class Ending:
    """How it ends, and what is left then."""

    def __init__(self, leave: Callable[[socket.socket, bytes, Sequence[int]], bool]) -> None:
        """Make it. ``leave``: give data and descriptors to the daemon at the other end of a link; whether it took all."""
        self.begun = asyncio.Event()
        self.link: socket.socket | None = None
        self.starts_again = False
        self.is_final = False  # nothing is left to anybody
        self.left: Left | None = None
        self._leave = leave

    def end(self) -> None:
        """For good."""
        self.is_final = True
        self.begun.set()

    def hand_over(self, link: socket.socket | None) -> None:
        """To go on in another daemon: at the other end of ``link``, or started by the service manager."""
        if self.begun.is_set():
            if link is not None:
                link.close()
            return
        self.link, self.starts_again = link, link is None
        self.begun.set()

    def has_heir(self, slots: int) -> bool:
        """Whether another daemon may go on. ``slots``: descriptors that the service manager keeps for it."""
        return self.link is not None or (slots > 0 and not self.is_final)

    def pack(self, daemon: Daemon) -> None:
        """Take out of the daemon what is left to the next one."""
        try:
            self.left = daemon.leave()
        except Exception:
            # Its clients see that, and we end in order.
            log.exception("what could be left to the next daemon is cut")

    def for_manager(self, slots: int) -> Left | None:
        """What the service manager is to keep; nobody waits for it where there is nothing. ``slots`` as above."""
        if self.link is not None or self.left is None or not slots:
            return None
        return self.left if self.starts_again or self.left.descriptors else None

    def leave(self) -> None:
        """The last act: give it away, once nothing of ours is in the way of the other daemon."""
        if self.link is not None:
            with self.link:
                if self.left is not None:
                    listeners = [one for descriptors in self.left.listeners.values() for one in descriptors]
                    if not self._leave(self.link, self.left.data, [*self.left.descriptors, *listeners]):
                        log.error("the next daemon did not take what was left to it: it is cut")
        if self.left is not None:
            close(self.left.descriptors)
            for descriptors in self.left.listeners.values():
                close(descriptors)
            self.left = None
