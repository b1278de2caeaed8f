"""Which local ports ``forward --auto`` leaves to the programs of this machine, and why.

A mirror takes the number that a program on the box listens on. A local program that is restarted lets go of its
own port for a moment; a mirror that took it then would get the bytes of that program's clients, and the program
could not start again. So a number is left to the local programs

* while one of them listens on it, at whatever address;
* for ``LATELY`` after one did;
* for ``CONTESTED`` after one did while the box listened on it, too: over restarts of daemon and machine, where
  nobody knows which of the two comes up first.

The mirror gets another number then. Who asks for a number by hand gets it as soon as it is free.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

LOOK_EVERY: Final = 2.0  # seconds between two looks at what listens here, while something is mirrored
LATELY: Final = 600.0  # seconds: longer than any restart of a service, an upgrade included
CONTESTED: Final = 7 * 86_400.0  # seconds: a machine that was off over the week-end still knows
RENEW: Final = 3_600.0  # seconds after which a contested port that is still in use is written down again
SEEN_MAX: Final = 4096  # ports that are remembered as in use lately; the longest gone make room
CONTESTED_MAX: Final = 256  # contested ports that the journal keeps


@dataclass(slots=True)
class LocalPorts:
    """What the programs of this machine listen on and listened on, ours aside. Times: seconds, monotonic."""

    held: frozenset[int] = frozenset()
    seen: dict[int, float] = field(default_factory=dict)  # when last, the longest gone first

    def looked(self, listening: Collection[int], at: float) -> None:
        """Note what listens."""
        self.held = frozenset(listening)
        for port in self.held:
            self.note(port, at)
        while self.seen:
            longest_gone = next(iter(self.seen))
            if len(self.seen) <= SEEN_MAX and at - self.seen[longest_gone] <= LATELY:
                break
            del self.seen[longest_gone]

    def note(self, port: int, at: float) -> None:
        """Note that a port was in use."""
        self.seen.pop(port, None)
        self.seen[port] = at

    def why_not(self, port: int, at: float, contested: Mapping[int, float], wall: float) -> str | None:
        """Say why a mirror does not take this number; None where it may.

        Args:
            contested: when (Unix time) a local program was last seen on a port that the box has, too.
        """
        if port in self.held:
            return f"a program of this machine listens on {port}"
        if port in self.seen and at - self.seen[port] <= LATELY:
            return f"a program of this machine listened on {port} {_ago(at - self.seen[port])}"
        if port in contested and wall - contested[port] <= CONTESTED:  # also where the clock was set back
            return (
                f"a program of this machine listens on {port} at times, last {_ago(wall - contested[port])}"
            )
        return None

    def contested(self, box: Collection[int], known: Mapping[int, float], wall: float) -> dict[int, float]:
        """What there is to write down, given what the box listens on and what is written already."""
        return {
            port: wall for port in sorted(self.held.intersection(box)) if wall - known.get(port, 0.0) > RENEW
        }


def _ago(seconds: float) -> str:
    for size, unit in ((86_400.0, "day"), (3_600.0, "hour"), (60.0, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "a moment ago"
