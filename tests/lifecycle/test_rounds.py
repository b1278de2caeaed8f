"""The reconciler without a daemon, on virtual time: it goes on with what was begun, and ends when it should."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from devboxd import headless
from devboxd.control.lifecycle.book import Book
from devboxd.control.lifecycle.boxwork import BoxWork, NoBox
from devboxd.control.lifecycle.fleet import LIST_EVERY, Fleet, Lookout
from devboxd.control.lifecycle.rounds import End, Line, Reported, Reporter, Rounds, worst
from devboxd.errors import LoginNeeded
from devboxd.model.beyond import not_here, region_of, saving_only
from devboxd.model.box import Account
from devboxd.model.change import CALM
from devboxd.model.ledger import lease_key
from devboxd.model.pipeline import next_step
from devboxd.model.project import Phase, Place, Project, Spec, Want
from devboxd.model.step import Start, Stop, Wait
from devboxd.model.turn import SECONDS
from devboxd.simulator.ec2.faults import Fault
from tests.control.fakes import LoopClock
from tests.lifecycle.kit import OWNER, Bench, FakeComputes, bench, start, stop
from tests.lifecycle.memory import MemoryStore

pytestmark = pytest.mark.looptime


def elsewhere(
    one: Bench,
    me: str = "function",
    *,
    owners: tuple[str, ...] = (OWNER,),
    limited: bool = False,
    boxes: Any = None,
) -> tuple[list[Fleet], list[Line]]:
    """Fleets of another machine over the same store and account, and the lines that they tell."""
    lines: list[Line] = []
    ids = itertools.count(1)
    lookout = Lookout(one.shared, FakeComputes(one.account))
    reporter = Reporter(one.shared.time, lines.append)

    def op() -> str:
        return f"{me}-{next(ids):06d}"

    def fleet(owner: str) -> Fleet:
        return Fleet(
            one.shared,
            Book(one.store, owner, me, op, LoopClock().wall),
            lookout.computes,
            Reported(boxes or BoxWork(one.runner), reporter),
            me=me,
            op=op,
            lookout=lookout,
            audience=reporter,
            decide=(lambda seen: saving_only(next_step(seen))) if limited else next_step,
        )

    return [fleet(owner) for owner in owners], lines


async def run(one: Bench, fleets: list[Fleet], lines: list[Line], seconds: float = 3600.0) -> dict[str, End]:
    until = LoopClock().monotonic() + seconds
    rounds = Rounds(one.shared.time, lines.append, lambda: until - LoopClock().monotonic())
    await rounds.run(fleets)
    return rounds.ends


async def begun(store: MemoryStore | None = None) -> tuple[Bench, int, str]:
    """A daemon that died while it saved: its bench, what was on the box, and which phase it left."""
    one = await start(bench(store))
    project = await one.launched()
    written = one.work(project)
    await one.projects.terminate("api")
    await one.until("api", Phase.SAVING)
    left = dict(store.items) if store is not None else {}
    for task in list(one.shared.tasks._tasks):
        task.cancel()
    await asyncio.sleep(1.0)
    if store is not None:
        store.items = left  # killed: it gave nothing back
    return one, written, project.instance or ""


async def test_a_save_that_a_daemon_began_is_finished_and_nothing_is_lost() -> None:
    """No daemon is left: the next start of a timer does what was to be done, to the end."""
    one, written, instance = await begun()
    fleets, lines = elsewhere(one)
    ends = await run(one, fleets, lines)
    assert list(ends.values()) == [End.DONE]
    known = await one.projects.get("api")
    assert known.project.phase is Phase.READY
    assert one.model.tables.instances[instance].state.value == "terminated"
    image = one.model.tables.images[known.generations[0].image]
    assert image.state == "available"
    assert {line.what for line in lines if line.kind == "call"} >= {"MakeImage", "Release"}
    assert {line.what for line in lines if line.kind == "step"} >= {"8", "13"}
    assert lines[-1].kind == "end"
    # What was written is there in the next run.
    other = await start(bench(one.store, model=one.model, me="desktop"))
    await other.projects.up("api")
    row = (await other.until("api", Phase.RUNNING)).project
    assert max(one.content(row.instance).values()) >= written
    await stop(other)


async def test_it_ends_when_its_time_is_over_and_the_next_one_goes_on() -> None:
    """A function has minutes; a save may take hours."""
    one, _, _ = await begun()
    spent = 0
    for _ in range(50):
        fleets, lines = elsewhere(one)
        began = LoopClock().monotonic()
        ends = list((await run(one, fleets, lines, seconds=10.0)).values())
        assert LoopClock().monotonic() - began <= 12.0
        spent += 1
        if ends == [End.DONE]:
            break
        assert ends == [End.UNFINISHED]
        await asyncio.sleep(30.0)
    assert 2 < spent < 50
    assert (await one.projects.get("api")).project.phase is Phase.READY


async def test_at_rest_it_costs_one_look() -> None:
    """Every five minutes, for ever: four describes and the rows."""
    one = await start(bench())
    for name in ("a", "b", "c"):
        await one.launched(name)
    await stop(one)
    one.account.calls.clear()
    fresh = bench(one.store, model=one.model)
    fleets, lines = elsewhere(fresh)
    ends = await run(fresh, fleets, lines)
    assert list(ends.values()) == [End.DONE] * 3
    assert sum(fresh.account.calls.values()) == 4
    assert [line.kind for line in lines if line.kind not in ("wait", "end")] == []


async def test_a_turn_that_is_renewed_is_left_to_who_has_it() -> None:
    """A laptop is at work: the function looks, sees that, and goes."""
    store = MemoryStore(is_shared=True)
    one = await start(bench(store))
    await one.launched()
    await one.projects.terminate("api")
    await one.until("api", Phase.SAVING)
    fleets, lines = elsewhere(one)
    ends = await run(one, fleets, lines)
    calls = [line for line in lines if line.kind == "call"]
    assert list(ends.values()) in ([End.ELSEWHERE], [End.DONE])
    assert calls == []
    await one.until("api", Phase.READY)
    await stop(one)


async def test_the_turn_of_a_dead_machine_is_taken_after_its_time_and_given_back() -> None:
    """Not before a minute of our own clock; and who comes next need not wait for ours."""
    store = MemoryStore(is_shared=True)
    one, _, _ = await begun(store)
    assert (OWNER, lease_key((await one.projects.get("api")).project.uid)) in store.items
    began = LoopClock().wall()
    fleets, lines = elsewhere(one)
    ends = await run(one, fleets, lines)
    assert list(ends.values()) == [End.DONE]
    first = next(line for line in lines if line.kind in ("step", "call"))
    assert SECONDS <= first.at - began < 2 * SECONDS
    assert not [key for _, key in store.items if key.startswith("L#")]


async def test_what_needs_a_persons_credentials_is_left_alone() -> None:
    """A launch that a laptop has begun must not be given up because the function may not launch."""
    one = await start(bench())
    await one.launched()
    await one.projects.stop("api")
    await one.until("api", Phase.WARM)
    await stop(one)
    fresh = bench(one.store, model=one.model)
    await fresh.projects.up("api")
    fleets, lines = elsewhere(fresh, limited=True)
    ends = await run(fresh, fleets, lines)
    assert list(ends.values()) == [End.ELSEWHERE]
    assert not [line for line in lines if line.kind in ("call", "refused")]
    assert "left to a daemon" in lines[-2].text
    laptop = await start(bench(one.store, model=one.model, me="desktop"))
    await laptop.until("api", Phase.RUNNING)
    await stop(laptop)


async def test_hooks_that_can_not_be_run_are_skipped_and_said_so() -> None:
    """The box shuts down in order all the same."""
    one = await start(bench())
    await one.launched()
    await stop(one)
    fresh = bench(one.store, model=one.model)
    await fresh.projects.terminate("api")
    fleets, lines = elsewhere(fresh, limited=True, boxes=NoBox())
    ends = await run(fresh, fleets, lines)
    assert list(ends.values()) == [End.DONE]
    (skipped,) = [line for line in lines if line.kind == "skipped"]
    assert "hooks" in skipped.what
    assert "no session" in skipped.text


async def test_refused_broken_and_without_a_login_each_has_its_end() -> None:
    """The exit status is what a timer's owner sees."""
    one, _, _ = await begun()
    one.model.faults.add(Fault("refuse", operation="CreateImage", code="UnauthorizedOperation"))
    fleets, lines = elsewhere(one)
    assert list((await run(one, fleets, lines)).values()) == [End.REFUSED]
    assert [line.what for line in lines if line.kind == "refused"][:1] == ["denied"]
    one.model.faults.clear()
    one.account.broken = LoginNeeded("the token has expired")
    fleets, lines = elsewhere(one)
    assert list((await run(one, fleets, lines)).values()) == [End.LOGIN]
    one.account.broken = None
    fleets, lines = elsewhere(one)
    assert list((await run(one, fleets, lines)).values()) == [End.DONE]
    assert worst([End.DONE, End.BROKEN, End.REFUSED]) is End.BROKEN
    assert worst([]) is End.DONE


