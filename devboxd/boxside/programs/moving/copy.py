"""Homes copied: nothing of this system is deleted, and what is replaced is kept.

Users are at work meanwhile, and may not be friends: no name is believed to mean what it meant a moment ago, and what is
given an owner or rights is held by a descriptor, and is what was just made or has them already.
"""

import errno
import os
import stat
import time
from typing import TYPE_CHECKING

from devboxd.boxside.programs.moving.folders import (
    CHANGED,
    FOLDER,
    Held,
    by,
    grasp,
    identity,
    lstat,
    opened,
    own,
    put,
    reading,
)
from devboxd.boxside.programs.moving.system import Refused, System
from devboxd.boxside.programs.moving.users import Names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK = 1 << 20
FAILED_MOST = 1000  # places that are told apart
BESIDE = ".devbox-new"  # ends the name of a file that is being copied
NAME_MOST = 255  # bytes of a name
HELD_MOST = 40  # folders on the way down that stay open on both sides: others are found again from below
KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO)  # what is copied
NOT_OURS = "security.selinux"  # the rules of this system are its own


class Level:
    """A folder of both sides on the way down, and the names in it that are still to come."""

    def __init__(self, name: str, source: int, target: int) -> None:
        self.name, self.source, self.target = name, source, target
        self.found, self.here = os.fstat(source), os.fstat(target)
        self.names: list[str] = []

    def close(self) -> None:
        if self.source >= 0:
            os.close(self.source)
            os.close(self.target)
            self.source = self.target = -1

    def open_again(self, inner: "Level") -> None:
        """From a folder in it, if that is where it was."""
        self.source = os.open("..", FOLDER, dir_fd=inner.source)
        self.target = os.open("..", FOLDER, dir_fd=inner.target)
        is_same = identity(os.fstat(self.source)) == identity(self.found)
        if not is_same or identity(os.fstat(self.target)) != identity(self.here):
            self.close()
            raise OSError(errno.EAGAIN, CHANGED)


