"""Another base image under a project that exists: asked for, and what it would take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from devboxd.control.base.needs import Computes
from devboxd.control.base.time import Time
from devboxd.model import rebase, tags, wish
from devboxd.model.launch import begin_launch
from devboxd.model.ledger import Ledger
from devboxd.model.offer import ARM, Base, architecture_of, is_image_id
from devboxd.model.project import Generation, Phase, Project, Quality, Run, image_name
from devboxd.model.rebase import check_fit
from devboxd.model.seen import Observed, Seen
from devboxd.model.step import (
    Attach,
    DropVolume,
    Ec2Call,
    Launch,
    MakeImage,
    MakeVolume,
    Release,
    Stop,
    Tag,
    TakeOff,
    Write,
)

NEW_VOLUME: Final = "(the copy of the old root)"
NEW_BOX: Final = "(the new box)"
SAVED: Final = "(what is saved first)"

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
        project = step.project if step is not None else known.project
        return self._planned(replace(known, project=project), known.project)

    async def _wanted(self, known: Ledger, onto: str) -> Base | None:
        """The image, looked up and found to fit; None where a rebase onto it goes on."""
        if wish.goes_on(known, onto):
            return None
        project = known.project
        offers = self._computes.offers(project.account)
        before = known.run.boot if known.run is not None else project.spec.boot
        types = tuple(dict.fromkeys(place.type for place in project.spec.places))
        machines = await offers.types(types) if types else ()
        common = architecture_of(machines, None) if machines else before.architecture or ARM
        wanted = (
            before.architecture
            if machines and all(before.architecture in one.architectures for one in machines)
            else common
        )
        base = await offers.base(onto, wanted or common)
        check_fit(onto if is_image_id(onto) else f"{onto} ({base.image})", base, machines, before)
        return base

    def _planned(self, known: Ledger, now: Project) -> RebasePlan:
        """``known``: with the wish in it; ``now``: as it was before."""
        row, run, generations = known.project, known.run, known.generations
        is_running = now.phase is Phase.RUNNING and row.is_to_rebase
        calls: list[Ec2Call] = []
        if row.is_to_rebase and run is not None and now.phase not in (Phase.READY, Phase.ABSENT):
            saved, calls = self._saved(row, run, now)
            if saved is not None:
                row, generations = replace(row, head=saved.number), (*generations, saved)
        if row.is_to_rebase or now.phase in (Phase.READY, Phase.ABSENT):
            at = self._time.wall()
            seen = Seen(replace(row, phase=Phase.READY), run, generations, Observed(), at)
            if row.is_to_rebase:
                begun = rebase.begun(seen)
                generations = (*generations, *begun.generations[-1:])
                seen = replace(seen, project=begun.project)
            launched = begin_launch(seen)
            if not isinstance(launched, Write) or launched.run is None:
                return RebasePlan(row, ())
            row, run = launched.project, launched.run
            calls.append(Launch(row.token, run.place(0), run, tags.of_launch(row, run, row.token)))
        if run is not None:
            calls += self._copied(row, run, generations)
        compute = self._computes.compute(row.account)
        said = tuple(request for call in calls for request in compute.requests(call))
        return RebasePlan(row, said, is_running=is_running)

    def _saved(self, row: Project, run: Run, now: Project) -> tuple[Generation | None, list[Ec2Call]]:
        """The calls that save a box and let it go, and the generation that it becomes; None: it is one already."""
        box, number = row.instance or "", row.saves + 1
        if now.phase is Phase.WARM:
            return None, [Release(box)]
        image = MakeImage(box, image_name(row, number), tags.of_save(row, number))
        disks = tuple(replace(disk, snapshot=SAVED) for disk in run.disks)
        at = self._time.wall()
        saved = Generation(row.head + 1, SAVED, row.run, number, disks, run.boot, Quality.CLEAN, at)
        stop: list[Ec2Call] = [Stop(box)] if now.phase is Phase.RUNNING else []
        return saved, [*stop, image, Release(box)]

    def _copied(self, row: Project, run: Run, generations: Sequence[Generation]) -> list[Ec2Call]:
        """The calls around the copying of homes."""
        wanted = row.rebase.source if row.rebase is not None else None
        source = next((one for one in reversed(generations) if one.number == wanted), None)
        disk = rebase.root_of(source) if source is not None else None
        if disk is None:
            return []
        token, zone = rebase.token(row), run.place(row.attempt).zone or ""
        device = rebase.free_device([one.device for one in run.disks]) or ""
        return [
            MakeVolume(token, zone, rebase.copy_of(disk), tags.of_old_root(row, token)),
            Attach(NEW_VOLUME, row.instance or NEW_BOX, device),
            TakeOff(NEW_VOLUME, row.instance or NEW_BOX),
            Tag((NEW_VOLUME,), tags.of_garbage(self._time.wall()), "left over"),
            DropVolume(NEW_VOLUME),
        ]
