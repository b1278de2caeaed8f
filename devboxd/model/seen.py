"""What one look shows: EC2 by tag, then the row. In this order, so that the row is never the older of the two.

Were the row read first, garbage collection would meet the image of a save that it does not know yet, and
delete it. Views of EC2 may be old or lack what exists: absence is not death.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

import msgspec

from devboxd.model.project import TOKENS_KEPT, Boot, Disk, Generation, Project, Run, read_token
from devboxd.model.states import InstanceState

LAG: Final = 300.0  # seconds after which a view of EC2 is taken to be up to date. EC2 promises no bound


_ALIVE: Final = (InstanceState.PENDING, InstanceState.RUNNING, InstanceState.STOPPING, InstanceState.STOPPED)
_UP: Final = (InstanceState.PENDING, InstanceState.RUNNING)


class Attached(msgspec.Struct, frozen=True):
    """A volume in an instance's block device mapping."""

    device: str
    volume: str
    dies_with_box: bool  # DeleteOnTermination


class Box(msgspec.Struct, frozen=True, dict=True):
    """An instance with our tags, or one that the row names."""

    id: str
    state: InstanceState
    launched: float | None  # LaunchTime
    type: str = ""
    zone: str | None = None
    token: str | None = None  # the tag, or the client token
    attached: tuple[Attached, ...] = ()
    boot: Boot = Boot()
    reason: str = ""  # StateReason.Code
    stopped: float | None = None  # the time in StateTransitionReason
    spot_request: str | None = None  # of a spot instance
    address: bool | None = None  # whether it has a public IPv4 address; None: it is not up, so nobody can say
    subnet: str | None = None
    groups: tuple[str, ...] = ()  # security groups
    profile: str | None = None  # ARN of its instance profile
    tags: dict[str, str] = {}

    @property
    def is_up(self) -> bool:
        """Say whether it runs or is about to."""
        return self.state in _UP

    @property
    def is_alive(self) -> bool:
        """Say whether it could run again."""
        return self.state in _ALIVE


class Volume(msgspec.Struct, frozen=True):
    """An EBS volume. ``garbage``: since when it is marked as left over."""

    id: str
    state: str  # creating, available, in-use, deleting, deleted, error
    disk: Disk  # its device is that of the attachment; empty where it has none
    token: str | None = None
    attached_to: str | None = None
    attachment: str = ""  # attaching, attached, detaching, busy
    rebase: str | None = None  # it is a copy of an old root, made with this token: no volume of the box
    garbage: float | None = None
    tags: dict[str, str] = {}

    @property
    def is_there(self) -> bool:
        """Say whether it holds data."""
        return self.state not in ("deleting", "deleted", "error")


class Snapshot(msgspec.Struct, frozen=True):
    """An EBS snapshot. ``save`` and ``run``: the numbers of its tags."""

    id: str
    state: str  # pending, completed, error, recoverable, recovering
    volume: str | None
    size_gib: int = 0
    save: int | None = None
    garbage: float | None = None
    stored: int | None = None  # bytes, were it the only snapshot; None: EC2 does not say (yet)
    run: int | None = None


class Image(msgspec.Struct, frozen=True):
    """An AMI. ``snapshots``: by device; None where EC2 does not say (it may not for a while)."""

    id: str
    name: str
    state: str  # pending, available, failed, error, invalid, transient, deregistered, disabled
    save: int | None = None
    run: int | None = None
    boot: Boot = Boot()
    snapshots: dict[str, str | None] = {}
    disks: tuple[Disk, ...] = ()
    garbage: float | None = None
    created: float | None = None
    tags: dict[str, str] = {}

    @property
    def is_there(self) -> bool:
        """Say whether it is registered: a deregistered one may show for a while."""
        return self.state != "deregistered"


class Hint(msgspec.Struct, frozen=True):
    """What to ask for by id too: the row names it, and its tags may not (any more)."""

    boxes: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()


def hint(project: Project, run: Run | None) -> Hint:
    """What a row names."""
    return Hint(
        (project.instance,) if project.instance else (),
        tuple(disk.volume for disk in run.disks if disk.volume) if run and project.instance else (),
    )


