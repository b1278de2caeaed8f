"""What an attach decides, from what was seen: what follows the end of a session, which keys are kept, which
output is passed on, and what the user is told.

Everything here is a function or a value; ``control.connect.attach`` waits, sends and asks. Times are Unix
seconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from devboxd.errors import BoxStopped, DevboxError, Unreachable, WrongState
from devboxd.model.box import BoxRef
from devboxd.model.session import Ending, SessionEnd, SessionState
from devboxd.model.states import InstanceState, KeepAlive, Mux, StreamState
from devboxd.model.terminal import Leaving, StatusLine
from devboxd.typed import INTERRUPT, Typed

MUXES_THAT_STAY: Final = tuple(mux for mux in Mux if mux.stays)
AWAY_INPUT: Final = 4096  # bytes typed while the link is down that are kept
MOST_TYPED: Final = (
    128 << 10
)  # bytes that are ever kept: twice what an honest client sends ahead of its credit
BY_HAND: Final = 16  # bytes: a piece of input up to this long was typed, not pasted
BACKLOG_LIMIT: Final = 2 << 20  # bytes a terminal may be behind before output is skipped
RAW_BACKLOG_LIMIT: Final = 64 << 20  # the same where nothing can draw the screen again: a minute and a half
REPLACE_BEFORE: Final = 120.0  # seconds before a session's longest life that the next one is started
CRAWL_PIECES: Final = 8  # pieces of output in half a second that look like the agent's repairs
BOX_LOOK: Final = 10.0  # seconds between two looks at a box that is stopped
MAX_USELESS_STARTS: Final = 3

# Session texts that a new session would only repeat (docs/protocol.md: give-up strings).
_HOPELESS: Final = (
    "unable to start command",
    "not supported by this version of ssm agent",
    "invalid uid and gid",
    "user does not exist",
    "commands cannot be empty",
    "is forbidden",
)


class AttachSpec(msgspec.Struct, frozen=True):
    """What to attach to, and what the terminal is like."""

    box: BoxRef
    session: str = "main"
    raw: bool = False
    command: str | None = None
    user: str | None = None
    mux: Mux | None = None
    columns: int = 80
    rows: int = 24
    term: str = "xterm-256color"
    colorterm: str | None = None
    locale: str | None = None
    wait: float | None = 120.0
    agent: str | None = None  # socket of an ssh agent here to lend
    rejoining: bool = False  # the daemon was restarted under a client that stayed


# What follows the end of a session ------------------------------------------------------------------


class AfterEnd(StrEnum):
    """What an attach does when its session has ended."""

    LEAVE = "leave"  # the user is done
    REOPEN = "reopen"  # start a new session and join the mux again
    FAIL = "fail"  # say why and stop


def after_end(end: SessionEnd, *, mux: bool, program_ended: bool, useless_starts: int) -> AfterEnd:
    """Decide how an attach goes on.

    Args:
        mux: the far end runs a multiplexer that outlives the session.
        program_ended: our wrapper reported that the program itself ended (detached, or its last pane closed).
        useless_starts: sessions in a row that ended before the mux came up.
    """
    if program_ended or end.ending is Ending.STOPPED:
        return AfterEnd.LEAVE
    if end.ending is Ending.FAILED:
        return AfterEnd.FAIL
    if not mux:
        # A raw shell dies with its session; an empty reason is an ordinary exit.
        ordinary = end.ending is Ending.FINISHED and not end.reason
        return AfterEnd.LEAVE if ordinary else AfterEnd.FAIL
    reason = end.reason.lower()
    if any(text in reason for text in _HOPELESS) or useless_starts >= MAX_USELESS_STARTS:
        return AfterEnd.FAIL
    return AfterEnd.REOPEN


class Seen(msgspec.Struct, frozen=True):
    """One session of an attach, when it is over. Texts of the box are printable already."""

    end: SessionEnd
    started: bool = False  # the program in it ran
    kind: str | None = None  # and that was: zellij, tmux, none, command
    program_ended: bool = False
    status: int | None = None
    problem: tuple[str, str] | None = None  # the start script's complaint: its code, and of what
    preamble: str = ""  # what was printed before the program ran
    not_allowed: bool = False  # the account forbids the document


class TypeInstead(msgspec.Struct, frozen=True):
    """Start again in the account's plain shell, and type the start command into it."""


class Reopen(msgspec.Struct, frozen=True):
    """Start a new session and join the mux again; at once after a useful one, else after a pause."""

    why: str
    at_once: bool


class Phase(StrEnum):
    """How far an attach has come."""

    FIRST = "first"  # nothing was ever on the screen
    JOINED = "joined"  # what is on the screen is what is typed at, though the link may be down
    REOPENING = "reopening"  # its session is gone; what comes next may look different


