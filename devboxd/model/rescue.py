"""The instance is gone and its data is in its volumes: RESCUE, rows R1 to R5 of the call table.

Absence is not death: an instance is gone when it shows as terminated, or when all its volumes are free.
"""

from __future__ import annotations

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


def missing(seen: Seen) -> Step:
    """The instance does not show. Gone, or only not visible? Its volumes tell: R1."""
    why = "the instance does not show"
    if seen.waited_for(why) < LAG or not is_adrift(seen):
        return Wait(BRISK, why)
    return begin_rescue(seen, None)


def is_adrift(seen: Seen) -> bool:
    """Say whether all volumes that the box had show, and none is attached."""
    volumes = seen.own_volumes
    known = {disk.volume for disk in seen.run.disks if disk.volume} if seen.run else set()
    complete = bool(volumes) and known <= {volume.id for volume in volumes}
    return complete and all(volume.state == "available" for volume in volumes)


def rescue(seen: Seen) -> Step:
    """(R1 to R5) snapshot each volume, register, commit. None of it hurts the volumes."""
    project, run, box = seen.project, seen.run, seen.box
    if box is not None and box.is_alive and not project.dead:
        return _alive_after_all(seen, box)
    if run is None or project.save is None:
        return Wait(BRISK, "the run is not readable yet")
    disks = assigned(run.disks, seen.own_volumes)
    if isinstance(disks, str):
        if seen.waited_for(disks) < HOPELESS_AFTER:
            return Wait(BRISK, disks)
        return broken(seen, f"{disks}; the newest generation is {project.head or 'none'}")
    if all(disk.snapshot and disk.volume for disk in run.disks):
        return _register(seen, run)
    return _snapshots(seen, run, disks)


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
