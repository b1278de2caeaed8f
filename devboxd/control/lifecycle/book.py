"""The projects of one owner, written down: typed rows over any store, and lost answers recognised."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from msgspec.structs import replace

from devboxd.control.base.needs import Store
from devboxd.errors import Conflict, DevboxError
from devboxd.model import ledger, meter
from devboxd.model.ledger import Change, Event, Item, Ledger, Range
from devboxd.model.meter import Note
from devboxd.model.project import Generation, Project, Run
from devboxd.model.step import Erase, Write
from devboxd.model.wish import is_same, taken

EVENTS_SHOWN: Final = 100
AT_A_TIME: Final = 50  # projects that are read without a pause
FEW: Final = 5  # rows that are asked for one by one: while they change, a thousand others do not
MOVED_AT_ONCE: Final = 50  # items in one commit
TRIES: Final = 6  # of a change that others overtake

T = TypeVar("T")


async def item_of(store: Store, owner: str, key: str) -> Item | None:
    """The item of this very key."""
    return next((one for one in await store.read(owner, Range(key)) if one.key == key), None)


async def until_first(change: Callable[[], Awaitable[T]]) -> T:
    """Read, decide and commit, again where somebody else was faster. Raises what it raises at last."""
    for _ in range(TRIES - 1):
        try:
            return await change()
        except Conflict:
            continue
    return await change()


@dataclass(frozen=True, slots=True)
class Book:
    """Rows of one owner. ``who`` is named in events; ``op`` gives ids that are never given twice; ``wall``: Unix time.

    Errors: those of the store, and ``Conflict`` when somebody else was faster.
    """

    store: Store
    owner: str
    who: str
    op: Callable[[], str]
    wall: Callable[[], float]

    async def item(self, key: str) -> Item | None:
        """The item of this very key."""
        return await item_of(self.store, self.owner, key)

    async def projects(self) -> list[Project]:
        """All projects, in one query."""
        found = []
        for number, item in enumerate(await self.store.read(self.owner, ledger.EVERY_ROW), 1):
            found.append(ledger.row(item))
            if number % AT_A_TIME == 0:
                await asyncio.sleep(0)
        return found

    async def ledgers(self) -> list[Ledger]:
        """All projects with what belongs to them, in three queries, however many they are."""
        of_one: dict[str, list[Item]] = {}
        for item in await self.store.read(self.owner, ledger.EVERY_ROW, Range("R#"), Range("G#")):
            of_one.setdefault(item.key.split("#")[1], []).append(item)
        found = []
        for number, items in enumerate(of_one.values(), 1):
            if (known := ledger.read(items)) is not None:
                found.append(known)
            if number % AT_A_TIME == 0:
                await asyncio.sleep(0)
        return found

    async def find(self, name: str) -> str | None:
        """The uid of the project of this name."""
        item = await self.item(ledger.name_key(name))
        return str(item.body["uid"]) if item is not None else None

    async def load(self, uid: str) -> Ledger | None:
        """One project, as of now; None where there is none."""
        return ledger.read(await self.store.read(self.owner, *ledger.of_one(uid)))

    async def rows(self, uids: Collection[str]) -> dict[str, Item]:
        """The rows of these projects as items: one query for however many, or one for each of a few."""
        few = [Range(ledger.row_key(uid)) for uid in uids] if len(uids) <= FEW else [ledger.EVERY_ROW]
        found = {item.key: item for item in await self.store.read(self.owner, *few)}
        return {uid: found[key] for uid in uids if (key := ledger.row_key(uid)) in found}

    async def events(self, uid: str, most: int = EVENTS_SHOWN) -> list[Event]:
        """What happened to a project, oldest first."""
        items = await self.store.read(self.owner, Range(f"E#{uid}#", newest=most))
        return list(reversed(ledger.events(items)))

    async def runs(self, uid: str) -> list[Run]:
        """All runs that are remembered, oldest first."""
        return ledger.runs(await self.store.read(self.owner, Range(f"R#{uid}#")))

    async def bill(
        self, months: Sequence[str]
    ) -> tuple[dict[str, Project], dict[str, list[Run]], dict[str, list[Generation]], dict[str, list[Note]]]:
        """What a bill is made of, by uid: rows, runs, generations, and what ended in these months."""
        ranges = [ledger.EVERY_ROW, Range("R#"), Range("G#"), *(ledger.notes_of(one) for one in months)]
        rows: dict[str, Project] = {}
        runs: dict[str, list[Run]] = {}
        generations: dict[str, list[Generation]] = {}
        notes: dict[str, list[Note]] = {}
        for item in await self.store.read(self.owner, *ranges):
            kind, uid, *_ = item.key.split("#")
            match kind:
                case "M":
                    rows[uid] = ledger.row(item)
                case "R":
                    runs.setdefault(uid, []).extend(ledger.runs([item]))
                case "G":
                    generations.setdefault(uid, []).extend(ledger.generations([item]))
                case _:
                    (note,) = ledger.notes([item])
                    notes.setdefault(note.uid, []).append(note)
        return rows, runs, generations, notes

    async def create(
        self, project: Project, text: str, *, run: Run | None = None, beside: Sequence[Change] = ()
    ) -> None:
        """Write a new project down, and what is to be committed ``beside`` it. Raises AlreadyExists and Conflict."""
        op = self.op()
        changes = ledger.created(project, op, self._event("create", text), run=run)
        try:
            await self._commit(project.uid, [*changes, *beside], op)
        except Conflict as error:
            if beside and await self.find(project.name) is None:
                raise  # it is not the name
            raise taken(project.name) from error

    async def restore(self, known: Ledger, text: str) -> None:
        """Write a whole project down: one that was exported, or read from tags. Raises AlreadyExists."""
        op = self.op()
        try:
            await self._commit(
                known.project.uid, ledger.restored(known, op, self._event("restore", text)), op
            )
        except Conflict as error:
            raise taken(known.project.name) from error

    async def move(self, uid: str, target: Book, where: str) -> None:
        """Move a project to another store. Killed anywhere, the same call goes on from there."""
        known = await self.load(uid)
        if known is None:
            return  # it was moved, and only the answer was lost
        taken_by = await target.find(known.project.name)
        if taken_by not in (None, uid):
            raise taken(known.project.name)
        if not known.project.moved:
            text = f"moved to {where}"
            known = await self.write(known, Write("move", replace(known.project, moved=where), text))
        items = await self.store.read(self.owner, *ledger.of_all(uid))
        there = await target.store.read(target.owner, *ledger.of_all(uid), ledger.EVERY_NOTE)
        items = [*await self._notes_of(uid), *items]
        name = Change(ledger.name_key(known.project.name), ledger.ABSENT, {"uid": uid})
        op = self.op()
        missing = ledger.copied(items, (item.key for item in there), op)
        for start in range(0, len(missing), MOVED_AT_ONCE):
            await target.store.commit(target.owner, missing[start : start + MOVED_AT_ONCE], self.op())
        if taken_by is None:
            await target.store.commit(target.owner, [name], self.op())
        await self.erase(known, Erase(known.project, "moved"))

    async def write(self, known: Ledger, step: Write, beside: Sequence[Change] = ()) -> Ledger:
        """Make a step of the table, with what is to be committed beside it; returns the project as it is then."""
        op = self.op()
        changes = ledger.written(known, step, op, self._event(step.what, step.event))
        await self._commit(step.project.uid, [*changes, *beside], op)
        return ledger.after(known, step, op)

    async def ran_until(self, uid: str, at: float, text: str) -> None:
        """The box has told when it stopped itself: correct the run that nobody knew the end of, if there is one."""

        async def change() -> None:
            known = await self.load(uid)
            for item in await self.store.read(self.owner, Range(f"R#{uid}#")):
                (run,) = ledger.runs([item])
                if known is not None and (corrected := meter.told(run, at)) is not None:
                    beside = Change(item.key, item.version, ledger.body(corrected))
                    await self.write(known, Write("told", known.project, text), [beside])
                    return

        await until_first(change)

    def changes(self, known: Ledger, step: Write) -> list[Change]:
        """A step, to be committed beside that of another project."""
        return ledger.written(known, step, self.op(), self._event(step.what, step.event))

    async def has(self, uid: str) -> bool:
        """Say whether there is a project of this uid."""
        return await self.item(ledger.row_key(uid)) is not None

    async def rename(self, known: Ledger, name: str) -> None:
        """Give a project another name. Raises AlreadyExists."""
        op = self.op()
        if not is_same(name, known.project.name) and await self.find(name) is not None:
            raise taken(name)
        held = await self.item(ledger.name_key(known.project.name))
        event = self._event("rename", f"renamed from {known.project.name} to {name}")
        changes = ledger.renamed(known, name, op, event, held)
        await self._commit(known.project.uid, changes, op)

    async def erase(self, known: Ledger, step: Erase) -> None:
        """Drop all rows of a project but its events, which expire."""
        project = step.project
        ranges = [Range(ledger.name_key(project.name)), *ledger.of_one(project.uid)]
        ranges += [Range(f"R#{project.uid}#"), Range(ledger.lease_key(project.uid))]
        ranges.append(Range(ledger.holds_key(project.uid)))
        items = {item.key: item for item in await self.store.read(self.owner, *ranges)}
        if project.moved:
            items |= {item.key: item for item in await self._notes_of(project.uid)}
        name = items.get(ledger.name_key(project.name))
        own = [
            item
            for item in items.values()
            if not item.key.startswith("N#") or (item is name and item.body.get("uid") == project.uid)
        ]
        op, at = self.op(), None if project.moved else self.wall()
        await self.store.commit(self.owner, ledger.erased(known, step, own, op, at), op)

    async def _notes_of(self, uid: str) -> list[Item]:
        found = await self.store.read(self.owner, ledger.EVERY_NOTE)
        return [item for item in found if item.body.get("uid") == uid]

    def _event(self, what: str, text: str) -> Event:
        return Event(self.wall(), what, self.who, text)

    async def _commit(self, uid: str, changes: Sequence[Change], op: str) -> None:
        """Commit; after a failure read back whether it was made all the same."""
        try:
            await self.store.commit(self.owner, changes, op)
        except DevboxError as error:
            # Our own commit may be what a repeat of it, further down, met as somebody else's.
            rows = await self.store.read(self.owner, Range(ledger.row_key(uid)))
            if not any(item.body.get("op") == op for item in rows):
                raise error