class Attachment:
    """What is known of one attach so far. Tell it what happened, and it says what follows."""

    def __init__(self, spec: AttachSpec, *, keep_alive: KeepAlive = KeepAlive.AUTO) -> None:
        self.spec = spec
        # The daemon before us had joined it: the same as a session of ours that is gone.
        self.phase = Phase.REOPENING if spec.rejoining else Phase.FIRST
        self.is_typed = False  # the document for commands is denied: type into the plain shell
        self.kind: str | None = None  # what ran last
        self.away_since: float | None = None
        self._keep_alive = keep_alive
        self._useless = 0  # sessions in a row that ended before the program ran

    @property
    def is_patient(self) -> bool:
        """Say whether somebody was there before, and so waits for as long as it takes."""
        return self.phase is not Phase.FIRST

    def came_up(self, kind: str, user: str, why: str = "") -> StatusLine:
        """The program runs: the screen is the user's again. ``why``: where it is no mux, the reason."""
        self.phase, self.kind, self.away_since = Phase.JOINED, kind, None
        text = f"{no_mux(user, why)}: this shell ends with its connection" if kind == Mux.NONE else ""
        return StatusLine(StreamState.ONLINE, text, mux=kind)

    def session_is(
        self, state: SessionState, text: str, retry_in: float | None, now: float, *, started: bool
    ) -> StatusLine | None:
        """The session is in this state now; what to show, None for nothing new."""
        if state is SessionState.ENDED:
            return None
        if state is SessionState.ONLINE:
            if not started:
                return None
            self.away_since = None
            return StatusLine(StreamState.ONLINE, mux=self.kind)
        if self.phase is Phase.JOINED and self.away_since is None:
            self.away_since = now
        # However the next session comes up: until it is there, keys have nowhere to go.
        shown = StreamState.REOPENING if self.phase is Phase.REOPENING else StreamState(state.value)
        return self.line(shown, text, retry_in)

    def line(self, state: StreamState, text: str, retry_in: float | None = None) -> StatusLine:
        """A line of the client's status, with the time since which its user waits."""
        return StatusLine(state, text, self.away_since, retry_in)

    def after(self, seen: Seen, now: float) -> TypeInstead | Reopen | Leaving:
        """A session is over: what next."""
        spec, end = self.spec, seen.end
        self._useless = 0 if seen.started and not spec.raw else self._useless + 1
        if seen.not_allowed and not self.is_typed and not spec.raw:
            self.is_typed = True
            if self.phase is Phase.JOINED:
                self._gone(now)
            return TypeInstead()
        if seen.problem is not None:
            return Leaving(error=problem(*seen.problem, box=spec.box.name))
        if self._keep_alive is KeepAlive.NEVER and "inactivity" in end.reason.lower():
            return Leaving(reason=end.reason, reattach=not spec.raw)  # the account wants it so
        if isinstance(end.error, BoxStopped) and self.phase is Phase.REOPENING:
            return Reopen(end.error.message, at_once=False)  # as soon as somebody starts it
        useless, program_ended = self._useless, seen.program_ended
        match after_end(end, mux=self._has_mux(seen), program_ended=program_ended, useless_starts=useless):
            case AfterEnd.LEAVE if end.ending is Ending.FINISHED and not (seen.started or program_ended):
                return _failed(seen, raw=spec.raw)  # an orderly end, of nothing that had begun
            case AfterEnd.LEAVE:
                return Leaving(status=seen.status, reason=end.reason)
            case AfterEnd.FAIL:
                return _failed(seen, raw=spec.raw)
            case AfterEnd.REOPEN:
                self._gone(now)
                return Reopen(end.reason or "the session ended", at_once=not useless)

    def _gone(self, now: float) -> None:
        self.phase, self.away_since = Phase.REOPENING, self.away_since or now

    def _has_mux(self, seen: Seen) -> bool:
        spec = self.spec
        if spec.raw:
            return False
        if not seen.started and self.kind is None and spec.rejoining:
            return spec.command is None and spec.mux is not Mux.NONE  # the daemon before us had joined it
        return (seen.kind or self.kind) not in (None, Mux.NONE, "command")


def _failed(seen: Seen, *, raw: bool) -> Leaving:
    """The end of an attach that nobody wished."""
    end, reason = seen.end, seen.end.reason or seen.preamble
    if isinstance(end.error, DevboxError):
        return Leaving(error=end.error)
    if end.ending is Ending.FINISHED and raw:
        text = f"the shell ended: {reason}" if reason else "the shell ended"
        return Leaving(reason=reason, error=Unreachable(text))
    hint = "a plain shell ends with its session; without --raw, devbox keeps zellij or tmux for you"
    when = "" if seen.started else " before anything ran in it"
    text = f"the session ended{when}: {reason or end.ending.value}"
    return Leaving(error=Unreachable(text, hint=hint if raw else None))


