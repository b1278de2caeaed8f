"""Sessions that were started without our learning of it: the answer to StartSession was lost.

Nobody holds such a session, and it would stay open until its idle time-out. So the account is looked through some
time after a start that was not answered, or took as long as one that was asked twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Final

from devboxd.control.base.needs import SessionApi
from devboxd.control.base.shared import Shared
from devboxd.errors import DevboxError, SessionOver
from devboxd.model.box import Account

log = logging.getLogger(__name__)

SLOW: Final = 5.0  # seconds after which StartSession may have been asked a second time
PAUSE: Final = 60.0  # seconds between two looks: a start that is under way is answered meanwhile
LOOKS: Final = 10  # that fail until it is left to the next daemon's sweep


class LostStarts:
    """Finds and ends them. ``held``: ids of the sessions that are held; ``is_ours``: whether a Reason is of this life."""

    def __init__(
        self,
        shared: Shared,
        api: Callable[[Account], SessionApi],
        *,
        reason_prefix: str,
        is_ours: Callable[[str], bool],
        held: Callable[[], Collection[str]],
    ) -> None:
        self._shared = shared
        self._api = api
        self._prefix = reason_prefix
        self._is_ours = is_ours
        self._held = held
        self._doubted: dict[Account, bool] = {}  # whether a start was lost since the looks began

    def suspect(self, account: Account) -> None:
        """A start may have left a session there."""
        if account in self._doubted:
            self._doubted[account] = True
            return
        self._doubted[account] = False
        self._shared.tasks.spawn("look for sessions of lost starts", self._look_through(account))

    async def _look_through(self, account: Account) -> None:
        try:
            again = True
            while again:
                self._doubted[account] = False
                first = await self._unheld(account)
                if first:
                    # What is nobody's a minute later, too, is not a session whose answer is still on its way.
                    for id_ in first & await self._unheld(account):
                        if await end_session(self._api(account), id_):
                            text = f"ended session {id_}, which was started without an answer"
                            self._shared.news.tell("sweep.ended", text)
                again = self._doubted[account]
        except DevboxError as error:
            log.info("no look for sessions of lost starts in %s: %s", account, error)
        finally:
            del self._doubted[account]

    async def _unheld(self, account: Account) -> set[str]:
        """Sessions of this life, after a pause, that nobody holds.

        Raises:
            DevboxError: they may not be asked for, or not for long.
        """
        for left in range(LOOKS, 0, -1):
            await asyncio.sleep(PAUSE)
            try:
                found = await self._api(account).active(reason_prefix=self._prefix)
            except DevboxError as error:
                if not error.retryable or left == 1:
                    raise
                continue
            held = self._held()
            return {one.id for one in found if self._is_ours(one.reason) and one.id not in held}
        return set()


async def end_session(api: SessionApi, id_: str) -> bool:
    """End a session that nobody holds; says whether it was still open.

    Raises:
        DevboxError: it could not be ended.
    """
    try:
        await api.terminate(id_)
    except SessionOver:
        return False
    return True
