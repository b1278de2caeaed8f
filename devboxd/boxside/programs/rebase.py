"""Copy the homes of an old root volume, which is attached, onto this system; in the background, and again if need be.

Python 3.6 and the standard library only, as root. Arguments: this text itself, a request (JSON), and on a simulated box
the folder that plays its root; one line of JSON comes out. As a file of its own it is the worker (``FILE work REQUEST``).
``/var/lib/devbox/rebase`` has ``lock`` (held while it works), ``state.json``, what stood in the place of what came
(``replaced-…``) and, below ``private``, the old root as long as it is mounted. Nothing of this system is deleted.
"""

import errno
import fcntl
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

FIRST, LAST = 1000, 60000  # user ids of people (login.defs)
CHUNK = 1 << 20
NOTES_MOST = 20
SHOWN_MOST = 250  # characters of a sentence: twenty notes are less than the daemon reads
COUNT_MOST = (1 << 62) - 1
FAILED_MOST = 1000  # places that are told apart
TABLE_MOST = 4 << 20  # characters of passwd, group and fstab
SHOWS_WITHIN = 60.0  # seconds after which a volume that is attached has a name on the box
BEGINS_WITHIN = 15.0
TRIES, PAUSE = 50, 0.02  # to take the lock, which whoever looks whether it is held shares for a moment
ENDS_WITHIN = 10.0
LEASE = 24 * 3600.0
READABLE = ("ext2", "ext3", "ext4", "xfs")
SAID = {
    "LVM2_member": "is a volume of LVM",
    "crypto_LUKS": "is encrypted",
    "btrfs": "is btrfs, whose copies can not be told apart",
    "zfs_member": "is ZFS",
    "linux_raid_member": "is a part of a RAID",
}
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\Z")
BESIDE = ".devbox-new"  # ends the name of a file that is being copied
NAME_MOST = 255  # bytes of a name
NUMBER = re.compile(r"[0-9]{1,10}\Z")
ID_MOST = (1 << 32) - 2
OWN = "var/lib/devbox/rebase"
SYSTEMS = ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "sys")


class Refused(Exception):
    """It can not be done; the sentence says why."""


class System:
    """This system. ``played``: a folder plays its root, and its disks are folders below ``mnt``."""

    def __init__(self, played: str) -> None:
        self.played = bool(played)
        self.root = played or "/"
        self.own = self.path(OWN)

    def path(self, name: str) -> str:
        return os.path.join(self.root, name.lstrip("/"))


# Small things -------------------------------------------------------------------------------------------------


def save(path: str, value: "Any") -> None:
    """All of it or nothing."""
    with open(path + ".new", "w") as file:
        file.write(json.dumps(value))
    os.rename(path + ".new", path)


def load(path: str) -> "dict[str, Any]":
    """A note of ours; empty where it is not there, or damaged."""
    try:
        with open(path) as file:
            found = json.loads(file.read(CHUNK))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def call(*argv: str) -> "tuple[int, str]":
    """Run a program; its status and what it said."""
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as error:
        return 127, str(error)
    said = process.communicate()[0].decode("utf-8", "replace").strip()
    return process.returncode, said


