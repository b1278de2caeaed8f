"""All projects of one owner: a loop for each, woken by whoever changes something, and looks that are shared.

A thousand projects cost one describe for every two hundred of them, not one each: those that want to look within
the same moment look together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from devboxd.control.base.bells import Bell
from devboxd.control.base.needs import BoxCommands, Computes
from devboxd.control.base.shared import Shared
from devboxd.control.base.steady import steadily
from devboxd.control.lifecycle.book import FEW, Book
from devboxd.control.lifecycle.reconcile import LONGEST, Reconciler, Told
from devboxd.control.lifecycle.turns import Turn
from devboxd.errors import Conflict, DevboxError, LoginNeeded
from devboxd.model.box import Account
from devboxd.model.change import BRISK, CALM
from devboxd.model.ledger import Item, Ledger
from devboxd.model.pipeline import next_step
from devboxd.model.project import Phase, Project
from devboxd.model.seen import Hint, Observed, Seen
from devboxd.model.step import Ec2Call, Step
from devboxd.model.wish import way_out

LIST_EVERY: Final = 120.0  # seconds: projects that another machine has made are seen by then
TOGETHER: Final = 0.05  # seconds that a look waits for others to join it
WITH_SESSIONS: Final = 30.0  # seconds between looks at a box that somebody is connected to


class Status(msgspec.Struct, frozen=True):
    """How far a project is. ``why``: what is waited for; ``problem``: what AWS said no to, last, and ``hint``: what
    mends that. ``undeleted``: by id, what AWS does not delete, and why.
    """

    project: Project
    why: str = ""
    problem: str = ""
    hint: str | None = None
    undeleted: dict[str, str] = {}


Look = tuple[Observed, Item | None]


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who waits for a look, where its row is, and how it is answered."""

    hint: Hint
    book: Book
    answer: asyncio.Future[Look]


@dataclass(slots=True)
class Lookout:
    """Looks at EC2 and at the rows for many at once, of one owner or of several."""

    shared: Shared
    computes: Computes
    account_of: Callable[[Project], Account] = lambda project: project.account
    _waiting: dict[Account, dict[str, _Asked]] = field(default_factory=dict)

    async def act(self, project: Project, call: Ec2Call) -> None:
        """One call; a crowd of projects queues up for the account's request limits."""
        account = self.account_of(project)
        async with self.shared.gates.of(("act", account)).enter():
            await self.computes.compute(account).act(call)

    async def look(self, project: Project, hint: Hint, book: Book) -> Look:
        """One project's share of a look that begins after this was called. ``book``: where its row is."""
        account = self.account_of(project)
        waiting = self._waiting.setdefault(account, {})
        if project.uid in waiting:
            return await asyncio.shield(waiting[project.uid].answer)
        answer: asyncio.Future[Look] = asyncio.get_running_loop().create_future()
        if not waiting:
            self.shared.tasks.spawn("look", self._together(account))
        waiting[project.uid] = _Asked(hint, book, answer)
        return await answer

    async def _together(self, account: Account) -> None:
        await asyncio.sleep(TOGETHER)
        async with self.shared.gates.of(("look", account)).enter():
            asked = self._waiting.pop(account, {})
            try:
                wanted = {uid: one.hint for uid, one in asked.items()}
                found = await self.computes.compute(account).look(wanted)
                rows = await _rows(asked)  # after EC2, so that no row is the older of the two
            except BaseException as error:
                for one in asked.values():
                    if not one.answer.done():
                        one.answer.set_exception(error if isinstance(error, DevboxError) else _ended(error))
                        one.answer.exception()  # nobody may be left to ask for it
                if not isinstance(error, DevboxError):
                    raise
                return
        for uid, one in asked.items():
            if not one.answer.done():
                one.answer.set_result((found[uid], rows.get(uid)))


@dataclass(frozen=True, slots=True)
class View:
    """``reconcile.Clouds``: what the projects of one book see of a lookout."""

    lookout: Lookout
    book: Book

    async def act(self, project: Project, call: Ec2Call) -> None:
        """See ``Lookout``."""
        await self.lookout.act(project, call)

    async def look(self, project: Project, hint: Hint) -> Look:
        """See ``Lookout``."""
        return await self.lookout.look(project, hint, self.book)


