"""Files: read with a bound, and written so that a crash leaves the old one or the new one, never half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from devboxd.errors import StateNotSaved


class NoFile(OSError):
    """What stands at a path is no regular file: a folder, a pipe, a device."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EINVAL, "it is no regular file", str(path))


def read_file(
    path: Path, most: int, *, flags: int = 0, check: Callable[[os.stat_result], None] | None = None
) -> bytes:
    """The content of a regular file. A pipe in its place is not waited for, a device not read without an end.

    ``check`` is told what was opened before anything is read of it, and may raise.

    Raises: OSError; NoFile; OSError with EFBIG for one of more than ``most`` bytes.
    """

    def opener(name: str, mode: int) -> int:
        return os.open(name, mode | os.O_NONBLOCK | os.O_NOCTTY | flags)

    try:
        # A descriptor of its own, which it also closes where it turns out to be a folder's.
        with open(path, "rb", opener=opener) as file:
            found = os.fstat(file.fileno())
            if check is not None:
                check(found)
            if stat.S_ISCHR(found.st_mode) and found.st_rdev == os.stat(os.devnull).st_rdev:
                return b""  # how people say that there is to be none
            if not stat.S_ISREG(found.st_mode):
                raise NoFile(path)
            data = file.read(most + 1)
    except IsADirectoryError:
        raise NoFile(path) from None
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))
    return data


def replace_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Put ``data`` in the place of ``path``, durable on return.

    A symbolic link stays and its target is replaced, unless that is no file (``/dev/null``). Raises OSError,
    NoFile; then nothing has changed.
    """
    target = Path(os.path.realpath(path))
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(target.lstat().st_mode):
            raise NoFile(path)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    # The new name itself is durable only when the folder is.
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def replace_if_changed(path: Path, data: bytes, *, mode: int = 0o600) -> bool:
    """``replace_file``, unless the content is that already; says whether it wrote."""
    with contextlib.suppress(OSError):
        if read_file(path, len(data)) == data:
            return False
    replace_file(path, data, mode=mode)
    return True


_MEND: Final = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room: your share of that disk is used up",
    errno.EROFS: "that file system is read-only",
    errno.EFBIG: "the daemon may not write files of that size: see ulimit -f where it was started",
    errno.EACCES: "the file and its folder have to belong to you",
    errno.EINVAL: "move away what stands there",
    errno.EPERM: "the file and its folder have to belong to you",
}


@contextlib.contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turn a failure to write ``path`` into one for people. Raises StateNotSaved for OSError."""
    try:
        yield
    except OSError as error:
        raise not_saved(error, path) from error


def not_saved(error: OSError, path: Path) -> StateNotSaved:
    """The same failure for people."""
    reason = error.strerror or type(error).__name__
    return StateNotSaved(f"{path} cannot be written: {reason}", hint=_MEND.get(error.errno or 0))
