"""gc and rebuild: what AWS has, and no box uses or no project here knows."""

from __future__ import annotations

from typing import Annotated

import typer

from devboxctl import ask, grammar, options, show
from devboxctl.commands.project import LOOK, listed, print_projects
from devboxctl.fast import reply
from devboxctl.options import settings
from devboxd.api import client, routes, wire


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for name, function, examples in (
        ("rebuild", rebuild, ["devboxctl rebuild", "devboxctl rebuild -p work -r eu-central-1"]),
        ("gc", leftovers, ["devboxctl gc", "devboxctl gc --dry-run", "devboxctl gc api"]),
    ):
        grammar.add(app, name, function, section=grammar.PROJECTS, examples=examples)


def leftovers(
    project: Annotated[str | None, typer.Argument(metavar="[PROJECT]", help="Only of this one.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="As without: this only looks in any case.")
    ] = False,
    wide: options.Wide = False,
    profile: options.Profile = None,
    region: options.Region = None,
) -> None:
    """List what nothing uses any more, and when it goes.

    With what it costs a month. The daemon deletes it by itself once it may; this only looks. Without PROJECT also what
    carries your tags in this account and region, and is of no project that is known: devboxctl rebuild takes that back.
    """
    names = [project] if project is not None else [one.name for one in listed()]
    found: list[wire.Leftover] = []
    for name in names:
        try:
            found += ask.ask(routes.LIST_LEFTOVERS, wire.ProjectName(name), timeout=LOOK).leftovers
        except client.Refused as error:
            if project is not None:
                raise
            _warn(f"what {name} has left over could not be looked at", error)
    if project is None:
        try:
            asked = wire.Account(settings.profile, settings.region)
            found += ask.ask(routes.LIST_UNKNOWN, asked, timeout=LOOK).leftovers
        except client.Refused as error:
            _warn("what is of no project could not be looked for", error)
    if settings.json:
        show.print_json(wire.LeftoverList(found))
    elif found or not show.is_terminal():
        rows = [(one.project, one.kind, one.id, one.size, one.usd_month, one.goes, one.why) for one in found]
        headers = ("project", "kind", "id", "gib", "usd a month", "goes", "why")
        show.print_table(headers, rows, dispensable=("goes", "gib"), wide=wide)
    else:
        show.say("nothing is left over")


def _warn(what: str, error: client.Refused) -> None:
    """Say what is not in a list, and why. A script is to have all of it, or the error: raises that."""
    if settings.json:
        raise error
    show.say(f"warning: {what}: {reply.failure_of(error).get('message')}")


def rebuild(profile: options.Profile = None, region: options.Region = None) -> None:
    """Find projects by their tags at AWS, after a lost disk.

    Those that this machine knows are not touched.
    """
    found = ask.ask(routes.REBUILD, wire.Account(settings.profile, settings.region), timeout=LOOK)
    print_projects(found.projects, "nothing was found that is not known already", wide=False)
