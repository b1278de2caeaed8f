"""What a spot box tells of being taken back (``programs/reclaim.py``, and the collector's answer), as the daemon knows it."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from devboxd.boxside.said import UNREADABLE
from devboxd.boxside.script import in_python
from devboxd.model import reclaim
from devboxd.text import one_line

LINE_MOST: Final = 16 << 10  # bytes of a line: sixteen hooks of sixty characters, and what is said of each
FAILED_MOST: Final = 16  # hooks that are told of

Moment = Annotated[float, msgspec.Meta(ge=0, lt=1e11)]


class Notice(msgspec.Struct, frozen=True):
    """That it is taken: stop, hibernate or terminate. ``since``: when it was seen, by the clock of the box."""

    action: Annotated[str, msgspec.Meta(min_length=1, max_length=reclaim.ACTION_MOST)]
    since: Moment
    time: Moment | None = None

    @property
    def end(self) -> float:
        """When it is taken, at the latest (Unix seconds)."""
        return reclaim.end_of(msgspec.to_builtins(self))


class Done(msgspec.Struct, frozen=True):
    """What the box did when the notice came: how many hooks were begun, and what is to be said of those that failed."""

    at: Moment
    hooks: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    failed: Annotated[list[str], msgspec.Meta(max_length=FAILED_MOST)] = []


class Reclaim(msgspec.Struct, frozen=True):
    """All that a box tells, as ``model/reclaim.py`` has it."""

    life: Annotated[str, msgspec.Meta(max_length=32)] | None = None
    notice: Notice | None = None
    rebalance: Moment | None = None
    did: Done | None = None
    problem: Annotated[str, msgspec.Meta(max_length=200)] = ""

    @property
    def is_spot(self) -> bool:
        """Whether it says so."""
        return self.life == reclaim.SPOT


def argv() -> list[str]:
    """The command that tells each change, a line each. Its last word tells it from a user's work (``watch/look.py``)."""
    return in_python("reclaim", "devbox-reclaim")


def read(found: object) -> Reclaim | None:
    """What a box tells; None where that is nothing that can be read: it may be hostile."""
    try:
        return msgspec.convert(found, Reclaim)
    except msgspec.ValidationError:
        return None


def read_line(line: bytes) -> Reclaim | None:
    """The same of a line."""
    try:
        return read(msgspec.json.decode(line))
    except UNREADABLE:
        return None


def said_of(done: Done) -> str:
    """What was done, in a sentence."""
    failed = "; ".join(one_line(one, 100) for one in done.failed)
    if failed:
        return f"its pre-stop hooks have run, and not all went well: {failed}"
    return "its pre-stop hooks have run" if done.hooks else "it has written everything to its disk"
