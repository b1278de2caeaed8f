"""How many lanes a bridge should have: decided at every look from what is seen, and nothing else."""

from __future__ import annotations

from typing import Final

import msgspec

FULL: Final = 128 << 10  # bytes waiting, here or there, that call for one lane more
OPENING_MOST: Final = 3  # lanes that are opened at the same time: StartSession has a rate
SPARE: Final = 30.0  # seconds without much to carry after which a lane beyond the first is let go
LAST: Final = 300.0  # seconds without a stream after which the last lane is let go, too
SILENT: Final = (
    4.0  # seconds that a lane's session may say nothing: the agent loses those that come as it starts
)
REPAIR_MOST: Final = 1.0  # seconds of repair that are waited for: a session is opened within them
RETRY_FIRST: Final = 1.0  # seconds until a failed opening is tried again; doubled each time
RETRY_LONGEST: Final = 30.0


class LaneSeen(msgspec.Struct, frozen=True):
    """One lane. ``quiet``: seconds since it carried more than a few frames."""

    number: int
    is_up: bool  # it has shown who it is
    is_behind: bool = False  # what it carries goes over others
    is_linked: bool = True  # its session has a link: if it is behind all the same, it is not worth a repair
    quiet: float = 0.0
    silent: float = 0.0  # seconds that its session exists, with a link, and the box has not answered over it
    repair: float = 0.0  # seconds until the agent has sent again what a cut of its link has lost

    @property
    def is_hopeless(self) -> bool:
        """Whether another lane is there sooner than this one carries again. Without a link, none could be opened."""
        return self.is_up and self.is_linked and (self.is_behind or self.repair > REPAIR_MOST)


class Seen(msgspec.Struct, frozen=True):
    """A bridge as it stands. ``failures``: openings in a row that failed, the last ``since_failure`` seconds ago."""

    lanes: tuple[LaneSeen, ...] = ()
    streams: int = 0
    waiting: int = 0  # bytes that could be sent if there were more lanes, both ends
    most: int = 8
    is_wanted: bool = False  # somebody waits for the bridge, or wants it warm
    unused: float = 0.0  # seconds without a stream
    failures: int = 0
    since_failure: float = 0.0


class Verdict(msgspec.Struct, frozen=True):
    """Open so many lanes, and let these go."""

    opens: int = 0
    retires: tuple[int, ...] = ()


def verdict(seen: Seen) -> Verdict:
    """Say what to change."""
    # The agent repairs ten frames a second: replaced is faster.
    hopeless = [lane for lane in seen.lanes if lane.is_hopeless]
    healthy = [lane for lane in seen.lanes if lane.is_up and not lane.is_behind and not lane.is_hopeless]
    opening = [lane for lane in seen.lanes if not lane.is_up]
    awaited = [lane for lane in opening if lane.silent < SILENT]
    needed = seen.streams > 0 or seen.is_wanted
    if not needed and seen.unused >= LAST:
        return Verdict(retires=tuple(lane.number for lane in seen.lanes))
    retires = [lane.number for lane in hopeless] if healthy else []
    wide = len(healthy) > 1 and not opening and seen.waiting < FULL
    if wide:
        retires += [lane.number for lane in healthy[1:] if lane.quiet >= SPARE]
    opens = _opens(seen, len(healthy), len(awaited), len(opening), len(hopeless)) if needed else 0
    return Verdict(opens, tuple(retires))


def _opens(seen: Seen, healthy: int, awaited: int, opening: int, hopeless: int) -> int:
    if seen.failures and seen.since_failure < retry_after(seen.failures):
        return 0
    # Lanes whose link is down may come back with it; they are not counted as carrying, but keep their place.
    wanted = 1 + min(seen.waiting // FULL, seen.most - 1)
    missing = max(wanted, 1) - healthy - awaited
    places = seen.most + hopeless - len(seen.lanes)
    if not healthy and not opening and len(seen.lanes) > hopeless:
        return 0  # all links are down: they resume with the network, and a new session could not be opened either
    return max(0, min(missing, places, OPENING_MOST - opening))


def retry_after(failures: int) -> float:
    """Seconds until an opening is tried again."""
    return min(RETRY_LONGEST, RETRY_FIRST * float(2 ** min(failures - 1, 10)))
