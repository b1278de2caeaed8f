"""Money: what projects cost, what a launch would cost, and what AWS asks for. Nobody waits for AWS here."""

from __future__ import annotations

from decimal import Decimal

from devboxd.api import routes, views, wire
from devboxd.api.handlers.context import Context, account
from devboxd.api.handlers.project import launch_wish, quoted
from devboxd.api.handlers.table import answers
from devboxd.errors import BadRequest
from devboxd.model.cost import Otherwise
from devboxd.model.offer import ARM, INTEL
from devboxd.model.price import Wanted, matching

BY = ("project", "owner", "day")
DOWN = ("", "stopped", "archived")
MONTH_MOST = 31 * 24  # hours


@answers(routes.COST)
async def cost(context: Context, asked: wire.CostRequest) -> wire.CostReport:
    """Out of what is written down, and prices at hand."""
    if asked.by not in BY:
        raise BadRequest(f"costs can not be shown by {asked.by!r}", hint=f"one of: {', '.join(BY)}")
    by = "owner" if asked.by == "owner" else "project"
    found = await context.money.report(asked.project or None, by=by, days=asked.by == "day")
    return views.cost_report(found)


@answers(routes.WHAT_IF)
async def what_if(context: Context, asked: wire.WhatIfRequest) -> wire.WhatIf:
    """Another type, other hours, another state."""
    if asked.down not in DOWN:
        raise BadRequest(f"{asked.down!r} is no state to be in", hint="stopped or archived")
    if not (asked.type or asked.hours or asked.down):
        raise BadRequest("nothing was asked for", hint="name a type, hours a month, stopped or archived")
    hours = Decimal(asked.hours) if asked.hours is not None else None
    if hours is not None and hours > MONTH_MOST:
        raise BadRequest(f"no month has {asked.hours} hours", hint=f"{MONTH_MOST} at most, as 176h or 8x22")
    found = await context.money.what_if(asked.project, Otherwise(asked.type, hours, asked.down))
    now, then = found.now.total, found.then.total
    unknown = list(dict.fromkeys([*found.now.unknown, *found.then.unknown]))
    return wire.WhatIf(views.dollars(now), views.dollars(then), views.dollars(now - then), unknown)


@answers(routes.QUOTE)
async def quote(context: Context, asked: wire.LaunchRequest) -> wire.Quote:
    """Before it is launched."""
    wish = await launch_wish(context, asked)
    known = await context.projects.find(asked.project)
    where = known.project.account if known is not None else wish.account or account(asked)
    return await quoted(context, known, wish, where)


@answers(routes.LIST_TYPES)
async def types(context: Context, asked: wire.TypesRequest) -> wire.TypeList:
    """With a price there; what has none is not listed."""
    if asked.arch not in (None, ARM, INTEL):
        raise BadRequest(f"there is no architecture {asked.arch!r}", hint=f"{ARM} or {INTEL}")
    whose = context.daemon.settings.for_aws().account_of(account(asked))
    region = whose.region or (await context.daemon.identity(whose)).region or ""
    prices = context.money.prices
    if asked.refresh:
        await prices.refresh(whose, region)
    rates = prices.of(region)
    wanted = Wanted(
        asked.arch,
        asked.vcpu,
        float(asked.mem) if asked.mem is not None else None,
        asked.gpu,
        Decimal(asked.max) if asked.max is not None else None,
        asked.name,
    )
    found = [views.machine_type(one) for one in matching(rates, wanted)]
    return wire.TypeList(found, views.price_note(rates, prices.problem(region)))


@answers(routes.LIST_BUDGETS)
async def budgets(context: Context, asked: wire.Nothing) -> wire.BudgetList:
    """With what was spent this month."""
    return wire.BudgetList([views.budget(one) for one in await context.budgets.all()])


@answers(routes.SET_BUDGET)
async def set_budget(context: Context, asked: wire.BudgetRequest) -> wire.BudgetList:
    """In the place of one for the same."""
    limit = Decimal(asked.limit)
    if limit <= 0:
        raise BadRequest("a budget has a limit above 0", hint="devboxctl budget rm removes one")
    await context.budgets.put(
        asked.project or None, limit, hard=asked.hard, month=asked.month, grace=asked.grace
    )
    return await budgets(context, wire.Nothing())


@answers(routes.DROP_BUDGET)
async def drop_budget(context: Context, asked: wire.BudgetName) -> wire.BudgetList:
    """What is left of them."""
    await context.budgets.drop(asked.project or None, asked.month)
    return await budgets(context, wire.Nothing())
