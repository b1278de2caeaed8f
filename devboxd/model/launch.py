"""From nothing to a running box: ABSENT, READY, LAUNCHING, STARTING. Rows L1 to L4 of the call table."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from devboxd.model import rebase, tags
from devboxd.model.change import (
    BRISK,
    CALM,
    begin,
    found,
    is_restarted,
    other_type,
    placed,
    rescued,
    running_again,
    started,
    up_after_all,
)
from devboxd.model.project import (
    Cycle,
    Generation,
    Phase,
    Place,
    Project,
    Run,
    Spec,
    Want,
    as_ordered,
    better_known,
    bind,
)
from devboxd.model.release import ended, is_saved, is_to_start
from devboxd.model.rescue import assigned, missing
from devboxd.model.seen import LAG, Box, Seen
from devboxd.model.states import InstanceState
from devboxd.model.step import (
    ChangeType,
    Launch,
    Start,
    Step,
    Wait,
    Write,
)

NEVER_RAN: Final = frozenset(  # StateReason codes of a launch that came to nothing (API: StateReason)
    {
        "Client.InternalError",  # often a KMS key
        "Client.InvalidSnapshot.NotFound",
        "Client.VolumeLimitExceeded",
        "Server.InsufficientInstanceCapacity",
        "Server.InternalError",
    }
)
NO_ROOM: Final = frozenset({"Server.InsufficientInstanceCapacity"})
_UNSEEN: Final = "its volumes do not show yet"
_NOT_TO_START: Final = "it is not wanted up any more, and may be starting"
STARTS: Final = 3  # starts that EC2 took without an effect before what it says of the box is about them
STARTS_MOST: Final = 12  # and before we believe that none will come: two minutes
ROUND: Final = 15.0  # seconds after the first round of all places that had no capacity
ROUND_MOST: Final = 300.0  # and after a later one, at most
LOOK_AGAIN: Final = 120.0  # seconds between two looks meanwhile
SETTLED: Final = 20.0  # seconds of looking after which a start that was asked for shows, nearly always


def at_rest(seen: Seen) -> Step:
    """ABSENT and READY: nothing runs, and all there was is in a generation."""
    project = seen.project
    if project.rollback is not None:
        return roll_back(seen)
    if project.is_to_rebase:
        return rebase.begun(seen)
    if project.want is Want.UP:
        return begin_launch(seen)
    return Wait(CALM, "saved; nothing runs" if project.head else "nothing saved yet")


def roll_back(seen: Seen) -> Step:
    """A new generation that points at an old one's image. Nothing is rewritten, so this can be undone the same way."""
    project = seen.project
    old = seen.generation(project.rollback)
    if old is None or not old.is_ok:
        reason = f"generation {project.rollback} is not there any more"
        return Write(
            "rollback",
            replace(project, rollback=None, want=Want.COLD, reason=reason),
            f"no rollback: {reason}",
        )
    if old.number == project.head:
        back = replace(project, rollback=None, rebase=None, spec=_under(project, old))
        return Write("rollback", back, f"generation {old.number} is the newest already")
    number = project.head + 1
    new = replace(
        old,
        number=number,
        created=seen.at,
        stamp=None,
        parent=old.number,
        pins=(),
        label=f"back to {old.number}",
    )
    return Write(
        "rollback",
        replace(
            project,
            head=number,
            rollback=None,
            rebase=None,
            spec=_under(project, old),
            phase=Phase.READY,
            since=seen.at,
        ),
        f"went back to generation {old.number}, as generation {number}",
        generations=(new,),
    )


def _under(project: Project, generation: Generation) -> Spec:
    """The spec with the base image that a generation has under it."""
    return replace(project.spec, base=generation.base or project.spec.base)


