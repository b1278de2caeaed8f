"""Looks at a project with two volumes, to be changed in one point by each test."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from devboxd.model.pipeline import next_step
from devboxd.model.project import (
    Boot,
    Disk,
    Generation,
    Phase,
    Place,
    Project,
    Quality,
    Run,
    Spec,
    Want,
)
from devboxd.model.seen import Attached, Box, Image, Observed, Seen, Snapshot, Volume
from devboxd.model.states import InstanceState
from devboxd.model.step import Step

AT = 1_700_000_000.0  # Unix seconds: now
LAUNCHED = AT - 7200.0
BOOT = Boot(
    architecture="arm64",
    boot_mode="uefi",
    ena=True,
    virtualization="hvm",
    root_device="/dev/xvda",
    platform="Linux/UNIX",
    usage="RunInstances",
)
PLACES = (Place("m8g.xlarge", "us-east-1a", "subnet-a"), Place("m8g.xlarge", "us-east-1b", "subnet-b"))
ORDERED = (
    Disk("/dev/xvda", 40, "gp3", 3000, 125, source="snap-base-root"),
    Disk("/dev/sdf", 100, "io2", 9000, source="snap-base-data"),
)
DISKS = (replace(ORDERED[0], volume="vol-root"), replace(ORDERED[1], volume="vol-data"))
RUN = Run(
    1,
    0,
    "ami-base",
    PLACES,
    DISKS,
    {},
    boot=BOOT,
    token="uid-1-0",
    instance="i-1",
)
SPEC = Spec(image="ami-base", places=PLACES, disks=ORDERED, boot=BOOT, root_gib=40)


def project(phase: Phase, **changes: Any) -> Project:
    """A project in its first run, in any phase, as the row would be there."""
    alive = phase not in (Phase.ABSENT, Phase.READY, Phase.LAUNCHING)
    row = Project(
        uid="uid",
        name="api",
        owner="me",
        want=Want.UP,
        phase=phase,
        since=AT - 100,
        run=1,
        closed=0 if alive or phase is Phase.LAUNCHING else 1,
        instance="i-1" if alive else None,
        launched=LAUNCHED if alive else None,
        bound=("uid-1-0",) if alive or phase is Phase.READY else (),
        spec=SPEC,
    )
    if phase in (Phase.SAVING, Phase.RESCUE):
        row = replace(row, saves=1, save=1, want=Want.COLD)
    if phase in (Phase.READY, Phase.WARM, Phase.RELEASING):
        row = replace(row, saves=1, head=1, want=Want.COLD, clean=phase is not Phase.READY)
    if phase is Phase.LAUNCHING:
        row = replace(row, bound=())
    return replace(row, **changes)


def box(state: InstanceState | str = InstanceState.RUNNING, **changes: Any) -> Box:
    """The project's instance."""
    attached = tuple(Attached(disk.device, disk.volume or "", False) for disk in DISKS)
    one = Box(
        "i-1",
        InstanceState(state),
        LAUNCHED,
        "m8g.xlarge",
        "us-east-1a",
        token="uid-1-0",
        attached=attached if state != "terminated" else (),
        boot=BOOT,
    )
    return replace(one, **changes)


def volumes(state: str = "in-use", **changes: Any) -> tuple[Volume, ...]:
    """The two volumes of the project's instance."""
    attached = "i-1" if state == "in-use" else None
    return tuple(
        replace(
            Volume(
                disk.volume or "",
                state,
                replace(disk, device=disk.device if attached else ""),
                token="uid-1-0",
                attached_to=attached,
            ),
            **changes,
        )
        for disk in DISKS
    )


def snapshots(state: str = "completed", save: int = 1) -> tuple[Snapshot, ...]:
    """A snapshot of each of the two volumes."""
    return tuple(
        Snapshot(f"snap-{save}-{disk.device[5:]}", state, disk.volume, disk.size_gib, save) for disk in DISKS
    )


def image(state: str = "available", save: int = 1, **changes: Any) -> Image:
    """The image of a save, of those snapshots."""
    named: dict[str, str | None] = {disk.device: f"snap-{save}-{disk.device[5:]}" for disk in DISKS}
    return replace(Image(f"ami-{save}", f"devbox/api/uid-{save}", state, save, 1, BOOT, named), **changes)


def generation(number: int = 1, **changes: Any) -> Generation:
    """A generation out of the save of the same number."""
    saved = tuple(replace(d, snapshot=f"snap-{number}-{d.device[5:]}") for d in DISKS)
    one = Generation(
        number, f"ami-{number}", 1, number, saved, BOOT, Quality.CLEAN, AT - 3600, stamp=LAUNCHED
    )
    return replace(one, **changes)


def look(
    row: Project,
    *,
    boxes: tuple[Box, ...] | Box = (),
    volumes: tuple[Volume, ...] = (),
    snapshots: tuple[Snapshot, ...] = (),
    images: tuple[Image, ...] | Image = (),
    generations: tuple[Generation, ...] | Generation = (),
    run: Run | None = RUN,
    **changes: Any,
) -> Seen:
    """One look."""
    ec2 = Observed(
        boxes if isinstance(boxes, tuple) else (boxes,),
        volumes,
        snapshots,
        images if isinstance(images, tuple) else (images,),
    )
    known = generations if isinstance(generations, tuple) else (generations,)
    return Seen(row, run, known, ec2, AT, **changes)


def saved(number: int = 1) -> dict[str, Any]:
    """A whole generation, row and EC2: for ``look``."""
    return {
        "images": image(save=number),
        "snapshots": snapshots(save=number),
        "generations": generation(number),
    }


def decide(row: Project, **seen: Any) -> Step:
    """The one next thing."""
    return next_step(look(row, **seen))
