"""generations: the saved states of a project."""

from __future__ import annotations

from typing import Annotated

import typer

from devboxctl import ask, grammar, options, show
from devboxctl.commands.project import Name
from devboxctl.options import settings
from devboxd.api import routes, wire
from devboxd.text import printable

Number = Annotated[int, typer.Argument(metavar="N", help="Number of the generation.")]


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = grammar.add_group(
        app,
        "generations",
        "List, pin, label and delete the saved states of a project.",
        section=grammar.PROJECTS,
    )
    grammar.add(group, "ls", list_, examples=["devboxctl generations ls api"])
    grammar.add(group, "pin", pin, examples=["devboxctl generations pin api 3"])
    grammar.add(group, "unpin", unpin, examples=["devboxctl generations unpin api 3"])
    grammar.add(group, "label", label, examples=["devboxctl generations label api 3 before-upgrade"])
    grammar.add(group, "rm", remove, examples=["devboxctl generations rm api 2"])


def list_(project: Name, wide: options.Wide = False) -> None:
    """List the generations of a project, newest first."""
    _print(ask.ask(routes.LIST_GENERATIONS, wire.ProjectName(project)), wide=wide)


def pin(project: Name, number: Number) -> None:
    """Keep a generation for good."""
    _print(ask.ask(routes.CHANGE_GENERATION, wire.GenerationChange(project, number, pinned=True)))


def unpin(project: Name, number: Number) -> None:
    """Let a generation go when its time comes."""
    _print(ask.ask(routes.CHANGE_GENERATION, wire.GenerationChange(project, number, pinned=False)))


def label(
    project: Name,
    number: Number,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What it is for.")],
) -> None:
    """Say what a generation is for."""
    _print(ask.ask(routes.CHANGE_GENERATION, wire.GenerationChange(project, number, label=text)))


def remove(
    project: Name,
    number: Number,
    force: Annotated[bool, typer.Option("--force", help="Though it is pinned.")] = False,
) -> None:
    """Delete a generation before its time. The newest stays."""
    _print(ask.ask(routes.DROP_GENERATION, wire.GenerationDrop(project, number, force)))


def _print(found: wire.GenerationList, *, wide: bool = False) -> None:
    if settings.json:
        show.print_json(found)
        return
    rows = [
        (
            *(one.number, one.created, one.quality, one.size, one.volumes, one.label),
            *(", ".join(one.pins), one.image),
        )
        for one in found.generations
    ]
    headers = ("generation", "created", "quality", "gib", "volumes", "label", "pins", "image")
    show.print_table(headers, rows, dispensable=("volumes", "image", "gib", "pins"), wide=wide)
    for one in found.generations:
        if one.lacks:
            show.say(f"generation {one.number} is not all: {printable('; '.join(one.lacks))}")