async def _rows(asked: Mapping[str, _Asked]) -> dict[str, Item]:
    """The rows of all that asked: one query for each book."""
    books: dict[int, tuple[Book, list[str]]] = {}
    for uid, one in asked.items():
        books.setdefault(id(one.book), (one.book, []))[1].append(uid)
    found: dict[str, Item] = {}
    for book, uids in books.values():
        found |= await book.rows(uids)
    return found


def _ended(error: BaseException) -> BaseException:
    """A bug, or the end of the daemon: whoever waits must not wait for ever."""
    return (
        asyncio.CancelledError() if isinstance(error, asyncio.CancelledError) else RuntimeError(repr(error))
    )


class Fleet:
    """The loops. ``me`` is this machine and this start of it; ``op`` gives ids that are never given twice.

    ``is_used`` says whether somebody is connected to a project's box, ``is_leaving`` whether EC2 takes it back; ``pace`` makes all waits shorter (below 1),
    for a simulated EC2 that is faster than the real one. ``lookout`` may be shared with other fleets; ``audience``
    hears what the loops tell; ``minds`` says which projects are looked after at all.
    """

    def __init__(
        self,
        shared: Shared,
        book: Book,
        computes: Computes,
        boxes: BoxCommands,
        *,
        me: str,
        op: Callable[[], str],
        is_used: Callable[[Project], bool] = lambda project: False,
        is_leaving: Callable[[Project], bool] = lambda project: False,
        pace: float = 1.0,
        lookout: Lookout | None = None,
        audience: Told | None = None,
        minds: Callable[[Project], bool] = lambda project: True,
        decide: Callable[[Seen], Step] = next_step,
    ) -> None:
        self.book = book
        self._shared = shared
        self._clouds = View(lookout or Lookout(shared, computes), book)
        self._audience = audience
        self.minds = minds
        self._decide = decide
        self._boxes = boxes
        self._me, self._op = me, op
        self._is_used, self._is_leaving = is_used, is_leaving
        self._pace = pace
        # Daemons of several machines do not look at the same moments.
        self._began = shared.time.monotonic() - CALM * shared.time.dice()
        self._bells: dict[str, Bell] = {}
        self._read: dict[str, Ledger] = {}  # with all others, for loops that begin
        self._statuses: dict[str, Status] = {}
        self._told = Bell()

    # For whoever asks

    def statuses(self) -> list[Status]:
        """How far all projects are, as last seen, by name."""
        return sorted(self._statuses.values(), key=lambda one: one.project.name)

    def status(self, uid: str) -> Status | None:
        """How far one project is, as last seen."""
        return self._statuses.get(uid)

    async def changed(self, timeout: float | None) -> bool:
        """Wait until anything of any project changes; False when ``timeout`` seconds went by first."""
        return await self._told.wait(timeout)

    def wake(self, uid: str) -> None:
        """Look at a project now: its row has changed."""
        if uid not in self._bells:
            self._begin(uid)
        else:
            self._bells[uid].ring()

    # Life

    async def run(self) -> None:
        """Keep a loop going for every project there is."""
        while True:
            bell = self._shared.bells.network
            try:
                await self._meet(await self.book.projects())
            except DevboxError as error:
                self._shared.news.raise_condition("store-failed", problem=error.message, hint=error.hint)
                if isinstance(error, LoginNeeded):
                    bell = self._shared.logins.changed  # the condition login-needed says what mends it
            else:
                self._shared.news.clear_condition("store-failed")
            await bell.wait(LIST_EVERY)

    async def _meet(self, projects: Iterable[Project]) -> None:
        new = [one for one in projects if one.uid not in self._bells and self.minds(one)]
        if len(new) > FEW:  # else each loop reads its own
            self._read = {known.project.uid: known for known in await self.book.ledgers()}
        for project in new:
            if project.uid not in self._bells:
                self._statuses.setdefault(project.uid, Status(project))
                self._begin(project.uid)

    def _begin(self, uid: str) -> None:
        self._bells[uid] = Bell()
        self._shared.tasks.spawn(f"project {uid}", self._kept(uid))

    async def _kept(self, uid: str) -> None:
        """A loop, and again after an unexpected error; its bell is there for as long."""
        try:
            await steadily(self._shared, f"project {uid}", lambda: self._loop(uid))
        finally:
            del self._bells[uid]
        self._forget(uid)

    def reconciler(self, uid: str, known: Ledger | None = None) -> Reconciler:
        """A loop's passes, without the loop. ``known``: the project as it was read with all others."""
        time, store = self._shared.time, self.book.store
        turn = Turn(store, self.book.owner, uid, self._me, self._op, time.monotonic)
        return Reconciler(
            uid, self.book, self._clouds, self._boxes, turn, time, self, self._decide, known=known
        )

    async def _loop(self, uid: str) -> None:
        one, failures = self.reconciler(uid, self._read.pop(uid, None)), 0
        try:
            while True:
                bell = self._bells[uid]
                rings = bell.rings
                delay, failures = await self._pass(one, failures)
                if delay is None:
                    break
                if bell.rings == rings:  # nobody has rung while we worked
                    await bell.wait(self._paced(one, delay))
        finally:
            await one.turn.hand_over()

    async def _pass(self, one: Reconciler, failures: int) -> tuple[float | None, int]:
        """One pass; seconds until the next one, and how many in a row have failed by now."""
        try:
            return await one.once(), 0
        except LoginNeeded as error:
            if one.known is None:
                return LIST_EVERY, failures  # the store's own login: whose that is, the store knows
            self._statuses[one.uid] = Status(one.known.project, problem=error.message, hint=error.hint)
            self._told.ring()
            await self._shared.logins.wait(one.known.project.account, error, LONGEST)
            return 0.0, 0
        except Conflict:
            return 1.0, failures
        except DevboxError as error:
            self._problem(one, error)
            return min(LONGEST, 2.0 * 2.0 ** min(failures, 8)), failures + 1

    def _paced(self, one: Reconciler, delay: float) -> float:
        """Soon where the box ends or somebody is connected; all that is calm at the same moments, so that one look does for all."""
        project = one.known.project if one.known is not None else None
        if delay > BRISK and project is not None and self._is_leaving(project):
            delay = BRISK
        elif delay > WITH_SESSIONS and project is not None and self._is_used(project):
            delay = WITH_SESSIONS
        if delay >= CALM:
            since = self._shared.time.monotonic() - self._began
            return self._pace * (CALM - since % CALM)
        return delay * self._pace * (0.9 + 0.2 * self._shared.time.dice())

    def _forget(self, uid: str) -> None:
        status = self._statuses.pop(uid, None)
        if status is not None:
            self._withdraw(status.project)
        self._told.ring()

    # A reconcile.Told

    def happened(self, project: Project, what: str, text: str) -> None:
        """A step was written down."""
        if self._audience is not None:
            self._audience.happened(project, what, text)
        self._statuses[project.uid] = Status(project)
        self._shared.news.tell(f"project.{what}", text, box=project.name)
        self._withdraw(project)
        if project.phase is Phase.BROKEN:
            self._shared.news.raise_condition(
                "project-broken",
                project.name,
                name=project.name,
                why=project.reason,
                hint=way_out(project),
            )
        self._told.ring()

    def waits(self, project: Project, why: str, undeleted: Mapping[str, DevboxError]) -> None:
        """Nothing to do but wait."""
        if self._audience is not None:
            self._audience.waits(project, why, undeleted)
        now = Status(project, why)
        if undeleted:
            name = min(undeleted)
            problem = f"{name} can not be deleted: {undeleted[name].message}"
            said = {each: error.message for each, error in undeleted.items()}
            now = Status(project, why, problem, undeleted[name].hint, said)
        if now == self._statuses.get(project.uid):
            return
        self._statuses[project.uid] = now
        if now.problem:
            self._refusal(now)
        else:
            self._shared.news.clear_condition("project-refused", project.name)
        self._told.ring()

    def _refusal(self, status: Status) -> None:
        name = status.project.name
        self._shared.news.raise_condition(
            "project-refused", name, name=name, problem=status.problem, hint=status.hint
        )

    def called(self, project: Project, call: Ec2Call) -> None:
        """AWS accepted a call."""
        if self._audience is not None:
            self._audience.called(project, call)

    def refused(self, project: Project, error: DevboxError) -> None:
        """AWS refused a call, or did not answer."""
        if self._audience is not None:
            self._audience.refused(project, error)
        self._statuses[project.uid] = Status(project, problem=error.message, hint=error.hint)
        self._refusal(self._statuses[project.uid])
        self._told.ring()

    def _problem(self, one: Reconciler, error: DevboxError) -> None:
        if one.known is not None:
            self.refused(one.known.project, error)

    def _withdraw(self, project: Project) -> None:
        self._shared.news.clear_condition("project-refused", project.name)
        if project.phase is not Phase.BROKEN:
            self._shared.news.clear_condition("project-broken", project.name)
