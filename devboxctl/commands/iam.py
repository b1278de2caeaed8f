"""iam: what AWS has to allow."""

from __future__ import annotations

from typing import Annotated

import typer

from devboxctl import ask, grammar, options, show
from devboxctl.commands.project import LOOK
from devboxctl.options import settings
from devboxd.api import routes, wire


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    group = grammar.add_group(app, "iam", "What AWS has to allow.", section=grammar.ACCOUNT)
    grammar.add(
        group,
        "policy",
        policy,
        examples=["devboxctl iam policy --for user", "devboxctl iam policy --for box --anywhere"],
    )


def policy(
    audience: Annotated[
        str,
        typer.Option(
            "--for", metavar="AUDIENCE", help="connect, user, admin, box, bill, deadman or reconciler."
        ),
    ] = "user",
    anywhere: Annotated[
        bool, typer.Option("--anywhere", help="For every account and region, and without asking AWS.")
    ] = False,
    profile: options.Profile = None,
    region: options.Region = None,
) -> None:
    """Print the IAM policy that somebody needs, and no more than that.

    A person needs the one for connect and the one for user.
    """
    request = wire.PolicyRequest(settings.profile, settings.region, audience, anywhere)
    show.print_json(ask.ask(routes.SHOW_POLICY, request, timeout=LOOK), bare=True)
