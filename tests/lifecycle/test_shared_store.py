"""The shared table through the real client: moto's DynamoDB behind the simulator, and several machines over it."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from devboxd import headless
from devboxd.aws.clients import Caller, Callers
from devboxd.aws.computes import AwsComputes
from devboxd.aws.identity import identity
from devboxd.aws.rows import SharedRows
from devboxd.control.base.needs import Store
from devboxd.control.base.shared import Shared
from devboxd.control.lifecycle.book import Book
from devboxd.control.lifecycle.boxwork import BoxWork
from devboxd.control.lifecycle.fleet import Fleet
from devboxd.control.lifecycle.idlebook import IdleBook
from devboxd.control.lifecycle.projects import Projects
from devboxd.errors import Denied
from devboxd.host.clock import Clock
from devboxd.host.store import SqliteStore
from devboxd.model.box import Account
from devboxd.model.cost import Kind, Piece
from devboxd.model.idle_note import Decision, Did, IdleNotes
from devboxd.model.lease import Lease
from devboxd.model.ledger import Change, Range, StoreFailed, body, new, note_key
from devboxd.model.meter import Note
from devboxd.model.project import Phase, Project
from devboxd.model.states import StoreEngine
from tests.kit.sim import MakeSimulator, simulator
from tests.lifecycle.memory import MemoryStore
from tests.lifecycle.test_simulator import At, at, digest, launched, no_box, until
from tests.lifecycle.test_store import make_table

__all__ = ["at", "simulator"]


def table(callers: Callers, name: str, profile: str | None = None) -> SharedRows:
    """The rows as a daemon has them, whose profile is called so."""

    async def who(account: Account) -> str:
        return (await identity(callers.caller())).user_id

    return SharedRows(name, lambda: Account(profile), lambda account: callers.caller(), who, lambda: 0)


async def made_table(callers: Callers) -> str:
    """A table of its own: moto keeps what there was for as long as the process lives."""
    name = f"devbox-{os.urandom(4).hex()}"
    await make_table(callers.caller(), name)
    return name


@asynccontextmanager
async def machine(folder: Path, name: str, shared_table: str) -> AsyncIterator[Projects]:
    """The lifecycle half of a daemon that uses the table; its end is as sudden as its start."""
    clock = Clock()
    shared, callers, ids = Shared.of(clock), Callers(clock), itertools.count(1)
    local = SqliteStore(folder / f"{name}.db")
    stores: dict[StoreEngine, Store] = {
        StoreEngine.SQLITE: local,
        StoreEngine.DYNAMODB: table(callers, shared_table),
    }

    def op() -> str:
        return f"{name}-{next(ids):06d}"

    books = {engine: Book(store, "me", name, op, clock.wall) for engine, store in stores.items()}
    book = books[StoreEngine.DYNAMODB]
    cloud, boxes = AwsComputes(callers), BoxWork(no_box)
    fleet = Fleet(shared, book, cloud, boxes, me=name, op=op, pace=0.05)

    async def owner(account: Account) -> str:
        return (await identity(callers.caller(account.profile, account.region))).user_id

    shared.tasks.spawn("fleet", fleet.run())
    try:
        yield Projects(
            shared,
            book,
            fleet,
            cloud,
            boxes,
            uid=lambda: f"{name[:3]}{next(ids):07d}",
            owner=owner,
            books=books,
        )
    finally:
        await shared.tasks.stop()
        await local.close()
        await callers.close()


async def test_a_second_machine_takes_over_in_the_middle_of_a_save(
    simulator: MakeSimulator, at: At, tmp_path: Path
) -> None:
    """The laptop is closed while its box is saved; the desktop ends that, and the work is there on it."""
    sim = await simulator(boxes=[], services=True)
    at(sim)
    callers = Callers(Clock())
    called = await made_table(callers)
    async with machine(tmp_path, "laptop", called) as projects:
        disk = await launched(projects, sim)
        (disk / "work.txt").write_text("the work of the first run\n" * 1000)
        first = digest(disk / "work.txt")
        await projects.terminate("work")
        await until(projects, "work", Phase.SAVING)
    await shorten_leases(table(callers, called))
    async with machine(tmp_path, "desktop", called) as projects:
        await until(projects, "work", Phase.READY)
        disk = await launched(projects, sim)
        assert digest(disk / "work.txt") == first
        assert {event.who for event in await projects.events("work")} == {"laptop", "desktop"}
        row = (await projects.get("work")).project

        # The table is lost, too: the tags say enough to make its rows anew.
        rows = table(callers, called)
        for item in await rows.read("me", Range("")):
            await rows.commit("me", [Change(item.key, item.version)], f"{item.key}-gone")
        await until_forgotten(projects)
        (made,) = await projects.moves.rebuild(Account(None, "us-east-1"))
        assert (made.uid, made.name, made.instance, made.phase) == (
            row.uid,
            "work",
            row.instance,
            Phase.RUNNING,
        )

        # And from the table into the file of this machine, and back.
        await projects.moves.move("work", StoreEngine.SQLITE)
        assert [one.name for one in await projects.moves.in_store(StoreEngine.SQLITE)] == ["work"]
        await projects.moves.move("work", StoreEngine.DYNAMODB)
        await projects.terminate("work")
        await until(projects, "work", Phase.READY)
    await callers.close()


async def shorten_leases(rows: SharedRows) -> None:
    """Let a second stand for the minute in which a machine that is silent keeps its turn."""
    for item in await rows.read("me", Range("L#")):
        await rows.commit("me", [Change(item.key, item.version, {**item.body, "seconds": 1.0})], "shorter")


async def until_forgotten(projects: Projects) -> None:
    """Wait until the daemon has seen that it has no project."""
    while projects._fleet.statuses():
        await projects._fleet.changed(1.0)


async def test_rows_name_no_profile_that_is_another_on_the_next_machine(
    simulator: MakeSimulator, at: At
) -> None:
    """What is "work" here may be "default" there: a row means whatever leads to the table it is in."""
    at(await simulator(boxes=[], services=True))
    callers = Callers(Clock())
    called = await made_table(callers)
    here, there = table(callers, called, "work"), table(callers, called, "company")
    book = Book(here, "me", "laptop", lambda: "op-1", Clock().wall)
    await book.create(Project("u1", "own", "me", Account("work", "eu-central-1")), "x")
    other = Book(here, "me", "laptop", lambda: "op-2", Clock().wall)
    await other.create(Project("u2", "foreign", "me", Account("customer", "eu-central-1")), "x")
    seen = {
        one.name: one.account for one in await Book(there, "me", "b", lambda: "op-3", Clock().wall).projects()
    }
    assert seen == {
        "own": Account("company", "eu-central-1"),
        "foreign": Account("customer", "eu-central-1"),
    }
    assert {one.name: one.account.profile for one in await book.projects()} == {
        "own": "work",
        "foreign": "customer",
    }
    await callers.close()


async def test_a_table_that_is_not_there_or_not_allowed_says_what_to_do(
    simulator: MakeSimulator, at: At
) -> None:
    sim = await simulator(boxes=[], services=True)
    at(sim)
    callers = Callers(Clock())
    with pytest.raises(StoreFailed, match="no table nowhere") as missing:
        await table(callers, "nowhere").read("me", Range("M#"))
    assert "init account" in (missing.value.hint or "")
    await sim.fault("refuse", call="Query", code="AccessDeniedException", times=1)
    with pytest.raises(Denied, match="dynamodb:Query") as denied:
        await table(callers, "nowhere").read("me", Range("M#"))
    assert "dynamodb:Query" in (denied.value.hint or "")
    await callers.close()


async def test_a_role_session_that_is_called_differently_each_time_is_refused() -> None:
    """Its rows and boxes would be somebody else's tomorrow."""

    async def who(account: Account) -> str:
        return "AROAEXAMPLE:botocore-session-1790000000"

    rows = SharedRows(
        "devbox", lambda: Account("team"), lambda account: pytest.fail("nothing is asked"), who, lambda: 0
    )
    with pytest.raises(StoreFailed, match="another each time") as refused:
        await rows.read("me", Range("M#"))
    assert "role_session_name" in (refused.value.hint or "")
    assert "team" in (refused.value.hint or "")