class Observed(msgspec.Struct, frozen=True):
    """EC2's side of one project."""

    boxes: tuple[Box, ...] = ()
    volumes: tuple[Volume, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    images: tuple[Image, ...] = ()


class Seen(msgspec.Struct, frozen=True, dict=True):
    """One look. ``at``: Unix seconds.

    ``hooked``: the hooks of the current save, or of the image of the running box, have run, or can not.
    ``reached``: a session to the box has answered since it was started last.
    ``put_off``: resources whose deletion was refused a moment ago.
    ``starts``: how many starts of the box EC2 has taken in this phase.
    ``ran``: when the box was seen to run last since the start that the row knows; 0: nobody remembers.
    ``waited``: what the last look had to wait for, and for how many seconds in looks of its own.
    """

    project: Project
    run: Run | None
    generations: tuple[Generation, ...]
    ec2: Observed
    at: float
    hooked: bool = False
    put_off: frozenset[str] = frozenset()
    reached: bool = False
    waited: tuple[str, float] = ("", 0.0)
    starts: int = 0
    ran: float = 0.0

    def waited_for(self, why: str) -> float:
        """Seconds that nothing but this was seen. A nap does not count: who slept has not looked."""
        return self.waited[1] if self.waited[0] == why else 0.0

    @property
    def age(self) -> float:
        """Seconds since the phase was entered."""
        return self.at - self.project.since

    @cached_property
    def box(self) -> Box | None:
        """The instance that the project is bound to, if it shows."""
        return next((box for box in self.ec2.boxes if box.id == self.project.instance), None)

    @cached_property
    def head(self) -> Generation | None:
        """The newest generation."""
        return self.generation(self.project.head)

    def generation(self, number: int | None) -> Generation | None:
        """One generation by number."""
        return next((one for one in self.generations if one.number == number), None)

    @cached_property
    def own_volumes(self) -> tuple[Volume, ...]:
        """The volumes of the bound launch, by tag, and those that were attached to it later."""
        known = {disk.volume for disk in self.run.disks} if self.run else set()
        token = self.run.token if self.run else None
        return tuple(
            volume
            for volume in self.ec2.volumes
            if volume.is_there
            and (volume.id in known or (volume.token is not None and volume.token == token))
        )

    @cached_property
    def image(self) -> Image | None:
        """The image of the current save."""
        save = self.project.save
        return self.image_of(save) if save is not None else None

    def image_of(self, save: int) -> Image | None:
        """The image of a save; its name is unique, so there is one at most."""
        found = [one for one in self.ec2.images if one.save == save and one.is_there]
        return found[0] if found else None

    def is_proven(self, generation: Generation | None) -> bool:
        """Say whether this very look shows a generation's image and all its snapshots whole.

        An image of ours is only ever judged by the snapshots that we wrote down when it was committed.
        """
        if generation is None or not generation.is_ok:
            return False
        available = any(i.id == generation.image and i.state == "available" for i in self.ec2.images)
        completed = {snapshot.id for snapshot in self.ec2.snapshots if snapshot.state == "completed"}
        return available and all(disk.snapshot in completed for disk in generation.disks)


def is_ours(token: str | None, project: Project) -> bool:
    """Say whether a launch token is one of this project."""
    read = read_token(token)
    return read is not None and read.uid == project.uid


def can_never_be_bound(token: str | None, project: Project) -> bool:
    """Say whether a launch was given up: what it made is surplus, now and for ever.

    A token is bound only while it is that of the current attempt of a run that is not closed. Runs and
    attempts only count up, so once this is true it stays true: a late RunInstances changes nothing.
    """
    read = read_token(token)
    if read is None or read.uid != project.uid or token in project.bound:
        return False
    if read.run == 0:
        return True  # a probe: runs count from 1
    if read.run <= project.closed:
        # Older than the tokens that are remembered: not sure, so it is left alone.
        oldest = read_token(project.bound[0]) if len(project.bound) == TOKENS_KEPT else None
        return oldest is None or read.run > oldest.run
    return (read.run, read.attempt) < (project.run, project.attempt)
