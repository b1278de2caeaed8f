"""A held session on virtual time: what the network, AWS and the far end do, and what becomes of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from devboxd.control.connect.fate import SessionEnded
from devboxd.errors import (
    Denied,
    DevboxError,
    LinkLost,
    LinkRefused,
    LoginNeeded,
    NotConnected,
    Throttled,
    Unreachable,
    WrongState,
)
from devboxd.model.box import Account
from devboxd.model.config import LinkSettings
from devboxd.model.session import Ending, SessionEnd, SessionState
from devboxd.model.states import KeepAlive, SessionKind
from devboxd.ssm import frame
from devboxd.ssm.limits import Limits
from devboxd.ssm.payload import Flag, PayloadType, flag
from tests.control.fakes import Bench, FakeService, bench, now, settle
from tests.kit.farend import FarEnd, handshake_request, service_message
from tests.kit.tasks import beside

pytestmark = [pytest.mark.looptime, pytest.mark.timeout(30)]

PORT: dict[str, Any] = {
    "kind": SessionKind.PORT,
    "document": "AWS-StartPortForwardingSession",
    "parameters": {"portNumber": "80"},
}


@asynccontextmanager
async def held(one: Bench) -> AsyncIterator[asyncio.Task[SessionEnd]]:
    """Run a session; whatever happened, nothing of it is left afterwards."""
    before = asyncio.all_tasks()
    async with asyncio.TaskGroup() as tasks:
        work = tasks.create_task(one.run())
        try:
            yield work
        finally:
            work.cancel()
    await one.shared.tasks.stop()
    await settle()
    assert asyncio.all_tasks() == before, "a task is left"
    assert not one.sessions.running
    if not ({"terminate"} & (one.service.hang | one.service.down.keys())):
        assert not one.kept.open, "only what could not be ended is kept for the next daemon's sweep"
    assert not [s for s in one.service.sessions.values() if s.alive and one.session.end is None], "leaked"


@asynccontextmanager
async def online(one: Bench) -> AsyncIterator[asyncio.Task[SessionEnd]]:
    """Run a session whose far end has said hello."""
    async with held(one) as work:
        await one.until(SessionState.ONLINE)
        if one.session.plan.kind == "mux":
            one.service.only.write(b"hello ")
        await one.session.wait_ready()
        await settle()
        yield work


# Starting -----------------------------------------------------------------------------------------------


async def test_a_box_that_boots_is_asked_again_until_it_is_there() -> None:
    """``devboxctl attach`` right after ``start`` must simply work."""
    one = bench()
    one.service.fail("start", *[NotConnected("not yet")] * 20)
    async with online(one):
        times = one.service.times("start")
        assert len(times) == 21
        gaps = [b - a for a, b in pairwise(times)]
        assert all(2.0 < gap < 4.0 for gap in gaps), "a poll, not a back-off"
        assert any("not connected to Session Manager yet" in text for _, text in one.sink.states)


async def test_patience_with_a_box_has_an_end() -> None:
    """A script must not hang for ever on a box that is off."""
    one = bench(wait=30.0)
    one.service.down["start"] = NotConnected("i-1 is not connected")
    began = now()
    async with held(one) as work:
        end = await work
    assert 30.0 <= now() - began < 30.5
    assert end.ending is Ending.FAILED
    assert isinstance(end.error, NotConnected)
    with pytest.raises(NotConnected):
        await one.session.wait_ready()


async def test_without_a_deadline_a_box_is_waited_for_for_ever() -> None:
    """An attach that was joined before stays through a night with the box stopped."""
    one = bench(wait=None)
    one.service.down["start"] = NotConnected("off")
    async with held(one):
        await asyncio.sleep(2 * 3600)
        del one.service.down["start"]
        began = now()
        await one.until(SessionState.ONLINE)
        assert now() - began < 4.0


async def test_a_missing_login_fails_at_once_where_nobody_waits() -> None:
    """The user is at the prompt: tell, do not hang."""
    one = bench()
    one.service.fail("start", LoginNeeded("the login has expired"))
    async with held(one) as work:
        end = await work
    assert isinstance(end.error, LoginNeeded)
    assert one.service.count["start"] == 1


async def test_a_patient_session_starts_when_the_login_arrives() -> None:
    """An attach that must reopen waits for ``devboxctl login`` and goes on by itself."""
    one = bench(patient=True, wait=None)
    one.service.down["start"] = LoginNeeded("the login has expired")
    async with held(one):
        await asyncio.sleep(3600)
        assert one.session.detail == "the login has expired"
        del one.service.down["start"]
        began = now()
        one.shared.logins.renewed()
        await one.until(SessionState.ONLINE)
        assert now() == began
        assert one.service.count["refresh"] > 0, "the cached credentials of a revoked role look good"


async def test_what_cannot_succeed_later_is_not_tried_again() -> None:
    """A denied call repeated for two minutes is a hang."""
    one, error = bench(), Denied("no")
    one.service.down["start"] = error
    async with held(one) as work:
        assert (await work).error is error
    assert one.service.count["start"] == 1


async def test_the_session_carries_our_reason_for_the_sweep() -> None:
    """A crashed daemon's sessions are found by it."""
    one = bench()
    async with online(one):
        reason = one.service.only.reason
        assert reason.startswith("devbox/me/mux/")
        assert one.sessions.is_ours(reason)
        assert one.kept.open == {"s-0": Account()}


