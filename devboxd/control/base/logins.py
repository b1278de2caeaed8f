"""Look ahead: credentials that are about to expire are a condition before they are an outage."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from devboxd.control.base.shared import Shared
from devboxd.errors import DevboxError

LOOK_EVERY: Final = 60.0  # seconds
WARN_BEFORE: Final = 15 * 60.0  # seconds before a login ends
NOTICE_EVERY: Final = 3600.0  # seconds between two desktop notices of the same thing


class Account(Protocol):
    """The part of ``aws.clients.Account`` that is looked at."""

    @property
    def profile(self) -> str | None: ...
    def login_expires_in(self) -> float | None:
        """Seconds that the SSO login of this profile has left; None where there is none."""

    def login_refreshable(self) -> bool:
        """Say whether it renews itself."""


class LoginWatch:
    """Raises ``login-expiring`` and ``login-needed``, and withdraws them when a login is seen."""

    def __init__(
        self,
        shared: Shared,
        accounts: Callable[[], Sequence[Account]],
        notice: Callable[[str, str], Awaitable[object]],
    ) -> None:
        self._shared = shared
        self._accounts = accounts
        self._notice = notice
        self._noticed: dict[tuple[str, str], float] = {}

    async def run(self) -> None:
        """Look every minute, and at once after a login or a wake from sleep."""
        while True:
            for account in self._accounts():
                await self.look(account)
            await self._shared.bells.logins.wait(LOOK_EVERY)

    async def look(self, account: Account) -> None:
        """Look at one account."""
        name = account.profile or "default"
        try:
            left = account.login_expires_in()
            renews = account.login_refreshable()
        except DevboxError:
            return  # its configuration is broken, and every call with it says so
        if left is None or left > WARN_BEFORE or (renews and left > 0):
            self._shared.news.clear_condition("login-expiring", name)
            self._shared.news.clear_condition("login-needed", name)
            return
        hint = "devboxctl login" + (f" --profile {account.profile}" if account.profile else "")
        if left > 0:
            self._shared.news.raise_condition(
                "login-expiring", name, name=name, minutes=round(left / 60), mend=hint
            )
            await self._tell("login-expiring", name, f"the login of profile {name} ends soon; {hint}")
        else:
            self._shared.news.clear_condition("login-expiring", name)
            self._shared.news.raise_condition("login-needed", name, name=name, mend=hint)
            await self._tell("login-needed", name, f"the login of profile {name} has ended; {hint}")

    async def _tell(self, code: str, name: str, text: str) -> None:
        now = self._shared.time.wall()
        if now - self._noticed.get((code, name), float("-inf")) >= NOTICE_EVERY:
            self._noticed[(code, name)] = now
            await asyncio.shield(self._notice("devbox", text))
