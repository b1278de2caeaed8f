"""The lifecycle half of a daemon, put together: its book, its fleet and its verbs, over any store and any cloud."""

from __future__ import annotations

import secrets
import string
from collections.abc import Awaitable, Callable
from typing import Final

from devboxd.control.base.needs import Computes, RunOnBox, Store
from devboxd.control.base.shared import Shared
from devboxd.control.base.steady import steadily
from devboxd.control.lifecycle.book import Book
from devboxd.control.lifecycle.boxwork import BoxWork
from devboxd.control.lifecycle.fleet import Fleet
from devboxd.control.lifecycle.projects import Projects
from devboxd.model.box import Account
from devboxd.model.project import Project

OWN: Final = "me"  # whose rows are in a store that is this user's alone
UID_LENGTH: Final = 10
_LETTERS: Final = string.ascii_lowercase + string.digits


class Lifecycle:
    """The projects of one user.

    ``owner``: whose tag is on what an account makes; ``me``: this machine and user, as events name it. Nothing is
    asked of AWS while there is no project.
    """

    def __init__(
        self,
        shared: Shared,
        store: Store,
        computes: Computes,
        run: RunOnBox,
        *,
        me: str,
        owner: Callable[[Account], Awaitable[str]],
        is_used: Callable[[Project], bool] = lambda project: False,
    ) -> None:
        self._shared = shared
        book = Book(store, OWN, me, new_id, shared.time.wall)
        boxes = BoxWork(run)
        start = (
            f"{me}/{secrets.token_hex(4)}"  # a daemon that starts anew must not take over its own old turn
        )
        self._fleet = Fleet(shared, book, computes, boxes, me=start, op=new_id, is_used=is_used)
        self.projects = Projects(shared, book, self._fleet, computes, boxes, uid=new_uid, owner=owner)

    def start(self) -> None:
        """Go on with what an earlier daemon left; ends with the daemon's tasks."""
        self._shared.tasks.spawn("fleet", steadily(self._shared, "fleet", self._fleet.run))


def new_id() -> str:
    """An id that nobody else gives."""
    return secrets.token_hex(16)


def new_uid() -> str:
    """The identity of a new project: 51 bits, so that two are never alike in one account."""
    return "".join(secrets.choice(_LETTERS) for _ in range(UID_LENGTH))
