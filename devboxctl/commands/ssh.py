"""ssh and config-ssh: OpenSSH through the daemon."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Container
from typing import Annotated, Any

import typer

from devboxctl import ask, grammar, options, show
from devboxctl.fast import reply, words
from devboxctl.fast.reply import UsageError
from devboxctl.options import settings
from devboxd.api import client, routes, wire

SSH_OPTIONS = "devboxctl.ssh"  # key of a context: the options that ssh gets
READY = 180.0  # seconds for a box to be reached and prepared


_WITH_VALUE = "BbcDEeFIiJLlmOoPpQRSWw"  # options of ssh that take a value (ssh(1), OpenSSH 9)
_OURS = "hlpr"  # letters that are options of ours; every other one is meant for ssh


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    grammar.add(
        app,
        "ssh",
        ssh,
        section=grammar.CONNECT,
        cls=SshCommand,
        examples=[
            "devboxctl ssh api",
            "devboxctl ssh api uname -a",
            "devboxctl ssh -L 8080:localhost:80 -N api",
            "GIT_SSH_COMMAND='devboxctl ssh' git clone api:src/app",
        ],
    )
    grammar.add(
        app,
        "config-ssh",
        config_ssh,
        section=grammar.ACCOUNT,
        examples=["devboxctl config-ssh", "devboxctl config-ssh --check", "devboxctl config-ssh --remove"],
    )


class SshCommand(grammar.RunCommand):
    """Takes what ``ssh`` itself takes: git, rsync and people write the same line for both."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Sort the options of ssh out, and keep the command that follows BOX away from the parser."""
        valued = self.valued() | {f"-{letter}" for letter in _WITH_VALUE}
        line, rest = words.cut(args, valued, self.arguments)
        ours, theirs = sort(line, valued)
        if args[len(line) : len(line) + 1] == ["--"]:  # what follows may begin with options for ssh
            more, rest = split(rest)
            theirs += more
        ctx.meta[SSH_OPTIONS] = theirs
        return super().parse_args(ctx, [*ours, "--", *rest])


def sort(line: list[str], valued: Container[str]) -> tuple[list[str], list[str]]:
    """Tell our options and arguments from the options of ssh. ``-p`` with a number is the port, as there."""
    ours: list[str] = []
    theirs: list[str] = []
    at = 0
    while at < len(line):
        word = line[at]
        size = 2 if words.takes_next(word, valued) else 1
        option, at = line[at : at + size], at + size
        if not word.startswith("-") or word == "-" or word.startswith("--"):
            ours += option
        elif word[1] == "p" and (port := "".join(option)[2:]).isdecimal() and 0 < int(port) < 65536:
            ours += ["--port", port]
        elif word[1] in _OURS:
            ours += option
        else:
            theirs += option
    return ours, theirs


def split(line: list[str]) -> tuple[list[str], list[str]]:
    """Split what follows ``--`` into options for ssh and the remote command."""
    valued = {f"-{letter}" for letter in _WITH_VALUE}
    at = 0
    while at < len(line) and line[at].startswith("-") and line[at] != "-":
        if line[at] == "--":
            return line[:at], line[at + 1 :]
        at += 2 if words.takes_next(line[at], valued) else 1
    return line[:at], line[at:]


def ssh(
    context: typer.Context,
    box: options.Box = None,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[COMMAND]...", help="What to run instead of a shell.")
    ] = None,
    user: options.User = None,
    port: Annotated[
        int,
        typer.Option("--port", metavar="PORT", min=1, max=65535, help="Port of sshd on the box; also -p."),
    ] = 22,
    fresh: Annotated[
        bool,
        typer.Option("--fresh/--no-fresh", help="Look at the keys of the box first, or trust the last look."),
    ] = True,
    profile: options.Profile = None,
    region: options.Region = None,
) -> int:
    """Run ssh to a box, prepared for it.

    Options of ssh are passed on (-L, -A, -t, -v, …). From its first word on, the line belongs to the command
    that runs on the box. BOX may be USER@BOX.
    """
    program = shutil.which("ssh")
    if program is None:
        raise UsageError(
            "there is no ssh on this machine", "install the OpenSSH client, or use devboxctl attach"
        )
    try:
        access = _access(ask.chosen(box), user, port, fresh)
    except client.ClientError as error:
        reply.show_failure(reply.failure_of(error))
        return reply_status(error)
    for problem in access.problems:
        show.say(f"warning: {problem}")
    host = access.host or access.box
    line = ["ssh", "-F", access.config_file, "-l", access.user]
    if port != 22:
        line += ["-p", str(port)]
    line += context.meta.get(SSH_OPTIONS, [])
    if access.host_key_alias:  # another account may have a box of that name, too; last: the user's own wins
        line += ["-o", f"HostKeyAlias={access.host_key_alias}"]
    # The proxy that ssh starts has to look for the box where we found it.
    os.environ |= {
        name: value
        for name, value in (("AWS_PROFILE", settings.profile), ("AWS_REGION", settings.region))
        if value
    }
    if sys.stdout is not None:
        sys.stdout.flush()
    os.execv(program, [*line, host, *grammar.rest_of(context)])


def _access(box: str, user: str | None, port: int, fresh: bool) -> wire.SshAccess:
    """Ask for what ssh needs. A box may be called ``ann@corp``; where none is, that means user ann on corp."""
    request = wire.SshRequest(
        box=box, user=user, port=port, fresh=fresh, profile=settings.profile, region=settings.region
    )
    request.folder = ask.here()
    try:
        return ask.ask(routes.SSH, request, timeout=READY)
    except client.Refused as error:
        before, at, name = box.rpartition("@")
        if not at or not before or not name or reply.failure_of(error)["code"] != "box-not-found":
            raise
    request.box, request.user = name, user or before
    return ask.ask(routes.SSH, request, timeout=READY)


def reply_status(error: client.ClientError) -> int:
    """255 for what ssh would report so; a box that does not exist or a login keep their own status."""
    status = reply.failure_of(error).get("exit_status")
    return status if status in (3, 4) else 255


def config_ssh(
    check: Annotated[bool, typer.Option("--check", help="Say whether it is there and current.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take it out again.")] = False,
) -> int:
    """Let plain ssh reach all boxes.

    Writes the ssh configuration of all boxes, and one Include line into ~/.ssh/config. Then ssh, scp, rsync,
    git and editors know each box as BOX.devbox.
    """
    if check and remove:
        raise UsageError("--check and --remove exclude each other")
    request = wire.SshConfigRequest(command=program_path())
    if check:
        result = ask.ask(routes.LOOK_SSH_CONFIG, request)
    elif remove:
        result = ask.ask(routes.REMOVE_SSH_CONFIG)
    else:
        result = ask.ask(routes.WRITE_SSH_CONFIG, request)
    for problem in result.problems:
        show.say(f"warning: {problem}")
    good = remove or (result.current and result.included)
    if settings.json:
        show.print_json(result)
    elif remove:
        show.say(f"removed from {result.user_config}" if result.changed else "it was not there")
    elif check:
        show.say("current" if good else "missing or out of date; write it with: devboxctl config-ssh")
    else:
        for path in result.changed:
            show.say(f"wrote {path}")
        show.say("try: ssh BOX.devbox")
    return 0 if good or not check else 1


def program_path() -> str | None:
    """Find the devboxctl that is running, for use in files that outlive this process."""
    name = sys.argv[0]
    if os.path.basename(name) == "devboxctl" and (found := shutil.which(name)):
        return os.path.abspath(found)
    return shutil.which("devboxctl")
