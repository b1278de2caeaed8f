"""What all sessions share: the gate, the bell, events and conditions; and the task tree."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

import pytest

from devboxd.control.base.bells import Bell
from devboxd.control.base.gate import Gate
from devboxd.control.base.news import EVENTS_KEPT
from devboxd.control.base.shared import Shared
from devboxd.control.base.supervisor import Supervisor
from devboxd.model.health import CONDITIONS
from tests.control.fakes import LoopClock, settle
from tests.kit.tasks import beside

pytestmark = pytest.mark.looptime


async def test_the_gate_lets_the_most_wanted_through_first() -> None:
    """After a wake, the terminal in use comes back before forty forwards."""
    gate, order = Gate(1), list[str]()

    async def pass_through(name: str, priority: float) -> None:
        async with gate.enter(priority):
            order.append(name)
            await asyncio.sleep(1)

    async with asyncio.TaskGroup() as tasks:
        for name, priority in (("first", 5), ("a", 3), ("b", 1), ("c", 3), ("d", -1)):
            tasks.create_task(pass_through(name, priority))
            await asyncio.sleep(0)
    assert order == ["first", "d", "b", "a", "c"]


async def test_the_gate_is_as_wide_as_it_says() -> None:
    """Four calls at once, not fifty and not one."""
    gate, inside, most = Gate(4), 0, 0

    async def pass_through() -> None:
        nonlocal inside, most
        async with gate.enter():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(1)
            inside -= 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(50):
            tasks.create_task(pass_through())
    assert (most, inside) == (4, 0)


@pytest.mark.parametrize("after", [0, 1, 2])
async def test_a_cancelled_waiter_keeps_no_place(after: int) -> None:
    """Even when its turn had just come; or the gate would close for ever."""
    gate = Gate(1)

    async def pass_through() -> None:
        async with gate.enter():
            await asyncio.sleep(1)

    holder = beside(pass_through())
    await asyncio.sleep(0)
    waiters = [beside(pass_through()) for _ in range(3)]
    await asyncio.sleep(0)
    if after == 0:
        waiters[0].cancel()
    else:
        holder.cancel()
        for _ in range(after - 1):
            await asyncio.sleep(0)
        waiters[0].cancel()
    await asyncio.wait(waiters)
    async with asyncio.timeout(2):
        await pass_through()


async def test_a_failure_inside_the_gate_gives_the_place_back() -> None:
    """Every refused call would narrow it."""
    gate = Gate(1)
    for _ in range(3):
        with pytest.raises(ValueError, match="inside"):
            async with gate.enter():
                raise ValueError("inside")


async def test_the_bell_wakes_all_who_wait_and_nobody_later() -> None:
    """One ring, one wake."""
    bell = Bell()
    waiting = [beside(bell.wait(None)) for _ in range(3)]
    await settle()
    bell.ring()
    assert await asyncio.gather(*waiting) == [True] * 3
    assert await bell.wait(5.0) is False


async def test_a_block_is_left_when_the_bell_rings_and_keeps_what_it_has() -> None:
    """A call over the network that was is given up; a link that is there already is not lost."""
    bell, got = Bell(), list[str]()

    async def work(seconds: float) -> None:
        async with bell.until_rung():
            await asyncio.sleep(seconds)
            got.append("done")
        got.append("left")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(work(10.0))
        tasks.create_task(work(1.0))
        await asyncio.sleep(5.0)
        bell.ring()
        bell.ring()
    assert got == ["done", "left", "left"]
    assert asyncio.get_running_loop().time() < 6.0
    bell.ring()
    await work(0.0)
    assert got[-2:] == ["done", "left"], "nobody is left by a ring that was before"


async def test_a_block_that_is_cancelled_or_fails_by_itself_does_so() -> None:
    """Only the bell's own doing is swallowed."""
    bell = Bell()

    async def wait_for(work: Awaitable[object]) -> None:
        async with bell.until_rung():
            await work

    task = asyncio.get_running_loop().create_task(wait_for(asyncio.sleep(10.0)))
    await asyncio.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TimeoutError):
        await wait_for(asyncio.wait_for(asyncio.sleep(10.0), 1.0))


