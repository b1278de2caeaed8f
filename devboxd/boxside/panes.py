"""The program that looks at panes, as the daemon knows it: what it is asked, and what it answers (``programs/panes.py``)."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from devboxd.boxside.said import answer, decoded, last_line
from devboxd.boxside.script import in_python
from devboxd.model.names import check_session
from devboxd.model.pane import SESSIONS_MOST, Key, MuxSession, Pane
from devboxd.model.states import Mux

ANSWER_MOST: Final = 64 << 10  # bytes of an answer
SAYS_NOT: Final = "the box does not say what its panes show"


class Missing(msgspec.Struct):
    """No pane is meant. ``sessions``: those that there are."""

    missing: bool
    sessions: Annotated[list[MuxSession], msgspec.Meta(max_length=SESSIONS_MOST)]


class _Head(msgspec.Struct):
    problem: str | None = None
    missing: Any = None


def argv() -> list[str]:
    """The command; its request comes on standard input."""
    return in_python("panes", "")


def peek(*, session: str | None, mux: Mux | None, lines: int, color: bool) -> bytes:
    """Ask for the last lines; 0: for the screen. Raises BadRequest."""
    return _request("peek", session, mux, lines=lines, color=color)


def say(*, session: str | None, mux: Mux | None, text: str, keys: list[Key]) -> bytes:
    """Ask to type. Raises BadRequest."""
    return _request("say", session, mux, text=text, keys=keys)


def _request(verb: str, session: str | None, mux: Mux | None, **more: object) -> bytes:
    if session is not None:
        check_session(session)
    return msgspec.json.encode({"verb": verb, "session": session, "mux": mux, **more})


def read(output: bytes) -> Pane | Missing:
    """Read what the box printed last. It may print before it, and may be hostile.

    Raises:
        BoxSaysNo: with what it says, or that it says nothing that can be read.
    """
    line = last_line(output, ANSWER_MOST)
    if answer(line, _Head, SAYS_NOT).missing is not None:
        return decoded(line, Missing, SAYS_NOT)
    return decoded(line, Pane, SAYS_NOT)
