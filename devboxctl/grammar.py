"""How commands are declared, parsed and explained. What they do stands in ``devboxctl.commands``.

The typer commands are the one place where a command line is described. From them come the help, the table of
completion and the options of the fast path (``fast/table.py``), and ``docs/commands.md``: ``make grammar``
writes those, and a test says when they are stale.

An argument tells by its metavar what completes it: ``BOX``, ``FORWARD``, or words divided by bars.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from devboxctl import explain, show
from devboxctl.fast import words
from devboxctl.options import settings

CONNECT, PROJECTS, LOOK, ACCOUNT, SELF = explain.SECTIONS

REST = "devboxctl.rest"  # key of a context: the words of another program


def add(
    app: typer.Typer,
    name: str,
    function: Callable[..., Any],
    *,
    examples: Sequence[str] = (),
    section: str = "",
    cls: type[Command] | None = None,
    hidden: bool = False,
) -> None:
    """Add a command. The first paragraph of its docstring is what lists show; it fits one line."""
    app.command(name, cls=cls or Command, epilog="\n".join(examples), rich_help_panel=section, hidden=hidden)(
        function
    )


def add_group(
    app: typer.Typer,
    name: str,
    help: str,
    *,
    examples: Sequence[str] = (),
    section: str = "",
    cls: type[Group] | None = None,
) -> typer.Typer:
    """Add a group of commands, and return it to be filled. Alone on a line it explains itself."""
    group = typer.Typer(rich_markup_mode=None)
    app.add_typer(
        group, name=name, cls=cls or Group, help=help, epilog="\n".join(examples), rich_help_panel=section
    )
    return group


class _Common:
    """What commands and groups have in common: ``--json``, if only for errors, and help in our own layout."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        option = TyperOption(
            param_decls=["--json"],
            is_flag=True,
            default=False,
            expose_value=False,
            help="Print JSON, errors too.",
        )
        self.params: list[Any] = [*getattr(self, "params", ()), option]

    def valued(self) -> frozenset[str]:
        """Name the options that take a value."""
        return frozenset(o for p in self.params if not getattr(p, "is_flag", True) for o in p.opts)

    def get_help(self, ctx: Any) -> str:
        """Explain this command."""
        return explain.command(self, ctx)

    def get_help_option(self, ctx: Any) -> Any:
        """Print the help as all other data: whoever closed the pipe or filled the disk is told so."""
        option = super().get_help_option(ctx)  # type: ignore[misc]  # of the class that this is mixed into
        if option is not None:
            option.callback = _print_help
            option.help = "Explain this command."
        return option


def _print_help(ctx: Any, _: Any, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        print_help(ctx)
        ctx.exit()


def print_help(ctx: Any) -> None:
    """Print what there is to know about the command of a context."""
    text = ctx.get_help()
    if settings.json:
        show.print_json({"help": text})
    else:
        show.write(text + "\n")


class Command(_Common, TyperCommand):
    """A command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Look for ``--json`` first: what is wrong with the rest of the line is to be said as JSON, too."""
        settings.json = settings.json or "--json" in args
        return super().parse_args(ctx, args)


class Group(_Common, TyperGroup):
    """A group of commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See ``Command.parse_args``; only what stands before the name of a command is ours."""
        ours, rest = words.cut(args, self.valued(), 0)
        settings.json = settings.json or "--json" in ours
        parsed = super().parse_args(ctx, args)
        if not rest:
            print_help(ctx)  # alone on its line it explains itself
            raise typer.Exit
        return parsed


class RunCommand(Command):
    """``[OPTIONS] BOX [OPTIONS] [--] COMMAND…``: from its first word on, the line belongs to the command."""

    arguments = 1  # that come before the command

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Cut the line; ``rest_of`` gives back the second half."""
        ours, ctx.meta[REST] = words.cut(args, self.valued(), self.arguments)
        return super().parse_args(ctx, ours)


def rest_of(ctx: Any) -> list[str]:
    """Say which words belong to the command that is run."""
    found = ctx.meta.get(REST)
    return found if isinstance(found, list) else []


class UsualGroup(Group):
    """A group whose name alone is its usual command: ``forward api 80`` besides ``forward ls``."""

    usual = "add"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take a line that names none of our commands for the usual one."""
        ours = list(takewhile(lambda word: word == "--json", args))
        rest = args[len(ours) :]
        if rest and rest[0] not in (*self.commands, *ctx.help_option_names):
            rest = [self.usual, *rest]
        return super().parse_args(ctx, [*ours, *rest])
