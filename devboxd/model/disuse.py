"""When an archived project that nobody uses is deleted, where its policy says so at all.

Slow on purpose. Somebody has to have been told at fourteen, seven and one days before, each time so long ahead: a
warning that comes late moves the end away. The last day begins at the look after the last warning, and daemons have to
be awake, and look, for six hours of it: a clock that jumps ahead brings the next warning nearer, and in the last day the
end, but not before those hours are over. Whatever anybody does with the project begins all of it anew, and so do a clock
that is found to have gone back, a policy that deletes later, and an end that is three months past.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec
from msgspec.structs import replace

from devboxd.model.cost import DAY
from devboxd.model.idle import span
from devboxd.model.idle_note import DisuseNote, IdleNotes
from devboxd.model.idle_policy import utc
from devboxd.model.ledger import Ledger
from devboxd.model.project import Phase, Project, Want
from devboxd.model.retention import is_spent, is_unwanted_image, is_unwanted_snapshot
from devboxd.model.seen import Seen

LEVELS: Final = (14, 7, 1)  # days before the end at which somebody is told
FORGOTTEN: Final = 90 * DAY  # seconds after the end that was told, after which nobody remembers that it was
WATCHED: Final = 6 * 3600.0  # seconds that daemons were awake in the last day, and looked


class Do(StrEnum):
    """What is due."""

    REST = "rest"
    TELL = "tell"
    WATCH = "watch"  # it is in its last day: note that we were there
    DELETE = "delete"


class Verdict(msgspec.Struct, frozen=True):
    """What is due. ``at``: when it is deleted at the earliest; ``days`` until then, in a warning; ``after``: what is
    to be written down once it is done.
    """

    do: Do
    at: float
    after: DisuseNote
    days: int = 0


def is_archived(project: Project) -> bool:
    """Say whether nothing of it is left but what is saved, and nobody wants more."""
    return (
        project.phase is Phase.READY
        and project.want in (Want.COLD, Want.WARM)
        and project.head > 0
        and project.rollback is None
        and project.save is None
        and project.snap is None
        and not project.moved
    )


def last_used(project: Project, event: float | None, notes: IdleNotes) -> float:
    """When somebody used it last: it was taken down, something was asked of it or done to it, or it was kept."""
    return max(project.since, event or 0.0, notes.kept)


def kept_by(known: Ledger, notes: IdleNotes, now: float) -> str:
    """What forbids that a project is deleted unasked, as far as it is written down; empty: nothing does."""
    if not is_archived(known.project):
        return f"it is {known.project.phase}"
    for one in known.generations:
        if one.is_ok and one.pins:
            forks = any(pin.startswith("fork:") for pin in one.pins)
            return f"generation {one.number} is {'needed by a fork' if forks else 'pinned'}"
    for lease in notes.leases:
        if lease.holds(now):
            return f"the lease {lease.id} holds it until {utc(lease.until)}"
    if notes.held is not None and notes.held > now:
        return f"it was extended until {utc(notes.held)}"
    return ""


def stray(seen: Seen) -> str:
    """What there is of an archived project besides its generations and what goes anyway; empty: nothing.

    Deleting the project would delete it, too, and nobody can say what is on it.
    """
    images = {one.image for one in seen.generations}
    snapshots = {disk.snapshot for one in seen.generations for disk in one.disks}
    found = [
        *(box.id for box in seen.ec2.boxes if box.is_alive),
        *(volume.id for volume in seen.ec2.volumes if volume.is_there and not is_spent(seen, volume)),
        *(
            image.id
            for image in seen.ec2.images
            if image.is_there and image.id not in images and not is_unwanted_image(seen, image)
        ),
        *(
            snapshot.id
            for snapshot in seen.ec2.snapshots
            if snapshot.id not in snapshots and not is_unwanted_snapshot(seen, snapshot)
        ),
    ]
    return f"{found[0]} belongs to it, and is in no generation (devboxctl gc)" if found else ""


def judge(known: DisuseNote | None, used: float, delete: float, now: float, awake: float = 0.0) -> Verdict:
    """What is due for a project that nothing keeps.

    Args:
        known: what was written down at the last look.
        used: when it was used last.
        delete: seconds without use after which it goes.
        awake: seconds since this daemon's last look, as far as the machine was awake.
    """
    state = known if known is not None and _fits(known, used, now) else DisuseNote(used)
    if now < used + delete - LEVELS[0] * DAY:
        return Verdict(Do.REST, used + delete, DisuseNote(used))  # the time was made longer
    if state.due is not None and now > _end(state, delete) + FORGOTTEN:
        state = DisuseNote(used)  # no daemon ran for months, or something forbade it
    at = _end(state, delete)
    if len(state.told) < len(LEVELS):
        days = LEVELS[len(state.told)]
        if now < at - days * DAY:
            return Verdict(Do.REST, at, state)
        after = replace(state, told=(*state.told, now))
        return Verdict(Do.TELL, _end(after, delete), after, days)
    if state.due is None:
        after = replace(state, due=now, watched=0.0)
        return Verdict(Do.WATCH, _end(after, delete), after)
    after = replace(state, watched=state.watched + max(awake, 0.0))
    if now >= at and after.watched >= WATCHED:
        return Verdict(Do.DELETE, at, after)
    return Verdict(Do.WATCH if after != state else Do.REST, at, after)


def may_tell(told: float | None, now: float) -> bool:
    """Whether a warning may follow the last one: a clock that jumps to and fro is no reason to warn every hour.

    Both by a clock that does not jump; None: this daemon has warned of nothing.
    """
    return told is None or now - told >= DAY


def _fits(known: DisuseNote, used: float, now: float) -> bool:
    """Whether what was written down is of this time without use, and not of a clock that was wrong."""
    return known.used == used and used <= now and all(at <= now for at in (*known.told, known.due or 0.0))


def _end(state: DisuseNote, delete: float) -> float:
    """The earliest end: each warning gives as many days as it says, and the last look one more."""
    warned = [at + days * DAY for at, days in zip(state.told, LEVELS, strict=False)]
    return max([state.used + delete, *warned, *([state.due + DAY] if state.due is not None else [])])


# Words -----------------------------------------------------------------------------------------------------


def said(project: Project, at: float, used: float, now: float) -> tuple[str, str]:
    """Title and text of a warning."""
    name = project.name
    title = f"{name} is deleted in {span(max(at - now, 0.0))}, with all that is saved of it"
    text = (
        f"nobody used it for {span(now - used)}. It goes on {utc(at)} at the earliest."
        f" devboxctl extend {name} keeps it for as long again; devboxctl idle {name} --delete 0 for ever"
    )
    return title, text


def done(known: Ledger, used: float, now: float) -> tuple[str, str]:
    """Title and text when it was deleted."""
    image = f" (the last image was {known.head.image})" if known.head is not None else ""
    text = (
        f"nobody used it for {span(now - used)}. Where the account has rules for the Recycle Bin of EC2, its images and"
        f" snapshots are in there for some days{image}"
    )
    return f"{known.project.name} was deleted", text
