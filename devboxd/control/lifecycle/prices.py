"""Prices at hand: what was fetched last, over what we carry with us. Whoever asks never waits for AWS."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from devboxd.control.base.needs import PriceFiles, PriceLists
from devboxd.control.base.shared import Shared
from devboxd.errors import DevboxError
from devboxd.model.box import Account
from devboxd.model.cost import day_of
from devboxd.model.price import Market, Rates, built_in

FRESH_FOR: Final = 86400.0  # seconds: prices are asked for once a day at most, answered or not
MARKET_FRESH_FOR: Final = 3600.0  # the same of the spot market
MARKET_SINCE: Final = 62 * 86400.0  # seconds: this month, and the one before; EC2 has ninety days


@dataclass(slots=True)
class Prices:
    """The rates of every region that somebody asked about."""

    shared: Shared
    lists: PriceLists
    files: PriceFiles
    _known: dict[str, tuple[float, Rates]] = field(default_factory=dict)
    _tried: dict[str, float] = field(default_factory=dict)  # monotonic
    _problems: dict[str, str] = field(default_factory=dict)
    _markets: dict[tuple[str, str], tuple[float, tuple[Market, ...]]] = field(default_factory=dict)
    _asked: dict[tuple[str, str], float] = field(default_factory=dict)  # of a market; monotonic
    _market_problems: dict[str, str] = field(default_factory=dict)

    def of(self, region: str) -> Rates:
        """The rates of a region, from the disk or from what we carry. Never waits, never fails."""
        if region not in self._known:
            kept, carried = self.files.read(region), built_in(region)
            self._known[region] = (0.0, carried) if kept is None else (kept[0], kept[1].over(carried))
        return self._known[region][1]

    def market(self, region: str) -> tuple[float | None, str]:
        """When the oldest of the spot prices of a region were asked for, and why there are none or no newer ones."""
        at = [fetched for (where, _), (fetched, _) in self._markets.items() if where == region]
        return min(at, default=None), self._market_problems.get(region, "")

    def follow(self, account: Account, region: str, types: Iterable[str]) -> None:
        """Fetch spot prices that are older than an hour, behind the back of whoever asks."""
        now = self.shared.time.monotonic()
        due = [
            one
            for one in dict.fromkeys(types)
            if one and now - self._asked.get((region, one), -MARKET_FRESH_FOR) >= MARKET_FRESH_FOR
        ]
        if region and due:
            self._asked.update(((region, one), now) for one in due)
            self.shared.tasks.spawn(f"spot prices of {region}", self._follow(account, region, due))

    async def _follow(self, account: Account, region: str, types: list[str]) -> None:
        now = self.shared.time.wall()
        self.of(region)
        try:
            found = await self.lists.markets(account, region, types, now - MARKET_SINCE)
        except DevboxError as error:
            self._market_problems[region] = error.message
            return
        self._market_problems.pop(region, None)
        for name in types:
            if of := tuple(one for one in found if one.type == name):
                self._markets[region, name] = (now, of)
            else:
                self._market_problems[region] = f"EC2 knows no spot price of {name}"
        fetched, rates = self._known[region]
        self._known[region] = (fetched, self._with_markets(rates))

    def _with_markets(self, rates: Rates) -> Rates:
        markets = [
            one for (where, _), (_, found) in self._markets.items() if where == rates.region for one in found
        ]
        return msgspec.structs.replace(rates, markets=tuple(markets))

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
        found = await self.lists.rates(account, region, day_of(now))
        if not found.types:
            self._problems[region] = f"the Price List API knows no prices of {region}"
            return
        self._problems.pop(region, None)
        await asyncio.to_thread(self.files.save, now, found)
        self._known[region] = (now, self._with_markets(found.over(built_in(region))))
