"""Exceptions that botocore does not mean to raise: where they come from, and what may be said of them.

botocore reads files, answers and settings that others wrote, and lets through whatever its reading trips over: a
KeyError, a RuntimeError, an AttributeError. Their texts may quote what was read, secrets included.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Final

log = logging.getLogger(__name__)

# Modules that get credentials; what passes through them is no fault of the call that wanted some.
_SOURCES: Final = frozenset(
    {
        *("botocore.credentials", "aiobotocore.credentials", "botocore.tokens", "aiobotocore.tokens"),
        *("devboxd.aws.providers", "devboxd.aws.console"),
    }
)


def of_credentials(error: BaseException) -> bool:
    """Say whether an exception arose where credentials were got."""
    return any(frame.f_globals.get("__name__") in _SOURCES for frame in _frames(error))


def unreadable(error: BaseException) -> str:
    """What can be said of it: the file where there is one, else the kind."""
    if isinstance(error, OSError) and isinstance(error.filename, str):
        return f": {error.filename}: {error.strerror}"
    return f" ({type(error).__name__})"


def note(error: BaseException, what: str) -> None:
    """Log where it arose, and not a word of its text."""
    places = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s: %s at\n%s", what, type(error).__name__, places)


def _frames(error: BaseException) -> Iterator[FrameType]:
    place = error.__traceback__
    while place is not None:
        yield place.tb_frame
        place = place.tb_next
