"""Waiting for a session that answers, on virtual time: every reason is said, and what can not come is not waited for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from devboxd.api import wire
from devboxd.api.handlers import project as handlers
from devboxd.api.handlers.context import Context
from devboxd.control.lifecycle.book import Book
from devboxd.control.lifecycle.disuse import Ahead
from devboxd.errors import Denied, DevboxError, DocumentInvalid, LoginNeeded, Unreachable
from devboxd.model.boot import Boot, Stage
from devboxd.model.project import Phase
from tests.control.fakes import LoopClock
from tests.lifecycle.kit import Bench, Ran, with_daemon

pytestmark = pytest.mark.looptime

DENIED = Denied("AWS does not allow ssm:StartSession", hint="ask for the permission ssm:StartSession")


async def waited(one: Bench, heard: list[Boot]) -> DevboxError | None:
    """Wait for the box; what was said meanwhile is put into ``heard``. Returns what ended it."""
    tell = heard.append
    try:
        async for boot in one.projects.boots.follow("api"):
            tell(boot)
    except DevboxError as error:
        return error
    return None


async def until(heard: list[Boot], stage: Stage) -> None:
    """Until this was said last."""
    async with asyncio.timeout(3600.0):
        while not heard or heard[-1].stage is not stage:
            await asyncio.sleep(1.0)


@with_daemon
async def test_a_boot_is_told_from_the_instance_to_the_shell(one: Bench) -> None:
    """Booting, the agent, a shell, ready."""
    one.runner.agent_after = 60.0
    one.runner.answers["echo ready"] = Ran(1, "")  # the agent is there before a shell can be opened
    await one.launched()
    heard: list[Boot] = []
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(waited(one, heard))
        await until(heard, Stage.SHELL)
        del one.runner.answers["echo ready"]
    assert waiting.result() is None
    assert [boot.stage for boot in heard] == [Stage.BOOT, Stage.AGENT, Stage.SHELL, Stage.READY]


@pytest.mark.parametrize("error", [DENIED, DocumentInvalid("the session document is missing")])
@with_daemon
async def test_a_refused_session_is_said_and_ends_the_wait(one: Bench, error: DevboxError) -> None:
    """It used to be swallowed, and ``launch`` waited for ever."""
    one.runner.refuses = error
    await one.launched()
    began, heard = LoopClock().wall(), list[Boot]()
    assert await waited(one, heard) is error
    assert error.message in heard[-1].text
    assert LoopClock().wall() - began < 30.0


@with_daemon
async def test_without_an_agent_the_wait_ends_with_what_to_look_at(one: Bench) -> None:
    """A box without a profile, or an image without an agent; it goes on running."""
    one.runner.agent_after = float("inf")
    await one.launched()
    began, heard = LoopClock().wall(), list[Boot]()
    error = await waited(one, heard)
    assert error is not None
    assert "agent has not connected" in error.message
    assert "devboxctl doctor api" in (error.hint or "")
    assert 600.0 <= LoopClock().wall() - began < 700.0
    assert (await one.projects.get("api")).project.phase is Phase.RUNNING


@with_daemon
async def test_an_image_that_takes_eight_minutes_is_waited_for(one: Bench) -> None:
    """And that it takes long is said."""
    one.runner.agent_after = 480.0
    await one.launched()
    heard: list[Boot] = []
    assert await waited(one, heard) is None
    assert heard[-1].stage is Stage.READY
    assert any("after 6 min" in boot.text for boot in heard)


@pytest.mark.parametrize(
    ("error", "stage"),
    [
        (LoginNeeded("the AWS login has expired", hint="devboxctl login"), Stage.LOGIN),
        (Unreachable("no network"), Stage.NETWORK),
    ],
)
@with_daemon
async def test_a_lost_login_or_network_is_said_at_once_and_waited_out(
    one: Bench, error: DevboxError, stage: Stage
) -> None:
    """For as long as it takes; then the same wait goes on, and ends well."""
    await one.launched()
    one.runner.offline = error
    began, heard = LoopClock().wall(), list[Boot]()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(waited(one, heard))
        await until(heard, stage)
        assert LoopClock().wall() - began < 5.0
        assert (error.message in heard[-1].text, heard[-1].hint) == (True, error.hint)
        await asyncio.sleep(7200.0)
        assert heard[-1].stage is stage, "it was said once, and nothing was given up"
        one.runner.offline = None
        again = LoopClock().wall()
        one.shared.logins.renewed()
        one.shared.bells.network.ring()
    assert waiting.result() is None
    assert heard[-1].stage is Stage.READY
    assert LoopClock().wall() - again < 5.0


@with_daemon
async def test_an_agent_that_may_not_be_asked_for_is_no_obstacle(one: Bench) -> None:
    """What counts is the session."""
    await one.launched()
    one.runner.offline = DENIED
    heard: list[Boot] = []
    assert await waited(one, heard) is None
    assert heard[-1].stage is Stage.READY


@with_daemon
async def test_a_store_that_is_away_for_a_while_ends_no_wait(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shared table is at AWS: it goes with the network, and comes back with it."""
    one.runner.agent_after = 60.0
    await one.launched()
    heard: list[Boot] = []
    load = Book.load

    async def away(self: Book, uid: str) -> Any:
        raise Unreachable("no network")

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(waited(one, heard))
        await until(heard, Stage.AGENT)
        monkeypatch.setattr(Book, "load", away)
        await until(heard, Stage.NETWORK)
        monkeypatch.setattr(Book, "load", load)
    assert waiting.result() is None
    assert heard[-1].stage is Stage.READY


def context(one: Bench) -> Context:
    """What the handler of ``progress`` asks."""
    idle = SimpleNamespace(ahead=lambda uid: Ahead())
    return cast(Context, SimpleNamespace(projects=one.projects, idle=idle))


@with_daemon
async def test_a_client_hears_the_reason_and_its_hint(one: Bench) -> None:
    """In a step while it is waited for, and as the failure that ends it."""
    one.runner.refuses = DENIED
    await one.launched()
    steps = [step async for step in handlers.follow(context(one), wire.ProjectName("api"))]
    assert any("does not allow" in step.text and step.hint == DENIED.hint for step in steps)
    failure = steps[-1].failure
    assert failure is not None
    assert (failure.code, failure.hint) == ("denied", DENIED.hint)
