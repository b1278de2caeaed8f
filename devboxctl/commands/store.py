"""store: where projects are written down."""

from __future__ import annotations

from typing import Annotated

import typer

from devboxctl import ask, grammar, options, show
from devboxctl.fast import reply
from devboxctl.fast.reply import UsageError
from devboxctl.options import settings
from devboxd.api import client, routes, wire

LOOK = 60.0  # seconds for a store that is at AWS
MOVE = 300.0  # seconds for one project


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = grammar.add_group(
        app, "store", "Where projects are written down: here, or in a shared table.", section=grammar.PROJECTS
    )
    grammar.add(group, "show", show_stores, examples=["devboxctl store show"])
    grammar.add(
        group,
        "migrate",
        migrate,
        examples=["devboxctl store migrate api --to dynamodb", "devboxctl store migrate --all --to sqlite"],
    )


def show_stores(wide: options.Wide = False) -> None:
    """Show both stores, which one is in use, and what is in them."""
    found = ask.ask(routes.LIST_STORES, timeout=LOOK)
    if settings.json:
        show.print_json(found)
        return
    rows = [
        (
            one.engine,
            "yes" if one.used else "",
            one.where,
            _projects(one),
            one.failure and one.failure.message,
        )
        for one in found.stores
    ]
    show.print_table(
        ("store", "used", "where", "projects", "problem"), rows, dispensable=("where",), wide=wide
    )


def _projects(one: wire.Store) -> str:
    return ", ".join(one.projects) if one.failure is None else ""


def migrate(
    projects: Annotated[
        list[str] | None, typer.Argument(metavar="[PROJECT]...", help="Names of projects.")
    ] = None,
    to: Annotated[
        str, typer.Option("--to", metavar="sqlite|dynamodb", help="The store that they are to be in.")
    ] = "",
    every: Annotated[bool, typer.Option("--all", help="Every project of the other store.")] = False,
) -> int:
    """Move projects to the other store.

    Boxes are not touched. What is stopped in the middle goes on when it is asked again. A daemon looks after the
    projects of the store that store.engine names, and after no others.
    """
    if not to:
        raise UsageError("where to? --to is missing", "--to sqlite or --to dynamodb")
    if bool(projects) == every:
        raise UsageError(
            "which projects? name them, or say --all" if not every else "--all means every project"
        )
    stores = ask.ask(routes.LIST_STORES, timeout=LOOK).stores
    names = projects or []
    if every:
        source = next((one for one in stores if one.engine != to), None)
        if source is not None and source.failure is not None:
            return reply.show_failure(show.plain(source.failure))
        names = source.projects if source is not None else []
    moved: list[wire.Project] = []
    status = 0
    for name in names:
        try:
            moved.append(ask.ask(routes.MOVE_PROJECT, wire.MoveRequest(name, to), timeout=MOVE))
        except client.Refused as error:
            if settings.json:
                raise
            status = reply.show_failure(reply.failure_of(error))
            continue
        if not settings.json:
            show.say(f"{moved[-1].name} is in {to}")
    if settings.json:
        show.print_json(wire.ProjectList(moved))
    elif not names:
        show.say("there is nothing to move")
    if moved and next((one.engine for one in stores if one.used), to) != to:
        show.say(
            f'warning: devboxd does not look after them: set engine = "{to}" under [store] in config.toml'
        )
        show.say("hint: devboxctl config edit, then devboxctl daemon restart")
    return status
