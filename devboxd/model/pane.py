"""The pane in front of a multiplexer session on a box: what it shows, and what may be typed into it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from devboxd.errors import BadRequest, DevboxError, Kind
from devboxd.text import one_line

LINES_MOST: Final = 2000  # of a pane, in one answer
TEXT_MOST: Final = 16 << 10  # characters that are typed at once
KEYS_MOST: Final = 32
SESSIONS_MOST: Final = 50  # that a box may tell of
NAMED: Final = 8  # sessions in a sentence

Name = Annotated[str, msgspec.Meta(max_length=200)]
Size = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class MuxSessionNotFound(DevboxError):
    """No session of a multiplexer is there, none of that name, or it is not clear which one is meant."""

    code = "mux-session-not-found"
    kind = Kind.NOT_FOUND


class MuxSession(msgspec.Struct, frozen=True):
    """A session of a multiplexer on a box."""

    mux: Name
    name: Name


class Pane(msgspec.Struct, frozen=True):
    """What a box tells of the pane in front of a session. ``columns``, ``rows``: 0 where the mux does not tell.

    ``lines``: with colour sequences where they were asked for; ``cut``: more was asked for than an answer takes.
    """

    mux: Name
    session: Name
    window: Name = ""
    command: Name = ""
    columns: Size = 0
    rows: Size = 0
    lines: Annotated[list[str], msgspec.Meta(max_length=LINES_MOST + 1000)] = []
    cut: bool = False
    sessions: Annotated[list[MuxSession], msgspec.Meta(max_length=SESSIONS_MOST)] = []

    @property
    def place(self) -> str:
        """Where it is, for people."""
        window = f", window {one_line(self.window, 60)}" if self.window else ""
        return f"{one_line(self.session, 64)} ({one_line(self.mux, 20)}{window})"


class Key(msgspec.Struct, frozen=True):
    """A key: its name for people and for tmux, and the bytes that a terminal sends for it."""

    name: str
    tmux: str
    bytes: tuple[int, ...]


def _keys() -> dict[str, Key]:
    escape = "\x1b"
    plain = {
        "Enter": ("Enter", "\r"),
        "Escape": ("Escape", escape),
        "Tab": ("Tab", "\t"),
        "S-Tab": ("BTab", escape + "[Z"),
        "Space": ("Space", " "),
        "Backspace": ("BSpace", "\x7f"),
        "Delete": ("DC", escape + "[3~"),
        "Up": ("Up", escape + "[A"),
        "Down": ("Down", escape + "[B"),
        "Right": ("Right", escape + "[C"),
        "Left": ("Left", escape + "[D"),
        "Home": ("Home", escape + "[H"),
        "End": ("End", escape + "[F"),
        "PageUp": ("PPage", escape + "[5~"),
        "PageDown": ("NPage", escape + "[6~"),
    }
    plain |= {f"C-{chr(97 + n)}": (f"C-{chr(97 + n)}", chr(n + 1)) for n in range(26)}
    plain |= {f"M-{chr(97 + n)}": (f"M-{chr(97 + n)}", escape + chr(97 + n)) for n in range(26)}
    functions = [*(f"O{c}" for c in "PQRS"), *(f"[{n}~" for n in (15, 17, 18, 19, 20, 21, 23, 24))]
    plain |= {f"F{n}": (f"F{n}", escape + text) for n, text in enumerate(functions, 1)}
    return {name.lower(): Key(name, tmux, tuple(text.encode())) for name, (tmux, text) in plain.items()}


KEYS: Final = _keys()
_SAME: Final = {"esc": "escape", "return": "enter", "btab": "s-tab", "bspace": "backspace", "del": "delete"}
_CONTROL: Final = re.compile(r"ctrl[-+]|\^")
_BREAKS: Final = re.compile(r"\r\n?")


def key(name: str) -> Key:
    """The key of that name, however it is spelled: ``Enter``, ``esc``, ``C-c``, ``ctrl-c``, ``^C``.

    Raises:
        BadRequest: there is none.
    """
    plain = _CONTROL.sub("c-", name.strip().lower(), count=1)
    found = KEYS.get(_SAME.get(plain, plain))
    if found is None:
        raise BadRequest(
            f"{name[:40]!r} is no key that can be typed",
            hint="Enter, Escape, Tab, Up, Down, Left, Right, Home, End, PageUp, PageDown, F1, C-c, M-x and so on",
        )
    return found


def typed(text: str, keys: Sequence[str], *, enter: bool) -> tuple[str, list[Key]]:
    """What is typed: the text with plain line breaks, and the keys after it.

    Raises:
        BadRequest: nothing, too much, or what would be no text but a command to the terminal.
    """
    text = _BREAKS.sub("\n", text)
    if len(text) > TEXT_MOST or len(keys) > KEYS_MOST:
        raise BadRequest(
            f"at most {TEXT_MOST} characters and {KEYS_MOST} keys are typed at once",
            hint="copy a longer text to the box as a file, and name that",
        )
    if any(ord(one) < 32 and one not in "\n\t" for one in text) or "\x7f" in text or "\x9b" in text:
        raise BadRequest(
            "there are control characters in the text", hint="type keys with --key, as --key Escape"
        )
    found = [key(name) for name in keys]
    if enter and text:
        found.append(KEYS["enter"])
    if not text and not found:
        raise BadRequest("there is nothing to type", hint="devboxctl say BOX yes, or --key Enter")
    return text, found


def lines(count: int | None) -> int:
    """How many of the last lines are meant; 0: the screen as it is.

    Raises:
        BadRequest: that can not be.
    """
    if count is None:
        return 0
    if not 0 < count <= LINES_MOST:
        raise BadRequest(f"1 to {LINES_MOST} lines can be shown")
    return count


def not_found(box: str, session: str | None, known: Sequence[MuxSession]) -> MuxSessionNotFound:
    """Why no pane is meant, and what there is."""
    names = [one_line(one.name, 64) for one in known]
    listed = ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
    if not names:
        text = f"no session of zellij or tmux runs on {box}"
        return MuxSessionNotFound(text, hint=f"devboxctl attach {shlex.quote(box)} makes one")
    if session is not None:
        return MuxSessionNotFound(f"there is no session {session} on {box}", hint=f"there are: {listed}")
    return MuxSessionNotFound(f"which session of {box}? None is called main", hint=f"name one of: {listed}")
