"""Named faults of EC2: scripted one by one, or by chance from one seed.

A fault is drawn where it acts: at a call (``refuse``, ``lose-answer``, …) or at the birth of a thing
(``image-fails``, …). With ``share`` below 1 it acts by chance; with ``times`` it wears out.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Final

KINDS: Final = {
    "refuse": "The call is refused with `code` and has no effect.",
    "refuse-after": "The call takes effect and is answered with `code`, as a 5xx may be.",
    "lose-request": "The call never arrives; its caller sees a timeout.",
    "lose-answer": "The call takes effect; its caller sees a timeout.",
    "stale": "A describe shows one of the last `depth` views of the region, at most `seconds` old.",
    "not-visible": "A thing born less than `seconds` ago is not found by calls that name it.",
    "no-capacity": "No capacity for instance types like `what`, written zone/type: us-east-1a/*.",
    "launch-dies": "RunInstances succeeds, and the instance goes from pending to terminated with `code`.",
    "start-dies": "StartInstances succeeds, and the instance goes from pending to stopped with `code`.",
    "no-boot": "The instance runs and its system does not come up.",
    "stop-hangs": "The system ignores the power button: stopping lasts until it is forced.",
    "image-fails": "The image becomes failed with `code`.",
    "snapshot-fails": "The snapshot ends in error.",
    "mapping-gap": "For `seconds` after it is available, an image shows no snapshot ids.",
    "in-use-lingers": "For `seconds` after DeregisterImage, its snapshots are still in use.",
    "name-lingers": "For `seconds` after DeregisterImage, its name is still taken (nobody knows how long).",
    "start-spoils-image": "Starting an instance fails the image that is being made of it (nobody knows).",
}
CONSOLE: Final = "console"  # a caller who is spared: the user in the console


@dataclass(slots=True)
class Fault:
    """One fault in force."""

    kind: str
    operation: str = "*"  # a pattern
    caller: str | None = None  # a pattern; None: everybody but the console
    what: str = "*"  # a pattern for the thing it acts on; see KINDS
    code: str = "InternalError"
    http_status: int | None = None
    share: float = 1.0
    times: int | None = None
    depth: int = 3
    seconds: float = 10.0
    until: float = float("inf")  # Unix time

    def fits(self, operation: str, caller: str, what: str) -> bool:
        """Whether it concerns this call and this thing."""
        callers = caller != CONSOLE if self.caller is None else fnmatchcase(caller, self.caller)
        return callers and fnmatchcase(operation, self.operation) and fnmatchcase(what, self.what)


@dataclass(slots=True)
class Faults:
    """All faults in force, and how often each kind has acted."""

    entropy: random.Random = field(default_factory=lambda: random.Random(0))
    counts: dict[str, int] = field(default_factory=dict)
    recent: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=1000))  # kind, operation
    _active: list[Fault] = field(default_factory=list)

    def add(self, fault: Fault) -> Fault:
        """Put a fault in force; the returned object can be given to ``remove``.

        Raises:
            ValueError: no such kind.
        """
        if fault.kind not in KINDS:
            raise ValueError(f"no EC2 fault is named {fault.kind!r}; there are: {', '.join(KINDS)}")
        self._active.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """Take one out of force; it may be worn out already."""
        if fault in self._active:
            self._active.remove(fault)

    def clear(self) -> None:
        """Take all out of force. What they have done stays done."""
        self._active.clear()

    def any(self, kind: str) -> bool:
        """Whether a fault of this kind is in force at all."""
        return any(fault.kind == kind for fault in self._active)

    def draw(self, kind: str, operation: str, caller: str, now: float, what: str = "") -> Fault | None:
        """The fault that acts here, if any; one with ``times`` is one nearer to its end afterwards."""
        for fault in self._active:
            if fault.kind != kind or now >= fault.until or not fault.fits(operation, caller, what):
                continue
            if fault.share < 1.0 and self.entropy.random() >= fault.share:
                continue
            if fault.times is not None:
                fault.times -= 1
                if fault.times <= 0:
                    self._active.remove(fault)
            self.counts[kind] = self.counts.get(kind, 0) + 1
            self.recent.append((kind, operation))
            return fault
        return None

    def fork(self) -> Faults:
        """An independent copy in the same state."""
        entropy = random.Random()
        entropy.setstate(self.entropy.getstate())
        return Faults(
            entropy, dict(self.counts), deque(self.recent, 1000), [replace(f) for f in self._active]
        )
