"""The instance is gone and its data is in its volumes: RESCUE, rows R1 to R5 of the call table.

Absence is not death: an instance is gone when it shows as terminated, or when all its volumes are free. What is
there is saved, and what is not is named: a volume that somebody attached elsewhere, or deleted.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from devboxd.model import tags
from devboxd.model.change import BRISK, IMAGING, again, begin, begin_rescue, broken, running_again
from devboxd.model.commit import HOPELESS_AFTER, committed
from devboxd.model.project import (
    Disk,
    Phase,
    Run,
    image_name,
)
from devboxd.model.seen import LAG, Box, Seen, Volume
from devboxd.model.step import (
    MakeImageOf,
    MakeSnapshot,
    Step,
    Wait,
    Write,
)

NOTHING_LEFT_AFTER: Final = 3600.0  # seconds of looking at nothing at all, after which a person has to look


def missing(seen: Seen) -> Step:
    """The instance does not show. Gone, or only not visible? Its volumes tell: R1."""
    why = "the instance does not show"
    waited = seen.waited_for(why)
    if waited >= NOTHING_LEFT_AFTER and seen.run is not None and not seen.own_volumes:
        return broken(seen, f"{seen.project.instance} is gone, and its volumes do not show; {_newest(seen)}")
    if waited < LAG or not is_adrift(seen, is_late=waited >= HOPELESS_AFTER):
        return Wait(BRISK, why)
    return begin_rescue(seen, None)


def is_adrift(seen: Seen, *, is_late: bool = False) -> bool:
    """Say whether none of the volumes that the box had is attached to it any more: R1.

    All of them have to show; when it is late, the root volume is enough, as no box runs without it.
    """
    project, run, volumes = seen.project, seen.run, seen.own_volumes
    free = {volume.id for volume in volumes if volume.state == "available"}
    if run is None or any(v.id not in free and not _is_elsewhere(v, project.instance) for v in volumes):
        return False
    known = {disk.volume for disk in run.disks if disk.volume}
    if free and known <= {volume.id for volume in volumes}:
        return True
    root = run.boot.root_device
    return is_late and any(disk.device == root and disk.volume in free for disk in run.disks)


def _is_elsewhere(volume: Volume, instance: str | None) -> bool:
    return volume.attached_to not in (None, instance)


def _newest(seen: Seen) -> str:
    return f"the newest generation is {seen.project.head or 'none'}"


def rescue(seen: Seen) -> Step:
    """(R1 to R5) snapshot each volume, register, commit. None of it hurts the volumes."""
    project, run, box = seen.project, seen.run, seen.box
    if box is not None and box.is_alive and not project.dead:
        return _alive_after_all(seen, box)
    if run is None or project.save is None:
        return Wait(BRISK, "the run is not readable yet")
    if run.disks and all(disk.snapshot and disk.volume for disk in run.disks):
        return _register(seen, run)
    disks = assigned(run.disks, seen.own_volumes)
    if not isinstance(disks, str):
        return _snapshots(seen, run, disks)
    is_late = seen.waited_for(disks) >= HOPELESS_AFTER
    if lacking := _lacking(seen, run, is_late=is_late):
        return _without(seen, run, lacking)
    return broken(seen, f"{disks}; {_newest(seen)}") if is_late else Wait(BRISK, disks)


def _lacking(seen: Seen, run: Run, *, is_late: bool) -> dict[str, str]:
    """Devices whose volumes this rescue can not have, and why; none where the root volume is one of them.

    One that is attached elsewhere is somebody's now; one that has not shown for long is gone.
    """
    shown = {volume.id: volume for volume in seen.ec2.volumes if volume.is_there}
    lacking: dict[str, str] = {}
    for disk in run.disks:
        volume = shown.get(disk.volume or "")
        if volume is not None and _is_elsewhere(volume, seen.project.instance):
            lacking[disk.device] = f"{disk.device} ({volume.id}) is attached to {volume.attached_to}"
        elif volume is None and disk.volume is not None and is_late:
            lacking[disk.device] = f"{disk.device} ({disk.volume}) is not there"
    root = run.boot.root_device
    is_useful = root in {disk.device for disk in run.disks} and root not in lacking
    return lacking if is_useful else {}


def _without(seen: Seen, run: Run, lacking: dict[str, str]) -> Write:
    """Go on with what is there."""
    why = tuple(lacking.values())
    left = tuple(disk for disk in run.disks if disk.device not in lacking)
    changed = replace(run, disks=left, lacks=(*run.lacks, *why))
    return Write("R1", seen.project, f"can not be saved: {'; '.join(why)}", run=changed)


def _alive_after_all(seen: Seen, box: Box) -> Step:
    if box.is_up:
        return running_again(seen, box, "is there after all")
    return begin(seen, "the box is there after all")


def assigned(disks: tuple[Disk, ...], volumes: tuple[Volume, ...]) -> tuple[Disk, ...] | str:
    """The disks of a run with the free volumes that they are; a sentence for what is lacking.

    A detached volume does not say where it was attached. The run knows, once it has seen them attached; else
    the snapshot that a volume was made from tells them apart, and after that nothing but the size.
    """
    left = list(volumes)
    placed: dict[str, Disk] = {}
    # What is known for certain first, or a guess would take it away.
    for disk in sorted(disks, key=lambda one: (one.volume is None, one.source is None, one.device)):
        likely = [volume for volume in left if disk.volume in (None, volume.id)]
        if not likely:
            return f"the volume of {disk.device} is not there"
        fits = min(likely, key=lambda volume: _unlike(volume.disk, disk))
        if fits.state != "available":
            return f"the volume of {disk.device} is still attached"
        left.remove(fits)
        placed[disk.device] = replace(fits.disk, device=disk.device, volume=fits.id, snapshot=disk.snapshot)
    return tuple(placed[disk.device] for disk in disks) if placed else "the volumes are not there"


def _unlike(volume: Disk, ordered: Disk) -> tuple[bool, ...]:
    """How little a volume looks like the one that was ordered: less is better."""
    return (
        volume.size_gib != ordered.size_gib,
        volume.source != ordered.source,
        volume.type != ordered.type,
        volume.iops != ordered.iops,
    )


def _snapshots(seen: Seen, run: Run, disks: tuple[Disk, ...]) -> Step:
    """(R2, R3) one snapshot of each; which ones count is written down before they are used."""
    project = seen.project
    assert project.save is not None
    chosen: list[Disk] = []
    pending = ""
    for disk in disks:
        own = [s for s in seen.ec2.snapshots if s.volume == disk.volume and s.save == project.save]
        if not own:
            assert disk.volume is not None
            return MakeSnapshot(disk.volume, disk.device, tags.of_save(project, project.save))
        best = min(own, key=lambda one: (one.state != "completed", one.state == "error", one.id))
        if best.state == "error":
            return again(seen, f"the snapshot of {disk.device} failed")
        if best.state != "completed":
            pending = pending or disk.device
        chosen.append(replace(disk, snapshot=best.id))
    if pending:
        return Wait(IMAGING, f"the snapshot of {pending} is being made")
    return Write("R3", project, "all volumes are saved", run=replace(run, disks=tuple(chosen)))


def _register(seen: Seen, run: Run) -> Step:
    """(R4, R5) an image of the snapshots, and the commit."""
    project, image = seen.project, seen.image
    assert project.save is not None
    if image is None:
        name = image_name(project, project.save)
        return MakeImageOf(name, run.disks, run.boot, tags.of_save(project, project.save))
    if image.state in ("pending", "transient"):
        return Wait(IMAGING, "the image is being registered")
    if image.state != "available":
        return again(seen, f"the image is {image.state}")
    return committed(seen, run, image, phase=Phase.READY)