async def test_cancelled_it_gives_its_turns_back() -> None:
    """SIGTERM of a container: the next one begins at once."""
    store = MemoryStore(is_shared=True)
    one, _, _ = await begun(store)
    fleets, lines = elsewhere(one)
    rounds = Rounds(one.shared.time, lines.append, lambda: 3600.0)
    task = asyncio.get_running_loop().create_task(rounds.run(fleets))  # it ends two lines on
    while not any(line.kind == "call" for line in lines):
        await asyncio.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(rounds.ends.values()) == [End.UNFINISHED]
    assert not [key for _, key in store.items if key.startswith("L#")]


async def test_several_owners_share_one_look() -> None:
    """A team's table: one describe for all of it, and each owner's rows by one query."""
    one = await start(bench())
    await one.launched("mine")
    await stop(one)
    (known,) = await one.book.ledgers()
    theirs = Book(one.store, "you", "x", lambda: f"y-{LoopClock().wall()}", LoopClock().wall)
    await theirs.create(Project("uid-you", "theirs", "you", want=Want.COLD), "made")
    fresh = bench(one.store, model=one.model)
    fleets, lines = elsewhere(fresh, owners=(OWNER, "you"))
    ends = await run(fresh, fleets, lines)
    assert set(ends) == {known.project.uid, "uid-you"}
    assert fresh.account.calls == dict.fromkeys(fresh.account.calls, 1)


