"""States and kinds by name. Each value stands in the API, the configuration or the journal as it is here.

A name that AWS gives is AWS's own spelling. What AWS shows and we do not know is ``UNKNOWN``, by ``read``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class _Read(StrEnum):
    """An enum for values that others choose: a value we have never heard of is ``unknown``."""

    @classmethod
    def read(cls, text: object) -> Self:
        """The member of that value; ``unknown`` where there is none."""
        try:
            return cls(str(text).lower())
        except ValueError:
            return cls("unknown")


class StoreEngine(StrEnum):
    """Where projects are written down."""

    SQLITE = "sqlite"  # a file of this machine
    DYNAMODB = "dynamodb"  # a table that several machines share

    @property
    def other(self) -> StoreEngine:
        """The one that it is not."""
        return StoreEngine.SQLITE if self is StoreEngine.DYNAMODB else StoreEngine.DYNAMODB


class InstanceState(_Read):
    """EC2's state of an instance, plus what we say where EC2 may not be asked."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"
    UNKNOWN = "unknown"

    @property
    def is_gone(self) -> bool:
        """Whether the instance never comes back."""
        return self in (InstanceState.SHUTTING_DOWN, InstanceState.TERMINATED)

    @property
    def is_stopped(self) -> bool:
        """Whether the instance rests, or is about to, and can be started again."""
        return self in (InstanceState.STOPPING, InstanceState.STOPPED)


class Connection(_Read):
    """Whether the agent of a box is connected to Session Manager (GetConnectionStatus, in lower case)."""

    CONNECTED = "connected"
    NOT_CONNECTED = "notconnected"
    UNKNOWN = "unknown"  # we may not ask


class SessionKind(StrEnum):
    """What a session of ours carries."""

    SHELL = "shell"  # a terminal that dies with its session
    MUX = "mux"  # a terminal in a multiplexer
    EXEC = "exec"
    PORT = "port"
    SSH = "ssh"  # a port session of the document for ssh
    CONTROL = "control"


class Mux(StrEnum):
    """What keeps a terminal's programs alive on the box when its session ends."""

    ZELLIJ = "zellij"
    TMUX = "tmux"
    NONE = "none"

    @property
    def stays(self) -> bool:
        """Whether there is anything to come back to."""
        return self is not Mux.NONE


class KeepAlive(StrEnum):
    """Whether a session is held against the service's inactivity limit."""

    AUTO = "auto"  # while somebody uses it
    ALWAYS = "always"
    NEVER = "never"


class BridgeUse(StrEnum):
    """Whether streams are carried over many sessions."""

    AUTO = "auto"  # where the box can
    NEVER = "never"


class Severity(StrEnum):
    """How much a condition matters."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Result(StrEnum):
    """What one check of the doctor found."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class StreamState(StrEnum):
    """How an attach is doing, as its status line says it."""

    STARTING = "starting"
    ONLINE = "online"
    RECONNECTING = "reconnecting"
    REOPENING = "reopening"  # the session is lost, and a new one joins the multiplexer
    STALLED = "stalled"  # the link is up, the box does not answer
    WAITING = "waiting"  # for a box that is stopped or starts
    NOTICE = "notice"  # a line for the person that changes nothing
    ENDING = "ending"


class LoginState(StrEnum):
    """Where a login stands."""

    OPEN = "open"  # a page wants to be visited
    CODE = "code"  # the code of an MFA device is wanted: ask again with it
    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


class LogLevel(StrEnum):
    """What goes to the log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
