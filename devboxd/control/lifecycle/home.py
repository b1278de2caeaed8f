"""The lifecycle half of a daemon, put together: its book, its fleet and its verbs, over any store and any cloud."""

from __future__ import annotations

import asyncio
import secrets
import string
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from devboxd.boxside.activity import Answer
from devboxd.control.base.needs import AgentOf, Computes, Deadman, RunOnBox, Store
from devboxd.control.base.notices import Notify
from devboxd.control.base.shared import Shared
from devboxd.control.base.steady import steadily
from devboxd.control.lifecycle.agents import Agents
from devboxd.control.lifecycle.bills import Bills
from devboxd.control.lifecycle.book import Book
from devboxd.control.lifecycle.boxwork import BoxWork
from devboxd.control.lifecycle.budgets import Keeper
from devboxd.control.lifecycle.disuse import DisuseLoop, Reached
from devboxd.control.lifecycle.fleet import Fleet
from devboxd.control.lifecycle.idle import Idle
from devboxd.control.lifecycle.idleverbs import IdleVerbs
from devboxd.control.lifecycle.jobs import Jobs
from devboxd.control.lifecycle.lines import Changes
from devboxd.control.lifecycle.money import Money
from devboxd.control.lifecycle.prices import Prices
from devboxd.control.lifecycle.projects import Projects
from devboxd.control.lifecycle.reclaims import Reclaims
from devboxd.model.agent import Tell
from devboxd.model.box import Account
from devboxd.model.config import ProjectSettings
from devboxd.model.idle import IDLE
from devboxd.model.idle_policy import IdlePolicy
from devboxd.model.project import Project
from devboxd.model.states import StoreEngine

OWN: Final = "me"  # whose rows are in a store that is this user's alone
UID_LENGTH: Final = 10
ELSEWHERE_EVERY: Final = 60.0  # seconds between two looks at the store that is not used
NAMED: Final = 5  # projects in one sentence
_LETTERS: Final = string.ascii_lowercase + string.digits


