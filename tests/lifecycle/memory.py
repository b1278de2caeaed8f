"""A store in memory, for tests that make a million commits."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from devboxd.errors import Conflict
from devboxd.model.ledger import ABSENT, Change, Item, Range


class MemoryStore:
    """``control.base.needs.Store``: bodies are encoded as the real engines do, so nothing is shared by accident."""

    def __init__(self, *, is_shared: bool = False) -> None:
        self.is_shared = is_shared
        self.reads = 0
        self.items: dict[tuple[str, str], tuple[int, bytes]] = {}

    def read_now(self, owner: str, ranges: Sequence[Range]) -> list[Item]:
        self.reads += 1
        found = []
        for one in ranges:
            keys = sorted(key for who, key in self.items if who == owner and key.startswith(one.prefix))
            for key in keys if one.newest is None else reversed(keys[-one.newest :]):
                version, body = self.items[owner, key]
                found.append(Item(key, version, msgspec.json.decode(body)))
        return found

    def commit_now(self, owner: str, changes: Sequence[Change]) -> None:
        for change in changes:
            version = self.items[owner, change.key][0] if (owner, change.key) in self.items else ABSENT
            if version != change.expects:
                raise Conflict(f"{change.key} was changed by somebody else")
        for change in changes:
            if change.body is None:
                self.items.pop((owner, change.key), None)
            else:
                self.items[owner, change.key] = (change.expects + 1, msgspec.json.encode(change.body))

    async def read(self, owner: str, *ranges: Range) -> list[Item]:
        return self.read_now(owner, ranges)

    async def commit(self, owner: str, changes: Sequence[Change], op: str) -> None:
        self.commit_now(owner, changes)