def begin_launch(seen: Seen) -> Step:
    """(L1) write down run, attempt and all that RunInstances will be called with, before it is called."""
    project, spec, head = seen.project, seen.project.spec, seen.head
    is_first = head is not None and rebase.is_first(project)  # on another base
    image = head.image if head and not is_first else spec.image
    if not image or not spec.places:
        what = "an image" if not image else "a place"
        failed = replace(project, want=Want.COLD, reason=f"there is no {what} to launch from")
        return Write("L1", failed, f"not launched: {failed.reason}")
    disks = as_ordered(head.disks if head else spec.disks, spec.root_gib, _root(seen))
    carried: tuple[str, ...] = ()
    if head is not None and is_first:
        disks, carried = rebase.ordered(spec, head)
    run = Run(
        number=project.run + 1,
        source=project.head,
        image=image,
        places=in_order(spec.places, shunned=project.shunned, liked=_last_place(seen)),
        disks=disks,
        tags=spec.tags,
        profile=spec.profile,
        groups=spec.groups,
        user_data=spec.user_data,
        spot=spec.spot and not project.reclaimed,
        boot=head.boot if head and not is_first else spec.boot,
        carried=carried,
    )
    changed = replace(
        project,
        phase=Phase.LAUNCHING,
        since=seen.at,
        run=run.number,
        attempt=0,
        instance=None,
        at=run.place(0),
        launched=None,
        stamp=None,
        save=None,
        snap=None,
        dead=False,
        forced=False,
        unprotected=False,
        failures=0,
        shunned=None,
        called_off=None,
        cycle=Cycle.NONE,
        reclaimed=False,
        rebase=replace(project.rebase, done="") if project.rebase and is_first else project.rebase,
        reason="",
    )
    source = f"generation {head.number}" if head else spec.base or image
    if head is not None and is_first:
        source = f"{spec.base or image}, with the volumes of generation {head.number} but its root"
    if head is not None and head.lacks:
        source = f"{source}, which is not all: {'; '.join(head.lacks)}"
    return Write("L1", changed, f"launching from {source}", run=run)


def in_order(places: tuple[Place, ...], *, shunned: str | None, liked: str | None) -> tuple[Place, ...]:
    """The places of a launch: where it worked last first, where there was no capacity last."""
    return tuple(sorted(places, key=lambda place: (place.zone == shunned, place.zone != liked)))


def _last_place(seen: Seen) -> str | None:
    run = seen.run
    return run.place(seen.project.attempt).zone if run and run.token and run.places else None


def _root(seen: Seen) -> str | None:
    head = seen.head
    if head is not None:
        return head.boot.root_device
    return seen.project.spec.disks[0].device if seen.project.spec.disks else None


def launching(seen: Seen) -> Step:
    """(L2 to L4) resolve the current attempt. Its token finds what an earlier call has made."""
    project, run = seen.project, seen.run
    if run is None:
        return Wait(BRISK, "the run is not readable yet")
    box = next((one for one in seen.ec2.boxes if one.token == project.token), None)
    if box is None:
        return _not_launched(seen, run)
    match box.state:
        case InstanceState.RUNNING if found(seen, box) is None and seen.waited_for(_UNSEEN) < LAG:
            return Wait(BRISK, _UNSEEN)
        case InstanceState.RUNNING | InstanceState.STOPPING | InstanceState.STOPPED:
            return _bound(seen, run, box)
        case InstanceState.TERMINATED:
            # It never ran, or somebody ended it: then there may be work on its volumes.
            return after_failure(seen, box.reason) if box.reason in NEVER_RAN else _bound(seen, run, box)
        case _:
            return Wait(BRISK, f"the instance is {box.state}")


def _not_launched(seen: Seen, run: Run) -> Step:
    project = seen.project
    if not project.is_wanted_up:
        return give_up(seen, "cancelled", want=project.want)
    if (vanished := _vanished(seen, run)) is not None:
        return vanished
    pause = between_rounds(project.attempt, len(run.places)) if project.spec.until_up else 0.0
    if pause > 0:
        # With the number, so that the rest after one round is not taken for that after the next.
        rounds = project.attempt // len(run.places)
        times = "once" if rounds == 1 else f"{rounds} times"
        why = f"no capacity anywhere, looked for {times}; the next round begins after {pause:.0f} s"
        if (left := pause - seen.waited_for(why)) > 0:
            return Wait(min(left, LOOK_AGAIN), why)
    return call(project, run)