# The table at work (its rows: tests/model/test_hold.py) ----------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1006, 1008, 1009, 1011, 1012, 3000, 4000, None])
async def test_a_lost_link_is_resumed_whatever_it_was_closed_with(code: int | None) -> None:
    """1000 "Bye" is the service's hourly routine; none of them is the end of a session."""
    one = bench()
    async with online(one) as work:
        far = one.service.only
        await asyncio.sleep(60)
        far.link.cut(code)
        await one.session.send(b"typed while away")
        far.write(b"printed while away")
        await one.until(SessionState.RECONNECTING)
        began = now()
        await one.until(SessionState.ONLINE)
        await asyncio.sleep(2)
        assert now() - began < 3.0
        assert bytes(one.sink.out) == b"hello printed while away"
        assert bytes(far.far_end.taken) == b"typed while away"
        first, second = far.opens
        assert first["ClientId"] == second["ClientId"], "the far end continues with this client only"
        assert first["TokenValue"] != second["TokenValue"], "a token works once"
        assert first["RequestId"] != second["RequestId"]
        assert not work.done()
        assert one.service.count == {"start": 1, "sign_upgrade": 2, "dial": 2, "resume": 1}
        assert one.session.tally.resumes == 1


async def test_channel_closed_is_final_with_the_services_reason() -> None:
    """Typing ``exit`` must not bring a new shell."""
    one = bench()
    async with online(one) as work:
        one.service.only.close("timed out due to \x1b[31minactivity")
        end = await work
    assert end.ending is Ending.FINISHED
    assert end.reason == "timed out due to [31minactivity", "what the far end says is never printed raw"
    assert one.service.count["resume"] == one.service.count["terminate"] == 0


async def test_a_session_that_cannot_be_resumed_is_gone() -> None:
    """No token, or DoesNotExist: both are SessionOver here."""
    one = bench()
    async with online(one) as work:
        one.service.only.alive = False
        one.service.only.link.cut()
        end = await work
    assert end.ending is Ending.GONE
    assert one.service.count["terminate"] == 0


@pytest.mark.parametrize("error", [LoginNeeded("expired"), Denied("revoked")])
async def test_a_new_login_resumes_at_once(error: DevboxError) -> None:
    """Expired credentials are the main reason why long tunnels die."""
    one = bench()
    async with online(one):
        one.service.down["resume"] = error
        one.service.only.link.cut()
        await asyncio.sleep(2 * 3600)
        assert one.session.state is SessionState.RECONNECTING
        assert one.session.detail == error.message
        assert one.service.count["resume"] <= 2 + 2 * 3600 / 30, "asked every half minute, no faster"
        del one.service.down["resume"]
        began = now()
        one.shared.logins.renewed()
        await one.until(SessionState.ONLINE)
        assert now() == began


async def test_a_login_that_nobody_announced_is_found() -> None:
    """The watcher of the credential files may be broken."""
    one = bench()
    async with online(one):
        one.service.down["resume"] = LoginNeeded("expired")
        one.service.only.link.cut()
        await asyncio.sleep(100)
        del one.service.down["resume"]
        began = now()
        await one.until(SessionState.ONLINE)
        assert now() - began <= 30.0


async def test_trouble_on_the_way_is_waited_out() -> None:
    """A laptop in a rucksack for a weekend."""
    one = bench(dice=1.0)
    async with online(one):
        one.service.down["resume"] = Unreachable("no network")
        await asyncio.sleep(10)
        one.service.only.link.cut()
        await asyncio.sleep(12 * 3600)
        times = one.service.times("resume")
        gaps = [round(b - a, 1) for a, b in pairwise(times)]
        assert gaps[:9] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0]
        del one.service.down["resume"]
        began = now()
        await one.until(SessionState.ONLINE)
        assert now() - began <= 30.0


