"""Budgets: kept in the store, looked at every minute, and asked before each launch. The decisions: ``model.budget``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import msgspec
from msgspec.structs import replace

from devboxd.control.base.notices import Notify, tell_later
from devboxd.control.lifecycle.book import until_first
from devboxd.control.lifecycle.money import Facts, Money
from devboxd.errors import BadRequest, Conflict, DevboxError
from devboxd.model import budget as rules
from devboxd.model import cost
from devboxd.model.box import Account
from devboxd.model.budget import ALL, BUDGETS_MOST, Budget, BudgetExceeded, Budgets, Told
from devboxd.model.ledger import ABSENT, Change, body, read_as
from devboxd.model.ledger import row as read_row
from devboxd.model.meter import region
from devboxd.model.project import Phase, Place, Project, Spec, Want
from devboxd.model.wish import ProjectNotFound, is_same

KEY: Final = "B#"  # of the one item that holds them all
EVERY: Final = 60.0  # seconds between two looks


class Shown(msgspec.Struct, frozen=True):
    """A budget, what was spent under it this month, and how far it is."""

    budget: Budget
    spent: Decimal
    told: Told | None
    in_force: bool
    at: float


@dataclass(slots=True)
class Keeper:
    """All budgets of one owner. ``busy``: whether something works on a project's box, or nobody knows."""

    money: Money
    notify: Notify
    busy: Callable[[Project], bool] = lambda project: False
    archive: Callable[[str], Awaitable[object]] | None = None  # by name

    # Asked before each launch

    async def allow(self, before: Project | None, after: Project) -> Sequence[Change]:
        """What a launch has to commit with its own change, so that no other has the same dollar.

        Raises:
            BudgetExceeded: a hard budget has nothing left for it.
        """
        if not rules.begins(before, after):
            return ()
        budgets, version = await self._read()
        month = cost.month_of(self._now())
        hard = [one for one in rules.over(rules.in_force(budgets, month), after.uid) if one.hard]
        if not hard:
            return ()
        facts = await self.money.facts()
        for one in (replace(one, name=facts.names.get(one.scope, one.name)) for one in hard):
            others = [
                self._hour(row)
                for uid, row in facts.rows.items()
                if uid != after.uid and one.scope in (ALL, uid) and row.want is Want.UP
            ]
            rules.check(one, self._spent(facts, one), others, self._hour(after), after.spec.type)
        changed = replace(budgets, launches=budgets.launches + 1)
        return [Change(KEY, version, body(changed))]

    async def disputed(self) -> Callable[[str], str]:
        """What says of a project why it is not its own fault that nobody uses it: a hard budget has nothing left for it.

        It says nothing where none does. All is read once, for however many projects it is asked of.
        """
        budgets, _ = await self._read()
        hard = [one for one in rules.in_force(budgets, cost.month_of(self._now())) if one.hard]
        spent: list[Budget] = []
        if hard:
            facts = await self.money.facts()
            spent = [one for one in hard if self._spent(facts, one) >= one.limit]

        def says(uid: str) -> str:
            over = rules.over(spent, uid)
            return f"the budget of {over[0].name} is used up: nobody could use it" if over else ""

        return says

    async def would_refuse(self, known: Project | None, type_: str, where: str) -> str:
        """Why a launch of this type would be refused; empty: it would not."""
        spec = Spec(places=(Place(type_),))
        uid = known.uid if known is not None else "new"
        after = Project(uid, "", "", Account(None, where), Want.UP, spec=spec)
        try:
            await self.allow(None, after)
        except BudgetExceeded as error:
            return error.message
        return ""

    def _hour(self, project: Project) -> Decimal | None:
        """What an hour of a project's box costs, with its address; spot boxes as on demand."""
        rates = self.money.prices.of(region(project))
        hourly = rates.hourly(project.spec.type)
        return None if hourly is None else hourly + (rates.address or Decimal(0))

    # The verbs

    async def all(self) -> list[Shown]:
        """Every budget, with what was spent."""
        budgets, _ = await self._read()
        facts, at = await self.money.facts(), self._now()
        budgets = rules.named(budgets, facts.names)
        spent = {one.scope: self._spent(facts, one) for one in budgets.budgets}
        return [Shown(*one, at) for one in rules.shown(budgets, cost.month_of(at), spent)]

    async def put(
        self, project: str | None, limit: Decimal, *, hard: bool, month: str | None, grace: float | None
    ) -> None:
        """Set one, for a project or for all of them.

        Raises:
            ProjectNotFound, BadRequest.
        """
        scope, name = await self._scope(project)
        made = Budget(scope, name, limit, hard, month, rules.GRACE if grace is None else grace)

        def decide(known: Budgets) -> Budgets:
            changed = known.put(made)
            if len(changed.budgets) > BUDGETS_MOST:
                raise BadRequest(f"there are {BUDGETS_MOST} budgets already", hint="devboxctl budget rm")
            return changed

        await self._change(decide)

    async def drop(self, project: str | None, month: str | None) -> None:
        """Remove one.

        Raises:
            BadRequest: there is none.
        """
        budgets, _ = await self._read()
        scope = ALL if project is None else await self._scope_of(project, budgets)
        key = f"{scope}/{month or ''}"
        if (project and not scope) or all(one.key != key for one in budgets.budgets):
            raise BadRequest("there is no such budget", hint="see: devboxctl budget show")
        await self._change(lambda known: known.without(key))

    async def _scope(self, project: str | None) -> tuple[str, str]:
        if project is None:
            return ALL, "all"
        book = self.money.book
        uid = await book.find(project)
        row = (await book.rows([uid])).get(uid) if uid is not None else None
        if row is None:
            raise ProjectNotFound(f"there is no project named {project!r}", hint="see: devboxctl projects")
        found = read_row(row)
        return found.uid, found.name

    async def _scope_of(self, name: str, budgets: Budgets) -> str:
        """The project that is called so and has a budget, or the last one that was; empty: none."""
        there = {one.uid: one.name for one in await self.money.book.projects()}
        last = sorted(rules.named(budgets, there).budgets, key=lambda one: one.scope not in there)
        return next((one.scope for one in last if one.scope and is_same(one.name, name)), "")

    # Every minute

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                await self.look()
            except DevboxError as error:
                self.money.shared.news.tell("budget.unread", f"budgets can not be looked at: {error.message}")
            await asyncio.sleep(EVERY)

    async def look(self) -> None:
        """Tell people, and archive what is due. What is told is written down first: a crash tells nobody twice."""
        budgets, _ = await self._read()
        if not budgets.budgets:
            return
        facts, now = await self.money.facts(), self._now()
        budgets = rules.named(budgets, facts.names)
        month = cost.month_of(now)
        for one in rules.in_force(budgets, month):
            rows = [row for uid, row in facts.rows.items() if one.scope in (ALL, uid)]
            up = [row for row in rows if rules.costs_more_than_snapshots(row)]
            verdict = rules.judge(
                one,
                budgets.told.get(one.key),
                self._spent(facts, one),
                month,
                now,
                up=bool(up),
                busy=any(self.busy(row) for row in up if row.phase is not Phase.WARM),
            )
            before = budgets.told.get(one.key)
            if verdict.told != before and not await self._told(one, before, verdict.told):
                continue  # another machine was faster: it tells
            for notice in verdict.notices:
                self.money.shared.news.tell("budget.notice", notice.text, box=one.name if one.scope else None)
                tell_later(self.money.shared.tasks, self.notify, "devbox budget", notice.text)
            if verdict.archive is not None and self.archive is not None:
                for row in up:
                    await self._archive(row, self.archive)

    async def _archive(self, row: Project, archive: Callable[[str], Awaitable[object]]) -> None:
        """What one project is refused keeps no other from being archived."""
        try:
            await archive(row.name)
        except DevboxError as error:
            text = f"{row.name} can not be archived: {error.message}"
            self.money.shared.news.tell("budget.notice", text, box=row.name)

    async def _told(self, one: Budget, before: Told | None, after: Told) -> bool:
        """Write down how far people were told; False where somebody else did."""
        budgets, version = await self._read()
        if budgets.told.get(one.key) != before:
            return False
        changed = replace(budgets, told={**budgets.told, one.key: after})
        try:
            await self._commit(changed, version)
        except Conflict:
            return False
        return True

    # The store

    def _spent(self, facts: Facts, one: Budget) -> Decimal:
        """What is certain of this month."""
        at = self._now()
        pieces = [piece for uid, found in facts.pieces.items() if one.scope in (ALL, uid) for piece in found]
        return cost.bill(pieces, self.money.prices.of, cost.month_bounds(at)[0], at).total

    def _now(self) -> float:
        return self.money.shared.time.wall()

    async def _read(self) -> tuple[Budgets, int]:
        item = await self.money.book.item(KEY)
        return (read_as(item, Budgets), item.version) if item is not None else (Budgets(), ABSENT)

    async def _commit(self, budgets: Budgets, version: int) -> None:
        book = self.money.book
        await book.store.commit(book.owner, [Change(KEY, version, body(budgets))], book.op())

    async def _change(self, decide: Callable[[Budgets], Budgets]) -> None:
        """Change them, again where somebody else was faster."""

        async def change() -> None:
            budgets, version = await self._read()
            await self._commit(decide(budgets), version)

        await until_first(change)
