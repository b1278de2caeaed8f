"""Tells a user of something on every way that is set up, and of a way that fails on all the others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from devboxd.control.base.news import News
from devboxd.control.base.supervisor import Supervisor
from devboxd.errors import DevboxError
from devboxd.model.notice import Way

log = logging.getLogger(__name__)

PATIENCE: Final = 30.0  # seconds that telling may take

Tell = Callable[[str, str], Awaitable[None]]  # title, text; raises DevboxError where it did not arrive
Notify = Callable[[str, str], Awaitable[object]]  # title, text


def tell_later(tasks: Supervisor, notify: Notify, title: str, text: str) -> None:
    """Tell a user of something: nobody waits for a desktop."""

    async def tell() -> None:
        async with asyncio.timeout(PATIENCE):
            await notify(title, text)

    tasks.spawn("notice", tell())


class Notices:
    """``ways`` gives those that are set up now. Nobody waits for a notice, and nothing else fails by it."""

    def __init__(self, news: News, ways: Callable[[], Mapping[Way, Tell]]) -> None:
        self._news = news
        self._ways = ways

    async def tell(self, title: str, text: str) -> dict[Way, DevboxError | None]:
        """Tell on every way at once; what went wrong on each. A condition stands while a way fails."""
        ways = self._ways()
        told = await asyncio.gather(*(_told(tell, title, text) for tell in ways.values()))
        failed = dict(zip(ways, told, strict=True))
        # No desktop is no failure: a server has none.
        problems = {
            way: error for way, error in failed.items() if error is not None and way is not Way.DESKTOP
        }
        for way, error in problems.items():
            log.warning("a notice was not sent by %s: %s", way, error.message)
        if problems:
            said = "; ".join(f"{way}: {error.message}" for way, error in problems.items())
            hint = next((error.hint for error in problems.values() if error.hint), None)
            self._news.raise_condition("notice-not-sent", problem=said, hint=hint)
        else:
            self._news.clear_condition("notice-not-sent")
        return failed


async def _told(tell: Tell, title: str, text: str) -> DevboxError | None:
    try:
        await tell(title, text)
    except DevboxError as error:
        return error
    return None
