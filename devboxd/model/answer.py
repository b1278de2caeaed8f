"""What the answer to a call changes in the row: a success that EC2 does not show, or a refusal.

A refusal that is not here changes nothing: the driver waits, longer each time, looks and decides again.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from msgspec.structs import replace

from devboxd.errors import (
    AlreadyExists,
    BadRequest,
    BoxNotFound,
    Denied,
    DevboxError,
    Missing,
    NoCapacity,
    QuotaReached,
    Throttled,
    TokenUsed,
    WrongState,
)
from devboxd.model import change, launch, probe, rebase
from devboxd.model.project import Phase
from devboxd.model.seen import Seen
from devboxd.model.step import (
    Attach,
    Call,
    ChangeType,
    GrowFileSystem,
    GrowVolume,
    Launch,
    MakeImage,
    MakeImageOf,
    MakeVolume,
    MoveIn,
    Protect,
    RunHook,
    Start,
    Stop,
    TakeOff,
    TryBox,
    UnpinFork,
    Write,
)

PROFILE_PATIENCE: Final = 5  # refusals in a row, half a minute, that a new instance profile may explain
PATIENCE: Final = 20  # refusals in a row that EC2's delay may explain


class Refusal(StrEnum):
    """Why a call did not do what it was for."""

    CAPACITY = "capacity"  # not here, not now: try elsewhere
    QUOTA = "quota"  # a limit of the account
    DENIED = "denied"  # IAM
    INVALID = "invalid"  # can never work as it is
    MISMATCH = "mismatch"  # the token was used for something else
    DUPLICATE = "duplicate"  # the name is taken
    GONE = "gone"  # EC2 knows no such thing: not there yet, or not any more
    BUSY = "busy"  # not in a state for this: look again
    LATER = "later"  # throttled
    UNKNOWN = "unknown"  # no answer: it may have been done


class BoxSaysNo(WrongState):
    """What was to be done on the box ran there and failed: a pre-stop hook, or growing a file system."""

    code = "box-says-no"


# The first class that fits decides.
_KINDS: Final[tuple[tuple[type[DevboxError], Refusal], ...]] = (
    (BoxSaysNo, Refusal.INVALID),
    (NoCapacity, Refusal.CAPACITY),
    (QuotaReached, Refusal.QUOTA),
    (Denied, Refusal.DENIED),
    (TokenUsed, Refusal.MISMATCH),
    (AlreadyExists, Refusal.DUPLICATE),
    (Missing, Refusal.GONE),
    (BoxNotFound, Refusal.GONE),
    (BadRequest, Refusal.INVALID),
    (Throttled, Refusal.LATER),
    (WrongState, Refusal.BUSY),
)


def refusal(error: DevboxError) -> Refusal:
    """Say what kind of refusal it is. What nobody has named may have been done: it is looked at again."""
    return next((kind for one, kind in _KINDS if isinstance(error, one)), Refusal.UNKNOWN)


LAUNCH_PATIENCE: Final = 8  # the same of a launch or a start: some eight minutes, as somebody waits for it
_MAY_PASS: Final = frozenset({Refusal.GONE, Refusal.BUSY, Refusal.UNKNOWN})
ATTACH_PATIENCE: Final = 3
DELETION_PATIENCE: Final = 3  # of something that is in use; minutes apart
MOVE_PATIENCE: Final = 40  # a box that does not say how far its copying is: hours, as it goes on meanwhile
_IN_THE_WAY: Final = (Phase.SAVING, Phase.STARTING)  # a copy of an old root on the box keeps it from going on
HOPELESS: Final = frozenset({Refusal.QUOTA, Refusal.DENIED, Refusal.INVALID})


def is_news(refusal: Refusal, times: int) -> bool:
    """Say whether a person is told that something was not deleted. ``times``: how often it was refused."""
    return refusal in HOPELESS or (refusal is not Refusal.GONE and times >= DELETION_PATIENCE)


def after_success(seen: Seen, call: Call, said: rebase.Progress | None = None) -> Write | None:
    """What is to be noted after a call whose effect no look shows. ``said``: what the box answered to MoveIn."""
    project, run = seen.project, seen.run
    match call:
        case Protect():
            return Write("protect", replace(project, unprotected=False), "termination protection is on")
        case TryBox(generation=number):
            return probe.passed(seen, number)
        case MoveIn():
            return rebase.moved(seen, said) if said is not None else None
        case UnpinFork():
            return Write("fork", replace(project, fork_of=None), "needs nothing of its origin any more")
        case GrowFileSystem(device=device, size_gib=size) if run is not None:
            disks = tuple(
                replace(disk, size_gib=size) if disk.device == device else disk for disk in run.disks
            )
            return Write("grow", project, f"{device} has {size} GiB now", run=replace(run, disks=disks))
    return None


def names_profile(text: str) -> bool:
    """Say whether a refusal of EC2 is about the instance profile, which it may not know yet.

    ``Invalid IAM Instance Profile name`` and ``… ARN``, and ``IAM Instance Profile … has no associated IAM Roles``.
    """
    return "nstance Profile" in text


def after_refusal(seen: Seen, call: Call, refusal: Refusal, text: str, times: int) -> Write | None:
    """What a refusal changes in the row. ``text``: for people; ``times``: how often in a row."""
    lasting = times >= PATIENCE
    match call, refusal:
        case TryBox(generation=number), _:
            return probe.failed(seen, number, text) if times >= probe.PATIENCE else None
        case Launch(), Refusal.CAPACITY if seen.project.phase is Phase.WARM:
            return probe.elsewhere(seen, text, times)
        case Launch(), _ if seen.project.phase is not Phase.LAUNCHING:
            return None  # a probe: the box waits
        case Launch(), Refusal.CAPACITY | Refusal.MISMATCH:
            return launch.next_attempt(seen, text)
        case Launch(), Refusal.INVALID if times < PROFILE_PATIENCE and names_profile(text):
            return None  # it may have been made a moment ago, and IAM tells EC2 later
        case Launch(), _ if refusal in HOPELESS or (refusal in _MAY_PASS and times >= LAUNCH_PATIENCE):
            return launch.give_up(seen, text)
        case Start(), Refusal.CAPACITY:
            return launch.no_room_to_start(seen, text)
        case ((Start() | ChangeType()), _) if refusal in HOPELESS or (
            refusal in _MAY_PASS and times >= LAUNCH_PATIENCE
        ):
            return launch.not_started(seen, text)
        case ((MakeImage() | MakeImageOf()), Refusal.INVALID):
            return change.again(seen, text)
        case ((MakeImage() | MakeImageOf()), Refusal.DUPLICATE) if lasting:
            return change.again(seen, "the name of the image is taken, and by no image of ours that shows")
        case ((GrowVolume() | GrowFileSystem()), _) if refusal in HOPELESS or lasting:
            return _not_grown(seen, text)
        case ((MakeVolume() | Attach() | MoveIn()), _) if seen.project.is_moving:
            return _not_moved(seen, call, refusal, text, times)
        case TakeOff(volume=volume), _ if seen.project.phase in _IN_THE_WAY and (
            refusal in HOPELESS or times >= PATIENCE
        ):
            return change.broken(
                seen, f"{volume}, a copy of the old root, can not be detached ({text}); detach it, then go on"
            )
        case Stop(), Refusal.BUSY | Refusal.DENIED | Refusal.INVALID if lasting:
            return change.broken(
                seen, f"the box can not be stopped ({text}); shut it down from inside, then go on"
            )
        case RunHook(live=False), Refusal.INVALID if (
            seen.project.policy.hook_may_veto and seen.box is not None
        ):
            return change.running_again(seen, seen.box, f"goes on: {text}")
    return None


def _not_moved(seen: Seen, call: Call, refusal: Refusal, text: str, times: int) -> Write | None:
    """The old root can not be made, attached or read. It is a person's turn, after some patience."""
    match call, refusal:
        case MakeVolume(), Refusal.MISMATCH:
            return rebase.again(seen, text)
        case Attach(), Refusal.INVALID if times < ATTACH_PATIENCE:
            return None  # the device may have been taken a moment ago
        case MoveIn(), Refusal.INVALID:
            return rebase.failed(seen, text)
        case MoveIn(), _:
            return rebase.failed(seen, text) if times >= MOVE_PATIENCE else None
        case _:
            hopeless = refusal in HOPELESS or times >= LAUNCH_PATIENCE
            return rebase.failed(seen, text) if hopeless else None


def _not_grown(seen: Seen, text: str) -> Write:
    project = seen.project
    changed = replace(project, spec=replace(project.spec, root_gib=None), reason=text)
    return Write("grow", changed, f"the disk keeps its size: {text}")
