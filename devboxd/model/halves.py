"""What the end of one direction of a carried connection means for the other one: the same as on one TCP connection.

*Up* is from the local side to the far end (what a stream leads to on the box), *down* is back. Each direction ends by itself. What carries the
connection may not know that (smux version 1: its FIN closes both, and an answer that is still being made is lost):
then the far end's close is that of both, and the local side's end is passed on only when the far end is silent.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Way(StrEnum):
    """How one direction stands."""

    OPEN = "open"
    ENDED = "ended"  # its sender has said everything, and all of it was passed on
    LEFT = "left"  # its receiver has gone, and had taken everything so far
    REFUSED = "refused"  # its receiver has gone, and bytes were lost by that
    BROKEN = "broken"  # its sender was cut


class Step(StrEnum):
    """What to do next. All from ``CLOSE`` on are the last one."""

    WAIT = "wait"  # until a direction changes
    LOOK = "look"  # the same; and look again whether the local program is there, and the far end silent
    PASS_UP = "pass-up"  # tell the far end that no more comes
    PASS_DOWN = "pass-down"  # tell the local side so
    CLOSE = "close"  # both, in order
    PART = "part"  # nobody is here any more: let the far end have what was said, then close
    CUT = "cut"  # the local side gets what the far end had said, and then a reset
    RESET = "reset"  # both, at once
    GIVE_UP = "give-up"  # the same, for nobody answers


class Seen(msgspec.Struct, frozen=True):
    """What is known of a connection.

    ``half_closes``: each direction can end by itself; ``told_up``, ``told_down``: that end was passed on;
    ``has_left``: the local program has closed altogether; ``is_silent``: the far end has said nothing for long.
    """

    up: Way = Way.OPEN
    down: Way = Way.OPEN
    half_closes: bool = True
    told_up: bool = False
    told_down: bool = False
    has_left: bool = False
    is_silent: bool = False


def next_step(seen: Seen) -> Step:
    """What follows from what is seen."""
    match seen.up, seen.down:
        case Way.ENDED, Way.REFUSED:
            return Step.PART
        case (Way.BROKEN, _) | (_, Way.BROKEN) | (_, Way.REFUSED):
            return Step.RESET
        case Way.ENDED, Way.OPEN:
            return _answer_awaited(seen)
        case Way.OPEN, Way.ENDED if seen.half_closes:
            return Step.WAIT if seen.told_down else Step.PASS_DOWN
        case Way.REFUSED, Way.ENDED if seen.half_closes:
            return Step.CUT
        case _, Way.OPEN:
            return Step.WAIT  # also where nobody reads there: what the far end said before is still delivered
        case _:
            return Step.CLOSE


def _answer_awaited(seen: Seen) -> Step:
    if seen.half_closes and not seen.told_up:
        return Step.PASS_UP
    if seen.has_left:
        return Step.PART
    return Step.GIVE_UP if seen.is_silent and not seen.half_closes else Step.LOOK
