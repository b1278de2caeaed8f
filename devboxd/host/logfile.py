"""Keep the daemon's own log file, where it writes one, from growing without bound."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Final

MOST: Final = 5 << 20  # bytes of the log, and of the old one beside it


def trim(descriptor: int, path: Path, most: int = MOST) -> bool:
    """Move the content of the log to ``NAME.1`` when it has more than ``most`` bytes. Never raises.

    Args:
        descriptor: what is written to, standard error as a rule.
        path: the log. Where the descriptor is another file (a terminal, systemd's journal, a redirection of
            the user's) nothing is done.

    The file stays the same one, because others have it open, too (``daemon logs --follow``, faulthandler).
    """
    try:
        found, expected = os.fstat(descriptor), path.stat()
        if found.st_size <= most or (found.st_dev, found.st_ino) != (expected.st_dev, expected.st_ino):
            return False
        if not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND:
            return False  # the next line would go to the old end, and a hole before it
        old = path.with_name(f"{path.name}.1")
        with path.open("rb") as source, open(os.open(old, _WRITE, 0o600), "wb") as target:
            source.seek(max(0, found.st_size - most))
            shutil.copyfileobj(source, target)
        os.ftruncate(descriptor, 0)
    except OSError:
        return False
    return True


_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
