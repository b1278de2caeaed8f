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
    grammar.add(group, "show", show_one, examples=["devboxctl generations show api 3"])
    grammar.add(
        group,
        "diff",
        diff,
        examples=["devboxctl generations diff api 2 3", "devboxctl generations diff api -- -1"],
    )
    grammar.add(group, "pin", pin, examples=["devboxctl generations pin api 3"])
    grammar.add(group, "unpin", unpin, examples=["devboxctl generations unpin api 3"])
    grammar.add(group, "label", label, examples=["devboxctl generations label api 3 before-upgrade"])
    grammar.add(group, "rm", remove, examples=["devboxctl generations rm api 2"])


def list_(project: Name, wide: options.Wide = False) -> None:
    """List the generations of a project, newest first."""
    _print(ask.ask(routes.LIST_GENERATIONS, wire.ProjectName(project)), wide=wide)


def show_one(project: Name, number: Number) -> None:
    """Show a generation in full."""
    found = _detail(project, number)
    if settings.json:
        show.print_json(found)
        return
    show.print_fields(list(_fields(found).items()))


def diff(
    project: Name,
    number: Number,
    other: Annotated[
        int | None, typer.Argument(metavar="[N]", help="The other one; the newest where none is named.")
    ] = None,
) -> None:
    """Compare two generations: what they are, not the files in them."""
    newest = 0
    if other is None:
        listed = ask.ask(routes.LIST_GENERATIONS, wire.ProjectName(project)).generations
        newest = max((one.number for one in listed), default=0)
    before, after = _detail(project, number), _detail(project, newest if other is None else other)
    old, new = _fields(before), _fields(after)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if settings.json:
        show.print_json({name: [show.plain(old.get(name)), show.plain(new.get(name))] for name in names})
        return
    if not names:
        show.say(
            f"generations {before.generation.number} and {after.generation.number} of {show.cell(project)} are alike"
        )
        return
    headers = ("", str(before.generation.number), str(after.generation.number))
    show.print_table(headers, [(name, old.get(name), new.get(name)) for name in names])


def _detail(project: str, number: int) -> wire.GenerationDetail:
    return ask.ask(routes.SHOW_GENERATION, wire.GenerationNumber(project, number))


def _fields(found: wire.GenerationDetail) -> dict[str, object]:
    """All there is to say, a field a line."""
    one = found.generation
    fields: dict[str, object] = {
        "generation": one.number,
        "created": one.created,
        "quality": one.quality,
        "label": one.label or None,
        "pins": ", ".join(one.pins) or None,
        "image": one.image,
        "base": one.base or None,
        "run": found.run,
        "parent": found.parent or None,
        "booted once": found.tested,
        "gib": one.size,
    }
    for disk in found.disks:
        speed = [
            f"{disk.iops} IOPS" if disk.iops else "",
            f"{disk.throughput} MiB/s" if disk.throughput else "",
        ]
        words = [f"{disk.size} GiB", disk.type or "", *speed, disk.key or "", disk.snapshot or ""]
        fields[disk.device] = ", ".join(word for word in words if word)
    return {**fields, **{name.replace("_", " "): value for name, value in found.boot.items()}}


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
    if not found.generations and show.is_terminal():
        show.say("nothing is saved yet: stop and terminate save a box, devboxctl snapshot does while it runs")
        return
    rows = [
        (
            *(one.number, show.moment(one.created), one.quality, one.size, one.volumes, one.label),
            *(", ".join(one.pins), one.base, one.image),
        )
        for one in found.generations
    ]
    headers = ("generation", "created", "quality", "gib", "volumes", "label", "pins", "base", "image")
    show.print_table(headers, rows, dispensable=("volumes", "image", "gib", "base", "pins"), wide=wide)
    for one in found.generations:
        if one.lacks:
            show.say(f"generation {one.number} is not all: {printable('; '.join(one.lacks))}")
