"""The rows of a project as items of a store, and a step as the changes that make it so. No engine is known here.

Keys begin with what they are, so that one short query lists all projects and another reads one of them, without
ninety days of events:

    N#name       uid: the name is taken        M#uid          the row
    G#uid#12     a generation                  R#uid#3        a run
    L#uid        who acts                      E#uid#…        what happened
    I#uid        what holds an idle box      D#uid#…        what was decided about one
    C#2026-11#uid#…  what ended in a month, for the bill
    B#           all budgets

All changes of a project carry the version of its row: whoever changes it second has to look again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from devboxd.errors import DevboxError
from devboxd.model import meter
from devboxd.model.cost import Piece
from devboxd.model.meter import Note
from devboxd.model.project import Generation, Project, Run
from devboxd.model.step import Erase, Write

SCHEMA: Final = 1  # of the bodies; a store written by a newer devbox is not touched
EVENTS_KEPT: Final = 90 * 86400.0  # seconds
DECISIONS_KEPT: Final = 30 * 86400.0
ABSENT: Final = 0  # the version of an item that is not there

_IN_TAGS: Final = ("M#", "G#", "R#")  # what tags can restore

T = TypeVar("T")


class StoreFailed(DevboxError):
    """The store can not be read or written. ``is_absent``: there is none, so nothing is in it."""

    code = "store-failed"
    is_absent = False


class StoreNewer(StoreFailed):
    """The store was written by a newer devbox."""

    code = "store-newer"


class Item(msgspec.Struct, frozen=True):
    """One item as it was read. Versions count from 1."""

    key: str
    version: int
    body: dict[str, Any]


class Range(msgspec.Struct, frozen=True):
    """Items whose key begins so, in the order of their keys; ``newest``: only so many, from the end."""

    prefix: str
    newest: int | None = None


class Change(msgspec.Struct, frozen=True):
    """Put an item that has this version now (``ABSENT``: is not there), or drop it (no body).

    A put item has the next version. ``expires``: Unix seconds after which the store may forget it.
    """

    key: str
    expects: int
    body: dict[str, Any] | None = None
    expires: float | None = None


class Ledger(msgspec.Struct, frozen=True):
    """One project with what belongs to it, and the versions of all that. ``op``: of the last change."""

    project: Project
    run: Run | None = None
    generations: tuple[Generation, ...] = ()
    versions: dict[str, int] = {}
    op: str = ""

    @property
    def head(self) -> Generation | None:
        """The newest generation, which a launch would come from; None: there is none yet."""
        return next((one for one in self.generations if one.number == self.project.head), None)


class Event(msgspec.Struct, frozen=True):
    """What happened to a project. ``what`` is the row of the call table, or a verb; ``who`` did it."""

    at: float  # Unix seconds
    what: str
    who: str
    text: str


# Keys ------------------------------------------------------------------------------------------------------


def name_key(name: str) -> str:
    """Of the item that holds a name. Names of projects differ by more than case."""
    return f"N#{name.lower()}"


def row_key(uid: str) -> str:
    """Of a project's row."""
    return f"M#{uid}"


def generation_key(uid: str, number: int) -> str:
    """Of a generation."""
    return f"G#{uid}#{number:08d}"


def run_key(uid: str, number: int) -> str:
    """Of a run."""
    return f"R#{uid}#{number:08d}"


def lease_key(uid: str) -> str:
    """Of the note of who acts."""
    return f"L#{uid}"


def event_key(uid: str, at: float, op: str) -> str:
    """Of an event: they sort by time."""
    return f"E#{uid}#{round(at * 1000):013d}{op}"


def holds_key(uid: str) -> str:
    """Of what holds a project's box while it is idle."""
    return f"I#{uid}"


def decision_key(uid: str, at: float, op: str) -> str:
    """Of a decision about an idle box: they sort by time."""
    return f"D#{uid}#{round(at * 1000):013d}{op}"


def of_one(uid: str) -> tuple[Range, ...]:
    """What to read of a project, the row first: no later part may be older than it."""
    return Range(row_key(uid)), Range(f"R#{uid}#", newest=1), Range(f"G#{uid}#")