async def test_all_ledgers_in_three_queries_are_what_one_query_each_gives() -> None:
    one = await start(bench())
    for name in ("a", "b"):
        await one.launched(name)
        await one.projects.terminate(name)
        await one.until(name, Phase.READY)
    await stop(one)
    assert isinstance(one.store, MemoryStore)
    reads = one.store.reads
    found = await one.book.ledgers()
    assert one.store.reads == reads + 1
    for known in found:
        assert known == await one.book.load(known.project.uid) or known.versions


async def test_what_is_left_alone_is_said_once_however_long_it_runs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """For ever means for ever: a line every two minutes would fill a disk."""
    one = bench()
    await one.book.create(Project("uid-1", "api", OWNER, Account(None, "eu-central-1")), "made")
    theirs = Book(one.store, "you", "x", lambda: "op-1", LoopClock().wall)
    await theirs.create(Project("uid-2", "api", "you"), "made")
    unused: Any = None
    ground = headless.Ground(
        one.shared, one.store, [OWNER, "you"], unused, NoBox(), "function", headless._plain,
        table=Account(None, "us-east-1"), saves_only=True,
    )  # fmt: skip
    stopped = asyncio.Event()
    await headless._for_ever(ground, stopped, 10 * LIST_EVERY)
    assert capsys.readouterr().out.splitlines() == [
        "me  api  skipped it is in eu-central-1",
        "you  api  skipped its region is not written down",
    ]


@pytest.mark.parametrize(("owners", "said"), [(False, ""), (True, OWNER)])
async def test_every_line_says_whose_project_it_is_where_there_are_several(owners: bool, said: str) -> None:
    one = await start(bench())
    await one.launched()
    await stop(one)
    fresh = bench(one.store, model=one.model)
    fleets, lines = elsewhere(fresh)
    await Rounds(fresh.shared.time, lines.append, lambda: 3600.0, owners).run(fleets)
    assert [line.owner for line in lines if line.kind == "end"] == [said]


# Which projects, and which steps


def project(owner: str = "AIDA1", **changes: Any) -> Project:
    return Project("uid", "api", owner, **changes)


def in_zones(*zones: str) -> Spec:
    return Spec(places=tuple(Place("t4g.small", zone) for zone in zones))


def test_a_table_speaks_for_its_own_account_and_region_only() -> None:
    """Elsewhere the box would not be seen, and what is not seen must not be taken for gone."""
    mine = project(account=Account("work", "eu-central-1"))
    assert not_here(mine, "AIDA1", "eu-central-1") == ""
    assert "eu-central-1" in not_here(mine, "AIDA1", "us-east-1")
    assert "account" in not_here(mine, "AIDA2", "eu-central-1")
    assert not_here(project(spec=in_zones("us-west-2a", "us-west-2b")), "AIDA1", "us-west-2") == ""
    assert "not written down" in not_here(project(), "AIDA1", "us-west-2")
    assert region_of(project(spec=in_zones("us-west-2a", "us-east-1b"))) is None
    assert region_of(project(spec=in_zones("us-gov-west-1c"))) == "us-gov-west-1"
    assert region_of(project(spec=in_zones("us-west-2-lax-1a", "us-west-2c"))) == "us-west-2"
    assert region_of(project(spec=in_zones("us-east-1-wl1-bos-wlz-1"))) == "us-east-1"
    assert region_of(project(spec=in_zones("eusc-de-east-1a"))) == "eusc-de-east-1"
    assert region_of(project(spec=in_zones("the moon"))) is None


def test_only_what_lets_a_box_run_is_kept_from_the_function() -> None:
    assert saving_only(Stop("i-1")) == Stop("i-1")
    kept = saving_only(Start("i-1"))
    assert isinstance(kept, Wait)
    assert kept.seconds == CALM
