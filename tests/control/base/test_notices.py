"""Notices on every way: one that fails costs the others nothing, and is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from devboxd.control.base.news import News
from devboxd.control.base.notices import PATIENCE, Notices, tell_later
from devboxd.control.base.supervisor import Supervisor
from devboxd.control.base.time import Time
from devboxd.errors import DevboxError, Unreachable
from devboxd.model.notice import Way
from tests.control.fakes import LoopClock


def telling(
    said: list[str], name: str, error: DevboxError | None = None
) -> Callable[[str, str], Awaitable[None]]:
    async def tell(title: str, text: str) -> None:
        if error is not None:
            raise error
        said.append(f"{name}: {title}, {text}")

    return tell


async def test_a_way_that_fails_is_told_and_the_others_are_used() -> None:
    said: list[str] = []
    ways = {
        Way.DESKTOP: telling(said, "desktop", Unreachable("there is no desktop")),
        Way.NTFY: telling(said, "ntfy"),
        Way.SLACK: telling(said, "slack", Unreachable("slack did not answer", hint="wait")),
    }
    news = News(Time(LoopClock()))
    notices = Notices(news, lambda: ways)
    failed = await notices.tell("api", "stops")
    assert said == ["ntfy: api, stops"]
    assert {way for way, error in failed.items() if error} == {Way.DESKTOP, Way.SLACK}
    (condition,) = news.conditions()
    assert (condition.code, condition.text, condition.hint) == (
        "notice-not-sent", "slack: slack did not answer", "wait",
    )  # fmt: skip
    ways[Way.SLACK] = telling(said, "slack")
    await notices.tell("api", "stopped")
    assert news.conditions() == []


async def test_a_machine_without_a_desktop_is_no_failure() -> None:
    news = News(Time(LoopClock()))
    ways = {Way.DESKTOP: telling([], "desktop", Unreachable("there is none"))}
    await Notices(news, lambda: ways).tell("api", "stops")
    assert news.conditions() == []


@pytest.mark.looptime
async def test_nobody_waits_for_a_notice_and_it_does_not_take_for_ever() -> None:
    tasks, said = Supervisor("test"), []

    async def slow(title: str, text: str) -> None:
        said.append((title, text))
        await asyncio.sleep(3600)

    tell_later(tasks, slow, "api", "stops")
    assert said == []
    await asyncio.sleep(PATIENCE - 1)
    assert (said, len(tasks)) == ([("api", "stops")], 1)
    await asyncio.sleep(2)
    assert len(tasks) == 0
