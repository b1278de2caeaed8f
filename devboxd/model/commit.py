"""Is the image whole, and the same machine as before? Then it is the new head: rows 7 and 8 of the call table."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from devboxd.model.change import IMAGING, again
from devboxd.model.project import (
    Boot,
    Disk,
    Generation,
    Phase,
    Quality,
    Run,
)
from devboxd.model.seen import LAG, Image, Seen, Snapshot
from devboxd.model.step import (
    Step,
    Wait,
    Write,
)

HOPELESS_AFTER: Final = 3 * LAG  # seconds of looking after which what does not show is believed gone


def committed(seen: Seen, run: Run, image: Image, *, phase: Phase) -> Step:
    """(7, 8) whole, and the same machine as before? Then it is the new head."""
    project = seen.project
    disks = saved_disks(run, seen.ec2.snapshots, image, project.save)
    if isinstance(disks, str):
        return Wait(IMAGING, disks) if seen.waited_for(disks) < HOPELESS_AFTER else again(seen, disks)
    if foreign := strange(run, image):
        return again(seen, f"the image holds {foreign[0]}, which is no volume of the box")
    if differences := unlike(run.boot, image.boot):
        return again(seen, f"the image differs in {', '.join(differences)}")
    quality = Quality.RESCUE if phase is Phase.READY else Quality.CRASH if project.forced else Quality.CLEAN
    return commit(seen, run, image, disks, quality=quality, phase=phase)


def saved_disks(
    run: Run, snapshots: tuple[Snapshot, ...], image: Image, number: int | None
) -> tuple[Disk, ...] | str:
    """The volumes of a run with one whole snapshot of this save each; a sentence for what is lacking.

    The snapshots are ours by tag, and those that the image names: it may name none for a while.
    """
    disks = []
    for disk in run.disks:
        named = image.snapshots.get(disk.device)
        snapshot = next(
            (
                one
                for one in snapshots
                if one.id == named and one.save == number and one.volume == disk.volume
            ),
            None,
        )
        if snapshot is None:
            return f"the snapshot of {disk.device} does not show yet"
        if snapshot.state != "completed":
            return f"the snapshot of {disk.device} is {snapshot.state}"
        disks.append(replace(disk, snapshot=snapshot.id, stored=snapshot.stored))
    return tuple(disks)


def strange(run: Run, image: Image) -> list[str]:
    """Devices that an image has and the box had not when it was saved: attached a moment later, by whomever."""
    return sorted(set(image.snapshots) - {disk.device for disk in run.disks})


def unlike(before: Boot, after: Boot) -> list[str]:
    """What an image lost: names of attributes that the box is known to have had, and it has not.

    No boot mode or TPM is one lost: that is how EC2 says it. What it always says and does not is not known (yet).
    """
    pairs = {
        "architecture": (before.architecture, after.architecture),
        "boot mode": (before.boot_mode, after.boot_mode),
        "ENA support": (before.ena, after.ena),
        "TPM support": (before.tpm, after.tpm),
        "platform": (before.platform, after.platform),
        "billing code": (before.usage, after.usage),
    }
    told = {"architecture", "platform", "billing code"}
    return [
        name
        for name, (was, is_now) in pairs.items()
        if was is not None and was != is_now and not (is_now is None and name in told)
    ]


def commit(
    seen: Seen, run: Run, image: Image, disks: tuple[Disk, ...], *, quality: Quality, phase: Phase
) -> Write:
    """(8, R5) generation and row in one transaction. From here on this is what the project comes back from."""
    project = seen.project
    number = project.head + 1
    number_of_save = project.snap if phase is Phase.RUNNING else project.save
    assert number_of_save is not None
    generation = Generation(
        number=number,
        image=image.id,
        run=run.number,
        save=number_of_save,
        disks=disks,
        boot=image.boot,
        quality=quality,
        created=seen.at,
        stamp=project.stamp if phase is Phase.WARM else None,
        label=project.label,
        parent=project.head,
        lacks=run.lacks if phase is Phase.READY else (),
        base=project.spec.base,
    )
    changed = replace(
        project,
        head=number,
        phase=phase,
        since=seen.at,
        save=None,
        snap=None,
        label="",
        failures=0,
        reason="",
    )
    event = f"saved as generation {number}"
    if phase is Phase.READY:  # the instance is gone already
        changed = replace(changed, closed=run.number, instance=None, stamp=None, launched=None)
        event = f"rescued as generation {number}"
        if run.lacks:
            changed = replace(changed, reason=f"generation {number} is not all: {'; '.join(run.lacks)}")
            event = f"{event}, without what could not be had: {'; '.join(run.lacks)}"
    if phase is Phase.WARM:
        changed = replace(changed, clean=True)
    if phase is Phase.RUNNING:
        changed = replace(changed, since=project.since)
    return Write("R5" if phase is Phase.READY else "8", changed, event, generations=(generation,))