async def test_the_network_bell_cuts_the_wait_short() -> None:
    """Back within two seconds of the network's return, not within the back-off."""
    one = bench(dice=1.0)
    async with online(one):
        one.service.down["resume"] = Unreachable("no network")
        one.service.only.link.cut()
        await asyncio.sleep(1000)
        del one.service.down["resume"]
        one.shared.bells.network.ring()
        began = now()
        await one.until(SessionState.ONLINE)
        assert now() == began


@pytest.mark.parametrize(("status", "toggles"), [(403, True), (502, False)])
async def test_a_refused_dial_gets_a_new_token_and_maybe_no_signature(status: int, toggles: bool) -> None:
    """Some gateways want a signed upgrade, some refuse one."""
    one = bench()
    one.service.fail("dial", LinkRefused(status))
    async with online(one):
        assert [bool(headers) for headers in one.service.dials] == [True, not toggles]
        assert one.service.count["resume"] == 1


async def test_a_proxy_that_refuses_the_password_is_said_once_and_held_out() -> None:
    """A rotated password must neither end what runs nor be tried until the account is locked."""
    one = bench()
    one.service.down["dial"] = LinkRefused(407, "the proxy refuses the user and the password")
    async with held(one) as work:
        end = await work
    assert end.ending is Ending.FAILED
    assert "proxy" in str(end.error)
    assert one.service.count["dial"] == 1

    one = bench()
    async with online(one):
        await asyncio.sleep(5)
        one.service.down["dial"] = LinkRefused(407, "the proxy refuses the user and the password")
        one.service.only.link.cut()
        await asyncio.sleep(3600)
        told = [event for event in one.shared.news.events() if event.kind == "condition.proxy-denied"]
        assert len(told) == 1
        assert one.service.count["resume"] < 300
        del one.service.down["dial"]
        one.shared.bells.network.ring()
        await one.until(SessionState.ONLINE)
        assert not one.shared.news.conditions()


async def test_an_upgrade_that_cannot_be_signed_is_dialled_unsigned() -> None:
    """An expired login must not cost a session whose token is good."""
    one = bench()
    one.service.down["sign_upgrade"] = LoginNeeded("expired")
    async with online(one):
        assert one.service.dials == [{}]


async def test_an_empty_address_on_resume_means_the_old_one() -> None:
    """The API allows ResumeSession to answer without StreamUrl."""
    one = bench()
    one.service.keep_url = True
    async with online(one):
        for _ in range(3):
            one.service.only.link.cut()
            await one.until(SessionState.RECONNECTING)
            await one.until(SessionState.ONLINE)
        assert len(one.service.only.links) == 4


async def test_links_that_are_cut_each_second_carry_most_of_the_time() -> None:
    """Each carried something: a back-off that grows to two seconds would leave little of a download."""
    one = bench()
    async with online(one):
        far, heard = one.service.only, 0.0
        one.session.attend(True)
        until = now() + 60
        while now() < until:
            lives_until = now() + 0.8
            while now() < lives_until:
                far.write(b"x")
                await asyncio.sleep(0.1)
                heard += 0.1
            far.link.cut()
            await one.until(SessionState.RECONNECTING)
            await one.until(SessionState.ONLINE)
        assert heard > 0.75 * 60
        assert one.service.count["resume"] <= 60 / 0.8


async def test_links_that_die_young_make_us_ask_but_not_give_up() -> None:
    """The account may not be asked; the session may well be alive."""
    one = bench()
    one.service.known_active = None
    one.service.young = 11
    async with online(one):
        assert one.service.count["is_active"] == 2
        assert len(one.service.only.links) == 12


async def test_links_that_die_young_on_a_session_that_is_over_end_it() -> None:
    """ResumeSession gives tokens for a terminated session for a while."""
    one = bench()
    one.service.known_active = False
    one.service.young = 1000
    async with held(one) as work:
        end = await work
    assert (end.ending, end.reason) == (Ending.GONE, "the session no longer exists")
    assert one.service.count["dial"] == 4


