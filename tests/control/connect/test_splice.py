"""A local connection and a stream, both in memory: every order in which they end, and each failure at each wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from devboxd.control.connect import splice as module
from devboxd.control.connect.splice import splice
from devboxd.control.connect.stream import StreamReset
from devboxd.errors import DevboxError
from tests.kit.tasks import beside


class Pipe:
    """One direction: what is put in comes out; an error is raised."""

    def __init__(self) -> None:
        self._given: asyncio.Queue[bytes | Exception] = asyncio.Queue()

    def give(self, *what: bytes | Exception) -> None:
        for one in what:
            self._given.put_nowait(one)

    async def take(self) -> bytes:
        one = await self._given.get()
        if isinstance(one, Exception):
            raise one
        return one


class Sink:
    """What is written; it can stand still, and break."""

    def __init__(self) -> None:
        self.got = b""
        self.room = asyncio.Event()
        self.room.set()
        self.error: Exception | None = None

    async def write(self, data: bytes) -> None:
        await self.room.wait()
        if self.error is not None:
            raise self.error
        self.got += data

    def fail(self, error: Exception) -> None:
        self.error = error
        self.room.set()


class Local:
    """A local connection."""

    def __init__(self) -> None:
        self.said, self.heard = Pipe(), Sink()
        self.done: list[str] = []
        self.is_gone = False

    async def read(self, limit: int) -> bytes:
        return await self.said.take()

    async def write(self, data: bytes) -> None:
        await self.heard.write(data)

    def finish(self) -> None:
        self.done.append("finish")

    async def close(self) -> None:
        self.done.append("close")

    async def cut(self) -> None:
        self.done.append("cut")

    def reset(self) -> None:
        self.done.append("reset")

    def let_go(self) -> None:
        return None

    def has_left(self) -> bool:
        return self.is_gone


class Far:
    """A stream that half-closes."""

    half_closes = True
    is_online = True
    received = 0

    def __init__(self) -> None:
        self.said, self.heard = Pipe(), Sink()
        self.done: list[str] = []
        self.finished = False
        self.arrived = asyncio.Event()
        self.gone: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def answered(self) -> bool:
        return True

    async def read(self) -> bytes:
        data = await self.said.take()
        self.finished = self.finished or not data
        return data

    async def write(self, data: bytes) -> None:
        await self.heard.write(data)

    def finish(self) -> bool:
        self.done.append("finish")
        return True

    async def lost(self) -> bool:
        return await self.gone

    async def part(self) -> None:
        self.done.append("part")
        await self.arrived.wait()

    def reset(self) -> None:
        self.done.append("reset")

    def close(self) -> None:
        self.done.append("close")


Ended = tuple[Local, Far, "asyncio.Future[DevboxError | None]"]


@pytest.fixture
async def joined(monkeypatch: pytest.MonkeyPatch) -> Ended:
    monkeypatch.setattr(module, "FIRST_LOOK", 0.001)
    monkeypatch.setattr(module, "LOOK", 0.001)
    local, far = Local(), Far()
    return local, far, beside(splice(local, far))


async def over(work: Awaitable[DevboxError | None]) -> DevboxError | None:
    return await asyncio.wait_for(work, 10)


async def until(what: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not what():
            await asyncio.sleep(0.001)


async def turns() -> None:
    """Let everything happen that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_far_end_first(joined: Ended) -> None:
    """A greeting, an end, and an upload."""
    local, far, work = joined
    far.said.give(b"greeting", b"")
    await until(lambda: local.done == ["finish"])
    local.said.give(b"an ", b"upload")
    await until(lambda: far.heard.got == b"an upload")
    assert not work.done()
    local.said.give(b"")
    assert await over(work) is None
    assert (local.done, far.done) == (["finish", "close"], ["close"])
    assert local.heard.got == b"greeting"


async def test_the_local_side_first(joined: Ended) -> None:
    """A question, an end, and an answer."""
    local, far, work = joined
    local.said.give(b"question", b"")
    await until(lambda: far.done == ["finish"])
    far.said.give(b"an ", b"answer")
    await until(lambda: local.heard.got == b"an answer")
    assert not work.done()
    far.said.give(b"")
    assert await over(work) is None
    assert (local.done, far.done) == (["close"], ["finish", "close"])
    assert far.heard.got == b"question"


async def test_both_at_once(joined: Ended) -> None:
    local, far, work = joined
    local.said.give(b"")
    far.said.give(b"")
    assert await over(work) is None
    assert local.done[-1] == "close"
    assert far.done[-1] == "close"
    assert "reset" not in local.done + far.done


@pytest.mark.parametrize("first", [False, True])
async def test_a_far_end_that_is_cut(joined: Ended, first: bool) -> None:
    """Also after the local side has ended."""
    local, far, work = joined
    if first:
        local.said.give(b"")
        await until(lambda: far.done == ["finish"])
    cut = StreamReset("cut by api")
    far.said.give(cut)
    assert await over(work) is cut
    assert local.done == ["reset"]


