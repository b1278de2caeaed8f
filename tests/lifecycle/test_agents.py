"""Agents on virtual time: what is told when, over a stream of the bridge or by the collector's looks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from devboxd.boxside.activity import Answer
from devboxd.control.lifecycle.agents import LONGEST_LINE, NOTICES_MOST, NOTICES_WITHIN, SETTLE, Agents
from devboxd.control.lifecycle.idlebook import IdleBook
from devboxd.control.lifecycle.lines import AGAIN
from devboxd.errors import Unreachable
from devboxd.model.idle import empty
from devboxd.model.project import Phase, Project
from tests.control.fakes import LoopClock
from tests.lifecycle.kit import Bench, FakeStream, with_daemon

pytestmark = pytest.mark.looptime


def note(state: str, since: float, **more: Any) -> dict[str, Any]:
    return {"name": "claude", "pid": 7, "state": state, "since": since, "alive": True, **more}


class Stream(FakeStream):
    """What a box says of its agents."""

    def say(self, *notes: dict[str, Any]) -> None:
        self.tell(notes)


class World:
    """The driver on a bench, what it tells, and the streams that it opens."""

    def __init__(self, one: Bench, *, bridge: bool = True) -> None:
        self.one = one
        self.notices: list[tuple[float, str, str]] = []
        self.streams: list[Stream] = []
        self.opened = 0
        self.refuses = False
        self.opening = 0.0  # seconds that it takes
        self.agents = Agents(
            one.shared,
            one.fleet,
            IdleBook(one.fleet.book),
            notify=self._notify,
            changes=self._open if bridge else None,
        )

    async def _notify(self, title: str, text: str) -> None:
        self.notices.append((LoopClock().wall(), title, text))

    async def _open(self, project: Project) -> Stream | None:
        self.opened += 1
        await asyncio.sleep(self.opening)
        if self.refuses:
            return None
        self.streams.append(Stream())
        return self.streams[-1]

    def look(self, project: Project, notes: Sequence[dict[str, Any]] | None) -> None:
        self.agents.looked(project, Answer(empty(), sample={"agents": notes}))

    @property
    def titles(self) -> list[str]:
        return [title for _, title, _ in self.notices]


@with_daemon
async def test_a_question_is_told_within_five_seconds_once_with_what_is_asked(
    one: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    world, project = World(one), await one.launched()
    world.look(project, [])
    await asyncio.sleep(1.0)
    (stream,) = world.streams
    began = LoopClock().wall()
    stream.say(note("working", began - 60.0))
    await asyncio.sleep(10.0)
    assert world.titles == []
    began = LoopClock().wall()
    asks = note("waiting", began, text="may I?", where="main")
    stream.say(asks)
    await asyncio.sleep(10.0)
    ((at, title, text),) = world.notices
    assert at - began < 4.0, "the bridgehead looks once a second"
    assert title == "api: claude waits for you (main)"
    assert text.startswith("may I? — devboxctl peek")
    assert world.agents.said("api") == "claude waits for you since 10 s"
    assert [event.kind for event in one.shared.news.events() if event.kind == "agent"] == ["agent"]
    assert title in caplog.text
    assert "may I?" not in caplog.text, "what it asks may hold a secret"
    assert [event for event in one.shared.news.events() if "may I?" in event.text]
    stream.say(asks, note("working", began, name="codex", pid=8))
    world.look(project, [asks])
    await asyncio.sleep(600.0)
    assert len(world.notices) == 1, "neither another agent nor a look tells it again"
    stream.say(note("done", LoopClock().wall(), text="All pass."))
    await asyncio.sleep(10.0)
    assert world.titles[1:] == ["api: claude is done"]


@with_daemon
async def test_more_agents_than_a_look_tells_of_are_told_once(one: Bench) -> None:
    """The collector tells of sixteen, and the bridge of more."""
    world, project = World(one), await one.launched()
    world.look(project, [])
    await asyncio.sleep(1.0)
    since = LoopClock().wall()
    notes = [note("waiting", since, name=f"a{count}", pid=count) for count in range(1, 21)]
    for _ in range(3):
        world.streams[0].say(*notes)
        await asyncio.sleep(60.0)
        world.look(project, notes[:16])
        await asyncio.sleep(60.0)
    assert len(world.titles) == len(set(world.titles)) == 20


@with_daemon
async def test_a_look_that_was_under_way_takes_nothing_back_of_what_the_stream_tells(one: Bench) -> None:
    """The stream says a change once: the question was told with the next look only, and shown as work until then."""
    world, project = World(one), await one.launched()
    world.look(project, [])
    await asyncio.sleep(1.0)
    (stream,) = world.streams
    began = LoopClock().wall()
    before = note("working", began - 60.0)
    stream.say(before)
    await asyncio.sleep(1.0)
    stream.say(note("waiting", began))
    await asyncio.sleep(SETTLE / 2)
    world.look(project, [before])
    assert world.agents.said("api").startswith("claude waits for you")
    await asyncio.sleep(SETTLE)
    assert world.titles == ["api: claude waits for you"]
    stream.close()  # from then on the looks count again
    await asyncio.sleep(0.0)
    world.look(project, [note("working", began + 1.0)])
    assert world.agents.said("api").startswith("claude works")


@with_daemon
async def test_what_is_answered_at_once_is_not_told(one: Bench) -> None:
    """Who sits at the terminal needs no notice."""
    world, project = World(one), await one.launched()
    world.look(project, [])
    await asyncio.sleep(1.0)
    world.streams[0].say(note("waiting", LoopClock().wall()))
    await asyncio.sleep(SETTLE / 2)
    world.streams[0].say(note("working", LoopClock().wall()))
    await asyncio.sleep(60.0)
    assert world.titles == []


@with_daemon
async def test_a_daemon_that_begins_anew_tells_nothing_twice_and_what_came_meanwhile(one: Bench) -> None:
    first, project = World(one, bridge=False), await one.launched()
    since = LoopClock().wall()
    first.look(project, [note("waiting", since)])
    await asyncio.sleep(10.0)
    assert len(first.notices) == 1
    second = World(one, bridge=False)
    second.look(project, [note("waiting", since)])
    await asyncio.sleep(10.0)
    assert second.titles == []
    second.look(project, [note("done", since + 5.0)])
    await asyncio.sleep(10.0)
    assert second.titles == ["api: claude is done"]


@with_daemon
async def test_without_a_bridge_the_looks_tell_it_and_each_tries_the_bridge_again(one: Bench) -> None:
    world, project = World(one), await one.launched()
    world.refuses = True
    world.look(project, [note("working", LoopClock().wall())])
    await asyncio.sleep(3600.0)
    assert world.opened == 1, "nobody polls"
    world.look(project, [note("waiting", LoopClock().wall())])
    await asyncio.sleep(10.0)
    assert (world.opened, len(world.notices)) == (2, 1)


@with_daemon
async def test_a_box_without_hooks_gets_no_stream(one: Bench) -> None:
    world, project = World(one), await one.launched()
    world.look(project, None)
    await asyncio.sleep(100.0)
    assert (world.opened, world.agents.known()) == (0, [])


@with_daemon
async def test_hooks_that_are_taken_away_end_the_stream(one: Bench) -> None:
    world, project = World(one), await one.launched()
    world.look(project, [note("working", LoopClock().wall())])
    await asyncio.sleep(1.0)
    world.look(project, None)
    await asyncio.sleep(3600.0)
    assert (world.streams[0].closed, world.opened, world.agents.known()) == (True, 1, [])
    world.look(project, [])
    await asyncio.sleep(1.0)
    assert world.opened == 2, "set up again"


@with_daemon
async def test_hooks_that_are_taken_away_while_the_stream_opens_end_it_too(one: Bench) -> None:
    """Nobody else would: it was not there to be closed."""
    world, project = World(one), await one.launched()
    world.opening = 5.0
    world.look(project, [])
    await asyncio.sleep(1.0)
    world.look(project, None)
    await asyncio.sleep(10.0)
    (stream,) = world.streams
    assert stream.closed
    stream.say(note("waiting", LoopClock().wall()))
    await asyncio.sleep(600.0)
    assert (world.titles, world.opened) == ([], 1)


@with_daemon
async def test_a_stream_that_ends_is_opened_again_and_not_once_a_second(one: Bench) -> None:
    world, project = World(one), await one.launched()
    world.look(project, [])
    await asyncio.sleep(1.0)
    world.streams[0].queue.put_nowait(Unreachable("cut"))
    await asyncio.sleep(AGAIN + 1.0)
    assert (world.opened, world.streams[0].closed) == (2, True)
    for _ in range(20):
        world.streams[-1].queue.put_nowait(b"")
        await asyncio.sleep(30.0)
    assert world.opened < 12
    await asyncio.sleep(600.0)
    world.streams[-1].say(note("waiting", LoopClock().wall()))
    await asyncio.sleep(10.0)
    assert world.titles == ["api: claude waits for you"]


@pytest.mark.parametrize(
    "said", [b"nonsense\n", b"{}\n", b"[" * 100_000 + b"\n", b"\xff\n", b'[{"name": 4}]\n']
)
@with_daemon
async def test_what_a_box_says_that_is_no_report_harms_nothing(one: Bench, said: bytes) -> None:
    world, project = World(one), await one.launched()
    world.look(project, [])
    await asyncio.sleep(1.0)
    stream = world.streams[0]
    stream.queue.put_nowait(said)
    stream.say(note("done", LoopClock().wall()))
    await asyncio.sleep(10.0)
    assert world.titles == ["api: claude is done"]


@with_daemon
async def test_a_line_that_never_ends_ends_the_stream(one: Bench) -> None:
    world, project = World(one), await one.launched()
    world.look(project, [])
    await asyncio.sleep(1.0)
    for _ in range(10):
        world.streams[0].queue.put_nowait(b"x" * (LONGEST_LINE // 8))
    await asyncio.sleep(1.0)
    assert world.streams[0].closed


@with_daemon
async def test_a_box_that_does_not_run_is_forgotten_and_one_that_runs_again_is_told_of_once(
    one: Bench,
) -> None:
    world, project, other = World(one), await one.launched(), await one.launched("web")
    world.look(project, [note("working", LoopClock().wall())])
    world.look(other, [note("working", LoopClock().wall(), name="codex")])
    await asyncio.sleep(1.0)
    assert world.agents.told() == {"api": "claude works since 1 s", "web": "codex works since 1 s"}
    await one.projects.stop("api")
    await one.until("api", Phase.WARM)
    world.look(other, [])
    await asyncio.sleep(1.0)
    assert (world.streams[0].closed, world.streams[1].closed) == (True, False)
    assert world.agents.told() == {}
    await one.projects.up("api")
    again = (await one.until("api", Phase.RUNNING)).project
    asks = note("waiting", LoopClock().wall())
    world.look(again, [asks])
    await asyncio.sleep(1.0)
    world.streams[-1].say(asks)
    await asyncio.sleep(600.0)
    assert world.titles == ["api: claude waits for you"]
    assert world.opened == 3


@with_daemon
async def test_a_box_that_is_taken_down_is_listened_to_no_more(one: Bench) -> None:
    world, project = World(one), await one.launched()
    world.look(project, [note("working", LoopClock().wall())])
    await asyncio.sleep(1.0)
    assert [name for name, _ in world.agents.known()] == ["api"]
    await one.projects.stop("api")
    await one.until("api", Phase.WARM)
    assert (world.agents.known(), world.agents.said("api")) == ([], "")
    world.streams[0].queue.put_nowait(Unreachable("the box is off"))
    await asyncio.sleep(3600.0)
    assert world.opened == 1


@with_daemon
async def test_a_box_that_tells_of_changes_without_end_is_heard_so_often_and_no_more(one: Bench) -> None:
    world, project = World(one), await one.launched()
    world.look(project, [])
    await asyncio.sleep(1.0)
    (stream,) = world.streams
    for _ in range(50):
        now = LoopClock().wall()
        stream.say(*(note("waiting", now, pid=number) for number in range(10)))
        await asyncio.sleep(5.0)
    assert len(world.notices) == NOTICES_MOST
    stream.say()
    await asyncio.sleep(NOTICES_WITHIN)
    stream.say(note("waiting", LoopClock().wall()))
    await asyncio.sleep(10.0)
    assert len(world.notices) == NOTICES_MOST + 1


@with_daemon
async def test_a_change_that_is_of_the_future_hides_nothing_that_comes_until_then(one: Bench) -> None:
    """The clock of the box was wrong, or it lies."""
    project = await one.launched()
    for since in (LoopClock().wall() + 1e9, 0.0):
        world = World(one)
        world.look(project, [])
        await asyncio.sleep(600.0)
        world.streams[-1].say(note("waiting", since or LoopClock().wall()))
        await asyncio.sleep(10.0)
        assert len(world.notices) == 1
