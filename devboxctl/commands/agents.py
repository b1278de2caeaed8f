"""agent: hooks of coding agents on a box, and how those are."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from devboxctl import ask, grammar, options, show
from devboxctl.fast.reply import shell_word
from devboxctl.options import default_box, settings
from devboxd.api import routes, wire

ASK: Final = 75.0  # seconds
SET_UP: Final = "is set up"  # what the program on the box says of a file


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = grammar.add_group(
        app,
        "agent",
        "Coding agents on a box: who works, who waits for you.",
        section=grammar.CONNECT,
        examples=["devboxctl agent setup api", "devboxctl agent status"],
    )
    grammar.add(
        group,
        "setup",
        set_up,
        examples=[
            "devboxctl agent setup api --dry-run",
            "devboxctl agent setup api",
            "devboxctl agent setup api --for claude",
            "devboxctl agent setup api --undo",
        ],
    )
    grammar.add(group, "status", status, examples=["devboxctl agent status", "devboxctl agent status api"])


def set_up(
    box: options.Box = None,
    agent: Annotated[
        str, typer.Option("--for", metavar="claude|codex|generic|all", help="Whose hooks.")
    ] = "all",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be changed.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take exactly these hooks away again.")] = False,
    user: options.User = None,
    profile: options.Profile = None,
    region: options.Region = None,
) -> int:
    """Have coding agents on a box say when they wait for you.

    Hooks are installed with which an agent says that it works, waits for you, or is done; then you are told. Claude Code
    and Codex are known; any other agent can say it with the program that is installed too. Settings of your own stay as
    they are, with a copy of each file beside it; what can not be read is not changed. The exit status is 1 where something
    could not be set up.
    """
    request = wire.AgentSetUpRequest(
        box=ask.chosen(box),
        agent=agent,
        undo=undo,
        dry_run=dry_run,
        user=user,
        profile=settings.profile,
        region=settings.region,
        folder=ask.here(),
    )
    found = ask.ask(routes.SET_UP_AGENTS, request, timeout=ASK)
    if settings.json:
        show.print_json(found)
    else:
        _print_files(found, "would change" if dry_run else "changed")
        if not (found.told or undo):
            show.say(
                f"hint: you are told of boxes of projects only; devboxctl adopt makes one of {shell_word(request.box)}"
            )
    return 1 if any(one.problem for one in found.files) else 0


def status(
    box: options.Box = None,
    user: options.User = None,
    profile: options.Profile = None,
    region: options.Region = None,
) -> None:
    """Say which coding agents work, and which wait for you.

    On a box as it is now, with what is set up there; without one on all projects, as they were seen last.
    """
    request = wire.AgentStatusRequest(
        box=default_box(box) or "",
        user=user,
        profile=settings.profile,
        region=settings.region,
        folder=ask.here(),
    )
    found = ask.ask(routes.SHOW_AGENTS, request, timeout=ASK)
    if settings.json:
        show.print_json(found)
        return
    if found.files:
        files = [(one.agent, one.file, "not set up" if one.changed else one.said) for one in found.files]
        show.print_table(("agent", "file", "what"), files)
        if found.agents:
            show.write("\n")
    if found.agents:
        rows = [
            (one.box, one.name, one.state, show.minute(one.since), one.where, one.text)
            for one in found.agents
        ]
        show.print_table(
            ("box", "agent", "state", "since", "session", "says"), rows, dispensable=("says", "session")
        )
    elif show.is_terminal():
        if found.files and all(one.said == SET_UP for one in found.files):
            show.say("no agent says anything of itself: they read their hooks when they start")
        else:
            show.say("no agent says anything of itself; devboxctl agent setup BOX installs the hooks for it")


def _print_files(found: wire.AgentReport, verb: str) -> None:
    def became(one: wire.AgentFile) -> str:
        return "problem" if one.problem else verb if one.changed else "as it is"

    rows = [(one.agent, became(one), one.file, one.said) for one in found.files]
    show.print_table(("agent", "file is", "file", "what"), rows)
