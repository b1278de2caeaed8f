"""What goes wrong, and when: a sequence of faults that follows from a seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Fault = tuple[str, dict[str, Any]]  # its name and parameters, as devboxd.simulator.chaos has them


@dataclass(frozen=True)
class Cut:
    """One thing that goes wrong: faults in order, then a pause in which it takes its course."""

    name: str
    faults: tuple[Fault, ...]
    pause: float  # seconds until the next
    everywhere: bool = False  # all sessions; else one, by a number that picks it
    pick: int = 0
    after: tuple[Fault, ...] = ()  # at the end of the pause
    relogin: bool = False  # a login follows

    def __str__(self) -> str:
        return f"{self.name} {'all' if self.everywhere else self.pick % 97}"


CODES = (1000, 1000, 1001, 1008, 1011, 1012, 4001)
_ENDS = ("rst", "fin", "close")


@dataclass
class Generator:
    """Draws cuts. ``scale`` stretches the pauses."""

    seed: int
    scale: float = 1.0
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def cuts(self, count: int) -> Iterator[Cut]:
        """The first ``count`` cuts of this seed."""
        kinds = {
            "rst": 5, "fin": 4, "close": 6, "blackhole": 3, "noise": 3, "mute": 1, "refuse-resume": 3, "throttle": 2,
            "refuse-dial": 2, "expire": 1, "agent-cut": 3, "storm": 1,
        }  # fmt: skip
        for _ in range(count):
            yield self._one(self._random.choices(list(kinds), list(kinds.values()))[0])

    def _end(self) -> Fault:
        how = self._random.choice(_ENDS)
        return how, {"code": self._random.choice(CODES)} if how == "close" else {}

    def _one(self, name: str) -> Cut:
        roll = self._random
        pause = self.scale * roll.choice((0.0, 0.02, 0.1, 0.3, 0.3, 0.6))
        everywhere, pick = roll.random() < 0.4, roll.randrange(1 << 16)
        wild: dict[str, Any] = {"everywhere": everywhere, "pick": pick}
        match name:
            case "rst" | "fin":
                return Cut(name, ((name, {}),), pause, **wild)
            case "close":
                return Cut(name, (("close", {"code": roll.choice(CODES)}),), pause, **wild)
            case "blackhole":
                seconds = roll.choice((0.1, 0.2, 0.4, 0.8, 3.0 if roll.random() < 0.2 else 0.5))
                return Cut(
                    name, (("blackhole", {"seconds": seconds}),), seconds * roll.random() + pause, **wild
                )
            case "noise":
                noise = {
                    "drop": roll.choice((0.0, 0.05, 0.3)),
                    "duplicate": roll.choice((0.0, 0.2)),
                    "reorder": roll.choice((0.0, 0.3)),
                    "delay": roll.choice((0.0, 0.01, 0.05)),
                    "direction": roll.choice(("up", "down", "both")),
                }
                after: tuple[Fault, ...] = (("wire", {}), *((self._end(),) if roll.random() < 0.5 else ()))
                return Cut(name, (("wire", noise),), 0.3 + pause, after=after, **wild)
            case "mute":
                return Cut(name, (("mute", {}),), 0.3 + pause, after=(("wire", {}), self._end()), **wild)
            case "refuse-resume":
                refusal: dict[str, Any] = {
                    "times": roll.randint(1, 4),
                    "status": roll.choice((400, 500, 503)),
                }
                return Cut(name, (("refuse-resume", refusal), self._end()), 0.2 + pause, **wild)
            case "throttle":
                return Cut(
                    name, (("throttle", {"call": "ResumeSession", "times": roll.randint(1, 3)}), self._end()),
                    0.2 + pause, **wild,
                )  # fmt: skip
            case "refuse-dial":
                refusal = {"times": roll.randint(1, 3), "status": roll.choice((401, 403, 500, 503))}
                return Cut(name, (("refuse-dial", refusal), self._end()), 0.2 + pause, **wild)
            case "expire":
                seconds = roll.choice((0.3, 0.8))
                faults: tuple[Fault, ...] = (("expire-credentials", {"seconds": seconds}), self._end())
                return Cut(name, faults, seconds + 0.1, relogin=True, **wild)
            case "agent-cut":
                seconds = roll.choice((0.0, 0.0, 0.2, 1.0))
                return Cut(name, (("agent-cut", {"seconds": seconds}),), pause, **wild)
            case _:  # many cuts in a row, as a phone at the edge of its network makes them
                faults = tuple(self._end() for _ in range(roll.randint(3, 6)))
                return Cut("storm", faults, 0.2 + pause, **wild)


OF_A_SESSION = frozenset({"rst", "fin", "close", "blackhole", "agent-cut", "mute", "wire"})
