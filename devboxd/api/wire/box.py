"""Boxes: what they are, how far away, and how ssh reaches them."""

from __future__ import annotations

import msgspec

from devboxd.api.wire.common import API_VERSION, Account, Bridge, Condition, Line, Port, Target


class Box(msgspec.Struct, omit_defaults=True):
    """A box as EC2 and Session Manager show it. ``connection``: connected, notconnected, unknown.

    ``ref`` is what to write to mean this box and no other: its name, or its id where several have that name.
    ``project``, ``phase`` and ``generation`` (the newest; 0: none) are those of the project that it is the box of. A
    project that has no instance is listed as well: ``id`` is empty then, and ``state`` is none.
    """

    name: str
    id: str
    state: str = "unknown"  # running, stopped, pending, …; unknown without EC2 permissions; none: no instance
    connection: str = "unknown"
    type: str | None = None
    zone: str | None = None
    launched: str | None = None
    private_address: str | None = None
    profile: str | None = None
    region: str | None = None
    user: str | None = None
    sessions: int = 0
    forwards: int = 0
    tags: dict[str, str] = {}
    ref: str | None = None  # None: a daemon that does not say; the name
    host: str | None = None  # for ssh; None: the instance is going
    hour: str | None = None  # US dollars that it costs an hour while it runs, on demand
    bridges: list[Bridge] = []  # of one box only, not in a list of boxes
    project: str | None = None
    phase: str | None = None
    generation: int = 0
    want: str | None = None  # this and the rest: of one box only, as ``bridges``
    since: str | None = None  # when the phase was entered
    saved: str | None = None  # when the newest generation was made
    base: str | None = None  # the base image under it
    rebase: str | None = None  # how a rebase stands: what was copied, or why not
    way_back: int | None = None  # the generation that it goes back to
    under_way: str | None = None  # what is waited for, or why it is not as wanted
    next: str | None = None  # what happens next, or what can be done, in a few words
    deletes: str | None = None  # archived: when it is deleted for not being used, at the earliest
    agents: str | None = None  # what its coding agents do, as seen last: claude waits for you since 3 min
    spot: str | None = None  # of one spot box: whether EC2 takes it back, and what was done


class BoxesRequest(Account, omit_defaults=True):
    """Which boxes. ``all_owners``: those that others have launched with devbox, too."""

    all_owners: bool = False


class BridgeRemoval(msgspec.Struct, omit_defaults=True):
    """What was done to take a bridge away: lines for people, and how many streams were cut."""

    box: str
    done: list[str]
    streams: int = 0


class BoxList(msgspec.Struct, omit_defaults=True):
    """Boxes, by name. ``stale_since`` is set where AWS could not be asked and these come from memory."""

    boxes: list[Box]
    conditions: list[Condition] = []
    stale_since: str | None = None
    version: int = API_VERSION


class PingRequest(Target, omit_defaults=True):
    """Measure the way to a box and back."""

    count: int = 3
    timeout: float = 15.0


class Ping(msgspec.Struct, omit_defaults=True):
    """Round trips to the agent on the box and back, in seconds."""

    box: str
    round_trips: list[float]
    session_start: float | None = None  # seconds to open the session that was measured; None: it was open
    agent_version: str | None = None


class SshRequest(Target, omit_defaults=True):
    """Make ``ssh`` to a box work: user, key on the box, host key here.

    ``fresh``: look at the box now; without it, what was found in the last hours may be believed.
    """

    user: Line | None = None
    port: Port = 22
    fresh: bool = True


class SshAccess(msgspec.Struct, omit_defaults=True):
    """What ``ssh`` needs. ``problems`` are things that could not be done, in sentences."""

    box: str
    user: str
    identity_file: str
    known_hosts_file: str
    config_file: str
    host_keys: int = 0
    host: str | None = None  # the name to give to ssh; None: the box's own
    host_key_alias: str | None = None  # under which this very instance is pinned, whatever is called so, too
    problems: list[str] = []


class SshConfigRequest(msgspec.Struct, omit_defaults=True):
    """Write the generated ssh configuration and its one ``Include`` line."""

    command: Line | None = None  # absolute path of devboxctl for ProxyCommand; None: what the daemon finds


class SshConfigResult(msgspec.Struct, omit_defaults=True):
    """The generated ssh configuration as it stands now. ``changed`` names files that were written."""

    config_file: str  # ours
    user_config: str  # the user's, with the Include line
    included: bool = False
    current: bool = False  # both files are what this version would write
    changed: list[str] = []
    problems: list[str] = []
    version: int = API_VERSION
