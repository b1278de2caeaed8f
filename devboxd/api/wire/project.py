"""Projects: boxes whose work outlives them, their generations, and what is under way."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from devboxd.api.wire.common import API_VERSION, Account, Failure, Line, Text
from devboxd.api.wire.money import Quote

Gib = Annotated[int, msgspec.Meta(ge=1, le=65536)]


class Project(msgspec.Struct, omit_defaults=True):
    """A project as it is written down, and how far its loop is.

    ``phase``: absent, ready, launching, running, saving, warm, starting, releasing, rescue, broken, deleting;
    ``want``: up, warm, cold, gone. ``waits``: what is waited for; ``problem``: what AWS said no to, last;
    ``pending``: it is not as wanted yet, and the daemon works on it. ``type`` and ``zone``: of its box where there is
    one, of the next launch otherwise.
    """

    name: str
    id: str
    phase: str
    want: str
    pending: bool = False
    waits: str = ""
    problem: str = ""
    reason: str = ""  # why it is not as wanted
    instance: str | None = None
    generation: int = 0  # the newest; 0: none yet
    type: str | None = None
    next_type: str | None = None  # that its box has from its next start on, where it is another one
    zone: str | None = None
    disk: int | None = None  # GiB of the root volume
    base: str | None = None
    rebase: str = ""  # how a rebase stands: what was copied, or why not
    rebase_problem: str = ""  # why the homes are not copied; a person has to ask again
    way_back: int | None = None  # the generation that it goes back to
    profile: str | None = None
    region: str | None = None
    since: str | None = None  # when the phase was entered
    hour: str | None = None  # US dollars that it costs an hour as it is now, in a list
    month: str | None = None  # US dollars of this month so far, in a list
    deletes: str | None = None  # archived: when it is deleted for not being used, at the earliest
    unsaved: list[str] = []  # git work that was on its box only when it was asked to go, by repository
    unsaved_problem: str = ""  # why that is not known
    version: int = API_VERSION


class UnsavedWork(msgspec.Struct, omit_defaults=True):
    """Git work that is on the box of a project only, by repository. ``problem``: why it is not known."""

    unsaved: list[str] = []
    problem: str = ""
    version: int = API_VERSION


class ProjectList(msgspec.Struct, omit_defaults=True):
    """Projects, by name."""

    projects: list[Project]
    version: int = API_VERSION


class ProjectsRequest(msgspec.Struct, omit_defaults=True):
    """All projects. ``brief``: without what they cost, which takes the runs and snapshots of all of them."""

    brief: bool = False


class ProjectName(msgspec.Struct, omit_defaults=True):
    """Which project."""

    project: Line = ""


class LaunchRequest(Account, omit_defaults=True):
    """Make a project and bring it up, or bring one up with other choices. What is not said stays as it was.

    ``types`` in order of preference; ``base``: a name or an image id, for a new project; ``generation``: one to
    go back to, negative ones are counted back from the newest.
    """

    project: Line = ""
    types: list[Line] = msgspec.field(default_factory=list)
    disk: Gib | None = None
    base: Line | None = None
    generation: int | None = None
    zone: Line | None = None
    instance_profile: Line | None = None
    subnets: list[Line] = msgspec.field(default_factory=list)
    security_groups: list[Line] = msgspec.field(default_factory=list)
    key: Line | None = None
    user_data: Text | None = None
    tags: dict[Line, Line] | None = None
    spot: bool | None = None
    until_up: bool | None = None


class ApiCall(msgspec.Struct, omit_defaults=True):
    """One call of AWS, as it would be made."""

    operation: str
    parameters: dict[str, Any]


class LaunchPlan(msgspec.Struct, omit_defaults=True):
    """What a launch would call, in order. Nothing was changed."""

    project: Project
    calls: list[ApiCall]
    price: Quote | None = None
    version: int = API_VERSION


class DownRequest(ProjectName, omit_defaults=True):
    """Save the box. ``require_clean``: refuse while it has git work that is nowhere else.

    ``verify``: boot generations before their box is released, from now on; None: as it is.
    """

    require_clean: bool = False
    verify: bool | None = None


class DeleteRequest(ProjectName, omit_defaults=True):
    """Keep nothing. ``force``: also where a fork has no generation of its own yet."""

    force: bool = False


class ResizeRequest(ProjectName, omit_defaults=True):
    """Another type, or a larger disk (GiB)."""

    types: list[Line] = msgspec.field(default_factory=list)
    disk: Gib | None = None


class RebaseRequest(ProjectName, omit_defaults=True):
    """Another base image under a project: its name or its id."""

    onto: Line = ""


class RebasePlan(msgspec.Struct, omit_defaults=True):
    """What a rebase would call, in order; what has no id yet is in brackets. Nothing was changed.

    ``running``: a box runs that goes down for it.
    """

    project: Project
    calls: list[ApiCall]
    running: bool = False
    price: Quote | None = None
    version: int = API_VERSION


class ResumeRequest(ProjectName, omit_defaults=True):
    """Go on. ``verify``: boot generations before their box is released, from now on; None: as it is."""

    verify: bool | None = None


class AbandonRequest(ProjectName, omit_defaults=True):
    """Give up what could not be saved. ``discard``: delete the volumes that are left of it, too."""

    discard: bool = False


class AbandonPlan(msgspec.Struct, omit_defaults=True):
    """What there is to give up. ``generation``: the one that is left.

    ``volumes``: those of the box that are there, and snapshots that are all that is left of one.
    """

    project: Project
    generation: Generation
    volumes: list[Leftover] = []
    version: int = API_VERSION


class OtherNameRequest(ProjectName, omit_defaults=True):
    """A name to give: to the project (rename), or to a new one (fork). ``generation``: of a fork; None: the newest."""

    name: Line = ""
    generation: int | None = None


class AdoptRequest(Account, omit_defaults=True):
    """Make a project of an instance that is there already."""

    project: Line = ""
    instance: Line = ""


class SnapshotRequest(ProjectName, omit_defaults=True):
    """Make a generation now."""

    label: Line = ""


class Generation(msgspec.Struct, omit_defaults=True):
    """One saved state. ``quality``: clean, crash (as after a power cut), rescue. ``lacks``: what was not there to save."""

    number: int
    image: str
    quality: str
    created: str
    size: int = 0  # GiB of all its volumes
    volumes: int = 0
    label: str = ""
    pins: list[str] = []
    is_newest: bool = False
    base: str = ""  # the base image under it; empty: not written down
    lacks: list[str] = []


class GenerationList(msgspec.Struct, omit_defaults=True):
    """Generations, newest first."""

    generations: list[Generation]
    version: int = API_VERSION


class GenerationChange(ProjectName, omit_defaults=True):
    """Label a generation, pin it (it is kept) or unpin it. None: as it is."""

    generation: int = 0
    label: Line | None = None
    pinned: bool | None = None


class GenerationDrop(ProjectName, omit_defaults=True):
    """Delete one generation; ``force``: though it is pinned."""

    generation: int = 0
    force: bool = False


class ProjectStep(msgspec.Struct, omit_defaults=True):
    """How far a project is. The last one has ``done``, or a ``failure``; ``project`` None: it is deleted.

    ``hint``: what mends what ``text`` says, where somebody has to.
    """

    project: Project | None = None
    text: str = ""
    hint: str | None = None
    done: bool = False
    failure: Failure | None = None


class Leftover(msgspec.Struct, omit_defaults=True):
    """A resource of a project that nothing uses. ``goes``: when it is deleted; None: not by itself."""

    id: str
    kind: str
    why: str
    size: int = 0  # GiB
    usd_month: str = "0.00"  # of a snapshot at most; empty: its price is not known
    goes: str | None = None
    project: str = ""


class LeftoverList(msgspec.Struct, omit_defaults=True):
    """Leftovers, in the order in which they go."""

    leftovers: list[Leftover]
    version: int = API_VERSION


class PolicyRequest(Account, omit_defaults=True):
    """For whom: connect, user, admin, box, bill, deadman, reconciler. ``anywhere``: for every account and region."""

    audience: Line = "user"
    anywhere: bool = False


class SetUpRequest(Account, omit_defaults=True):
    """Set the account up in this region. ``network``: of the boxes, as 10.219.0.0/16; None: as it is.

    ``parameters``: of the template, by name; what is not given stays as it was deployed.
    """

    network: Line | None = None
    dry_run: bool = False
    parameters: dict[str, str] = msgspec.field(default_factory=dict)


class SetUpStep(msgspec.Struct, omit_defaults=True):
    """Progress. ``state``: change (would be or will be made), step, failed (of one resource), done."""

    state: str
    text: str = ""
    resource: str = ""
    action: str = ""
    failure: Failure | None = None
