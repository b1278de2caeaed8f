"""Every failure that we report on purpose: the root, its kinds, and the errors that policy decides on.

Errors that nobody decides on live beside the code that raises them; ``docs/errors.md`` lists them all and a
test compares that page with the classes. ``devboxctl`` has this module in its start-up path, so it imports
nothing that costs.
"""

from __future__ import annotations

from enum import StrEnum

TYPE_CHECKING = False  # mypy takes it for typing.TYPE_CHECKING; importing typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, ClassVar, Final


class Kind(StrEnum):
    """What a failure means for whoever asked. Exit status and HTTP status follow from it."""

    FAILED = "failed"
    USAGE = "usage"  # the command line, the configuration or a name is wrong
    NOT_FOUND = "not-found"
    LOGIN = "login"
    STATE = "state"  # it is there and cannot do this now
    DENIED = "denied"
    UNREACHABLE = "unreachable"
    PENDING = "pending"
    POLICY = "policy"  # a budget, a quota or a rule of ours says no
    NO_DAEMON = "no-daemon"


# Kind: exit status of devboxctl, HTTP status of the API. docs/errors.md explains them.
STATUS: Final[Mapping[Kind, tuple[int, int]]] = {
    Kind.FAILED: (1, 500),
    Kind.USAGE: (2, 400),
    Kind.NOT_FOUND: (3, 404),
    Kind.LOGIN: (4, 401),
    Kind.STATE: (5, 409),
    Kind.DENIED: (6, 403),
    Kind.UNREACHABLE: (7, 503),
    Kind.PENDING: (8, 409),
    Kind.POLICY: (9, 403),
    Kind.NO_DAEMON: (69, 503),  # EX_UNAVAILABLE, sysexits.h
}


def exit_status(kind: Kind) -> int:
    """What ``devboxctl`` exits with."""
    return STATUS[kind][0]


def http_status(kind: Kind) -> int:
    """What the API answers with."""
    return STATUS[kind][1]


class DevboxError(Exception):
    """A failure that we report on purpose.

    ``code`` is part of the API: clients switch on it, so it never changes its meaning.
    """

    code: ClassVar[str] = "internal"
    kind: ClassVar[Kind] = Kind.FAILED
    retryable: ClassVar[bool] = False  # can the same call succeed later, unchanged?

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ListenerClosed(Exception):
    """``accept`` on a listener that was closed: the end of the accept loop, not a fault."""


class BadRequest(DevboxError):
    """The request itself is wrong: a name, a number or a combination that can never work."""

    code = "bad-request"
    kind = Kind.USAGE


class Unreachable(DevboxError):
    """Nothing answered in time, or the network is down."""

    code = "unreachable"
    kind = Kind.UNREACHABLE
    retryable = True


class LoginNeeded(DevboxError):
    """The AWS credentials have expired or are missing, and only a person can renew them."""

    code = "login-needed"
    kind = Kind.LOGIN
    retryable = True


class Denied(DevboxError):
    """AWS refused the call for this identity."""

    code = "denied"
    kind = Kind.DENIED


class BoxNotFound(DevboxError):
    """No box answers to that name or id."""

    code = "box-not-found"
    kind = Kind.NOT_FOUND


class BoxAmbiguous(BadRequest):
    """A name, or the beginning of one, means several boxes."""

    code = "box-ambiguous"


class WrongState(DevboxError):
    """The box or session exists but cannot do this now (stopped, terminated, ended, in use)."""

    code = "wrong-state"
    kind = Kind.STATE


class BoxStopped(WrongState):
    """The box is switched off, or on its way there: it can be started again."""

    code = "box-stopped"


class BoxGone(WrongState):
    """The box has been terminated: it comes back as another one, or not at all."""

    code = "box-gone"


class StateNotSaved(DevboxError):
    """Something that is to outlive the daemon could not be written: a full or read-only disk, as a rule."""

    code = "state-not-saved"
    retryable = True


class NotConnected(DevboxError):
    """The box is known but its agent is not connected to Session Manager (yet)."""

    code = "not-connected"
    kind = Kind.UNREACHABLE
    retryable = True


# Sessions and links ---------------------------------------------------------------------------------


class SessionOver(DevboxError):
    """The session has ended and can not be resumed."""

    code = "session-over"
    kind = Kind.STATE


class DocumentInvalid(BadRequest):
    """The session document does not exist, or does not take these parameters."""

    code = "document-invalid"


class LinkLost(DevboxError):
    """The link is gone (or could not be made); the session may live on.

    ``close_code`` is the peer's, or 1006 when it sent none, or None when there never was a link.
    """

    code: ClassVar[str] = "link-lost"
    kind = Kind.UNREACHABLE
    retryable = True

    def __init__(self, reason: str, *, close_code: int | None = None, hint: str | None = None) -> None:
        super().__init__(reason, hint=hint)
        self.close_code = close_code


class LinkRefused(DevboxError):
    """The gateway answered the upgrade with something else than 101."""

    code: ClassVar[str] = "link-refused"
    kind = Kind.UNREACHABLE
    retryable = True

    def __init__(self, status: int, reason: str = "", *, hint: str | None = None) -> None:
        super().__init__(reason or f"the gateway refused the connection ({status})", hint=hint)
        self.status = status


class PortInUse(DevboxError):
    """Somebody else listens on that port or path."""

    code = "port-in-use"
    kind = Kind.STATE


class PortDenied(DevboxError):
    """The system does not let us listen there."""

    code = "port-denied"
    kind = Kind.STATE


# What AWS says, as far as somebody acts on it -------------------------------------------------------


class Throttled(DevboxError):
    """AWS asks us to slow down."""

    code = "throttled"
    kind = Kind.UNREACHABLE
    retryable = True


class Missing(DevboxError):
    """AWS shows no such thing. After a create that means: not yet; after our delete: done; else: look again."""

    code = "missing"
    kind = Kind.NOT_FOUND


class InUse(WrongState):
    """Something else still holds it (a volume its instance, a snapshot its image), or it is not ready yet."""

    code = "in-use"
    retryable = True


class AlreadyExists(WrongState):
    """There is one of that name already. Ours, if an earlier call got through without our hearing of it."""

    code = "already-exists"


class Protected(WrongState):
    """Termination or deletion protection is on."""

    code = "protected"


class NoCapacity(DevboxError):
    """AWS has no such machine free in this zone now, or does not offer the type there."""

    code = "no-capacity"
    retryable = True


class QuotaReached(DevboxError):
    """The account may not have more of this. A person has to ask AWS for more, or give something up."""

    code = "quota-reached"
    kind = Kind.POLICY


class Conflict(WrongState):
    """Somebody else has changed it since we looked: look again, then decide again.

    ``items``: what is there now, as DynamoDB returned it (in its own types); empty where it was not asked to.
    """

    code = "conflict"
    retryable = True

    def __init__(
        self, message: str, *, hint: str | None = None, items: tuple[Mapping[str, Any], ...] = ()
    ) -> None:
        super().__init__(message, hint=hint)
        self.items = items


class TokenUsed(WrongState):
    """The request's token was used with other arguments before: what it made is not what we ask for now."""

    code = "token-used"
