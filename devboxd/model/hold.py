"""The table of a session: what happened, and what to do next.

A link dies, a session ends. Whatever a network does, a session is tried for; only the service's word
(``channel_closed``, a ResumeSession without a token), an unrecoverable channel or our own wish ends it.

``TABLE`` is the decision, one row for each thing that can happen; ``docs/protocol.md`` 11 shows it to people,
and a test compares the two. ``next_step`` applies a row to the past of one session. The verdicts below it
judge a session that is up: whether to ask the far end for a sign of life, and what to do without one.

No clock and no dice here: ``now`` is monotonic seconds, ``dice`` a number in [0, 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from devboxd.errors import (
    BadRequest,
    Denied,
    DevboxError,
    LoginNeeded,
    NotConnected,
    SessionOver,
    Throttled,
)
from devboxd.model.proxy import AUTHENTICATION
from devboxd.model.retry import wait_before
from devboxd.model.session import Ending
from devboxd.model.states import KeepAlive

STABLE_AFTER: Final = 1.0  # seconds a link must live before the back-off starts afresh
CARRIED_AFTER: Final = 0.25  # and if the far end was heard over it: less would be a storm of calls
ATTENDED_WAIT: Final = 2.0  # seconds between two tries while somebody waits, at most
WANTED_WAIT: Final = 5.0  # the same for a session that somebody may come back to
OUTAGE_SHARE: Final = 30  # these bounds grow to such a part of the outage so far
MUTE_LINKS: Final = 4  # links in a row that died without a frame before we ask whether the session exists
TARGET_POLL: Final = 3.0  # seconds between tries while the box is not connected
LOGIN_POLL: Final = 30.0  # seconds after which expired credentials are tried again, announced or not
LAST_WAIT: Final = 0.05  # seconds before the last try at the deadline, at least
SILENT_STARTS: Final = 3  # sessions that we start before we believe that the box cannot

BEAT: Final = 5.0  # seconds between two looks at all sessions
PROBE_AFTER: Final = 9.0  # seconds of silence before an attended session asks the far end
STALLED_AFTER: Final = 4.5  # seconds without an answer before we say that the box is silent: noticed in 15
NEVER_QUIET: Final = 60.0  # seconds without traffic after which a session under ``never`` is left alone
KEEP_ALIVE: Final = 45.0  # seconds of quiet; the shortest idle time-out an account can set is 60
WAKE_ANSWER: Final = 2.5  # seconds a link has to show life after sleep or a network change
SILENT_START: Final = 20.0  # seconds the far end has for its first sign of life
SILENT_LINK: Final = 5.0  # and at least so long on each link: the network may have been away until now
SKIP_LOOK: Final = 0.25  # seconds between two looks for a gap
AGENT_REPAIR: Final = 0.1  # seconds that the agent takes for each frame it sends again


class Happened(StrEnum):
    """What can happen to a session, as the documentation says it."""

    STARTED = "StartSession gave us a session"
    START_ABSENT = "StartSession: the box is not connected"
    START_LOGIN = "StartSession: the credentials have expired"
    START_TROUBLE = "StartSession: throttled, no network, a fault of AWS"
    START_FINAL = "StartSession: refused for good"
    LINK_UNAUTHORIZED = "the link was refused with 401 or 403"
    LINK_PROXY = "the proxy refuses our user and password"
    LINK_MUTE = "the link could not be dialled, or died without a frame"
    LINK_YOUNG = "the link died within a second"
    LINK_CUT = "the link died within a second, after the far end was heard over it"
    LINK_OLD = "the link was lost"
    DIAL_CUT = "the network changed while we dialled"
    SILENT = "the far end has not said a word"
    EXISTS = "the session exists, or we may not know"
    EXISTS_NOT = "the session does not exist"
    RESUMED = "ResumeSession gave us a token"
    RESUME_OVER = "ResumeSession: there is nothing to resume"
    RESUME_LOGIN = "ResumeSession: the credentials have expired"
    RESUME_DENIED = "ResumeSession: not allowed any more, or the profile is gone"
    RESUME_THROTTLED = "ResumeSession: throttled"
    RESUME_TROUBLE = "ResumeSession: no network, a fault of AWS"
    RESUME_CUT = "the network changed while we asked ResumeSession"
    CLOSED = "the service closed the channel"
    BROKEN = "the channel cannot go on"
    KEYLESS = "the data key of the session cannot be had"
    STOPPED = "we were told to stop"


class Do(StrEnum):
    """What to do next."""

    START = "start"
    DIAL = "dial"
    RESUME = "resume"
    LOOK = "ask whether it exists"
    RESTART = "end it and start another"
    END = "end"


class Wait(StrEnum):
    """What to wait for before that. A ring of the network bell cuts every wait short but the one for a login."""

    NO = "at once"
    SOON = "after 0.02 to 0.2 s"
    BACK_OFF = "after a back-off"
    PATIENCE = "after a back-off, bounded while somebody waits"
    POLL = "after 2 to 4 s"
    LOGIN = "after a login, or 30 s"


class When(StrEnum):
    """Under what a row's exception holds instead of the row."""

    LATE = "the time to start is over"
    HASTY = "nobody waits for a login"
    NEVER = "no link of the session has worked yet"
    UNWATCHED = "nobody would miss it"
    FOURTH = "the fourth in a row"
    THIRD = "the third session"


