"""The time zone of this machine: what times mean that are typed without one, as they are shown by the same clock."""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from devboxctl.fast.reply import UsageError

LOCALTIME: Final = Path("/etc/localtime")
NAME_FILE: Final = Path("/etc/timezone")  # of Debian and its kin, where the other may be a copy
_FOLDER: Final = "zoneinfo/"
CLOCK: Final = re.compile(r"\d{2}:\d{2}\Z")  # which hours there are, the daemon says
_WINDOW: Final = re.compile(r"(\S+\s+)?\d{2}:\d{2}-\d{2}:\d{2}\Z")


def here() -> str | None:
    """Its name, as Europe/Berlin; None where it has none that can be found."""
    if (told := os.environ.get("TZ")) is not None:
        return _named(told.removeprefix(":")) if told.removeprefix(":") else "UTC"
    if not LOCALTIME.exists():
        return "UTC"
    real = os.path.realpath(LOCALTIME)
    if _FOLDER in real:
        return _named(real)
    try:
        return _named(NAME_FILE.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return None


def _named(text: str) -> str | None:
    name = text.rpartition(_FOLDER)[2].removeprefix("posix/")
    try:
        return ZoneInfo(name).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def needed(hint: str) -> str:
    """The same, where something can not be said without it. Raises UsageError with that hint where it has none."""
    if (found := here()) is None:
        raise UsageError("the time zone of this machine has no name that can be found", hint)
    return found


def moment(text: str) -> str:
    """A moment with this machine's zone where it names none; what is no moment stays as it is, for the daemon to refuse."""
    text = text.strip()
    if CLOCK.match(text):
        return _with_zone(text)
    try:
        found = datetime.fromisoformat(text)
        return text if found.tzinfo is not None else found.astimezone().isoformat()
    except (ValueError, OverflowError):
        return text


def window(text: str) -> str:
    """A time of the week, the same."""
    text = text.strip()
    return _with_zone(text) if _WINDOW.match(text) else text


def _with_zone(text: str) -> str:
    zone = needed(f"name one: '{text} Europe/Berlin'")
    return f"{text} {zone}"
