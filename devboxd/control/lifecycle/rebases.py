"""Another base image under a project that exists: asked for, and what it would take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from devboxd.control.base.needs import Computes
from devboxd.control.base.time import Time
from devboxd.model import rebase_plan, wish
from devboxd.model.ledger import Ledger
from devboxd.model.offer import Base, is_image_id
from devboxd.model.project import Phase, Project
from devboxd.model.rebase import check_fit
from devboxd.model.step import Write

Get = Callable[[str], Awaitable[Ledger]]
Make = Callable[[str, Callable[[Ledger], Write | None]], Awaitable[Project]]


class RebasePlan(msgspec.Struct, frozen=True):
    """What a rebase would call at AWS, in order, and the project as it would be launched.

    What has no id yet is in brackets. ``is_running``: a box runs that has to go down for it.
    """

    project: Project
    calls: tuple[tuple[str, dict[str, Any]], ...]
    is_running: bool = False


class Rebases:
    """These verbs. ``get`` reads a project, ``make`` writes a wish down; errors are those of ``Projects``."""

    def __init__(self, computes: Computes, time: Time, get: Get, make: Make) -> None:
        self._computes = computes
        self._time = time
        self._get = get
        self._make = make

    async def rebase(self, name: str, onto: str) -> Project:
        """Put another base image under a project, its homes kept. Asked again it goes on.

        Raises:
            BadRequest: there is no such image, or the project's type can not boot it.
            WrongState: there is nothing to keep, or it is being put onto another image.
        """
        base = await self._wanted(await self._get(name), onto)
        return await self._make(name, lambda known: wish.rebase(known, onto, base))

    async def plan(self, name: str, onto: str) -> RebasePlan:
        """What ``rebase`` would do. Nothing is changed, anywhere. Raises as that."""
        known = await self._get(name)
        step = wish.rebase(known, onto, await self._wanted(known, onto))
        now = known.project
        asked = replace(known, project=step.project) if step is not None else known
        project, calls = rebase_plan.planned(asked, now, self._time.wall())
        compute = self._computes.compute(project.account)
        said = tuple(request for call in calls for request in compute.requests(call))
        is_running = bool(calls) and now.phase is Phase.RUNNING and asked.project.is_to_rebase
        return RebasePlan(project, said, is_running=is_running)

    async def _wanted(self, known: Ledger, onto: str) -> Base | None:
        """The image, looked up and found to fit; None where a rebase onto it goes on."""
        if wish.goes_on(known, onto):
            return None
        project = known.project
        offers = self._computes.offers(project.account)
        before = known.run.boot if known.run is not None else project.spec.boot
        types = tuple(dict.fromkeys(place.type for place in project.spec.places))
        machines = await offers.types(types) if types else ()
        base = await offers.base(onto, rebase_plan.architecture(machines, before))
        check_fit(onto if is_image_id(onto) else f"{onto} ({base.image})", base, machines, before)
        return base
