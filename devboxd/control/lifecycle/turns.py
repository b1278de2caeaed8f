"""Take turns with the daemons of other machines, where the store is shared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from devboxd.control.base.needs import Store
from devboxd.control.lifecycle.book import item_of
from devboxd.errors import Conflict, DevboxError
from devboxd.model.ledger import ABSENT, Change, Item, body, lease_key, read_as
from devboxd.model.turn import RENEW_AFTER, Lease, Watched, claimed, watched

LEAVE_WITHIN: Final = 2.0  # seconds to give a turn back in


@dataclass(slots=True)
class Turn:
    """The right to act on one project. ``me``: this machine and this start of it; ``nonce``: never given twice."""

    store: Store
    owner: str
    uid: str
    me: str
    nonce: Callable[[], str]
    monotonic: Callable[[], float]
    _known: Watched = field(default_factory=Watched)
    _held_since: float | None = None
    is_anothers: bool = False  # who has the turn was seen to renew it

    async def take(self) -> bool:
        """Say whether it is our turn, and keep it for a while. Errors are the store's."""
        if not self.store.is_shared:
            return True
        at = self.monotonic()
        if self._held_since is not None and at - self._held_since < RENEW_AFTER:
            return True
        item = await self._read()
        lease = self._seen(item, at)
        ours = claimed(lease, self.me, self.nonce(), self._known, at)
        if ours is None or not await self._write(item, ours):
            self._held_since = None
            return False
        self._held_since = at
        return True

    async def watch(self) -> None:
        """See who has the turn, and take nothing."""
        if self.store.is_shared and self._held_since is None:
            self._seen(await self._read(), self.monotonic())

    def _seen(self, item: Item | None, at: float) -> Lease | None:
        lease = read_as(item, Lease) if item else None
        before, self._known = self._known, watched(lease, self._known, at)
        is_renewed = lease is not None and before.nonce not in ("", lease.nonce)
        self.is_anothers = is_renewed and lease is not None and lease.holder != self.me
        return lease

    async def leave(self) -> None:
        """Let others act at once: for while there is nothing to do."""
        if self._held_since is None:
            return
        self._held_since = None
        item = await self._read()
        if item is not None and item.body.get("holder") == self.me:
            await self._write(item, None)

    async def hand_over(self) -> None:
        """Leave, at the end of a loop: as far as the store lets us, and soon."""
        with suppress(DevboxError, TimeoutError):
            async with asyncio.timeout(LEAVE_WITHIN):
                await self.leave()

    async def _read(self) -> Item | None:
        return await item_of(self.store, self.owner, lease_key(self.uid))

    async def _write(self, item: Item | None, lease: Lease | None) -> bool:
        expects = item.version if item is not None else ABSENT
        content = body(lease) if lease is not None else None
        try:
            await self.store.commit(self.owner, [Change(lease_key(self.uid), expects, content)], self.nonce())
        except Conflict:
            return False
        return True
