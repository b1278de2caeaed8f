"""Projects that come and go as a whole, and one saved state in full."""

from __future__ import annotations

from typing import Any

import msgspec

from devboxd.api import routes, views, wire
from devboxd.api.handlers.context import Context, account
from devboxd.api.handlers.table import answers
from devboxd.control.lifecycle.order import LaunchWish
from devboxd.errors import BadRequest
from devboxd.model import wish


@answers(routes.EXPORT)
async def export(context: Context, asked: wire.ProjectName) -> dict[str, Any]:
    """For another machine, or for reading."""
    return await context.projects.moves.export(asked.project)


@answers(routes.IMPORT)
async def restore(context: Context, asked: wire.ImportRequest) -> wire.Project:
    """Its loop begins at once."""
    return views.project(context.projects.status(await context.projects.moves.restore(asked.exported)))


@answers(routes.TAKE_OVER)
async def take_over(context: Context, asked: wire.TakeOverRequest) -> wire.TakenOver:
    """One after the other; what can not be says why."""
    if not asked.table:
        raise BadRequest(
            "which table? it is called PREFIX-main", hint="as in: devboxctl import --omsf-table devbox-main"
        )
    usual, where = (
        context.daemon.config.projects,
        context.daemon.settings.for_aws().account_of(account(asked)),
    )
    types = tuple(asked.types) or ((usual.type,) if usual.type else ())
    like = LaunchWish(types=types, profile=asked.instance_profile or usual.instance_profile)
    found = await context.projects.moves.take_over(asked.table, where, like)
    return wire.TakenOver([wire.Legacy(name, problem) for name, problem in sorted(found.items())])


@answers(routes.CANCEL)
async def cancel(context: Context, asked: wire.ProjectName) -> wire.Project:
    """As far as it has not been done."""
    return views.project(context.projects.status(await context.projects.cancel(asked.project)))


@answers(routes.SHOW_GENERATION)
async def generation(context: Context, asked: wire.GenerationNumber) -> wire.GenerationDetail:
    """As it is written down; EC2 is not asked."""
    known = await context.projects.get(asked.project)
    one = wish.generation(known, asked.generation)
    boot = {name: str(value) for name, value in msgspec.to_builtins(one.boot).items() if value is not None}
    disks = [
        wire.SavedDisk(
            disk.device, disk.size_gib, disk.type, disk.iops, disk.throughput, disk.kms, disk.snapshot
        )
        for disk in one.disks
    ]
    shown = views.generation(one, known.project.head)
    return wire.GenerationDetail(shown, one.run, one.parent, one.tested, disks, boot)
