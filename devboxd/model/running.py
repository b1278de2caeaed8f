"""A box and its user: RUNNING. What static safety lacks is mended, then it is left alone. Row L5 of the call table."""

from __future__ import annotations

from msgspec.structs import replace

from devboxd.model import rebase, tags
from devboxd.model.change import (
    BRISK,
    CALM,
    ENDED,
    IMAGING,
    begin,
    begin_rescue,
    found,
    is_restarted,
    running_again,
)
from devboxd.model.commit import commit, saved_disks, strange, unlike
from devboxd.model.project import (
    Phase,
    Quality,
    Run,
    Want,
    image_name,
)
from devboxd.model.rescue import missing
from devboxd.model.seen import LAG, Box, Seen
from devboxd.model.states import InstanceState
from devboxd.model.step import (
    GrowFileSystem,
    GrowVolume,
    KeepVolumes,
    MakeImage,
    Protect,
    RunHook,
    Step,
    Tag,
    Wait,
    Write,
)


def running(seen: Seen) -> Step:
    """A box and a user. What is wrong with it is mended, then it is left alone."""
    project, run, box = seen.project, seen.run, seen.box
    if box is None or run is None:
        return missing(seen)
    if box.state is InstanceState.TERMINATED:
        return begin_rescue(seen, box)
    if box.state is InstanceState.SHUTTING_DOWN:
        return Wait(BRISK, "the instance is shutting down")
    if is_restarted(seen, box) and box.is_up:
        return running_again(seen, box, "was stopped and started by somebody")
    if project.adopted:
        return _adopted(seen, run, box)
    if not box.is_up:
        return begin(seen, ENDED.get(box.reason, "the box has stopped"))
    if (mend := _mended(seen, run, box)) is not None:
        return mend
    if not project.is_wanted_up:
        return begin(seen, "asked to stop" if project.want is not Want.UP else "it is to come back changed")
    if project.snap is not None:
        return rebase.off_before_image(seen, box) or live_image(seen, run, box)
    if project.is_moving:
        return rebase.moving(seen, box)
    return Wait(CALM, "running")


def _mended(seen: Seen, run: Run, box: Box) -> Step | None:
    """What static safety lacks: tags, protection, volumes that would die with the box, the list of volumes."""
    project = seen.project
    if project.unprotected and box.spot_request is None:  # spot can not be protected
        return Protect(box.id)
    if mortal := tuple(one.device for one in box.attached if one.dies_with_box):
        return KeepVolumes(box.id, mortal)
    if (relisted := _relisted(seen, run, box)) is not None:
        return relisted
    return _grown(seen, run, box)


def _adopted(seen: Seen, run: Run, box: Box) -> Step:
    """An instance that we did not launch gets the tags that ours are born with."""
    project = seen.project
    ours = tags.of_launch(project, run, project.token)
    volumes = {one.volume for one in box.attached}
    tagged = {box.id: box.tags} | {one.id: one.tags for one in seen.ec2.volumes if one.id in volumes}
    lacking = tuple(
        name for name in (box.id, *sorted(volumes)) if not ours.items() <= tagged.get(name, {}).items()
    )
    if lacking:
        return Tag(lacking, ours, "adopted")
    return Write("adopt", replace(project, adopted=False), f"{box.id} is adopted")


def _relisted(seen: Seen, run: Run, box: Box) -> Step | None:
    """(L5) volumes come and go by other hands; what is attached now is what will be saved."""
    disks = found(seen, box)
    if disks is None or {disk.volume for disk in disks} == {disk.volume for disk in run.disks}:
        return None
    names = ", ".join(sorted(disk.device for disk in disks))
    return Write("L5", seen.project, f"attached volumes: {names}", run=replace(run, disks=disks))


def _grown(seen: Seen, run: Run, box: Box) -> Step | None:
    """A root volume that is to be larger: first the volume, then the file system on it."""
    wanted, root = seen.project.spec.root_gib, box.boot.root_device
    known = next((disk for disk in run.disks if disk.device == root and disk.volume), None)
    if wanted is None or known is None or known.size_gib >= wanted or known.volume is None:
        return None
    volume = next((one for one in seen.ec2.volumes if one.id == known.volume), None)
    if volume is None:
        return None
    if volume.disk.size_gib < wanted:
        return GrowVolume(volume.id, wanted)
    return GrowFileSystem(box.id, known.device, volume.disk.size_gib)


def live_image(seen: Seen, run: Run, box: Box) -> Step:
    """A generation of the running box: as after a power cut, so it never lets the box be released."""
    project = seen.project
    assert project.snap is not None
    image = seen.image_of(project.snap)
    if image is None and not seen.hooked:
        return RunHook(box.id, project.snap, live=True)
    if image is None:
        return MakeImage(box.id, image_name(project, project.snap), tags.of_save(project, project.snap))
    if image.state in ("pending", "transient"):
        return Wait(IMAGING, "running; an image of it is being made")
    disks = saved_disks(run, seen.ec2.snapshots, image, project.snap)
    if image.state == "available" and isinstance(disks, str) and seen.waited_for(disks) < LAG:
        return Wait(IMAGING, disks)
    is_another = bool(strange(run, image) or unlike(run.boot, image.boot))
    if image.state != "available" or isinstance(disks, str) or is_another:
        reason = f"no snapshot was made: the image is {image.state}"
        return Write("snapshot", replace(project, snap=None, reason=reason), reason)
    return commit(seen, run, image, disks, quality=Quality.CRASH, phase=Phase.RUNNING)
