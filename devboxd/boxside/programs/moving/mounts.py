"""Volumes that the old system mounted and that are here, too."""

import os
from typing import TYPE_CHECKING

from devboxd.boxside.programs.moving.folders import Held, by, opened
from devboxd.boxside.programs.moving.oldroot import old_lines
from devboxd.boxside.programs.moving.system import OWN, Refused, System, call, lines

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
        added.append([spec, place, kind, ",".join(options), "0", "2"])
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


def add(system: System, added: "list[list[str]]", kept: str, notes: "list[str]") -> None:
    """Add lines to the fstab of this system, whose old text is kept, and mount the places that they are of."""
    table, before = system.path("etc/fstab"), os.path.join(kept, "etc", "fstab")
    if os.path.lexists(table) and not os.path.lexists(before):
        os.makedirs(os.path.dirname(before), mode=0o711, exist_ok=True)
        status, said = call("cp", "-a", table, before)
        if status:
            raise Refused("fstab can not be put aside: " + said[:200])
    text = "\n".join(lines(table) + ["\t".join(fields) for fields in added]) + "\n"
    with open(table + ".devbox", "w", errors="surrogateescape") as file:
        file.write(text)
    os.chmod(table + ".devbox", 0o644)
    os.rename(table + ".devbox", table)
    for fields in added:
        why = mounting(system, *fields[:4])
        if why:
            notes.append("fstab: " + fields[1] + " is carried over, and " + why)


def mounting(system: System, spec: str, place: str, kind: str, options: str) -> str:
    """Mount what fstab says of a place, whose folder is made; why it can not be, or nothing.

    Where somebody else than root can put a link in the way, it is mounted over the folder that was opened, as what the
    name leads to a moment later may be a folder of the system. The next start does so by the name: systemd follows no link.
    """
    try:
        number, is_safe = opened(system.root, place, make=True)
    except OSError as error:
        return "can not be mounted: " + str(error.strerror)
    with Held(number) as folder:
        if system.played or os.path.ismount(place):
            return ""
        if is_safe:
            status, said = call("mount", place)
        else:
            more = ",".join(one for one in options.split(",") if one != "nofail")  # else it fails in silence
            device = os.path.realpath(named_path(system, spec) or spec)
            status, said = call("mount", "-c", "-t", kind, "-o", more, device, ".", folder=by(folder))
    return "can not be mounted: " + said[:150] if status else ""


def named_path(system: System, spec: str) -> "str | None":
    """What a line of fstab names for good, where it does."""
    key, equals, value = spec.partition("=")
    kinds = {"UUID": "by-uuid", "LABEL": "by-label", "PARTUUID": "by-partuuid", "PARTLABEL": "by-partlabel"}
    if equals and key in kinds:
        return system.path("dev/disk/" + kinds[key] + "/" + value.strip('"'))
    return system.path(spec) if spec.startswith("/dev/disk/by-") else None


def named_volume(system: System, spec: str) -> "str | None":
    """The disk that a line of fstab means, where it names it for good and the disk is here."""
    path = named_path(system, spec)
    if path is None or not os.path.exists(path):
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
