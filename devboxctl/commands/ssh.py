"""ssh and config-ssh: OpenSSH through the daemon."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Annotated

import typer

from devboxctl import ask, options, show
from devboxctl.commands.words import RestCommand, rest_of
from devboxctl.fast import reply
from devboxctl.fast.reply import UsageError
from devboxctl.options import settings
from devboxd.api import client, routes, wire

READY = 180.0  # seconds for a box to be reached and prepared


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("ssh", cls=RestCommand)(ssh)
    app.command("config-ssh")(config_ssh)


def ssh(
    context: typer.Context,
    box: options.Box = None,
    user: Annotated[str | None, typer.Option("--user", help="User on the box.")] = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port of sshd on the box.")] = 22,
    profile: options.Profile = None,
    region: options.Region = None,
) -> int:
    """Run ssh to a box; what follows -- goes to ssh (options, then a command)."""
    program = shutil.which("ssh")
    if program is None:
        raise UsageError(
            "there is no ssh on this machine", "install the OpenSSH client, or use devboxctl attach"
        )
    try:
        access = ask.with_box(
            box,
            lambda name: ask.ask(
                routes.SSH,
                wire.SshRequest(
                    box=name, user=user, port=port, profile=settings.profile, region=settings.region
                ),
                timeout=READY,
            ),
        )
    except client.ClientError as error:
        reply.show_failure(reply.failure_of(error))
        return reply_status(error)
    for problem in access.problems:
        show.say(f"warning: {problem}")
    host = access.host or access.box
    line = ["ssh", "-F", access.config_file, "-l", access.user]
    if port != 22:
        line += ["-p", str(port)]
    # ssh stops reading options at the host, so options that follow -- have to stand before it.
    before, command = _split_ssh(rest_of(context) or [])
    sys.stdout.flush()
    os.execv(program, [*line, *before, host, *command])


def reply_status(error: client.ClientError) -> int:
    """255 for what ssh would report so; a box that does not exist or a login keep their own status."""
    status = reply.failure_of(error).get("exit_status")
    return status if status in (3, 4) else 255


_WITH_VALUE = "BbcDEeFIiJLlmOoPpQRSWw"  # options of ssh that take a value (ssh(1), OpenSSH 9)


def _split_ssh(words: list[str]) -> tuple[list[str], list[str]]:
    """Split what follows ``--`` into options for ssh and the remote command."""
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] != "-":
        if words[at] == "--":
            return words[:at], words[at + 1 :]
        # -p 22 takes the next word, -p22 and -vp22 do not, -vp does
        letters = words[at][1:]
        first = next((i for i, c in enumerate(letters) if c in _WITH_VALUE), None)
        at += 2 if first is not None and first == len(letters) - 1 else 1
    return words[:at], words[at:]


def config_ssh(
    check: Annotated[bool, typer.Option("--check", help="Say whether it is there and current.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take it out again.")] = False,
    as_json: options.Json = False,
) -> int:
    """Write the ssh configuration for all boxes, and the one Include line in ~/.ssh/config."""
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
        show.say("".join(f"wrote {path}\n" for path in result.changed) + "try: ssh BOX.devbox")
    return 0 if good or not check else 1


def program_path() -> str | None:
    """Find the devboxctl that is running, for use in files that outlive this process."""
    name = sys.argv[0]
    if os.path.basename(name) == "devboxctl" and (found := shutil.which(name)):
        return os.path.abspath(found)
    return shutil.which("devboxctl")
