"""completion and version."""

from __future__ import annotations

from typing import Annotated

import typer

from devboxctl import options, show
from devboxctl.fast.reply import UsageError
from devboxctl.options import settings
from devboxd import __version__

SHELLS = ("bash", "zsh", "fish")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("completion")(completion)
    app.command("version")(version)


def completion(
    shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="Your shell.")],
) -> None:
    """Print the completion script of a shell: eval "$(devboxctl completion bash)"."""
    if shell not in SHELLS:
        raise UsageError(f"there is no completion for {shell!r}", "bash, zsh or fish")
    show.write(script(shell))


def script(shell: str) -> str:
    """Read a completion script that ships with this package."""
    from importlib import resources

    return resources.files("devboxctl").joinpath("completion", f"devboxctl.{shell}").read_text("utf-8")


def version(as_json: options.Json = False) -> None:
    """Print the version."""
    if settings.json:
        show.print_json({"devboxctl": __version__})
    else:
        show.write(f"devboxctl {__version__}" + "\n")
