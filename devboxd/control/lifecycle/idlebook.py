"""What is written down about idle boxes: what holds them, and what was decided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from devboxd.control.lifecycle.book import Book, until_first
from devboxd.model.idle_note import KEPT, Decision, IdleNotes, decisions_of, read_decisions, read_notes
from devboxd.model.ledger import ABSENT, EVERY_HOLD, Change, Item, body, decision_key, holds_key, new


def put_notes(uid: str, item: Item | None, notes: IdleNotes) -> Change:
    """What holds a project's box, in place of what this item says; None: nothing was written down."""
    return Change(holds_key(uid), item.version if item is not None else ABSENT, body(notes))


@dataclass(frozen=True, slots=True)
class IdleBook:
    """Beside the rows of the projects, in the same store. Errors: those of the store."""

    book: Book

    async def notes(self, uid: str) -> IdleNotes:
        """What holds a project's box."""
        return read_notes(await self.item(uid))

    async def item(self, uid: str) -> Item | None:
        """The item that it is in."""
        return await self.book.item(holds_key(uid))

    async def change(self, uid: str, decide: Callable[[IdleNotes], IdleNotes]) -> IdleNotes:
        """Change it, again where somebody else was faster. ``decide`` may raise."""

        async def change() -> IdleNotes:
            item = await self.item(uid)
            known = read_notes(item)
            changed = decide(known)
            if changed != known:
                await self.put(uid, item, changed)
            return changed

        return await until_first(change)

    async def items(self) -> dict[str, Item]:
        """Where there is something, what holds the box of each project, by uid: one query for all."""
        found = await self.book.store.read(self.book.owner, EVERY_HOLD)
        return {item.key.removeprefix(EVERY_HOLD.prefix): item for item in found}

    async def put(self, uid: str, item: Item | None, notes: IdleNotes) -> None:
        """Write down what holds a project's box. Raises Conflict where it is not as this item says any more."""
        await self.book.store.commit(self.book.owner, [put_notes(uid, item, notes)], self.book.op())

    async def note(self, uid: str, decision: Decision) -> None:
        """Write a decision down; it is forgotten after thirty days."""
        op = self.book.op()
        change = new(decision_key(uid, decision.at, op), body(decision))
        await self.book.store.commit(self.book.owner, [change], op)

    async def decisions(self, uid: str) -> list[Decision]:
        """What was decided in the last thirty days, oldest first."""
        found = await self.book.store.read(self.book.owner, decisions_of(uid))
        return read_decisions(found, self.book.wall() - KEPT)
