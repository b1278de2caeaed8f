"""Changes of the row that several phases share.

LaunchTime is the stamp of all of them: an instance that was started behind our back has another one, and is not
what was saved of it.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from devboxd.model.project import (
    Cycle,
    Disk,
    Phase,
    Place,
    Project,
    Run,
    Span,
    Want,
)
from devboxd.model.seen import LAG, Box, Seen
from devboxd.model.states import InstanceState
from devboxd.model.step import (
    Step,
    Wait,
    Write,
)

BRISK: Final = 2.0  # seconds between looks while something is on its way
IMAGING: Final = 10.0  # while an image is made: minutes, exceptionally hours
CALM: Final = 300.0  # while nothing is
MAX_FAILURES: Final = 3  # images in a row that came to nothing
SPOT: Final = frozenset({"Server.SpotInstanceTermination", "Server.SpotInstanceShutdown"})
HOST: Final = {  # EC2 stops a running instance, which can be started again elsewhere (API: StateReason)
    "Server.ScheduledStop": "EC2 has stopped the box, as its host is retired",
    "Server.InternalError": "EC2 has stopped the box, as its host failed",
}
ENDED: Final = {  # who else stops one (API: StateReason)
    "Client.InstanceInitiatedShutdown": "the box was shut down from inside, by its watchdog or by somebody on it",
    "Client.UserInitiatedShutdown": "the box was stopped through EC2, by somebody or by its dead-man schedule",
}


def is_restarted(seen: Seen, box: Box) -> bool:
    """Say whether the instance was started since we last knew it: LaunchTime changes at every start."""
    known = seen.project.launched
    return box.launched is not None and (known is None or box.launched > known)


def begin(seen: Seen, why: str) -> Write:
    """(1) allot a save number. Only then is anything done to the box."""
    project, box = seen.project, seen.box
    number = project.saves + 1
    # A box that stopped by itself, or by somebody's hand, is not started again by us. EC2 is nobody.
    reason = box.reason if box is not None and box.state.is_stopped else ""
    reclaimed = reason in SPOT
    moved = reason in HOST and project.phase is Phase.RUNNING and project.is_wanted_up
    why = f"{HOST[reason]}; it comes back on another one" if moved else why
    stays = project.want is not Want.UP or project.is_cycle or reclaimed or moved
    cycle = Cycle.RESTART if moved else project.cycle
    changed = replace(
        project,
        phase=Phase.SAVING,
        since=seen.at,
        want=project.want if stays else Want.WARM,
        cycle=Cycle.RELAUNCH if reclaimed and project.want is Want.UP else cycle,
        reclaimed=project.reclaimed or reclaimed,
        saves=number,
        save=number,
        snap=None,
        stamp=None,
        clean=False,
        forced=False,
        failures=0,
        launched=box.launched if box else project.launched,
        reason=why,
    )
    return Write("1", changed, f"saving: {why}")


def running_again(seen: Seen, box: Box, why: str) -> Write:
    """Back to RUNNING. Who started it behind our back wanted it up; a start of ours is no wish (S11)."""
    project = seen.project
    changed = replace(
        project,
        phase=Phase.RUNNING,
        since=seen.at,
        want=project.want if _is_no_wish(project, box) else Want.UP,
        at=placed(box),
        launched=box.launched,
        save=None,
        stamp=None,
        clean=False,
        forced=False,
        failures=0,
        dead=False,
        cycle=project.cycle if other_type(project, box) is not None else Cycle.NONE,
        reclaimed=False,
        called_off=None,
        reason="",
    )
    run = replace(seen.run, spans=started(seen.run, box, seen.ran)) if seen.run else None
    return Write("start", changed, f"{box.id} {why}", run=run)


def _is_no_wish(project: Project, box: Box) -> bool:
    """Say whether that the box runs says nothing about who wants it: the user's last command stands.

    In RUNNING and STARTING it was to run as far as we knew, and the command may have come since.
    """
    if project.phase in (Phase.RUNNING, Phase.STARTING):
        return True
    off = project.called_off
    return off is not None and (box.launched is None or box.launched < off + LAG)


def placed(box: Box) -> Place:
    """Where an instance is, and what it is."""
    return Place(box.type, box.zone, box.subnet)


def other_type(project: Project, box: Box) -> str | None:
    """The type that the box is to have, if it is another one. The first place says which."""
    places = project.spec.places
    if not places or any(place.type == box.type for place in places):
        return None
    return places[0].type


def up_after_all(seen: Seen, box: Box) -> Step:
    """It shows as it was before it was stopped. An old view; but not for ever."""
    why = "EC2 shows an old view: it was stopped already"
    if box.state is InstanceState.RUNNING and seen.waited_for(why) >= LAG:
        return running_again(seen, box, "runs, though it was seen stopped")
    return Wait(BRISK, why)


def started_by_somebody(seen: Seen, box: Box) -> Step:
    """The instance has run since: what was saved of it, if anything, is not what it holds now."""
    if box.is_up:
        return running_again(seen, box, "was started by somebody")
    if box.state is InstanceState.TERMINATED:
        return begin_rescue(seen, box)
    if box.state is InstanceState.SHUTTING_DOWN:
        return Wait(BRISK, "the instance is shutting down")
    return begin(seen, "it ran again since the last save")


def again(seen: Seen, why: str) -> Write:
    """(6) another save number, as a name is used once; after a few, leave it to a person."""
    project = seen.project
    failures = project.failures + 1
    if failures >= MAX_FAILURES:
        return broken(seen, f"{why}, {failures} times; the box is kept as it is")
    number = project.saves + 1
    changed = replace(project, saves=number, save=number, failures=failures)
    run, box = _unsaved(seen.run), seen.box
    if run is not None and box is not None and project.phase is Phase.SAVING:
        run = replace(run, disks=found(seen, box) or run.disks)  # one may have been detached meanwhile
    return Write("6", changed, f"{why}; trying again", run=run)


def _unsaved(run: Run | None) -> Run | None:
    """A run whose volumes have no snapshot that counts."""
    return (
        replace(run, disks=tuple(replace(disk, snapshot=None, stored=None) for disk in run.disks), lacks=())
        if run
        else None
    )


def broken(seen: Seen, reason: str) -> Write:
    """Stop here: a person has to look. Nothing is changed at AWS meanwhile."""
    project = seen.project
    changed = replace(
        project, phase=Phase.BROKEN, halted=project.phase, since=seen.at, reason=reason, failures=0
    )
    return Write("broken", changed, reason)


def resumed(project: Project, at: float) -> Project:
    """A BROKEN project where it was, with a save number of its own for what has to be made again."""
    number = project.saves + 1 if project.save is not None else project.saves
    return replace(
        project,
        phase=project.halted or Phase.READY,
        halted=None,
        since=at,
        saves=number,
        save=number if project.save is not None else None,
        reason="",
    )


def begin_rescue(seen: Seen, box: Box | None) -> Write:
    """(R1) the instance is gone, and what it held last is on its volumes only."""
    project, run = seen.project, seen.run
    reclaimed = box is not None and box.reason in SPOT
    want = project.want if project.want is not Want.UP or project.is_cycle or reclaimed else Want.COLD
    how = "was reclaimed by EC2" if reclaimed else "was terminated" if box else "has vanished"
    row = replace(project, want=want, saves=project.saves + 1, reclaimed=project.reclaimed or reclaimed)
    changed = rescued(row, seen, dead=box is not None)
    unsaved = _unsaved(run)
    closed = replace(unsaved, spans=stopped(unsaved, box, seen.at, seen.ran)) if unsaved else None
    return Write("R1", changed, f"the box {how}; its volumes are being saved", run=closed)


def rescued(project: Project, seen: Seen, *, dead: bool) -> Project:
    """The row at the beginning of a rescue, under its newest save number."""
    return replace(
        project,
        phase=Phase.RESCUE,
        since=seen.at,
        save=project.saves,
        snap=None,
        stamp=None,
        failures=0,
        dead=dead,
        unprotected=False,
        reason="",
    )


def found(seen: Seen, box: Box) -> tuple[Disk, ...] | None:
    """The volumes that are attached, as they are; None while not all of them show. A copy of an old root is none."""
    by_id = {volume.id: volume for volume in seen.ec2.volumes}
    if any(one.volume not in by_id for one in box.attached):
        return None
    own = [one for one in box.attached if by_id[one.volume].rebase is None]
    return tuple(replace(by_id[one.volume].disk, device=one.device, volume=one.volume) for one in own) or None


def started(run: Run, box: Box, ran: float = 0.0) -> tuple[Span, ...]:
    """The times in which it ran, with a new one that begins now. ``ran``: as of ``stopped``."""
    closed = stopped(run, box, box.launched or 0.0, ran)
    new = Span(box.launched, type=box.type, address=box.address) if box.launched is not None else None
    return closed if new is None else (*closed, new)


def stopped(run: Run, box: Box | None, at: float, ran: float = 0.0) -> tuple[Span, ...]:
    """The times in which it ran, the last one closed: at EC2's time for it, or between ``ran`` and ``at``.

    EC2 gives no time for a box that powered itself off, or that it took back.
    """
    if not run.is_open:
        return run.spans
    *earlier, last = run.spans
    if box and box.stopped is not None and box.stopped >= last.start:
        return (*earlier, replace(last, end=box.stopped))
    end = max(at, last.start)
    sure = min(max(ran, last.start), end)
    return (*earlier, replace(last, end=end, sure=sure if sure < end else None))