class Rule(msgspec.Struct, frozen=True):
    """One row: what to do and when, how the session ended by it, and the exception."""

    do: Do
    wait: Wait = Wait.NO
    ending: Ending | None = None
    but: tuple[When, Rule] | None = None


_FAIL: Final = Rule(Do.END, ending=Ending.FAILED)
_OF_A_LINK: Final = frozenset(
    {
        Happened.LINK_UNAUTHORIZED,
        Happened.LINK_MUTE,
        Happened.LINK_YOUNG,
        Happened.LINK_CUT,
        Happened.EXISTS,
    }
)

TABLE: Final[Mapping[Happened, Rule]] = {
    Happened.STARTED: Rule(Do.DIAL),
    Happened.START_ABSENT: Rule(Do.START, Wait.POLL, but=(When.LATE, _FAIL)),
    Happened.START_LOGIN: Rule(Do.START, Wait.LOGIN, but=(When.HASTY, _FAIL)),
    Happened.START_TROUBLE: Rule(Do.START, Wait.BACK_OFF, but=(When.LATE, _FAIL)),
    Happened.START_FINAL: _FAIL,
    Happened.LINK_UNAUTHORIZED: Rule(Do.RESUME, Wait.PATIENCE, but=(When.FOURTH, Rule(Do.LOOK))),
    Happened.LINK_PROXY: Rule(Do.RESUME, Wait.BACK_OFF, but=(When.NEVER, _FAIL)),
    Happened.LINK_MUTE: Rule(Do.RESUME, Wait.PATIENCE, but=(When.FOURTH, Rule(Do.LOOK))),
    Happened.LINK_YOUNG: Rule(Do.RESUME, Wait.PATIENCE),
    Happened.LINK_CUT: Rule(Do.RESUME, Wait.SOON, but=(When.UNWATCHED, Rule(Do.RESUME, Wait.PATIENCE))),
    Happened.LINK_OLD: Rule(Do.RESUME),
    Happened.DIAL_CUT: Rule(Do.RESUME),
    Happened.SILENT: Rule(Do.RESTART, but=(When.THIRD, _FAIL)),
    Happened.EXISTS: Rule(Do.RESUME, Wait.PATIENCE),
    Happened.EXISTS_NOT: Rule(Do.END, ending=Ending.GONE),
    Happened.RESUMED: Rule(Do.DIAL),
    Happened.RESUME_OVER: Rule(Do.END, ending=Ending.GONE),
    Happened.RESUME_LOGIN: Rule(Do.RESUME, Wait.LOGIN),
    Happened.RESUME_DENIED: Rule(Do.RESUME, Wait.LOGIN),
    Happened.RESUME_THROTTLED: Rule(Do.RESUME, Wait.BACK_OFF),
    Happened.RESUME_TROUBLE: Rule(Do.RESUME, Wait.PATIENCE),
    Happened.RESUME_CUT: Rule(Do.RESUME),
    Happened.CLOSED: Rule(Do.END, ending=Ending.FINISHED),
    Happened.BROKEN: Rule(Do.END, ending=Ending.BROKEN),
    Happened.KEYLESS: _FAIL,
    Happened.STOPPED: Rule(Do.END, ending=Ending.STOPPED),
}


class Interest(StrEnum):
    """Who would miss the session."""

    NOBODY = "nobody"
    LATER = "later"  # somebody may come back to it
    NOW = "now"  # somebody waits for answers


