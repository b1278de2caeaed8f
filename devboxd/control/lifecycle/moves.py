"""Projects that come and go as a whole: exported, restored, made anew from tags, taken over, moved to another store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

import msgspec

from devboxd.control.base.needs import Computes
from devboxd.control.base.shared import Shared
from devboxd.control.lifecycle.book import Book
from devboxd.control.lifecycle.fleet import Fleet
from devboxd.control.lifecycle.order import LaunchWish, ordered
from devboxd.errors import BadRequest, DevboxError
from devboxd.model import wish
from devboxd.model.box import Account
from devboxd.model.ledger import Ledger
from devboxd.model.leftover import Leftover, unknown
from devboxd.model.omsf import Legacy, legacy, taken_over
from devboxd.model.price import Rates, built_in
from devboxd.model.project import Generation, Policy, Project, Run, Want
from devboxd.model.rebuild import name_of, rebuilt, renumbered
from devboxd.model.states import StoreEngine
from devboxd.model.wish import ProjectNotFound

EXPORT_FORMAT: Final = 1


class Known(Protocol):
    """What is needed of ``Projects``."""

    async def get(self, name: str) -> Ledger: ...
    async def owner_in(self, account: Account) -> str: ...
    async def adopt(
        self, instance: str, name: str, *, account: Account | None = None, policy: Policy | None = None
    ) -> Project: ...


class Moves:
    """These verbs. Errors as those of ``Projects``."""

    def __init__(
        self,
        shared: Shared,
        book: Book,
        fleet: Fleet,
        computes: Computes,
        projects: Known,
        *,
        uid: Callable[[], str],
        books: Mapping[StoreEngine, Book] | None = None,
        rates: Callable[[str], Rates] = built_in,
    ) -> None:
        """``books``: of both stores; None: there is only the one in use. ``rates``: the prices of a region."""
        self._shared = shared
        self._book = book
        self._fleet = fleet
        self._computes = computes
        self._projects = projects
        self._uid = uid
        self._books = books or {}
        self._rates = rates

    async def export(self, name: str) -> dict[str, Any]:
        """Everything that is written down of a project, but its events: for ``restore``, or for reading."""
        known = await self._projects.get(name)
        return {
            "format": EXPORT_FORMAT,
            "project": msgspec.to_builtins(known.project),
            "run": msgspec.to_builtins(known.run),
            "generations": msgspec.to_builtins(known.generations),
        }

    async def restore(self, exported: dict[str, Any]) -> Project:
        """Write down a project that was exported.

        Raises:
            BadRequest: this is no export, or one of a newer devbox.
            AlreadyExists: the project, or another one of its name, is there.
        """
        if exported.get("format") != EXPORT_FORMAT:
            raise BadRequest("this is no export of a project, or one of a newer devbox")
        try:
            known = Ledger(
                msgspec.convert(exported["project"], Project),
                msgspec.convert(exported["run"], Run | None),
                msgspec.convert(exported["generations"], tuple[Generation, ...]),
            )
        except (KeyError, msgspec.ValidationError) as error:
            raise BadRequest(f"this is no export of a project: {error}") from error
        known = renumbered(known)
        owner = await self._projects.owner_in(known.project.account)
        project = msgspec.structs.replace(known.project, owner=owner)
        await self._book.restore(Ledger(project, known.run, known.generations), "restored from an export")
        self._fleet.wake(project.uid)
        return project

    async def rebuild(self, account: Account) -> list[Project]:
        """Make rows anew for what carries our tags at AWS and has none. Nothing that has one is touched."""
        rows = await self._book.projects()
        known, names = {project.uid for project in rows}, {project.name.lower() for project in rows}
        owner, made = await self._projects.owner_in(account), []
        for uid, ec2 in (await self._computes.compute(account).found(owner)).items():
            at = self._shared.time.wall()
            row = None if uid in known else rebuilt(uid, ec2, owner, account=account, at=at)
            if row is None:
                continue
            name = row.project.name if row.project.name.lower() not in names else f"project-{uid}"
            project = msgspec.structs.replace(row.project, name=name)
            await self._book.restore(Ledger(project, row.run, row.generations), "made anew from tags")
            names.add(name.lower())
            self._fleet.wake(uid)
            made.append(project)
        return made

    async def unknown(self, account: Account) -> list[tuple[str, list[Leftover]]]:
        """What carries our tags in an account and region, and is written down in no store: by the name in its tags."""
        found = await self._computes.compute(account).found(await self._projects.owner_in(account))
        here = {project.uid for project in await self._book.projects()}  # EC2 first, then the rows
        for book in [*self._books.values()]:
            if book is not self._book:
                with suppress(DevboxError):  # the store that is not in use need not be there
                    here |= {project.uid for project in await book.projects()}
        listed = [
            (name_of(uid, ec2), unknown(ec2, self._rates(account.region or "")))
            for uid, ec2 in sorted(found.items())
            if uid not in here
        ]
        return [(name, left) for name, left in listed if left]

    async def take_over(self, table: str, account: Account, asked: LaunchWish) -> dict[str, str]:
        """Take over the projects of an omsf-eco-infra/devbox table. Nothing of it is changed there.

        Returns: for each project why it was not taken over; empty where it was.
        """
        offers, results = self._computes.offers(account), {}
        for item in await offers.table(table):
            if (one := legacy(item)) is None:
                continue
            results[one.name] = one.why_not
            if one.why_not or await self._book.find(one.name) is not None:
                results[one.name] = one.why_not or "there is a project of that name"
                continue
            try:
                if one.is_running and one.instance is not None:
                    await self._projects.adopt(one.instance, one.name, account=account, policy=asked.policy)
                else:
                    await self._take_over(one, account, asked)
            except DevboxError as error:
                results[one.name] = error.message
        return results

    async def _take_over(self, one: Legacy, account: Account, asked: LaunchWish) -> None:
        offers, at = self._computes.offers(account), self._shared.time.wall()
        types = (one.type,) if one.type else asked.types
        image = msgspec.structs.replace(asked, types=types, base=one.image, gib=1)
        spec = await ordered(None, image, offers)
        base = await offers.base(one.image or "", one.architecture)
        made = wish.new(
            self._uid(),
            one.name,
            await self._projects.owner_in(account),
            account=account,
            spec=spec,
            policy=asked.policy or Policy(),
            at=at,
        )
        row = msgspec.structs.replace(made, want=Want.COLD)
        await self._book.restore(taken_over(row, base, spec, at), f"taken over with {one.image}")
        self._fleet.wake(made.uid)

    async def move(self, name: str, to: StoreEngine) -> Project:
        """Move a project to another store, from which whoever uses that goes on with it. Killed anywhere, the same
        call goes on; one that is there already stays.

        Raises:
            AlreadyExists: another project has its name there.
        """
        source, target = self._books[to.other], self._books[to]
        uid = await source.find(name) or await self._half_moved(source, name)
        if uid is None:
            uid = await target.find(name)
        else:
            await source.move(uid, target, to.value)
        known = await target.load(uid) if uid is not None else None
        if known is None:
            raise ProjectNotFound(
                f"there is no project named {name!r} in {to.other.value}, nor in {to.value}"
            )
        self._fleet.wake(known.project.uid)
        return known.project

    async def in_store(self, engine: StoreEngine) -> list[Project]:
        """What is written down in one store, by name."""
        return sorted(await self._books[engine].projects(), key=lambda project: project.name)

    async def _half_moved(self, source: Book, name: str) -> str | None:
        """One whose name is gone from where it was, and whose row is not."""
        left = [one for one in await source.projects() if one.moved and wish.is_same(one.name, name)]
        return left[0].uid if left else None
