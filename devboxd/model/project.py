"""A project as its row says: what is intended, which box it has, and which generations it can come back from.

EC2 says what exists; the row says what is meant. Both together are ``model.seen.Seen``, and
``model.pipeline.next_step`` names the one next thing to do.

Words: a *generation* is an immutable image of all volumes; a *run* is one life of a box, from launch to
release; a *launch token* names one attempt of a run and is the client token of its RunInstances; a *save*
is one try to make a generation. Runs, attempts, saves and generations are counted up and never used twice:
what carries an old number can never become current again, and that is what makes a late call harmless.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

import msgspec
from msgspec.structs import replace

from devboxd.model.box import Account
from devboxd.model.idle_policy import IdlePolicy

TOKENS_KEPT: Final = 20  # launch tokens that were bound and are remembered; older instances are long gone
GIVEN_UP_KEPT: Final = 20  # runs of each kind; volumes of older ones are left alone


class Phase(StrEnum):
    """Where a project stands, by intent. Always read together with what EC2 shows."""

    ABSENT = "absent"  # defined, never saved, nothing runs
    READY = "ready"  # the head generation is usable, nothing runs
    LAUNCHING = "launching"  # run, attempt and place are written down; RunInstances is being resolved
    RUNNING = "running"  # bound to an instance
    SAVING = "saving"  # stopping, imaging, verifying: told apart by what EC2 shows
    WARM = "warm"  # a generation is committed, and the stopped instance is kept
    STARTING = "starting"  # the stopped instance is started again
    RELEASING = "releasing"  # saved and condemned: no way back but from outside
    RESCUE = "rescue"  # the instance is gone, the data is in its volumes
    BROKEN = "broken"  # needs a person; nothing is changed at AWS meanwhile
    DELETING = "deleting"  # the user wants nothing of it kept


class Want(StrEnum):
    """What the user asked for last."""

    UP = "up"
    WARM = "warm"  # saved, the stopped instance kept for the warm window
    COLD = "cold"  # saved, nothing kept but the generation
    GONE = "gone"  # nothing kept at all


class Cycle(StrEnum):
    """How a box that is wanted up goes down first."""

    NONE = "none"
    RESTART = "restart"  # stopped and started again: another type takes effect only so
    RELAUNCH = "relaunch"  # let go and launched anew from what was saved: where it is it can not stay


class Quality(StrEnum):
    """How a generation was taken."""

    CLEAN = "clean"  # the box had shut down
    CRASH = "crash"  # from a running or forcibly stopped box: as after a power cut
    RESCUE = "rescue"  # from the volumes of an instance that was gone


class GenerationState(StrEnum):
    """A generation never comes back from DELETING."""

    OK = "ok"
    DELETING = "deleting"


class Disk(msgspec.Struct, frozen=True):
    """One EBS volume of a box: what EC2 does not keep in a snapshot must be known here.

    ``volume`` is its id where it exists, ``snapshot`` its copy where it was saved, ``source`` the snapshot that
    it was made from, ``stored`` the bytes of that copy, were it the only one. None for ``type``, ``iops``, ``throughput`` or ``kms`` leaves the choice to EC2.
    """

    device: str
    size_gib: int
    type: str | None = None
    iops: int | None = None
    throughput: int | None = None
    kms: str | None = None
    encrypted: bool = True
    volume: str | None = None
    snapshot: str | None = None
    source: str | None = None
    stored: int | None = None


class Boot(msgspec.Struct, frozen=True):
    """What makes an image boot, and what it is billed as. None: EC2 did not say."""

    architecture: str | None = None
    boot_mode: str | None = None
    ena: bool | None = None
    tpm: str | None = None
    sriov: str | None = None
    virtualization: str | None = None
    root_device: str | None = None
    platform: str | None = None  # PlatformDetails
    usage: str | None = None  # UsageOperation: the billing code


def better_known(before: Boot, after: Boot) -> Boot:
    """What is known of a machine after another look: a terminated one no longer says everything."""
    found = {name: getattr(after, name) for name in after.__struct_fields__}
    return replace(before, **{name: value for name, value in found.items() if value is not None})


class Place(msgspec.Struct, frozen=True):
    """Where one attempt to launch goes. No subnet: the default one of the zone; no zone: EC2 chooses."""

    type: str
    zone: str | None = None
    subnet: str | None = None


class Network(msgspec.Struct, frozen=True):
    """Where a box is to go, as far as somebody chose: the rest is what the account offers."""

    zone: str | None = None
    subnets: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()  # security groups


class Spec(msgspec.Struct, frozen=True):
    """What the next launch is to be like. Survives from launch to launch until somebody changes it.

    ``places`` are tried in order; ``image``, ``disks`` and ``boot`` matter until there is a generation to launch from.
    """

    image: str = ""
    base: str = ""  # the name that ``image`` was found by, for people
    places: tuple[Place, ...] = ()
    disks: tuple[Disk, ...] = ()
    boot: Boot = Boot()  # of ``image``
    root_gib: int | None = None
    profile: str | None = None  # instance profile: name or ARN
    groups: tuple[str, ...] = ()  # security groups
    network: Network = Network()
    user_data: str | None = None
    tags: dict[str, str] = {}
    spot: bool = False
    until_up: bool = False  # go round the places until one has capacity

    @property
    def type(self) -> str:
        """The instance type that is wanted: that of the first place; empty where there is none yet."""
        return self.places[0].type if self.places else ""


class Rebase(msgspec.Struct, frozen=True):
    """Another base image that is put under a project, and what became of it.

    ``source``: the generation whose homes are copied, which is the way back; None: the present is not saved yet.
    """

    base: str  # the name that ``image`` was found by, for people
    image: str
    disks: tuple[Disk, ...]
    boot: Boot
    source: int | None = None
    tries: int = 0  # copies of the old root that came to nothing
    problem: str = ""  # why the homes are not copied: a person has to say that it is tried again
    done: str = ""  # what was copied, in a sentence; empty: not all yet

    @property
    def is_pending(self) -> bool:
        """Say whether there is something to do about it, or will be when the box runs."""
        return not self.problem and not self.done


class Policy(msgspec.Struct, frozen=True):
    """What a user may choose about saving and keeping. Times in seconds."""

    warm_for: float | None = 12 * 3600.0  # None: for ever
    grace: float = 300.0  # between marking and deleting what is left over
    keep_last: int = 3
    keep_days: int = 7  # the newest generation of each of so many days
    keep_rescue: float = 30 * 86400.0
    hook_may_veto: bool = False  # whether a failing pre-stop hook keeps the box running
    verify: bool = False  # boot each generation once before its box is released
    force_after: float = 600.0  # how long a box may take to shut down
    idle: IdlePolicy | None = None  # None: as the configuration says


class Generation(msgspec.Struct, frozen=True):
    """One saved state. Only ``state``, ``pins``, ``label``, ``base`` and ``tested`` ever change."""

    number: int
    image: str
    run: int
    save: int
    disks: tuple[Disk, ...]
    boot: Boot
    quality: Quality
    created: float  # Unix seconds
    stamp: float | None = None  # LaunchTime of the stopped instance it was taken from; None: none such
    state: GenerationState = GenerationState.OK
    pins: tuple[str, ...] = ()  # why it must be kept: ``user``, ``fork:UID``
    label: str = ""
    parent: int = 0
    tested: bool = False  # it was booted, and answered
    lacks: tuple[str, ...] = ()  # volumes that could not be saved, and why, in sentences
    base: str = ""  # the base image under it, by the name that people gave; empty: not written down

    @property
    def is_ok(self) -> bool:
        """Say whether it can be launched."""
        return self.state is GenerationState.OK


class Span(msgspec.Struct, frozen=True):
    """A time in which a box was running and billed; ``end`` None: still.

    ``type``: as it was then; empty: that of the run. ``address``: whether it had a public IPv4 one; None: not known.
    ``sure``: it was seen to run until then, and seen stopped at its ``end``, with nobody to say when between; None: ``end`` is known.
    """

    start: float
    end: float | None = None
    type: str = ""
    address: bool | None = None
    sure: float | None = None


class Run(msgspec.Struct, frozen=True):
    """One life of a box. All that RunInstances is called with stands here, so that a repeat is the same call."""

    number: int
    source: int  # generation; 0: the base image
    image: str
    places: tuple[Place, ...]  # attempt N goes to the N-th of them, round and round
    disks: tuple[Disk, ...]  # before binding as ordered, then as found, with volume ids
    tags: dict[str, str]
    profile: str | None = None
    groups: tuple[str, ...] = ()
    user_data: str | None = None
    spot: bool = False
    boot: Boot = Boot()
    token: str = ""  # the attempt that was bound
    instance: str | None = None
    spans: tuple[Span, ...] = ()
    lacks: tuple[str, ...] = ()  # what a rescue of it can not save, in sentences
    carried: tuple[
        str, ...
    ] = ()  # devices that ``image`` has not: they are made from the snapshots they name

    @property
    def is_open(self) -> bool:
        """Whether its box runs, as far as it is written down."""
        return bool(self.spans) and self.spans[-1].end is None

    def place(self, attempt: int) -> Place:
        """Where this attempt goes."""
        return self.places[attempt % len(self.places)]


class Project(msgspec.Struct, frozen=True):
    """The row of a project. All Unix times in seconds.

    ``uid`` is in every tag, token and image name: a project deleted and made again under its old name
    meets nothing of its former life.
    """

    uid: str
    name: str
    owner: str
    account: Account = Account()
    want: Want = Want.COLD
    phase: Phase = Phase.ABSENT
    reason: str = ""  # why BROKEN, or why it is not as wanted
    halted: Phase | None = None  # the phase that it was in when it became BROKEN
    since: float = 0.0  # when the phase was entered
    head: int = 0  # newest generation; 0: none yet
    run: int = 0  # the run that is on, or the last one
    closed: int = 0  # all runs up to this one are over, and their data is in a generation
    attempt: int = 0
    saves: int = 0  # save numbers handed out
    save: int | None = None  # the save that is on
    failures: int = 0  # images that came to nothing in this save
    instance: str | None = None
    at: Place | None = (
        None  # where the instance is, or is being launched, and its type; None: not written down
    )
    launched: float | None = None  # LaunchTime of the instance as known: changes when it is started
    stamp: float | None = None  # LaunchTime that the save is of; None: not seen stopped yet
    clean: bool = False  # it was saved, and was not seen running since
    dead: bool = False  # the instance was seen terminated: no older view brings it back
    forced: bool = False  # stopped by force
    unprotected: bool = False  # termination protection may be off
    bound: tuple[str, ...] = ()  # launch tokens that were bound
    rollback: int | None = None  # generation to go back to before the next launch
    cycle: Cycle = Cycle.NONE
    reclaimed: bool = False  # EC2 took the spot instance back: the next launch is on demand
    snap: int | None = None  # save number of an image of the running box
    label: str = ""  # for the next generation
    probe: int | None = None  # generation that is being tried
    probe_tries: int = 0  # launches of probes so far
    probe_problem: str = ""  # why it does not boot: the probe is let go, then a person has to look
    adopted: bool = False  # tags of an instance that we did not launch are still to be written
    moved: str = ""  # the store that it was moved to: nothing is done about it from here
    fork_of: tuple[str, int] | None = None  # uid and generation that are pinned until our first save
    rebase: Rebase | None = None
    shunned: str | None = None  # the zone that had no capacity when the box was to start
    called_off: float | None = None  # when a start of ours was called off: it may take effect all the same
    given_up: tuple[int, ...] = ()  # runs whose volumes a person has given up
    set_aside: tuple[int, ...] = ()  # runs that a person has given up, but not their volumes
    spec: Spec = Spec()
    policy: Policy = Policy()

    @property
    def token(self) -> str:
        """The launch token of the current attempt."""
        return f"{self.uid}-{self.run}-{self.attempt}"

    @property
    def place(self) -> Place | None:
        """Where its box is, or the current attempt goes; without either where the next launch is to go."""
        if self.at is not None and (self.instance is not None or self.phase is Phase.LAUNCHING):
            return self.at
        return self.spec.places[self.attempt % len(self.spec.places)] if self.spec.places else None

    @property
    def next_type(self) -> str | None:
        """The type that its box is to have from its next start on; None: the one that it has."""
        places, at = self.spec.places, self.at
        if (
            self.instance is None
            or at is None
            or not at.type
            or any(place.type == at.type for place in places)
        ):
            return None
        return self.spec.type or None

    def is_set_aside(self, run: int) -> bool:
        """Say whether the volumes of a run stay until a person deletes them. Not remembered any more: they may have to."""
        is_full = len(self.set_aside) >= GIVEN_UP_KEPT
        return run in self.set_aside or (is_full and run < self.set_aside[0])

    @property
    def is_cycle(self) -> bool:
        """Say whether the box must go down first although it is wanted up."""
        return self.rollback is not None or self.is_to_rebase or self.cycle is not Cycle.NONE

    @property
    def is_let_go(self) -> bool:
        """Say whether it must even be released, although it is wanted up."""
        return self.rollback is not None or self.is_to_rebase or self.cycle is Cycle.RELAUNCH

    @property
    def is_to_rebase(self) -> bool:
        """Say whether it is to be saved and let go, to be launched from another base image."""
        return self.rebase is not None and self.rebase.source is None

    @property
    def is_moving(self) -> bool:
        """Say whether homes are being copied onto another base image, or will be as soon as the box runs."""
        return self.rebase is not None and self.rebase.source is not None and self.rebase.is_pending

    @property
    def is_wanted_up(self) -> bool:
        """Say whether this very instance is to run."""
        return self.want is Want.UP and not self.is_cycle


def needed(project: Project, run: Run | None) -> frozenset[int | None]:
    """Generations that stay: the newest one, and what a rollback, a rebase or a launch is made of."""
    found = {project.head, project.rollback}
    if project.rebase is not None and not project.rebase.done:
        found.add(project.rebase.source)
    if project.phase is Phase.LAUNCHING and run is not None:
        found.add(run.source)
    return frozenset(found)


class Usage(msgspec.Struct, frozen=True):
    """Seconds that boxes of a type ran in a month, and the limit in force, in US dollars."""

    month: str
    seconds: dict[str, float] = {}
    limit: str | None = None


def to_make(disk: Disk) -> Disk:
    """The volume to make out of a saved one: as large, as fast and under the same key."""
    return replace(disk, volume=None, snapshot=None, source=disk.snapshot or disk.source, stored=None)


def as_ordered(disks: tuple[Disk, ...], root_gib: int | None, root: str | None) -> tuple[Disk, ...]:
    """The volumes to make, out of those that were saved. ``root_gib`` never makes one smaller."""
    return tuple(
        replace(
            to_make(disk),
            size_gib=max(disk.size_gib, root_gib or 0) if disk.device == root else disk.size_gib,
        )
        for disk in disks
    )


def image_name(project: Project, save: int) -> str:
    """The unique name of the image of a save: the key that makes CreateImage repeatable.

    At most 3 to 128 characters of ``A-Za-z0-9()[] ./-'@_`` (API: CreateImage).
    """
    return f"devbox/{project.name}/{project.uid}-{save}"


_TOKEN: Final = re.compile(r"(?P<uid>[a-z0-9]+)-(?P<run>\d{1,9})-(?P<attempt>\d{1,9})\Z")


class Token(msgspec.Struct, frozen=True):
    """A launch token, read."""

    uid: str
    run: int
    attempt: int


def read_token(text: str | None) -> Token | None:
    """Read a launch token; None for what is none."""
    match = _TOKEN.match(text or "")
    return Token(match["uid"], int(match["run"]), int(match["attempt"])) if match else None


def bind(project: Project, token: str) -> tuple[str, ...]:
    """The bound tokens with one more."""
    return (*(kept for kept in project.bound if kept != token), token)[-TOKENS_KEPT:]