def between_rounds(attempt: int, places: int) -> float:
    """Seconds to wait before this attempt: none but before the first of a round, and longer with each round.

    RunInstances has a small bucket, and it is the account's: others launch out of it, too.
    """
    rounds, place = divmod(attempt, places)
    return min(ROUND_MOST, ROUND * 2.0 ** min(rounds - 1, 10)) if rounds and not place else 0.0


def call(project: Project, run: Run) -> Launch:
    """(L2) This run, at the place whose turn it is."""
    token = project.token
    return Launch(token, run.place(project.attempt), run, tags.of_launch(project, run, token))


def planned(seen: Seen) -> tuple[Project, Launch] | None:
    """A project as its next launch would find it, were it down, and the call; None: it can not be launched."""
    begun = begin_launch(replace(seen, project=replace(seen.project, phase=Phase.READY)))
    if not isinstance(begun, Write) or begun.run is None:
        return None
    return begun.project, call(begun.project, begun.run)


def _vanished(seen: Seen, run: Run) -> Step | None:
    """It was launched, it ran, and its record is gone (an hour is enough); its volumes are not."""
    project = seen.project
    left = tuple(one for one in seen.ec2.volumes if one.is_there and one.token == project.token)
    if not left or seen.age < LAG or isinstance(disks := assigned(run.disks, left), str):
        return None
    changed = replace(
        project, bound=bind(project, project.token), saves=project.saves + 1, want=Want.COLD, instance=None
    )
    return Write(
        "R1",
        rescued(changed, seen, dead=False),
        "the box was launched and has vanished; its volumes are being saved",
        run=replace(run, token=project.token, disks=disks),
    )


def _bound(seen: Seen, run: Run, box: Box) -> Step:
    """(L4) this instance is the project's box from now on."""
    project = seen.project
    changed = replace(
        project,
        phase=Phase.RUNNING,
        since=seen.at,
        instance=box.id,
        at=placed(box),
        launched=box.launched,
        bound=bind(project, project.token),
        dead=False,
        clean=False,
        reason="",
    )
    bound = replace(
        run,
        token=project.token,
        instance=box.id,
        boot=better_known(run.boot, box.boot),
        spans=started(run, box),
        disks=found(seen, box) or run.disks,
    )
    return Write("L4", changed, f"launched as {box.id} in {box.zone or 'an unknown zone'}", run=bound)


def after_failure(seen: Seen, code: str) -> Write:
    """The attempt was accepted and came to nothing: EC2 says why in StateReason."""
    if code in NO_ROOM:
        return next_attempt(seen, f"EC2 says {code}")
    return give_up(seen, f"EC2 says {code}")


def next_attempt(seen: Seen, why: str) -> Write:
    """(L3) write the next attempt down before it is made; a token counts in one zone only."""
    project, run = seen.project, seen.run
    assert run is not None
    following = project.attempt + 1
    if following >= len(run.places) and not project.spec.until_up:
        return give_up(seen, why)
    place = run.place(following)
    event = f"{why}; attempt {following + 1} is {place.type} in {place.zone or 'any zone'}"
    return Write("L3", replace(project, attempt=following, at=place, reason=why), event)


def give_up(seen: Seen, reason: str, *, want: Want = Want.COLD) -> Write:
    """Close a run that was never bound: whatever it may still make is surplus."""
    project = seen.project
    changed = replace(
        project,
        phase=Phase.READY if project.head else Phase.ABSENT,
        since=seen.at,
        closed=project.run,
        want=want,
        reason=reason,
    )
    return Write("L3", changed, f"not launched: {reason}")


