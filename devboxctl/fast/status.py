"""What is said about a session beside what its program shows: one line, where there is a place for one.

It is there while something is awaited, with the seconds since then, and goes when the program shows again.
"""

from __future__ import annotations

from devboxctl.fast import screen
from devboxctl.fast.terminal import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BOTTOM = "bottom"  # the last line of a screen that the program draws again
TITLE = "title"  # the window's title: nobody would draw the screen again
LINE = "line"  # the line in which the cursor is: nothing else has been shown yet
WORDS = "words"  # no terminal, or a dumb one: a line of text for each piece of news

NOTICE = 4.0  # seconds that a notice is shown
QUIET = ("online", "ending")  # states without a line
AWAY = ("reopening", "waiting", "lost")  # states in which keys have nowhere to go


class Status:
    """The state of a session, and the line that shows it. Times are monotonic seconds."""

    def __init__(self, place: str, say: Callable[[str], None], *, after: float, leaves: str = "") -> None:
        """``after``: seconds that trouble must last before it is shown. ``say`` is for news in words."""
        self.state = "starting"
        self.text = ""
        self.due: float | None = None  # when ``draw`` has something to do
        self.erased = False  # a line was taken away: what stood there should be drawn again
        self._place = place
        self._say = say
        self._after = after
        self._leaves = leaves
        self._since: float | None = None  # of the present state
        self._shown = ""
        self._rows = 0
        self._notice = ""
        self._notice_until = 0.0

    @property
    def is_shown(self) -> bool:
        """Say whether our line stands on the screen."""
        return bool(self._shown)

    @property
    def drops_keys(self) -> bool:
        """Say whether what is typed is ignored."""
        return self.state in AWAY

    def set(self, state: str, text: str, now: float) -> bytes:
        """The session is in this state now; returns what to write to the terminal."""
        before, said = self.state, self.text
        self.state, self.text = state, text
        if state != before or self._since is None:
            self._since = now
        if self._place == WORDS:
            if state in QUIET:
                if before not in ("starting", *QUIET):
                    self._say("back")
            elif (state != before and state != "starting") or (text and text != said):
                self._say(text or state)
            return b""
        if state not in QUIET:
            if self.due is None:
                self.due = now if self._shown else now + self._after
            return b""
        if self._notice and now < self._notice_until:
            return b""
        self.due = None
        return self.clear()

    def tell(self, text: str, now: float) -> None:
        """Show a notice for a while; it changes nothing."""
        if self._place == WORDS:
            self._say(text)
            return
        self._notice, self._notice_until, self.due = text, now + NOTICE, now

    def make_way(self, now: float) -> bytes:
        """The program shows something: what it shows is what is typed at again."""
        if self.state not in QUIET:
            self.state = "online"
        self.due = now + self._after if self._notice else None
        return self.clear()

    def hurry(self, now: float) -> None:
        """Draw at the next look, if there is anything to draw."""
        if self.due is not None:
            self.due = now

    def draw(self, now: float) -> bytes:
        """Draw the line as it is now, or take it away; to be called when ``due``."""
        if self._notice and now >= self._notice_until:
            self._notice = ""
        if not self._notice and self.state in QUIET:
            self.due = None
            return self.clear()
        self.due = now + 1.0
        if self._notice:
            return self._put(f"devbox: {self._notice}")
        since = now if self._since is None else self._since
        seconds = f" ({now - since:.0f} s)" if now - since >= 2 else ""
        ignored = "; keys are ignored" if self.drops_keys and self._place in (BOTTOM, TITLE) else ""
        return self._put(f"devbox: {self.text or self.state}{seconds}{ignored}{self._leaves}")

    def clear(self) -> bytes:
        """Take the line away."""
        if not self._shown:
            return b""
        self._shown, self.erased = "", True
        if self._place == TITLE:
            return screen.former_title()
        return screen.erased_line() if self._place == LINE else screen.erased_bottom_line(self._rows)

    def _put(self, text: str) -> bytes:
        former, self._shown = self._shown, text
        if self._place == TITLE:
            return (screen.former_title() if former else b"") + screen.title(text)
        columns, self._rows = size()
        if self._place == LINE:
            return screen.line(text, columns)
        return screen.bottom_line(text, columns, self._rows)
