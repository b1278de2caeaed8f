"""Leases: named, expiring reasons for a box to stay up. Each one ends by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from devboxd.errors import BadRequest, DevboxError, Kind

LONGEST: Final = 72 * 3600.0  # seconds that a lease may hold a box, whatever it waits for
LEASES_MOST: Final = 16  # of one project at once
COMMAND_MOST: Final = 1000  # characters of the command that a lease watches
NOTE_MOST: Final = 120
FORGOTTEN: Final = 86400.0  # seconds after its end that a lease is still listed


class LeaseNotFound(DevboxError):
    """There is no lease of that id."""

    code = "lease-not-found"
    kind = Kind.NOT_FOUND


class Lease(msgspec.Struct, frozen=True, omit_defaults=True):
    """``until``: Unix time at which it ends at the latest.

    ``command``: it holds while this ends with status 0 on the box; ``pid``: while that process is there.
    """

    id: str
    since: float
    until: float
    note: str = ""
    who: str = ""
    command: str | None = None
    pid: int | None = None

    def holds(self, now: float) -> bool:
        """Say whether it is still on, as far as the clock goes."""
        return now < self.until

    @property
    def why(self) -> str:
        """What it waits for, in words."""
        if self.command is not None:
            return self.note or f"while {self.command}"
        return self.note or (f"while process {self.pid} runs" if self.pid is not None else "keep-alive")


def granted(
    known: Sequence[Lease],
    id_: str,
    now: float,
    *,
    seconds: float | None = None,
    command: str | None = None,
    pid: int | None = None,
    note: str = "",
    who: str = "",
) -> tuple[Lease, ...]:
    """The leases with one more. Without ``seconds`` it ends with what it watches, or after ``LONGEST``.

    Raises:
        BadRequest: it is not bounded, too long, or there are too many.
    """
    if seconds is None and command is None and pid is None:
        raise BadRequest("a lease needs an end", hint="--for 2h, --until 18:30, --while CMD or --pid N")
    if seconds is not None and seconds <= 0:
        raise BadRequest(
            "a lease ends later than now", hint="--for 2h, or --until a time that is still to come"
        )
    if seconds is not None and not seconds <= LONGEST:
        raise BadRequest(
            f"a lease holds {LONGEST / 3600:.0f} hours at most",
            hint="take a new one when it ends, or set: devboxctl idle BOX --then notify",
        )
    if command is not None and not 0 < len(command.strip()) <= COMMAND_MOST:
        raise BadRequest(f"the command of a lease has 1 to {COMMAND_MOST} characters")
    if pid is not None and not 0 < pid < 1 << 22:
        raise BadRequest(f"{pid} can not be the id of a process")
    if len(note) > NOTE_MOST:
        raise BadRequest(f"the note of a lease has {NOTE_MOST} characters at most")
    kept = remembered(known, now)
    if len([one for one in kept if one.holds(now)]) >= LEASES_MOST:
        raise BadRequest(f"there are {LEASES_MOST} leases already", hint="devboxctl lease rm removes one")
    ends = now + (LONGEST if seconds is None else seconds)
    return (*kept, Lease(id_, now, ends, note, who, command, pid))


def dropped(known: Sequence[Lease], id_: str, now: float) -> tuple[Lease, ...]:
    """The leases without one of them.

    Raises:
        LeaseNotFound: there is none of that id.
    """
    if all(one.id != id_ or not one.holds(now) for one in known):
        listed = ", ".join(one.id for one in known if one.holds(now)) or "none"
        raise LeaseNotFound(f"there is no lease {id_!r}", hint=f"there are: {listed}")
    return tuple(one for one in remembered(known, now) if one.id != id_)


def remembered(known: Iterable[Lease], now: float) -> tuple[Lease, ...]:
    """Those that hold, or ended a short while ago; of ended ones as many as may hold."""
    found = [one for one in known if one.until > now - FORGOTTEN]
    ended = [one for one in found if not one.holds(now)][-LEASES_MOST:]
    return (*ended, *(one for one in found if one.holds(now)))


def for_box(known: Iterable[Lease], now: float) -> list[dict[str, Any]]:
    """As the collector on the box takes them: one that watches something holds only while the box says so."""
    return [
        {
            "id": one.id,
            "until": one.until,
            "why": one.why,
            "command": one.command,
            "pid": one.pid,
        }
        for one in known
        if one.holds(now)
    ]
