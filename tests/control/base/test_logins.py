"""Who waits for credentials waits at one place, one tries for all, and a person hears of it once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from devboxd.control.base.logins import LOOK_EVERY, NOTICE_EVERY, LoginWatch
from devboxd.control.base.shared import Shared
from devboxd.errors import BadRequest, Denied, DevboxError, LoginNeeded
from devboxd.model.box import Account
from devboxd.model.login import Method, Source, Verdict
from tests.control.fakes import LoopClock, settle

pytestmark = pytest.mark.looptime

WORK, OTHER = Account("work"), Account("other")
EXPIRED = LoginNeeded("the security token has expired")
TURN = 30.0


@dataclass
class FakeIdentity:
    """The credentials of one profile."""

    key: Account
    where: Source
    broken: bool = False

    @property
    def profile_name(self) -> str:
        return self.key.profile or "default"

    def source(self) -> Source:
        if self.broken:
            raise BadRequest("the AWS configuration can not be used")
        return self.where


@dataclass
class Machine:
    """The AWS settings of a machine, and what its owner was told."""

    identities: list[FakeIdentity] = field(default_factory=list)
    refreshed: int = 0
    notices: list[str] = field(default_factory=list)

    def known(self) -> list[FakeIdentity]:
        return self.identities

    async def refresh(self) -> None:
        self.refreshed += 1

    async def notice(self, title: str, text: str) -> None:
        self.notices.append(text)


class Session:
    """Something that waits for credentials whenever its call is refused."""

    def __init__(self, shared: Shared, account: Account, why: DevboxError = EXPIRED) -> None:
        self.shared = shared
        self.account = account
        self.why: DevboxError | None = why
        self.tries = 0
        self.turns = 0
        self.is_up = False

    async def run(self) -> None:
        while True:
            self.tries += 1
            if self.why is None:
                self.is_up = True
                self.shared.logins.heard(self.account, None)
                return
            if await self.shared.logins.wait(self.account, self.why, TURN):
                self.turns += 1


class Bench:
    """Sessions, the watch, and a machine."""

    def __init__(self, tasks: asyncio.TaskGroup, shared: Shared, machine: Machine) -> None:
        self.tasks = tasks
        self.shared = shared
        self.machine = machine
        self.watch = LoginWatch(shared.time, shared.news, shared.logins, machine, machine.notice)

    def sessions(self, count: int, account: Account = WORK, why: DevboxError = EXPIRED) -> list[Session]:
        made = [Session(self.shared, account, why) for _ in range(count)]
        for one in made:
            self.tasks.create_task(one.run())
        return made

    @property
    def codes(self) -> list[str]:
        return [condition.code for condition in self.shared.news.conditions()]

    def events(self, kind: str) -> int:
        return sum(event.kind == kind for event in self.shared.news.events())


@asynccontextmanager
async def bench(*identities: FakeIdentity) -> AsyncIterator[Bench]:
    shared = Shared.of(LoopClock(), dice=lambda: 0.5)
    known = list(identities) or [FakeIdentity(WORK, Source(Method.KEYS, "work"))]
    try:
        async with asyncio.TaskGroup() as tasks:
            one = Bench(tasks, shared, Machine(known))
            watching = tasks.create_task(one.watch.run())
            await settle()
            yield one
            watching.cancel()
            raise Over
    except* Over:
        pass


class Over(Exception):
    """Ends the sessions that still wait."""


@pytest.mark.parametrize("method", list(Method))
async def test_twenty_refused_sessions_are_one_condition(method: Method) -> None:
    """Whatever kind of credentials it is: once, with the mend, until the sessions are back."""
    async with bench(FakeIdentity(WORK, Source(method, "work"))) as one:
        sessions = one.sessions(20)
        await settle()
        (condition,) = one.shared.news.conditions()
        assert condition.code == "login-needed"
        assert condition.hint
        await asyncio.sleep(3600)
        assert one.shared.news.conditions() == [condition]
        assert one.events("condition.login-needed") == 1
        for session in sessions:
            session.why = None
        await one.watch.renew()
        await settle()
        assert all(session.is_up for session in sessions)
        assert one.codes == []
        assert one.machine.refreshed == 1, "once for all of them"


async def test_a_login_that_never_worked_is_told_and_is_no_condition() -> None:
    """A profile that was mistyped, or one whose helper fails: ``status`` called it fine."""
    async with bench() as one:
        one.shared.logins.heard(WORK, EXPIRED)
        await asyncio.sleep(60)
        (login,) = one.watch.known()
        assert (login.verdict, login.problem) == (Verdict.REFUSED, EXPIRED.message)
        assert one.codes == []
        one.shared.logins.heard(WORK, None)
        (login,) = one.watch.known()
        assert login.verdict is Verdict.FINE


async def test_one_tries_for_all_in_turn() -> None:
    """Twenty sessions made forty calls a minute for as long as a login was away."""
    async with bench() as one:
        sessions = one.sessions(20)
        await asyncio.sleep(20 * TURN + 1)
        assert [session.turns for session in sessions] == [1] * 20
        assert sum(session.tries for session in sessions) == 40


async def test_when_the_one_gets_through_all_go_on() -> None:
    """Credentials that mend themselves (a helper, a rotated token) need nobody's word."""
    async with bench() as one:
        sessions = one.sessions(20)
        await settle()
        for session in sessions:
            session.why = None
        await asyncio.sleep(TURN - 1)
        assert not any(session.is_up for session in sessions)
        await asyncio.sleep(2)
        assert all(session.is_up for session in sessions)
        assert one.codes == []


