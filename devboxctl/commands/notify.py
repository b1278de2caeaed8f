"""notify: how devbox tells you something while no terminal is attached."""

from __future__ import annotations

import getpass
import sys
from typing import Annotated

import typer

from devboxctl import ask, grammar, show
from devboxctl.fast.reply import UsageError
from devboxctl.options import settings
from devboxd.api import routes, wire

Way = Annotated[str, typer.Argument(metavar="slack|ntfy", help="Which of them.")]


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = grammar.add_group(
        app, "notify", "How devbox tells you something: desktop, ntfy, Slack, SNS.", section=grammar.SELF
    )
    grammar.add(group, "try", try_, examples=["devboxctl notify try"])
    grammar.add(group, "set", set_, examples=["devboxctl notify set slack"])
    grammar.add(group, "rm", remove, examples=["devboxctl notify rm slack"])


def try_() -> None:
    """Send a notice on every way, and say what came of each.

    The ways that are set up are in the configuration: notify.ntfy, notify.slack, notify.sns, notify.command.
    """
    found = ask.ask(routes.TRY_NOTICE)
    if settings.json:
        show.print_json(found)
    else:
        rows = [(one.way, "no" if one.problem else "yes", one.problem, one.hint) for one in found.notices]
        show.print_table(("way", "sent", "problem", "what helps"), rows, dispensable=("what helps",))
    if any(one.problem and one.way != "desktop" for one in found.notices):
        raise typer.Exit(1)


def set_(way: Way) -> None:
    """Keep the secret of a way in the keyring.

    Of slack, the address of an incoming webhook; of ntfy, the token of the topic. It is asked for without an echo, or read from standard input: never an argument, for ps shows those.
    """
    ask.ask(routes.KEEP_SECRET, wire.NoticeSecret(way, _secret(way)))
    if settings.json:
        show.print_json(wire.Kept())
    else:
        show.say(f"kept in the keyring; to use it for notices, see notify.{way} in docs/configuration.md")


def remove(way: Way) -> None:
    """Forget what notify set has kept."""
    ask.ask(routes.KEEP_SECRET, wire.NoticeSecret(way))
    if settings.json:
        show.print_json(wire.Kept())
    else:
        show.say("forgotten")


def _secret(way: str) -> str:
    """Raises UsageError: there is none."""
    if sys.stdin is not None and sys.stdin.isatty():
        try:
            value = getpass.getpass("webhook address: " if way == "slack" else "token: ")
        except EOFError:
            value = ""
    else:
        value = sys.stdin.readline() if sys.stdin is not None else ""
    if not value.strip():
        raise UsageError(
            "nothing came to be kept", f"run it on a terminal, or: devboxctl notify set {way} < FILE"
        )
    return value.strip()
