"""Idle boxes: what works on them, when they go, and what holds them."""

from __future__ import annotations

import msgspec

from devboxd.api.wire.common import API_VERSION, Line
from devboxd.api.wire.project import ProjectName


class IdlePolicy(msgspec.Struct, omit_defaults=True):
    """Seconds; times of the week as words. ``own``: the project's; else it is the one that is configured.

    ``then``: warm, cold, notify. ``starts``: the box is brought up when its hours begin. ``lid``: without work it goes
    so long after the last laptop has left; ``delete``: archived and not used for so long, it is deleted.
    """

    after: float
    warn: float
    then: str
    never: list[str] = []
    max_run: float | None = None
    hours: str | None = None
    starts: bool = False
    own: bool = False
    lid: float | None = None
    delete: float | None = None


class Evidence(msgspec.Struct, omit_defaults=True):
    """One signal: what was seen, and whether it counts as work."""

    signal: str
    seen: str
    counts: bool = False


class Lease(msgspec.Struct, omit_defaults=True):
    """A reason for a box to stay up. It ends at ``until`` at the latest."""

    id: str
    why: str
    since: str
    until: str
    who: str = ""
    command: str | None = None
    pid: int | None = None


class LeaseList(msgspec.Struct, omit_defaults=True):
    """The leases that hold a box."""

    project: str
    leases: list[Lease]
    deletes: str | None = None  # when an archived project is deleted for not being used, at the earliest
    version: int = API_VERSION


class IdleDecision(msgspec.Struct, omit_defaults=True):
    """What was decided: warned, kept, stopped, told, vetoed, extended, watchdog (the box stopped itself), started, disused
    (told that it is deleted).
    """

    at: str
    did: str
    why: str
    evidence: list[Evidence] = []
    unsaved: list[str] = []


class Laptop(msgspec.Struct, omit_defaults=True):
    """A machine whose daemon said at ``at`` that it is here; ``here``: that holds still."""

    name: str
    at: str
    here: bool = False


class Idle(msgspec.Struct, omit_defaults=True):
    """How a box stands. ``verdict``: active, idle, unknown; None: it was not looked at.

    ``idle_since``: every minute since then was idle; ``stops``: when it goes as things are; ``minutes``: the verdicts of
    the last day, a letter (a, i, u) for each, the last one at ``looked``; ``held``: it is not stopped before;
    ``decisions``: of the last thirty days, oldest first, where they were asked for; ``laptops``: those that were here since
    the box started; ``lid_stops``: when it goes if all of them leave now; None: it does not, for ``lid_why``;
    ``spot``: of a spot box, where it was asked why: whether EC2 takes it back, and what was done;
    ``deletes``: when an archived project is deleted for not being used, at the earliest; ``delete_why``: what keeps it.
    """

    project: str
    phase: str
    policy: IdlePolicy
    verdict: str | None = None
    why: str = ""
    problem: str = ""
    looked: str | None = None
    idle_since: str | None = None
    stops: str | None = None
    held: str | None = None
    watchdog: bool = False  # the box looks by itself, and stops itself where no daemon does
    evidence: list[Evidence] = []
    minutes: str = ""
    leases: list[Lease] = []
    decisions: list[IdleDecision] = []
    laptops: list[Laptop] = []
    lid_stops: str | None = None
    lid_why: str = ""
    spot: str = ""
    deletes: str | None = None
    delete_why: str = ""
    version: int = API_VERSION


class IdleChange(ProjectName, omit_defaults=True):
    """Change a project's policy. What is not said stays; ``reset``: as it is configured.

    ``max_run``, ``lid`` and ``delete`` 0 and empty ``hours`` take them away.
    """

    after: float | None = None
    warn: float | None = None
    then: Line | None = None
    never: list[Line] | None = None
    max_run: float | None = None
    hours: Line | None = None
    starts: bool | None = None
    lid: float | None = None
    delete: float | None = None
    reset: bool = False


class LeaseRequest(ProjectName, omit_defaults=True):
    """Keep a box up: for ``seconds``, ``until`` a moment, while ``command`` succeeds on it, or while ``pid`` is there."""

    seconds: float | None = None
    until: Line | None = None
    command: Line | None = None
    pid: int | None = None
    note: Line = ""


class LeaseDrop(ProjectName, omit_defaults=True):
    """End a lease."""

    lease: Line = ""


class ExtendRequest(ProjectName, omit_defaults=True):
    """Move the deadline by ``seconds``."""

    seconds: float = 3600.0
