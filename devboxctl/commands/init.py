"""init: set up what boxes need."""

from __future__ import annotations

from typing import Annotated

import typer

from devboxctl import ask, grammar, options, show
from devboxctl.fast import reply
from devboxctl.options import settings
from devboxd.api import client, routes, wire


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = grammar.add_group(app, "init", "Set up what boxes need.", section=grammar.ACCOUNT)
    grammar.add(
        group,
        "account",
        account,
        examples=[
            "devboxctl init account --dry-run",
            "devboxctl init account -r eu-central-1",
            "devboxctl init account --set CustomerKey=true --set EncryptSessions=true",
        ],
    )


def account(
    network: Annotated[
        str | None,
        typer.Option("--network", metavar="CIDR", help="Network of the boxes; 10.219.0.0/16 for a new one."),
    ] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the template; may repeat."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")
    ] = False,
    profile: options.Profile = None,
    region: options.Region = None,
) -> int:
    """Set an AWS account up in a region, or bring it up to date.

    Network, instance profile, policies and the rest come from one CloudFormation stack, named devbox. It takes some
    minutes; asked again it goes on where it stands. What a parameter was set to stays until it is set again; iac/README.md
    lists them.
    """
    given = {name: value for name, _, value in map(_parameter, parameters or ())}
    request = wire.SetUpRequest(settings.profile, settings.region, network, dry_run, given)
    try:
        for step in ask.ask_lines(routes.SET_UP_ACCOUNT, request):
            if step.failure is not None:
                return reply.show_failure(show.plain(step.failure))
            if settings.json:
                show.print_json(step, line=True)
            else:
                words = (step.action, step.resource, step.text)
                show.write(" ".join(show.cell(word) for word in words if word) + "\n")
            if step.state == "done":
                return 0
    except KeyboardInterrupt:
        show.say("what was begun goes on at AWS; devboxctl init account takes it up again")
        raise
    raise client.DaemonLost("devboxd ended in the middle; devboxctl init account takes it up again")


def _parameter(text: str) -> tuple[str, str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise reply.UsageError(f"--set {text} is no NAME=VALUE", "for example: --set CustomerKey=true")
    return name, equals, value
