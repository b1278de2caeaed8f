"""config: what is set, where it comes from, and the file to change it."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from devboxctl import ask, grammar, show
from devboxctl.commands.service import FileNotWritten
from devboxctl.fast import reply
from devboxctl.fast.reply import UsageError
from devboxctl.options import settings
from devboxd.api import client, routes, starting, wire

FIRST_LINE = "# devbox: devboxctl config show --origin lists every setting and its default\n"


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = grammar.add_group(app, "config", "Show and change settings.", section=grammar.ACCOUNT)
    grammar.add(group, "show", show_config, examples=["devboxctl config show --origin"])
    grammar.add(group, "path", path, examples=["cat $(devboxctl config path)"])
    grammar.add(group, "edit", edit, examples=["devboxctl config edit"])


def show_config(
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
) -> None:
    """Show the settings in force, those of a devbox.toml here among them."""
    found = ask.ask(routes.CONFIG, wire.ConfigRequest(ask.here()))
    if settings.json:
        show.print_json(found)
        return
    if found.error is not None:
        show.say(f"warning: {found.error.message}")
        show.say(
            "what is in force stands below: the last good settings, or where there are none what is built in"
        )
    if origin:
        show.print_table(
            ("setting", "value", "origin"), [(s.name, show.plain(s.value), s.origin) for s in found.settings]
        )
    else:
        show.print_table(("setting", "value"), [(s.name, show.plain(s.value)) for s in found.settings])


def config_path() -> str:
    """Name the user's file; DEVBOX_CONFIG names another one."""
    return os.environ.get("DEVBOX_CONFIG") or f"{client.config_directory()}/config.toml"


def path() -> None:
    """Print the path of config.toml."""
    if settings.json:
        show.print_json({"path": config_path()})
    else:
        show.write(config_path() + "\n")


def edit() -> int:
    """Open config.toml in your editor, and check the result."""
    import shlex
    import subprocess

    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to edit on", f"the file is {config_path()}")
    file = config_path()
    try:
        starting.make_folder(os.path.dirname(file))
        if not os.path.exists(file):
            with open(file, "x", encoding="utf-8") as new:
                new.write(FIRST_LINE)
    except OSError as error:
        raise FileNotWritten(f"cannot write {file}: {error.strerror}") from None
    try:
        status = subprocess.run([*shlex.split(editor), file], check=False).returncode
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot run the editor {editor!r}: {error}", "set EDITOR") from None
    if status != 0:
        return reply.show_failure(
            {"code": "editor-failed", "message": f"{editor} ended with status {status}"}
        )
    found = ask.ask(routes.CONFIG)
    if found.error is not None:
        return reply.show_failure(show.plain(found.error))
    if settings.json:
        show.print_json({"path": file, "accepted": True})
    return 0
