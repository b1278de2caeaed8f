"""What to do about a bridgehead that does not answer while its box does: stopped, frozen, or on a box that swaps."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

NO_ANSWER: Final = 6.0  # seconds until new connections go another way: nothing is lost by that
GIVEN_UP: Final = 180.0  # seconds until what goes over it is cut: most of what stands still comes back
ASK_AFTER: Final = (
    60.0  # seconds of quiet after which it is asked whether it is there, before it is told what to run
)


class Silence(StrEnum):
    """How to take it."""

    NONE = "none"
    ANOTHER_WAY = "another way"  # for what is new; what goes over it waits
    GIVEN_UP = "given up"  # end it, and start another


def judge(unanswered: float, streams: int) -> Silence:
    """Say what to do. ``unanswered``: seconds that the box has had a question and nothing has come back."""
    if unanswered < NO_ANSWER:
        return Silence.NONE
    return Silence.ANOTHER_WAY if streams and unanswered < GIVEN_UP else Silence.GIVEN_UP
