"""The reconciler without a daemon: ``devboxd reconcile``, and a function of the account.

No socket, no forwards, no terminals. It joins the same loops to the same AWS, and ends. What it does is a line each;
what it leaves undone, whoever starts next goes on with.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec

from devboxd.aws.clients import Caller, Callers
from devboxd.aws.computes import AwsComputes
from devboxd.aws.identity import identity
from devboxd.aws.rows import lasting
from devboxd.aws.store import DynamoStore
from devboxd.control.base.needs import BoxCommands, Store
from devboxd.control.base.shared import Shared
from devboxd.control.base.steady import steadily
from devboxd.control.lifecycle.book import Book
from devboxd.control.lifecycle.boxwork import NoBox
from devboxd.control.lifecycle.fleet import Fleet, Lookout
from devboxd.control.lifecycle.home import OWN, new_id
from devboxd.control.lifecycle.rounds import End, Line, Reported, Reporter, Rounds, Tell, worst
from devboxd.errors import BadRequest, DevboxError, Kind, exit_status
from devboxd.host.clock import Clock
from devboxd.host.machine import new_owner
from devboxd.model.beyond import not_here, region_of, saving_only
from devboxd.model.box import Account
from devboxd.model.pipeline import next_step
from devboxd.model.project import Project
from devboxd.model.stack import PREFIX
from devboxd.model.states import StoreEngine
from devboxd.model.wish import is_same

MARGIN: Final = 20.0  # seconds of the function's time that are kept for the last answers
UNBOUNDED: Final = 366 * 86400.0
STATUS: Final = {
    End.DONE: 0,
    End.ELSEWHERE: 0,
    End.UNFINISHED: exit_status(Kind.PENDING),
    End.REFUSED: exit_status(Kind.FAILED),
    End.LOGIN: exit_status(Kind.LOGIN),
    End.FAILED: exit_status(Kind.FAILED),
    End.BROKEN: exit_status(Kind.STATE),
}


@dataclass(frozen=True, slots=True)
class Ground:
    """What the loops stand on: whose projects, where they are written down, and what may be done to them.

    ``table``: of the table, whose settings reach all that its owners have; None: each project's own settings say
    how. ``saves_only``: what lets a box run is left to a daemon of its owner.
    """

    shared: Shared
    store: Store
    owners: Sequence[str]
    callers: Callers
    boxes: BoxCommands
    me: str
    tell: Tell
    table: Account | None = None
    saves_only: bool = False
    only: str | None = None

    def fleets(self) -> list[Fleet]:
        """One for each owner, with one look for all of them."""
        lookout = Lookout(self.shared, AwsComputes(self.callers), self.account_of)
        return [self._fleet(owner, lookout) for owner in self.owners]

    def _fleet(self, owner: str, lookout: Lookout) -> Fleet:
        time = self.shared.time
        reporter = Reporter(time, self.tell, owner if self.saves_only else "")
        return Fleet(
            self.shared,
            Book(self.store, owner, self.me, new_id, time.wall),
            lookout.computes,
            Reported(self.boxes, reporter),
            me=self.me,
            op=new_id,
            lookout=lookout,
            audience=reporter,
            minds=lambda project: self.minds(project, owner, reporter),
            decide=(lambda seen: saving_only(next_step(seen))) if self.saves_only else next_step,
        )

    def minds(self, project: Project, owner: str, reporter: Reporter) -> bool:
        """Say whether a project is looked after here."""
        if self.only is not None and not is_same(project.name, self.only):
            return False
        region = self.table.region if self.table is not None and self.saves_only else None
        why = not_here(project, owner, region) if region is not None else ""
        if why:
            reporter.left(project, why)
        return not why

    def account_of(self, project: Project) -> Account:
        """How a project's account is reached from here."""
        if self.table is None or project.owner not in self.owners:
            return project.account
        return Account(self.table.profile, region_of(project) or self.table.region)


async def rounds(ground: Ground, left: Callable[[], float]) -> dict[str, End]:
    """Every project as far as it goes now; by uid."""
    one = Rounds(ground.shared.time, ground.tell, left, ground.saves_only)
    try:
        await one.run(ground.fleets())
    except asyncio.CancelledError:
        if not ground.shared.tasks.is_closing:
            raise
    return one.ends


