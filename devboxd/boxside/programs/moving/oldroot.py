"""The old root: found, mounted read-only, and renamed so that no boot takes it for the new one."""

import os
import re
import stat
import time

from devboxd.boxside.programs.moving.folders import Held, opened, reading
from devboxd.boxside.programs.moving.system import Refused, System, call, lines

TABLE_MOST = 4 << 20  # characters of passwd, group and fstab
SHOWS_WITHIN = 60.0  # seconds after which a volume that is attached has a name on the box
READABLE = ("ext2", "ext3", "ext4", "xfs")
SAID = {
    "LVM2_member": "is a volume of LVM",
    "crypto_LUKS": "is encrypted",
    "btrfs": "is btrfs, whose copies can not be told apart",
    "zfs_member": "is ZFS",
    "linux_raid_member": "is a part of a RAID",
}


def old_lines(old: str, name: str) -> "list[str]":
    """The lines of a file of the old root; none where it is no file there: a link may lead into this system."""
    folder, _, last = name.rpartition("/")
    try:
        with Held(opened(old, folder, links=0)[0]) as at:
            held = os.open(last, os.O_PATH | os.O_NOFOLLOW, dir_fd=at)
        with Held(held) as file:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                return []
            with open(reading(file), errors="surrogateescape") as text:
                return text.read(TABLE_MOST).splitlines()
    except OSError:
        return []


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