@pytest.mark.parametrize("first", [False, True])
async def test_a_local_side_that_resets(joined: Ended, first: bool) -> None:
    """Also after the far end has ended: it must not see the end of an upload that was cut."""
    local, far, work = joined
    if first:
        far.said.give(b"")
        await until(lambda: local.done == ["finish"])
    local.said.give(b"part of", ConnectionResetError())
    assert await over(work) is None
    assert far.done == ["reset"]
    assert local.done[-1] == "reset"


async def test_a_local_side_that_resets_while_it_is_written_to(joined: Ended) -> None:
    local, far, work = joined
    local.heard.room.clear()
    far.said.give(b"data")
    await turns()
    local.heard.fail(BrokenPipeError())
    assert await over(work) is None
    assert (local.done, far.done) == (["reset"], ["reset"])


async def test_a_far_end_that_goes_after_its_end_while_nobody_writes(joined: Ended) -> None:
    """Who writes to it later is reset by the system: nothing is left here that could leak."""
    local, far, work = joined
    far.said.give(b"all", b"")
    await until(lambda: local.done == ["finish"])
    far.gone.set_result(False)
    assert await over(work) is None
    assert (local.done, far.done) == (["finish", "close"], ["close"])


async def test_a_far_end_that_goes_after_its_end_with_bytes(joined: Ended) -> None:
    local, far, work = joined
    far.said.give(b"all", b"")
    local.said.give(b"taken, and lost")
    await until(lambda: far.heard.got and local.done == ["finish"])
    far.gone.set_result(True)
    assert await over(work) is None
    assert (local.done, far.done) == (["finish", "cut"], ["close"])
    assert local.heard.got == b"all"


@pytest.mark.parametrize("is_told", [False, True])
async def test_a_far_end_that_goes_while_it_is_written_to(joined: Ended, is_told: bool) -> None:
    """Whichever is felt first: bytes that wait for room are lost, and the local side learns of it."""
    local, far, work = joined
    far.said.give(b"")
    await until(lambda: local.done == ["finish"])
    far.heard.room.clear()
    local.said.give(b"more")
    await turns()
    if is_told:
        far.gone.set_result(False)
    else:
        far.heard.fail(StreamReset("the connection is closed"))
    assert await over(work) is None
    assert (local.done, far.done) == (["finish", "cut"], ["close"])


async def test_an_answer_in_the_middle_of_an_upload(joined: Ended) -> None:
    """The local side takes its time with it, and the far end is gone by then: all of the answer comes, then the reset."""
    local, far, work = joined
    local.heard.room.clear()
    far.said.give(b"too ", b"large", b"")
    far.finished = True
    far.heard.fail(StreamReset("the connection is closed"))
    local.said.give(b"more of the upload")
    await turns()
    assert not work.done()
    local.heard.room.set()
    assert await over(work) is None
    assert local.heard.got == b"too large"
    assert local.done == ["cut"]
    assert far.done == ["close"]


@pytest.mark.parametrize("how", ["seen", "felt"])
async def test_who_said_everything_and_left_is_heard(joined: Ended, how: str) -> None:
    """The far end gets all of it before it is cut; whether the far end still says something or not."""
    local, far, work = joined
    local.said.give(b"last words", b"")
    await until(lambda: far.done == ["finish"])
    if how == "seen":
        local.is_gone = True
    else:
        local.heard.error = BrokenPipeError()
        far.said.give(b"thanks")
    await until(lambda: far.done == ["finish", "part"])
    assert not work.done()
    assert not local.done, "it is kept until then: another daemon could go on with it"
    far.arrived.set()
    assert await over(work) is None
    assert far.done == ["finish", "part", "close"]
    assert local.done == ["close"]


@pytest.mark.parametrize("when", ["open", "up ended", "down ended", "parting"])
async def test_a_connection_that_is_stopped_is_cut_on_both_sides(joined: Ended, when: str) -> None:
    local, far, work = joined
    match when:
        case "up ended":
            local.said.give(b"")
            await until(lambda: far.done == ["finish"])
        case "down ended":
            far.said.give(b"")
            await until(lambda: local.done == ["finish"])
        case "parting":
            local.is_gone = True
            local.said.give(b"")
            await until(lambda: far.done == ["finish", "part"])
        case _:
            await turns()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert local.done[-1] == "reset"
    assert far.done[-1] == "reset"
    assert not [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]


async def test_a_mistake_of_ours_is_no_end(joined: Ended) -> None:
    local, far, work = joined
    local.said.give(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await over(work)
    assert local.done == ["reset"]
    assert far.done == ["reset"]
