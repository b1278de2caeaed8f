"""Coding agents on a box, as their hooks tell of them: who works, who waits for a person, and what is told of that."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec

from devboxd.errors import BadRequest
from devboxd.model.idle import span
from devboxd.model.names import check_session
from devboxd.text import one_line

NOTES_MOST: Final = 64  # that a box may tell of
SEEN_MOST: Final = 4 * NOTES_MOST  # that are remembered of a box
TEXT_MOST: Final = 300  # characters of what an agent asks
TOLD_MOST: Final = 200  # of those in a notice
OLD: Final = 6 * 3600.0  # seconds after which a change is no news

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=60)]
Moment = Annotated[float, msgspec.Meta(ge=0, lt=1e11)]


class AgentState(enum.StrEnum):
    """What an agent does."""

    WORKING = "working"
    WAITING = "waiting"  # for its user
    DONE = "done"


class Tell(enum.StrEnum):
    """Which changes of coding agents their user wants to be told of."""

    ALL = "all"  # that one waits, and that one is done
    WAITING = "waiting"
    NONE = "none"


class AgentNote(msgspec.Struct, frozen=True):
    """What one agent process says of itself. ``since``, ``at``: by the clock of the box.

    ``text``: what it asks, or what it said last; ``where``: the session of the multiplexer; ``quiet``: it has only begun;
    ``alive``: its process is there.
    """

    name: Name
    state: AgentState
    since: Moment
    pid: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)] = 0
    alive: bool = True
    text: Annotated[str, msgspec.Meta(max_length=4 * TEXT_MOST)] = ""
    where: Annotated[str, msgspec.Meta(max_length=200)] = ""
    quiet: bool = False

    @property
    def key(self) -> tuple[str, int]:
        """What no other agent of the box has."""
        return self.name, self.pid


class Set(msgspec.Struct, frozen=True):
    """What became of one file of a set-up, in the box's words. ``changed``: it is, or would be, other than it was."""

    agent: Name
    file: Annotated[str, msgspec.Meta(max_length=1000)]
    said: Annotated[str, msgspec.Meta(max_length=1000)]
    changed: bool = False
    problem: bool = False


def read(found: object) -> tuple[AgentNote, ...]:
    """The notes of a box, as far as they are some: whatever else is among them is left out."""
    notes = []
    for one in found[:NOTES_MOST] if isinstance(found, list) else ():
        try:
            notes.append(msgspec.convert(one, AgentNote))
        except msgspec.ValidationError:
            continue
    return tuple(notes)


def _phrase(note: AgentNote) -> str:
    name = one_line(note.name, 30)
    match note.state:
        case AgentState.WORKING:
            return f"{name} works"
        case AgentState.WAITING:
            return f"{name} waits for you"
        case AgentState.DONE:
            return f"{name} is done"


_FIRST: Final = (AgentState.WAITING, AgentState.WORKING, AgentState.DONE)


def said(notes: Iterable[AgentNote], now: float) -> str:
    """What matters most about the agents of a box, in a few words: ``claude waits for you since 3 min``; or nothing."""
    there = sorted((one for one in notes if one.alive), key=lambda one: (_FIRST.index(one.state), -one.since))
    if not there:
        return ""
    first = there[0]
    more = f", and {len(there) - 1} more" if len(there) > 1 else ""
    return f"{_phrase(first)} since {span(now - first.since)}{more}"


_NEWS: Final = {
    Tell.ALL: (AgentState.WAITING, AgentState.DONE),
    Tell.WAITING: (AgentState.WAITING,),
    Tell.NONE: (),
}


def news(
    notes: Iterable[AgentNote],
    told: float,
    seen: Mapping[tuple[str, int], float],
    now: float,
    tell: Tell = Tell.ALL,
) -> list[AgentNote]:
    """Those that have begun to wait, or are done, and nobody was told of it.

    ``told``: what began until then was told by an earlier daemon; ``seen``: since when each was as it was last told of.
    """
    return [
        one
        for one in notes
        if one.alive
        and not one.quiet
        and one.state in _NEWS[tell]
        and one.since > told
        and seen.get(one.key) != one.since
        and now - one.since < OLD
    ]


def remembered(
    seen: Mapping[tuple[str, int], float], notes: Iterable[AgentNote], now: float
) -> dict[tuple[str, int], float]:
    """``seen`` of ``news`` without what can not be news again. That a report lacks an agent says nothing: the collector
    tells of fewer than the bridge. Of too many the newest stay, and before them those of this report.
    """
    fresh = {key: since for key, since in seen.items() if now - since < OLD}
    there = {one.key for one in notes}
    kept = sorted(fresh, key=lambda key: (key in there, fresh[key]))[-SEEN_MOST:]
    return {key: fresh[key] for key in kept}


def _is_session(name: str) -> bool:
    """Whether it may stand in a command that somebody copies: the name comes from a box."""
    try:
        return bool(check_session(name))
    except BadRequest:
        return False


def notice(box: str, note: AgentNote) -> tuple[str, str]:
    """Title and text of what is told."""
    where = f" ({one_line(note.where, 40)})" if note.where else ""
    session = f" {note.where}" if _is_session(note.where) else ""
    text = one_line(note.text, TOLD_MOST)
    return f"{box}: {_phrase(note)}{where}", f"{text} — " * bool(text) + f"devboxctl peek {box}{session}"


def sampled(sample: Mapping[str, Any] | None) -> tuple[AgentNote, ...] | None:
    """The notes in a sample of the collector; None: no hooks are set up on that box, or nothing is known."""
    found = (sample or {}).get("agents")
    return read(found) if isinstance(found, list) else None
