"""The collector as the daemon knows it: how it travels, and what it answers.

The program is ``programs/activity.py`` behind ``model/idle.py``: both sides judge by the same text.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from devboxd.boxside.said import PROBLEM, PROBLEM_MOST, UNREADABLE, last_line
from devboxd.errors import Unreachable
from devboxd.model.idle import LAPTOPS_MOST, empty
from devboxd.text import one_line

PROGRAM: Final = "activity"
ANSWER_MOST: Final = 256 << 10  # characters of an answer
NEED: Final = "need"


class CollectorFailed(Unreachable):
    """What works on a box can not be seen: it has no Python, or the program fails."""

    code = "collector-failed"


class Answer(msgspec.Struct, frozen=True):
    """What a box knows of itself. ``stopped``: what its watchdog wrote when it last stopped the box; ``reclaim``: what it

    knows of being a spot box (``boxside/reclaim.py``).
    """

    state: dict[str, Any]
    decision: dict[str, Any] | None = None
    sample: dict[str, Any] | None = None
    stopped: dict[str, Any] | None = None
    reclaim: dict[str, Any] | None = None
    timer: bool = False

    @property
    def leases(self) -> list[dict[str, Any]]:
        """The leases that hold, as far as the box tells them."""
        found = (self.sample or {}).get("leases")
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def read(text: str) -> Answer | None:
    """Read what ``watch.sh`` printed; None: it wants the program. A box may print before it, and may be hostile.

    Raises:
        CollectorFailed: with what the box says, or that it says nothing that can be read.
    """
    last = last_line(text, ANSWER_MOST).strip()
    if last == NEED:
        return None
    if last.startswith(PROBLEM):
        raise CollectorFailed(one_line(last.removeprefix(PROBLEM), PROBLEM_MOST))
    try:
        answer = msgspec.json.decode(last, type=Answer)
    except UNREADABLE:
        raise CollectorFailed("the box does not say what works on it") from None
    wrong = [name for name, value in empty().items() if not _fits(answer.state.get(name), value, name)]
    if wrong or answer.state["verdict"] not in ("active", "idle", "unknown"):
        raise CollectorFailed("the box does not say what works on it")
    return answer


def _fits(found: object, kind: object, name: str) -> bool:
    """Whether a value of a state can be one: ``decide`` calculates with it."""
    if name == "warned":
        return found is None or (isinstance(found, list) and len(found) == 2 and _is_number(found[0]))
    if name == "last":
        return found is None or (isinstance(found, list) and len(found) == 3 and _is_number(found[0]))
    if name == "evidence":
        return isinstance(found, list) and all(isinstance(row, list) and len(row) == 3 for row in found)
    if name == "here":
        return found is None or (
            isinstance(found, dict)
            and len(found) <= LAPTOPS_MOST
            and all(
                isinstance(one, list) and len(one) == 2 and all(map(_is_number, one))
                for one in found.values()
            )
        )
    if name in ("at", "idle_since", "began"):
        return found is None or _is_number(found)
    return found is None or isinstance(found, str if name == "boot" else type(kind))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < 1e11  # a later time can not be written as a date
