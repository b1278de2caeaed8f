"""Boxes: what a name may be, and what is known of one."""

from __future__ import annotations

import re
from typing import Final

import msgspec

_INSTANCE_ID: Final = re.compile(r"(i-[0-9a-f]{8}(?:[0-9a-f]{9})?|mi-[0-9a-f]{17})\Z")
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z")
HOST_SUFFIX: Final = ".devbox"


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
    mux: str | None = None
    keep_alive: str | None = None  # a policy of its own: auto, always, never


class Instance(msgspec.Struct, frozen=True):
    """An instance as EC2 shows it. ``launched`` is Unix seconds."""

    id: str
    name: str | None = None
    state: str = "unknown"
    type: str | None = None
    zone: str | None = None
    launched: float | None = None
    private_address: str | None = None
    platform: str | None = None
    tags: dict[str, str] = {}


def is_instance_id(text: str) -> bool:
    """Say whether this is an EC2 or hybrid instance id: valid as a box without asking anybody."""
    return _INSTANCE_ID.match(text) is not None


def is_name(text: str) -> bool:
    """Say whether this can be a box name (it must also do as a host name label)."""
    return _NAME.match(text) is not None


def strip_suffix(text: str) -> str:
    """Take ``gpu.devbox`` for ``gpu``: ssh hands us host names."""
    return text.removesuffix(HOST_SUFFIX)
