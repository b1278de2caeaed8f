"""The full command line: typer commands, global options, and every error as one line with an exit status."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from devboxctl import options, show
from devboxctl.commands import api, config, connect, daemon, forward, look, shell, ssh
from devboxctl.fast import reply
from devboxctl.options import settings
from devboxd import __version__
from devboxd.api import client

# typer carries its own copy of click, under a private name: reach its base error through a public class.
CommandError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

app = typer.Typer(
    name="devboxctl",
    help="Reach your dev boxes through AWS Session Manager, and never lose them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

connect.add_to(app)
forward.add_to(app)
ssh.add_to(app)
look.add_to(app)
config.add_to(app)
daemon.add_to(app)
shell.add_to(app)
api.add_to(app)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"devboxctl {__version__}")
        raise typer.Exit


@app.callback()
def root(
    as_json: options.Json = False,
    profile: options.Profile = None,
    region: options.Region = None,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours (also: NO_COLOR).")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Reach your dev boxes through AWS Session Manager, and never lose them."""
    settings.color = not no_color


def run(words: list[str]) -> int:
    """Run one command line and return its exit status. Only bugs raise."""
    fresh = options.Settings()
    settings.json, settings.profile, settings.region = fresh.json, fresh.profile, fresh.region
    try:
        result = app(words, prog_name="devboxctl", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except typer.Exit as done:
        return done.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except CommandError as error:
        if not str(error) and type(error).__name__ == "NoArgsIsHelpError":
            return 2
        command = error.ctx.command_path if getattr(error, "ctx", None) is not None else "devboxctl"
        return _failed(
            {
                "code": "usage",
                "message": error.format_message(),
                "hint": f"{command} --help",
                "exit_status": 2,
            }
        )
    except reply.UsageError as error:
        return _failed({"code": error.code, "message": error.message, "hint": error.hint, "exit_status": 2})
    except client.ClientError as error:
        return _failed(reply.failure_of(error))
    except show.ReaderGone:
        # The reader (head, less) has seen enough. Nothing may be flushed at exit either.
        sys.stdout = None
        return 128 + 13


def _failed(failure: dict[str, object]) -> int:
    """Print a failure: for people, or with ``--json`` for programs; both on standard error."""
    return reply.show_failure_json(failure) if settings.json else reply.show_failure(failure)