class Copy:
    """Homes, copied one after the other. ``tell`` is told how far it is."""

    def __init__(
        self,
        system: System,
        names: Names,
        old: str,
        kept: str,
        tell: "Callable[[int, int], None]",
        first: float,
    ) -> None:
        """``first``: when an earlier try began; what was changed here since is newer than what would come."""
        self._system, self._names, self._old, self._kept, self._tell = system, names, old, kept, tell
        self._first = first
        self.left = 0
        self._links: dict[tuple[int, int], tuple[str, tuple[int, int]]] = {}
        self._told = 0.0
        self._levels: list[Level] = []
        self.files = self.bytes = 0
        self.skipped = 0
        self.closed = 0  # folders that are not copied, as something else is in their place
        self.first_closed = ""
        self.failed: dict[str, str] = {}
        self.aside: set[str] = set()  # folders with what was in the way

    def home(self, home: str) -> None:
        """One home with all that is in it."""

        def mark(level: Level) -> None:
            self._describe(level.source, level.target, level.found)

        self._walk(home, self._one, mark)

    def compare(self, home: str, since: float) -> None:
        """Look at all of it once more. What was changed here since the copying began is somebody's work."""

        def look(level: Level, name: str, found: os.stat_result) -> bool:
            if stat.S_IFMT(found.st_mode) not in KINDS:
                return False
            here = lstat(name, level.target)
            if here is None:
                self._fail(self._place(name), "it is not there")
                return False
            is_folder = stat.S_ISDIR(here.st_mode) and stat.S_ISDIR(found.st_mode)
            if here.st_mtime > since and here.st_mtime_ns != found.st_mtime_ns:
                return is_folder
            is_same = stat.S_IFMT(here.st_mode) == stat.S_IFMT(found.st_mode)
            if is_same and stat.S_ISREG(found.st_mode):
                is_same = here.st_size == found.st_size
            elif is_same and stat.S_ISLNK(found.st_mode):
                is_same = is_same_link(level, name)
            if not is_same or here.st_uid != self._owner(found)[0]:
                self._fail(self._place(name), "it is not as it was")
            return is_folder

        self._walk(home, look, lambda level: None)

    # The way through ------------------------------------------------------------------------------------------

    def _walk(
        self,
        home: str,
        look: "Callable[[Level, str, os.stat_result], bool]",
        mark: "Callable[[Level], None]",
    ) -> None:
        """Everything of a home: ``look`` sees each name, and says whether to go into it. ``mark`` sees a folder twice,
        before what is in it and after."""
        parent, _, name = home.rpartition("/")
        levels = self._levels = []
        try:
            source, _ = opened(self._old, parent, links=0)
            try:
                target, _ = opened(self._system.root, parent, make=True)
            except BaseException:
                os.close(source)
                raise
            levels.append(Level(parent or "/", source, target))
            levels[0].names = [name or "."]
        except OSError as error:
            self._fail(self._system.path(home), str(error.strerror))
        try:
            while levels:
                if time.time() - self._told > 1.0:
                    self._tell(self.files, self.bytes)
                    self._told = time.time()
                name = levels[-1].names.pop() if levels[-1].names else ""
                try:
                    if name:
                        self._enter(name, look, mark)
                    elif len(levels) > 1:
                        mark(levels[-1])  # once more: what came into it has changed its time
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT):
                        raise Refused(
                            "the disk is full after "
                            + str(self.files)
                            + " files: devboxctl resize makes it larger"
                        ) from None
                    self._fail(self._place(name), str(error.strerror))
                if not name:
                    self._leave()
        finally:
            while levels:
                levels.pop().close()

    def _enter(
        self,
        name: str,
        look: "Callable[[Level, str, os.stat_result], bool]",
        mark: "Callable[[Level], None]",
    ) -> None:
        """One name of the folder that is open, and if it is a folder to go into, the step into it."""
        levels = self._levels
        level = levels[-1]
        found = os.stat(name, dir_fd=level.source, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode) and self._is_foreign(level, name, found):
            return
        if not look(level, name, found):
            return
        source = os.open(name, FOLDER, dir_fd=level.source)
        try:
            target = os.open(name, FOLDER, dir_fd=level.target)
        except BaseException:
            os.close(source)
            raise
        inner = Level(name, source, target)
        levels.append(inner)
        is_mount = len(levels) > 2 and inner.here.st_dev != level.here.st_dev
        if is_mount or identity(inner.found) != identity(found):
            levels.pop().close()
            raise OSError(errno.EAGAIN, CHANGED)
        if len(levels) > HELD_MOST + 2:  # the home and what it is in stay open
            levels[-HELD_MOST - 1].close()
        is_ours = len(levels) == 3 and name == ".devbox"
        # All but jobs is of the life of a box: what runs on this one has its own.
        listed = sorted(os.listdir(source), reverse=True)
        inner.names = [one for one in listed if not is_ours or one == "jobs"]
        mark(inner)

    def _leave(self) -> None:
        """The step out of a folder."""
        levels = self._levels
        place, inner = self._place(""), levels.pop()
        if levels and levels[-1].source < 0:
            try:
                levels[-1].open_again(inner)
            except OSError as error:
                self._fail(place, str(error.strerror))
                while levels[-1].source < 0:
                    levels.pop()
        inner.close()

    def _inside(self, name: str) -> str:
        """Where that name of the open folder is in this system."""
        names = [level.name for level in self._levels] + [name]
        return "/".join(one.rstrip("/") for one in names if one and one != ".")

    def _place(self, name: str) -> str:
        return self._system.path(self._inside(name))

    def _fail(self, place: str, why: str) -> None:
        """A place counts once, with what was wrong first."""
        if len(self.failed) < FAILED_MOST:
            self.failed.setdefault(place, why)

    def _is_foreign(self, level: Level, name: str, found: os.stat_result) -> bool:
        """Another file system, or what is ours: not a part of the home."""
        if self._system.played and self._place(name) in (self._system.own, self._system.path("mnt")):
            return True
        if len(self._levels) == 1:
            return False
        here = lstat(name, level.target)
        return found.st_dev != level.found.st_dev or (here is not None and here.st_dev != level.here.st_dev)

    def _keep(self, name: str) -> None:
        """Put what is here aside, under the same path below the folder of what was replaced.

        That folder is on the same file system, so that nothing has to be copied and then deleted, which others would see.
        """
        level, names = self._levels[-1], self._inside(name).strip("/").split("/")
        try:
            os.makedirs(self._kept, mode=0o711, exist_ok=True)
            with Held(os.open(self._kept, FOLDER)) as base:
                put(name, level.target, base, names)
            self.aside.add(self._kept)
        except FileNotFoundError:
            return  # it has gone meanwhile
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            is_whole = self._levels[0].here.st_dev == level.here.st_dev
            above = self._levels[0 if is_whole else 1]
            number, one = own(".devbox-" + os.path.basename(self._kept), above.target)
            with Held(number) as base:
                put(name, level.target, base, names)
            path = [each.name for each in self._levels[: 1 if is_whole else 2]]
            self.aside.add(self._system.path(os.path.join(*path, one)))

    # What is copied -------------------------------------------------------------------------------------------

    def _one(self, level: Level, name: str, found: os.stat_result) -> bool:
        """Copy it. Returns whether it is a folder, made if need be, to go into."""
        kind = stat.S_IFMT(found.st_mode)
        if kind not in KINDS:
            self.skipped += kind != stat.S_IFSOCK
            return False
        here = lstat(name, level.target)
        if here is not None and self._is_newer(level, name, found, here):
            if kind == stat.S_IFDIR:
                self.closed += 1
                self.first_closed = self.first_closed or self._place(name)
            else:
                self.left += 1
            return False
        if here is not None and stat.S_IFMT(here.st_mode) != kind:
            self._keep(name)
            here = None
        if kind == stat.S_IFREG:
            self._file(level, name, found, here)
        elif kind != stat.S_IFDIR:
            self._special(level, name, found, here)
        elif here is None:
            os.mkdir(name, 0o700, dir_fd=level.target)
        return kind == stat.S_IFDIR

    def _is_newer(self, level: Level, name: str, found: os.stat_result, here: os.stat_result) -> bool:
        """Whether a file of an earlier try was worked on since."""
        if not self._first or stat.S_ISDIR(here.st_mode):
            return False
        if stat.S_ISLNK(here.st_mode) and stat.S_ISLNK(found.st_mode) and is_same_link(level, name):
            return False
        return here.st_mtime > self._first and here.st_mtime_ns != found.st_mtime_ns

    def _special(self, level: Level, name: str, found: os.stat_result, here: "os.stat_result | None") -> None:
        """A link or a pipe. A pipe with another owner, or one of either that has more names, is not made over."""
        is_link, owner = stat.S_ISLNK(found.st_mode), self._owner(found)
        with Held(grasp(name, level.source, found)) as source:
            if here is not None:
                is_alike = is_same_link(level, name) if is_link else (here.st_uid, here.st_gid) == owner
                if not is_alike or here.st_nlink > 1:
                    self._keep(name)
                    here = None
            if here is None and is_link:
                os.symlink(os.readlink("", dir_fd=source), name, dir_fd=level.target)
            elif here is None:
                os.mkfifo(name, 0o600, dir_fd=level.target)
            with Held(os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=level.target)) as target:
                now = os.fstat(target)
                is_ours = is_link or now.st_uid in (owner[0], os.geteuid())
                if not is_ours or now.st_nlink > 1 or stat.S_IFMT(now.st_mode) != stat.S_IFMT(found.st_mode):
                    raise OSError(errno.EAGAIN, CHANGED)
                self._describe(source, target, found)

    def _file(self, level: Level, name: str, found: os.stat_result, here: "os.stat_result | None") -> None:
        if found.st_nlink > 1:
            if self._linked(level, name, found, here):
                return
            here = lstat(name, level.target)
        self.files += 1
        self.bytes += found.st_size
        with Held(grasp(name, level.source, found)) as source:
            if here is not None and self._stays(level, name, source, found, here):
                made = identity(here)
            else:
                made = self._anew(level, name, source, found, here is not None)
        if found.st_nlink > 1:
            self._links[identity(found)] = self._inside(name), made

    def _linked(self, level: Level, name: str, found: os.stat_result, here: "os.stat_result | None") -> bool:
        """Whether it is another name of a file that came already, made if need be: of that very file."""
        if identity(found) not in self._links:
            return False
        place, made = self._links[identity(found)]
        folder, _, first = place.rpartition("/")
        try:
            with Held(opened(self._system.root, folder)[0]) as at:
                held = os.open(first, os.O_PATH | os.O_NOFOLLOW, dir_fd=at)
            with Held(held) as file:
                if identity(os.fstat(file)) != made:
                    return False
                if here is not None:
                    if identity(here) == made:
                        return True
                    self._keep(name)
                os.link(by(file), name, dst_dir_fd=level.target, follow_symlinks=True)
                return True
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EMLINK, errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            return False

    def _stays(
        self, level: Level, name: str, source: int, found: os.stat_result, here: os.stat_result
    ) -> bool:
        """Whether a file is here already: by size and time, or if it is small by what is in it.

        Its owner and rights have to be what they should be, too. They are not given to what is here: it may be another
        file than the one that came from here, or another name of one that is elsewhere.
        """
        owner = self._owner(found)
        wanted = (found.st_size, found.st_mode, *owner)
        if (here.st_size, here.st_mode, here.st_uid, here.st_gid) != wanted:
            return False
        is_as_old = found.st_mtime_ns == here.st_mtime_ns
        if not is_as_old and found.st_size > CHUNK:
            return False
        with Held(grasp(name, level.target, here)) as target:
            if rights(source) != rights(target) or not (is_as_old or is_same_text(source, target)):
                return False
            self._describe(source, target, found)
        return True

    def _anew(
        self, level: Level, name: str, source: int, found: os.stat_result, is_here: bool
    ) -> "tuple[int, int]":
        """Make it beside its place. It gets its name when it is whole, if nothing else has got that meanwhile."""
        new = name + BESIDE
        if len(os.fsencode(new)) > NAME_MOST:
            new = str(found.st_ino) + BESIDE
        with Held(created(new, level.target)) as target:
            try:
                copy_data(source, target, found)
                self._describe(source, target, found)
                if is_here:
                    self._keep(name)
                os.link(by(target), name, dst_dir_fd=level.target, follow_symlinks=True)
            finally:
                try:
                    os.unlink(new, dir_fd=level.target)
                except FileNotFoundError:
                    pass
            return identity(os.fstat(target))

    def _owner(self, found: os.stat_result) -> "tuple[int, int]":
        """Whose it is here."""
        return self._names.uids.get(found.st_uid, found.st_uid), self._names.gids.get(
            found.st_gid, found.st_gid
        )

    def _describe(self, source: int, target: int, found: os.stat_result) -> None:
        """Owner, mode, times and extended attributes."""
        owner, now = self._owner(found), os.fstat(target)
        if (now.st_uid, now.st_gid) != owner:
            os.chown(by(target), *owner)
        if not stat.S_ISLNK(found.st_mode):
            os.chmod(by(target), stat.S_IMODE(found.st_mode))
        for name in os.listxattr(by(source)):
            if name == NOT_OURS:
                continue
            try:
                os.setxattr(by(target), name, os.getxattr(by(source), name))
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM):
                    raise
        os.utime(by(target), ns=(found.st_atime_ns, found.st_mtime_ns))


