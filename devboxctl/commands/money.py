"""cost, types, budget: what boxes cost, would cost, and may cost."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from devboxctl import ask, grammar, options, show
from devboxctl.fast.reply import UsageError
from devboxctl.options import settings
from devboxd.api import client, routes, wire
from devboxd.text import parse_span

LOOK = 60.0  # seconds for what may have to ask AWS
_HOURS = re.compile(r"(?P<a>\d{1,4}(?:\.\d{1,2})?)(?:x(?P<b>\d{1,3}(?:\.\d{1,2})?))?h?\Z")
_TYPE = re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+\Z")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    section = grammar.PROJECTS
    grammar.add(
        app,
        "cost",
        cost,
        section=section,
        examples=[
            "devboxctl cost",
            "devboxctl cost api",
            "devboxctl cost --by day",
            "devboxctl cost api --what-if m7g.large --what-if 8x22",
            "devboxctl cost api --what-if archived",
        ],
    )
    grammar.add(
        app,
        "types",
        types,
        section=section,
        examples=[
            "devboxctl types --arch arm64 --mem 16",
            "devboxctl types --gpu --max 1.50",
            "devboxctl types m7g.",
        ],
    )
    group = grammar.add_group(app, "budget", "How much projects may cost in a month.", section=section)
    grammar.add(group, "show", show_budgets, examples=["devboxctl budget show"])
    grammar.add(
        group,
        "set",
        set_budget,
        examples=[
            "devboxctl budget set --limit 100",
            "devboxctl budget set api --limit 40 --hard --grace 1h",
        ],
    )
    grammar.add(group, "rm", remove_budget, examples=["devboxctl budget rm", "devboxctl budget rm api"])


def cost(
    project: Annotated[
        str | None, typer.Argument(metavar="[PROJECT]", help="Only this one, in full.")
    ] = None,
    by: Annotated[
        str, typer.Option("--by", metavar="WHAT", help="A line for each project, owner or day.")
    ] = "project",
    what_if: Annotated[
        list[str] | None,
        typer.Option(
            "--what-if",
            metavar="CHANGE",
            help="A type, hours a month (176h, 8x22), stopped or archived; may repeat.",
        ),
    ] = None,
    wide: options.Wide = False,
) -> None:
    """Say what projects cost: now, today, this month, and at its end.

    From what ran, not from the bill, which comes a day later. Days and months are those of AWS: in UTC.
    """
    if what_if:
        if project is None:
            raise UsageError("of which project? PROJECT is missing", "devboxctl cost PROJECT --what-if …")
        _print_what_if(ask.ask(routes.WHAT_IF, _change(project, what_if)))
        return
    found = ask.ask(routes.COST, wire.CostRequest(project or "", by))
    if settings.json:
        show.print_json(found)
        return
    if by == "day":
        _print_days(found, wide)
    elif project is not None:
        for one in found.costs:
            _print_one(one, found.month)
    elif found.costs or not show.is_terminal():
        _print_costs(found, by, wide)
    else:
        show.say("nothing has cost anything; devboxctl launch makes a project")
    for bill in found.billed:
        _tell_billed(bill, len(found.billed) > 1)
    _tell_unknown(found.total.unknown)
    for note in found.prices:
        _tell_prices(note)


def _tell_billed(one: wire.Billed, by_owner: bool) -> None:
    """What Cost Explorer says, beside our own figure."""
    whose = f" ({one.owner})" if by_owner else ""
    if one.until:
        most = f" to {one.most}" if one.most != one.counted else ""
        show.say(
            f"AWS billed {one.usd} USD until {one.until}{whose}; we count {one.counted}{most} for the same days"
        )
    if one.silent:
        show.say(
            "hint: activate devbox:owner and devbox:project as cost allocation tags, in the account that pays; it"
            " takes a day, and counts from then on"
        )
    if one.problem:
        show.say(f"warning: what AWS has billed{whose} is not known: {one.problem}")


def _change(project: str, words: list[str]) -> wire.WhatIfRequest:
    request = wire.WhatIfRequest(project)
    for word in words:
        if word in ("stopped", "archived"):
            request.down = word
        elif _TYPE.match(word):
            request.type = word
        elif match := _HOURS.match(word):
            hours, days = match["a"], match["b"]
            request.hours = hours if days is None else f"{float(hours) * float(days):.2f}"
        else:
            raise UsageError(
                f"{word!r} is nothing that could be different",
                "a type (m7g.large), hours a month (176h, 8x22), stopped or archived",
            )
    if request.down and (request.type or request.hours):
        raise UsageError(f"a box that is {request.down} has neither a type nor hours")
    return request


def _print_what_if(found: wire.WhatIf) -> None:
    if settings.json:
        show.print_json(found)
        return
    saves = found.saves.removeprefix("-")
    show.print_fields(
        [
            ("thirty days as now", f"{found.now} USD"),
            ("thirty days then", f"{found.then} USD"),
            ("that is more" if found.saves.startswith("-") else "that saves", f"{saves} USD"),
        ]
    )
    _tell_unknown(found.unknown)


def _print_costs(found: wire.CostReport, by: str, wide: bool) -> None:
    headers = [
        *("owner" if by == "owner" else "project", "phase", "type", "usd/hour", "today", "month", "forecast"),
        *("stopped/month", "archived/month"),
    ]
    costs = [*found.costs, found.total] if len(found.costs) > 1 and show.is_terminal() else found.costs
    rows = [
        (
            *(one.name, one.phase or ("deleted" if by == "project" and one is not found.total else None)),
            *(one.type, one.hour, one.today, one.month, one.forecast, one.stopped, one.archived),
        )
        for one in costs
    ]
    dispensable = ("type", "archived/month", "stopped/month", "phase", "today")
    show.print_table(headers, rows, dispensable=dispensable, wide=wide)


def _print_one(one: wire.Cost, month: str) -> None:
    so_far = one.month if one.most == one.month else f"{one.month} to {one.most}"
    days = f"{one.forecast_days:g} day" + "s" * (one.forecast_days != 1)
    show.print_fields(
        [
            ("project", one.name),
            ("phase", one.phase or "deleted"),
            ("type", one.type),
            ("region", one.region),
            ("base", one.base or None),
            ("now", f"{one.hour} USD an hour"),
            ("today", f"{one.today} USD"),
            (month, f"{so_far} USD so far"),
            *((f"  {kind}", f"{amount} USD") for kind, amount in one.parts.items() if amount != "0.00"),
            (
                "forecast",
                f"{one.forecast} USD"
                + (f", if it goes on as in the last {days}" if one.forecast_days else ""),
            ),
            ("always on", f"{one.running} USD for thirty days"),
            ("stopped", f"{one.stopped} USD for thirty days"),
            ("archived", f"{one.archived} USD for thirty days"),
        ]
    )
    if one.most != one.month and show.is_terminal():
        show.say(
            "between these sums: EBS does not say how much it stores of snapshots, nor EC2 when a box switched itself off"
        )


def _print_days(found: wire.CostReport, wide: bool) -> None:
    headers = ("day", "compute", "address", "volumes", "snapshots", "total")
    rows = [(one.day, one.compute, one.address, one.volume, one.snapshot, one.total) for one in found.days]
    show.print_table(headers, rows, dispensable=("address", "snapshots", "volumes"), wide=wide)


def _tell_unknown(unknown: list[str]) -> None:
    for what in unknown:
        show.say(f"warning: the price of {what} is not known, so it is not in these sums")


def _tell_prices(note: wire.PriceNote) -> None:
    if not show.is_terminal():
        return
    show.say(
        f"prices of {note.region}: {note.source}, {note.date}"
        + (f" ({note.problem})" if note.problem else "")
    )
    _tell_market(note)


def _tell_market(note: wire.PriceNote) -> None:
    """Whether spot boxes are counted at the prices of their market."""
    why = f" ({note.spot_problem})" if note.spot_problem else ""
    if note.spot is not None:
        show.say(
            f"spot boxes in {note.region}: the prices of the market, as of {show.minute(note.spot)}{why}"
        )
    elif note.spot_problem:
        show.say(
            f"spot boxes in {note.region}: the prices of the market are not known{why}; at most as on demand"
        )


def quoted(request: wire.LaunchRequest) -> wire.Quote | None:
    """What a launch will cost; None where that can not be said. What is wrong with it, the launch itself says."""
    try:
        return ask.ask(routes.QUOTE, request, timeout=LOOK)
    except client.Refused:
        return None


def tell_price(found: wire.Quote | None, *, is_asked: bool = False) -> None:
    """Say what a launch costs, on standard error.

    ``is_asked``: it is made, so what a budget refuses is said there.
    """
    if settings.json or found is None:
        return
    at_most = "at most " if found.at_most else ""
    if found.unknown:
        _tell_unknown(found.unknown)
    else:
        note = found.price
        of = f"; prices {'built in, ' if note.built_in else ''}of {note.date}" if note is not None else ""
        show.say(
            f"{found.type} in {found.region}: {at_most}{found.hour} USD an hour while it runs,"
            f" {found.stopped} USD for thirty days stopped, both with its disks{of}"
        )
        if note is not None:
            _tell_market(note)
    if found.refused and not is_asked:
        show.say(f"warning: {found.refused}")


def types(
    name: Annotated[
        str | None, typer.Argument(metavar="[TYPE]", help="Only those whose name begins so.")
    ] = None,
    arch: Annotated[str | None, typer.Option("--arch", metavar="ARCH", help="arm64 or x86_64.")] = None,
    vcpu: Annotated[
        int | None, typer.Option("--vcpu", metavar="N", min=1, help="At least so many vCPUs.")
    ] = None,
    mem: Annotated[
        int | None, typer.Option("--mem", metavar="GIB", min=1, help="At least so much memory.")
    ] = None,
    gpu: Annotated[bool | None, typer.Option("--gpu/--no-gpu", help="With a GPU, or without.")] = None,
    most: Annotated[str | None, typer.Option("--max", metavar="USD", help="At most so much an hour.")] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Ask AWS for today's prices first, which is free.")
    ] = False,
    wide: options.Wide = False,
    profile: options.Profile = None,
    region: options.Region = None,
) -> None:
    """List instance types with their prices, the cheapest first.

    On demand, Linux, an hour and thirty days without a break; disks and public address come on top.
    """
    request = wire.TypesRequest(
        profile=settings.profile,
        region=settings.region,
        name=name or "",
        arch=arch,
        vcpu=vcpu,
        mem=mem,
        gpu=gpu,
        max=most,
        refresh=refresh,
    )
    found = ask.ask(routes.LIST_TYPES, request, timeout=LOOK)
    if settings.json:
        show.print_json(found)
        return
    if found.types or not show.is_terminal():
        headers = ("type", "vcpu", "gib", "arch", "gpu", "usd/hour", "usd/30 days")
        rows = [(one.name, one.vcpu, one.mem, one.arch, one.gpu, one.hour, one.month) for one in found.types]
        show.print_table(headers, rows, dispensable=("arch", "gpu", "usd/30 days"), wide=wide)
    else:
        show.say(
            f"no type like that has a known price in {found.price.region}; --refresh asks AWS for all of them"
        )
    _tell_prices(found.price)


Whose = Annotated[str | None, typer.Argument(metavar="[PROJECT]", help="Of this project; without, of all.")]
Month = Annotated[str | None, typer.Option("--month", metavar="YYYY-MM", help="Of that month only.")]


def show_budgets(wide: options.Wide = False) -> None:
    """Show the budgets, and what was spent under them this month."""
    _print_budgets(ask.ask(routes.LIST_BUDGETS), wide=wide)


def set_budget(
    limit: Annotated[str, typer.Option("--limit", metavar="USD", help="Dollars a month.")],
    project: Whose = None,
    hard: Annotated[
        bool,
        typer.Option("--hard/--soft", help="Refuse launches and archive, or only tell at 50, 80 and 100 %."),
    ] = False,
    month: Month = None,
    grace: Annotated[
        str | None, typer.Option("--grace", metavar="SPAN", help="Before boxes are archived: 30m, 2h.")
    ] = None,
) -> None:
    """Set a budget for a project, or for all of them together.

    At 50, 80 and 100 % you are told. A hard one refuses what it can not pay an hour of (exit status 9), and when it is
    used up saves and archives boxes, after a grace; once more two hours where something works on them.
    """
    request = wire.BudgetRequest(
        limit, project or "", hard, month, _seconds(grace) if grace is not None else None
    )
    _print_budgets(ask.ask(routes.SET_BUDGET, request))


def remove_budget(project: Whose = None, month: Month = None) -> None:
    """Remove a budget."""
    _print_budgets(ask.ask(routes.DROP_BUDGET, wire.BudgetName(project or "", month)))


def _seconds(text: str) -> float:
    seconds = parse_span(text, units=("m", "h", "d"), parts=1, digits=4, exact=True)
    if seconds is None:
        raise UsageError(f"{text!r} is no time span", "write it as 30m, 2h or 1d")
    return seconds


def _print_budgets(found: wire.BudgetList, *, wide: bool = False) -> None:
    if settings.json:
        show.print_json(found)
        return
    if not found.budgets and show.is_terminal():
        show.say("there is no budget")
        return
    headers = ("project", "limit", "kind", "month", "spent", "used", "archives")
    rows = [
        (
            *(one.project or "(all)", one.limit, "hard" if one.hard else "soft"),
            one.month or "every",
            *(one.spent, f"{one.percent} %", one.archives or ("" if one.in_force else "not in force")),
        )
        for one in found.budgets
    ]
    show.print_table(headers, rows, dispensable=("month", "kind"), wide=wide)
