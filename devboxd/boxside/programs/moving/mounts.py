"""Volumes that the old system mounted and that are here, too."""

import os
from typing import TYPE_CHECKING

from devboxd.boxside.programs.moving.copy import keep
from devboxd.boxside.programs.moving.oldroot import old_lines
from devboxd.boxside.programs.moving.system import OWN, System, call, lines

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEMS = ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "sys")


def is_systems(place: str) -> bool:
    """Whether a volume that is mounted there would take the place of this system, or of what is copied into it."""
    top, _, rest = place[1:].partition("/")
    if place != os.path.normpath(place) or not top or top in SYSTEMS:
        return True
    if top == "usr":
        return rest.split("/")[0] != "local"
    return ("/" + OWN + "/").startswith(place + "/") or (place + "/").startswith("/" + OWN + "/")


def carry_mounts(system: System, old: str, disk: str, kept: str, notes: "list[str]") -> "list[str]":
    """Lines of the old fstab that name volumes which are here, and mount them. Returns where: homes may be on one."""
    over = []
    here = [line.split() for line in lines(system.path("etc/fstab"))]
    places = {one[1] for one in here if len(one) > 1 and not one[0].startswith("#")}
    added = []
    for spec, place, kind, options in old_mounts(old):
        if is_systems(place):
            if place not in places:
                notes.append(
                    "fstab: " + place + " is not carried over, as this system has its own (" + spec + ")"
                )
            continue
        name = named_volume(system, spec)
        is_here = name is not None and name not in (disk, root_disk())
        if is_here and "noauto" not in options:
            over.append(place)
        if place in places:
            continue
        if not is_here:
            notes.append(
                "fstab: " + place + " is not carried over, as it names no volume of this box (" + spec + ")"
            )
            continue
        if "nofail" not in options:
            options.append("nofail")  # a box that waits for a disk can not be reached
        added.append((place, "\t".join([spec, place, kind, ",".join(options), "0", "2"])))
    if added:
        add(system, added, kept, notes)
    return over


def old_mounts(old: str) -> "Iterator[tuple[str, str, str, list[str]]]":
    """What the old fstab mounts besides the system itself: volume, place, kind, options."""
    for line in old_lines(old, "etc/fstab"):
        fields = line.split()
        if len(fields) < 3 or fields[0].startswith("#"):
            continue
        spec, place, kind = fields[:3]
        if not place.startswith("/") or kind == "swap":
            continue
        if place == "/" or place == "/boot" or place.startswith("/boot/"):
            continue
        yield spec, place, kind, (fields[3] if len(fields) > 3 else "defaults").split(",")


def add(system: System, added: "list[tuple[str, str]]", kept: str, notes: "list[str]") -> None:
    """Add lines to the fstab of this system, whose old text is kept, and mount the places that they are of."""
    table = system.path("etc/fstab")
    keep(table, kept, system.root, copy=True)
    text = "\n".join(lines(table) + [line for _, line in added]) + "\n"
    with open(table + ".devbox", "w", errors="surrogateescape") as file:
        file.write(text)
    os.chmod(table + ".devbox", 0o644)
    os.rename(table + ".devbox", table)
    for place, _ in added:
        os.makedirs(system.path(place), exist_ok=True)
        if not system.played and not os.path.ismount(place):
            status, said = call("mount", place)
            if status:
                notes.append("fstab: " + place + " is carried over, and can not be mounted: " + said[:150])


def named_volume(system: System, spec: str) -> "str | None":
    """The disk that a line of fstab means, where it names it for good and the disk is here."""
    key, equals, value = spec.partition("=")
    kinds = {"UUID": "by-uuid", "LABEL": "by-label", "PARTUUID": "by-partuuid", "PARTLABEL": "by-partlabel"}
    if equals and key in kinds:
        path = system.path("dev/disk/" + kinds[key] + "/" + value.strip('"'))
    elif spec.startswith("/dev/disk/by-"):
        path = system.path(spec)
    else:
        return None
    if not os.path.exists(path):
        return None
    return whole_disk(os.path.basename(os.path.realpath(path)))


def whole_disk(name: str) -> str:
    """The disk that a partition is on."""
    path = os.path.realpath("/sys/class/block/" + name)
    if os.path.exists(os.path.join(path, "partition")):
        return os.path.basename(os.path.dirname(path))
    return name


def root_disk() -> str:
    """The disk that this system is on; empty where that can not be told."""
    number = os.stat("/").st_dev
    path = "/sys/dev/block/" + str(os.major(number)) + ":" + str(os.minor(number))
    return whole_disk(os.path.basename(os.path.realpath(path))) if os.path.exists(path) else ""
