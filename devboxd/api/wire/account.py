"""What a user has at AWS beside boxes: where their projects are written down, and what an account offers them."""

from __future__ import annotations

import msgspec

from devboxd.api.wire.common import API_VERSION, Account, Check, Failure, Line
from devboxd.api.wire.project import ProjectName


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
