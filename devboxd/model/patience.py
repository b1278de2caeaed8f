"""What the client of a command over a bridge is told of the way to the box, and when it no longer waits for it."""

from __future__ import annotations

from typing import Final

from devboxd.model.bridge.end import Bridge
from devboxd.model.states import StreamState

TAKEN_WITHIN: Final = 3.0  # seconds that the box has to take a signal


def arrived(bridge: Bridge, number: int) -> tuple[int, int]:
    """How many bytes of a stream, its purpose among them, the other end is known to have, and how many it shall have."""
    stream = bridge._streams.by_number.get(number)
    if stream is None:
        return 0, 0
    known = next(iter(stream.flight.values())).offset if stream.flight else stream.out_next
    return known, stream.out_next + len(stream.waiting)


def unsettled(bridge: Bridge) -> bool:
    """Whether the other end has yet to hear that some stream was given up: what it runs for that goes on until then."""
    return any(stream.reset is not None for stream in bridge._streams.by_number.values())


def leaves(*, is_online: bool, is_taken: bool, waited: float) -> bool:
    """Say whether a client leaves its command that wanted to end it with a signal ``waited`` seconds ago.

    A command that has the signal may need its time. One that cannot be reached is hung up once it can.
    """
    return not is_taken and (not is_online or waited >= TAKEN_WITHIN)


def shown(*, has_begun: bool, is_online: bool, answers: bool) -> StreamState:
    """What a client is told. ``has_begun``: the box has heard of its command; ``answers``: its bridgehead does."""
    if is_online and not answers:
        return StreamState.STALLED
    if not has_begun:
        return StreamState.STARTING
    return StreamState.ONLINE if is_online else StreamState.RECONNECTING
