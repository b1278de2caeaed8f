"""help, completion, version: devboxctl about itself."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from devboxctl import grammar, show
from devboxctl.fast.reply import UsageError
from devboxctl.options import settings
from devboxd import __version__

SHELLS = ("bash", "zsh", "fish")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    grammar.add(
        app,
        "completion",
        completion,
        section=grammar.SELF,
        examples=['eval "$(devboxctl completion bash)"', "devboxctl completion fish | source"],
    )
    grammar.add(app, "version", version, section=grammar.SELF, examples=["devboxctl version --json"])
    grammar.add(
        app,
        "help",
        help_,
        section=grammar.SELF,
        examples=["devboxctl help exec", "devboxctl help daemon logs"],
    )


def completion(
    shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="Your shell.")],
) -> None:
    """Print the completion script of a shell."""
    if shell not in SHELLS:
        raise UsageError(f"there is no completion for {shell!r}", "bash, zsh or fish")
    if settings.json:
        show.print_json({"shell": shell, "script": script(shell)})
    else:
        show.write(script(shell))


def script(shell: str) -> str:
    """Read a completion script that ships with this package."""
    from importlib import resources

    return resources.files("devboxctl").joinpath("completion", f"devboxctl.{shell}").read_text("utf-8")


def version() -> None:
    """Print the version."""
    if settings.json:
        show.print_json({"devboxctl": __version__})
    else:
        show.write(f"devboxctl {__version__}" + "\n")


def help_(
    context: typer.Context,
    topic: Annotated[
        list[str] | None, typer.Argument(metavar="[TOPIC]...", help="A command, and one of its own.")
    ] = None,
) -> None:
    """Explain a command, with examples."""
    at: Any = context.parent
    for word in topic or []:
        group = at.command
        if not hasattr(group, "commands"):
            raise UsageError(f"{at.command_path} has no commands of its own", f"devboxctl help {group.name}")
        _, one, _ = group.resolve_command(at, [word])  # or it says what was perhaps meant
        at = type(at)(one, info_name=word, parent=at)
    grammar.print_help(at)
