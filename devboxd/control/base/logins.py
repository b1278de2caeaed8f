"""Logins have one owner: who waits for credentials waits here, and one condition says what mends them.

Every call to AWS reports whether its credentials were taken, of whatever kind they are. A session that was
refused waits; it goes on when new credentials are seen (a login here or elsewhere), when any call with the
same account works again, or when it is its turn to try for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from devboxd.control.base.bells import Bell
from devboxd.control.base.news import News
from devboxd.control.base.time import Time
from devboxd.errors import DevboxError, LoginNeeded
from devboxd.model.box import Account
from devboxd.model.login import Login, Seen, Source, Verdict, logins

LOOK_EVERY: Final = 60.0  # seconds
NOTICE_EVERY: Final = 3600.0  # seconds between two desktop notices of the same thing
REARM_EVERY: Final = 5.0  # seconds: one service may take what another refuses, and nobody must spin on that


class Credentials(Protocol):
    """The credentials of one account."""

    @property
    def key(self) -> Account:
        """As it was asked for."""

    @property
    def profile_name(self) -> str:
        """The profile that is used, also where none was asked for."""

    def source(self) -> Source:
        """Where they come from. Raises DevboxError where the configuration is broken."""


class CredentialsInUse(Protocol):
    """The credentials of all accounts that are in use."""

    def known(self) -> Sequence[Credentials]: ...
    async def refresh(self) -> None:
        """Forget what is cached, so that the next call reads the settings anew."""


@dataclass(slots=True, eq=False)
class _Room:
    """What is known of one account, and who waits for it."""

    refused: LoginNeeded | None = None
    has_worked: bool = False
    denied: dict[object, DevboxError] = field(default_factory=dict)
    waiting: dict[object, None] = field(default_factory=dict)  # the longest waiting first
    moved: Bell = field(default_factory=Bell)  # somebody left, or all may try again
    armed: int = 0  # how often all were let go
    armed_at: float = float("-inf")
    timer: asyncio.TimerHandle | None = None  # will let them go


class Logins:
    """Where sessions wait for credentials. Every method but ``wait`` is immediate."""

    def __init__(self, time: Time) -> None:
        self._time = time
        self._rooms: dict[Account, _Room] = {}
        self.changed = Bell()  # the facts did
        self.renewals = 0  # how often credentials or settings may have become others

    def heard(self, account: Account, refusal: LoginNeeded | None) -> None:
        """A call of this account was answered, or its credentials were refused."""
        room = self._rooms.setdefault(account, _Room())
        before = (room.refused is None, room.has_worked)
        if refusal is not None:
            room.refused = refusal
        else:
            room.has_worked = True
            if not room.waiting:
                room.refused = None
            elif room.refused is not None and room.timer is None:
                # Those who wait will find out whether it is so for them, too.
                soon = max(0.0, room.armed_at + REARM_EVERY - self._time.monotonic())
                room.timer = asyncio.get_running_loop().call_later(soon, self._let_go, room)
        if before != (room.refused is None, room.has_worked):
            self.changed.ring()

    async def wait(self, account: Account, why: DevboxError | None, longest: float) -> bool:
        """Wait until it is worth asking again; say whether that is only because it is this caller's turn.

        Args:
            why: what the credentials were refused with, or the call.
            longest: seconds after which the one who waits longest tries, for all: the others have the next turns.
        """
        room = self._rooms.setdefault(account, _Room())
        if isinstance(why, LoginNeeded):
            room.refused = why
        armed, me, turn = room.armed, object(), None
        room.waiting[me] = None
        if why is not None and not isinstance(why, LoginNeeded):
            room.denied[me] = why
        self.changed.ring()
        try:
            while room.armed == armed:
                now = self._time.monotonic()
                if turn is None and next(iter(room.waiting)) is me:
                    turn = now + longest
                if not await room.moved.wait(None if turn is None else max(0.0, turn - now)):
                    return True
            return False
        finally:
            del room.waiting[me]
            room.denied.pop(me, None)
            room.moved.ring()
            self.changed.ring()

    def renewed(self) -> None:
        """Credentials may be new: all who wait try again, and what nobody waits for is taken to be mended."""
        self.renewals += 1
        for room in self._rooms.values():
            if not room.waiting:
                room.refused = None
            self._let_go(room)
        self.changed.ring()

    def seen(self, credentials: Credentials) -> Seen:
        """What is known of an account. Raises DevboxError where its configuration is broken."""
        room = self._rooms.get(credentials.key) or _Room()
        refused = room.refused.message if room.refused is not None else None
        source = credentials.source()
        return Seen(credentials.profile_name, source, refused, len(room.waiting), room.has_worked)

    def denied(self) -> dict[Account, tuple[DevboxError, int]]:
        """Accounts whose calls are not allowed though the credentials are good: why, and how many wait."""
        return {
            account: (next(iter(room.denied.values())), len(room.denied))
            for account, room in self._rooms.items()
            if room.denied
        }

    def _let_go(self, room: _Room) -> None:
        if room.timer is not None:
            room.timer.cancel()
            room.timer = None
        room.armed += 1
        room.armed_at = self._time.monotonic()
        room.moved.ring()


class LoginWatch:
    """Looks at every login, ahead of time too, and says once what a person has to do."""

    def __init__(
        self,
        time: Time,
        news: News,
        rooms: Logins,
        in_use: CredentialsInUse,
        notice: Callable[[str, str], Awaitable[object]],
    ) -> None:
        self._time = time
        self._news = news
        self._rooms = rooms
        self._in_use = in_use
        self._notice = notice
        self._noticed: dict[tuple[str, str], float] = {}
        self._standing: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Look every minute, and at once where credentials are refused, work again or may be new."""
        while True:
            rings = self._rooms.changed.rings
            await self.look()
            if rings == self._rooms.changed.rings:
                await self._rooms.changed.wait(LOOK_EVERY)

    async def renew(self) -> None:
        """Somebody has logged in: read everything anew, and let all who wait try."""
        await self._in_use.refresh()
        self.rearm()

    def rearm(self) -> None:
        """Let all who wait try: a call that is refused reads the credentials anew by itself."""
        self._rooms.renewed()

    def known(self) -> list[Login]:
        """Every login that is in use, judged."""
        seen = []
        for credentials in self._in_use.known():
            try:
                seen.append(self._rooms.seen(credentials))
            except DevboxError:
                continue  # its configuration is broken, and every call with it says so
        return logins(seen)

    async def look(self) -> None:
        """Judge every login once, and tell what has changed."""
        standing = set()
        for login in self.known():
            if login.verdict in (Verdict.EXPIRING, Verdict.NEEDED):
                standing.add(await self._state(login))
        for account, (error, count) in self._rooms.denied().items():
            subject = f"{account.profile or 'default'} {account.region or ''}".strip()
            sessions = "a session waits" if count == 1 else f"{count} sessions wait"
            self._news.raise_condition(
                "resume-refused", subject, problem=error.message, sessions=sessions, hint=error.hint
            )
            standing.add(("resume-refused", subject))
        for code, subject in self._standing - standing:
            self._news.clear_condition(code, subject)
        self._standing = standing

    async def _state(self, login: Login) -> tuple[str, str]:
        subject = f"{login.source.method} {login.source.name}"
        if login.verdict is Verdict.NEEDED:
            code = "login-needed"
            self._news.raise_condition("login-needed", subject, problem=login.problem, mend=login.mend)
        else:
            code = "login-expiring"
            self._news.raise_condition("login-expiring", subject, problem=login.problem, mend=login.mend)
        now = self._time.wall()
        if now - self._noticed.get((code, subject), float("-inf")) >= NOTICE_EVERY:
            self._noticed[(code, subject)] = now
            await asyncio.shield(self._notice("devbox", f"{login.problem}; {login.mend}"))
        return code, subject
