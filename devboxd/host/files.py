"""Writing files so that a crash leaves the old one or the new one, never half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from devboxd.errors import StateNotSaved


def replace_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Put ``data`` in the place of ``path``, durable on return.

    A symbolic link stays and its target is replaced. Raises OSError; then nothing has changed.
    """
    target = Path(os.path.realpath(path))
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
        if path.read_bytes() == data:
            return False
    replace_file(path, data, mode=mode)
    return True


_MEND: Final = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room: your share of that disk is used up",
    errno.EROFS: "that file system is read-only",
    errno.EFBIG: "the daemon may not write files of that size: see ulimit -f where it was started",
    errno.EACCES: "the file and its folder have to belong to you",
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
