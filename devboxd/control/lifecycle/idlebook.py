"""What is written down about idle boxes: what holds them, and what was decided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from devboxd.control.lifecycle.book import Book
from devboxd.errors import Conflict, DevboxError
from devboxd.model.idle_note import (
    KEPT,
    Decision,
    IdleNotes,
    decision_key,
    decisions_of,
    notes_key,
    read_decisions,
    read_notes,
)
from devboxd.model.ledger import ABSENT, Change, Item, Range, body

TRIES: Final = 6  # of a change that others overtake


@dataclass(frozen=True, slots=True)
class IdleBook:
    """Beside the rows of the projects, in the same store. Errors: those of the store."""

    book: Book

    async def notes(self, uid: str) -> IdleNotes:
        """What holds a project's box."""
        return read_notes(await self._item(uid))

    async def change(self, uid: str, decide: Callable[[IdleNotes], IdleNotes]) -> IdleNotes:
        """Change it, again where somebody else was faster. ``decide`` may raise."""
        last: DevboxError | None = None
        for _ in range(TRIES):
            item = await self._item(uid)
            known = read_notes(item)
            changed = decide(known)
            if changed == known:
                return known
            expects = item.version if item is not None else ABSENT
            try:
                change = Change(notes_key(uid), expects, body(changed))
                await self.book.store.commit(self.book.owner, [change], self.book.op())
            except Conflict as error:
                last = error
                continue
            return changed
        assert last is not None
        raise last

    async def note(self, uid: str, decision: Decision) -> None:
        """Write a decision down; it is forgotten after thirty days."""
        op = self.book.op()
        key = decision_key(uid, decision.at, op)
        change = Change(key, ABSENT, body(decision), decision.at + KEPT)
        await self.book.store.commit(self.book.owner, [change], op)

    async def decisions(self, uid: str) -> list[Decision]:
        """What was decided in the last thirty days, oldest first."""
        found = await self.book.store.read(self.book.owner, decisions_of(uid))
        return read_decisions(found, self.book.wall() - KEPT)

    async def _item(self, uid: str) -> Item | None:
        key = notes_key(uid)
        return next(
            (one for one in await self.book.store.read(self.book.owner, Range(key)) if one.key == key), None
        )
