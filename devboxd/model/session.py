"""A session as we hold it: its states, why it ended, and what follows from that."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class SessionState(StrEnum):
    """Where a held session stands."""

    STARTING = "starting"  # no session at AWS yet, or its first link is not up
    ONLINE = "online"
    RECONNECTING = "reconnecting"  # the link is down; the session may be alive
    STALLED = "stalled"  # the link is up, the box does not answer
    ENDED = "ended"


class Ending(StrEnum):
    """Why a session ended."""

    FINISHED = "finished"  # the service closed the channel: the program ended, or somebody ended it
    GONE = "gone"  # ResumeSession says that there is nothing left
    BROKEN = "broken"  # the channel cannot go on
    STOPPED = "stopped"  # we ended it
    FAILED = "failed"  # it never started
    SILENT = "silent"  # the far end never said a word: worth another try


class SessionEnd(msgspec.Struct, frozen=True):
    """How a session ended. ``reason`` is the service's or our text, for people; it may be empty."""

    ending: Ending
    reason: str = ""
    was_ready: bool = False
    error: Exception | None = None


class AfterEnd(StrEnum):
    """What an attach does when its session has ended."""

    LEAVE = "leave"  # the user is done
    REOPEN = "reopen"  # start a new session and join the mux again
    FAIL = "fail"  # say why and stop


# Session texts that a new session would only repeat (ssm-protocol: give-up strings).
_HOPELESS = (
    "unable to start command",
    "not supported by this version of ssm agent",
    "invalid uid and gid",
    "user does not exist",
    "commands cannot be empty",
    "is forbidden",
)
MAX_USELESS_STARTS = 3


def after_end(end: SessionEnd, *, mux: bool, program_ended: bool, useless_starts: int) -> AfterEnd:
    """Decide how an attach goes on.

    Args:
        mux: the far end runs a multiplexer that outlives the session.
        program_ended: our wrapper reported that the program itself ended (detached, or its last pane closed).
        useless_starts: sessions in a row that ended before the mux came up.
    """
    if program_ended or end.ending is Ending.STOPPED:
        return AfterEnd.LEAVE
    if end.ending is Ending.FAILED:
        return AfterEnd.FAIL
    if not mux:
        # A raw shell dies with its session; an empty reason is an ordinary exit.
        ordinary = end.ending is Ending.FINISHED and not end.reason
        return AfterEnd.LEAVE if ordinary else AfterEnd.FAIL
    reason = end.reason.lower()
    if any(text in reason for text in _HOPELESS) or useless_starts >= MAX_USELESS_STARTS:
        return AfterEnd.FAIL
    return AfterEnd.REOPEN