async def test_output_that_is_lost_for_ever_ends_the_session_at_aws_too() -> None:
    """A byte stream with a hole must not go on, and must not stay open behind us."""
    one = bench(limits=Limits(gap=30.0))
    async with online(one) as work:
        far = one.service.only
        far.link.mute = True
        far.write(b"lost")  # and the fake far end never repeats it
        far.link.mute = False
        async with asyncio.TaskGroup() as tasks:
            talk = tasks.create_task(_talk(far))
            end = await work
            talk.cancel()
    assert end.ending is Ending.BROKEN
    assert far.terminated


async def _talk(far: Any) -> None:
    while True:
        far.write(b"more")
        await asyncio.sleep(1)


# Stopping -----------------------------------------------------------------------------------------------


async def test_stopping_a_port_session_asks_the_far_end_first() -> None:
    """The flag ends the worker on the box at once; nothing is left to terminate."""
    one = bench(**PORT)
    async with online(one) as work:
        began = now()
        await one.session.stop()
        end = await work
    far = one.service.only
    assert (PayloadType.FLAG, flag(Flag.TERMINATE_SESSION)) in far.far_end.seen
    assert end.ending is Ending.FINISHED
    assert now() - began < 0.5
    assert one.service.count["terminate"] == 0


async def test_a_far_end_that_does_not_listen_is_ended_by_aws() -> None:
    """The flag was lost: the API has the last word, after two seconds."""
    one = bench(**PORT)
    async with online(one) as work:
        one.service.only.link.mute = True
        began = now()
        await one.session.stop()
        end = await work
    assert end.ending is Ending.STOPPED
    assert 2.0 <= now() - began < 2.5
    assert one.service.only.terminated


async def test_a_port_session_whose_far_end_is_not_ready_is_ended_by_aws_at_once() -> None:
    """It would throw the flag away."""
    one = bench(**PORT)
    one.service.far_end = lambda document, parameters: FarEnd()  # type: ignore[method-assign]
    async with held(one) as work:
        await one.until(SessionState.ONLINE)
        began = now()
        await one.session.stop()
        assert (await work).ending is Ending.STOPPED
        assert now() == began
    assert one.service.only.terminated


async def test_stopping_a_shell_terminates_it_at_aws() -> None:
    """A shell does not know the flag."""
    one = bench()
    async with online(one) as work:
        await one.session.stop()
        end = await work
        assert end.ending is Ending.STOPPED
    assert one.service.only.terminated
    assert one.service.only.far_end.seen == []


@pytest.mark.parametrize("how", ["stopped", "closed", "cancelled"])
async def test_an_end_is_not_told_as_a_lost_link(how: str) -> None:
    """``devboxctl events`` would show trouble at every ``exit``."""
    one = bench()
    async with online(one) as work:
        if how == "stopped":
            await one.session.stop()
        elif how == "closed":
            one.service.only.close()
        else:
            work.cancel()
        await asyncio.wait({work})
        assert [state for state, _ in one.sink.states] == [SessionState.ONLINE, SessionState.ENDED]
        assert not [event for event in one.shared.news.events() if event.kind.startswith("session.")]


async def test_an_api_that_hangs_does_not_hold_up_the_end() -> None:
    """The daemon stops within seconds with the network down."""
    one = bench()
    async with online(one) as work:
        one.service.hang.add("terminate")
        began = now()
        await one.session.stop()
        await work
        assert now() - began < 5.0


WAITS: dict[str, Callable[[FakeService], object]] = {
    "a box that is not there": lambda s: s.down.update(start=NotConnected("no")),
    "a login before the start": lambda s: s.down.update(start=LoginNeeded("no")),
    "a network before the start": lambda s: s.down.update(start=Unreachable("no")),
    "a gateway that does not answer": lambda s: s.hang.update(["dial"]),
    "a gateway that refuses": lambda s: s.down.update(dial=LinkRefused(500)),
    "a token": lambda s: s.lose("resume", dial=LinkLost("no")),
    "a login before the resume": lambda s: s.down.update(dial=LinkLost("no"), resume=LoginNeeded("no")),
    "a network before the resume": lambda s: s.down.update(dial=LinkLost("no"), resume=Unreachable("no")),
}


@pytest.mark.parametrize("wait", WAITS)
async def test_stop_is_prompt_whatever_a_session_waits_for(wait: str) -> None:
    """``devboxctl`` Ctrl-C while a box boots, or while the train is in the tunnel."""
    one = bench(wait=None, patient=True, dice=1.0)
    WAITS[wait](one.service)
    async with held(one) as work:
        await asyncio.sleep(300.5)
        began = now()
        await one.session.stop()
        async with asyncio.timeout(1.0):
            end = await work
        assert end.ending is Ending.STOPPED
        assert now() - began < 0.5
        assert not [s for s in one.service.sessions.values() if s.alive]