def starting(seen: Seen) -> Step:
    """Warm resume: StartInstances until the LaunchTime changes."""
    project, box = seen.project, seen.box
    if box is None:
        return missing(seen)
    if box.state is InstanceState.TERMINATED:
        return ended(seen, box)
    if is_restarted(seen, box):
        if box.state is InstanceState.RUNNING:
            return running_again(seen, box, "runs again")
        if box.state is InstanceState.STOPPED and (failed := _came_to_nothing(seen, box)):
            return failed
        if box.state in (InstanceState.STOPPED, InstanceState.STOPPING):
            return begin(seen, "started, and stopped again")
        return Wait(BRISK, f"the instance is {box.state}")
    if box.state is InstanceState.RUNNING:
        return up_after_all(seen, box)
    if box.state is not InstanceState.STOPPED:
        return Wait(BRISK, f"the instance is {box.state}")
    if not is_to_start(project):
        return _called_off(seen, box)
    if failed := _came_to_nothing(seen, box):
        return failed
    if (step := rebase.off(seen, box)) is not None:
        return step
    if (wanted := other_type(project, box)) is not None:
        return ChangeType(box.id, wanted)
    return Start(box.id)


def _came_to_nothing(seen: Seen, box: Box) -> Write | Wait | None:
    """EC2 has taken a start, and the instance is stopped again without having run; None: it may still come.

    Its LaunchTime may have changed or not. Where it has not, the reason may be that of an earlier start.
    """
    is_new = is_restarted(seen, box)
    if not is_new and seen.starts < STARTS:
        return None
    if box.reason in NO_ROOM and is_to_start(seen.project):
        return no_room_to_start(seen, f"EC2 says {box.reason}") or Wait(BRISK, _UNSEEN)
    if is_new:
        return begin(seen, f"it could not start: EC2 says {box.reason}") if box.reason in NEVER_RAN else None
    if box.reason in NEVER_RAN or seen.starts >= STARTS_MOST:
        return not_started(seen, f"EC2 says {box.reason}" if box.reason else "EC2 leaves the box stopped")
    return None


def no_room_to_start(seen: Seen, text: str) -> Write | None:
    """The zone has no capacity for the stopped box: an image can go elsewhere, an instance can not."""
    project, run, box = seen.project, seen.run, seen.box
    if box is None or run is None:
        return None
    changed = replace(project, phase=Phase.RELEASING, since=seen.at, unprotected=True, shunned=box.zone)
    if is_saved(seen, box) and seen.is_proven(seen.head):
        return Write("10", changed, f"{text}; it is launched anew elsewhere")
    if (disks := found(seen, box)) is None:
        return None
    # Its last save was cancelled, or it has begun to start. With the stop stamped, this one can not be cancelled.
    begun = begin(seen, f"{text}; saving it first, to launch it elsewhere")
    row = replace(
        begun.project, want=project.want, cycle=Cycle.RELAUNCH, stamp=box.launched, shunned=box.zone
    )
    ended = replace(run, disks=disks, boot=better_known(run.boot, box.boot))
    return Write("1", row, begun.event, run=ended)


def not_started(seen: Seen, text: str) -> Write:
    """The stopped box stays as it is: why, is for a person."""
    want = Want.WARM if seen.project.want is Want.UP else seen.project.want
    changed = replace(seen.project, phase=Phase.WARM, since=seen.at, want=want, reason=text)
    return Write("start", changed, f"not started: {text}")


def _called_off(seen: Seen, box: Box) -> Step:
    """It is not to run any more, and does not: what is saved of it is kept, what is not is saved.

    A start that was asked for may not show yet. It is waited for a while, and it is no wish when it shows later.
    """
    project = seen.project
    if seen.waited_for(_NOT_TO_START) < SETTLED:
        return Wait(BRISK, _NOT_TO_START)
    if is_saved(seen, box):
        changed = replace(project, phase=Phase.WARM, since=seen.at, called_off=seen.at, reason="")
        return Write("start", changed, "not started: it is not wanted up any more")
    begun = begin(seen, "it is not wanted up any more")
    return replace(begun, project=replace(begun.project, called_off=seen.at))
