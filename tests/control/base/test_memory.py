"""The memory and its disk: nothing is forgotten silently, and nothing is written over what is not taken up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from devboxd.control.base.memory import RETRY, SETTLE, Memory
from devboxd.control.base.shared import Shared
from devboxd.errors import StateNotSaved
from devboxd.model.box import Account, BoxRef
from devboxd.model.forward import Saved, Spec
from devboxd.model.memory import State, recalled
from tests.control.fakes import LoopClock
from tests.control.kit import Nowhere
from tests.kit.tasks import beside

pytestmark = pytest.mark.looptime

BOX = BoxRef("api", "i-0", Account())


def forward(id_: str) -> Saved:
    """A forward."""
    return Saved(id_, BOX, Spec(port=80))


@asynccontextmanager
async def writing(memory: Memory) -> AsyncIterator[None]:
    """A memory that writes what it learns."""
    task = beside(memory.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_what_changes_is_on_disk_when_the_answer_is_given() -> None:
    """The power may go in the next moment."""
    store = Nowhere()
    memory = Memory(Shared.of(LoopClock()).news, store)
    async with writing(memory):
        memory.keep_forward(forward("a"))
        assert await memory.settled()
        assert list(recalled(store.saved[-1]).forwards) == ["a"]
        memory.used(Account("work"))
        memory.pin(["api"], 22, ["key"])
        memory.session_opened("s-1", Account())
        assert memory.note_user("api", "ana")
        assert await memory.settled()
    assert recalled(store.saved[-1]) == State(
        forwards={"a": forward("a")},
        open_sessions={"s-1": Account()},
        accounts=[Account("work")],
        host_keys={"api": {22: ["key"]}},
        users={"api": "ana"},
    )
    assert len(store.saved) == 2, "many changes at once are one write"


async def test_what_changes_nothing_is_not_written() -> None:
    store = Nowhere()
    memory = Memory(Shared.of(LoopClock()).news, store, State(forwards={"a": forward("a")}))
    async with writing(memory):
        memory.keep_forward(forward("a"))
        memory.drop_forward("b")
        memory.session_over("s-9")
        assert await memory.settled()
        await asyncio.sleep(1)
        await memory.finish()
    assert store.saved == []


async def test_what_an_earlier_daemon_left_is_in_every_write() -> None:
    """The first save of a new daemon was the end of what was not restored yet."""
    store = Nowhere()
    state = State(forwards={f"f{number}": forward(f"f{number}") for number in range(100)})
    memory = Memory(Shared.of(LoopClock()).news, store, state)
    async with writing(memory):
        memory.keep_forward(forward("new"))
        await memory.settled()
        memory.drop_forward("f7")
    await memory.finish()
    assert [len(recalled(one).forwards) for one in store.saved] == [101, 100]


async def test_a_full_disk_is_a_condition_until_it_has_room_again() -> None:
    """Not only a line in the log; and without another change, what waits is written."""
    news, store = Shared.of(LoopClock()).news, Nowhere()
    memory = Memory(news, store)
    store.failure = StateNotSaved("/x/journal.json cannot be written: full", hint="make room")
    async with writing(memory):
        memory.keep_forward(forward("a"))
        assert not await memory.settled()
        (condition,) = news.conditions()
        assert (condition.code, condition.hint) == ("state-not-saved", "make room")
        assert "/x/journal.json" in condition.text
        await asyncio.sleep(3 * RETRY)
        assert news.conditions() == [condition]
        store.failure = None
        await asyncio.sleep(RETRY)
        assert news.conditions() == []
        assert list(recalled(store.saved[-1]).forwards) == ["a"]


async def test_an_answer_does_not_wait_for_a_disk_that_hangs() -> None:
    """A network home that is away must not hold up ``forward``."""

    class Hangs(Nowhere):
        async def save(self, values: object) -> None:
            await asyncio.Event().wait()

    memory = Memory(Shared.of(LoopClock()).news, Hangs())
    async with writing(memory):
        memory.keep_forward(forward("a"))
        began = asyncio.get_running_loop().time()
        assert not await memory.settled()
        assert asyncio.get_running_loop().time() - began == SETTLE


async def test_the_first_daemon_of_all_gives_itself_a_mark_and_the_next_ones_keep_it() -> None:
    """By it the sweep knows which sessions at AWS are ours."""
    news, store = Shared.of(LoopClock()).news, Nowhere()
    first = Memory.recall(news, store, lambda: "ana@desk/1")
    async with writing(first):
        first.used(Account())
        await first.settled()
    store.problem = "the journal could not be read; what its last good copy remembers is back"
    second = Memory.recall(news, store, lambda: "ana@desk/2")
    assert second.owner == first.owner == "ana@desk/1"
    assert [one.code for one in news.conditions()] == ["journal-lost"]


async def test_what_is_pinned_under_the_same_name_in_capitals_changes_with_it() -> None:
    """ssh makes no difference between them: a host key that was replaced would still be taken."""
    memory = Memory(Shared.of(LoopClock()).news, Nowhere())
    memory.pin(["API", "i-1", "web"], 22, ["old"])
    memory.pin(["api", "i-1"], 22, ["new"])
    assert {box: list(ports[22]) for box, ports in memory.host_keys.items()} == {
        "API": ["new"],
        "api": ["new"],
        "i-1": ["new"],
        "web": ["old"],
    }