@pytest.mark.parametrize("kind", ["mux", "port"])
async def test_a_cancel_at_any_moment_leaves_nothing_open(kind: str) -> None:
    """No session at AWS that nobody knows, and no task, wherever the cancellation strikes."""
    plan = PORT if kind == "port" else {"kind": kind}
    step, at, finished = 0.05, 0.0, False
    while not finished:
        service = FakeService(latency=0.11)
        one = bench(service, **plan)
        async with held(one) as work:
            story = beside(_story(one))
            await asyncio.wait({story}, timeout=at)
            finished = story.done()
            story.cancel()
            work.cancel()
            await asyncio.wait({work, story})
        assert not [s for s in service.sessions.values() if s.alive], f"a session is open, cancelled at {at}"
        at += step
    assert at > 1.5


async def test_a_cancel_that_comes_with_the_loss_of_the_link_is_not_forgotten() -> None:
    """Python 3.11 forgets one of two, and the daemon would not stop."""
    one = bench()
    async with online(one) as work:
        one.service.only.link.cut()
        for _ in range(3):  # the reader has failed, and its task group cleans up
            await asyncio.sleep(0)
        work.cancel()
        await asyncio.wait({work}, timeout=60)
        assert work.cancelled()
    assert one.service.only.terminated


@pytest.mark.parametrize("steps", range(8))
async def test_a_stop_that_comes_with_the_loss_of_the_link_stops(steps: int) -> None:
    """At whichever moment of the loss."""
    one = bench()
    async with online(one) as work:
        one.service.only.link.cut()
        for _ in range(steps):
            await asyncio.sleep(0)
        await one.session.stop()
        async with asyncio.timeout(1.0):
            assert (await work).ending is Ending.STOPPED
    assert one.service.only.terminated


async def _story(one: Bench) -> None:
    """Start, fail to dial, come up, send, be cut, resume."""
    one.service.fail("dial", LinkLost("no network"))
    one.service.fail("resume", Throttled("slow down"))
    await one.until(SessionState.ONLINE)
    if one.session.plan.kind == "mux":
        one.service.only.write(b"hello")
    await one.session.send(b"x" * 100)
    await asyncio.sleep(0.2)
    one.service.only.link.cut()
    await one.until(SessionState.RECONNECTING)
    await one.until(SessionState.ONLINE)


async def test_a_failed_terminate_is_no_failure_of_the_session() -> None:
    """The next daemon's sweep finds it."""
    one = bench()
    async with online(one) as work:
        one.service.down["terminate"] = Denied("no")
        await one.session.stop()
        assert (await work).ending is Ending.STOPPED
        assert one.kept.open == {"s-0": Account()}


# Sending ------------------------------------------------------------------------------------------------


async def test_a_sender_waits_for_room_and_nothing_is_lost() -> None:
    """The official client drops what is too much."""
    one = bench(limits=Limits(window_bytes=4096))
    data = os.urandom(200_000)
    async with online(one):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(one.session.send(data))
            for _ in range(3):
                await asyncio.sleep(0.02)
                one.service.only.link.cut()
                await one.until(SessionState.ONLINE)
        await asyncio.sleep(3)
        assert bytes(one.service.only.far_end.taken) == data
        assert one.session.tally.bytes_up == len(data)


async def test_a_sender_of_a_session_that_ends_is_told() -> None:
    """Bytes that were not taken are never silently dropped."""
    one = bench(limits=Limits(window_bytes=4096))
    async with online(one) as work:
        one.service.only.far_end.blocked = True
        sender = beside(one.session.send(b"x" * 100_000))
        await asyncio.sleep(5)
        assert not sender.done()
        one.service.only.close("gone")
        await work
        with pytest.raises(SessionEnded, match="gone"):
            await sender
        with pytest.raises(SessionEnded):
            await one.session.send(b"more")


async def test_our_own_pace_stays_below_the_services_limit() -> None:
    """The service is said to cut a link that sends a thousand frames a second."""
    one = bench(
        settings=LinkSettings(frames_per_second=900), limits=Limits(payload=128, window_bytes=1 << 20)
    )
    async with online(one):
        began, before = now(), one.service.only.link.sent
        await one.session.send(b"x" * 128 * 3600)
        while len(one.service.only.far_end.taken) < 128 * 3600:
            await asyncio.sleep(0.05)
        frames = one.service.only.link.sent - before
        assert frames / (now() - began) <= 900 + 900 / 2


