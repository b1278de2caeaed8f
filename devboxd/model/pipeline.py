"""The one next thing to do for a project: the table of its phases.

Level-triggered: the answer depends on nothing but what is seen now, so it is right after a crash, a second
daemon or a hand in the console. At most one act follows from one look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from devboxd.model import launch, release, rescue, retention, running, save
from devboxd.model.change import BRISK, CALM
from devboxd.model.project import Phase, Want
from devboxd.model.seen import Seen
from devboxd.model.step import Step, Wait

OLD_VIEW: Final = "EC2 shows an old view of the instance"


def broken(seen: Seen) -> Step:
    """A person has to look."""
    return Wait(CALM, seen.project.reason)


PHASES: Final[Mapping[Phase, Callable[[Seen], Step]]] = {
    Phase.ABSENT: launch.at_rest,
    Phase.READY: launch.at_rest,
    Phase.LAUNCHING: launch.launching,
    Phase.RUNNING: running.running,
    Phase.SAVING: save.saving,
    Phase.WARM: release.warm,
    Phase.STARTING: launch.starting,
    Phase.RELEASING: release.releasing,
    Phase.RESCUE: rescue.rescue,
    Phase.BROKEN: broken,
    Phase.DELETING: retention.deleting,
}


def next_step(seen: Seen) -> Step:
    """Name the one next thing to do; safe to ask again after any crash."""
    project = seen.project
    if project.moved:
        return Wait(CALM, f"moved to {project.moved}")
    if project.want is Want.GONE and project.phase is not Phase.DELETING:
        return retention.begin_deleting(seen)
    if is_old(seen):
        return Wait(BRISK, OLD_VIEW)
    step = PHASES[project.phase](seen)
    if not isinstance(step, Wait) or project.phase in (Phase.BROKEN, Phase.DELETING):
        return step
    chore = retention.sweep(seen)
    if isinstance(chore, Wait):
        return Wait(min(step.seconds, chore.seconds), step.why)
    return chore or step


def is_old(seen: Seen) -> bool:
    """Say whether EC2 shows the box as it was before a start that we know of."""
    box, known = seen.box, seen.project.launched
    return box is not None and box.launched is not None and known is not None and box.launched < known
