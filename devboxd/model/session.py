"""A session as we hold it: its states, and why it ended."""

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
    error: Exception | None = None
