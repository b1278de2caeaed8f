"""What is written down about idle boxes: what holds them, and what was decided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from devboxd.control.lifecycle.book import Book, until_first
from devboxd.model.idle_note import KEPT, Decision, IdleNotes, decisions_of, read_decisions, read_notes
from devboxd.model.ledger import ABSENT, Change, body, decision_key, holds_key, new


@dataclass(frozen=True, slots=True)
class IdleBook:
    """Beside the rows of the projects, in the same store. Errors: those of the store."""

    book: Book

    async def notes(self, uid: str) -> IdleNotes:
        """What holds a project's box."""
        return read_notes(await self.book.item(holds_key(uid)))

    async def change(self, uid: str, decide: Callable[[IdleNotes], IdleNotes]) -> IdleNotes:
        """Change it, again where somebody else was faster. ``decide`` may raise."""

        async def change() -> IdleNotes:
            item = await self.book.item(holds_key(uid))
            known = read_notes(item)
            changed = decide(known)
            if changed != known:
                expects = item.version if item is not None else ABSENT
                change = Change(holds_key(uid), expects, body(changed))
                await self.book.store.commit(self.book.owner, [change], self.book.op())
            return changed

        return await until_first(change)

    async def note(self, uid: str, decision: Decision) -> None:
        """Write a decision down; it is forgotten after thirty days."""
        op = self.book.op()
        change = new(decision_key(uid, decision.at, op), body(decision))
        await self.book.store.commit(self.book.owner, [change], op)

    async def decisions(self, uid: str) -> list[Decision]:
        """What was decided in the last thirty days, oldest first."""
        found = await self.book.store.read(self.book.owner, decisions_of(uid))
        return read_decisions(found, self.book.wall() - KEPT)
