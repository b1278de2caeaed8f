"""Named faults: what a hostile network, gateway, agent or account does, on demand.

State only: the gateway, the agent and the APIs ask here. ``World.fault`` applies the faults by name.
All chance comes from one seeded generator.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["up", "down"]  # up: client to agent


@dataclass(slots=True)
class Wire:
    """What happens to frames in one direction. Shares are 0..1, ``delay`` is in seconds."""

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay: float = 0.0

    def is_clean(self) -> bool:
        """True when frames pass untouched."""
        return not (self.drop or self.duplicate or self.reorder or self.delay)


@dataclass(slots=True)
class Refusal:
    """An API call is refused: ``left`` times (None: no limit) until ``until`` (monotonic)."""

    code: str
    status: int = 400
    until: float = float("inf")
    left: int | None = None
    text: str = ""


class Throttled(Exception):
    """Raised by ``Faults.check_api``; carries the refusal to answer with."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


@dataclass(slots=True)
class Faults:
    """Everything that is wrong at the moment."""

    clock: Callable[[], float]
    random: random.Random
    any_wire: bool = False  # the fast path asks only this
    _wires: dict[tuple[str | None, Direction], Wire] = field(default_factory=dict)
    _holes: dict[str | None, float] = field(default_factory=dict)
    _refusals: dict[str, Refusal] = field(default_factory=dict)

    def set_wire(
        self,
        session: str | None,
        direction: Direction,
        *,
        drop: float,
        duplicate: float,
        reorder: float,
        delay: float,
    ) -> None:
        """Treat one session's frames (None: all sessions') so from now on; all zero: cleanly again."""
        self._wires[session, direction] = Wire(drop, duplicate, reorder, delay)
        self._refresh()

    def wire(self, session: str, direction: Direction) -> Wire | None:
        """What to do with a frame of this session, None: pass it on. Its own setting wins over the global."""
        wire = self._wires.get((session, direction)) or self._wires.get((None, direction))
        return None if wire is None or wire.is_clean() else wire

    def open_hole(self, session: str | None, seconds: float) -> None:
        """Bytes wait and sockets stay open for so long. None: all sessions and the APIs."""
        self._holes[session] = self.clock() + seconds
        self.any_wire = True

    def in_hole(self, session: str | None) -> float:
        """Seconds until the black hole around a session (None: the APIs) is over; 0: there is none."""
        now = self.clock()
        until = max(self._holes.get(None, 0.0), self._holes.get(session, 0.0))
        return max(0.0, until - now)

    async def pass_hole(self, session: str | None) -> None:
        """Wait until the hole is over."""
        if self.any_wire:
            while (left := self.in_hole(session)) > 0:  # noqa: ASYNC110 - every waiter has its own end
                await asyncio.sleep(min(left, 0.05))  # short: ``clear`` may end it early
            self._refresh()

    def refuse(self, call: str, refusal: Refusal) -> None:
        """Refuse an API call by name; ``*`` for every call, ``dial`` for websocket upgrades."""
        self._refusals[call] = refusal

    def check_api(self, *calls: str) -> None:
        """Let a call pass, or not.

        Raises:
            Throttled: with the answer to give.
        """
        for call in calls:
            refusal = self._refusals.get(call)
            if refusal is None:
                continue
            if self.clock() >= refusal.until or refusal.left == 0:
                del self._refusals[call]
                continue
            if refusal.left is not None:
                refusal.left -= 1
            raise Throttled(refusal)

    def clear(self) -> None:
        """Make the world well again. What was cut stays cut."""
        self._wires.clear()
        self._holes.clear()
        self._refusals.clear()
        self.any_wire = False

    def _refresh(self) -> None:
        now = self.clock()
        self._holes = {key: until for key, until in self._holes.items() if until > now}
        self.any_wire = bool(self._holes) or any(not wire.is_clean() for wire in self._wires.values())
