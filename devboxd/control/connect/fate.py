"""How a session ends: decided once, by whoever is first, and felt at once by all who wait."""

from __future__ import annotations

from devboxd.control.base.bells import Bell, UntilRung
from devboxd.errors import DevboxError, Kind
from devboxd.model.session import SessionEnd


class SessionEnded(DevboxError):
    """The session that this was meant for has ended."""

    code = "session-ended"
    kind = Kind.UNREACHABLE


class Fate:
    """The end of one session."""

    def __init__(self) -> None:
        self.end: SessionEnd | None = None
        self.stopping = False  # somebody has asked for the end; it may take a moment
        self._bell = Bell()

    def decide(self, end: SessionEnd) -> None:
        """Say how it ends. The first word counts."""
        if self.end is None:
            self.end = end
            self._bell.ring()

    async def wait(self) -> SessionEnd:
        """Wait for the end."""
        while self.end is None:
            await self._bell.wait(None)
        return self.end

    def while_open(self) -> UntilRung:
        """A block that is left when the end is decided: what it waits for is cancelled."""
        return self._bell.until_rung(at_once=self.end is not None)

    def raise_if_ended(self, box: str) -> None:
        """Raise what a caller has to hear of a session that is over.

        Raises:
            SessionEnded: it ended; the error that made it fail is raised as it is.
        """
        if self.end is None:
            return
        if isinstance(self.end.error, DevboxError):
            raise self.end.error
        raise SessionEnded(self.end.reason or f"the session to {box} has ended")