async def bounded(
    ground: Ground, left: Callable[[], float], seconds: float | None, stopped: asyncio.Event
) -> dict[str, End]:
    """The same, and all of it is ended after ``seconds``, or when told to stop."""
    tasks = ground.shared.tasks
    work = tasks.spawn("rounds", rounds(ground, left))
    watch = tasks.spawn("stop", stopped.wait())
    await asyncio.wait((work, watch), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        await tasks.stop()
    return work.result() if work.done() and not work.cancelled() else {}


# The command ------------------------------------------------------------------------------------------------


def reconcile(words: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """``devboxd reconcile``: returns the exit status."""
    asked = _parser().parse_args(words)
    os.umask(0o077)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s: %(message)s")
    tell = _json if asked.json else _plain
    try:
        return asyncio.run(_reconcile(asked, os.environ if environment is None else environment, tell))
    except DevboxError as error:
        sys.stderr.write(f"error: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return exit_status(error.kind)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="devboxd reconcile",
        description="Go on with what projects are about to do: saves, releases, what is left over. Without a daemon:"
        " for a timer, a container or CI.",
        epilog="Exit status: 0 nothing is left to do here, 8 the time was over, 4 no login, 5 a project needs you,"
        " 1 AWS refused something.",
        allow_abbrev=False,
    )
    parser.add_argument("--once", action="store_true", help="end when nothing is left to do for now")
    parser.add_argument("--project", metavar="NAME", help="this project only")
    parser.add_argument("--json", action="store_true", help="one JSON object a line on standard output")
    parser.add_argument("--for", dest="seconds", type=_seconds, metavar="SECONDS", help="end after this time")
    parser.add_argument("--table", metavar="NAME", help="projects of this DynamoDB table")
    parser.add_argument("--profile", metavar="NAME", help="AWS profile to reach the table with")
    parser.add_argument("--region", metavar="NAME", help="region of the table")
    parser.add_argument(
        "--all-owners", action="store_true", help="everybody's projects of the table; nothing is launched"
    )
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds") from None
    if not 0 < seconds <= UNBOUNDED:
        raise argparse.ArgumentTypeError("it has to be more than 0 seconds, and no more than a year")
    return seconds


async def _reconcile(asked: argparse.Namespace, environment: Mapping[str, str], tell: Tell) -> int:
    clock, stopped = Clock(), asyncio.Event()
    shared = Shared.of(clock)
    until = clock.boottime() + (asked.seconds or UNBOUNDED)
    async with _ground(asked, environment, shared, tell) as ground:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        if not asked.once:
            await _for_ever(ground, stopped, asked.seconds)
            return 0
        ends = await bounded(ground, lambda: until - clock.boottime(), asked.seconds, stopped)
    if asked.project is not None and not ends and not stopped.is_set():
        sys.stderr.write(f"error: there is no project named {asked.project!r} here\n")
        return exit_status(Kind.NOT_FOUND)
    return exit_status(Kind.PENDING) if stopped.is_set() else STATUS[worst(list(ends.values()))]


async def _for_ever(ground: Ground, stopped: asyncio.Event, seconds: float | None) -> None:
    """All loops, until told to stop."""
    tasks = ground.shared.tasks
    for fleet in ground.fleets():
        name = f"projects of {fleet.book.owner}"
        tasks.spawn(name, steadily(ground.shared, name, fleet.run))
    try:
        async with asyncio.timeout(seconds):
            await stopped.wait()
    except TimeoutError:
        pass
    await tasks.stop()


@asynccontextmanager
async def _ground(
    asked: argparse.Namespace, environment: Mapping[str, str], shared: Shared, tell: Tell
) -> AsyncIterator[Ground]:
    """The store that was asked for, and sessions for what has to be done on a box."""
    from devboxd.reach import own_store, sessions, settings  # the function of an account needs none of it

    config = settings(environment)
    callers = Callers(Clock(), shared.logins.heard)
    me = new_owner()
    try:
        async with sessions(shared, callers, config, environment, me) as boxes:
            if asked.table is None and config.store.engine is StoreEngine.SQLITE:
                if asked.all_owners:
                    raise BadRequest(
                        "the file of this machine has one owner", hint="name a table with --table"
                    )
                async with own_store(environment) as store:
                    yield Ground(shared, store, [OWN], callers, boxes, me, tell, only=asked.project)
                return
            whose = Account(asked.profile, asked.region)
            if asked.table is None:
                whose = config.account_of(config.store.account)
            caller = callers.caller(whose.profile, whose.region)
            table = DynamoStore(caller, asked.table or config.table)
            if asked.all_owners:
                owners = await table.owners()
            else:
                owners = [lasting((await identity(caller)).user_id, whose.profile)]
            yield Ground(
                shared, table, owners, callers, boxes, me, tell,
                table=Account(whose.profile, caller.region), saves_only=asked.all_owners, only=asked.project,
            )  # fmt: skip
    finally:
        await shared.tasks.stop()
        await callers.close()


def _json(line: Line) -> None:
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()


def _plain(line: Line) -> None:
    if line.kind != "wait":
        what = f"{line.what}: " if line.what and line.kind not in ("step", "end") else ""
        text = f"{line.what} ({line.phase})" if line.kind == "end" else f"{what}{line.text}"
        owner = f"{line.owner}  " if line.owner else ""
        sys.stdout.write(f"{owner}{line.project}  {line.kind:8}{text}\n")
        sys.stdout.flush()


# The function -----------------------------------------------------------------------------------------------


class Context(Protocol):
    """What AWS Lambda tells a function of its own call."""

    def get_remaining_time_in_millis(self) -> int: ...


def handler(event: object, context: Context) -> dict[str, Any]:
    """AWS Lambda: one round over the projects of every owner in this account and region.

    The event only wakes: nothing in it is read. Two calls at once do no harm, and neither does one that is killed.
    Raises where the table can not be read, so that it counts as a failed call.
    """
    logging.getLogger("devboxd").setLevel(logging.WARNING)
    return asyncio.run(_handle(context, os.environ))


async def _handle(context: Context, environment: Mapping[str, str]) -> dict[str, Any]:
    clock = Clock()
    until = clock.boottime() + context.get_remaining_time_in_millis() / 1000 - MARGIN
    shared, callers = Shared.of(clock), Callers(clock)
    caller: Caller = callers.caller()
    store = DynamoStore(caller, environment.get("DEVBOX_TABLE") or PREFIX)
    ends: dict[str, End] = {}
    try:
        owners = await store.owners()
        if owners:
            ground = Ground(
                shared, store, owners, callers, NoBox(), new_owner(), _json,
                table=Account(None, caller.region), saves_only=True,
            )  # fmt: skip
            seconds = max(0.0, until - clock.boottime() + MARGIN / 2)
            ends = await bounded(ground, lambda: until - clock.boottime(), seconds, asyncio.Event())
    finally:
        await shared.tasks.stop()
        await callers.close()
    counted = {end.value: count for end in End if (count := list(ends.values()).count(end))}
    return {"owners": len(owners), "projects": len(ends), "ends": counted}
