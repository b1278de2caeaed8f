"""The one next thing to do for a project. Numbers in quotes are those of the call table (docs/lifecycle.md).

A *call* changes something at AWS and says by what it may be repeated. A *write* is one transaction on the
store, conditional on the row being as it was read. A *wait* changes nothing.
"""

from __future__ import annotations

import msgspec

from devboxd.model.project import Boot, Disk, Generation, Place, Project, Run


class Wait(msgspec.Struct, frozen=True):
    """Look again after so many seconds, or when woken. ``why`` is shown to people."""

    seconds: float
    why: str


class Write(msgspec.Struct, frozen=True):
    """One transaction: the row as it is to be, with what belongs to it, and what happened, in a sentence.

    ``what`` names the row of the call table. ``generations`` are put; ``erased`` are generations to drop.
    """

    what: str
    project: Project
    event: str
    run: Run | None = None
    generations: tuple[Generation, ...] = ()
    erased: tuple[int, ...] = ()


class Erase(msgspec.Struct, frozen=True):
    """Drop all rows of a project: nothing of it is left at AWS."""

    project: Project
    event: str


class RunHook(msgspec.Struct, frozen=True):
    """(2) let the box get ready to stop, or for an image while it runs (``live``). May be repeated, by contract with the hooks."""

    instance: str
    save: int
    live: bool = False


class TryBox(msgspec.Struct, frozen=True):
    """Ask a probe's instance whether a session answers. Repeatable."""

    instance: str
    generation: int


class Reach(msgspec.Struct, frozen=True):
    """(B1) Ask the box whether a session answers: it has booted then. Repeatable."""

    instance: str


class MoveIn(msgspec.Struct, frozen=True):
    """(B4) On the box: copy the homes from this volume, in the background. Asked again it says how far it is."""

    instance: str
    volume: str
    device: str
    token: str


class UnpinFork(msgspec.Struct, frozen=True):
    """Take our pin off the generation of another project that we were forked from."""

    uid: str
    generation: int
    pin: str


class Launch(msgspec.Struct, frozen=True):
    """(L2) RunInstances. Repeatable by its token, within one zone."""

    token: str
    place: Place
    run: Run
    tags: dict[str, str]


class Start(msgspec.Struct, frozen=True):
    """StartInstances of the stopped instance. Repeatable."""

    instance: str


class Stop(msgspec.Struct, frozen=True):
    """(3) StopInstances. Repeatable. Never skips the OS shutdown; ``force`` after a long time only."""

    instance: str
    force: bool = False


class Reboot(msgspec.Struct, frozen=True):
    """RebootInstances: asked by a person, never by a decision."""

    instance: str


class Release(msgspec.Struct, frozen=True):
    """(11, 12) termination protection off, then TerminateInstances, in the same pass. Repeatable.

    A spot request is cancelled first, or EC2 would launch another instance for it.
    """

    instance: str
    spot_request: str | None = None


class Protect(msgspec.Struct, frozen=True):
    """Termination protection on again. Repeatable."""

    instance: str


class KeepVolumes(msgspec.Struct, frozen=True):
    """(L5) DeleteOnTermination off for these devices. Repeatable."""

    instance: str
    devices: tuple[str, ...]


class ChangeType(msgspec.Struct, frozen=True):
    """ModifyInstanceAttribute: another type for a stopped instance. Repeatable."""

    instance: str
    type: str


class GrowVolume(msgspec.Struct, frozen=True):
    """ModifyVolume: more room. Repeatable: a volume that has the size needs no call."""

    volume: str
    size_gib: int


class GrowFileSystem(msgspec.Struct, frozen=True):
    """On the box: the file system of this device fills its volume, which has this size. Repeatable."""

    instance: str
    device: str
    size_gib: int


class MakeVolume(msgspec.Struct, frozen=True):
    """(B2) CreateVolume: a copy of an old root for as long as homes are taken from it. Repeatable by its token."""

    token: str
    zone: str
    disk: Disk
    tags: dict[str, str]


class Attach(msgspec.Struct, frozen=True):
    """(B3) AttachVolume. Repeatable: what is attached already is in use, and looked at."""

    volume: str
    instance: str
    device: str


class TakeOff(msgspec.Struct, frozen=True):
    """(B5) DetachVolume; a box that runs is asked to let go of it first. Repeatable.

    ``force`` for a box that does not run only.
    """

    volume: str
    instance: str
    is_up: bool = False
    force: bool = False


class MakeImage(msgspec.Struct, frozen=True):
    """(5) CreateImage with NoReboot, always. Repeatable by its unique name."""

    instance: str
    name: str
    tags: dict[str, str]


class MakeSnapshot(msgspec.Struct, frozen=True):
    """(R2) CreateSnapshot. Not repeatable: found again by its tag; a second one of a quiet volume is harmless."""

    volume: str
    device: str
    tags: dict[str, str]


class MakeImageOf(msgspec.Struct, frozen=True):
    """(R4) RegisterImage from snapshots, every attribute restated. Repeatable by its unique name."""

    name: str
    disks: tuple[Disk, ...]
    boot: Boot
    tags: dict[str, str]


class Tag(msgspec.Struct, frozen=True):
    """(14 and others) CreateTags. Repeatable."""

    resources: tuple[str, ...]
    tags: dict[str, str]
    why: str


class DropVolume(msgspec.Struct, frozen=True):
    """(15) DeleteVolume. Not found is done."""

    volume: str


class DropImage(msgspec.Struct, frozen=True):
    """(17) DeregisterImage; its snapshots go one by one. Not found is done."""

    image: str


class DropSnapshot(msgspec.Struct, frozen=True):
    """(17) DeleteSnapshot. Not found is done, in use is later."""

    snapshot: str


Ec2Call = (
    Launch
    | Start
    | Stop
    | Reboot
    | Release
    | Protect
    | KeepVolumes
    | ChangeType
    | GrowVolume
    | MakeVolume
    | Attach
    | TakeOff
    | MakeImage
    | MakeSnapshot
    | MakeImageOf
    | Tag
    | DropVolume
    | DropImage
    | DropSnapshot
)
Call = Ec2Call | RunHook | GrowFileSystem | TryBox | Reach | MoveIn | UnpinFork
Step = Wait | Write | Erase | Call
