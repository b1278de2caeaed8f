"""Homes copied: nothing of this system is deleted, and what is replaced is kept."""

import errno
import os
import stat
import time
from typing import TYPE_CHECKING

from devboxd.boxside.programs.moving.system import Refused, System, call
from devboxd.boxside.programs.moving.users import Names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK = 1 << 20
FAILED_MOST = 1000  # places that are told apart
BESIDE = ".devbox-new"  # ends the name of a file that is being copied
NAME_MOST = 255  # bytes of a name


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
        self.closed = 0  # folders that are not copied, as something else is in their place
        self.first_closed = ""
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
                self.closed += 1
                self.first_closed = self.first_closed or place
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
