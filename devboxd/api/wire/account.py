"""What a user has at AWS beside boxes: where their projects are written down, and what an account offers them."""

from __future__ import annotations

from typing import Any

import msgspec

from devboxd.api.wire.common import API_VERSION, Account, Check, Failure, Line
from devboxd.api.wire.project import Generation, ProjectName


class MoveRequest(ProjectName, omit_defaults=True):
    """Move a project to another store: ``to`` is sqlite or dynamodb."""

    to: Line = ""


class Store(msgspec.Struct, omit_defaults=True):
    """A place where projects are written down. ``failure``: why it can not be read now."""

    engine: str
    used: bool
    where: str
    projects: list[str] = []
    failure: Failure | None = None


class StoreList(msgspec.Struct, omit_defaults=True):
    """Every store, the one in use first."""

    stores: list[Store]
    version: int = API_VERSION


class UserRequest(Account, omit_defaults=True):
    """Set a user up. ``instance_profile``: to be used, or made under that name; ``store``: to be used, or as it is."""

    create_profile: bool = False
    instance_profile: Line | None = None
    store: Line | None = None
    dry_run: bool = False


class UserStep(msgspec.Struct, omit_defaults=True):
    """One finding; the last one has ``done`` or a ``failure``."""

    check: Check | None = None
    done: bool = False
    failure: Failure | None = None


class ImportRequest(msgspec.Struct):
    """What an export printed."""

    exported: dict[str, Any] = msgspec.field(default_factory=dict)


class TakeOverRequest(Account, omit_defaults=True):
    """Which table. ``types`` and ``instance_profile``: of boxes whose own the table does not say; None: as configured."""

    table: Line = ""
    types: list[Line] = msgspec.field(default_factory=list)
    instance_profile: Line | None = None


class Legacy(msgspec.Struct, omit_defaults=True):
    """One project of such a table. ``problem``: why it was not taken over; empty where it was."""

    project: str
    problem: str = ""


class TakenOver(msgspec.Struct, omit_defaults=True):
    """All projects of the table."""

    projects: list[Legacy]
    version: int = API_VERSION


class GenerationNumber(ProjectName, omit_defaults=True):
    """Which generation; below zero counted back from the newest."""

    generation: int = 0


class SavedDisk(msgspec.Struct, omit_defaults=True):
    """One volume of a generation. ``throughput``: MiB/s; ``key``: KMS key."""

    device: str
    size: int  # GiB
    type: str | None = None
    iops: int | None = None
    throughput: int | None = None
    key: str | None = None
    snapshot: str | None = None


class GenerationDetail(msgspec.Struct, omit_defaults=True):
    """A saved state in full. ``boot``: what makes it boot, and what it is billed as, as EC2 said."""

    generation: Generation
    run: int
    parent: int = 0
    tested: bool = False
    disks: list[SavedDisk] = []
    boot: dict[str, str] = {}
    version: int = API_VERSION