async def test_a_call_of_anybody_that_works_lets_all_go_on() -> None:
    """``devboxctl ls`` worked: so will they."""
    async with bench() as one:
        sessions, others = one.sessions(5), one.sessions(5, OTHER)
        await settle()
        for session in (*sessions, *others):
            session.why = None
        one.shared.logins.heard(WORK, None)
        await settle()
        assert all(session.is_up for session in sessions)
        assert not any(session.is_up for session in others)


async def test_who_comes_and_goes_does_not_take_the_turn_of_those_who_stay() -> None:
    async with bench() as one:
        (patient,) = one.sessions(1)
        for _ in range(12):
            passer = one.tasks.create_task(Session(one.shared, WORK).run())
            await asyncio.sleep(TURN / 5)
            passer.cancel()
        assert patient.turns == 2


async def test_a_service_that_refuses_what_another_takes_makes_nobody_spin() -> None:
    """Each success would let the refused ones try at once, and each of their tries is a call."""
    async with bench() as one:
        (refused,) = one.sessions(1)
        for _ in range(600):
            one.shared.logins.heard(WORK, None)
            await asyncio.sleep(0.1)
        assert refused.tries <= 60 / 5 + 2


@pytest.mark.parametrize(
    "error", [Denied("AWS does not allow ssm:ResumeSession"), BadRequest("no profile x")]
)
async def test_sessions_that_may_not_be_resumed_are_one_condition_too(error: DevboxError) -> None:
    """The credentials are good, and the sessions sit there all the same."""
    async with bench() as one:
        sessions = one.sessions(3, why=error)
        await settle()
        (condition,) = one.shared.news.conditions()
        assert condition.code == "resume-refused"
        assert error.message in condition.text
        assert "3 sessions" in condition.text
        one.shared.logins.heard(WORK, None)  # something else is allowed: no reason to ask again
        await asyncio.sleep(TURN / 2)
        assert [session.tries for session in sessions] == [1] * 3
        for session in sessions:
            session.why = None
        await asyncio.sleep(3 * TURN)
        assert all(session.is_up for session in sessions)
        assert one.codes == []


async def test_an_end_in_sight_is_told_ahead_and_withdrawn() -> None:
    identity = FakeIdentity(WORK, Source(Method.SSO, "corp", 600.0))
    async with bench(identity) as one:
        assert one.codes == ["login-expiring"]
        identity.where = Source(Method.SSO, "corp", -1.0)
        await asyncio.sleep(LOOK_EVERY + 1)
        assert one.codes == ["login-needed"]
        identity.where = Source(Method.SSO, "corp", 8 * 3600.0)
        await one.watch.renew()
        await settle()
        assert one.codes == []
        assert [event.kind for event in one.shared.news.events()] == [
            "condition.login-expiring",
            "condition.login-needed",
            "cleared.login-expiring",
            "cleared.login-needed",
        ]


async def test_the_desktop_is_told_once_an_hour_and_login() -> None:
    async with bench(FakeIdentity(WORK, Source(Method.SSO, "corp", -1.0))) as one:
        await asyncio.sleep(NOTICE_EVERY - LOOK_EVERY)
        assert len(one.machine.notices) == 1
        assert "devboxctl login --profile work" in one.machine.notices[0]
        await asyncio.sleep(2 * LOOK_EVERY)
        assert len(one.machine.notices) == 2


async def test_a_broken_configuration_of_one_profile_hides_no_other() -> None:
    broken = FakeIdentity(OTHER, Source(Method.SSO, "x"), broken=True)
    async with bench(broken, FakeIdentity(WORK, Source(Method.SSO, "corp", -1.0))) as one:
        assert one.codes == ["login-needed"]


async def test_what_nobody_waits_for_is_taken_to_be_mended_by_a_login() -> None:
    """The next call says otherwise, if it is so."""
    async with bench() as one:
        one.shared.logins.heard(WORK, None)
        one.shared.logins.heard(WORK, EXPIRED)
        await settle()
        assert one.codes == ["login-needed"]
        await one.watch.renew()
        await settle()
        assert one.codes == []
        one.shared.logins.heard(WORK, EXPIRED)
        await settle()
        assert one.codes == ["login-needed"]