class Past(msgspec.Struct, frozen=True):
    """What the table has to know of a session's past. Times are monotonic seconds."""

    began: float  # when its start was first asked for
    lost_at: float  # when the last link that worked was lost; before the first one, ``began``
    patience: float | None = None  # seconds for the start; None: for ever
    waits_for_login: bool = False
    tries: int = 0  # waits since something worked
    mute: int = 0  # links in a row that died without a frame
    sessions: int = 1  # that were started one after another
    signs: bool = True  # whether to sign the upgrade: some gateways want a signature, some refuse one


class Step(msgspec.Struct, frozen=True):
    """What to do next, after ``wait`` seconds (a bound, where it is a login that is waited for)."""

    do: Do
    wait: float = 0.0
    for_login: bool = False
    ending: Ending | None = None


def next_step(
    past: Past, happened: Happened, now: float, dice: float, *, interest: Interest, rang: bool = False
) -> tuple[Past, Step]:
    """Say what to do now that this has happened, and what to remember of it.

    Args:
        rang: the network changed since the link was dialled. A link that died with the old network is no sign
            of trouble, so nothing is waited for. (A call that failed since then was made over the new one.)
    """
    past = _remember(past, happened, now)
    rule = TABLE[happened]
    if rule.but is not None and _holds(rule.but[0], past, now, interest):
        rule = rule.but[1]
    wait = 0.0
    match rule.wait:
        case Wait.SOON if not rang:
            wait = wait_before(0, dice)
            past = msgspec.structs.replace(past, tries=min(past.tries, 1))
        case Wait.BACK_OFF | Wait.PATIENCE if not (rang and happened in _OF_A_LINK):
            wait = wait_before(past.tries, dice)
            past = msgspec.structs.replace(past, tries=past.tries + 1)
            if rule.wait is Wait.PATIENCE:
                wait = min(wait, _patience(now - past.lost_at, interest, dice))
        case Wait.POLL:
            wait = TARGET_POLL * (0.7 + 0.6 * dice)
        case Wait.LOGIN:
            wait = LOGIN_POLL
    if rule.do is Do.START and past.patience is not None and rule.wait is not Wait.LOGIN:
        wait = min(wait, max(LAST_WAIT, past.began + past.patience - now))
    if rule.do is Do.RESTART:
        past = msgspec.structs.replace(past, began=now, tries=0, mute=0, sessions=past.sessions + 1)
    return past, Step(rule.do, wait, rule.wait is Wait.LOGIN, rule.ending)


def _remember(past: Past, happened: Happened, now: float) -> Past:
    """The past, with this in it."""
    replace = msgspec.structs.replace
    match happened:
        case Happened.STARTED:
            return replace(past, tries=0)
        case Happened.LINK_OLD:
            return replace(past, lost_at=now, mute=0, tries=0)
        case Happened.LINK_YOUNG | Happened.LINK_CUT:
            return replace(past, lost_at=now, mute=0)
        case Happened.LINK_MUTE:
            return replace(past, mute=past.mute + 1)
        case Happened.LINK_UNAUTHORIZED:
            return replace(past, mute=past.mute + 1, signs=not past.signs)
        case _:
            return past


def _holds(when: When, past: Past, now: float, interest: Interest) -> bool:
    match when:
        case When.LATE:
            return past.patience is not None and now >= past.began + past.patience
        case When.HASTY:
            return not past.waits_for_login
        case When.NEVER:
            return past.lost_at <= past.began
        case When.UNWATCHED:
            return interest is Interest.NOBODY
        case When.FOURTH:
            return past.mute % MUTE_LINKS == 0
        case When.THIRD:
            return past.sessions >= SILENT_STARTS


def _patience(outage: float, interest: Interest, dice: float) -> float:
    """The longest wait behind which somebody sits: a network may come back without a word to us.

    It grows with the outage, so that a laptop that is off line for a day does not call each second.
    """
    if interest is Interest.NOBODY:
        return float("inf")
    least = ATTENDED_WAIT if interest is Interest.NOW else WANTED_WAIT
    return max(least, outage / OUTAGE_SHARE) * (0.5 + 0.5 * dice)


# What an answer means ----------------------------------------------------------------------------------


def start_refused(error: DevboxError) -> Happened:
    """What a refused StartSession is to the table."""
    if isinstance(error, LoginNeeded):
        return Happened.START_LOGIN
    if isinstance(error, NotConnected):
        return Happened.START_ABSENT
    return Happened.START_TROUBLE if error.retryable else Happened.START_FINAL