async def test_without_a_daemon_such_a_role_session_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would find no rows, and say that nothing is left to do."""

    async def call(caller: Caller, service: str, operation: str, **_: object) -> dict[str, object]:
        assert service == "sts", "the table is not asked"
        return {
            "UserId": "AROAEXAMPLE:botocore-session-1790000000",
            "Account": "1",
            "Arn": "arn:aws:sts::1:x",
        }

    monkeypatch.setattr(Caller, "call", call)
    for name, value in (("ACCESS_KEY_ID", "AKID"), ("SECRET_ACCESS_KEY", "s"), ("REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    asked = headless._parser().parse_args(["--once", "--table", "devbox"])
    with pytest.raises(StoreFailed, match="another each time"):
        await headless._reconcile(asked, {"HOME": str(tmp_path)}, lambda line: None)


async def test_events_that_were_moved_expire_as_they_would_have(tmp_path: Path) -> None:
    here, there = MemoryStore(), SqliteStore(tmp_path / "projects.db")
    clock = Clock()
    source = Book(here, "me", "laptop", lambda: "op-1", clock.wall)
    await source.create(Project("u1", "api", "me"), "made")
    await source.move("u1", Book(there, "me", "laptop", lambda: "op-2", clock.wall), "sqlite")
    assert len(await there.read("me", Range("E#"))) == 2
    await there.forget(clock.wall() + 91 * 86400)
    assert await there.read("me", Range("E#")) == []
    assert len(await there.read("me", Range("M#"))) == 1
    await there.close()


async def test_what_holds_an_idle_box_and_what_was_decided_moves_too(tmp_path: Path) -> None:
    """Somebody keeps a box alive, moves it, and it is not stopped. What expires here expires there."""
    there, clock = SqliteStore(tmp_path / "projects.db"), Clock()
    source, ids = Book(MemoryStore(), "me", "laptop", lambda: "op-1", clock.wall), itertools.count(1)
    target = Book(there, "me", "laptop", lambda: f"op-{next(ids)}", clock.wall)
    await source.create(Project("u1", "api", "me"), "made")
    now = clock.wall()
    held = Lease("cafe", now, now + 7200.0, "me", "a long build")
    await IdleBook(source).change("u1", lambda known: replace(known, leases=(held,), vetoes=2))
    await IdleBook(source).note("u1", Decision(now, Did.VETOED, "a hook keeps it"))
    disk = Piece(Kind.VOLUME, "vol-1", "u1", "us-east-1", now - 3600.0, now)
    note = new(note_key("2026-11", "u1", "op-9"), body(Note("u1", "api", (disk,))))
    await source.store.commit("me", [note], "op-9")
    await source.move("u1", target, "sqlite")
    moved = IdleBook(target)
    notes = await moved.notes("u1")
    assert (notes.leases, notes.vetoes) == ((held,), 2)
    assert [one.why for one in await moved.decisions("u1")] == ["a hook keeps it"]
    assert (await IdleBook(source).notes("u1")) == IdleNotes()
    left = []
    for days in (29, 31, 399, 401):
        await there.forget(now + days * 86400)
        items = await there.read("me", Range(""))
        left.append("".join(sorted({one.key[0] for one in items})))
    assert left == ["CDEIMN", "CEIMN", "CIMN", "IMN"]
    await there.close()
