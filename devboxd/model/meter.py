"""The facts that a bill is made of, out of what is written down of a project.

What a project has now stands in its row, its runs and its generations. What it had is noted when it goes: a step
that ends or changes something writes a note in its own transaction, so that no bill loses what no row remembers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from devboxd.model.box import SKEW_MOST
from devboxd.model.cost import Kind, Piece, month_of
from devboxd.model.price import region_of
from devboxd.model.project import Generation, Phase, Project, Run, read_token

NOTES_KEPT: Final = 400 * 86400.0  # seconds: a year can be compared with the one before


class Note(msgspec.Struct, frozen=True):
    """What ended in one month, of one project. ``name`` and ``owner`` as they were then."""

    uid: str
    name: str
    pieces: tuple[Piece, ...]
    owner: str = ""


def region(project: Project, run: Run | None = None) -> str:
    """Where a project is; empty where nobody can say."""
    places = run.places if run is not None and run.places else project.spec.places
    found = next((one for place in places if (one := region_of(place.zone))), None)
    return project.account.region or found or ""


def ran(project: Project, run: Run) -> list[Piece]:
    """The times of a run, with the public address that a box has by default while it runs."""
    found = []
    token = read_token(run.token)
    place = run.place(token.attempt if token else project.attempt) if run.places else None
    usual = place.type if place is not None else ""
    for span in run.spans:
        name = f"{run.instance or run.token}@{span.start:.0f}"
        piece = Piece(
            Kind.COMPUTE,
            name,
            project.uid,
            region(project, run),
            span.start,
            span.end,
            span.type or usual,
            spot=run.spot,
            zone=(place.zone or "") if run.spot and place is not None else "",
            sure=span.sure,
        )
        found.append(piece)
        if span.address is not False:
            found.append(replace(piece, kind=Kind.ADDRESS, spot=False, zone=""))
    return found


def told(run: Run, at: float) -> Run | None:
    """A run whose box has told that it stopped itself ``at``, where nobody knew when it did; None: this is not of it."""
    for number, span in enumerate(run.spans):
        if span.sure is None or span.end is None or not span.sure - SKEW_MOST <= at <= span.end + SKEW_MOST:
            continue
        known = replace(span, end=min(max(at, span.sure), span.end), sure=None)
        return replace(run, spans=(*run.spans[:number], known, *run.spans[number + 1 :]))
    return None


def held(project: Project, run: Run | None, generations: Iterable[Generation]) -> dict[str, Piece]:
    """The volumes and snapshots that a project has, by id."""
    where, found = region(project, run), dict[str, Piece]()
    if run is not None and run.token and run.number > project.closed:
        start = run.spans[0].start if run.spans else project.launched or project.since
        for disk in run.disks:
            if disk.volume is not None:
                found[disk.volume] = Piece(
                    Kind.VOLUME,
                    disk.volume,
                    project.uid,
                    where,
                    start,
                    what=disk.type or "",
                    gib=disk.size_gib,
                    iops=disk.iops,
                    throughput=disk.throughput,
                )
    for one in sorted(generations, key=lambda one: one.created):
        for disk in one.disks:
            if disk.snapshot is not None and disk.snapshot not in found:
                found[disk.snapshot] = Piece(
                    Kind.SNAPSHOT,
                    disk.snapshot,
                    project.uid,
                    where,
                    one.created,
                    gib=disk.size_gib,
                    line=disk.device,
                    stored=disk.stored,
                )
    return found


def ended(before: Mapping[str, Piece], after: Mapping[str, Piece], at: float, grace: float) -> list[Piece]:
    """What a step ended. Volumes go ``grace`` seconds after their run is closed."""
    found = []
    for name, piece in before.items():
        now = after.get(name)
        if now is None:
            end = at + (grace if piece.kind is Kind.VOLUME else 0.0)
        elif replace(now, start=piece.start) != piece:
            end = at
        elif now.start > piece.start:  # what it was counted from is gone, and something else has it still
            end = now.start
        else:
            continue
        found.append(replace(piece, end=max(end, piece.start)))
    return found


def erased(
    project: Project, runs: Iterable[Run], generations: Iterable[Generation], at: float
) -> list[Piece]:
    """All that a project had, for when its rows go. Its box was ended when the deletion began."""
    known = list(runs)
    stop = project.since if project.phase is Phase.DELETING else at
    found = [one for run in known for one in ran(project, run)]
    last = next((run for run in known if run.number == project.run), None)
    disks = held(project, last, generations).values()
    return [
        *(replace(one, end=max(one.start, stop)) if one.end is None else one for one in found),
        *(replace(one, end=at) for one in disks),
    ]


def notes(project: Project, pieces: Iterable[Piece]) -> dict[str, Note]:
    """Pieces that have ended, by the month in which they did."""
    by_month: dict[str, list[Piece]] = {}
    for piece in pieces:
        assert piece.end is not None
        by_month.setdefault(month_of(piece.end), []).append(piece)
    return {
        month: Note(project.uid, project.name, tuple(found), project.owner)
        for month, found in by_month.items()
    }


def facts(
    project: Project, runs: Iterable[Run], generations: Iterable[Generation], noted: Iterable[Note]
) -> list[Piece]:
    """All pieces of one project: what it has, what it ran, and what was noted of it."""
    known = list(runs)
    last = next((run for run in known if run.number == project.run), None)
    found = [one for run in known for one in ran(project, run)]
    disks = [*held(project, last, generations).values(), *(one for note in noted for one in note.pieces)]
    return [*found, *in_turn(disks)]


def in_turn(pieces: Iterable[Piece]) -> list[Piece]:
    """One thing that changed is several pieces: each of them begins no earlier than the one before has ended."""
    last: dict[str, float] = {}
    found = []
    for piece in sorted(pieces, key=lambda one: (one.end is None, one.end or 0.0)):
        key = f"{piece.kind}:{piece.id}"
        start = max(piece.start, last.get(key, piece.start))
        if piece.end is None or piece.end > start:
            found.append(replace(piece, start=start))
            last[key] = piece.end or start
    return found
