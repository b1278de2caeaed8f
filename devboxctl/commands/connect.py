"""attach, exec, proxy: the full parser in front of the fast path."""

from __future__ import annotations

from typing import Annotated

import typer

from devboxctl import ask, options
from devboxctl.commands.words import RestCommand, rest_of
from devboxctl.fast import attach as attaching
from devboxctl.fast import execute as executing
from devboxctl.fast import proxy as proxying
from devboxctl.fast.escape import escape_character
from devboxctl.fast.reply import UsageError


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("attach")(attach)
    app.command("exec", cls=RestCommand)(execute)
    app.command("proxy", hidden=True)(proxy)


def attach(
    box: options.Box = None,
    session: Annotated[str, typer.Argument(metavar="[SESSION]", help="Session to join or make.")] = "main",
    raw: Annotated[bool, typer.Option("--raw", help="A plain shell without a mux.")] = False,
    command: Annotated[str | None, typer.Option("--command", help="Run this instead of a shell.")] = None,
    user: Annotated[str | None, typer.Option("--user", help="User on the box.")] = None,
    mux: Annotated[str | None, typer.Option("--mux", metavar="zellij|tmux|none", help="Which mux.")] = None,
    escape: Annotated[
        str, typer.Option("--escape", "-e", metavar="CHAR", help="Escape character, ^X, or none.")
    ] = "~",
    forward_agent: Annotated[bool, typer.Option("-A", help="Forward the ssh agent.")] = False,
    profile: options.Profile = None,
    region: options.Region = None,
) -> int:
    """Join or make a session on a box, and stay joined through sleep, network and daemon changes."""
    try:
        character = escape_character(escape)
    except ValueError:
        raise UsageError(f"{escape!r} is no escape character", "one character, ^X, or none") from None
    if mux not in (None, "zellij", "tmux", "none"):
        raise UsageError(f"{mux!r} is no mux we know", "zellij, tmux or none")
    return attaching.attach(
        ask.chosen(box),
        session,
        raw=raw,
        command=command,
        user=user,
        mux=mux,
        forward_agent=forward_agent,
        escape=character,
        profile=profile,
        region=region,
    )


def execute(
    context: typer.Context,
    box: options.Box = None,
    command: Annotated[list[str] | None, typer.Argument(metavar="-- CMD...", help="What to run.")] = None,
    tty: Annotated[bool, typer.Option("--tty", "-t", help="Give the command a terminal.")] = False,
    no_stdin: Annotated[bool, typer.Option("--no-stdin", "-n", help="No standard input.")] = False,
    user: Annotated[str | None, typer.Option("--user", help="User on the box.")] = None,
    cwd: Annotated[str | None, typer.Option("--cwd", help="Folder on the box.")] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME[=VALUE]", help="Set a variable; may repeat.")
    ] = None,
    profile: options.Profile = None,
    region: options.Region = None,
) -> int:
    """Run a command on a box; output byte for byte, exit status of the command (255: could not run it)."""
    rest = rest_of(context)
    words = [*(command or []), *(rest or [])]
    if not words:
        raise UsageError("there is no command to run", "devboxctl exec BOX -- CMD…")
    try:
        environment = dict(executing.pair(text) for text in env or [])
    except ValueError as error:
        raise UsageError(f"--env {error} is neither NAME=VALUE nor a variable set here") from None
    return executing.execute(
        ask.chosen(box),
        words,
        tty=tty,
        stdin=not no_stdin,
        user=user,
        cwd=cwd,
        env=environment,
        profile=profile,
        region=region,
    )


def proxy(
    box: Annotated[str, typer.Argument(metavar="BOX", help="Name or instance id of a box.")],
    port: Annotated[int, typer.Argument(metavar="PORT", min=1, max=65535, help="Port on the box.")],
    fdpass: Annotated[bool, typer.Option("--fdpass", help="Pass a descriptor (ProxyUseFdpass).")] = False,
    ssh_user: Annotated[str | None, typer.Option("--ssh-user", help="Put this user's key in place.")] = None,
    host: Annotated[str | None, typer.Option("--host", help="Connect from the box to this host.")] = None,
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for the box.")] = proxying.WAIT,
    profile: options.Profile = None,
    region: options.Region = None,
) -> int:
    """Copy bytes between standard input and output and a port of a box (a ProxyCommand for ssh)."""
    return proxying.proxy(
        box,
        port,
        fdpass=fdpass,
        ssh_user=ssh_user,
        host=host,
        wait=wait,
        profile=profile,
        region=region,
    )