async def test_a_first_frame_that_is_rejected_after_a_slow_handshake_is_repeated_at_once() -> None:
    """The far end says that it is ready before it is; over a slow way the timer slept for a minute."""
    one = bench(**PORT)
    service = one.service
    far_end = FarEnd(request=handshake_request(type="LocalPortForwarding", portNumber="80"))
    service.far_end = lambda document, parameters: far_end  # type: ignore[method-assign]
    async with held(one):
        await one.until(SessionState.ONLINE)
        link = service.only.link
        arrived = link.deliver
        slow: list[bytes] = []
        link.deliver = slow.append  # type: ignore[method-assign,assignment]
        await asyncio.sleep(0)
        far_end.ready_after = 0.3
        began = now()
        for _ in range(50):  # a way of 0.8 s
            await asyncio.sleep(0.4)
            batch, slow[:] = list(slow), []
            for data in batch:
                arrived(data)
            if one.session.channel is not None and one.session.channel.ready:
                break
        assert one.session.channel is not None
        assert one.session.channel.ready
        assert now() - began < 4.0


async def test_a_new_frame_is_repeated_in_time_while_another_timer_is_far() -> None:
    """A missing frame of the far end puts a timer half a minute away; what we send must not wait for that."""
    one = bench()
    async with online(one):
        far = one.service.only
        far.link.mute = True
        far.write(b"lost")
        far.link.mute = False
        far.write(b"early")  # torn: a timer at 30 s
        await asyncio.sleep(1)
        far.link.mute = True
        await one.session.send(b"typed")  # lost once
        await asyncio.sleep(0.01)
        far.link.mute = False
        await asyncio.sleep(2)
        assert bytes(far.far_end.taken) == b"typed"


async def test_a_session_that_the_agent_never_started_is_started_afresh() -> None:
    """The agent drops a task that comes just after its own start, without a word."""
    one = bench()
    async with held(one):
        await one.until(SessionState.ONLINE)
        began = now()
        while len(one.service.sessions) < 2:
            await asyncio.sleep(0.1)
        assert 19.0 < now() - began < 21.0
        one.service.last.write(b"hello")
        await one.session.wait_ready()
        assert one.service.sessions["s-0"].terminated
        assert one.kept.open == {"s-1": Account()}


async def test_a_box_that_starts_no_session_at_all_is_an_error() -> None:
    """And not an attach that hangs for ever."""
    one = bench()
    async with held(one) as work:
        end = await work
    assert isinstance(end.error, Unreachable)
    assert len(one.service.sessions) == 3
    assert all(session.terminated for session in one.service.sessions.values())


async def test_a_network_that_was_away_at_the_start_is_not_the_boxs_fault() -> None:
    """The far end gets its time on a link, not in the dark."""
    one = bench()
    async with held(one):
        one.service.down["dial"] = LinkLost("no network")
        await asyncio.sleep(600)
        del one.service.down["dial"]
        await one.until(SessionState.ONLINE)
        await asyncio.sleep(3)
        one.service.only.write(b"hello")
        await one.session.wait_ready()


async def test_stopping_a_session_that_is_about_to_be_started_afresh_stops_it() -> None:
    """The wish to end must not get lost between two attempts."""
    one = bench(FakeService(latency=0.5))
    async with held(one) as work:
        while not one.service.count["terminate"]:
            await asyncio.sleep(0.01)
        await one.session.stop()
        assert (await work).ending is Ending.STOPPED
        assert len(one.service.sessions) == 1


# Signs of life ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("typing", [False, True])
async def test_a_dead_far_end_is_noticed_within_fifteen_seconds(typing: bool) -> None:
    """The link's pings are answered by the gateway, and nobody is behind it."""
    one = bench(attended=True)
    async with online(one), asyncio.TaskGroup() as tasks:
        heart = tasks.create_task(one.sessions.beat())
        await asyncio.sleep(22.3)
        one.service.only.link.mute = True
        if typing:
            await one.session.send(b"anybody?")
        began = now()
        await one.until(SessionState.STALLED)
        assert now() - began <= 15.0
        assert "does not answer" in one.session.detail
        one.service.only.link.mute = False
        await one.until(SessionState.ONLINE)
        heart.cancel()