def resume_refused(error: DevboxError) -> Happened:
    """What a refused ResumeSession is to the table. Only the service's own word is the end."""
    if isinstance(error, LoginNeeded):
        return Happened.RESUME_LOGIN
    # BadRequest: the profile or its region is no longer in ~/.aws/config. Both want a person.
    if isinstance(error, Denied | BadRequest):
        return Happened.RESUME_DENIED
    if isinstance(error, SessionOver):
        return Happened.RESUME_OVER
    return Happened.RESUME_THROTTLED if isinstance(error, Throttled) else Happened.RESUME_TROUBLE


def link_over(*, lived: float, heard: bool, carried: bool = False, status: int | None = None) -> Happened:
    """What a lost link is to the table.

    Args:
        lived: seconds that it was up; 0 where it never was.
        heard: a message came over it, if only the gateway's.
        carried: the far end was heard over it.
        status: of the HTTP answer that refused it.
    """
    if status == AUTHENTICATION:
        return Happened.LINK_PROXY
    if status in (401, 403):
        return Happened.LINK_UNAUTHORIZED
    if not heard:
        return Happened.LINK_MUTE
    if lived > STABLE_AFTER:
        return Happened.LINK_OLD
    return Happened.LINK_CUT if carried and lived > CARRIED_AFTER else Happened.LINK_YOUNG


# Verdicts on a session that is up -----------------------------------------------------------------------


class Liveness(StrEnum):
    """What to make of a session on a live link."""

    FINE = "fine"
    PROBE = "probe"  # ask the far end for a sign of life
    STALLED = "stalled"  # it does not answer: the link is up, and nobody is behind it


class Signs(msgspec.Struct, frozen=True):
    """What was last seen of a session on a live link. Monotonic seconds."""

    heard_at: float  # the last message, if only the gateway's
    far_end_at: float = 0.0  # the far end's own last sign of life; 0: none yet
    used_at: float = 0.0  # the last bytes that somebody sent or got
    touched_at: float = 0.0  # when it was last kept from its idle time-out; 0: never
    probed_at: float | None = None  # since when a probe is not answered
    waits: bool = False  # something of ours is not acknowledged


def may_ask(policy: KeepAlive, used_at: float, now: float) -> bool:
    """Say whether the keep-alive policy lets us send what may count as activity at the service.

    ``never`` leaves a session alone once nothing has passed for a minute, so that it can idle out.
    """
    return policy is not KeepAlive.NEVER or now - used_at < NEVER_QUIET


def liveness(signs: Signs, now: float, *, policy: KeepAlive, interest: Interest) -> Liveness:
    """Judge a session at a beat; a dead far end behind a live link is noticed within 15 s."""
    if signs.probed_at is not None:
        # Over a thin line the probe waits behind what was sent before: any sign of life will do.
        silent = now - max(signs.probed_at, signs.far_end_at)
        return Liveness.STALLED if silent > STALLED_AFTER else Liveness.FINE
    quiet = now - signs.heard_at >= PROBE_AFTER - BEAT
    asks = interest is Interest.NOW and quiet and may_ask(policy, signs.used_at, now)
    return Liveness.PROBE if signs.waits or asks else Liveness.FINE


def keeps_alive(signs: Signs, now: float, *, policy: KeepAlive, interest: Interest) -> bool:
    """Say whether to touch a quiet session at a beat, so that its idle time-out starts afresh."""
    if policy is KeepAlive.NEVER or (policy is KeepAlive.AUTO and interest is Interest.NOBODY):
        return False
    return now - signs.touched_at >= KEEP_ALIVE and now - signs.used_at >= KEEP_ALIVE - BEAT


def silent_start_left(started_at: float, linked_at: float, now: float) -> float:
    """Seconds that a far end without a word still has; 0 or less: its session was never started.

    The agent drops a session task that comes just after its own start, without a word.
    """
    return max(started_at + SILENT_START, linked_at + SILENT_LINK) - now


def skips_gap(missing: int, missed_before: int, age: float, patience: float) -> bool:
    """Say whether to give up missing frames whose bytes can be had otherwise.

    Args:
        missing: frames that are missing now.
        missed_before: at the last look; a burst on its way is no gap yet.
        age: seconds since the oldest of them is missing.
        patience: seconds that a frame may be missing.
    """
    repair = min(missing, missed_before) * AGENT_REPAIR
    return missing > 0 and (repair > 2 * patience or age > patience)
