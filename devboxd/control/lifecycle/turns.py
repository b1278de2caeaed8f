"""Take turns with the daemons of other machines, where the store is shared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from devboxd.control.base.needs import Store
from devboxd.errors import Conflict
from devboxd.model.ledger import ABSENT, Change, Item, Range, body, lease_key
from devboxd.model.turn import RENEW_AFTER, Lease, Watched, claimed, watched


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

    async def take(self) -> bool:
        """Say whether it is our turn, and keep it for a while. Errors are the store's."""
        if not self.store.is_shared:
            return True
        at = self.monotonic()
        if self._held_since is not None and at - self._held_since < RENEW_AFTER:
            return True
        item = await self._read()
        lease = msgspec.convert(item.body, Lease) if item else None
        self._known = watched(lease, self._known, at)
        ours = claimed(lease, self.me, self.nonce(), self._known, at)
        if ours is None or not await self._write(item, ours):
            self._held_since = None
            return False
        self._held_since = at
        return True

    async def leave(self) -> None:
        """Let others act at once: for while there is nothing to do."""
        if self._held_since is None:
            return
        self._held_since = None
        item = await self._read()
        if item is not None and item.body.get("holder") == self.me:
            await self._write(item, None)

    async def _read(self) -> Item | None:
        key = lease_key(self.uid)
        return next((one for one in await self.store.read(self.owner, Range(key)) if one.key == key), None)

    async def _write(self, item: Item | None, lease: Lease | None) -> bool:
        expects = item.version if item is not None else ABSENT
        content = body(lease) if lease is not None else None
        try:
            await self.store.commit(self.owner, [Change(lease_key(self.uid), expects, content)], self.nonce())
        except Conflict:
            return False
        return True
