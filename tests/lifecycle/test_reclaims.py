"""Spot boxes that are taken back, on virtual time: who is told what, how EC2 is looked at, and that the disk is saved at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from devboxd.boxside.activity import Answer
from devboxd.boxside.reclaim import LINE_MOST
from devboxd.control.lifecycle.fleet import Fleet
from devboxd.control.lifecycle.lines import AGAIN
from devboxd.control.lifecycle.reclaims import AGAIN_MOST, LEAVING, Reclaims
from devboxd.errors import Unreachable
from devboxd.model.idle import empty
from devboxd.model.project import Phase, Project
from tests.control.fakes import LoopClock
from tests.lifecycle.kit import Bench, FakeStream, with_daemon

pytestmark = pytest.mark.looptime
CALMED = 3600.0  # seconds after which the loops look every five minutes


def report(**known: Any) -> dict[str, Any]:
    return {"life": "spot", "notice": None, "rebalance": None, "did": None, "problem": "", **known}


def notice(left: float = 117.0) -> dict[str, Any]:
    now = LoopClock().wall()
    return {"action": "stop", "time": now + left, "since": now}


class Stream(FakeStream):
    """What a box says of being taken back."""

    def say(self, **known: Any) -> None:
        self.tell(report(**known))


class World:
    """The driver on a bench, joined as ``home.py`` joins it; what it tells, and the streams that it opens."""

    def __init__(self, one: Bench, *, bridge: bool = True) -> None:
        self.one = one
        self.notices: list[tuple[str, str]] = []
        self.streams: list[Stream] = []
        self.opened = 0
        self.refuses: Exception | None = None
        self.has_bridge = True
        self.reclaims = Reclaims(
            one.shared, one.fleet, notify=self._notify, follow=self._open if bridge else None
        )
        assert isinstance(one.fleet, Fleet)
        one.fleet._is_leaving = self.reclaims.is_leaving

    async def _notify(self, title: str, text: str) -> None:
        self.notices.append((title, text))

    async def _open(self, project: Project) -> Stream | None:
        self.opened += 1
        if self.refuses is not None:
            raise self.refuses
        if not self.has_bridge:
            return None
        self.streams.append(Stream())
        return self.streams[-1]

    async def launched(self, *, spot: bool = True) -> Project:
        """A project whose box runs, and was looked at."""
        project = await self.one.launched(spot=spot)
        self.look(project)
        await asyncio.sleep(1.0)
        return project

    def look(self, project: Project, **known: Any) -> None:
        self.reclaims.looked(project, Answer(empty(), reclaim=report(**known) if known else None))

    def interrupt(self, project: Project) -> None:
        self.one.model.interrupt_spot(project.instance or "", now=LoopClock().wall())

    @property
    def conditions(self) -> list[str]:
        return [one.code for one in self.one.shared.news.conditions()]

    @property
    def events(self) -> list[str]:
        return [one.text for one in self.one.shared.news.events() if one.kind == "reclaim"]


@with_daemon
async def test_a_notice_is_told_once_and_the_disk_is_saved_without_delay(one: Bench) -> None:
    world = World(one)
    project = await world.launched()
    (stream,) = world.streams
    stream.say()
    await asyncio.sleep(CALMED)
    assert world.reclaims.said(project) == "EC2 gives notice before it takes it back; there is none"
    given = notice()
    for _ in range(3):
        stream.say(notice=given)
        await asyncio.sleep(5.0)
    ((title, text),) = world.notices
    assert title.startswith("api is taken back by EC2 at ")
    assert title.endswith(" UTC")
    assert text == "its disk is kept, and is saved as soon as the box has ended, then it comes back on demand"
    assert world.events == [f"{title}: {text}"]
    (condition,) = one.shared.news.conditions()
    assert condition.text.startswith("api is taken back by EC2 at ")
    stream.say(notice=given, did={"at": 1.0, "hooks": 1, "failed": []})
    await asyncio.sleep(1.0)
    assert world.events[1:] == ["api: its pre-stop hooks have run"]
    assert world.reclaims.said(project).endswith("; its pre-stop hooks have run")
    assert len(world.notices) == 1, "that all went well wakes nobody"
    await asyncio.sleep(90.0)
    world.interrupt(project)
    ended = LoopClock().wall()
    saving = await one.until("api", Phase.SAVING)
    assert LoopClock().wall() - ended < 60.0, "nobody waits for the next calm look"
    assert saving.project.reclaimed
    await asyncio.sleep(1.0)
    assert (world.conditions, stream.closed, world.reclaims.said(project)) == ([], True, "")
    back = (
        await one.until("api", lambda now: now.phase is Phase.RUNNING and now.instance != project.instance)
    ).project
    run = (await one.projects.get("api")).run
    assert run is not None
    assert not run.spot
    world.look(back, life="on-demand")
    await asyncio.sleep(60.0)
    assert world.opened == 1, "a box on demand has nothing to tell"


@with_daemon
async def test_hooks_that_fail_are_told_of(one: Bench) -> None:
    world = World(one)
    await world.launched()
    failed = ["push exited with 1", "dump\x1b[2J took longer than 60 s"]
    world.streams[0].say(notice=notice(), did={"at": 1.0, "hooks": 2, "failed": failed})
    await asyncio.sleep(1.0)
    said = "its pre-stop hooks have run, and not all went well: push exited with 1; dump"
    assert world.events[1].startswith(f"api: {said}")
    assert "\x1b" not in world.events[1]
    assert world.notices[1][1].startswith(said)


@with_daemon
async def test_ec2_is_looked_at_closely_and_not_for_ever(one: Bench) -> None:
    world = World(one)
    await world.launched()
    world.streams[0].say()
    await asyncio.sleep(CALMED)

    async def looks(seconds: float) -> int:
        before = one.account.calls["DescribeInstances"]
        await asyncio.sleep(seconds)
        return one.account.calls["DescribeInstances"] - before

    assert await looks(120.0) <= 2
    world.streams[0].say(notice=notice())
    await asyncio.sleep(1.0)
    assert await looks(120.0) >= 40
    await asyncio.sleep(LEAVING)
    assert await looks(600.0) <= 5, "a notice is no promise"
    assert world.conditions == ["box-reclaimed"], "but it stands"


@with_daemon
async def test_a_notice_that_is_withdrawn(one: Bench) -> None:
    world = World(one)
    await world.launched()
    stream = world.streams[0]
    stream.say(notice=notice())
    await asyncio.sleep(10.0)
    stream.say()
    await asyncio.sleep(10.0)
    assert world.conditions == []
    assert world.notices[1:] == [("EC2 does not take api back after all", "")]
    stream.say(notice=notice())
    await asyncio.sleep(10.0)
    assert (world.conditions, len(world.notices)) == (["box-reclaimed"], 3), "another one is news"


@with_daemon
async def test_a_recommendation_is_told_once_and_a_notice_takes_its_place(one: Bench) -> None:
    world = World(one)
    project = await world.launched()
    stream = world.streams[0]
    for _ in range(3):
        stream.say(rebalance=1.0)
        await asyncio.sleep(5.0)
    ((title, text),) = world.notices
    assert (title, "devboxctl snapshot api" in text) == ("EC2 is likelier than before to take api back", True)
    assert world.conditions == ["box-at-risk"]
    assert world.reclaims.said(project) == "EC2 is likelier than before to take it back"
    stream.say(rebalance=1.0, notice=notice())
    await asyncio.sleep(5.0)
    assert world.conditions == ["box-reclaimed"]
    stream.say()
    await asyncio.sleep(5.0)
    assert world.conditions == []


@with_daemon
async def test_without_a_bridge_a_look_tells_it_and_with_one_the_stream_is_newer(one: Bench) -> None:
    world = World(one)
    world.has_bridge = False
    project = await world.launched()
    world.look(project, notice=notice())
    await asyncio.sleep(5.0)
    assert world.conditions == ["box-reclaimed"]
    world.has_bridge = True
    world.look(project, life="spot")
    await asyncio.sleep(1.0)
    world.streams[0].say(notice=notice())
    await asyncio.sleep(1.0)
    world.look(project, life="spot")
    await asyncio.sleep(1.0)
    assert world.conditions == ["box-reclaimed"], "that look began before the notice"


@with_daemon
async def test_a_box_on_demand_is_not_followed(one: Bench) -> None:
    world = World(one)
    project = await world.launched(spot=False)
    assert (world.opened, world.reclaims.said(project)) == (0, "")
    world.look(project, life="spot")
    await asyncio.sleep(1.0)
    assert world.opened == 1, "one that was adopted knows better"


@with_daemon
async def test_a_project_that_wants_spot_and_got_another_box_is_asked_once(one: Bench) -> None:
    world = World(one)
    project = await world.launched()
    world.streams[0].say(life="on-demand")
    world.streams[0].close()
    await asyncio.sleep(600.0)
    world.look(project)
    await asyncio.sleep(600.0)
    assert (world.opened, world.reclaims.said(project)) == (1, "")


@with_daemon
async def test_a_stream_that_ends_is_opened_again_and_not_once_a_second(one: Bench) -> None:
    world = World(one)
    project = await world.launched()
    world.streams[0].queue.put_nowait(Unreachable("cut"))
    await asyncio.sleep(AGAIN + 1.0)
    assert (world.opened, world.streams[0].closed) == (2, True)
    world.streams[1].say(notice=notice())
    await asyncio.sleep(1.0)
    world.refuses = Unreachable("no")
    world.streams[1].close()
    await asyncio.sleep(10 * AGAIN_MOST)
    assert 6 < world.opened < 40
    assert world.reclaims.is_leaving(project) is False
    assert world.conditions == ["box-reclaimed"], "silence withdraws nothing"


@with_daemon
async def test_a_box_that_can_not_be_asked_says_so(one: Bench) -> None:
    world = World(one)
    project = await world.launched()
    world.streams[0].say(life=None, problem="the metadata service does not answer")
    await asyncio.sleep(1.0)
    said = "a notice of EC2 that it is taken back can not be seen: the metadata service does not answer"
    assert world.reclaims.said(project) == said
    assert world.notices == []


@pytest.mark.parametrize(
    "data",
    [
        b"\n",
        b"[]\n",
        b"\xff\n",
        b'{"notice":7}\n',
        b"x" * (LINE_MOST + 1) + b"\n",
        b"[" * 9000 + b"]" * 9000 + b"\n",
    ],
)
@with_daemon
async def test_lines_that_are_no_reports_say_nothing(one: Bench, data: bytes) -> None:
    world = World(one)
    await world.launched()
    world.streams[0].queue.put_nowait(data)
    await asyncio.sleep(1.0)
    assert (world.conditions, world.notices, world.streams[0].closed) == ([], [], False)
    world.streams[0].say(notice=notice(-5.0))
    await asyncio.sleep(1.0)
    assert world.notices[0][0] == "api is taken back by EC2 now"


@with_daemon
async def test_a_line_without_an_end_ends_the_stream(one: Bench) -> None:
    world = World(one)
    await world.launched()
    world.streams[0].queue.put_nowait(b"x" * (LINE_MOST + 1))
    await asyncio.sleep(1.0)
    assert world.streams[0].closed