def lines(path: str) -> "list[str]":
    """The lines of a file; none where there is no such file."""
    try:
        with open(path, errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:
        return []


def old_lines(old: str, name: str) -> "list[str]":
    """The lines of a file of the old root; none where it is no file there: a link may lead into this system."""
    path = os.path.join(old, name)
    try:
        if os.path.realpath(path) != os.path.join(os.path.realpath(old), name):
            return []
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return []
        with open(path, errors="surrogateescape") as file:
            return file.read(TABLE_MOST).splitlines()
    except OSError:
        return []


def records(found: "list[str]", fields: int, ids: int = 1) -> "list[list[str]]":
    """The entries of passwd or group that are whole. ``ids``: how many numbers are in one, from the third field on."""
    whole = []
    for line in found:
        one = line.split(":")
        if len(one) < fields or line.startswith("#") or not all(map(NUMBER.match, one[2 : 2 + ids])):
            continue
        one[2 : 2 + ids] = [str(int(number)) for number in one[2 : 2 + ids]]
        if all(int(number) <= ID_MOST for number in one[2 : 2 + ids]):
            whole.append(one)
    return whole


def shown(text: str) -> str:
    """A sentence for people: names of files may be no text, and long."""
    return text.encode("utf-8", "replace").decode()[:SHOWN_MOST]


def held(system: System) -> bool:
    """Whether the worker is at work. Whoever looks shares the lock, so that no two are in each other's way."""
    try:
        lock = os.open(os.path.join(system.own, "lock"), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


# The old root -------------------------------------------------------------------------------------------------


def find_disk(system: System, volume: str, device: str) -> str:
    """The name of the disk that the volume is on this box; of a simulated one its folder."""
    end = time.time() + SHOWS_WITHIN
    letter = re.sub(r"\d+$", "", os.path.basename(device))[-1:]
    while True:
        if system.played:
            folder = system.path("mnt/" + os.path.basename(device))
            if os.path.isdir(folder):
                return os.path.realpath(folder)
        else:
            for name in sorted(os.listdir("/sys/block")):
                serial = "".join(lines("/sys/block/" + name + "/device/serial")).strip()
                if serial.replace("-", "") == volume.replace("-", ""):
                    return name
            for name in ("xvd" + letter, "sd" + letter):
                if os.path.exists("/sys/block/" + name):  # not on Nitro
                    return name
        if time.time() > end:
            raise Refused("the old root (" + volume + ") is attached, and does not show on the box")
        time.sleep(0.5)


def mounted(prefix: str) -> "list[str]":
    """Where what begins so is mounted."""
    found = [line.split() for line in lines("/proc/self/mounts")]
    return [one[1] for one in found if len(one) > 1 and one[0].startswith(prefix)]


def mount_old(system: System, volume: str, device: str) -> "tuple[str, str]":
    """Mount the old root, read-only. Returns where, and the name of its disk."""
    disk = find_disk(system, volume, device)
    if system.played:
        return disk, ""
    target = os.path.join(system.own, "private", "old")
    unmount(target)
    if mounted("/dev/" + disk):
        raise Refused("/dev/" + disk + ", the old root, is in use: the box may have booted from it")
    parts = [name for name in sorted(os.listdir("/sys/block/" + disk)) if name.startswith(disk)]
    sized = sorted(
        parts or [disk], key=lambda name: -int("".join(lines("/sys/class/block/" + name + "/size")) or 0)
    )
    found, why = [], ""
    for name in sized:
        kind = call("blkid", "-p", "-o", "value", "-s", "TYPE", "/dev/" + name)[1]
        found.append(name + " " + (kind or "unknown"))
        if kind not in READABLE:
            why = why or SAID.get(kind, "")
            continue
        if not mount_one("/dev/" + name, kind, target):
            continue
        is_root = bool(old_lines(target, "etc/passwd"))
        unmount(target)
        if is_root:
            rename_old(disk, sized)
            if mount_one("/dev/" + name, kind, target):
                return target, disk
    raise Refused(
        "the old root " + (why or "has no Linux system that can be read: " + ", ".join(found)[:150])
    )


def rename_old(disk: str, parts: "list[str]") -> None:
    """Other labels and partition ids, as far as that can be: a box that is rebooted now boots from its own root.

    The volume is a copy that goes afterwards.
    """
    for name in parts:
        device, number = "/dev/" + name, "".join(lines("/sys/class/block/" + name + "/partition")).strip()
        kind = call("blkid", "-p", "-o", "value", "-s", "TYPE", device)[1]
        if kind.startswith("ext"):
            call("tune2fs", "-L", "devbox-old", device)
        elif kind == "xfs":
            call("xfs_admin", "-L", "devbox-old", device)
        elif kind == "vfat":
            call("fatlabel", device, "DEVBOX-OLD")
        if number:
            other = "".join(lines("/proc/sys/kernel/random/uuid")).strip()
            call("sfdisk", "--no-reread", "--part-uuid", "/dev/" + disk, number, other)


def mount_one(source: str, kind: str, target: str) -> bool:
    """Read-only, with what its journal still holds where that can be had: it is a copy that goes afterwards."""
    more = ",nouuid" if kind == "xfs" else ""
    plain = ",noload" if kind.startswith("ext") else ",norecovery"
    for options in ("ro" + more, "ro" + more + plain):
        status, _ = call("mount", "-t", kind, "-o", options + ",nosuid,nodev,noexec", source, target)
        if status == 0:
            return True
    return False


def unmount(target: str) -> None:
    """As far as anything is mounted there."""
    for number in range(20):
        if not os.path.ismount(target):
            return
        call("umount", target) if number < 15 else call("umount", "-l", target)
        if os.path.ismount(target):
            time.sleep(0.2)


# Users --------------------------------------------------------------------------------------------------------


def mapped(old: "list[list[str]]", here: "dict[str, list[str]]") -> "dict[int, int]":
    """What ids are here. Where several names have one id, what is so for any of them stays; else the first name counts."""
    found: dict[int, int] = {}
    for one in old:
        if one[0] in here:
            before, now = int(one[2]), int(here[one[0]][2])
            if before not in found or before == now:
                found[before] = now
    return found


class Names:
    """Users and groups of the old system, and what they are here."""

    def __init__(self, system: System, old: str, notes: "list[str]") -> None:
        self._system, self._notes = system, notes
        self._old_users = records(old_lines(old, "etc/passwd"), 7, 2)
        self._old_groups = records(old_lines(old, "etc/group"), 4)
        self.uids: dict[int, int] = {}
        self.gids: dict[int, int] = {}
        self._read()

    def _read(self) -> None:
        self._users = {one[0]: one for one in records(lines(self._system.path("etc/passwd")), 7, 2)}
        self._groups = {one[0]: one for one in records(lines(self._system.path("etc/group")), 3)}
        self.gids = mapped(self._old_groups, self._groups)
        self.uids = mapped(self._old_users, self._users)

    def people(self) -> "list[list[str]]":
        """Who has a home to keep: root, and everybody whose id is a person's. The outer homes first."""
        found = [one for one in self._old_users if one[0] == "root" or FIRST <= int(one[2]) < LAST]
        return sorted(found, key=lambda one: len(one[5]))

    def first(self) -> "tuple[str, str]":
        """Who is user 1000 there and here: sessions go to that one, unless they are told otherwise."""
        there = next((one[0] for one in self._old_users if one[2] == str(FIRST)), "")
        return there, next((one[0] for one in self._users.values() if one[2] == str(FIRST)), "")

    def make(self, one: "list[str]") -> None:
        """Make a user that is not here: with the same ids, where they are free."""
        name, uid, gid = one[0], one[2], one[3]
        if name in self._users:
            return
        if NAME.match(name) is None:
            raise Refused("the user " + repr(name)[:40] + " can not be made here")
        group = self._group(gid, name)
        shell = one[6]
        if not os.access(self._system.path(shell or "/"), os.X_OK) or not shell:
            shell = "/bin/bash" if os.path.exists(self._system.path("/bin/bash")) else "/bin/sh"
            self._notes.append("the shell " + one[6] + " of " + name + " is not in this image")
        comment = "".join(each if each.isprintable() and each != "," else " " for each in one[4])
        argv = ["useradd", "-M", "-N", "-d", one[5], "-s", shell, "-g", group, "-c", comment]
        if uid not in {other[2] for other in self._users.values()}:
            argv += ["-u", uid]
        self._run(*argv, name)
        self._read()
        if name not in self._users:
            raise Refused("the user " + name + " was made, and is not there")
        more = [group[0] for group in self._old_groups if name in group[3].split(",")]
        known = [group for group in more if group in self._groups]
        if known:
            self._run("usermod", "-a", "-G", ",".join(known), name)

    def _group(self, gid: str, user: str) -> str:
        """The name of the user's own group, made where it is not here."""
        name = next((one[0] for one in self._old_groups if one[2] == gid), user)
        if name in self._groups:
            return name
        if NAME.match(name) is None:
            raise Refused("the group " + repr(name)[:40] + " can not be made here")
        number = ["-g", gid] if gid not in {one[2] for one in self._groups.values()} else []
        self._run("groupadd", *number, name)
        self._read()
        return name

    def _run(self, *argv: str) -> None:
        status, said = call(*argv)
        if status:
            raise Refused(argv[0] + ": " + (said or "it failed")[:200])


# Volumes that are mounted -----------------------------------------------------------------------------------------


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
    table = system.path("etc/fstab")
    here = [line.split() for line in lines(table)]
    places = {one[1] for one in here if len(one) > 1 and not one[0].startswith("#")}
    added = []
    for line in old_lines(old, "etc/fstab"):
        fields = line.split()
        if len(fields) < 3 or fields[0].startswith("#"):
            continue
        spec, place, kind = fields[:3]
        if not place.startswith("/") or kind == "swap":
            continue
        if place == "/" or place == "/boot" or place.startswith("/boot/"):
            continue
        if is_systems(place):
            if place not in places:
                notes.append(
                    "fstab: " + place + " is not carried over, as this system has its own (" + spec + ")"
                )
            continue
        name = named_volume(system, spec)
        is_here = name is not None and name not in (disk, root_disk())
        if is_here and "noauto" not in (fields[3] if len(fields) > 3 else "").split(","):
            over.append(place)
        if place in places:
            continue
        if not is_here:
            notes.append(
                "fstab: " + place + " is not carried over, as it names no volume of this box (" + spec + ")"
            )
            continue
        options = (fields[3] if len(fields) > 3 else "defaults").split(",")
        if "nofail" not in options:
            options.append("nofail")  # a box that waits for a disk can not be reached
        added.append((place, "\t".join([spec, place, kind, ",".join(options), "0", "2"])))
    if not added:
        return over
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
    return over


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


# Copying ------------------------------------------------------------------------------------------------------


def keep(path: str, kept: str, root: str, copy: bool = False) -> None:
    """Put what is here aside, under the same path below the folder of what was replaced."""
    target = os.path.join(kept, os.path.relpath(path, root))
    if os.path.lexists(target) or not os.path.lexists(path):
        target += time.strftime(".%H%M%S")
    os.makedirs(os.path.dirname(target), mode=0o711, exist_ok=True)
    if not copy:
        try:
            os.rename(path, target)
            return
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
    if os.path.lexists(path):
        status, said = call("cp", "-a", path, target)
        if status:
            raise Refused("what is in the way can not be put aside: " + said[:200])
        if not copy:
            call("rm", "-rf", "--", path)


KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO)  # what is copied


class Copy:
    """Homes, copied one after the other. ``tell`` is told how far it is."""

    def __init__(
        self, system: System, names: Names, kept: str, tell: "Callable[[int, int], None]", first: float
    ) -> None:
        """``first``: when an earlier try began; what was changed here since is newer than what would come."""
        self._system, self._names, self._kept, self._tell = system, names, kept, tell
        self._first = first
        self.left = 0
        self._links: dict[tuple[int, int], str] = {}
        self._told = 0.0
        self.files = self.bytes = 0
        self.skipped = 0
        self.closed: list[str] = []
        self.failed: dict[str, str] = {}

    def home(self, source: str, target: str) -> None:
        """One home with all that is in it."""
        for path, place, found in self._walk(source, target):
            try:
                self._one(path, place, found)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise Refused(
                        "the disk is full after "
                        + str(self.files)
                        + " files: devboxctl resize makes it larger"
                    ) from None
                self._fail(place, str(error.strerror))
            if time.time() - self._told > 1.0:
                self._tell(self.files, self.bytes)
                self._told = time.time()

    def _walk(self, source: str, target: str) -> "Iterator[tuple[str, str, os.stat_result]]":
        """Everything below, a folder before what is in it and once more after it, so that its time is right."""
        device = os.lstat(source).st_dev
        stack = [(source, target, False)]
        while stack:
            path, place, is_again = stack.pop()
            try:
                found = os.lstat(path)
                if not stat.S_ISDIR(found.st_mode):
                    yield path, place, found
                    continue
                if found.st_dev != device or self._is_foreign(place, target):
                    continue
                yield path, place, found
                if is_again:
                    continue
                here = lstat(place)
                if here is None or not stat.S_ISDIR(here.st_mode):
                    continue  # above all no link: it leads elsewhere
                stack.append((path, place, True))
                is_ours = place == os.path.join(target, ".devbox")
                for name in sorted(os.listdir(path), reverse=True):
                    if is_ours and name != "jobs":
                        continue  # the rest is of the life of a box: what runs on this one has its own
                    stack.append((os.path.join(path, name), os.path.join(place, name), False))
            except OSError as error:
                self._fail(place, str(error.strerror))

    def _fail(self, place: str, why: str) -> None:
        """A place counts once, with what was wrong first."""
        if len(self.failed) < FAILED_MOST:
            self.failed.setdefault(place, why)

    def _is_foreign(self, place: str, target: str) -> bool:
        """Another file system here, or what is ours: not a part of the home."""
        shown = self._system.played and place == self._system.path("mnt")
        if place == self._system.own or shown:
            return True
        return place != target and os.path.ismount(place)

    def _one(self, path: str, place: str, found: os.stat_result) -> None:
        kind = stat.S_IFMT(found.st_mode)
        here = lstat(place)
        if self._is_newer(path, place, found, here):
            if kind == stat.S_IFDIR:
                self.closed.append(place)
            else:
                self.left += 1
            return
        if here is not None and stat.S_IFMT(here.st_mode) != kind:
            keep(place, self._kept, self._system.root)
            here = None
        if kind == stat.S_IFDIR:
            if here is None:
                os.makedirs(place, mode=0o700, exist_ok=True)
        elif kind == stat.S_IFREG:
            self._file(path, place, found, here)
        elif kind == stat.S_IFLNK:
            self._link(path, place, here)
        elif kind == stat.S_IFIFO:
            if here is None:
                os.mkfifo(place, 0o600)
        else:
            if kind != stat.S_IFSOCK:
                self.skipped += 1
            return
        self._describe(path, place, found)

    def _is_newer(self, path: str, place: str, found: os.stat_result, here: "os.stat_result | None") -> bool:
        """Whether a file of an earlier try was worked on since."""
        if here is None or not self._first or stat.S_ISDIR(here.st_mode):
            return False
        if (
            stat.S_ISLNK(here.st_mode)
            and stat.S_ISLNK(found.st_mode)
            and os.readlink(path) == os.readlink(place)
        ):
            return False
        return here.st_mtime > self._first and here.st_mtime_ns != found.st_mtime_ns

    def _link(self, path: str, place: str, here: "os.stat_result | None") -> None:
        wanted = os.readlink(path)
        if here is not None and os.readlink(place) != wanted:
            keep(place, self._kept, self._system.root)
            here = None
        if here is None:
            os.symlink(wanted, place)

    def _file(self, path: str, place: str, found: os.stat_result, here: "os.stat_result | None") -> None:
        first = self._links.get((found.st_dev, found.st_ino)) if found.st_nlink > 1 else None
        if first is not None:
            if here is not None and os.path.lexists(first) and os.path.samefile(first, place):
                return
            if here is not None:
                keep(place, self._kept, self._system.root)
                here = None
            try:
                os.link(first, place)
                return
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EMLINK, errno.ENOENT):
                    raise
        if found.st_nlink > 1:
            self._links[found.st_dev, found.st_ino] = place
        self.files += 1
        self.bytes += found.st_size
        if here is not None and is_alike(path, place, found, here):
            return
        new = place + BESIDE
        if len(os.fsencode(os.path.basename(new))) > NAME_MOST:
            new = os.path.join(os.path.dirname(place), str(found.st_ino) + BESIDE)
        copy_data(path, new, found)
        self._describe(path, new, found)  # before it has its name: whoever is ended here leaves no half of it
        if here is not None:
            keep(place, self._kept, self._system.root)
        os.rename(new, place)

    def _describe(self, path: str, place: str, found: os.stat_result) -> None:
        """Owner, mode, times and extended attributes."""
        uid = self._names.uids.get(found.st_uid, found.st_uid)
        gid = self._names.gids.get(found.st_gid, found.st_gid)
        now = os.lstat(place)
        if (now.st_uid, now.st_gid) != (uid, gid):
            os.chown(place, uid, gid, follow_symlinks=False)
        if not stat.S_ISLNK(found.st_mode):
            os.chmod(place, stat.S_IMODE(found.st_mode))
        for name in os.listxattr(path, follow_symlinks=False):
            if name == "security.selinux":
                continue  # the rules of this system are its own
            try:
                os.setxattr(
                    place, name, os.getxattr(path, name, follow_symlinks=False), follow_symlinks=False
                )
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM):
                    raise
        os.utime(place, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)

    def compare(self, source: str, target: str, since: float) -> None:
        """Look at all of it once more. What was changed here since the copying began is somebody's work."""
        for path, place, found in self._walk(source, target):
            if stat.S_IFMT(found.st_mode) not in KINDS:
                continue
            here = lstat(place)
            if here is None:
                self._fail(place, "it is not there")
                continue
            if here.st_mtime > since and here.st_mtime_ns != found.st_mtime_ns:
                continue
            is_same = stat.S_IFMT(here.st_mode) == stat.S_IFMT(found.st_mode)
            if is_same and stat.S_ISREG(found.st_mode):
                is_same = here.st_size == found.st_size
            elif is_same and stat.S_ISLNK(found.st_mode):
                is_same = os.readlink(path) == os.readlink(place)
            if not is_same or here.st_uid != self._names.uids.get(found.st_uid, found.st_uid):
                self._fail(place, "it is not as it was")


