"""What AWS has billed, at hand: asked for once a day and owner at most, because that costs, and only where it is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from devboxd.control.base.needs import BillFiles, BillLists
from devboxd.control.base.shared import Shared
from devboxd.errors import DevboxError
from devboxd.model import billed
from devboxd.model.billed import Billed
from devboxd.model.box import Account
from devboxd.model.cost import DAY


@dataclass(slots=True)
class Bills:
    """The bills of every owner that somebody asked about. ``wanted``: whether it may be asked at all."""

    shared: Shared
    lists: BillLists
    files: BillFiles
    wanted: Callable[[], bool]
    _known: dict[str, Billed | None] = field(default_factory=dict)
    _tried: dict[str, float] = field(default_factory=dict)  # monotonic
    _problems: dict[str, str] = field(default_factory=dict)

    def of(self, owner: str) -> Billed | None:
        """What was billed to an owner this month, as far as it is known. Never waits, never fails."""
        if owner not in self._known:
            self._known[owner] = self.files.read(owner)
        known, now = self._known[owner], self.shared.time.wall()
        period = billed.period(now)
        is_current = known is not None and period is not None and known.begin == period[0]
        return known if is_current and self.wanted() else None

    def problem(self, owner: str) -> str:
        """Why it could not be had, last; empty: nobody tried, or it could."""
        return self._problems.get(owner, "") if self.wanted() else ""

    def freshen(self, accounts: Mapping[str, Account]) -> None:
        """Ask for what is older than a day, by owner, behind the back of whoever asks."""
        if not self.wanted():
            return
        now = self.shared.time.monotonic()
        for owner, account in accounts.items():
            self.of(owner)
            tried = self._tried.get(owner)
            if tried is not None and now - tried < DAY:
                continue
            if billed.is_due(self._known[owner], self.shared.time.wall()):
                self._tried[owner] = now
                self.shared.tasks.spawn("bill", self._fetch(owner, account))

    async def _fetch(self, owner: str, account: Account) -> None:
        now = self.shared.time.wall()
        period = billed.period(now)
        if period is None:
            return
        try:
            found = await self.lists.billed(account, owner, *period, now)
        except DevboxError as error:
            self._problems[owner] = error.message
            return
        # Kept before it is told: a daemon that starts then does not pay again.
        await asyncio.to_thread(self.files.save, found)
        self._problems.pop(owner, None)
        self._known[owner] = found
