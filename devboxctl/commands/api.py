"""api: the daemon's API as it is, for what no command does and for programs."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from devboxctl import ask, grammar, show
from devboxctl.fast.reply import UsageError
from devboxd.api import client, routes

METHODS = ("GET", "POST", "DELETE")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    grammar.add(
        app,
        "api",
        api,
        section=grammar.SELF,
        examples=["devboxctl api GET status", "devboxctl api GET boxes", "devboxctl api > openapi.json"],
    )


def api(
    method: Annotated[str | None, typer.Argument(metavar="[METHOD]", help="GET, POST or DELETE.")] = None,
    path: Annotated[str | None, typer.Argument(metavar="[PATH]", help="status, or /v1/status.")] = None,
    body: Annotated[
        str | None, typer.Argument(metavar="[JSON]", help="The request; - reads it from standard input.")
    ] = None,
) -> None:
    """Describe the daemon's API, or call it.

    Alone it prints the description (OpenAPI); with METHOD and PATH it calls, and prints the answer as JSON.
    """
    if method is None:
        show.print_json(ask.ask(routes.API), bare=True)
        return
    method = method.upper()
    if method not in METHODS:
        raise UsageError(f"{method} is no method of this API", f"one of: {', '.join(METHODS)}")
    if not path:
        raise UsageError("which route? PATH is missing", "devboxctl api lists them all")
    text = sys.stdin.read() if body == "-" else body
    target = path if path.startswith("/") else f"/{path.removeprefix('v1/')}"
    if not target.startswith(("/v1/", routes.API.path)):
        target = f"/v1{target}"
    if any(c <= " " or c > "~" for c in target):
        raise UsageError("PATH has characters that an address cannot have", "write them as %XX")
    with client.Exchange.start(
        method, target, None if text is None else _json(text), timeout=None
    ) as exchange:
        for line in exchange.lines():
            show.print_json(json.loads(line), bare=True)


def _json(text: str) -> bytes:
    """Check what is sent: the daemon would only say where, not what it saw. Raises UsageError."""
    try:
        return json.dumps(json.loads(text)).encode()
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the request is not JSON: {error}") from None
