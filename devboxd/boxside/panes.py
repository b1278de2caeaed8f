"""The program that looks at panes, as the daemon knows it: what it is asked, and what it answers (``programs/panes.py``)."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from devboxd.boxside.script import load, load_program, squeeze
from devboxd.model.answer import BoxSaysNo
from devboxd.model.names import check_session
from devboxd.model.pane import SESSIONS_MOST, Key, MuxSession, Pane
from devboxd.model.states import Mux
from devboxd.text import one_line

ANSWER_MOST: Final = 64 << 10  # bytes of an answer


class Missing(msgspec.Struct):
    """No pane is meant. ``sessions``: those that there are."""

    missing: bool
    sessions: Annotated[list[MuxSession], msgspec.Meta(max_length=SESSIONS_MOST)]


class _Problem(msgspec.Struct):
    problem: str


def argv() -> list[str]:
    """The command; its request comes on standard input."""
    return ["sh", "-c", squeeze(load("find_python.sh", common=False)), "devbox", load_program("panes"), ""]


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
    said = output[-ANSWER_MOST:].strip().splitlines()
    line = said[-1] if said else b""
    if line.startswith(b"problem "):
        raise BoxSaysNo(one_line(line[8:].decode("utf-8", "replace"), 200))
    try:
        keys = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        if "problem" in keys:
            raise BoxSaysNo(one_line(msgspec.json.decode(line, type=_Problem).problem, 200))
        if "missing" in keys:
            return msgspec.json.decode(line, type=Missing)
        return msgspec.json.decode(line, type=Pane)
    except (msgspec.MsgspecError, RecursionError):
        raise BoxSaysNo("the box does not say what its panes show") from None
