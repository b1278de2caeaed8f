"""The full command line: typer commands, global options, and every error as one line with an exit status."""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any

import typer

from devboxctl import grammar, options, show
from devboxctl.commands import (
    about,
    agents,
    api,
    bridge,
    config,
    connect,
    daemon,
    forward,
    generations,
    iam,
    idle,
    init,
    jobs,
    leftovers,
    look,
    money,
    moves,
    notify,
    ops,
    page,
    panes,
    project,
    sessions,
    ssh,
    store,
)
from devboxctl.fast import reply
from devboxctl.options import settings
from devboxd.api import client

# typer carries its own copy of click, under a private name: reach its base error through a public class.
CommandError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

EXAMPLES = (
    "devboxctl ls",
    "devboxctl attach api",
    "devboxctl exec api uname -a",
    "devboxctl forward api 8080:80",
    "devboxctl doctor api",
)

_NUMBERS = (
    ("int range", "a whole number"),
    ("int", "a whole number"),
    ("float range", "a number"),
    ("float", "a number"),
)
_EXTRA = re.compile(r"Got unexpected extra argument(?:s|\(s\))? \((.*)\)\.?", re.DOTALL)

app = typer.Typer(
    name="devboxctl",
    cls=grammar.Group,
    help="Reach your dev boxes through AWS Session Manager, and never lose them.",
    epilog="\n".join(EXAMPLES),
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for commands in (
    connect,
    panes,
    agents,
    forward,
    ssh,
    project,
    leftovers,
    iam,
    ops,
    generations,
    money,
    idle,
    jobs,
    moves,
    store,
    look,
    bridge,
    page,
    sessions,
    init,
    config,
    notify,
    daemon,
    api,
    about,
):
    commands.add_to(app)


def _version(value: bool) -> None:
    if value:
        about.version()
        raise typer.Exit


@app.callback()
def root(
    profile: options.Profile = None,
    region: options.Region = None,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours (also: NO_COLOR).")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Reach your dev boxes through AWS Session Manager, and never lose them."""
    settings.color = not no_color


@cache
def command() -> Any:
    """All commands as the parser has them: made once, which takes longer than reading a command line."""
    return typer.main.get_command(app)


def run(words: list[str]) -> int:
    """Run one command line and return its exit status. Only bugs raise."""
    settings.reset()
    try:
        result = command()(words, prog_name="devboxctl", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except typer.Exit as done:
        return done.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except CommandError as error:
        return _misunderstood(error, words)
    except reply.UsageError as error:
        return reply.show_failure(reply.usage_failure(error))
    except client.ClientError as error:
        return reply.show_failure(reply.failure_of(error))
    except show.ReaderGone:
        return 128 + 13  # the reader (head, less) has seen enough


def _path(words: list[str]) -> str:
    """The command that words begin with, as far as they name one: where the parser does not say it."""
    path = ["devboxctl"]
    found = command()
    for word in words:
        found = getattr(found, "commands", {}).get(word)
        if found is None:
            break
        path.append(word)
    return " ".join(path)


def _in_our_words(message: str) -> str:
    """What the parser says, without the names of its types."""
    for named, thing in _NUMBERS:
        message = message.replace(f" is not a valid {named}.", f" is not {thing}.")
    if extra := _EXTRA.fullmatch(message):
        words = extra[1]
        return f"unexpected extra argument{'s' if ' ' in words else ''}: {words}"
    return message


def _misunderstood(error: Any, words: list[str]) -> int:
    """Say what is wrong with a command line, and where to look."""
    context = getattr(error, "ctx", None)
    if context is not None and hasattr(context.command, "commands") and "--json" in words:
        settings.json = True  # behind a word that names no command, so nobody has read it
    path = context.command_path if context is not None else _path(words)
    message = _in_our_words(str(error.format_message()))
    usage = reply.UsageError(message[:1].lower() + message[1:].removesuffix("."), f"{path} --help")
    return reply.show_failure(reply.usage_failure(usage))
