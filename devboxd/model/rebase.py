"""Another base image under a project, its homes kept: rows B1 to B5 of the call table.

The project is saved and let go; that generation is pinned and is the way back. It is launched from the new image with
all other volumes of that generation. Only when a session to the box answers, so that it can not boot from the wrong
disk, a volume is made of the old root, attached and read: the homes are copied from it, on the box and in the
background. Then it goes. It carries a tag of its own and no launch token, so it is never one of the box's volumes: it
is taken off before the box is stopped, imaged or started, and whatever is left of it is swept.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec
from msgspec.structs import replace

from devboxd.errors import BadRequest
from devboxd.model import offer, tags
from devboxd.model.change import BRISK
from devboxd.model.offer import Base, MachineType
from devboxd.model.project import Boot, Disk, Generation, Phase, Project, Spec, Want, to_make
from devboxd.model.seen import LAG, Box, Seen, Volume
from devboxd.model.step import Attach, MakeVolume, MoveIn, Reach, Step, TakeOff, Wait, Write

KEPT: Final = "user"  # the pin that a person can take off
LETTERS: Final = "ponmlkjihgf"  # of devices for volumes (EC2 User Guide: sdf to sdp)
LET_GO_WITHIN: Final = (
    60.0  # seconds of looking until a box that does not let go of it is stopped all the same
)
PASSING: Final = 10.0  # seconds between looks at what takes its time, or is on its way off a box that goes on
SOON: Final = 60.0  # seconds of looking at each moment, while it may be there any time
ASKED_EVERY: Final = (
    60.0  # seconds between two times that a box is asked to let go: each opens a session to it
)
_OFF: Final = "the copy of the old root is being detached"
_LETTER: Final = re.compile(r"/dev/(?:sd|xvd)([a-z])\d*\Z")


class Progress(msgspec.Struct, frozen=True):
    """How far the copying on the box is. ``kept``: the folder with what was in the place of what came.

    ``notes``: what a person should know, in sentences.
    """

    done: bool = False
    files: int = 0
    bytes: int = 0
    kept: str = ""
    notes: tuple[str, ...] = ()


# Before the launch -----------------------------------------------------------------------------------------


def check_fit(name: str, base: Base, machines: tuple[MachineType, ...], before: Boot) -> None:
    """Raises BadRequest where these types can not boot the image, or it is no Linux as the old one."""
    offer.check_fit(name, base.boot, machines, "devboxctl resize changes the type")
    for platform in (base.boot.platform, before.platform):
        if platform is not None and platform.startswith("Windows"):
            raise BadRequest("homes can be kept between Linux systems only")


def begun(seen: Seen) -> Write:
    """Saved and let go: the next launch is from the other image, and the newest generation is the way back."""
    project, rebase, head = seen.project, seen.project.rebase, seen.head
    assert rebase is not None
    if head is None or not head.is_ok or root_of(head) is None:
        why = "nothing is saved that it could be put under"
        changed = replace(project, rebase=None, want=Want.COLD, reason=f"not rebased: {why}")
        return Write("rebase", changed, changed.reason)
    pinned = replace(
        head,
        pins=head.pins if KEPT in head.pins else (*head.pins, KEPT),
        label=head.label or f"before the rebase onto {rebase.base}",
        base=head.base or project.spec.base,
    )
    spec = replace(project.spec, image=rebase.image, base=rebase.base, disks=rebase.disks, boot=rebase.boot)
    changed = replace(project, spec=spec, rebase=replace(rebase, source=head.number), reason="")
    event = f"put onto {rebase.base}; generation {head.number} is kept: devboxctl launch {project.name} --from {head.number} goes back"
    older = tuple(
        replace(one, base=project.spec.base)
        for one in seen.generations
        if one.is_ok and one.number != head.number and not one.base and project.spec.base
    )
    return Write("rebase", changed, event, generations=(*older, pinned))


def is_first(project: Project) -> bool:
    """Say whether the next launch is from the base image: nothing was saved on it yet."""
    return project.rebase is not None and project.head > 0 and project.rebase.source == project.head


def ordered(spec: Spec, head: Generation) -> tuple[tuple[Disk, ...], tuple[str, ...]]:
    """The volumes of that launch, and the devices that the image lacks: the volumes of the generation.

    The root is the image's, at least as large as before and as fast, under the same key.
    """
    root, old = spec.boot.root_device, root_of(head)
    disks = []
    for disk in spec.disks:
        made = to_make(disk)
        if disk.device == root and old is not None:
            made = replace(
                made,
                size_gib=max(disk.size_gib, old.size_gib, spec.root_gib or 0),
                type=old.type or disk.type,
                iops=old.iops,
                throughput=old.throughput,
                kms=old.kms,
            )
        disks.append(made)
    carried = []
    for disk in head.disks:
        if disk.device == head.boot.root_device:
            continue
        device, taken = disk.device, [one.device for one in disks]
        if _letter(device) in {_letter(one) for one in taken}:
            device = free_device([*taken, *(one.device for one in head.disks)]) or device
        disks.append(replace(to_make(disk), device=device))
        carried.append(device)
    return tuple(disks), tuple(carried)


def root_of(generation: Generation) -> Disk | None:
    """The root volume as it was saved."""
    root = generation.boot.root_device
    return next(
        (one for one in generation.disks if one.device == root and (one.snapshot or one.source)), None
    )


def _letter(device: str) -> str:
    match = _LETTER.match(device)
    return match[1] if match else device


def free_device(taken: list[str]) -> str | None:
    """A device name that nothing has; None where there is none left."""
    letters = {_letter(one) for one in taken}
    return next((f"/dev/sd{letter}" for letter in LETTERS if letter not in letters), None)


# On the running box ----------------------------------------------------------------------------------------


def token(project: Project) -> str:
    """The client token of the copy of the old root that is wanted now.

    Every save counts up, so one that was let go for it is never asked for again.
    """
    rebase = project.rebase
    return f"{project.uid}-{project.run}-{project.saves}-{rebase.tries if rebase else 0}"


def is_needed(seen: Seen, volume: Volume) -> bool:
    """Say whether this copy of an old root is being used, or about to be."""
    project = seen.project
    return (
        project.phase is Phase.RUNNING
        and project.is_moving
        and project.is_wanted_up
        and project.snap is None
        and volume.rebase == token(project)
    )


def moving(seen: Seen, box: Box) -> Step:
    """(B1 to B4) the next thing to do until the homes are on the new root."""
    project, rebase = seen.project, seen.project.rebase
    assert rebase is not None
    source = seen.generation(rebase.source)
    disk = root_of(source) if source is not None and source.is_ok else None
    if disk is None or box.zone is None:
        return failed(seen, f"generation {rebase.source} is not there any more")
    if not seen.reached:
        return Reach(box.id)
    wanted = token(project)
    volume = next((one for one in seen.ec2.volumes if one.rebase == wanted), None)
    if volume is None:
        return MakeVolume(wanted, box.zone, copy_of(disk), tags.of_old_root(project, wanted))
    return _attached(seen, box, volume) or MoveIn(box.id, volume.id, volume.disk.device, wanted)


def _attached(seen: Seen, box: Box, volume: Volume) -> Step | None:
    """(B3) the next thing to do until this copy of the old root is on the box; None: it is."""
    if not volume.is_there or volume.garbage is not None:
        return again(seen, "the copy of the old root came to nothing")
    if volume.state == "creating":
        return _soon(seen, "a volume is being made of the old root")
    if volume.attached_to not in (None, box.id):
        return TakeOff(volume.id, volume.attached_to or "")
    if volume.attached_to is None:
        device = free_device([one.device for one in box.attached])
        if device is None:
            return failed(seen, "no device is free for the old root: detach a volume")
        return Attach(volume.id, box.id, device)
    if volume.attachment != "attached":
        return _soon(seen, f"the old root is {volume.attachment}")
    return None


def _soon(seen: Seen, why: str) -> Wait:
    """Wait for EC2, which promises no bound: after a while with fewer looks."""
    return Wait(BRISK if seen.waited_for(why) < SOON else PASSING, why)


def copy_of(disk: Disk) -> Disk:
    """The volume to make of a saved one, to be read once."""
    return Disk(disk.device, disk.size_gib, "gp3", kms=disk.kms, source=disk.snapshot or disk.source)


def again(seen: Seen, why: str) -> Write:
    """Another copy, under another token."""
    project = seen.project
    assert project.rebase is not None
    changed = replace(project.rebase, tries=project.rebase.tries + 1)
    return Write("rebase", replace(project, rebase=changed), f"{why}; trying again")


def failed(seen: Seen, text: str) -> Write:
    """The homes are not copied, and a person is told. The generation that they are in stays as it is."""
    project, rebase = seen.project, seen.project.rebase
    assert rebase is not None
    reason = (
        f"the homes of generation {rebase.source} are not copied: {text}; "
        f"devboxctl rebase {project.name} --onto {rebase.base} goes on, "
        f"devboxctl launch {project.name} --from {rebase.source} goes back"
    )
    changed = replace(project, rebase=replace(rebase, problem=text), reason=reason)
    return Write("rebase", changed, f"the homes are not copied: {text}")


def moved(seen: Seen, said: Progress) -> Write | None:
    """(B4) all of it is there, counted and compared."""
    project, rebase = seen.project, seen.project.rebase
    if rebase is None or not said.done:
        return None
    text = f"{said.files} files, {size(said.bytes)}"
    if said.kept:
        text = f"{text}; what was in their place is in {said.kept}"
    if said.notes:
        text = f"{text}; {'; '.join(said.notes)}"
    event = f"the homes of generation {rebase.source} are on {rebase.base}: {text}"
    return Write("rebase", replace(project, rebase=replace(rebase, done=text), reason=""), event)


def far(said: Progress) -> str:
    """How far it is, for people."""
    return f"copying the homes: {said.files} files, {size(said.bytes)}"


def size(count: int) -> str:
    """Bytes as people say them."""
    for unit, bytes_ in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= bytes_:
            return f"{count / bytes_:.1f} {unit}"
    return f"{count} bytes"


def told(project: Project) -> str:
    """How a rebase stands, for people; empty where there was none."""
    rebase = project.rebase
    if rebase is None:
        return ""
    if rebase.source is None:
        return f"onto {rebase.base}, once it is saved"
    if rebase.done:
        return f"the homes of generation {rebase.source} are here: {rebase.done}"
    if rebase.problem:
        return f"the homes of generation {rebase.source} are not here: {rebase.problem}"
    return f"the homes of generation {rebase.source} are to be copied while it runs"


# Out of the way --------------------------------------------------------------------------------------------


def off(seen: Seen, box: Box) -> Step | None:
    """(B5) take copies of an old root off a box that is to be stopped, imaged or started; None: there is none on it."""
    named = {one.volume for one in box.attached}
    here = next(
        (
            one
            for one in seen.ec2.volumes
            if one.rebase is not None and (one.attached_to == box.id or one.id in named)
        ),
        None,
    )
    if here is None:
        return None
    if here.attachment not in ("detaching", "busy"):
        return TakeOff(here.id, box.id, is_up=box.is_up)
    if box.is_up or seen.waited_for(_OFF) < LAG:
        return Wait(BRISK, _OFF)
    return TakeOff(here.id, box.id, force=True)


def off_before_stop(seen: Seen, box: Box) -> Step | None:
    """The same, and patient only so long: what a system holds on to it lets go when it goes down."""
    step = off(seen, box)
    if isinstance(step, Wait) and seen.waited_for(step.why) >= LET_GO_WITHIN:
        return None
    return step


def off_before_image(seen: Seen, box: Box) -> Step | None:
    """The same before an image of the running box, which is given up where the box does not let go of it."""
    step = off(seen, box)
    if isinstance(step, Wait) and seen.waited_for(step.why) >= LAG:
        reason = "no snapshot was made: the copy of the old root does not come off the box"
        return Write("snapshot", replace(seen.project, snap=None, reason=reason), reason)
    return step


def stray(seen: Seen) -> Step | None:
    """A copy of an old root that nobody needs and that is attached still: a call that came late.

    Where ``off`` waits for it, so that it counts how long, it is not asked again what EC2 calls busy.
    """
    project = seen.project
    is_waited_for = project.phase in (Phase.SAVING, Phase.STARTING) or project.snap is not None
    for one in seen.ec2.volumes:
        if one.rebase is None or one.attached_to is None or is_needed(seen, one):
            continue
        box = next((found for found in seen.ec2.boxes if found.id == one.attached_to), None)
        is_up = box is not None and box.is_up
        # Whatever else is waited for: it counts how long this has been looked at.
        is_asked_again = is_up and not is_waited_for and seen.waited[1] % ASKED_EVERY < PASSING
        if one.attachment in ("detaching", "attaching") or (one.attachment == "busy" and not is_asked_again):
            return Wait(PASSING, _OFF)
        return TakeOff(one.id, one.attached_to, is_up=is_up)  # busy: it is asked again to let go of it
    return None