def lstat(path: str) -> "os.stat_result | None":
    """What is there."""
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def is_alike(path: str, place: str, found: os.stat_result, here: os.stat_result) -> bool:
    """Whether a file is here already: by size and time, or if it is small by what is in it."""
    if found.st_size != here.st_size:
        return False
    if found.st_mtime_ns == here.st_mtime_ns:
        return True
    if found.st_size > CHUNK:
        return False
    with open(path, "rb") as one, open(place, "rb") as other:
        return one.read() == other.read()


def copy_data(path: str, new: str, found: os.stat_result) -> None:
    """The bytes of a file; holes stay holes, and are not read: one may be larger than every disk."""
    is_sparse = found.st_blocks * 512 < found.st_size
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with open(path, "rb", buffering=0) as source, os.fdopen(os.open(new, flags, 0o600), "wb") as target:
        for at, end in parts_of(source.fileno(), found.st_size) if is_sparse else [(0, found.st_size)]:
            source.seek(at)
            target.seek(at)
            while at < end:
                data = source.read(min(CHUNK, end - at))
                if not data:
                    raise OSError(errno.EIO, "it is shorter than it says", path)
                if is_sparse and not data.strip(b"\0"):
                    target.seek(len(data), os.SEEK_CUR)
                else:
                    target.write(data)
                at += len(data)
        target.truncate(found.st_size)