def note_key(month: str, uid: str, op: str) -> str:
    """Of what ended in a month. By month first: a bill reads few of them, and of all projects at once."""
    return f"C#{month}#{uid}#{op}"


EVERY_ROW: Final = Range("M#")
EVERY_NOTE: Final = Range("C#")
EVERY_HOLD: Final = Range(holds_key(""))


def notes_of(month: str) -> Range:
    """What ended in a month, of all projects."""
    return Range(f"C#{month}#")


# Reading ---------------------------------------------------------------------------------------------------


def row(item: Item) -> Project:
    """Read a row. Raises StoreNewer or StoreFailed."""
    return read_as(item, Project)


def read(items: Iterable[Item]) -> Ledger | None:
    """Put a project together out of ``of_one``; None where there is none.

    What was committed between the reads of the row and of the rest is left out.
    """
    found = list(items)
    rows = [item for item in found if item.key.startswith("M#")]
    if not rows:
        return None
    project = row(rows[0])
    runs = [read_as(item, Run) for item in found if item.key.startswith("R#")]
    generations = [read_as(item, Generation) for item in found if item.key.startswith("G#")]
    return Ledger(
        project,
        next((run for run in runs if run.number == project.run), None),
        tuple(one for one in generations if one.number <= project.head),
        {item.key: item.version for item in found},
        str(rows[0].body.get("op", "")),
    )


def events(items: Iterable[Item]) -> list[Event]:
    """Read events."""
    return [read_as(item, Event) for item in items]


def runs(items: Iterable[Item]) -> list[Run]:
    """Read runs."""
    return [read_as(item, Run) for item in items]


def generations(items: Iterable[Item]) -> list[Generation]:
    """Read generations."""
    return [read_as(item, Generation) for item in items]


def notes(items: Iterable[Item]) -> list[Note]:
    """Read notes for the bill."""
    return [read_as(item, Note) for item in items]


def read_as(item: Item, kind: type[T]) -> T:
    """An item as what it is. Raises StoreNewer or StoreFailed."""
    schema = item.body.get("schema", SCHEMA)
    if not isinstance(schema, int) or schema > SCHEMA:
        raise StoreNewer("the store was written by a newer devbox", hint="upgrade devbox on this machine")
    try:
        return msgspec.convert(item.body, kind)
    except msgspec.ValidationError as error:
        hint = "try: devboxctl rebuild" if item.key.startswith(_IN_TAGS) else None
        raise StoreFailed(f"the item {item.key} of the store is damaged: {error}", hint=hint) from error


# Writing ---------------------------------------------------------------------------------------------------


def body(value: msgspec.Struct, **more: Any) -> dict[str, Any]:
    """A struct as the body of an item."""
    found: dict[str, Any] = msgspec.to_builtins(value)
    return {**found, **more, "schema": SCHEMA}


def expiry(key: str, content: Mapping[str, Any]) -> float | None:
    """When the store may forget such an item: Unix seconds; None: never."""
    match key.partition("#")[0]:
        case "E":
            return float(content["at"]) + EVENTS_KEPT
        case "D":
            return float(content["at"]) + DECISIONS_KEPT
        case "C":
            return max(float(piece.get("end") or 0.0) for piece in content["pieces"]) + meter.NOTES_KEPT
        case _:
            return None


def new(key: str, content: dict[str, Any]) -> Change:
    """An item that is not there yet."""
    return Change(key, ABSENT, content, expiry(key, content))


def created(project: Project, op: str, event: Event, *, run: Run | None = None) -> list[Change]:
    """A new project: its name, its row, and its run where it has one already."""
    changes = [
        new(name_key(project.name), {"uid": project.uid}),
        new(row_key(project.uid), body(project, op=op)),
        _noted(project.uid, event, op),
    ]
    if run is not None:
        changes.append(new(run_key(project.uid, run.number), body(run)))
    return changes


def restored(known: Ledger, op: str, event: Event) -> list[Change]:
    """A whole project as it was, or as the tags say: all of it new. The row comes last."""
    project = known.project
    changes = [new(generation_key(project.uid, one.number), body(one)) for one in known.generations]
    return [*changes, *created(project, op, event, run=known.run)]


