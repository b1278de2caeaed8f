"""What belongs to a project and is in use by nothing, what it costs, and when it goes."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec.structs import replace

from devboxd.model.cost import MONTH
from devboxd.model.price import HOUR, Rates
from devboxd.model.probe import is_probe
from devboxd.model.project import Phase, read_token
from devboxd.model.retention import (
    is_last_copy,
    is_saved_volume,
    is_spent,
    is_unwanted_image,
    is_unwanted_snapshot,
)
from devboxd.model.seen import Box, Observed, Seen, Snapshot, Volume, can_never_be_bound


class Leftover(msgspec.Struct, frozen=True):
    """One resource. ``goes``: Unix seconds when it is deleted; None: not by itself, and ``why`` says why.

    ``usd_month``: of a snapshot at most, as if all of it were stored; None: its price is not known.
    """

    id: str
    kind: str  # instance, volume, image, snapshot
    why: str
    gib: int = 0
    usd_month: Decimal | None = Decimal(0)
    goes: float | None = None


def leftovers(
    seen: Seen, rates: Rates, undeleted: Mapping[str, str] = MappingProxyType({})
) -> list[Leftover]:
    """All of them, in the order in which they go; ``rates``: of the region that they are in.

    ``undeleted``: by id, why AWS did not delete it when it was asked last; it is asked again.
    """
    grace = seen.project.policy.grace
    found = [
        Leftover(box.id, "instance", "it was launched twice", goes=seen.at)
        for box in seen.ec2.boxes
        if box.is_alive
        and box.id != seen.project.instance
        and can_never_be_bound(box.token, seen.project)
        and not is_probe(box.token, seen.project)
    ]
    for volume in seen.ec2.volumes:
        if is_spent(seen, volume):
            if volume.rebase is not None:
                found.append(volume_of(volume, rates, "a copy of an old root, not needed any more", seen.at))
                continue
            found.append(volume_of(volume, rates, "its run is saved", _when(volume.garbage, seen.at, grace)))
        elif why := _kept_because(seen, volume):
            found.append(volume_of(volume, rates, why, None))
    for image in seen.ec2.images:
        if is_unwanted_image(seen, image):
            goes = _when(image.garbage, seen.at, grace)
            found.append(Leftover(image.id, "image", "no generation has it", goes=goes))
    found += [
        snapshot_of(snapshot, rates, "no generation has it", _when(snapshot.garbage, seen.at, grace))
        for snapshot in seen.ec2.snapshots
        if is_unwanted_snapshot(seen, snapshot)
    ]
    found += [
        snapshot_of(snapshot, rates, LAST_COPY, None)
        for snapshot in seen.ec2.snapshots
        if is_last_copy(seen, snapshot)
    ]
    found = [
        replace(one, why=f"{one.why}; AWS does not delete it: {undeleted[one.id]}", goes=None)
        if one.id in undeleted
        else one
        for one in found
    ]
    if seen.project.phase is Phase.BROKEN:  # nothing is called meanwhile
        waits = "it goes when the project goes on"
        found = [replace(one, why=f"{one.why}; {waits}", goes=None) if one.goes else one for one in found]
    return sorted(found, key=lambda one: (one.goes is None, one.goes or 0.0, one.id))


LAST_COPY: Final = "given up with its box, and kept: it is all that is left of a volume; delete it at EC2 once you have what it holds"
UNKNOWN: Final = (
    "of no project that this machine knows; devboxctl rebuild takes it back, if none of your machines has it"
)


def unknown(ec2: Observed, rates: Rates) -> list[Leftover]:
    """All that is there of a project that is written down nowhere. None of it goes by itself.

    An instance costs what a month of it is, while it runs.
    """
    found = [
        Leftover(box.id, "instance", UNKNOWN, usd_month=_month(box, rates))
        for box in ec2.boxes
        if box.is_alive
    ]
    found += [volume_of(one, rates, UNKNOWN) for one in ec2.volumes if one.is_there]
    found += [Leftover(one.id, "image", UNKNOWN) for one in ec2.images if one.is_there]
    return found + [snapshot_of(one, rates, UNKNOWN, None) for one in ec2.snapshots]


def _month(box: Box, rates: Rates) -> Decimal | None:
    hourly = rates.hourly(box.type)
    return Decimal(0) if not box.is_up else None if hourly is None else hourly * round(MONTH / HOUR)


def _when(marked: float | None, at: float, grace: float) -> float:
    return max(at, (at if marked is None else marked) + grace)


def _kept_because(seen: Seen, volume: Volume) -> str:
    """Why a free volume of ours is not deleted; empty where it is in use or not ours."""
    read = read_token(volume.token)
    if volume.state != "available" or read is None or read.uid != seen.project.uid:
        return ""
    if seen.project.is_set_aside(read.run):
        return "given up with its box, and kept: no generation has what it holds; delete it at EC2 once you have that"
    if any(volume.id == one.id for one in seen.own_volumes):
        return ""
    if read.run <= seen.project.closed and not is_saved_volume(seen, volume.id, read.run):
        return "no generation has it: it was not attached when its box was saved"
    if read.run <= seen.project.closed:
        return "the newest generation does not show whole: this may be the last copy"
    return "its run is not saved"


def volume_of(volume: Volume, rates: Rates, why: str, goes: float | None = None) -> Leftover:
    """A volume that nothing uses, with what it costs."""
    disk = volume.disk
    monthly = rates.volume(disk.type or "", disk.size_gib, disk.iops, disk.throughput)
    return Leftover(volume.id, "volume", why, disk.size_gib, monthly, goes)


def snapshot_of(snapshot: Snapshot, rates: Rates, why: str, goes: float | None = None) -> Leftover:
    """A snapshot that nothing uses, with what it costs at most."""
    monthly = None if rates.snapshot is None else rates.snapshot * snapshot.size_gib
    return Leftover(snapshot.id, "snapshot", why, snapshot.size_gib, monthly, goes)
