"""What a session is asked for, and who hears of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from devboxd.model.box import Account
from devboxd.model.session import SessionState
from devboxd.model.states import KeepAlive, SessionKind
from devboxd.ssm import effect
from devboxd.ssm.limits import Limits
from devboxd.ssm.payload import PayloadType

Message = tuple[PayloadType, bytes]  # something to send


def no_touch() -> Message | None:
    """Nothing of its own keeps this kind of session alive."""
    return None


class Plan(msgspec.Struct, frozen=True):
    """What to start: the document and its parameters, and how patient to be about it."""

    target: str
    box: str  # the box's name, for people
    kind: SessionKind
    name: str | None = None  # of the session on the box, for people
    account: Account = Account()
    document: str | None = None
    parameters: Mapping[str, str] = {}
    limits: Limits = Limits()
    wait: float | None = 120.0  # seconds for a box that is not connected yet; None: for ever
    patient: bool = False  # wait for a login, too, instead of failing
    priority: float = 0.0  # lower goes first when many sessions come back at once
    keep_alive: KeepAlive = KeepAlive.AUTO
    attended: bool = False  # somebody waits for answers from the start: look for a dead far end
    wanted: bool = False  # somebody may come back to it: keep it alive
    touch: Callable[[], Message | None] = no_touch  # what to send so that its idle time-out starts afresh


class Sink(Protocol):
    """Who a session's output goes to. Every call is immediate and must not raise."""

    def ready(self, ready: effect.Ready) -> None: ...
    def output(self, data: bytes) -> None: ...
    def error_output(self, data: bytes) -> None: ...
    def exit_code(self, code: int) -> None: ...
    def flag(self, number: int) -> None: ...
    def notice(self, text: str) -> None: ...
    def skipped(self, frames: int) -> None: ...
    def state(self, state: SessionState, text: str, retry_in: float | None) -> None: ...


class Quiet:
    """A sink that ignores everything: inherit and override what matters."""

    def ready(self, ready: effect.Ready) -> None:
        """The far end takes data."""

    def output(self, data: bytes) -> None:
        """Bytes of the far end."""

    def error_output(self, data: bytes) -> None:
        """Standard error of a non-interactive command."""

    def exit_code(self, code: int) -> None:
        """Exit status of a non-interactive command."""

    def flag(self, number: int) -> None:
        """A flag of the far end."""

    def notice(self, text: str) -> None:
        """The agent's own words, for a person at a terminal: nothing for a program's standard error."""

    def skipped(self, frames: int) -> None:
        """Output is missing here, as ``HeldSession.skip_gaps`` allowed."""

    def state(self, state: SessionState, text: str, retry_in: float | None) -> None:
        """The session's state changed."""
