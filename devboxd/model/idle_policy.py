"""What a user may choose about idle boxes, read from words, and as the rules that ``model.idle.decide`` takes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from devboxd.errors import BadRequest
from devboxd.model.idle import SPANS_MOST
from devboxd.text import parse_span

AHEAD: Final = (
    35  # days that the rules of a box reach: so long a box without any daemon knows its never-windows
)
WINDOWS_MOST: Final = 8
LONGEST: Final = 366 * 86400.0
LEAST_AFTER: Final = 300.0  # seconds: less than a few looks is no evidence
LEAST_DELETE: Final = 30 * 86400.0  # seconds: less is a holiday
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW: Final = re.compile(
    r"(?:(?P<days>[a-z,-]{3,40}) )?(?P<start>\d{2}:\d{2})-(?P<end>\d{2}:\d{2})(?: (?P<zone>[A-Za-z0-9_+/-]{1,64}))?\Z"
)


class Then(StrEnum):
    """What happens to a box that is idle."""

    WARM = "warm"  # saved and stopped, kept for the warm window
    COLD = "cold"  # saved, and nothing kept but the generation
    NOTIFY = "notify"  # only said


class IdlePolicy(msgspec.Struct, frozen=True):
    """Seconds; windows as words, see ``window``. ``hours``: when the box is wanted: outside of them it goes sooner.

    ``starts``: whether the daemon brings it up when the hours begin. ``deadman``: it is stopped so long after the last look
    of a daemon. ``lid``: a box on which nothing works goes so long after the last laptop has left; None: it does not care.
    ``delete``: an archived project that nobody used for so long is deleted; None: never.
    """

    after: float = 1800.0
    warn: float = 600.0
    then: Then = Then.WARM
    never: tuple[str, ...] = ()
    max_run: float | None = None
    hours: str | None = None
    starts: bool = False
    deadman: float = 86400.0
    lid: float | None = None
    delete: float | None = None

    @property
    def follows(self) -> float | None:
        """Seconds after which a box goes that every laptop has left; None: it stays."""
        return self.lid if self.then is not Then.NOTIFY else None


class Window(msgspec.Struct, frozen=True):
    """A time of the week that comes again and again; an end at or before the start is on the next day."""

    days: frozenset[int]  # 0 is Monday: the day on which it starts
    start: time
    end: time | None  # None: midnight at the end of the day
    zone: str

    def spans(self, begin: float, end: float) -> Iterator[tuple[float, float]]:
        """Its times between two moments, in Unix seconds. Clock changes are those of its zone."""
        zone = ZoneInfo(self.zone)
        day = datetime.fromtimestamp(begin, zone).date() - timedelta(days=1)
        while (first := _moment(day, self.start, zone)) < end:
            if day.weekday() in self.days:
                after = day + timedelta(days=1)
                if self.end is None:
                    last = _moment(after, time(), zone)
                else:
                    last = _moment(after if self.end <= self.start else day, self.end, zone)
                if last > begin and last > first:
                    yield first, last
            day += timedelta(days=1)


def _moment(day: date, at: time, zone: ZoneInfo) -> float:
    return datetime.combine(day, at, zone).timestamp()


def duration(text: str) -> float:
    """Read ``30m``, ``1h30m``, ``2d``: seconds.

    Raises:
        BadRequest: it is no time span.
    """
    seconds = parse_span(text)
    if seconds is None or not 0 < seconds <= LONGEST:
        raise BadRequest(f"{text!r} is no time span", hint="write it as 45m, 1h30m or 2d")
    return seconds


def window(text: str) -> Window:
    """Read ``22:00-07:00 Europe/Berlin``, ``mon-fri 09:00-18:00 America/New_York``, ``sat,sun 00:00-24:00``.

    Raises:
        BadRequest: with the part that can not be.
    """
    match = _WINDOW.match(" ".join(text.split()))
    if match is None:
        raise BadRequest(
            f"{text!r} is no time of the week", hint="write it as: mon-fri 22:00-07:00 Europe/Berlin"
        )
    zone = match["zone"] or "UTC"
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadRequest(
            f"{text!r}: there is no time zone {zone!r}", hint="zones are named as Europe/Berlin"
        ) from None
    start, end = _clock(match["start"], text), None if match["end"] == "24:00" else _clock(match["end"], text)
    return Window(frozenset(_days(match["days"] or "mon-sun", text)), start, end, zone)


def _clock(word: str, text: str) -> time:
    try:
        return time.fromisoformat(word)
    except ValueError:
        raise BadRequest(f"{text!r}: {word} is no time of the day", hint="00:00 to 24:00") from None


def _days(word: str, text: str) -> Iterator[int]:
    for part in word.split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise BadRequest(f"{text!r}: {part!r} names no days", hint=f"days are {', '.join(DAYS)}")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        yield from (day % 7 for day in range(begin, end + 1 if end >= begin else end + 8))


def checked(policy: IdlePolicy) -> IdlePolicy:
    """The policy, if it can be.

    Raises:
        BadRequest: it can not, with the value that is wrong.
    """
    if not LEAST_AFTER <= policy.after <= LONGEST:
        raise BadRequest("idle.after is at least 5m and at most 366d")
    if not 60.0 <= policy.warn <= policy.after:
        raise BadRequest("idle.warn is at least 1m, and not longer than idle.after")
    if policy.max_run is not None and not policy.after <= policy.max_run <= LONGEST:
        raise BadRequest("idle.max_run is not shorter than idle.after")
    if not max(policy.after, 3600.0) <= policy.deadman <= LONGEST:
        raise BadRequest("idle.deadman is at least 1h, and not shorter than idle.after")
    if policy.lid is not None and not LEAST_AFTER <= policy.lid <= LONGEST:
        raise BadRequest("idle.lid is at least 5m and at most 366d")
    if policy.delete is not None and not LEAST_DELETE <= policy.delete <= LONGEST:
        raise BadRequest("idle.delete is at least 30d and at most 366d: what is deleted does not come back")
    if len(policy.never) > WINDOWS_MOST:
        raise BadRequest(f"idle.never has more than {WINDOWS_MOST} windows")
    for one in policy.never:
        window(one)
    if policy.hours is not None:
        window(policy.hours)
    return policy


def rules(
    policy: IdlePolicy,
    now: float,
    *,
    started: float | None = None,
    held: float | None = None,
    leases: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """The policy as ``model.idle.decide`` takes it, good for ``AHEAD`` days.

    Args:
        started: when this run of the box began.
        held: Unix time before which it is not stopped.
        leases: as ``model.lease.for_box`` makes them.
    """
    begin, end = now - 86400.0, now + AHEAD * 86400.0
    never = sorted(one for text in policy.never for one in window(text).spans(begin, end))
    hours = sorted(window(policy.hours).spans(begin, end)) if policy.hours is not None else []
    return {
        "after": policy.after,
        "warn": policy.warn,
        "then": str(policy.then),
        "never": [list(one) for one in never[:SPANS_MOST]],
        "hours": [list(one) for one in hours[:SPANS_MOST]],
        "max_run": policy.max_run,
        "lid": policy.follows,
        "started": started,
        "held": held,
        "leases": list(leases),
    }


def signs_every(policy: IdlePolicy) -> float | None:
    """Seconds between two signs of a laptop that it is here; None: its looks do."""
    return policy.follows / 3 if policy.follows is not None else None


def sign_holds(policy: IdlePolicy) -> float | None:
    """Seconds that a sign of a laptop says that it is here: until the next one, and some more; None: as ``signs_every``."""
    return policy.follows / 2 if policy.follows is not None else None


def next_start(policy: IdlePolicy, now: float) -> float | None:
    """When the hours begin next, where the box is to be brought up then."""
    if policy.hours is None or not policy.starts:
        return None
    spans = window(policy.hours).spans(now, now + 8 * 86400.0)
    return next((begin for begin, _ in spans if begin > now), None)


def begun(policy: IdlePolicy, since: float, now: float) -> bool:
    """Whether its hours began between two moments, where the box is to be brought up then."""
    if policy.hours is None or not policy.starts or now <= since:
        return False
    return any(since < begin <= now for begin, _ in window(policy.hours).spans(since - 86400.0, now + 1.0))


def utc(at: float) -> str:
    """A moment for people, to the minute."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def when(text: str, now: float) -> float:
    """Read a moment: ``18:30``, ``18:30 Europe/Berlin`` (the next one) or RFC 3339.

    Raises:
        BadRequest: it is none.
    """
    clock, _, zone = text.strip().partition(" ")
    if re.match(r"\d{2}:\d{2}\Z", clock):
        found = window(f"{clock}-24:00 {zone or 'UTC'}" if clock != "24:00" else text)
        return next(begin for begin, _ in found.spans(now, now + 3 * 86400.0) if begin > now)
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BadRequest(
            f"{text!r} is no moment", hint="write it as 18:30, 18:30 Europe/Berlin or 2030-01-31T18:30:00Z"
        ) from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
