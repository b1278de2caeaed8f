"""What outlives the daemon, with one owner: remembered by verbs, written soon after, never half.

Each verb changes one entry. What an earlier daemon left is here from the first moment, so nothing can be
written over what was not taken up yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Self

from devboxd.control.base.bells import Bell
from devboxd.control.base.needs import Journal
from devboxd.control.base.news import News
from devboxd.errors import StateNotSaved
from devboxd.model.box import Account
from devboxd.model.forward import Saved
from devboxd.model.localports import CONTESTED_MAX
from devboxd.model.memory import ACCOUNTS_KEPT, State, Unusable, kept, recalled

log = logging.getLogger(__name__)

RETRY: Final = 10.0  # seconds between two tries to write to a disk that does not take it
HOSTS_KEPT: Final = 1000  # host names with pinned keys; somebody may ask for a box by many beginnings
SETTLE: Final = 2.0  # seconds that an answer waits for the disk: a slow one must not hold up a command


class Memory:
    """Forwards, open sessions, accounts, host keys and users, as the next daemon has to know them."""

    def __init__(self, news: News, journal: Journal, state: State | None = None) -> None:
        self._news = news
        self._journal = journal
        self._state = state or State()
        self._changes = 0
        self._written = 0  # changes that are on disk
        self._tried = 0  # changes that are there or could not be written
        self._changed = asyncio.Event()
        self._done = Bell()

    @classmethod
    def recall(cls, news: News, journal: Journal, new_owner: Callable[[], str]) -> Self:
        """What the last daemon left; the first one of all gives our sessions at AWS their mark."""
        state = recalled(journal.read())
        state.owner = state.owner or new_owner()
        if journal.problem:
            news.raise_condition("journal-lost", problem=journal.problem)
        return cls(news, journal, state)

    @property
    def owner(self) -> str:
        """What marks our sessions at AWS: this machine and user."""
        return self._state.owner

    # Forwards ---------------------------------------------------------------------------------------

    @property
    def forwards(self) -> Sequence[Saved]:
        """What the user asked for, in that order."""
        return list(self._state.forwards.values())

    @property
    def unusable(self) -> Sequence[Unusable]:
        """Forwards of an earlier daemon that cannot be."""
        return list(self._state.unusable)

    def keep_forward(self, saved: Saved) -> None:
        """Make this forward again after a restart."""
        if self._state.forwards.get(saved.id) != saved:
            self._state.forwards[saved.id] = saved
            self._note()

    def drop_forward(self, id_: str) -> None:
        """Forget one, usable or not."""
        unusable = [one for one in self._state.unusable if one.id != id_]
        if self._state.forwards.pop(id_, None) is not None or len(unusable) < len(self._state.unusable):
            self._state.unusable = unusable
            self._note()

    @property
    def contested_ports(self) -> Mapping[int, float]:
        """Ports that a box and programs of this machine listen on: when last here, in Unix time."""
        return self._state.contested

    def contested(self, ports: Mapping[int, float]) -> None:
        """Note some. Those that were not seen for the longest time make room."""
        if ports:
            every = sorted({**self._state.contested, **ports}.items(), key=lambda item: item[1])
            self._state.contested = dict(every[-CONTESTED_MAX:])
            self._note()

    # Sessions and accounts --------------------------------------------------------------------------

    @property
    def open_sessions(self) -> Mapping[str, Account]:
        """Sessions at AWS by our doing that were not ended: id, whose."""
        return dict(self._state.open_sessions)

    def session_opened(self, id_: str, account: Account) -> None:
        """A session exists at AWS from now on."""
        self._state.open_sessions[id_] = account
        self._note()

    def session_over(self, id_: str) -> None:
        """A session has ended there, or was ended."""
        if self._state.open_sessions.pop(id_, None) is not None:
            self._note()

    @property
    def accounts(self) -> Sequence[Account]:
        """Accounts that boxes were reached with: their sessions are looked through after a crash."""
        return list(self._state.accounts)

    def used(self, account: Account) -> None:
        """A box was reached with this account."""
        if account not in self._state.accounts:
            self._state.accounts = [*self._state.accounts, account][-ACCOUNTS_KEPT:]
            self._note()

    # ssh --------------------------------------------------------------------------------------------

    @property
    def host_keys(self) -> Mapping[str, Mapping[int, Sequence[str]]]:
        """By box, by port: what ssh pins."""
        return self._state.host_keys

    def pin(self, boxes: Sequence[str], port: int, keys: Sequence[str]) -> None:
        """Replace what is pinned for these host names. The least recently pinned make room."""
        pinned = self._state.host_keys
        # ssh takes a key that stands under the same name in capitals, too (OpenSSH, match_pattern_list).
        small = {box.lower() for box in boxes}
        alike = [box for box in pinned if box not in boxes and box.lower() in small]
        for box in (*alike, *boxes):
            if pinned.get(box, {}).get(port) != list(keys):
                pinned[box] = {**pinned.pop(box, {}), port: list(keys)}
                self._note()
        for box in list(pinned)[: max(0, len(pinned) - HOSTS_KEPT)]:
            del pinned[box]

    @property
    def users(self) -> Mapping[str, str]:
        """By box: who logs in there."""
        return self._state.users

    def note_user(self, box: str, user: str) -> bool:
        """Log in to this box as ``user`` from now on; says whether that is new."""
        if self._state.users.get(box) == user:
            return False
        users = self._state.users
        users[box] = user
        for name in list(users)[: max(0, len(users) - HOSTS_KEPT)]:
            del users[name]
        self._note()
        return True

    # Writing ----------------------------------------------------------------------------------------

    def _note(self) -> None:
        self._changes += 1
        self._changed.set()

    async def run(self) -> None:
        """Write whenever something changed; many changes at once are one write."""
        while True:
            # Room may be made on a full disk, and no change may come to say so.
            patience = RETRY if self._written < self._tried else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._changed.wait()
            self._changed.clear()
            await self._save()

    async def finish(self) -> None:
        """Write what is left, once ``run`` has ended."""
        if self._written < self._changes:
            await self._save()

    async def settled(self) -> bool:
        """Wait until what was remembered so far is on disk, for ``SETTLE`` seconds at most; say whether it is."""
        wanted = self._changes
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE):
                while self._tried < wanted:
                    await self._done.wait(None)
        return self._written >= wanted

    async def _save(self) -> None:
        changes = self._changes
        try:
            await self._journal.save(kept(self._state))
        except StateNotSaved as error:
            log.error("%s", error.message)
            self._news.raise_condition("state-not-saved", problem=error.message, hint=error.hint)
        else:
            self._written = changes
            self._news.clear_condition("state-not-saved")
        self._tried = changes
        self._done.ring()
