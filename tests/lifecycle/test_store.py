"""One contract, three engines: what is written down is written down, and of two who change it one has to look again."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from devboxd.aws.clients import Caller, Callers
from devboxd.aws.store import DynamoStore
from devboxd.control.base.needs import Store
from devboxd.errors import Conflict, Unreachable
from devboxd.host.clock import Clock
from devboxd.host.store import SqliteFile, SqliteStore
from devboxd.model.ledger import Change, Item, Range, StoreFailed, StoreNewer
from tests.lifecycle.memory import MemoryStore

ODD = {
    "text": "ä 🦄 \x00 'quoted' %s",
    "empty": "",
    "whole": 7,
    "large": 1_700_000_000_123,
    "parts": 1_700_000_000.125,
    "yes": True,
    "nothing": None,
    "list": [1, "two", {"three": []}],
    "map": {"O#": {"deep": -0.5}},
}


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """A moto server on loopback; its DynamoDB has conditions and transactions."""
    from moto.server import ThreadedMotoServer  # half a second, and only these tests need it

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@asynccontextmanager
async def account_at(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Caller]:
    """An account whose AWS is that server."""
    for name in [one for one in os.environ if one.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)
    callers = Callers(Clock())
    yield callers.caller()
    await callers.close()


async def make_table(account: Caller, name: str) -> None:
    """As ``iac/devbox.yaml`` has it."""
    await account.call(
        "dynamodb",
        "create_table",
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in ("pk", "sk")],
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
    )


@pytest_asyncio.fixture(params=["memory", "sqlite", "dynamodb"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Store]:
    """Each engine in turn."""
    if request.param == "memory":
        yield MemoryStore()
    elif request.param == "sqlite":
        sqlite = SqliteStore(tmp_path / "deep" / "projects.db")
        yield sqlite
        await sqlite.close()
    else:
        async with account_at(request.getfixturevalue("moto"), monkeypatch) as account:
            name = f"devbox-{os.urandom(4).hex()}"
            await make_table(account, name)
            yield DynamoStore(account, name)


def op() -> str:
    return os.urandom(8).hex()


async def put(store: Store, key: str, body: dict[str, Any], expects: int = 0, owner: str = "me") -> None:
    await store.commit(owner, [Change(key, expects, body)], op())


async def test_what_was_written_is_read_back_as_it_was(store: Store) -> None:
    """Types, depth and odd characters: a row must not change by being kept."""
    await put(store, "M#uid", ODD)
    (item,) = await store.read("me", Range("M#uid"))
    assert item == Item("M#uid", 1, ODD)
    assert [type(value) for value in item.body.values()] == [type(value) for value in ODD.values()]


async def test_of_two_changes_of_one_version_the_second_is_refused(store: Store) -> None:
    """Two laptops decided from the same row: one of them has to look again."""
    await put(store, "M#uid", {"n": 1})
    await put(store, "M#uid", {"n": 2}, expects=1)
    for expects in (0, 1, 3):
        with pytest.raises(Conflict):
            await put(store, "M#uid", {"n": 9}, expects=expects)
    (item,) = await store.read("me", Range("M#uid"))
    assert (item.version, item.body) == (2, {"n": 2})


async def test_a_transaction_is_made_whole_or_not_at_all(store: Store) -> None:
    """A generation without its head, or a head without its generation, would be a lost save."""
    await put(store, "M#uid", {"head": 0})
    with pytest.raises(Conflict):
        await store.commit(
            "me", [Change("G#uid#1", 0, {"image": "ami-1"}), Change("M#uid", 7, {"head": 1})], op()
        )
    assert await store.read("me", Range("G#")) == []
    await store.commit(
        "me", [Change("G#uid#1", 0, {"image": "ami-1"}), Change("M#uid", 1, {"head": 1})], op()
    )
    assert [item.body for item in await store.read("me", Range("M#"), Range("G#"))] == [
        {"head": 1},
        {"image": "ami-1"},
    ]


async def test_dropping_is_as_conditional_as_putting(store: Store) -> None:
    """What was changed since it was looked at is not dropped, and what is not there can not be."""
    await put(store, "G#uid#1", {"n": 1})
    for expects in (0, 2):
        with pytest.raises(Conflict):
            await store.commit("me", [Change("G#uid#1", expects)], op())
    await store.commit("me", [Change("G#uid#1", 1)], op())
    assert await store.read("me", Range("G#")) == []
    with pytest.raises(Conflict):
        await store.commit("me", [Change("G#uid#1", 1)], op())
    await put(store, "G#uid#1", {"n": 2})


async def test_ranges_come_in_order_and_as_many_as_asked(store: Store) -> None:
    """The newest run of a hundred is read without the others."""
    for number in (3, 1, 2):
        await put(store, f"R#uid#{number:08d}", {"n": number})
    await put(store, "R#uidx#00000009", {"n": 9})
    await put(store, "M#uid", {"n": 0})
    found = await store.read("me", Range("M#uid"), Range("R#uid#", newest=1), Range("R#uid#"))
    assert [item.body["n"] for item in found] == [0, 3, 1, 2, 3]


async def test_owners_do_not_see_each_other(store: Store) -> None:
    """One table, many people."""
    await put(store, "M#uid", {"n": 1}, owner="me")
    await put(store, "M#uid", {"n": 2}, owner="you")
    assert [item.body for item in await store.read("you", Range(""))] == [{"n": 2}]
    assert await store.read("nobody", Range("")) == []


async def test_a_repeat_of_a_commit_is_made_once_or_refused(store: Store) -> None:
    """After a lost answer the same commit is sent again: it must not count twice."""
    token = op()
    changes = [Change("M#uid", 0, {"n": 1})]
    await store.commit("me", changes, token)
    try:
        await store.commit("me", changes, token)  # DynamoDB knows the token
    except Conflict:
        pass  # the others see that it was done
    (item,) = await store.read("me", Range("M#uid"))
    assert item.version == 1


async def test_many_at_once_end_up_one_after_the_other(store: Store) -> None:
    """No change is lost between twenty who want to count up."""
    await put(store, "M#uid", {"n": 0})

    async def count_up() -> None:
        while True:
            (item,) = await store.read("me", Range("M#uid"))
            try:
                await put(store, "M#uid", {"n": item.body["n"] + 1}, expects=item.version)
                return
            except (Conflict, Unreachable):
                await asyncio.sleep(0)

    await asyncio.gather(*(count_up() for _ in range(8)))
    (item,) = await store.read("me", Range("M#uid"))
    assert (item.version, item.body) == (9, {"n": 8})


async def test_more_changes_than_one_transaction_takes_end_with_the_last(store: Store) -> None:
    """A project with hundreds of runs can be deleted too; its row goes last."""
    many = [Change(f"R#uid#{number:08d}", 0, {"n": number}) for number in range(130)]
    await store.commit("me", many[:90], op())
    await store.commit("me", many[90:], op())
    await put(store, "M#uid", {"n": 0})
    gone = [*(Change(one.key, 1) for one in many), Change("M#uid", 1)]
    await store.commit("me", gone, op())
    assert await store.read("me", Range("")) == []


# SQLite


async def test_another_process_sees_a_commit_at_once_and_may_not_overwrite_it(tmp_path: Path) -> None:
    """Two daemons on one machine, for as long as it takes to notice."""
    one, other = SqliteStore(tmp_path / "p.db"), SqliteStore(tmp_path / "p.db")
    await put(one, "M#uid", {"n": 1})
    assert [item.body for item in await other.read("me", Range("M#"))] == [{"n": 1}]
    await put(other, "M#uid", {"n": 2}, expects=1)
    with pytest.raises(Conflict):
        await put(one, "M#uid", {"n": 3}, expects=1)
    await one.close()
    await other.close()


async def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    """It names boxes, images and what happened to them."""
    store = SqliteStore(tmp_path / "deep" / "p.db")
    await put(store, "M#uid", {"n": 1})
    assert (tmp_path / "deep").stat().st_mode & 0o777 == 0o700
    for path in (tmp_path / "deep").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    await store.close()


def test_a_commit_is_on_the_disk_when_it_returns(tmp_path: Path) -> None:
    """A power cut after the answer loses nothing: ``synchronous`` is FULL, the journal a WAL."""
    file = SqliteFile(tmp_path / "p.db")
    file.commit("me", [Change("M#uid", 0, {"n": 1})])
    assert file._connection is not None
    assert file._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert file._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    # The connection is not closed, as after kill -9.
    other = SqliteFile(tmp_path / "p.db")
    assert [item.body for item in other.read("me", [Range("M#")])] == [{"n": 1}]
    other.close()
    file.close()


def test_a_file_that_is_none_and_one_of_the_future_are_said_so(tmp_path: Path) -> None:
    """Neither is overwritten."""
    garbage = tmp_path / "g.db"
    garbage.write_bytes(b"this is no database, and long enough to be sure of it" * 100)
    with pytest.raises(StoreFailed, match="not a database"):
        SqliteFile(garbage).read("me", [Range("M#")])
    assert garbage.read_bytes().startswith(b"this is no database")
    newer = sqlite3.connect(tmp_path / "n.db")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(StoreNewer):
        SqliteFile(tmp_path / "n.db").read("me", [Range("M#")])
    with pytest.raises(StoreFailed):
        SqliteFile(garbage / "p.db").read("me", [Range("M#")])


async def test_what_has_expired_can_be_forgotten(tmp_path: Path) -> None:
    """Events are kept for ninety days."""
    store = SqliteStore(tmp_path / "p.db")
    changes = [Change("E#1", 0, {}, 100.0), Change("E#2", 0, {}, 300.0), Change("M#uid", 0, {})]
    await store.commit("me", changes, op())
    await store.forget(200.0)
    assert [item.key for item in await store.read("me", Range(""))] == ["E#2", "M#uid"]
    await store.close()


# DynamoDB


async def test_a_table_that_is_not_there_says_how_to_make_it(
    moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one set-up step that the shared store needs."""
    async with account_at(moto, monkeypatch) as account:
        store = DynamoStore(account, "devbox-nowhere")
        with pytest.raises(StoreFailed, match="devbox-nowhere") as failed:
            await store.read("me", Range("M#"))
        assert "init account" in (failed.value.hint or "")
        with pytest.raises(StoreFailed, match="devbox-nowhere"):
            await put(store, "M#uid", {})
