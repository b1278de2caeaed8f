"""Who on this machine looks after the projects of its own store: one process at a time, known by a lock."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from devboxd.host.files import saving


class Lock:
    """A lock that ends with its process, however that ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def take(self) -> bool:
        """Take it; False where another process has it. Raises StateNotSaved where there can be no such file."""
        if self._file is not None:
            return True
        with saving(self._path):
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                return False
            except OSError:
                os.close(file)
                raise
        self._file = file
        return True

    def leave(self) -> None:
        """Let others have it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