def parts_of(descriptor: int, size: int) -> "Iterator[tuple[int, int]]":
    """Where a file has data."""
    at = 0
    while at < size:
        try:
            at = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # no data from here on
                raise
            return
        end = os.lseek(descriptor, at, os.SEEK_HOLE)
        yield at, min(end, size)
        at = end


# The worker ---------------------------------------------------------------------------------------------------


def take(lock: int) -> bool:
    """Hold the lock alone; False where another worker does."""
    for _ in range(TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(PAUSE)
    return False


def work(system: System, asked: "dict[str, Any]") -> None:
    """All of it, once; what came of it is in the state."""
    lock = os.open(os.path.join(system.own, "lock"), os.O_RDONLY | os.O_CREAT, 0o644)
    if not take(lock):
        return
    state: dict[str, Any] = {"token": asked["token"], "pid": os.getpid(), "files": 0, "bytes": 0}
    state["first"] = asked.get("first") or time.time()
    path = os.path.join(system.own, "state.json")

    def tell(files: int, count: int) -> None:
        state.update(files=files, bytes=min(count, COUNT_MOST))
        save(path, state)

    def leave(number: int, frame: object) -> None:
        raise SystemExit(1)

    signal.signal(signal.SIGTERM, leave)
    tell(0, 0)
    try:
        state.update(move(system, asked, tell), done=True)
    except Refused as error:
        state["problem"] = shown(str(error))
    except OSError as error:
        state["problem"] = shown(str(error.filename or "") + ": " + str(error.strerror))
    except Exception as error:  # noqa: BLE001 - else it would be begun again for ever
        state["problem"] = shown("the copying failed: " + repr(error))
    finally:
        if not system.played:
            unmount(os.path.join(system.own, "private", "old"))
    save(path, state)


def move(system: System, asked: "dict[str, Any]", tell: "Callable[[int, int], None]") -> "dict[str, Any]":
    """Mount, make users, carry mounts over, copy, compare."""
    notes: list[str] = []
    kept = os.path.join(system.own, "replaced-" + asked["token"])
    since = time.time()
    old, disk = mount_old(system, asked["volume"], asked["device"])
    names = Names(system, old, notes)
    over = carry_mounts(system, old, disk, kept, notes)
    copy = Copy(system, names, kept, tell, asked.get("first") or 0.0)
    done: list[str] = []
    elsewhere = []
    for one in names.people():
        home = os.path.normpath(one[5])
        if home.startswith("/home/") and any((home + "/").startswith(place + "/") for place in over):
            # It is on a volume that is here. What the old root has below that was out of sight, and is older.
            names.make(one)
            elsewhere.append(home)
            if names.uids[int(one[2])] != int(one[2]):
                notes.append(
                    one[0] + " has another id here: " + home + ", on a volume of its own, has the old one"
                )
            continue
        source = os.path.join(old, home.lstrip("/")).rstrip("/")
        if not home.startswith("/") or not os.path.isdir(source):
            continue
        if not (home == "/root" or home.startswith("/home/") or (home == "/" and system.played)):
            notes.append(
                "the home of " + one[0] + " is " + home + ", which is not below /home, and not copied"
            )
            continue
        if os.path.realpath(source) != os.path.realpath(old) + ("" if home == "/" else home):
            notes.append("the home of " + one[0] + " is a link, and not copied")
            continue
        names.make(one)
        if not any(home == other or home.startswith(other.rstrip("/") + "/") for other in done):
            done.append(home)
    for home in done:
        source, target = os.path.join(old, home.lstrip("/")).rstrip("/"), system.path(home).rstrip("/")
        os.makedirs(os.path.dirname(target), exist_ok=True)
        copy.home(source, target)
        copy.compare(source, target, asked.get("first") or since)
    os.sync()
    if copy.failed:
        count = str(len(copy.failed)) if len(copy.failed) < FAILED_MOST else str(FAILED_MOST) + " or more"
        place, why = next(iter(copy.failed.items()))
        raise Refused(count + " of " + str(copy.files) + " files are not copied, first " + place + ": " + why)
    if copy.skipped:
        notes.append(str(copy.skipped) + " device nodes are not copied")
    before, now = names.first()
    if before and now and before != now:
        notes.append("the first user of this image is " + now + ": devboxctl attach --user " + before)
    if copy.left:
        notes.append(
            str(copy.left) + " files were changed here since an earlier try, and are left as they are"
        )
    if copy.closed:
        notes.append(
            "what was in "
            + copy.closed[0]
            + (" and " + str(len(copy.closed) - 1) + " more" if copy.closed[1:] else "")
            + " is not copied, as something else than a folder was put there since an earlier try"
        )
    if not done and not elsewhere:
        raise Refused("there is no home on the old root")
    is_kept = os.path.isdir(kept)
    return {
        "files": copy.files,
        "bytes": min(copy.bytes, COUNT_MOST),
        "kept": kept if is_kept else "",
        "notes": [shown(note) for note in notes[:NOTES_MOST]],
    }


# What is asked ------------------------------------------------------------------------------------------------


def begin(system: System, asked: "dict[str, Any]", text: str) -> "dict[str, Any]":
    """Begin to copy, or say how far it is."""
    path = os.path.join(system.own, "state.json")
    is_held, state = held(system), load(path)
    if not is_held and (
        state.get("token") != asked["token"] or not (state.get("done") or state.get("problem"))
    ):
        os.makedirs(os.path.join(system.own, "private", "old"), exist_ok=True)
        os.chmod(os.path.join(system.own, "private"), 0o700)
        if "first" in state:
            asked = dict(asked, first=state["first"])
        save(path, {})
        program = os.path.join(system.own, "program.py")
        with open(program, "w") as file:
            file.write(text)
        argv = [
            sys.executable,
            "-I",
            program,
            "work",
            json.dumps(asked),
            system.root if system.played else "",
        ]
        null = subprocess.DEVNULL
        subprocess.Popen(argv, stdin=null, stdout=null, stderr=null, start_new_session=True, cwd="/")
        end = time.time() + BEGINS_WITHIN
        while not load(path):
            if time.time() > end:
                raise Refused("the copying did not begin")
            time.sleep(0.05)
        state = load(path)
    names = ("done", "files", "bytes", "kept", "notes", "problem")
    return {name: state[name] for name in names if name in state}


def is_worker(system: System, pid: int) -> bool:
    """Whether that process is the worker: the number of one that is gone may be another's by now."""
    try:
        with open("/proc/" + str(pid) + "/cmdline", "rb") as file:
            argv = file.read().split(b"\0")
    except OSError:
        return False
    return argv[2:4] == [os.fsencode(os.path.join(system.own, "program.py")), b"work"]


def end_it(system: System) -> "dict[str, Any]":
    """End the copying, and let go of the old root."""
    end = time.time() + ENDS_WITHIN
    while held(system) and time.time() < end + ENDS_WITHIN:
        pid = load(os.path.join(system.own, "state.json")).get("pid")
        if isinstance(pid, int):  # else it has just begun
            if not is_worker(system, pid):
                break
            try:
                os.kill(pid, signal.SIGTERM if time.time() < end else signal.SIGKILL)
            except OSError:
                break
        time.sleep(0.1)
    if not system.played:
        unmount(os.path.join(system.own, "private", "old"))
    return {}


def hold_the_box(home: str) -> None:
    """A note by which nobody takes the box for idle while it copies."""
    folder = os.path.join(home, ".devbox", "leases")
    command = "! flock -s -n /" + OWN + "/lock true"
    lease = {
        "id": "rebase",
        "until": time.time() + LEASE,
        "why": "homes are being copied",
        "command": command,
    }
    try:
        os.makedirs(folder, exist_ok=True)
        save(os.path.join(folder, "rebase.json"), lease)
    except OSError:
        pass  # it can not be written: the daemon holds the box all the same


def main() -> None:
    """Either the worker, or one request."""
    os.environ["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    if sys.argv[1] == "work":
        work(System(sys.argv[3]), json.loads(sys.argv[2]))
        return
    text, request, played = sys.argv[1:4]
    asked = json.loads(request)
    if asked["verb"] == "copy" and not played and sys.argv[4:] != ["again"]:
        hold_the_box(os.path.expanduser("~"))
    if os.getuid() and not played:
        argv = [sys.executable, "-I", "-c", "import sys; exec(sys.argv[1])", text, request, played, "again"]
        status, _ = call("sudo", "-n", "true")
        if status:
            sys.stdout.write(
                json.dumps({"problem": "homes are copied as root, and sudo is not allowed"}) + "\n"
            )
            return
        os.execvp("sudo", ["sudo", "-n", *argv])
    try:
        answer = end_it(System(played)) if asked["verb"] == "end" else begin(System(played), asked, text)
    except Refused as error:
        answer = {"problem": shown(str(error))}
    except OSError as error:
        answer = {"problem": shown(str(error.filename or "") + ": " + str(error.strerror))}
    sys.stdout.write(json.dumps(answer) + "\n")


main()
