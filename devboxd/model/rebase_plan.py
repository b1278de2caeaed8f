"""What a rebase would call at AWS, in order: nothing is done, and what has no id yet is in brackets."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from devboxd.model import launch, rebase, tags
from devboxd.model.ledger import Ledger
from devboxd.model.offer import ARM, MachineType, architecture_of
from devboxd.model.project import Boot, Generation, Phase, Project, Quality, image_name
from devboxd.model.seen import Observed, Seen
from devboxd.model.step import (
    Attach,
    DropVolume,
    Ec2Call,
    Launch,
    MakeImage,
    MakeVolume,
    Release,
    Stop,
    Tag,
    TakeOff,
)

NEW_VOLUME: Final = "(the copy of the old root)"
NEW_BOX: Final = "(the new box)"
SAVED: Final = "(what is saved first)"
_DOWN: Final = (Phase.READY, Phase.ABSENT)

Calls = tuple[Ec2Call, ...]


def architecture(machines: tuple[MachineType, ...], before: Boot) -> str:
    """Which the image is to have: that of before, where these types can boot it."""
    if not machines:
        return before.architecture or ARM
    old, common = before.architecture, architecture_of(machines, None)
    return old if old and all(old in one.architectures for one in machines) else common


def planned(known: Ledger, now: Project, at: float) -> tuple[Project, Calls]:
    """The project as it would be, and the calls; none where it could not be launched.

    ``known``: with the wish in it; ``now``: the project as it was before.
    """
    known, calls = saving(known, now, at)
    if known.project.is_to_rebase or now.phase in _DOWN:
        launched = launching(known, at)
        if launched is None:
            return known.project, ()
        known, call = launched
        calls = (*calls, call)
    return known.project, (*calls, *moving_in(known, at))


def saving(known: Ledger, now: Project, at: float) -> tuple[Ledger, Calls]:
    """A box that is there is saved and let go for the rebase, unless that is done."""
    return let_go(known, now, at) if known.project.is_to_rebase else (known, ())


def let_go(known: Ledger, now: Project, at: float) -> tuple[Ledger, Calls]:
    """A box that is there is saved and let go; one that is saved already is only let go.

    What RESCUE makes of volumes is under way already. ``known``: with what is wanted, ``now``: as it was before.
    """
    row, run = known.project, known.run
    if run is None or now.phase in (*_DOWN, Phase.LAUNCHING):
        return known, ()
    box, number = row.instance or "", row.saves + 1
    if now.phase in (Phase.WARM, Phase.STARTING, Phase.RELEASING):
        return known, (Release(box),)
    image = MakeImage(box, image_name(row, number), tags.of_save(row, number))
    disks = tuple(replace(disk, snapshot=SAVED) for disk in run.disks)
    saved = Generation(row.head + 1, SAVED, row.run, number, disks, run.boot, Quality.CLEAN, at)
    after = replace(known, project=replace(row, head=saved.number), generations=(*known.generations, saved))
    if now.phase is Phase.RESCUE:
        return after, ()
    stop: Calls = (Stop(box),) if now.phase is Phase.RUNNING else ()
    return after, (*stop, image, Release(box))


def launching(known: Ledger, at: float) -> tuple[Ledger, Launch] | None:
    """It is launched from the image that is wanted; None where it can not be."""
    row, generations = known.project, known.generations
    seen = Seen(row, known.run, generations, Observed(), at)
    if row.is_to_rebase:
        begun = rebase.begun(seen)
        generations = (*generations, *begun.generations[-1:])
        seen = replace(seen, project=begun.project)
    launched = launch.planned(seen)
    if launched is None:
        return None
    row, call = launched
    return replace(known, project=row, run=call.run, generations=generations), call


def moving_in(known: Ledger, at: float) -> Calls:
    """The calls around the copying of homes."""
    row, run = known.project, known.run
    wanted = row.rebase.source if row.rebase is not None else None
    source = next((one for one in reversed(known.generations) if one.number == wanted), None)
    disk = rebase.root_of(source) if source is not None else None
    if run is None or disk is None:
        return ()
    token, zone = rebase.token(row), run.place(row.attempt).zone or ""
    device = rebase.free_device([one.device for one in run.disks]) or ""
    box = row.instance or NEW_BOX
    return (
        MakeVolume(token, zone, rebase.copy_of(disk), tags.of_old_root(row, token)),
        Attach(NEW_VOLUME, box, device),
        TakeOff(NEW_VOLUME, box),
        Tag((NEW_VOLUME,), tags.of_garbage(at), "left over"),
        DropVolume(NEW_VOLUME),
    )
