"""From a running box to a generation: SAVING, rows 1 to 8 of the call table.

An image is made only of a stopped instance, under a name used once, and commits only when it is whole. The
instance is the safety copy all the while.
"""

from __future__ import annotations

from msgspec.structs import replace

from devboxd.model import rebase, tags
from devboxd.model.change import (
    BRISK,
    IMAGING,
    again,
    begin_rescue,
    found,
    is_restarted,
    running_again,
    started_by_somebody,
    stopped,
    up_after_all,
)
from devboxd.model.commit import committed
from devboxd.model.project import (
    Phase,
    Run,
    better_known,
    image_name,
)
from devboxd.model.rescue import missing
from devboxd.model.seen import Box, Seen
from devboxd.model.states import InstanceState
from devboxd.model.step import (
    MakeImage,
    RunHook,
    Step,
    Stop,
    Wait,
    Write,
)


def saving(seen: Seen) -> Step:
    """(2 to 8) stop, image, verify, commit; the instance is the safety copy all the while."""
    box = seen.box
    if box is None:
        return missing(seen)
    if is_restarted(seen, box):
        return started_by_somebody(seen, box)
    match box.state:
        case InstanceState.RUNNING:
            return _stop(seen, box)
        case InstanceState.STOPPING:
            return _stopping(seen, box)
        case InstanceState.STOPPED:
            return _save_stopped(seen, box)
        case InstanceState.TERMINATED:
            return _ended_while_saving(seen, box)
        case _:
            return Wait(BRISK, f"the instance is {box.state}")


def _stop(seen: Seen, box: Box) -> Step:
    """(2, 3) the hook, then StopInstances."""
    project = seen.project
    if project.stamp is not None:
        return up_after_all(seen, box)
    if project.is_wanted_up:
        return running_again(seen, box, "goes on: the save was cancelled")
    if (step := rebase.off_before_stop(seen, box)) is not None:
        return step
    if not seen.hooked:
        return RunHook(box.id, project.save or 0)
    return Stop(box.id)


def _stopping(seen: Seen, box: Box) -> Step:
    project = seen.project
    if project.is_wanted_up and project.stamp is None:
        return _start_instead(seen)
    why = "the box is shutting down"
    if seen.waited_for(why) < project.policy.force_after and not project.forced:
        return Wait(BRISK, why)
    if not project.forced:
        changed = replace(project, forced=True)
        return Write("3", changed, "the box does not shut down: its power is cut, as nothing else helps")
    return Stop(box.id, force=True)


def _start_instead(seen: Seen) -> Write:
    """The save is cancelled before an image was asked for: the box is to run on."""
    changed = replace(seen.project, phase=Phase.STARTING, since=seen.at, save=None, reason="")
    return Write("cancel", changed, "the save was cancelled; starting again")


def _save_stopped(seen: Seen, box: Box) -> Step:
    project, run, image = seen.project, seen.run, seen.image
    if run is None or project.save is None:
        return Wait(BRISK, "the run is not readable yet")
    if (step := rebase.off(seen, box)) is not None:
        return step
    if project.stamp is None:
        return _start_instead(seen) if project.is_wanted_up else _stamped(seen, run, box)
    if image is None:
        return MakeImage(box.id, image_name(project, project.save), tags.of_save(project, project.save))
    if image.state in ("pending", "transient"):
        return Wait(IMAGING, "the image is being made")
    if image.state != "available":
        return again(seen, f"the image is {image.state}")
    return committed(seen, run, image, phase=Phase.WARM)


def _stamped(seen: Seen, run: Run, box: Box) -> Step:
    """(4) write down which stop this is, and every volume with what EC2 keeps in no snapshot."""
    disks = found(seen, box)
    if disks is None:
        return Wait(BRISK, "not all volumes show yet")
    changed = replace(seen.project, stamp=box.launched, launched=box.launched)
    ended = replace(
        run, disks=disks, boot=better_known(run.boot, box.boot), spans=stopped(run, box, seen.at, seen.ran)
    )
    return Write("4", changed, f"stopped; saving {len(disks)} volume{'s' * (len(disks) > 1)}", run=ended)


def _ended_while_saving(seen: Seen, box: Box) -> Step:
    """Terminated under our hands. An image that is whole already, of this very stop, is as good as ever."""
    project, run, image = seen.project, seen.run, seen.image
    whole = image is not None and image.state == "available" and box.launched == project.stamp
    if whole and run is not None and image is not None and project.stamp is not None:
        step = committed(seen, run, image, phase=Phase.WARM)
        if isinstance(step, Write) and step.what == "8":
            return step
    return begin_rescue(seen, box)
