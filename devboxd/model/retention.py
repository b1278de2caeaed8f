"""What may go: surplus instances, volumes of closed runs, generations too many, images nobody refers to.

Rows L6 and 14 to 17 of the call table. Everything goes in two passes: first the row or a tag says so, later
it is deleted. What is deleted is ruled by facts that stay true once they are true, as EC2 knows no
"only if": a run that is closed stays closed, a save number that is over never comes back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from devboxd.model import rebase, tags
from devboxd.model.change import BRISK
from devboxd.model.cost import DAY
from devboxd.model.ledger import Ledger
from devboxd.model.probe import is_probe
from devboxd.model.project import (
    Generation,
    GenerationState,
    Phase,
    Policy,
    Project,
    Quality,
    needed,
    read_token,
)
from devboxd.model.seen import Image, Seen, Snapshot, Volume, can_never_be_bound
from devboxd.model.states import InstanceState
from devboxd.model.step import (
    DropImage,
    DropSnapshot,
    DropVolume,
    Erase,
    Release,
    Step,
    Tag,
    UnpinFork,
    Wait,
    Write,
)

NEVER_FEWER: Final = 2  # generations
GONE_AFTER: Final = 60.0  # seconds of looking at nothing before the rows of a deleted project are dropped
_QUIET: Final = (
    "available",
    "completed",
    "disabled",
    "error",
    "failed",
    "invalid",
)  # nothing is made of it now
_UNDONE: Final = ("pending", "transient")
_NOTHING: Final = "nothing of it shows any more"


def sweep(seen: Seen) -> Step | None:
    """The next chore; None where there is none. A Wait says when the next one is due.

    The copy of an old root comes last: a detach may never end, and nothing else waits for it.
    """
    chore = (
        reap(seen)
        or _own_at_last(seen)
        or retire(seen)
        or _forgotten(seen)
        or _collected(seen, _garbage(seen))
    )
    if chore is not None and not isinstance(chore, Wait):
        return chore
    last = rebase.stray(seen)
    if isinstance(chore, Wait) and isinstance(last, Wait):
        return min(chore, last, key=_seconds)
    return last or chore


def _seconds(wait: Wait) -> float:
    return wait.seconds


def _own_at_last(seen: Seen) -> Step | None:
    """A fork that has a generation of its own needs its origin no more."""
    project = seen.project
    return _unpinned(project, project.fork_of) if project.fork_of is not None and project.head else None


def _unpinned(project: Project, origin: tuple[str, int]) -> UnpinFork:
    uid, generation = origin
    return UnpinFork(uid, generation, f"fork:{project.uid}")


def reap(seen: Seen) -> Step | None:
    """(L6) an instance of a launch that was given up, whatever it is doing."""
    surplus = [
        box
        for box in seen.ec2.boxes
        if box.id != seen.project.instance
        and can_never_be_bound(box.token, seen.project)
        and not is_probe(box.token, seen.project)
    ]
    for box in surplus:
        if box.is_alive and box.id not in seen.put_off:
            return Release(box.id, box.spot_request)
    if any(box.state is InstanceState.SHUTTING_DOWN for box in surplus):
        return Wait(BRISK, "an instance that was launched twice is shutting down")
    return None


# Generations -----------------------------------------------------------------------------------------------


def kept(generations: Iterable[Generation], policy: Policy, at: float) -> frozenset[int]:
    """The generations to keep: the last few, the newest of each of the last days, pins, rescues for a while."""
    newest_first = sorted((one for one in generations if one.is_ok), key=lambda one: -one.number)
    keep = {one.number for one in newest_first[: max(policy.keep_last, NEVER_FEWER)]}
    keep |= {one.number for one in newest_first if one.pins}
    keep |= {
        one.number
        for one in newest_first
        if one.quality is Quality.RESCUE and at - one.created < policy.keep_rescue
    }
    days: dict[int, int] = {}
    for one in newest_first:
        days.setdefault(int(one.created // DAY), one.number)
    today = int(at // DAY)
    keep |= {number for day, number in days.items() if today - day < policy.keep_days}
    return frozenset(keep)


def unpinned(ledger: Ledger, number: int, pin: str) -> Write | None:
    """A generation without this pin; None where it has none such."""
    one = next((found for found in ledger.generations if found.number == number), None)
    if one is None or pin not in one.pins:
        return None
    freed = replace(one, pins=tuple(kept for kept in one.pins if kept != pin))
    return Write("unpin", ledger.project, f"generation {number} is free of {pin}", generations=(freed,))


def retire(seen: Seen) -> Step | None:
    """(16) one generation too many. The row comes first; the image goes when no reader can still want it."""
    project = seen.project
    keep = kept(seen.generations, project.policy, seen.at) | needed(project, seen.run)
    for one in seen.generations:
        if one.is_ok and one.number not in keep:
            gone = replace(one, state=GenerationState.DELETING)
            return Write("16", project, f"generation {one.number} is over", generations=(gone,))
    return None


def _forgotten(seen: Seen) -> Step | None:
    """A retired generation of which nothing shows any more leaves the books; no volume of its run is left either."""
    images = {image.id for image in seen.ec2.images if image.is_there}
    snapshots = {snapshot.id for snapshot in seen.ec2.snapshots}
    shared = {one.image for one in seen.generations if one.is_ok}
    tokens = [read_token(volume.token) for volume in seen.ec2.volumes if volume.is_there]
    judged = {token.run for token in tokens if token is not None and token.uid == seen.project.uid}
    for one in seen.generations:
        if one.run in judged and one.run <= seen.project.closed:
            continue  # it says what may become of them
        left = {one.image} & images or {disk.snapshot for disk in one.disks} & snapshots
        if not one.is_ok and (one.image in shared or not left):
            return Write("17", seen.project, f"generation {one.number} is deleted", erased=(one.number,))
    return None


# Volumes, images, snapshots --------------------------------------------------------------------------------


Leftover = Volume | Image | Snapshot


def _garbage(seen: Seen) -> list[Leftover]:
    """All that may be marked; a snapshot is deleted only when no image has it any more."""
    volumes = [volume for volume in seen.ec2.volumes if is_spent(seen, volume)]
    images = [image for image in seen.ec2.images if is_unwanted_image(seen, image)]
    snapshots = [snapshot for snapshot in seen.ec2.snapshots if is_unwanted_snapshot(seen, snapshot)]
    return [*volumes, *images, *snapshots]


def _registered(images: Iterable[Image], snapshots: Iterable[Snapshot]) -> frozenset[str]:
    """Snapshots of an image that shows; where it does not name them, all of its save."""
    there = [image for image in images if image.is_there]
    named = {snapshot for image in there for snapshot in image.snapshots.values() if snapshot}
    nameless = {image.save for image in there if not image.snapshots or None in image.snapshots.values()}
    return frozenset(named | {one.id for one in snapshots if one.save is not None and one.save in nameless})


def is_spent(seen: Seen, volume: Volume) -> bool:
    """Say whether a volume of ours holds nothing that is not in a generation: S3.

    Its launch was given up before it was bound, or its run is closed, the last generation of that run has it (it
    may have been detached before, and is not set aside), and the head shows whole, here and now: else it may be the last copy.
    """
    if not volume.is_there or volume.state != "available":
        return False
    if volume.rebase is not None:
        return not rebase.is_needed(seen, volume)
    if can_never_be_bound(volume.token, seen.project):
        return True
    read = read_token(volume.token)
    if read is None or read.uid != seen.project.uid or read.run > seen.project.closed:
        return False
    if seen.project.is_set_aside(read.run):
        return False
    if read.run not in seen.project.given_up and not is_saved_volume(seen, volume.id, read.run):
        return False
    return seen.is_proven(seen.head)


def is_saved_volume(seen: Seen, volume: str, run: int) -> bool:
    """Say whether the last generation that was made of a run has this volume."""
    last = max((one for one in seen.generations if one.run == run), key=lambda one: one.save, default=None)
    return last is not None and any(disk.volume == volume for disk in last.disks)


def is_unwanted_image(seen: Seen, image: Image) -> bool:
    """Say whether an image belongs to a save that is over and to no generation that counts: S4."""
    used = any(one.is_ok and one.image == image.id for one in seen.generations)
    return image.is_there and image.state not in _UNDONE and not used and _is_over(seen.project, image.save)


def is_unwanted_snapshot(seen: Seen, snapshot: Snapshot) -> bool:
    """The same for a snapshot, unless it is all that is left of a volume that was given up."""
    used = any(disk.snapshot == snapshot.id for one in seen.generations if one.is_ok for disk in one.disks)
    if snapshot.state not in ("completed", "error") or used or not _is_over(seen.project, snapshot.save):
        return False
    return not is_last_copy(seen, snapshot)


def is_last_copy(seen: Seen, snapshot: Snapshot) -> bool:
    """Say whether this is the newest there is of a volume that is gone, of a run that was set aside.

    A generation of that save or a later one has what it holds; so has the volume, while it shows.
    """
    save, run, volume = snapshot.save, snapshot.run, snapshot.volume
    if snapshot.state != "completed" or save is None or run is None or volume is None:
        return False
    if save > seen.project.saves or not seen.project.is_set_aside(run):
        return False
    if any(one.id == volume and one.is_there for one in seen.ec2.volumes):
        return False
    saved = [one.save for one in seen.generations if any(disk.volume == volume for disk in one.disks)]
    others = [
        (one.save or 0, one.id)
        for one in seen.ec2.snapshots
        if one.volume == volume and one.run == run and one.state == "completed"
    ]
    return save > max(saved, default=0) and (save, snapshot.id) == max(others)


def _is_over(project: Project, save: int | None) -> bool:
    """A save that was handed out and is not on. A number that we never handed out is not ours to judge."""
    return save is not None and save <= project.saves and save not in (project.save, project.snap)


def _collected(seen: Seen, garbage: list[Leftover], *, grace: float | None = None) -> Step | None:
    """(14, 15, 17) mark all at once; delete, one a pass, what was marked long enough ago."""
    left = [one for one in garbage if one.id not in seen.put_off]
    if unmarked := tuple(one.id for one in left if one.garbage is None):
        return Tag(unmarked, tags.of_garbage(seen.at), "left over")
    held = _registered(seen.ec2.images, seen.ec2.snapshots)
    wait = seen.project.policy.grace if grace is None else grace
    due = [(_due(one, seen.at, wait), one) for one in left if one.id not in held]
    for moment, one in due:
        if moment <= seen.at:
            return _dropped(one)
    return (
        Wait(max(BRISK, min(due, key=_moment)[0] - seen.at), "what is left over goes soon") if due else None
    )


def _due(one: Leftover, at: float, grace: float) -> float:
    """When it may go. A copy of an old root holds nothing of its own, and may still be attached by a late call."""
    is_copy = isinstance(one, Volume) and one.rebase is not None
    return (one.garbage or at) + (0.0 if is_copy else grace)


def _moment(due: tuple[float, Leftover]) -> float:
    return due[0]


def _dropped(one: Leftover) -> Step:
    match one:
        case Volume():
            return DropVolume(one.id)
        case Image():
            return DropImage(one.id)
        case Snapshot():
            return DropSnapshot(one.id)


# DELETING --------------------------------------------------------------------------------------------------


def begin_deleting(seen: Seen) -> Write:
    """The user wants nothing of it kept. There is no way back from here."""
    project = seen.project
    gone = tuple(replace(one, state=GenerationState.DELETING) for one in seen.generations if one.is_ok)
    changed = replace(
        project, phase=Phase.DELETING, since=seen.at, save=None, snap=None, rollback=None, reason=""
    )
    return Write("delete", changed, "deleting the project and all that belongs to it", generations=gone)


def deleting(seen: Seen) -> Step:
    """Instances first, then what they leave; marked on one pass, deleted on a later one."""
    for box in seen.ec2.boxes:
        if box.is_alive and box.id not in seen.put_off:
            return Release(box.id, box.spot_request)
    left: list[Leftover] = [volume for volume in seen.ec2.volumes if volume.is_there]
    left += [image for image in seen.ec2.images if image.is_there]
    left += seen.ec2.snapshots
    ready = [one for one in left if one.state in _QUIET]
    if (step := _collected(seen, ready, grace=0.0)) is not None:
        return step
    if left or any(box.state is not InstanceState.TERMINATED for box in seen.ec2.boxes):
        return Wait(BRISK, "what is left is still in use")
    if seen.waited_for(_NOTHING) < GONE_AFTER:
        return Wait(BRISK, _NOTHING)
    if seen.project.fork_of is not None:
        return _unpinned(seen.project, seen.project.fork_of)
    return Erase(seen.project, "deleted")