def problem(code: str, what: str, *, box: str) -> DevboxError:
    """The start script's complaint as an error."""
    match code:
        case "no-user":
            return WrongState(f"there is no user {what!r} on {box}", hint="name another with --user")
        case "no-sudo":
            return WrongState(
                f"the session on {box} may not become {what!r}: sudo asks for a password",
                hint="leave out --user, or configure Run As for Session Manager",
            )
        case "no-mux":
            return WrongState(
                f"{what} is not installed on {box}", hint="install it, or choose with --mux tmux|none"
            )
        case _:
            return WrongState(f"{box} could not start the session ({code})")


def no_mux(user: str, why: str) -> str:
    """Why a plain shell runs and no multiplexer, as the start script has it."""
    match why:
        case "asked":
            return "no multiplexer, as asked"
        case "dumb":
            return "this terminal is dumb (TERM), and neither zellij nor tmux can draw on it"
        case "silent":
            return (
                f"neither zellij nor tmux was found for {user}, whose login shell did not say where to look"
            )
        case _:
            return f"neither zellij nor tmux is installed for {user}"


def note(code: str, words: tuple[str, ...], box: str) -> str | None:
    """What the start script has to say, as a sentence; None for what we do not know."""
    match code, words:
        case "term", (asked, given):
            return (
                f"{box} does not know the terminal {asked or '(odd name)'}: programs there are told {given}"
            )
        case "login", (seconds,):
            return f"waiting for the login shell on {box}, for {seconds} s at most"
        case _:
            return None


def while_box_is(state: InstanceState | None, box: BoxRef) -> str | Leaving | None:
    """Before a session is reopened: a text to wait with, the end of the attach, or None to go on."""
    if state is None:
        return None
    if state.is_stopped:
        return f"the box is {state.value}; this goes on as soon as somebody starts it"
    if state.is_gone:
        text = f"{box.name} ({box.target}) has been terminated"
        return Leaving(error=WrongState(text, hint="devboxctl ls shows what exists"))
    return None


def replace_in(lasts: float | None) -> float | None:
    """Seconds until the next session is to be started, for one that lasts so many; None: it lasts for ever."""
    return None if lasts is None else max(1.0, lasts - REPLACE_BEFORE)


def looks_repaired(pieces: int) -> bool:
    """Say whether so few pieces of output soon after a resume are the agent's repairs, ten frames a second."""
    return 0 < pieces <= CRAWL_PIECES


# Keys -----------------------------------------------------------------------------------------------


class Verdict(msgspec.Struct, frozen=True):
    """What becomes of typed bytes: how many are given up (and credited), and what their typist is told."""

    dropped: int = 0
    say: str = ""


class Keys:
    """What was typed and waits for the box.

    While the link is down the session may be alive: keys are kept, up to ``AWAY_INPUT`` bytes, and delivered once
    if it resumes. When the session is gone they are dropped and that is said: they were meant for a screen that
    is no longer there. So are those that are typed before the next one is there.
    """

    def __init__(self) -> None:
        self.waiting = Typed()
        self._told = False  # that keys are dropped; once for each outage

    def typed(self, data: bytes, *, phase: Phase, reaches: bool) -> Verdict:
        """Take input. ``reaches``: the program runs and a link is up."""
        if phase is Phase.REOPENING:
            say = "" if self._told else "what is typed before the session is back is not kept"
            self._told = True
            return Verdict(len(data), say)
        by_hand = len(data) <= BY_HAND
        most = MOST_TYPED if reaches else AWAY_INPUT
        if len(self.waiting) + len(data) > most and not (by_hand and INTERRUPT in data):
            return Verdict(len(data), "typed too much while away: the rest is not kept")
        return Verdict(self.waiting.put(data, by_hand=by_hand))

    def lost(self, unacknowledged: int) -> Verdict:
        """The session is gone, and with it so many bytes that the far end had not confirmed."""
        self._told = False
        dropped = self.waiting.clear()
        if not (lost := dropped + unacknowledged):
            return Verdict()
        return Verdict(
            dropped, f"{lost} bytes typed while away may not have arrived; they are not sent again"
        )


# Output ---------------------------------------------------------------------------------------------


class Outflow:
    """Which output a terminal gets: one that does not read loses the middle, and never blocks us."""

    def __init__(self) -> None:
        self.pieces = 0
        self._skipped = 0

    def passes(self, size: int, behind: int, *, redrawn: bool) -> bool:
        """Say whether a piece of ``size`` bytes is passed on to a terminal that is ``behind`` so many.

        Args:
            redrawn: the program can draw its screen again.
        """
        self.pieces += 1
        if not self._skipped and behind <= (BACKLOG_LIMIT if redrawn else RAW_BACKLOG_LIMIT):
            return True
        self._skipped += size
        return False

    def caught_up(self) -> str:
        """The terminal reads again: what it is told."""
        missed, self._skipped = self._skipped, 0
        return f"{missed} bytes of output were skipped: this terminal was not reading"
