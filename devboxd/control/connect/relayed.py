"""One command under the relay on the box: what its lines mean, and what the relay is to be told.

Plain state: bytes and the time go in, events and lines come out. ``execute`` carries them.
"""

from __future__ import annotations

from typing import Final

from devboxd.boxside import relay

CONFIRM_STEP: Final = 64 << 10  # bytes of output taken before the relay is told
CRAWL_LOOK: Final = 0.5  # seconds after a resume until we look how fast output comes
CRAWL_FRAMES: Final = 8  # frames in that time that look like the agent's repairs
QUIET_LOOK: Final = 5.0  # seconds between further looks, once a link was lost
ASK_AGAIN: Final = 2.0  # seconds without the line that is missing before it is asked for once more
MOST_DAMAGES: Final = 3  # lines damaged beyond what gaps explain, before base64 is asked for
MOST_ASKED: Final = 64  # lines asked for at once


class Relayed:
    """Reads the relay's lines, and knows which of them were taken and which are missing."""

    def __init__(self, nonce: str) -> None:
        self.reader = relay.RelayReader(nonce)
        self.exit: relay.RelayExit | None = None
        self.error: relay.RelayError | None = None
        self._skips = 0  # gaps that we did not wait for: each may damage a line
        self._frames = 0  # since the last resume
        self._taken = 0  # bytes that the client wrote out
        self._confirmed = 0  # of them, when the relay was last told
        self._told = 0  # the last line that we have confirmed
        self._asked: dict[int, float] = {}  # lines asked for, and when
        self._is_plain = False  # base64 was asked for
        self._look_at: float | None = None  # when to see whether output crawls; set by the first lost link

    def output(self, data: bytes) -> list[relay.RelayEvent]:
        """Take output of the session. A relay that talks nonsense ends the run: then ``error`` is set."""
        self._frames += 1
        if self.exit is not None or self.error is not None:
            return []
        try:
            events = self.reader.feed(data)
        except relay.RelayError as error:
            self.error = error
            return []
        for event in events:
            if isinstance(event, relay.RelayExit):
                self.exit = event
        return events

    def given(self, size: int) -> None:
        """So many bytes of input were sent to the command."""
        self.reader.given += size

    def taken(self, size: int) -> None:
        """The client wrote out so many bytes."""
        self._taken += size
        self.reader.taken(self._taken)

    def skipped(self, frames: int) -> None:
        """Lines are damaged or missing here."""
        self._skips += frames

    def resumed(self, now: float) -> None:
        """The session has a link again."""
        self._frames, self._look_at = 0, now + CRAWL_LOOK

    def lines_due(self, now: float) -> bytes:
        """What the relay is to be told now: what was taken, and which lines are missing."""
        reader, lines = self.reader, b""
        number, all_taken = reader.last_taken
        wanted = reader.missing
        if not wanted and reader.numbered and self._look_at is not None and now >= self._look_at:
            # The agent repairs what it had sent before a cut at ten frames a second, and what is missing
            # shows only when something later arrives. A line that is not there yet costs nothing.
            self._look_at = now + QUIET_LOOK
            wanted = [reader.seen + 1] if self._frames <= CRAWL_FRAMES else []
            self._frames = 0
        self._asked = {n: at for n, at in self._asked.items() if n > reader.seen and now - at < ASK_AGAIN}
        wanted = [n for n in wanted if n not in self._asked][:MOST_ASKED]
        self._asked.update(dict.fromkeys(wanted, now))
        if number > self._told and (all_taken or self._taken - self._confirmed >= CONFIRM_STEP):
            self._told, self._confirmed = number, self._taken
            lines += relay.taken(number)
        if reader.damages > self._skips + MOST_DAMAGES and not self._is_plain:
            self._is_plain = True  # this agent does not pass all bytes
            lines += relay.PLAIN
        return lines + relay.again(wanted)

    def next_look(self, now: float) -> float | None:
        """Seconds until ``lines_due`` may have something new by itself; None: when something happens."""
        waits = [ASK_AGAIN] if self._asked else []
        if self._look_at is not None:
            waits.append(max(0.05, self._look_at - now))
        return min(waits, default=None)
