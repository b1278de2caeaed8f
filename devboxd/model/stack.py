"""Deploying the account's stack: the decision at every look, from what CloudFormation shows.

Level-triggered like everything else that changes AWS: ask again after a crash, a lost answer or a second
deployer, and the answer still holds. A change set is made first, so that a dry run and the real one see the same
list, and an update that changes nothing ends before it begins.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from devboxd.errors import BadRequest

PREFIX: Final = "devbox"  # of all names that init account makes, unless projects.prefix says another
PREFIX_PATTERN: Final = r"^[a-z][a-z0-9-]{1,20}$"  # what the template takes
SUBNET_BITS: Final = 4  # a network is cut into sixteen: six public subnets, six private ones, four kept free
ZONES_MOST: Final = 6

_BROKEN: Final = frozenset({"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"})
_NO_CHANGES: Final = ("didn't contain changes", "no updates are to be performed")
_NOT_ALLOWED: Final = re.compile(
    r"not authorized to perform: (?P<action>[a-z0-9-]+:[A-Za-z0-9*]+)(?: on resource: (?P<on>[^\s,]+))?"
)


class Change(msgspec.Struct, frozen=True):
    """One line of a change set. ``action`` is Add, Modify, Remove, Import or Dynamic."""

    action: str
    resource: str
    kind: str
    replaces: bool = False


class ChangeSet(msgspec.Struct, frozen=True):
    """A change set as CloudFormation shows it."""

    status: str
    execution: str = "UNAVAILABLE"
    reason: str = ""
    changes: tuple[Change, ...] = ()


class StackSeen(msgspec.Struct, frozen=True):
    """What is there now. ``status``: of the stack, None where there is none. ``change_set``: ours, by its name."""

    status: str | None
    reason: str = ""
    change_set: ChangeSet | None = None
    executed: bool = False  # we have started our change set before


class Prepare(msgspec.Struct, frozen=True):
    """Make the change set. ``creates``: there is no stack yet."""

    creates: bool


class Execute(msgspec.Struct, frozen=True):
    """Carry the change set out."""


class Discard(msgspec.Struct, frozen=True):
    """Take our change set away again: a dry run is over, or it holds nothing."""


class Remove(msgspec.Struct, frozen=True):
    """Remove a stack that never came to be: CloudFormation lets nothing else be done with it."""


class Wait(msgspec.Struct, frozen=True):
    """Look again later."""

    seconds: float
    text: str


class Done(msgspec.Struct, frozen=True):
    """The stack is as wished. ``changed``: by us, now."""

    changed: bool


class Failed(msgspec.Struct, frozen=True):
    """It can not be done this way; ``reason`` is CloudFormation's, for people."""

    reason: str


Step: TypeAlias = Prepare | Execute | Discard | Remove | Wait | Done | Failed


def next_step(seen: StackSeen, *, dry_run: bool = False) -> Step:
    """Name the one next thing to do."""
    status = seen.status
    if status is not None and status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS":
        return Wait(3.0, f"the stack is at {status}")
    if seen.executed:
        if status in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            return Done(changed=True)
        if status == "REVIEW_IN_PROGRESS" or (
            seen.change_set and seen.change_set.execution == "EXECUTE_IN_PROGRESS"
        ):
            return Wait(3.0, "CloudFormation begins")
        return Failed(seen.reason or f"the stack ended at {status}")
    if status in _BROKEN:
        return Failed(f"the stack is at {status}") if dry_run else Remove()
    match seen.change_set:
        case None:
            return Prepare(creates=status in (None, "REVIEW_IN_PROGRESS", "DELETE_COMPLETE"))
        case ChangeSet(status="FAILED", reason=reason):
            unchanged = any(text in reason.lower() for text in _NO_CHANGES)
            return Done(changed=False) if unchanged else Failed(reason)
        case ChangeSet(status="CREATE_COMPLETE", execution="AVAILABLE"):
            return Discard() if dry_run else Execute()
        case ChangeSet(status="CREATE_COMPLETE", execution="OBSOLETE"):
            return Discard()  # somebody else deployed meanwhile: make a new one
        case _:
            return Wait(1.0, "CloudFormation works out what would change")


def missing_permission(reason: str) -> tuple[str, str | None] | None:
    """The action, and the resource where it is named, that a failure of CloudFormation says is not allowed."""
    match = _NOT_ALLOWED.search(reason)
    return (match["action"], match["on"]) if match else None


def network(cidr: str, zones: Sequence[str]) -> dict[str, str]:
    """The template's parameters for a network in these zones; the first six of them where there are more.

    Raises:
        BadRequest: it is no network, or too small or too large for AWS (/16 to /24 here).
    """
    if not zones:
        raise BadRequest("the region has no zone that this account may use")
    try:
        whole = ipaddress.IPv4Network(cidr)
    except ValueError as error:
        raise BadRequest(f"{cidr!r} is no network: {error}", hint="for example 10.219.0.0/16") from None
    if not 16 <= whole.prefixlen <= 24:
        raise BadRequest(f"{cidr} can not be the network of a VPC here", hint="use a prefix from /16 to /24")
    blocks = [str(one) for one in whole.subnets(prefixlen_diff=SUBNET_BITS)]
    return {
        "VpcCidr": cidr,
        "SubnetCidrs": ",".join(blocks[:ZONES_MOST]),
        "PrivateSubnetCidrs": ",".join(blocks[8 : 8 + ZONES_MOST]),
        "ZoneNames": ",".join(zones[:ZONES_MOST]),
        "ZoneCount": str(len(zones[:ZONES_MOST])),
    }


def kept(known: Sequence[str], old: Mapping[str, str], asked: Mapping[str, str]) -> dict[str, str | None]:
    """The parameters of an update: what is asked for, and for the rest what the stack has (None: as it is).

    An update that forgets a parameter would put it back to the template's default, and a network with it.

    Raises:
        BadRequest: the template has no parameter of that name.
    """
    if unknown := [name for name in asked if name not in known]:
        raise BadRequest(f"the template has no parameter {unknown[0]}", hint=f"it has: {', '.join(known)}")
    return {name: asked.get(name) for name in known if name in asked or name in old}