def of_all(uid: str) -> tuple[Range, ...]:
    """Everything of a project but its name, the row last."""
    kinds = (f"E#{uid}#", f"D#{uid}#", holds_key(uid), f"R#{uid}#", f"G#{uid}#", row_key(uid))
    return tuple(Range(one) for one in kinds)


def copied(items: Iterable[Item], there: Iterable[str], op: str) -> list[Change]:
    """What another store lacks of these items. A row arrives as one that was never moved."""
    known = set(there)
    changes = []
    for item in items:
        if item.key in known:
            continue
        content = dict(item.body)
        if item.key.startswith("M#"):
            content |= {"moved": "", "op": op}
        changes.append(new(item.key, content))
    return changes


def written(ledger: Ledger, write: Write, op: str, event: Event) -> list[Change]:
    """One step of the table as one transaction."""
    uid, known = write.project.uid, ledger.versions
    changes = [_put(row_key(uid), known, body(write.project, op=op)), _noted(uid, event, op)]
    if write.run is not None:
        changes.append(_put(run_key(uid, write.run.number), known, body(write.run)))
    changes += [_put(generation_key(uid, one.number), known, body(one)) for one in write.generations]
    for number in write.erased:
        key = generation_key(uid, number)
        changes.append(Change(key, known.get(key, ABSENT)))
    later = after(ledger, write, op)
    had = meter.held(ledger.project, ledger.run, ledger.generations)
    has = meter.held(later.project, later.run, later.generations)
    ended = meter.ended(had, has, event.at, write.project.policy.grace)
    return [*changes, *_billed(write.project, ended, op)]


def _billed(project: Project, pieces: Iterable[Piece], op: str) -> list[Change]:
    """The notes of what has ended."""
    return [
        new(note_key(month, project.uid, op), body(note))
        for month, note in meter.notes(project, pieces).items()
    ]


def renamed(ledger: Ledger, name: str, op: str, event: Event, old: Item | None) -> list[Change]:
    """Another name for a project: both names and the row in one transaction."""
    project = ledger.project
    changes = [
        _put(row_key(project.uid), ledger.versions, body(msgspec.structs.replace(project, name=name), op=op)),
        _noted(project.uid, event, op),
    ]
    if name_key(name) != name_key(project.name):
        changes.append(new(name_key(name), {"uid": project.uid}))
        changes += [Change(old.key, old.version)] if old is not None else []
    return changes


def erased(
    ledger: Ledger, step: Erase, items: Sequence[Item], op: str = "", at: float | None = None
) -> list[Change]:
    """Drop what is left of a project: its row and its name last, with everything that can be found.

    What it cost is noted down, as of ``at``; None: it goes on elsewhere.
    """
    key = row_key(step.project.uid)
    others = [Change(item.key, item.version) for item in items if item.key != key]
    dropped = [*others, Change(key, ledger.versions.get(key, ABSENT))]
    if at is None:
        return dropped
    ran = runs(item for item in items if item.key.startswith("R#"))
    left = meter.erased(ledger.project, ran, ledger.generations, at)
    return [*dropped, *_billed(step.project, left, op)]


def after(ledger: Ledger, write: Write, op: str) -> Ledger:
    """The ledger as it is once the step was written."""
    uid = write.project.uid
    put = [row_key(uid), *(generation_key(uid, one.number) for one in write.generations)]
    put += [run_key(uid, write.run.number)] if write.run is not None else []
    dropped = {generation_key(uid, number) for number in write.erased}
    versions: Mapping[str, int] = {key: ledger.versions.get(key, ABSENT) + 1 for key in put}
    changed = {one.number for one in write.generations} | set(write.erased)
    generations = [one for one in ledger.generations if one.number not in changed]
    return Ledger(
        write.project,
        write.run or ledger.run,
        tuple(sorted((*generations, *write.generations), key=lambda one: one.number)),
        {key: version for key, version in {**ledger.versions, **versions}.items() if key not in dropped},
        op,
    )


def _put(key: str, versions: Mapping[str, int], content: dict[str, Any]) -> Change:
    return Change(key, versions.get(key, ABSENT), content)


def _noted(uid: str, event: Event, op: str) -> Change:
    return new(event_key(uid, event.at, op), body(event))
