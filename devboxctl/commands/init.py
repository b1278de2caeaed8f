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
    grammar.add(
        group,
        "user",
        user,
        examples=[
            "devboxctl init user --dry-run",
            "devboxctl init user --create-profile",
            "devboxctl init user --store dynamodb -r eu-central-1",
        ],
    )


def user(
    create_profile: Annotated[
        bool,
        typer.Option("--create-profile", help="Make an instance profile for your boxes where there is none."),
    ] = False,
    instance_profile: Annotated[
        str | None,
        typer.Option(
            "--instance-profile", metavar="NAME", help="The one to use, or to make under that name."
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store", metavar="sqlite|dynamodb", help="Where your projects are to be written down."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only look: make nothing, and write nothing.")
    ] = False,
    profile: options.Profile = None,
    region: options.Region = None,
) -> int:
    """Check what your first launch needs, and write your configuration.

    Login, network, instance profile, base image, and whether EC2 would launch: each is tried, and what is missing is
    named with what mends it. Asked again it changes nothing that is there. The exit status is 1 when something is missing.
    """
    request = wire.UserRequest(
        settings.profile, settings.region, create_profile, instance_profile, store, dry_run
    )
    status = 0
    for step in ask.ask_lines(routes.SET_UP_USER, request):
        if step.failure is not None:
            return reply.show_failure(show.plain(step.failure))
        if settings.json:
            show.print_json(step, line=True)
        elif step.check is not None:
            show.check(step.check)
        if step.check is not None and step.check.result == "failed":
            status = 1
        if step.done:
            if not settings.json and status == 0:
                show.say("all is there: devboxctl launch PROJECT" if not dry_run else "nothing was changed")
            return status
    raise client.DaemonLost("devboxd ended in the middle; devboxctl init user looks again")


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
