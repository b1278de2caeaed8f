"""attach, exec, proxy: the full parser in front of the fast path."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from devboxctl import ask, grammar, options, several
from devboxctl.fast import attach as attaching
from devboxctl.fast import execute as executing
from devboxctl.fast import folder, words
from devboxctl.fast import proxy as proxying
from devboxctl.fast.escape import escape_character
from devboxctl.fast.reply import UsageError


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    grammar.add(
        app,
        "attach",
        attach,
        section=grammar.CONNECT,
        examples=["devboxctl attach api", "devboxctl attach api build", "devboxctl attach -A --user ann api"],
    )
    grammar.add(
        app,
        "exec",
        execute,
        section=grammar.CONNECT,
        cls=ExecCommand,
        examples=[
            "devboxctl exec api uname -a",
            "devboxctl exec api,web uptime",
            "devboxctl exec --tag team=search -- systemctl is-active app",
            "echo hello | devboxctl exec api tr a-z A-Z",
            "devboxctl exec -t api htop",
            "devboxctl exec --cwd /srv/app --env CI=1 api make test",
            "rsync -a -e 'devboxctl exec' src/ api:src/",
        ],
    )
    grammar.add(app, "proxy", proxy, hidden=True, examples=["devboxctl proxy api 22"])


class ExecCommand(grammar.RunCommand):
    """With ``--tag`` there is no BOX, so the first word is the command's."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See ``RunCommand``."""
        ours, rest = words.cut(args, self.valued(), 0)
        if any(word == "--tag" or word.startswith("--tag=") for word in ours):
            args = [*ours, "--", *rest]
        return super().parse_args(ctx, args)


def attach(
    box: options.Box = None,
    session: Annotated[str, typer.Argument(metavar="[SESSION]", help="Session to join or make.")] = "main",
    raw: Annotated[bool, typer.Option("--raw", help="A plain shell without a mux.")] = False,
    command: Annotated[
        str | None, typer.Option("--command", metavar="TEXT", help="Run this instead of a shell.")
    ] = None,
    user: options.User = None,
    mux: Annotated[
        str | None, typer.Option("--mux", metavar="zellij|tmux|none", help="Which multiplexer to use.")
    ] = None,
    escape: Annotated[
        str, typer.Option("--escape", "-e", metavar="CHAR", help="Escape character, ^X, or none.")
    ] = "~",
    forward_agent: Annotated[bool, typer.Option("-A", help="Let the box ask your ssh agent.")] = False,
    up: Annotated[
        bool, typer.Option("--up", help="Bring a project up that has no box now, without asking.")
    ] = False,
    profile: options.Profile = None,
    region: options.Region = None,
) -> int:
    """Join a terminal to a session on a box, and stay joined.

    The session is one of zellij or tmux on the box, made where there is none. The terminal stays through
    sleep, network changes and restarts of the daemon. ~. at the start of a line leaves; the session goes on.
    """
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
        up=up,
        escape=character,
        profile=profile,
        region=region,
    )


def execute(
    context: typer.Context,
    box: options.Box = None,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND...", help="What to run, with its own options.")
    ] = None,
    tty: Annotated[bool, typer.Option("--tty", "-t", help="Give the command a terminal.")] = False,
    no_stdin: Annotated[bool, typer.Option("--no-stdin", "-n", help="No standard input.")] = False,
    user: options.User = None,
    cwd: Annotated[str | None, typer.Option("--cwd", metavar="FOLDER", help="Folder on the box.")] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME[=VALUE]", help="Set a variable; may repeat.")
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            "--tag", metavar="KEY[=VALUE]", help="On all boxes with this tag, instead of BOX; may repeat."
        ),
    ] = None,
    profile: options.Profile = None,
    region: options.Region = None,
) -> int:
    """Run a command on a box, or on several.

    Output comes byte for byte, errors apart from it, and standard input is passed on. The exit status is the
    command's own; 255 says that it could not be run or was lost. Everything after BOX that follows the first
    word of the command belongs to the command.

    BOX may be names with commas between them and patterns like 'web-*'. Then each line begins with the name of
    its box, there is no standard input, and the exit status is the highest.
    """
    rest = grammar.rest_of(context)
    if not rest:
        raise UsageError("there is no command to run", "devboxctl exec BOX COMMAND…")
    try:
        environment = dict(executing.pair(text) for text in env or [])
    except ValueError as error:
        raise UsageError(f"--env {error} is neither NAME=VALUE nor a variable set here") from None
    if several.is_several(box, tag or []):
        if tty:
            raise UsageError("-t is for one box", "leave it out, or name one")
        request = {"argv": rest, "user": user, "cwd": cwd, "env": environment or None}
        request |= {"profile": profile, "region": region, "folder": folder.said()}
        return several.execute(several.chosen(box, tag or []), request)
    return executing.execute(
        ask.chosen(box),
        rest,
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
    ssh_user: Annotated[
        str | None, typer.Option("--ssh-user", metavar="USER", help="Put this user's key in place.")
    ] = None,
    ssh_host: Annotated[
        str | None,
        typer.Option("--ssh-host", metavar="NAME", help="BOX, where the ssh client left it as '%n'."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Look at the keys of the box again before, for ssh.")
    ] = False,
    host: Annotated[
        str | None, typer.Option("--host", metavar="HOST", help="Connect from the box to this host.")
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", help="How long to wait for the box.")
    ] = proxying.WAIT,
    profile: options.Profile = None,
    region: options.Region = None,
) -> int:
    """Copy bytes to and from a port of a box, for ssh."""
    return proxying.proxy(
        box,
        port,
        fdpass=fdpass,
        ssh_user=ssh_user,
        ssh_host=ssh_host,
        fresh=fresh,
        host=host,
        wait=wait,
        profile=profile,
        region=region,
    )