async def test_a_far_end_that_is_slow_but_takes_data_is_not_called_dead() -> None:
    """An upload over a thin line: acknowledgements come, the probe is queued behind a megabyte."""
    one = bench(limits=Limits(window_bytes=1 << 20), attended=True)
    async with online(one), asyncio.TaskGroup() as tasks:
        heart = tasks.create_task(one.sessions.beat())
        link = one.service.only.link
        deliver = link.send
        line: asyncio.Queue[bytes] = asyncio.Queue()

        async def thin(data: bytes) -> None:
            line.put_nowait(data)

        async def carry() -> None:
            while True:
                await deliver(await line.get())
                await asyncio.sleep(0.05)  # 20 KiB/s

        link.send = thin  # type: ignore[method-assign]
        carrier = tasks.create_task(carry())
        await one.session.send(b"x" * 600_000)
        await asyncio.sleep(60)
        assert SessionState.STALLED not in [state for state, _ in one.sink.states]
        heart.cancel()
        carrier.cancel()


async def test_the_way_to_the_far_end_is_measured_over_lost_links_too() -> None:
    """``devboxctl ping``: the answer may come over the next link, or never."""
    one = bench()
    async with online(one) as work:
        assert await one.session.measure() == 0.0
        far = one.service.only
        far.link.mute = True
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(one.session.measure())
            await asyncio.sleep(5)
            far.link.cut()
            assert 5.0 <= await asked < 6.0
        far.link.mute = True
        waiting = beside(one.session.measure())
        await asyncio.sleep(1)
        await one.session.stop()
        await work
        with pytest.raises(SessionEnded):
            await waiting


async def test_a_touch_that_finds_no_room_asks_instead() -> None:
    """A NOP has no place behind a program that reads nothing; the heart must go on beating for all others."""
    one = bench(
        **PORT,
        limits=Limits(window_bytes=1024),
        keep_alive=KeepAlive.ALWAYS,
        touch=lambda: (PayloadType.OUTPUT, b"nop"),
    )
    async with online(one):
        far = one.service.only.far_end
        await asyncio.sleep(60)
        one.session.beat()
        await settle()
        assert bytes(far.taken) == b"nop"
        far.blocked, before = True, len(far.seen)
        await one.session.send(b"x" * 1024)
        await asyncio.sleep(60)
        one.session.beat()
        far.blocked = False
        await asyncio.sleep(10)
        assert [kind for kind, _ in far.seen[before:]] == [PayloadType.PARAMETER]
        assert bytes(far.taken) == b"nop" + b"x" * 1024


async def test_after_a_wake_a_dead_link_is_dropped_at_once() -> None:
    """TCP would take a quarter of an hour to find out."""
    one = bench()
    async with online(one):
        await asyncio.sleep(100)
        one.service.only.link.mute = True
        one.shared.bells.network.ring()
        began = now()
        await one.until(SessionState.RECONNECTING)
        assert now() - began <= 2.6
        await one.until(SessionState.ONLINE)
        assert len(one.service.only.links) == 2


async def test_after_a_wake_a_live_link_is_kept() -> None:
    """A false alarm costs one probe."""
    one = bench()
    async with online(one):
        await asyncio.sleep(100)
        one.shared.bells.network.ring()
        await asyncio.sleep(10)
        assert len(one.service.only.links) == 1
        assert [kind for kind, _ in one.service.only.far_end.seen] == [PayloadType.PARAMETER]


@pytest.mark.parametrize(
    ("policy", "attended", "wanted", "least", "most"),
    [
        (KeepAlive.AUTO, True, False, 300, 800),  # somebody watches: ask
        (KeepAlive.AUTO, False, True, 60, 90),  # somebody may come back
        (KeepAlive.AUTO, False, False, 0, 0),  # nobody does: let it idle out
        (KeepAlive.NEVER, True, True, 0, 14),  # only while it is used
    ],
)
async def test_keep_alive_does_what_the_policy_says(
    policy: KeepAlive, attended: bool, wanted: bool, least: int, most: int
) -> None:
    """A probe counts as activity: it must be there to keep a session, and absent to let it go."""
    one = bench(keep_alive=policy, attended=attended, wanted=wanted)
    async with online(one), asyncio.TaskGroup() as tasks:
        heart = tasks.create_task(one.sessions.beat())
        await asyncio.sleep(3600)
        heart.cancel()
        probes = [kind for kind, _ in one.service.only.far_end.seen if kind == PayloadType.PARAMETER]
        assert least <= len(probes) <= most
        assert len(one.service.only.links) == 1


