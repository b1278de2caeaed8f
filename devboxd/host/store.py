"""The projects of one machine, in a SQLite file: the embedded store. Nothing has to be set up in the account.

A commit is on the disk when it returns (``synchronous=FULL``), a reader never waits for a writer (WAL), and
several processes may use the file at once. All work is done in one thread, off the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from devboxd.errors import Conflict
from devboxd.model.ledger import ABSENT, Change, Item, Range, StoreFailed, StoreNewer

FORMAT: Final = 1  # of the file: PRAGMA user_version
BUSY: Final = 10.0  # seconds that another process may hold the file
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS item (
    owner TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL, expires REAL,
    PRIMARY KEY (owner, key)
) WITHOUT ROWID
"""
_END: Final = "\U0010ffff"  # after every character of a key

T = TypeVar("T")


class SqliteFile:
    """The file itself, for one thread. Raises StoreFailed, StoreNewer and Conflict."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def read(self, owner: str, ranges: Sequence[Range]) -> list[Item]:
        """All ranges, out of one moment."""
        with self._transaction("BEGIN") as connection:
            return [item for one in ranges for item in _read(connection, owner, one)]

    def commit(self, owner: str, changes: Sequence[Change]) -> None:
        """All changes or none."""
        with self._transaction("BEGIN IMMEDIATE") as connection:
            for change in changes:
                found = connection.execute(
                    "SELECT version FROM item WHERE owner = ? AND key = ?", (owner, change.key)
                ).fetchone()
                if (found[0] if found else ABSENT) != change.expects:
                    raise Conflict(f"{change.key} was changed by somebody else")
                _apply(connection, owner, change)

    def forget(self, before: float) -> None:
        """Drop what has expired by then: Unix seconds."""
        with self._transaction("BEGIN IMMEDIATE") as connection:
            connection.execute("DELETE FROM item WHERE expires < ?", (before,))

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._opened()
            connection.execute(begin)
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()
        except sqlite3.Error as error:
            hint = "is the disk full? Is the file whole? EC2's tags can restore it: devboxctl rebuild"
            raise StoreFailed(f"{self._path}: {error}", hint=hint) from error

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.touch(mode=0o600)
        except OSError as error:
            raise StoreFailed(f"{self._path} can not be made: {error.strerror}") from error
        connection = sqlite3.connect(self._path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > FORMAT:
            raise StoreNewer(f"{self._path} was written by a newer devbox", hint="upgrade devbox here")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(_TABLE)
        connection.execute(f"PRAGMA user_version = {FORMAT}")


def _read(connection: sqlite3.Connection, owner: str, one: Range) -> list[Item]:
    query = "SELECT key, version, body FROM item WHERE owner = ? AND key >= ? AND key < ? ORDER BY key"
    arguments: list[object] = [owner, one.prefix, one.prefix + _END]
    if one.newest is not None:
        query += " DESC LIMIT ?"
        arguments.append(one.newest)
    return [
        Item(key, version, msgspec.json.decode(text, type=dict))
        for key, version, text in connection.execute(query, arguments)
    ]


def _apply(connection: sqlite3.Connection, owner: str, change: Change) -> None:
    if change.body is None:
        connection.execute("DELETE FROM item WHERE owner = ? AND key = ?", (owner, change.key))
        return
    text = msgspec.json.encode(change.body).decode()
    connection.execute(
        "INSERT OR REPLACE INTO item VALUES (?, ?, ?, ?, ?)",
        (owner, change.key, change.expects + 1, text, change.expires),
    )


class SqliteStore:
    """``control``'s store over such a file."""

    is_shared: Final = False

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    async def read(self, owner: str, *ranges: Range) -> list[Item]:
        """See ``control.base.needs.Store``."""
        return await self._do(lambda: self._file.read(owner, ranges))

    async def commit(self, owner: str, changes: Sequence[Change], op: str) -> None:
        """See ``control.base.needs.Store``."""
        await self._do(lambda: self._file.commit(owner, changes))

    async def forget(self, before: float) -> None:
        """Drop events that have expired."""
        await self._do(lambda: self._file.forget(before))

    async def close(self) -> None:
        """Close the file and end the thread."""
        await self._do(self._file.close)
        self._thread.shutdown(wait=False)

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
