"""The root of every failure that we report on purpose.

Concrete errors live beside the code that raises them; ``docs/errors.md`` lists them all and a test
compares that page with the classes.
"""

from __future__ import annotations

from typing import ClassVar


class DevboxError(Exception):
    """A failure that we report on purpose.

    ``code`` is part of the API: clients switch on it, so it never changes its meaning.
    ``exit_status`` is what ``devboxctl`` exits with (the table stands in ``docs/errors.md``).
    """

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False  # can the same call succeed later, unchanged?
    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class BadRequest(DevboxError):
    """The request itself is wrong: a name, a number or a combination that can never work."""

    code = "bad-request"
    exit_status = 2


class Unreachable(DevboxError):
    """Nothing answered in time, or the network is down."""

    code = "unreachable"
    retryable = True
    exit_status = 7


class LoginNeeded(DevboxError):
    """The AWS credentials have expired or are missing, and only a person can renew them."""

    code = "login-needed"
    retryable = True
    exit_status = 4


class Denied(DevboxError):
    """AWS refused the call for this identity."""

    code = "denied"
    exit_status = 6


class BoxNotFound(DevboxError):
    """No box answers to that name or id."""

    code = "box-not-found"
    exit_status = 3


class WrongState(DevboxError):
    """The box or session exists but cannot do this now (stopped, terminated, ended, in use)."""

    code = "wrong-state"
    exit_status = 5


class NotConnected(DevboxError):
    """The box is known but its agent is not connected to Session Manager (yet)."""

    code = "not-connected"
    retryable = True
    exit_status = 7
