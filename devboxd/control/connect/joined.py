"""One session of an attach: the held session, its screen, and what was heard of it so far."""

from __future__ import annotations

import asyncio

from devboxd.control.connect.screen import Screen
from devboxd.control.connect.session import HeldSession
from devboxd.errors import Denied, DocumentInvalid
from devboxd.model.attach import MUXES_THAT_STAY, Seen
from devboxd.model.session import Ending, SessionEnd, SessionState


class Joined:
    """One session of an attach, and what was heard of it so far. Plain state: who attaches acts on it."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.session: HeldSession | None = None  # None once it is over
        self.first_output = asyncio.Event()
        self.takes_text = asyncio.Event()
        self.up: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # its program runs
        self.task: asyncio.Task[None]
        self.end = SessionEnd(Ending.STOPPED)
        self.unacknowledged = 0  # bytes that the far end had not confirmed at the end

    @property
    def redrawn(self) -> bool:
        """Say whether what runs in it can draw its screen again."""
        return self.screen.kind in MUXES_THAT_STAY

    @property
    def is_online(self) -> bool:
        """Say whether a link is up."""
        return self.session is not None and self.session.state is SessionState.ONLINE

    @property
    def takes_keys(self) -> bool:
        """Say whether what is typed may be sent: the program runs, and a link is there to carry it."""
        usable = (SessionState.ONLINE, SessionState.STALLED)
        return self.screen.started and self.session is not None and self.session.state in usable

    def seen(self) -> Seen:
        """What is to be said of it when it is over."""
        screen, end = self.screen, self.end
        return Seen(
            end,
            started=screen.started,
            kind=screen.kind,
            program_ended=screen.program_ended,
            status=screen.status,
            problem=screen.problem,
            preamble=screen.preamble,
            not_allowed=isinstance(end.error, Denied | DocumentInvalid),
        )
