"""A saved box, kept for a while and let go: WARM and RELEASING, rows 9 to 13 of the call table.

LaunchTime is compared before the release and after it, and the head's image must show whole in the same look.
"""

from __future__ import annotations

from msgspec.structs import replace

from devboxd.model.change import (
    BRISK,
    CALM,
    begin,
    begin_rescue,
    is_restarted,
    started_by_somebody,
    up_after_all,
)
from devboxd.model.commit import HOPELESS_AFTER
from devboxd.model.probe import needs_probe, probing
from devboxd.model.project import (
    Cycle,
    Phase,
    Project,
    Want,
)
from devboxd.model.rescue import missing
from devboxd.model.seen import Box, Seen
from devboxd.model.states import InstanceState
from devboxd.model.step import (
    Release,
    Step,
    Wait,
    Write,
)


def warm(seen: Seen) -> Step:
    """(9, 10) saved; the instance is kept for a while, because starting it is fast."""
    project, box = seen.project, seen.box
    if box is None:
        return missing(seen)
    if is_restarted(seen, box):
        return started_by_somebody(seen, box)
    if box.state is InstanceState.TERMINATED:
        return ended(seen, box)
    if box.state is not InstanceState.STOPPED:
        return up_after_all(seen, box)
    if is_to_start(project):
        changed = replace(project, phase=Phase.STARTING, since=seen.at, cycle=Cycle.NONE, reason="")
        return Write("start", changed, "starting again")
    if not is_saved(seen, box):
        return begin(seen, "it holds more than the newest generation")
    if (left := _warm_for(seen)) > 0:
        return Wait(min(left, CALM), "saved; the stopped box is kept warm")
    if not seen.is_proven(seen.head):
        return _unproven(seen)
    if seen.head is not None and needs_probe(project, seen.head):
        return probing(seen, seen.head)
    changed = replace(project, phase=Phase.RELEASING, since=seen.at, unprotected=True)
    return Write("10", changed, "releasing the box: everything is in the generation")


def is_to_start(project: Project) -> bool:
    """Say whether the stopped instance is to run again."""
    return project.want is Want.UP and not project.is_let_go


def _warm_for(seen: Seen) -> float:
    """Seconds that the stopped box is still kept."""
    project = seen.project
    if project.is_let_go or project.want in (Want.COLD, Want.GONE):
        return 0.0
    window = project.policy.warm_for
    return float("inf") if window is None else project.since + window - seen.at


def _unproven(seen: Seen) -> Step:
    """The head's image does not show whole. Nothing is released; if it stays so, the box is saved anew."""
    why = "the image of the newest generation does not show"
    if seen.waited_for(why) < HOPELESS_AFTER:
        return Wait(BRISK, why)
    return begin(seen, "the image of the newest generation is not there any more")


def is_saved(seen: Seen, box: Box) -> bool:
    """Say whether the head holds what this stopped, or terminated, instance held: the gate of the release."""
    head = seen.head
    return (
        seen.project.clean
        and head is not None
        and head.run == seen.project.run
        and head.stamp is not None
        and box.launched is not None
        and head.stamp == box.launched
    )


def releasing(seen: Seen) -> Step:
    """(11 to 13) protection off and terminate, over and over, until it shows as terminated."""
    box = seen.box
    if box is None:
        return missing(seen)
    if is_restarted(seen, box):
        return started_by_somebody(seen, box)
    if box.state is InstanceState.TERMINATED:
        return ended(seen, box)
    if box.state is InstanceState.SHUTTING_DOWN:
        return Wait(BRISK, "the instance is shutting down")
    if box.state is not InstanceState.STOPPED:
        return up_after_all(seen, box)
    if not is_saved(seen, box):
        return begin(seen, "it holds more than the newest generation")
    if not seen.is_proven(seen.head):
        return _unproven(seen)
    return Release(box.id, box.spot_request)


def ended(seen: Seen, box: Box) -> Step:
    """(13) terminated, and the head holds all of it? Else its volumes are rescued."""
    if not is_saved(seen, box):
        return begin_rescue(seen, box)
    project = seen.project
    changed = replace(
        project,
        phase=Phase.READY,
        since=seen.at,
        closed=project.run,
        instance=None,
        launched=None,
        stamp=None,
        unprotected=False,
    )
    return Write("13", changed, f"released {box.id}; ready")