async def test_events_are_numbered_kept_and_followed() -> None:
    """``devboxctl events --follow --since``."""
    shared = Shared.of(LoopClock())
    for number in range(EVENTS_KEPT + 10):
        shared.news.tell("x", str(number))
    assert len(shared.news.events()) == EVENTS_KEPT
    last = shared.news.events()[-1].sequence
    assert [event.text for event in shared.news.events(last - 2)] == ["1008", "1009"]
    seen: list[str] = []

    async def follow() -> None:
        async for event in shared.news.follow(last):
            seen.append(event.text)  # noqa: PERF401 - it never ends

    follower = beside(follow())
    await settle()
    shared.news.tell("x", "a")
    shared.news.tell("x", "b")
    await settle()
    shared.news.tell("x", "c")
    await settle()
    assert seen == ["a", "b", "c"]
    follower.cancel()


async def test_a_condition_stands_once_and_keeps_its_age() -> None:
    """Trouble is a state with a name, not a line in a log repeated each minute."""
    news = Shared.of(LoopClock()).news
    news.raise_condition("forward-failed", "a", problem="first", hint=None)
    since = news.conditions()[0].since
    await asyncio.sleep(60)
    news.raise_condition("forward-failed", "a", problem="second", hint="do")
    news.raise_condition("forward-failed", "b", problem="other", hint=None)
    first, other = news.conditions()
    assert (first.text, first.since, first.hint) == ("second", since, "do")
    assert (other.subject, other.hint) == ("b", None)
    news.clear_condition("forward-failed", "a")
    news.clear_condition("forward-failed", "a")
    assert [condition.subject for condition in news.conditions()] == ["b"]
    kinds = [event.kind for event in news.events()]
    assert kinds == ["condition.forward-failed", "condition.forward-failed", "cleared.forward-failed"]


async def test_what_mends_itself_in_time_is_never_shown() -> None:
    """An editor writes a file in two steps: nobody has to hear of the first."""
    news, after = Shared.of(LoopClock()).news, CONDITIONS["config-invalid"].after
    assert after > 0
    news.raise_condition("config-invalid", problem="half a file", follows="", hint=None)
    await asyncio.sleep(after / 2)
    assert news.conditions() == []
    news.clear_condition("config-invalid")
    await asyncio.sleep(2 * after)
    assert (news.conditions(), news.events()) == ([], [])
    news.raise_condition("config-invalid", problem="half a file", follows="", hint=None)
    await asyncio.sleep(after / 2)
    news.raise_condition("config-invalid", problem="a typing error", follows="", hint=None)
    await asyncio.sleep(after)
    (shown,) = news.conditions()
    (event,) = news.events()
    assert "a typing error" in shown.text
    assert "a typing error" in event.text


async def test_a_task_that_fails_is_logged_by_name_and_harms_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One bug in one forward must not take the rest along."""
    tree = Supervisor("daemon")

    async def fail() -> None:
        raise ValueError("a bug")

    other = tree.spawn("sleeper", asyncio.sleep(100))
    tree.spawn("broken", fail())
    with caplog.at_level(logging.ERROR):
        await settle()
    assert "daemon: broken" in caplog.text
    assert not other.done()
    await tree.stop()
    assert other.cancelled()
    assert len(tree) == 0


async def test_stopping_has_a_bound_and_names_what_does_not_stop(caplog: pytest.LogCaptureFixture) -> None:
    """systemd waits for us, and then kills."""
    tree = Supervisor("daemon")

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(1)
                return
            except asyncio.CancelledError:
                await asyncio.sleep(8)
                return

    task = tree.spawn("stubborn", stubborn())
    await settle()
    before = asyncio.get_running_loop().time()
    await tree.stop(timeout=5.0)
    assert asyncio.get_running_loop().time() - before == 5.0
    assert "stubborn" in caplog.text
    late = tree.spawn("late", asyncio.sleep(1))
    await settle()
    assert late.done(), "nothing is started while stopping, and nobody has to catch that"
    await task
