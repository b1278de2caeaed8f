"""What is written down about an idle box: what holds it, and what was decided, for thirty days."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from devboxd.errors import BadRequest
from devboxd.model.idle import MINUTE, NO_LOOK, NOT_KNOWN, UNKNOWN
from devboxd.model.lease import LONGEST, Lease, remembered
from devboxd.model.ledger import DECISIONS_KEPT, Item, Range, read_as

KEPT: Final = DECISIONS_KEPT  # seconds that one is remembered
SHOWN: Final = 500  # decisions that are read at once
ROWS_KEPT: Final = 20  # of the evidence of a decision
VETO_STATUS: Final = 75  # exit status of a hook that wants the box to stay (EX_TEMPFAIL of sysexits.h)
VETO_HOLDS: Final = 1800.0  # seconds
VETOES_MOST: Final = 8  # in a row
RAN_EVERY: Final = 600.0  # seconds, at least, between two notes that a box runs
BLIND_LEAST: Final = 900.0  # seconds in which nothing is known of a box, after which that is said


class Did(StrEnum):
    """What became of a decision."""

    WARNED = "warned"
    KEPT = "kept"  # warned, and then somebody or something worked again
    STOPPED = "stopped"
    TOLD = "told"  # idle, and the policy says only to tell
    VETOED = "vetoed"
    EXTENDED = "extended"
    WATCHDOG = "watchdog"  # the box stopped itself: no daemon was there
    STARTED = "started"  # its hours began
    DISUSED = "disused"  # told that it is deleted, as nobody uses it


class Decision(msgspec.Struct, frozen=True, omit_defaults=True):
    """One decision, with what it was made from: rows of signal, what was seen, whether it counts."""

    at: float
    did: Did
    why: str
    evidence: tuple[tuple[str, str, bool], ...] = ()
    unsaved: tuple[str, ...] = ()  # git work that was on the box only


class DisuseNote(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far an archived project is on its way to be deleted, see ``model.disuse``. Unix seconds.

    ``used``: when it was used last; ``told``: when each of the warnings reached somebody; ``due``: when its last day began;
    ``watched``: seconds of that day in which a daemon was awake.
    """

    used: float
    told: tuple[float, ...] = ()
    due: float | None = None
    watched: float = 0.0


class IdleNotes(msgspec.Struct, frozen=True, omit_defaults=True):
    """What holds a box. ``held``: it is not stopped before; ``vetoes``: in a row; ``seen``: its last watchdog note.

    ``shown``: stops up to then were told to somebody who attached. ``kept``: when an archived one was used last, as far as
    its row does not say it; ``disuse``: how near its end is; ``agents``: what coding agents
    began until then was told, by the clock of the box. ``ran``: when the box was seen to run last, now and then.
    """

    leases: tuple[Lease, ...] = ()
    held: float | None = None
    vetoes: int = 0
    seen: float = 0.0
    shown: float = 0.0
    kept: float = 0.0
    disuse: DisuseNote | None = None
    agents: float = 0.0
    ran: float = 0.0


def decisions_of(uid: str, newest: int = SHOWN) -> Range:
    """The decisions about a project."""
    return Range(f"D#{uid}#", newest=newest)


def read_notes(item: Item | None) -> IdleNotes:
    """Read what holds a box; nothing where nothing is written down. Raises StoreNewer or StoreFailed."""
    return IdleNotes() if item is None else read_as(item, IdleNotes)


def read_decisions(items: Iterable[Item], since: float) -> list[Decision]:
    """Decisions since then, oldest first. Raises StoreNewer or StoreFailed."""
    found = [read_as(item, Decision) for item in items]
    return sorted((one for one in found if one.at >= since), key=lambda one: one.at)


def unshown(notes: IdleNotes, known: Iterable[Decision]) -> Decision | None:
    """The last time that a box was stopped for being idle, where nobody was told yet."""
    stops = [one for one in known if one.did in (Did.STOPPED, Did.WATCHDOG) and one.at > notes.shown]
    return stops[-1] if stops else None


def told(decision: Decision, name: str, when: str) -> str:
    """What somebody who attaches is told of it."""
    seen = ", ".join(f"{signal}: {said}" for signal, said, _ in decision.evidence[:4])
    return f"{name} was stopped {when}: {decision.why} ({seen}); more: devboxctl why {name}"


def blind(state: Mapping[str, Any]) -> tuple[float, str]:
    """How many seconds it was not known by now whether a box is idle, and what can not be seen on it.

    A time without any look is not meant: the next one ends it.
    """
    minutes = str(state["minutes"])
    missing = [str(said) for signal, said, _ in state["evidence"] if signal == NOT_KNOWN and said != NO_LOOK]
    if state["verdict"] != UNKNOWN or not missing:
        return 0.0, ""
    return MINUTE * (len(minutes) - len(minutes.rstrip(UNKNOWN[0]))), "; ".join(missing[:ROWS_KEPT])


def rows(evidence: Iterable[Any]) -> tuple[tuple[str, str, bool], ...]:
    """Evidence as a box tells it, bounded."""
    return tuple((str(row[0]), str(row[1]), bool(row[2])) for row in list(evidence)[:ROWS_KEPT])


def extended(notes: IdleNotes, seconds: float, deadline: float | None, now: float) -> IdleNotes:
    """Move the deadline: so long after it, or after now where there is none.

    Raises:
        BadRequest: longer than a lease may hold.
    """
    if not 0 < seconds <= LONGEST:
        raise BadRequest(f"a deadline moves by {LONGEST / 3600:.0f} hours at most")
    until = min(max(deadline or now, notes.held or now, now) + seconds, now + LONGEST)
    return replace(notes, held=until, vetoes=0)


def used(notes: IdleNotes, now: float) -> IdleNotes:
    """Somebody says that an archived project is in use."""
    return replace(notes, kept=now, disuse=None)


def vetoed(notes: IdleNotes, now: float) -> IdleNotes | None:
    """A hook on the box wants it to stay; None: it has said so often enough."""
    if notes.vetoes >= VETOES_MOST:
        return None
    return replace(notes, held=now + VETO_HOLDS, vetoes=notes.vetoes + 1)


def tidied(notes: IdleNotes, now: float) -> IdleNotes:
    """Without what is over."""
    held = notes.held if notes.held is not None and notes.held > now else None
    return replace(notes, leases=remembered(notes.leases, now), held=held)
