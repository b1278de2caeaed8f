"""The rows of one user in the shared table: whose they are, and which profile of this machine they mean.

``pk`` is the user's ``aws:userid``, because that is what the table's policy compares it with. A profile has a name
on one machine only, so the rows do not name the table's own one: on each machine it is whatever leads to the table.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec.structs import replace

from devboxd.aws.calls import Calls
from devboxd.aws.store import DynamoStore
from devboxd.model.box import Account
from devboxd.model.ledger import Change, Item, Range, StoreFailed

# What an SDK calls a role session that nobody has given a name: another name, so another user, each time.
_MADE_UP: Final = re.compile(r"(botocore|aws-cli|aws-sdk|devbox)[a-z-]*-session-\d+")


@dataclass(slots=True)
class SharedRows:
    """``control``'s store over the table, for whoever the credentials belong to.

    ``where`` is the table's account, ``calls`` makes its calls, and ``who`` asks for its ``aws:userid``; ``renewals``
    counts how often the credentials may have become those of another user. Whatever ``owner`` is asked for, the rows
    are the user's own. Errors are those of ``DynamoStore``, of the account, and ``StoreFailed``.
    """

    table: str
    where: Callable[[], Account]
    calls: Callable[[Account], Calls]
    who: Callable[[Account], Awaitable[str]]
    renewals: Callable[[], int]
    is_shared: bool = True
    _known: dict[tuple[Account, int], str] = field(default_factory=dict)

    async def read(self, owner: str, *ranges: Range) -> list[Item]:
        """See ``control.base.needs.Store``."""
        store, own, profile = await self._store()
        return [
            replace(item, body=_with_profile(item.body, None, profile))
            for item in await store.read(own, *ranges)
        ]

    async def commit(self, owner: str, changes: Sequence[Change], op: str) -> None:
        """See ``control.base.needs.Store``."""
        store, own, profile = await self._store()
        told = [
            change if change.body is None else replace(change, body=_with_profile(change.body, profile, None))
            for change in changes
        ]
        await store.commit(own, told, op)

    async def _store(self) -> tuple[DynamoStore, str, str | None]:
        where = self.where()
        own = await self._own(where)
        return DynamoStore(self.calls(where), self.table), own, where.profile

    async def _own(self, where: Account) -> str:
        """The user's id: asked once, and again when there may be other credentials."""
        now = (where, self.renewals())
        if now not in self._known:
            found = lasting(await self.who(where), where.profile)
            self._known.clear()
            self._known[now] = found
        return self._known[now]


def lasting(user_id: str, profile: str | None) -> str:
    """The ``aws:userid`` of a profile as the owner of rows. Raises StoreFailed where it is another each time."""
    if _MADE_UP.search(user_id):
        raise StoreFailed(
            f"the role session has a name that is another each time ({user_id}), so its rows could not be "
            "found again",
            hint=f"set role_session_name for the profile {profile or 'default'} in ~/.aws/config",
        )
    return user_id


def _with_profile(body: dict[str, Any], old: str | None, new: str | None) -> dict[str, Any]:
    """A row with one profile in place of another; what is no row, and what is of another profile, stays."""
    account = body.get("account")
    if old == new or not isinstance(account, dict) or account.get("profile") != old:
        return body
    return {**body, "account": {**account, "profile": new}}