def is_same_link(level: Level, name: str) -> bool:
    return os.readlink(name, dir_fd=level.source) == os.readlink(name, dir_fd=level.target)


def is_same_text(source: int, target: int) -> bool:
    """Whether two small files have the same in them."""
    with open(reading(source), "rb") as one, open(reading(target), "rb") as other:
        return one.read(CHUNK + 1) == other.read(CHUNK + 1)


def rights(number: int) -> "dict[str, bytes]":
    """The attributes of a file that somebody's rights hang on."""
    names = [name for name in os.listxattr(by(number)) if name.startswith(("security.", "system."))]
    return {name: os.getxattr(by(number), name) for name in names if name != NOT_OURS}


def created(new: str, folder: int) -> int:
    """A new file that only root can open. What an earlier try that was killed has left there goes."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        return os.open(new, flags, 0o600, dir_fd=folder)
    except FileExistsError:
        os.unlink(new, dir_fd=folder)
        return os.open(new, flags, 0o600, dir_fd=folder)


def copy_data(held: int, new: int, found: os.stat_result) -> None:
    """The bytes of a file; holes stay holes, and are not read: one may be larger than every disk."""
    is_sparse = found.st_blocks * 512 < found.st_size
    with open(reading(held), "rb", buffering=0) as source, open(new, "wb", closefd=False) as target:
        for at, end in parts_of(source.fileno(), found.st_size) if is_sparse else [(0, found.st_size)]:
            source.seek(at)
            target.seek(at)
            while at < end:
                data = source.read(min(CHUNK, end - at))
                if not data:
                    raise OSError(errno.EIO, "it is shorter than it says")
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
