"""Projects: what the daemon brings up, saves and brings up again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any, Protocol

from msgspec.structs import replace

from devboxd.api import routes, views, wire
from devboxd.api.handlers.context import Context, account
from devboxd.api.handlers.table import answers, tells
from devboxd.control.lifecycle.order import LaunchWish, filled, usual
from devboxd.control.lifecycle.unsaved import Report
from devboxd.errors import BadRequest, DevboxError
from devboxd.model import wish
from devboxd.model.boot import Stage
from devboxd.model.box import Account
from devboxd.model.ledger import Ledger
from devboxd.model.policy import Audience, Place, policy
from devboxd.model.project import Phase, Policy, Project
from devboxd.model.wish import ProjectBroken, ProjectNotFound
from devboxd.text import rfc3339


@answers(routes.LIST_PROJECTS)
async def listed(context: Context, asked: wire.ProjectsRequest) -> wire.ProjectList:
    """All projects. Nothing is asked of AWS."""
    shown = [_view(context, one) for one in await context.projects.all()]
    if shown and not asked.brief:
        priced(shown, views.cost_report(await context.money.report()))
    return wire.ProjectList(shown)


def priced(projects: Iterable[wire.Project], report: wire.CostReport) -> None:
    """Write into projects what they cost."""
    costs = {one.id: one for one in report.costs}
    for one in projects:
        if (found := costs.get(one.id)) is not None:
            one.hour, one.month = found.hour, found.month


@answers(routes.SHOW_PROJECT)
async def show(context: Context, asked: wire.ProjectName) -> wire.Project:
    """One project, as it is written down."""
    return _view(context, (await context.projects.get(asked.project)).project)


@tells(routes.FOLLOW_PROJECT)
async def follow(context: Context, asked: wire.ProjectName) -> AsyncIterator[wire.ProjectStep]:
    """Each change, until the project is as wanted; a box that runs is ready when a session answered."""
    projects, last = context.projects, None
    try:
        async for status in projects.follow(asked.project):
            last = status.project
            # What is left over is no news where something else is waited for.
            is_aside = bool(status.undeleted) and last.phase is not Phase.DELETING
            text, hint = (status.why, None) if is_aside else (status.problem or status.why, status.hint)
            yield wire.ProjectStep(views.project(status), text, hint)
        if last is None:
            raise ProjectNotFound(f"there is no project named {asked.project!r}")
        if last.phase is Phase.BROKEN:
            raise ProjectBroken(f"{last.name} needs you: {last.reason}", hint=wish.way_out(last))
        if last.phase is Phase.RUNNING:
            async for boot in projects.boots.follow(last.name):
                if boot.stage is Stage.DOWN:
                    raise ProjectBroken(f"{last.name} went down before a session to it answered")
                yield wire.ProjectStep(_view(context, last), boot.text, boot.hint)
        known = await projects.find(asked.project)
        yield wire.ProjectStep(_view(context, known.project) if known else None, done=True)
    except ProjectNotFound as error:
        gone = last is not None and last.phase is Phase.DELETING
        yield wire.ProjectStep(done=True) if gone else wire.ProjectStep(failure=views.failure(error))
    except DevboxError as error:
        yield wire.ProjectStep(failure=views.failure(error))


@answers(routes.PLAN_LAUNCH)
async def plan(context: Context, asked: wire.LaunchRequest) -> wire.LaunchPlan:
    """Only look."""
    wish = await launch_wish(context, asked)
    found = await context.projects.plan(asked.project, wish)
    known = await context.projects.find(asked.project)
    price = await quoted(context, known, wish, found.project.account)
    return wire.LaunchPlan(_view(context, found.project), _calls(found.calls), price)


async def quoted(context: Context, known: Ledger | None, wish: LaunchWish, where: Account) -> wire.Quote:
    """What a launch would cost, and why a budget would refuse it."""
    found = context.money.quote(known, wish, where)
    refused = await context.budgets.would_refuse(known.project if known else None, found.type, found.region)
    return views.quote(found, refused)


@answers(routes.LAUNCH)
async def launch(context: Context, asked: wire.LaunchRequest) -> wire.Project:
    """Write down that it is to run; its loop does the rest."""
    return _view(context, await context.projects.launch(asked.project, await launch_wish(context, asked)))


@answers(routes.UP)
async def up(context: Context, asked: wire.ProjectName) -> wire.Project:
    """As it was last."""
    return _view(context, await context.projects.up(asked.project))


@answers(routes.STOP_PROJECT)
async def stop(context: Context, asked: wire.DownRequest) -> wire.Project:
    """Saved, and kept warm."""
    return await _down(context, asked, context.projects.stop)


@answers(routes.TERMINATE)
async def terminate(context: Context, asked: wire.DownRequest) -> wire.Project:
    """Saved, and gone."""
    return await _down(context, asked, context.projects.terminate)


class _Down(Protocol):
    async def __call__(self, name: str, *, require_clean: bool, verify: bool | None) -> Project: ...


async def _down(context: Context, asked: wire.DownRequest, verb: _Down) -> wire.Project:
    """Take it down, with a report of its git work; where that would be an obstacle, the verb asks itself."""
    report = Report() if asked.require_clean else await context.projects.unsaved.report(asked.project)
    found = await verb(asked.project, require_clean=asked.require_clean, verify=asked.verify)
    shown = _view(context, found)
    shown.unsaved, shown.unsaved_problem = views.unsaved(report.work), report.problem
    return shown


@answers(routes.LIST_UNSAVED)
async def unsaved(context: Context, asked: wire.ProjectName) -> wire.UnsavedWork:
    """A box that does not answer is no failure."""
    report = await context.projects.unsaved.report(asked.project)
    return wire.UnsavedWork(views.unsaved(report.work), report.problem)


@answers(routes.REBOOT)
async def reboot(context: Context, asked: wire.ProjectName) -> wire.Project:
    """The same instance."""
    return _view(context, await context.projects.reboot(asked.project))


@answers(routes.RESIZE)
async def resize(context: Context, asked: wire.ResizeRequest) -> wire.Project:
    """Type, disk, or both."""
    if not asked.types and asked.disk is None:
        raise BadRequest("nothing was asked for", hint="name a type, a disk size, or both")
    found = await context.projects.resize(asked.project, types=tuple(asked.types), gib=asked.disk)
    return _view(context, found)


@answers(routes.PLAN_REBASE)
async def plan_rebase(context: Context, asked: wire.RebaseRequest) -> wire.RebasePlan:
    """Only look."""
    found = await context.projects.rebases.plan(asked.project, _onto(asked))
    known = await context.projects.get(asked.project)
    price = await quoted(context, known, LaunchWish(), found.project.account)
    return wire.RebasePlan(_view(context, found.project), _calls(found.calls), found.is_running, price)


@answers(routes.REBASE)
async def put_onto(context: Context, asked: wire.RebaseRequest) -> wire.Project:
    """Write down that it is to be so; its loop does the rest."""
    return _view(context, await context.projects.rebases.rebase(asked.project, _onto(asked)))


def _onto(asked: wire.RebaseRequest) -> str:
    if not asked.onto:
        raise BadRequest("onto which image?", hint="its name or id: devboxctl rebase PROJECT --onto IMAGE")
    return asked.onto


@answers(routes.RENAME)
async def rename(context: Context, asked: wire.OtherNameRequest) -> wire.Project:
    """The identity stays."""
    return _view(context, await context.projects.rename(asked.project, asked.name))


@answers(routes.FORK)
async def fork(context: Context, asked: wire.OtherNameRequest) -> wire.Project:
    """It is there at once, and runs when somebody launches it."""
    return _view(context, await context.projects.fork(asked.project, asked.name, asked.generation))


@answers(routes.ADOPT)
async def adopt(context: Context, asked: wire.AdoptRequest) -> wire.Project:
    """From now on it is saved as any other."""
    where = await _where(context, asked)
    found = await context.projects.adopt(
        asked.instance, asked.project, account=where, policy=_policy(context)
    )
    return _view(context, found)


@answers(routes.DELETE_PROJECT)
async def delete(context: Context, asked: wire.DeleteRequest) -> wire.Project:
    """There is no way back."""
    return _view(context, await context.projects.delete(asked.project, force=asked.force))


@answers(routes.SNAPSHOT)
async def snapshot(context: Context, asked: wire.SnapshotRequest) -> wire.Project:
    """Running or not."""
    return _view(context, await context.projects.snapshot(asked.project, asked.label))


@answers(routes.RESUME)
async def resume(context: Context, asked: wire.ResumeRequest) -> wire.Project:
    """A person has looked at it."""
    return _view(context, await context.projects.resume(asked.project, verify=asked.verify))


@answers(routes.PLAN_ABANDON)
async def plan_abandon(context: Context, asked: wire.ProjectName) -> wire.AbandonPlan:
    """Only look."""
    known, left = await context.projects.to_abandon(asked.project)
    head = known.project.head
    return wire.AbandonPlan(
        _view(context, known.project),
        views.generation(wish.generation(known, head), head),
        [views.leftover(one, asked.project) for one in left],
    )


@answers(routes.ABANDON)
async def abandon(context: Context, asked: wire.AbandonRequest) -> wire.Project:
    """The newest generation is what there is."""
    return _view(context, await context.projects.abandon(asked.project, discard=asked.discard))


@answers(routes.LIST_GENERATIONS)
async def generations(context: Context, asked: wire.ProjectName) -> wire.GenerationList:
    """Those that can be launched."""
    known = await context.projects.get(asked.project)
    found = sorted((one for one in known.generations if one.is_ok), key=lambda one: -one.number)
    return wire.GenerationList([views.generation(one, known.project.head) for one in found])


@answers(routes.CHANGE_GENERATION)
async def change_generation(context: Context, asked: wire.GenerationChange) -> wire.GenerationList:
    """Label and pin."""
    await context.projects.describe(asked.project, asked.generation, label=asked.label, pinned=asked.pinned)
    return await generations(context, wire.ProjectName(asked.project))


@answers(routes.DROP_GENERATION)
async def drop_generation(context: Context, asked: wire.GenerationDrop) -> wire.GenerationList:
    """Before its time."""
    await context.projects.drop(asked.project, asked.generation, force=asked.force)
    return await generations(context, wire.ProjectName(asked.project))


@answers(routes.LIST_LEFTOVERS)
async def leftovers(context: Context, asked: wire.ProjectName) -> wire.LeftoverList:
    """What it costs, and when it goes."""
    found = await context.projects.leftovers(asked.project)
    return wire.LeftoverList([views.leftover(one, asked.project) for one in found])


@answers(routes.LIST_UNKNOWN)
async def unknown(context: Context, asked: wire.Account) -> wire.LeftoverList:
    """Nothing is changed: rebuild does that."""
    found = await context.projects.moves.unknown(await _where(context, asked))
    return wire.LeftoverList([views.leftover(one, name) for name, left in found for one in left])


@answers(routes.REBUILD)
async def rebuild(context: Context, asked: wire.Account) -> wire.ProjectList:
    """After a lost disk: EC2's tags say what there was."""
    made = await context.projects.moves.rebuild(await _where(context, asked))
    return wire.ProjectList([_view(context, one) for one in made])