class Lifecycle:
    """The projects of one user, and what they cost.

    ``owner``: whose tag is on what an account makes; ``me``: this machine and user, as events name it. Of the
    ``stores`` one is ``used``; the other one is there to move projects from and to. Nothing is asked of AWS while
    there is no project, unless the store is there. ``usual``: the idle policy of projects that have none of their
    own; ``agent`` says whether the agent of a box is connected; ``notify`` tells the person at this machine, and ``reached`` says whether somebody heard it, too; ``agents`` opens
    a stream of what coding agents of a box say, ``tell`` says which of their changes are told; ``reclaim`` opens one of what a
    spot box says of being taken back.
    """

    def __init__(
        self,
        shared: Shared,
        stores: Mapping[StoreEngine, Store],
        computes: Computes,
        run: RunOnBox,
        *,
        me: str,
        owner: Callable[[Account], Awaitable[str]],
        prices: Prices,
        agent: AgentOf,
        bills: Bills | None = None,
        used: StoreEngine = StoreEngine.SQLITE,
        is_used: Callable[[Project], bool] = lambda project: False,
        usual: Callable[[], IdlePolicy] = IdlePolicy,
        notify: Notify | None = None,
        reached: Reached | None = None,
        schedules: Deadman | None = None,
        agents: Changes | None = None,
        reclaim: Changes | None = None,
        tell: Callable[[], Tell] = lambda: Tell.ALL,
        settings: Callable[[], ProjectSettings] = ProjectSettings,
    ) -> None:
        self._shared = shared
        self.used = used
        books = {engine: Book(store, OWN, me, new_id, shared.time.wall) for engine, store in stores.items()}
        book = books[used]
        boxes = BoxWork(run)
        start = (
            f"{me}/{secrets.token_hex(4)}"  # a daemon that starts anew must not take over its own old turn
        )
        self._fleet = Fleet(
            shared,
            book,
            computes,
            boxes,
            me=start,
            op=new_id,
            is_used=is_used,
            is_leaving=lambda project: self.reclaims.is_leaving(project),
        )
        self.reclaims = Reclaims(shared, self._fleet, notify=notify or _nobody, follow=reclaim)
        self.money = Money(shared, book, prices, bills)
        self.budgets = Keeper(self.money, notify or _nobody, self._is_busy)
        self.projects = Projects(
            shared,
            book,
            self._fleet,
            computes,
            boxes,
            uid=new_uid,
            owner=owner,
            books=books,
            rates=prices.of,
            allow=self.budgets.allow,
            agent=agent,
            settings=settings,
        )
        self.budgets.archive = self.projects.terminate
        self.jobs = Jobs(
            shared, self._fleet, self.projects, run, notify=notify or _nobody, short_id=_short_id
        )
        self._watcher = Idle(
            shared,
            self._fleet,
            self.projects,
            run,
            usual=usual,
            notify=notify or _nobody,
            schedules=schedules,
            seen=self._seen,
            me=me,
        )
        self._disuse = DisuseLoop(
            shared,
            self.projects,
            self._watcher.book,
            self._watcher.policy,
            reached=reached or _unheard,
            disputed=self.budgets.disputed,
        )
        self.agents = Agents(
            shared, self._fleet, self._watcher.book, notify=notify or _nobody, changes=agents, tell=tell
        )
        self.idle = IdleVerbs(shared, self.projects, self._watcher, self._disuse, short_id=_short_id, who=me)

    def _seen(self, project: Project, answer: Answer, first: bool) -> None:
        """A box with jobs is asked for their ends, whoever began them; any box for those of the time before."""
        if any(str(one.get("id", "")).startswith("job-") for one in answer.leases):
            self.jobs.watch(project)
        elif first:
            self.jobs.look_back(project)
        self.agents.looked(project, answer)
        self.reclaims.looked(project, answer)

    def _is_busy(self, project: Project) -> bool:
        """Whether something works on a box, or nobody knows."""
        moment = self._watcher.known(project)
        return moment is None or moment.answer is None or moment.answer.state.get("verdict") != IDLE

    def start(self) -> None:
        """Go on with what an earlier daemon left; ends with the daemon's tasks."""
        self._shared.tasks.spawn("fleet", steadily(self._shared, "fleet", self._fleet.run))
        self._shared.tasks.spawn("idle", steadily(self._shared, "idle", self._watcher.run))
        self._shared.tasks.spawn("lid", steadily(self._shared, "lid", self._watcher.follow_lid))
        self._shared.tasks.spawn("disuse", steadily(self._shared, "disuse", self._disuse.run))
        self._shared.tasks.spawn("budgets", steadily(self._shared, "budgets", self.budgets.run))
        if self.used is not StoreEngine.SQLITE:
            self._shared.tasks.spawn("elsewhere", steadily(self._shared, "elsewhere", self._look_elsewhere))

    def configured(self, engine: StoreEngine) -> None:
        """Another store may be configured: a daemon keeps the one that it began with."""
        if engine is self.used:
            self._shared.news.clear_condition("store-changed")
        else:
            self._shared.news.raise_condition("store-changed", old=self.used.value, new=engine.value)

    async def _look_elsewhere(self) -> None:
        """Say so while projects are left in the file of this machine, where nobody looks after them."""
        while True:
            left = [one.name for one in await self.projects.moves.in_store(self.used.other)]
            if left:
                names = ", ".join(left[:NAMED]) + (
                    f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
                )
                used, other = self.used.value, self.used.other.value
                self._shared.news.raise_condition("projects-elsewhere", names=names, used=used, other=other)
            else:
                self._shared.news.clear_condition("projects-elsewhere")
            await asyncio.sleep(ELSEWHERE_EVERY)


async def _unheard(title: str, text: str) -> bool:
    """There is nobody to tell."""
    return False


async def _nobody(title: str, text: str) -> None:
    """There is nobody to tell."""


def _short_id() -> str:
    """The id of a lease or a job: short enough to be typed."""
    return "".join(secrets.choice(_LETTERS) for _ in range(4))


def new_id() -> str:
    """An id that nobody else gives."""
    return secrets.token_hex(16)


def new_uid() -> str:
    """The identity of a new project: 51 bits, so that two are never alike in one account."""
    return "".join(secrets.choice(_LETTERS) for _ in range(UID_LENGTH))
