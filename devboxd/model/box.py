"""Boxes: what is known of one."""

from __future__ import annotations

from typing import Final

import msgspec

from devboxd.model.states import InstanceState, KeepAlive, Mux

PROJECT_TAG: Final = "devbox:project"
SKEW_MOST: Final = 300.0  # seconds that the clock of a box may differ from ours


class Account(msgspec.Struct, frozen=True):
    """Which AWS settings a box is reached with. None: the daemon's own default."""

    profile: str | None = None
    region: str | None = None


class BoxRef(msgspec.Struct, frozen=True):
    """A box that can be connected to: a resolved name."""

    name: str  # as the user calls it; the instance id where it has no name
    target: str  # instance id
    account: Account
    user: str | None = None  # login name to use there, where configured
    mux: Mux | None = None
    keep_alive: KeepAlive | None = None  # a policy of its own
    document: str | None = None  # the session document of its plain shells; None: the account's own


class Instance(msgspec.Struct, frozen=True):
    """An instance as EC2 shows it. ``launched`` is Unix seconds."""

    id: str
    name: str | None = None
    state: InstanceState = InstanceState.UNKNOWN
    type: str | None = None
    zone: str | None = None
    launched: float | None = None
    private_address: str | None = None
    platform: str | None = None
    tags: dict[str, str] = {}

    @property
    def project(self) -> str | None:
        """The project that it is the box of."""
        return self.tags.get(PROJECT_TAG)

    @property
    def is_running(self) -> bool:
        """Whether it is the one that is meant where several have its name."""
        return self.state is InstanceState.RUNNING