async def test_a_pause_of_the_far_end_does_not_end_anything() -> None:
    """The agent restarts: the gateway says so, keeps the link, and says when it is back."""
    one = bench()
    async with online(one):
        far = one.service.only
        far.link.deliver(service_message(frame.PAUSE_PUBLICATION))
        far.link.mute = True
        await one.session.send(b"meanwhile")
        await asyncio.sleep(25)
        far.link.mute = False
        far.link.deliver(service_message(frame.START_PUBLICATION))
        await asyncio.sleep(2)
        assert bytes(far.far_end.taken) == b"meanwhile"
        assert len(far.links) == 1


async def test_a_large_gap_is_given_up_where_the_owner_can_repair_it() -> None:
    """Ten frames a second: three minutes of catching up after a long outage, for a screen of text."""
    one = bench()
    one.session.skip_gaps(0.5)
    async with online(one):
        far = one.service.only
        far.link.mute = True
        for _ in range(50):
            far.write(b"lost ")
        far.link.mute = False
        for _ in range(12):
            far.write(b"new ")
            await asyncio.sleep(0.1)
        assert one.sink.gaps == [50]
        assert bytes(one.sink.out) == b"hello " + b"new " * 12


# Encryption ---------------------------------------------------------------------------------------------


async def test_a_session_with_a_key_is_encrypted_both_ways() -> None:
    """Accounts that demand KMS."""
    key = bytes(range(64))
    one = bench(document="AWS-StartInteractiveCommand")
    one.service.kms = (key, b"sealed")
    one.service.far_end = lambda document, parameters: FarEnd(  # type: ignore[method-assign]
        request=handshake_request("InteractiveCommands", key_id="key-1"), data_key=key
    )
    async with held(one):
        await one.session.wait_ready()
        await one.session.send(b"secret")
        one.service.only.write(b"answer")
        await settle()
        assert bytes(one.service.only.far_end.taken) == b"secret"
        assert bytes(one.sink.out) == b"answer"
        assert one.sink.readies[0].encrypted


async def test_a_key_that_cannot_be_had_is_the_error_of_the_session() -> None:
    """kms:GenerateDataKey is the permission that is forgotten most."""
    one = bench(document="AWS-StartInteractiveCommand")
    one.service.down["generate_data_key"] = Denied(
        "not allowed to use key-1", hint="ask for kms:GenerateDataKey"
    )
    one.service.far_end = lambda document, parameters: FarEnd(  # type: ignore[method-assign]
        request=handshake_request("InteractiveCommands", key_id="key-1"), data_key=bytes(64)
    )
    async with held(one) as work:
        end = await work
    assert isinstance(end.error, WrongState)
    assert "not allowed to use key-1" in end.error.message
    assert end.error.hint == "ask for kms:GenerateDataKey"
    assert one.service.only.terminated


ARN = "arn:aws:kms:us-east-1:{}:key/11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize(
    ("account", "own", "allowed", "accepted"),
    [
        ("123456789012", "123456789012", (), True),
        ("999988887777", "123456789012", (), False),
        ("999988887777", "123456789012", ("999988887777",), True),
        ("999988887777", None, (), False),
        ("123456789012", None, (), False),
    ],
)
async def test_a_box_may_not_choose_a_key_of_another_account(
    account: str, own: str | None, allowed: tuple[str, ...], accepted: bool
) -> None:
    """Whoever owns it could read the session. KMS is not even asked."""
    key = bytes(range(64))
    one = bench(document="AWS-StartInteractiveCommand", settings=LinkSettings(kms_accounts=allowed))
    one.service.kms = (key, b"sealed")
    one.service.account_number = own
    one.service.far_end = lambda document, parameters: FarEnd(  # type: ignore[method-assign]
        request=handshake_request("InteractiveCommands", key_id=ARN.format(account)), data_key=key
    )
    async with held(one) as work:
        if accepted:
            await one.session.wait_ready()
            assert one.sink.readies[0].encrypted
            return
        end = await work
    assert isinstance(end.error, WrongState)
    assert account in end.error.message
    assert "link.kms_accounts" in (end.error.hint or "")
    assert "generate_data_key" not in {name for _, name in one.service.calls}


async def test_waiting_for_a_session_that_fails_raises_its_error() -> None:
    """All who wait learn the same reason."""
    one = bench()
    one.service.fail("start", Denied("ssm:StartSession is not allowed"))
    async with held(one):
        results = await asyncio.gather(*(one.session.wait_ready() for _ in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [Denied] * 3
