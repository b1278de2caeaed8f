"""One session of an attach as its terminal sees it: what of the output is shown, and what the marks in it say.

Pure: bytes in, events out. Who attaches acts on them.
"""

from __future__ import annotations

from typing import Final, Self

import msgspec

from devboxd.boxside.shell import Mark, MarkFilter
from devboxd.text import one_line

PREAMBLE_LIMIT: Final = 64 << 10  # bytes before the program runs, kept to explain a failure
MOST_SAID: Final = 50  # notes of start scripts that are remembered
MOST_NOTES: Final = 10  # notes of a start script that are passed on
OTHER_SCREEN: Final = b"\x1b[?1049h"  # what a full-screen program begins with


class Show(msgspec.Struct, frozen=True, gc=False):
    """Bytes for the terminal."""

    data: bytes


class CameUp(msgspec.Struct, frozen=True):
    """The program runs: what it is (zellij, tmux, none, command), and as whom."""

    kind: str
    user: str
    why: str = ""  # it is no mux: missing, silent, asked, dumb


class Note(msgspec.Struct, frozen=True):
    """What the start script has to say: a code, and words of its own."""

    code: str
    words: tuple[str, ...]


class TakesText(msgspec.Struct, frozen=True):
    """The plain shell waits for the start command."""


class Unknown(msgspec.Struct, frozen=True):
    """A mark that means nothing to us."""


Event = Show | CameUp | Note | TakesText | Unknown


class Marks(msgspec.Struct, frozen=True):
    """How far a screen has heard the start script: what another one needs to go on."""

    nonce: str
    started: bool
    kind: str | None
    program_ended: bool
    status: int | None
    problem: tuple[str, str] | None
    held: bytes
    preamble: bytes


class Screen:
    """Takes the marks out of a session's output, and holds back what comes before the program."""

    def __init__(self, nonce: str, *, raw: bool = False) -> None:
        """``raw``: no start script, so no marks."""
        self.nonce = nonce
        self.started = raw
        self.kind: str | None = None  # what the start mark said
        self.program_ended = False
        self.status: int | None = None  # of the program
        self.problem: tuple[str, str] | None = None
        self._filter = None if raw else MarkFilter(nonce)
        self._preamble = bytearray()
        self._notes = 0
        self._is_odd = False

    @property
    def preamble(self) -> str:
        """What was printed before the program ran, for people."""
        return one_line(self._preamble.decode("utf-8", "replace"))

    def marks(self) -> Marks:
        """As far as it was heard; for one with marks."""
        assert self._filter is not None
        return Marks(
            nonce=self.nonce,
            started=self.started,
            kind=self.kind,
            program_ended=self.program_ended,
            status=self.status,
            problem=self.problem,
            held=self._filter.held,
            preamble=bytes(self._preamble),
        )

    @classmethod
    def at(cls, marks: Marks) -> Self:
        """One that goes on from there."""
        screen = cls(marks.nonce)
        screen.started, screen.kind = marks.started, marks.kind
        screen.program_ended, screen.status, screen.problem = marks.program_ended, marks.status, marks.problem
        screen._preamble += marks.preamble
        assert screen._filter is not None
        screen._filter.feed(marks.held)
        return screen

    def output(self, data: bytes) -> list[Event]:
        """Take output of the session."""
        if self._filter is None:
            return [Show(data)]
        events: list[Event] = []
        for piece in self._filter.feed(data):
            if isinstance(piece, Mark):
                events += self._mark(piece)
            elif self.started:
                events.append(Show(piece))
            else:
                self._preamble += piece
                del self._preamble[:-PREAMBLE_LIMIT]
        return events

    def finish(self) -> list[Event]:
        """No more output: give up what was held back."""
        rest = self._filter.flush() if self._filter is not None else b""
        if rest and self.started:
            return [Show(rest)]
        self._preamble += rest
        return []

    def _mark(self, mark: Mark) -> list[Event]:
        match mark.words:
            case ("start", *_) if self.started:
                return []  # made twice: a program that starts may throw the first one away
            case ("start", kind, user, *why):
                self.started, self.kind = True, one_line(kind)
                events: list[Event] = [CameUp(self.kind, one_line(user), one_line(" ".join(why)))]
                if (drawn := self._preamble.find(OTHER_SCREEN)) >= 0:  # the first mark was lost
                    events.append(Show(bytes(self._preamble[drawn:])))
                    self._preamble.clear()
                return events
            case ("type",):
                return [TakesText()]
            case ("exit", status):
                self.program_ended = True
                self.status = int(status) if status.isdecimal() and len(status) < 4 else None
                return []
            case ("fail", code, what, *_):
                self.problem = (one_line(code), one_line(what))
                return []
            case ("note", code, *words) if self._notes < MOST_NOTES:
                self._notes += 1
                return [Note(one_line(code), tuple(map(one_line, words)))]
            case _:
                events = [] if self._is_odd else [Unknown()]  # one is worth a word, a million are not
                self._is_odd = True
                return events


class Once:
    """Which notes are new in the life of an attach: the start script of each session says them again."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    @property
    def said(self) -> list[str]:
        """Those that were said."""
        return sorted(self._said)

    def takes(self, text: str) -> bool:
        """Whether it was not said before, and is not one too many; from now on it was."""
        if text in self._said or len(self._said) >= MOST_SAID:
            return False
        self._said.add(text)
        return True