@tells(routes.SET_UP_ACCOUNT)
async def set_up(context: Context, asked: wire.SetUpRequest) -> AsyncIterator[wire.SetUpStep]:
    """CloudFormation goes on where nobody listens any more; asking again takes up where it stands."""
    try:
        whose = context.daemon.settings.for_aws().account_of(account(asked))
        async for one in context.set_up(whose, asked.network, asked.parameters, asked.dry_run):
            yield wire.SetUpStep(one.state, one.text, one.resource, one.action)
    except DevboxError as error:
        yield wire.SetUpStep("failed", error.message, failure=views.failure(error))


@answers(routes.SHOW_POLICY)
async def show_policy(context: Context, asked: wire.PolicyRequest) -> dict[str, Any]:
    """Of this account and region, unless asked for all."""
    if asked.audience not in set(Audience):
        raise BadRequest(f"there is no policy for {asked.audience!r}", hint=f"one of: {', '.join(Audience)}")
    prefix = context.daemon.config.projects.prefix
    place = Place(prefix=prefix)
    if not asked.anywhere:
        who = await context.daemon.identity(account(asked))
        place = Place(who.partition, who.region or "*", who.number, prefix)
    return policy(Audience(asked.audience), place)


# --------------------------------------------------------------------------------------------------------


def _calls(planned: Iterable[tuple[str, dict[str, Any]]]) -> list[wire.ApiCall]:
    """Each operation as AWS writes it, ``RunInstances`` for ``run_instances``."""
    return [
        wire.ApiCall("".join(part.capitalize() for part in operation.split("_")), parameters)
        for operation, parameters in planned
    ]


