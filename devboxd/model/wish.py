"""What a user may ask of a project, and what that changes in its row. The reconciler does the rest.

Each wish is a function of the project as it is: it returns the step to write down, or None where nothing has to
change, and raises where it can not be. Wishes are idempotent: asking twice is asking once.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from msgspec.structs import replace

from devboxd.errors import AlreadyExists, BadRequest, DevboxError, Kind, WrongState
from devboxd.model import tags
from devboxd.model.box import Account
from devboxd.model.change import placed, resumed, stopped
from devboxd.model.disuse import is_archived
from devboxd.model.ledger import Ledger
from devboxd.model.offer import Base, ordered_disks
from devboxd.model.project import (
    GIVEN_UP_KEPT,
    Cycle,
    Disk,
    Generation,
    GenerationState,
    Network,
    Phase,
    Place,
    Policy,
    Project,
    Rebase,
    Run,
    Span,
    Spec,
    Want,
    needed,
)
from devboxd.model.seen import Box, Seen, Volume, can_never_be_bound
from devboxd.model.states import InstanceState
from devboxd.model.step import Write

NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\Z")  # a host name's label
USER_PIN: Final = "user"
FORK_PIN: Final = "fork:"  # and the uid
LABEL_MAX: Final = 200  # characters
_UNDER_WAY: Final = (Phase.LAUNCHING, Phase.SAVING, Phase.RESCUE, Phase.DELETING)


DOWN: Final = {
    Phase.ABSENT: "not launched yet",
    Phase.READY: "saved",
    Phase.WARM: "saved, and stopped",
    Phase.LAUNCHING: "being launched",
    Phase.STARTING: "being started",
    Phase.SAVING: "being saved",
    Phase.RELEASING: "saved, and its box is going",
    Phase.RESCUE: "being saved from its volumes",
    Phase.DELETING: "being deleted",
}  # for people who need not know the phases


class ProjectNotFound(DevboxError):
    """There is no project of that name."""

    code = "project-not-found"
    kind = Kind.NOT_FOUND


class ProjectBroken(WrongState):
    """The project needs a person: its reason says why."""

    code = "project-broken"


class ProjectDown(WrongState):
    """The project has no box that runs: it is saved, or on its way up or down."""

    code = "project-down"

    def __init__(self, project: Project) -> None:
        self.project = project
        name = project.name
        if project.phase is Phase.BROKEN:
            super().__init__(f"{name} needs you: {project.reason}", hint=f"devboxctl projects {name}")
        else:
            super().__init__(
                f"{name} has no box that runs: it is {DOWN.get(project.phase, project.phase.value)}",
                hint=f"devboxctl up {name} brings it up",
            )


class GenerationNotFound(DevboxError):
    """The project has no generation of that number."""

    code = "generation-not-found"
    kind = Kind.NOT_FOUND


def way_out(project: Project) -> str:
    """What a person can do about a BROKEN project, as a hint."""
    hint = f"mend it and run: devboxctl ops resume {project.name}"
    if project.halted is Phase.WARM and project.policy.verify:
        return f"{hint}; or, without trying what was saved, with --no-verify"
    return f"{hint}; where its box is lost: devboxctl ops abandon {project.name}" if project.head else hint


def check_name(name: str) -> str:
    """Return ``name`` if a project can be called so: it is a host name's label, too.

    Raises:
        BadRequest: it can not.
    """
    if NAME.match(name) is None:
        raise BadRequest(
            f"{name!r} can not be the name of a project",
            hint="1 to 63 letters, digits and hyphens, the first and the last no hyphen",
        )
    return name


def is_same(name: str, other: str) -> bool:
    """Say whether two names are those of one project: they differ by more than case."""
    return name.lower() == other.lower()


def taken(name: str) -> AlreadyExists:
    """A project of that name exists."""
    return AlreadyExists(
        f"there is a project named {name} already",
        hint="take another name; devboxctl projects lists those taken",
    )


# Up and down -----------------------------------------------------------------------------------------------


def up(known: Ledger, *, spec: Spec | None = None, rollback: int | None = None) -> Write | None:
    """The box is to run; with another spec or generation where they are given. Accepted in every phase."""
    project = _usable(known)
    changed = replace(
        project,
        want=Want.UP,
        spec=spec or project.spec,
        rollback=rollback if rollback is not None else project.rollback,
        rebase=project.rebase if rollback is None else _if_begun(project),
        reason="" if project.want is not Want.UP else project.reason,
    )
    return _asked(known, changed, "up" if rollback is None else f"up, from generation {rollback}")


def down(known: Ledger, want: Want, why: str = "", *, verify: bool | None = None) -> Write | None:
    """The box is to be saved, and kept warm or not. Cancels a launch that has nothing to show yet.

    ``why`` is for the event, where nobody has asked. ``verify``: whether generations are booted before their box is
    released, from now on; None: as it is.
    """
    project = _usable(known)
    if want is Want.WARM and project.phase in (Phase.READY, Phase.ABSENT):
        want = project.want if project.want is not Want.UP else Want.COLD
    policy = project.policy if verify is None else replace(project.policy, verify=verify)
    changed = replace(
        project, want=want, rollback=None, cycle=Cycle.NONE, policy=policy, rebase=_if_begun(project)
    )
    return _asked(known, changed, ("stop" if want is Want.WARM else "terminate") + (why and f", {why}"))


def down_if_idle(known: Ledger, seen: Project, want: Want, why: str) -> Write | None:
    """The same for a box that is idle: only the very run of it that was looked at, and that nobody has asked to go."""
    now = known.project
    is_same = (now.uid, now.instance, now.launched) == (seen.uid, seen.instance, seen.launched)
    if not is_same or now.phase is not Phase.RUNNING or not now.is_wanted_up or now.snap is not None:
        return None
    if now.is_moving:
        return None  # what is copied is nobody's input, and no idleness
    return down(known, want, why)


def cancel(known: Ledger) -> Write:
    """Take back what was asked last, as far as it has not been done.

    A launch ends where it is, and a save in a box that runs; what has an image by then is a generation all the same.

    Raises:
        WrongState: nothing is under way that could be taken back.
    """
    project = _usable(known)
    goes_up = project.phase in (Phase.LAUNCHING, Phase.STARTING, Phase.READY, Phase.ABSENT, Phase.WARM)
    goes_down = project.phase in (Phase.RUNNING, Phase.SAVING)
    if project.want is Want.UP and goes_up:
        warm = project.phase in (Phase.STARTING, Phase.WARM)
        step = down(known, Want.WARM if warm else Want.COLD)
    elif goes_down and (project.want is not Want.UP or project.is_cycle):
        changed = replace(project, want=Want.UP, rollback=None, cycle=Cycle.NONE, rebase=_if_begun(project))
        step = _asked(known, changed, "cancel")
    else:
        step = None
    if step is None:
        raise WrongState(
            f"{project.name} is {project.phase}: there is nothing to cancel",
            hint="devboxctl ops ls lists what is under way",
        )
    return step


def gone(known: Ledger, *, force: bool = False) -> Write | None:
    """Nothing of the project is to be kept: no box, no volume, no generation.

    Raises:
        WrongState: another project was forked from it and has no generation of its own yet; not with ``force``.
    """
    project = known.project
    if any(fork_pins(one) for one in known.generations) and not force:
        raise WrongState(
            f"{project.name} can not be deleted: a fork of it has no generation of its own yet",
            hint="save the fork first, or use --force",
        )
    return _asked(known, replace(project, want=Want.GONE), "delete")


def gone_if_disused(known: Ledger, why: str) -> Write | None:
    """The same for a project that nobody uses: only while nothing of it is left but what is saved, and none is pinned."""
    if not is_archived(known.project) or any(one.is_ok and one.pins for one in known.generations):
        return None
    return Write("wish", replace(known.project, want=Want.GONE), f"asked: delete, {why}")


def resume(known: Ledger, at: float, *, verify: bool | None = None) -> Write:
    """A person has looked at a BROKEN project: go on where it was. ``verify``: as for ``down``.

    Raises:
        WrongState: it is not broken.
    """
    if known.project.phase is not Phase.BROKEN:
        raise WrongState(
            f"{known.project.name} is {known.project.phase}: there is nothing to resume",
            hint="devboxctl ops ls lists what is under way, and what needs you",
        )
    changed = resumed(known.project, at)
    if verify is not None:
        changed = replace(changed, policy=replace(changed.policy, verify=verify))
    return Write("resume", changed, "resumed")


def to_abandon(seen: Seen) -> tuple[Volume, ...]:
    """What is left of the box of a BROKEN project: volumes that nothing uses.

    Raises:
        WrongState: it can not be abandoned, its box is there or may be, or the newest generation is not whole.
    """
    project = seen.project
    _check_abandon(project)
    there = [
        box.id
        for box in seen.ec2.boxes
        if box.state is not InstanceState.TERMINATED and not can_never_be_bound(box.token, project)
    ]
    if project.instance and any(one.attached_to == project.instance for one in seen.own_volumes):
        there.append(project.instance)
    if there:
        raise WrongState(
            f"{there[0]}, the box of {project.name}, is still there, with work that no generation has",
            hint=f"devboxctl ops resume {project.name} goes on saving it; in the EC2 console it can be ended",
        )
    if not seen.is_proven(seen.head):
        raise WrongState(
            f"the image of generation {project.head} of {project.name} does not show whole at EC2",
            hint=f"devboxctl fork {project.name} NEW-NAME --from N makes a project of an older one",
        )
    return tuple(one for one in seen.own_volumes if one.state == "available")


def _check_abandon(project: Project) -> None:
    if project.moved:
        raise WrongState(f"{project.name} was moved to {project.moved}")
    if project.phase is not Phase.BROKEN or project.want is Want.GONE:
        raise WrongState(
            f"{project.name} is {project.phase}: there is nothing to abandon",
            hint="only what needed you is abandoned: devboxctl ops ls lists it",
        )
    if not project.head:
        raise WrongState(
            f"{project.name} has no generation to go back to",
            hint=f"devboxctl delete {project.name} deletes what there is",
        )


def abandon(known: Ledger, at: float, *, discard: bool = False) -> Write:
    """Give up what a BROKEN project could not save: the head is what there is.

    Its volumes are set aside: nothing deletes them but a person, or ``discard``.

    Raises:
        WrongState: it is not broken, or has no generation.
    """
    project, run = known.project, known.run
    _check_abandon(project)
    given_up = (*project.given_up, project.run)[-GIVEN_UP_KEPT:]
    set_aside = (*project.set_aside, project.run)[-GIVEN_UP_KEPT:]
    changed = replace(
        project,
        phase=Phase.READY,
        halted=None,
        since=at,
        want=Want.COLD,
        closed=project.run,
        given_up=given_up if discard else project.given_up,
        set_aside=project.set_aside if discard else set_aside,
        save=None,
        snap=None,
        probe=None,
        stamp=None,
        instance=None,
        launched=None,
        adopted=False,
        unprotected=False,
        rollback=None,
        cycle=Cycle.NONE,
        rebase=_if_begun(project),
        reason="",
    )
    volumes = "its volumes are deleted" if discard else "its volumes are kept"
    return Write(
        "abandon",
        changed,
        f"went back to generation {project.head}; what came later is given up, and {volumes}",
        run=replace(run, spans=stopped(run, None, at)) if run is not None else None,
    )


def check_reboot(project: Project) -> str:
    """The instance, if it can be rebooted now.

    Raises:
        WrongState: it does not run, or its homes are being copied.
    """
    if project.phase is not Phase.RUNNING or project.instance is None:
        raise WrongState(f"{project.name} is {project.phase}: there is nothing to reboot")
    if project.is_moving:
        raise WrongState(
            f"the homes of {project.name} are being copied: a reboot would find the old root beside the new one",
            hint=f"devboxctl ops ls says when it is done; devboxctl stop {project.name} stops it all the same",
        )
    return project.instance


# Generations -----------------------------------------------------------------------------------------------


def snapshot(known: Ledger, label: str) -> Write | None:
    """A generation of the box as it is now. What is saved already gets the label only.

    Raises:
        WrongState: nothing runs and nothing is saved, or another snapshot is being made.
    """
    project = _usable(known)
    label = _label(label)
    if project.phase in (Phase.WARM, Phase.READY) and project.head:
        return describe(known, project.head, label=label)
    if project.phase is Phase.SAVING:
        return _asked(known, replace(project, label=label), "snapshot")
    if project.phase is not Phase.RUNNING:
        raise WrongState(f"{project.name} is {project.phase}: there is nothing to take a snapshot of")
    if project.snap is not None:
        raise WrongState(f"a snapshot of {project.name} is being made already")
    number = project.saves + 1
    return _asked(known, replace(project, saves=number, snap=number, label=label), "snapshot")


def generation(known: Ledger, number: int) -> Generation:
    """One generation: by its number, or below zero counted back from the newest (-1 is the one before it).

    Raises:
        GenerationNotFound: there is none of it, or not any more.
    """
    good = sorted(one.number for one in known.generations if one.is_ok)
    wanted = good[number - 1] if number < 0 and len(good) > -number else number
    found = next((one for one in known.generations if one.number == wanted and one.is_ok), None)
    if found is None:
        listed = ", ".join(map(str, good)) or "none"
        raise GenerationNotFound(
            f"{known.project.name} has no generation {number}", hint=f"there are: {listed}"
        )
    return found


def describe(
    known: Ledger,
    number: int,
    *,
    label: str | None = None,
    pinned: bool | None = None,
    lost: Collection[str] = (),
) -> Write | None:
    """Pin a generation or not, and say what it is. A pinned one is kept until it is unpinned.

    ``lost``: pins of forks that are not there (any more), which go with the user's.
    """
    one = generation(known, number)
    pins = one.pins
    if pinned is not None:
        gone = () if pinned else lost
        pins = tuple(pin for pin in pins if pin != USER_PIN and pin not in gone)
        pins += (USER_PIN,) if pinned else ()
    changed = replace(one, label=one.label if label is None else _label(label), pins=pins)
    if changed == one:
        return None
    return Write("describe", known.project, f"generation {one.number} changed", generations=(changed,))


def fork_pins(one: Generation) -> tuple[str, ...]:
    """What says that forks need it."""
    return tuple(pin for pin in one.pins if pin.startswith(FORK_PIN))


def is_fork(project: Project, origin: Ledger, number: int | None) -> bool:
    """Say whether it is what ``fork`` of this generation (None: of any) makes: asked again, it is there already."""
    if project.fork_of is None or project.fork_of[0] != origin.project.uid:
        return False
    return number is None or project.fork_of[1] == generation(origin, number).number


def pinned_for(known: Ledger, number: int, pin: str) -> Write:
    """A generation that somebody else needs."""
    one = generation(known, number)
    changed = replace(one, pins=(*one.pins, pin))
    return Write("pin", known.project, f"generation {one.number} is needed by {pin}", generations=(changed,))


def drop(known: Ledger, number: int, *, force: bool = False) -> Write:
    """Delete a generation before its time.

    Raises:
        WrongState: it is the newest, a launch, a rollback or a rebase needs it, or it is pinned (not with ``force``).
    """
    project, one = known.project, generation(known, number)
    if one.number in needed(project, known.run):
        raise WrongState(f"generation {one.number} of {project.name} is in use")
    if one.pins and not force:
        raise WrongState(f"generation {one.number} of {project.name} is pinned", hint="unpin it first")
    changed = replace(one, state=GenerationState.DELETING, pins=())
    return Write("drop", project, f"generation {one.number} is to be deleted", generations=(changed,))


# What the box is like --------------------------------------------------------------------------------------


def resize(
    known: Ledger, *, places: tuple[Place, ...] | None, root_gib: int | None, under: Spec | None = None
) -> Write | None:
    """Another type, or a larger disk. A running box is saved, changed and started again for another type.

    ``under``: a spec with the base image for these types, for a project that was never launched.

    Raises:
        BadRequest: the disk would become smaller.
    """
    project = _usable(known)
    spec = project.spec
    root = _root_gib(known)
    if root_gib is not None and root is not None and root_gib < root:
        raise BadRequest(f"the disk has {root} GiB and can not become smaller")
    spec = replace(spec, places=places or spec.places, root_gib=root_gib or spec.root_gib)
    if under is not None and project.phase is Phase.ABSENT:
        spec = replace(spec, image=under.image, base=under.base, disks=under.disks, boot=under.boot)
    types = {place.type for place in spec.places}
    other = places is not None and _is_other(project, types)
    is_up = project.phase in (Phase.RUNNING, Phase.SAVING, Phase.STARTING) and project.want is Want.UP
    cycle = Cycle.RESTART if other and is_up and project.cycle is Cycle.NONE else project.cycle
    changed = replace(project, spec=spec, cycle=cycle)
    return _asked(known, changed, f"resize to {', '.join(sorted(types))}, {spec.root_gib or root} GiB")


def _is_other(project: Project, types: set[str]) -> bool:
    """Say whether the box is of none of these types; where that is not written down, whether others were wanted."""
    if project.instance is not None and project.at is not None and project.at.type:
        return project.at.type not in types
    return types != {place.type for place in project.spec.places}


def goes_on(known: Ledger, name: str) -> bool:
    """Say whether a rebase onto this image is under way or has failed: asked again, it goes on."""
    rebase = known.project.rebase
    return rebase is not None and not rebase.done and name in (rebase.base, rebase.image)


def rebase(known: Ledger, name: str, base: Base | None) -> Write | None:
    """Another base image under the project, its homes kept; ``base``: what ``name`` stands for, None to go on.

    Raises:
        WrongState: it has nothing to keep, or is being put onto another image.
    """
    project = _usable(known)
    old = project.rebase
    if goes_on(known, name):
        assert old is not None
        tried = replace(old, problem="", tries=old.tries + 1) if old.problem else old
        changed = replace(project, want=Want.UP, rebase=tried, reason="" if old.problem else project.reason)
        return _asked(known, changed, f"rebase onto {name}, again")
    if not project.head and project.phase in (Phase.ABSENT, Phase.READY, Phase.LAUNCHING):
        raise WrongState(
            f"{project.name} has nothing to keep: it was never saved",
            hint=f"devboxctl launch {project.name} --base {name}",
        )
    if old is not None and old.source is not None and not old.done:
        raise WrongState(
            f"{project.name} is being put onto {old.base} already",
            hint=f"devboxctl launch {project.name} --from {old.source} goes back first",
        )
    if base is None:
        raise WrongState(f"{project.name} is not being put onto {name} any more", hint="ask again")
    disks = ordered_disks(base, None)
    wanted = Rebase(name, base.image, disks, base.boot)
    changed = replace(project, want=Want.UP, rebase=wanted, rollback=None, cycle=Cycle.NONE)
    return _asked(known, changed, f"rebase onto {name}")


def check_disk(known: Ledger, gib: int | None, source: Generation | None) -> None:
    """Raises BadRequest where a root volume of this size can not hold what is to be on it: ``source``, or its image."""
    root = _smallest(known.project.spec, source)
    if gib is not None and root is not None and gib < root:
        what = f"the image {known.project.spec.base}" if source is None else known.project.name
        raise BadRequest(f"{what} needs a disk of {root} GiB at least: {gib} are too few")


def _smallest(spec: Spec, source: Generation | None) -> int | None:
    """The size of what the root volume is made of."""
    disks, boot = (source.disks, source.boot) if source else (spec.disks, spec.boot)
    return next((disk.size_gib for disk in disks if disk.device == boot.root_device), None)


def _root_gib(known: Ledger) -> int | None:
    """The size of the root volume as it is, or will be made."""
    head = known.head
    disks: tuple[Disk, ...] = known.project.spec.disks
    device = disks[0].device if disks else None
    if head is not None:
        disks, device = head.disks, head.boot.root_device or device
    if known.run is not None and known.project.instance is not None:
        disks, device = known.run.disks, known.run.boot.root_device or device
    sizes = [disk.size_gib for disk in disks if disk.device == device]
    return max([*sizes, known.project.spec.root_gib or 0]) or None


def settle(known: Ledger, *, policy: Policy | None = None, spec: Spec | None = None) -> Write | None:
    """Other policy, or another spec for the next launch."""
    project = _usable(known)
    changed = replace(project, policy=policy or project.policy, spec=spec or project.spec)
    return _asked(known, changed, "settings")


def can_be_renamed(known: Ledger) -> None:
    """A name is in the tags of what is being made.

    Raises:
        WrongState: something is.
    """
    project = known.project
    if project.phase in _UNDER_WAY or project.snap is not None:
        raise WrongState(f"{project.name} is {project.phase}: rename it when that is done")


# New projects ----------------------------------------------------------------------------------------------


def new(
    uid: str, name: str, owner: str, *, account: Account, spec: Spec, policy: Policy, at: float
) -> Project:
    """A project that is to be launched."""
    return Project(
        uid=uid,
        name=check_name(name),
        owner=owner,
        account=account,
        want=Want.UP,
        since=at,
        spec=spec,
        policy=policy,
    )


def forked(origin: Ledger, number: int, uid: str, name: str, at: float) -> Project:
    """A project that begins where a generation of another one stands. Its first save makes it independent."""
    source, old = generation(origin, number), origin.project
    spec = replace(
        old.spec,
        image=source.image,
        base=f"{old.name}, generation {source.number}",
        disks=source.disks,
        boot=source.boot,
    )
    return Project(
        uid=uid,
        name=check_name(name),
        owner=old.owner,
        account=old.account,
        since=at,
        fork_of=(old.uid, source.number),
        spec=spec,
        policy=old.policy,
    )


def adopted(project: Project, box: Box, disks: tuple[Disk, ...]) -> tuple[Project, Run]:
    """A project whose box is there already: row and run as a launch would have left them.

    Raises:
        WrongState: the instance can not be one of ours.
    """
    if project_of := box.tags.get("devbox:project"):
        raise WrongState(f"{box.id} belongs to the project {project_of} already")
    if box.spot_request or "aws:autoscaling:groupName" in box.tags or not disks:
        why = (
            "a spot instance"
            if box.spot_request
            else "in an Auto Scaling group"
            if disks
            else "without EBS volumes"
        )
        raise WrongState(f"{box.id} can not be adopted: it is {why}")
    if not box.is_alive:
        raise WrongState(f"{box.id} can not be adopted: it is {box.state}")
    place = placed(box)
    network = Network(subnets=(box.subnet,) if box.subnet else (), groups=box.groups)
    row = replace(
        project,
        phase=Phase.RUNNING,
        run=1,
        instance=box.id,
        at=place,
        launched=box.launched,
        adopted=True,
        unprotected=True,
        spec=replace(
            project.spec,
            places=project.spec.places or (place,),
            boot=box.boot,
            profile=box.profile,
            groups=box.groups,
            network=network,
            tags=tags.of_user(box.tags),
        ),
    )
    run = Run(
        number=1,
        source=0,
        image=project.spec.image,
        places=row.spec.places,
        disks=disks,
        tags=row.spec.tags,
        profile=box.profile,
        groups=box.groups,
        boot=box.boot,
        token=row.token,
        instance=box.id,
        spans=(Span(box.launched, None if box.is_up else box.stopped, box.type, box.address),)
        if box.launched is not None
        else (),
    )
    return replace(row, bound=(row.token,)), run


# ------------------------------------------------------------------------------------------------------------


def _usable(known: Ledger) -> Project:
    """The project, unless there is nothing to be asked of it any more.

    Raises:
        WrongState: it is being deleted, or was moved to another store.
        ProjectBroken: a person has to look first.
    """
    project = known.project
    if project.moved:
        raise WrongState(f"{project.name} was moved to {project.moved}")
    if project.phase is Phase.DELETING or project.want is Want.GONE:
        raise WrongState(f"{project.name} is being deleted")
    if project.phase is Phase.BROKEN:
        raise ProjectBroken(
            f"{project.name} needs you: {project.reason}",
            hint=way_out(project),
        )
    return project


def _if_begun(project: Project) -> Rebase | None:
    """A rebase that another wish takes the place of, unless it has begun: then it goes on when the box runs."""
    return None if project.is_to_rebase else project.rebase


def _asked(known: Ledger, changed: Project, text: str) -> Write | None:
    return Write("wish", changed, f"asked: {text}") if changed != known.project else None


def _label(text: str) -> str:
    if len(text) > LABEL_MAX:
        raise BadRequest(f"a label has {LABEL_MAX} characters at most")
    return text
