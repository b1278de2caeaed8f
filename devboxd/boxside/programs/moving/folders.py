"""Folders opened so that whoever swaps one for a link meanwhile leads nobody elsewhere.

What is in a folder is named by the descriptor of that folder and one name; what is no folder is held by a descriptor
that opens nothing (O_PATH) before anything is done with it.
"""

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
LINKS_MOST = 40
TRIED_MOST = 1000  # names for one thing that is put aside
CHANGED = "it was changed while it was copied"


class Held:
    """A descriptor that is closed in the end."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __enter__(self) -> int:
        return self._number

    def __exit__(self, *_: object) -> None:
        os.close(self._number)


def identity(found: os.stat_result) -> "tuple[int, int]":
    """What stays the same whatever it is called."""
    return found.st_dev, found.st_ino


def lstat(name: str, folder: int) -> "os.stat_result | None":
    """What is there."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def grasp(name: str, folder: int, found: os.stat_result) -> int:
    """Hold what was found there, whatever it is; it is neither opened nor followed."""
    number = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)
    if identity(os.fstat(number)) != identity(found):
        os.close(number)
        raise OSError(errno.EAGAIN, CHANGED)
    return number


def by(number: int) -> str:
    """A path to what is held, a link itself included."""
    return "/proc/self/fd/" + str(number)


def reading(number: int) -> int:
    """Open a file that is held."""
    return os.open(by(number), os.O_RDONLY | os.O_NONBLOCK)


def is_roots(found: os.stat_result) -> bool:
    """Whether nobody but root can put anything into that folder."""
    return found.st_uid in (0, os.geteuid()) and not found.st_mode & 0o022


def opened(root: str, path: str, make: bool = False, links: int = LINKS_MOST) -> "tuple[int, bool]":
    """Open a folder below a root, one name after the other, and say whether only root can put another in its place.

    A link is followed only where that is so, too, and leads nowhere out of the root. ``make``: folders that are missing.
    ``links``: how many are followed.
    """
    names = path.split("/")[::-1]
    done: list[str] = []
    at, is_safe = os.open(root, os.O_RDONLY | os.O_DIRECTORY), True
    try:
        while names:
            name = names.pop()
            if not name:
                continue
            outer = os.fstat(at)
            is_safe = is_safe and is_roots(outer)
            found = lstat(name, at)
            if found is not None and stat.S_ISLNK(found.st_mode):
                links -= 1
                if not is_safe or found.st_uid not in (0, os.geteuid()) or links < 0:
                    raise OSError(errno.ELOOP, "a link in the way of it is not followed", path)
                wanted = os.path.normpath(os.path.join("/", *done, os.readlink(name, dir_fd=at)))
                names, done = names + wanted.split("/")[::-1], []
                inner, is_safe = os.open(root, os.O_RDONLY | os.O_DIRECTORY), True
            else:
                if found is None and make:
                    os.mkdir(name, 0o755, dir_fd=at)
                inner = os.open(name, FOLDER, dir_fd=at)
                done.append(name)
            os.close(at)
            at = inner
    except BaseException:
        os.close(at)
        raise
    return at, is_safe


def tried(name: str) -> "Iterator[str]":
    """Names for what is put aside, the first of which is the one it had."""
    yield name
    for number in range(1, TRIED_MOST):
        yield name + "." + str(number)


def own(name: str, folder: int) -> "tuple[int, str]":
    """Open a folder that only root can put anything into, or make one; with its name."""
    for one in tried(name):
        try:
            os.mkdir(one, 0o711, dir_fd=folder)
        except FileExistsError:
            pass
        try:
            inner = os.open(one, FOLDER, dir_fd=folder)
        except NotADirectoryError:
            continue
        if is_roots(os.fstat(inner)):
            return inner, one
        os.close(inner)
    raise OSError(errno.EEXIST, "what is in the way can not be put aside", name)


def put(name: str, folder: int, base: int, names: "list[str]") -> None:
    """Move what is there to the same names below another folder of the same file system, which is root's alone."""
    at = os.dup(base)
    try:
        for one in names[:-1]:
            inner, _ = own(one, at)
            os.close(at)
            at = inner
        free = next(one for one in tried(names[-1]) if lstat(one, at) is None)
        os.rename(name, free, src_dir_fd=folder, dst_dir_fd=at)
    finally:
        os.close(at)