def _view(context: Context, project: Project) -> wire.Project:
    found = views.project(context.projects.status(project))
    at = context.idle.ahead(project.uid).at
    found.deletes = rfc3339(at) if at is not None else None
    return found


async def launch_wish(context: Context, asked: wire.LaunchRequest) -> LaunchWish:
    """What is asked; for a project that is new, with what the configuration says of the rest."""
    is_new = await context.projects.find(asked.project) is None
    own = LaunchWish(
        types=tuple(asked.types),
        gib=asked.disk,
        base=asked.base,
        generation=asked.generation,
        zone=asked.zone,
        subnets=tuple(asked.subnets),
        groups=tuple(asked.security_groups),
        kms=asked.key,
        profile=asked.instance_profile,
        user_data=asked.user_data,
        tags=dict(asked.tags) if asked.tags is not None else None,
        spot=asked.spot,
        until_up=asked.until_up,
    )
    if not is_new:
        return own
    return replace(
        filled(own, usual(context.daemon.config.projects)),
        account=await _where(context, asked),
        policy=_policy(context),
    )


async def _where(context: Context, asked: wire.Account) -> Account:
    """The account and region of a new project: it stays there, whatever the environment says later."""
    found = context.daemon.settings.for_aws().account_of(account(asked))
    return Account(found.profile, found.region or (await context.daemon.identity(found)).region or None)


def _policy(context: Context) -> Policy:
    projects = context.daemon.config.projects
    policy = Policy(verify=projects.verify)
    return policy if projects.warm_for is None else replace(policy, warm_for=projects.warm_for)
