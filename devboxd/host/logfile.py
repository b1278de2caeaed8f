"""Keep the daemon's own log from growing without bound: the file, and what says the same again and again."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

MOST: Final = 5 << 20  # bytes of the log, and of the old one beside it
REPEATED: Final = 60.0  # seconds between two lines that say the same
KINDS_MAX: Final = 1000  # different ones that are kept in mind
_NUMBERS: Final = re.compile(r"0x[0-9a-fA-F]+|\d+")


def trim(descriptor: int, path: Path, most: int = MOST) -> bool:
    """Move the content of the log to ``NAME.1`` when it has more than ``most`` bytes. Never raises.

    Args:
        descriptor: what is written to, standard error as a rule.
        path: the log. Where the descriptor is another file (a terminal, systemd's journal, a redirection of
            the user's) nothing is done.

    The file stays the same one, because others have it open, too (``daemon logs --follow``, faulthandler).
    Where the old one cannot be written (no descriptor, no room on the disk), its content is lost: the bound
    holds.
    """
    try:
        found, expected = os.fstat(descriptor), path.stat()
        if found.st_size <= most or (found.st_dev, found.st_ino) != (expected.st_dev, expected.st_ino):
            return False
        if not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND:
            return False  # the next line would go to the old end, and a hole before it
        try:
            _copy_end(path, path.with_name(f"{path.name}.1"), most)
        except OSError:
            if found.st_size <= 2 * most:
                return False  # there may be room the next time
        os.ftruncate(descriptor, 0)
    except OSError:
        return False
    return True


def _copy_end(path: Path, old: Path, most: int) -> None:
    with path.open("rb") as source, open(os.open(old, _WRITE, 0o600), "wb") as target:
        source.seek(-min(most, source.seek(0, os.SEEK_END)), os.SEEK_END)
        shutil.copyfileobj(source, target)


class Repeats(logging.Filter):
    """Lets a warning (or worse) that says the same as another through once a minute, with the number left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._last: dict[
            tuple[str, int, str], tuple[float, int]
        ] = {}  # when it was shown, and how many were not

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether to write this record."""
        if record.levelno < logging.WARNING:
            return True
        kind = type(record.exc_info[1]).__name__ if record.exc_info else ""
        key = (record.name, record.levelno, kind + _NUMBERS.sub("#", str(record.msg))[:200])
        shown, left_out = self._last.get(key, (float("-inf"), 0))
        now = self._clock()
        if now - shown < REPEATED:
            self._last[key] = (shown, left_out + 1)
            return False
        if len(self._last) >= KINDS_MAX:
            self._last.clear()
        self._last[key] = (now, 0)
        if left_out:
            record.msg = f"{record.getMessage()} (and {left_out} more like this since)"
            record.args = ()
        return True


_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
