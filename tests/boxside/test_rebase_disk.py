"""The same on a real disk: a loop device with an ext4 root on it, below a root of its own that is thrown away.

Only where root may make mount namespaces, overlays and loop devices; a test that may not says so.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from devboxd.boxside.rebase import program, read
from devboxd.boxside.script import load
from devboxd.model.answer import BoxSaysNo

PROGRAMS = ("losetup", "mkfs.ext4", "unshare", "useradd", "blkid", "chroot")
VOLUME = "vol-0123456789abcdef0"

pytestmark = pytest.mark.skipif(
    os.getuid() != 0 or not all(map(shutil.which, PROGRAMS)), reason="wants root, and programs for disks"
)


def sh(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", text, "sh", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """A loop device with an old root: ann's home, and root's."""
    image = tmp_path / "disk"
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    assert sh('mkfs.ext4 -q -F -L cloudimg-rootfs "$1"', str(image)).returncode == 0
    made = sh('losetup -f --show "$1"', str(image))
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    loop = made.stdout.strip()
    try:
        filled = sh(
            """unshare -m sh -ec '
              mount --make-rprivate / && mount "$1" "$2"
              mkdir -p "$2/etc" "$2/home/me" "$2/root"
              echo "root:x:0:0::/root:/bin/sh" > "$2/etc/passwd"
              echo "ann:x:4321:4321:Ann:/home/me:/bin/sh" >> "$2/etc/passwd"
              printf "root:x:0:\\nann:x:4321:\\n" > "$2/etc/group"
              echo work > "$2/home/me/work.txt" && chown -R 4321:4321 "$2/home/me"
              echo of-root > "$2/root/devbox-test-of-rebase"
              umount "$2"
            ' sh "$1" "$2" """,
            loop,
            str(tmp_path),
        )
        if filled.returncode:
            pytest.skip(f"no mounts: {filled.stderr.strip()[:200]}")
        yield loop
    finally:
        sh('losetup -d "$1"', loop)


def on_a_box(loop: str, tmp_path: Path, after: str) -> subprocess.CompletedProcess[str]:
    """Run the program until it is done, and then a command, in a root that is this machine's until it is written to."""
    asked = {"verb": "copy", "volume": VOLUME, "device": "/dev/sdp", "token": "u-2-1-0"}
    words = ["sh", "-c", load("rebase.sh", common=False), "devbox", program(), json.dumps(asked)]
    (tmp_path / "run.sh").write_text(
        f"""cd /
for i in $(seq 100); do
  said=$({shlex.join(words)})
  case "$said" in *done*|*problem*) break;; esac
  sleep 0.2
done
echo "$said"
{after}
"""
    )
    found = sh(
        """unshare -m sh -ec '
          mount --make-rprivate /
          t=$2/t; mkdir -p "$t"; mount -t tmpfs none "$t"; mkdir -p "$t/u" "$t/w" "$t/r" "$t/s/$3/device"
          mount -t overlay overlay -o "lowerdir=/,upperdir=$t/u,workdir=$t/w" "$t/r"
          for d in proc sys dev; do mount --rbind "/$d" "$t/r/$d"; done
          echo vol0123456789abcdef0 > "$t/s/$3/device/serial"
          mount --bind "$t/s" "$t/r/sys/block"
          cp "$2/run.sh" "$t/r/run.sh"
          exec env -u DEVBOX_BOX_ROOT HOME=/root chroot "$t/r" sh /run.sh
        ' sh "$1" "$2" "$3" """,
        loop,
        str(tmp_path),
        loop.rpartition("/")[2],
    )
    if found.returncode and "mount" in found.stderr:
        pytest.skip(f"no overlay: {found.stderr.strip()[:200]}")
    return found


def test_homes_come_from_a_disk_that_is_found_by_the_volumes_id(disk: str, tmp_path: Path) -> None:
    """Mounted read-only and not for long; the user is made with the same ids; a note holds the box."""
    after = "stat -c '%u %g %n' /home/me/work.txt; id -u ann; cd /root; cat devbox-test-of-rebase; grep -c rebase/private /proc/mounts; ls /root/.devbox/leases"
    found = on_a_box(disk, tmp_path, after)
    first, *rest = found.stdout.splitlines()
    done = read(first)
    assert done.done, found
    assert done.files >= 2
    assert rest == ["4321 4321 /home/me/work.txt", "4321", "of-root", "0", "rebase.json"]
    assert not Path("/home/me/work.txt").exists(), "it was not this machine's own root"
    assert sh('blkid -p -o value -s LABEL "$1"', disk).stdout.strip() == "devbox-old", "a reboot may take it"


def test_a_disk_without_a_system_that_can_be_read_is_refused_in_a_sentence(disk: str, tmp_path: Path) -> None:
    sh('dd if=/dev/zero of="$1" bs=1M count=60 conv=fsync 2>/dev/null', disk)
    found = on_a_box(disk, tmp_path, "grep -c rebase/private /proc/mounts")
    said, mounts = found.stdout.splitlines()
    with pytest.raises(BoxSaysNo, match="the old root has no Linux system that can be read"):
        read(said)
    assert mounts == "0"
