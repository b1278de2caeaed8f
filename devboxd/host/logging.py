"""How the daemon logs: one JSON object a line, to standard error."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Final, TextIO

from devboxd.host.logfile import Repeats, trim
from devboxd.text import rfc3339

LOOK_AFTER: Final = 200  # records between two looks at the size of the file
OURS: Final = "devboxd"  # the root of our loggers


def set_up(path: Path, *, journald: bool, level: str = "info") -> None:
    """Log from now on. ``path``: our own log file, in case standard error is that."""
    handler = _ToStderr(path)
    handler.addFilter(Repeats())
    handler.setFormatter(Lines(journald=journald))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # libraries at debug print requests, and those hold secrets
    set_level(level)


def set_level(level: str) -> None:
    """Log what is at least so important: debug, info, warning, error."""
    logging.getLogger(OURS).setLevel(level.upper())


class Lines(logging.Formatter):
    """One JSON object a line; under systemd with the priority in front that journald reads."""

    _PRIORITY: Final = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}

    def __init__(self, *, journald: bool) -> None:
        super().__init__()
        self._journald = journald

    def format(self, record: logging.LogRecord) -> str:
        """Everything that is known, nothing that is secret: messages are written with that in mind."""
        fields: dict[str, object] = {
            "time": rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (box := getattr(record, "box", None)) is not None:
            fields["box"] = box
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        line = json.dumps(fields, ensure_ascii=False)
        return f"<{self._PRIORITY.get(record.levelname, 6)}>{line}" if self._journald else line


class _ToStderr(logging.StreamHandler[TextIO]):
    """Writes to standard error; where that is our own log file, keeps it from growing without bound."""

    def __init__(self, path: Path) -> None:
        super().__init__(sys.stderr)
        self._path = path
        self._until_look = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if self._until_look <= 0:
            self._until_look = LOOK_AFTER
            trim(2, self._path)
        self._until_look -= 1
        super().emit(record)
