"""Prices at hand: what was fetched last, over what we carry with us. Whoever asks never waits for AWS."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from devboxd.control.base.needs import PriceFiles, PriceLists
from devboxd.control.base.shared import Shared
from devboxd.errors import DevboxError
from devboxd.model.box import Account
from devboxd.model.price import Rates, built_in

FRESH_FOR: Final = 86400.0  # seconds: prices are asked for once a day at most, answered or not


@dataclass(slots=True)
class Prices:
    """The rates of every region that somebody asked about."""

    shared: Shared
    lists: PriceLists
    files: PriceFiles
    _known: dict[str, tuple[float, Rates]] = field(default_factory=dict)
    _tried: dict[str, float] = field(default_factory=dict)  # monotonic
    _problems: dict[str, str] = field(default_factory=dict)

    def of(self, region: str) -> Rates:
        """The rates of a region, from the disk or from what we carry. Never waits, never fails."""
        if region not in self._known:
            kept, carried = self.files.read(region), built_in(region)
            self._known[region] = (0.0, carried) if kept is None else (kept[0], kept[1].over(carried))
        return self._known[region][1]

    def problem(self, region: str) -> str:
        """Why newer ones could not be had, last; empty: nobody tried, or they could."""
        return self._problems.get(region, "")

    def freshen(self, account: Account, regions: Iterable[str]) -> None:
        """Fetch what is older than a day, behind the back of whoever asks."""
        for region in regions:
            if region and self._is_due(region):
                self._tried[region] = self.shared.time.monotonic()
                self.shared.tasks.spawn(f"prices of {region}", self._fetch(account, region))

    async def refresh(self, account: Account, region: str) -> Rates:
        """Fetch them and wait, unless that was done today. Raises what AWS says."""
        if self._is_due(region):
            self._tried[region] = self.shared.time.monotonic()
            await self._fetched(account, region)
        return self.of(region)

    def _is_due(self, region: str) -> bool:
        self.of(region)
        tried = self._tried.get(region)
        if tried is not None and self.shared.time.monotonic() - tried < FRESH_FOR:
            return False
        return self.shared.time.wall() - self._known[region][0] >= FRESH_FOR

    async def _fetch(self, account: Account, region: str) -> None:
        try:
            await self._fetched(account, region)
        except DevboxError as error:
            self._problems[region] = error.message

    async def _fetched(self, account: Account, region: str) -> None:
        now = self.shared.time.wall()
        found = await self.lists.rates(account, region, f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d}")
        if not found.types:
            self._problems[region] = f"the Price List API knows no prices of {region}"
            return
        self._problems.pop(region, None)
        await asyncio.to_thread(self.files.save, now, found)
        self._known[region] = (now, found.over(built_in(region)))
