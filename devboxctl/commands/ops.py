"""ops: what is under way, and going on with what needed you."""

from __future__ import annotations

from typing import Annotated

import typer

from devboxctl import ask, grammar, options, progress, show
from devboxctl.commands.project import LOOK, Name, Verify, Wait, print_projects
from devboxd.api import routes, wire


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = grammar.add_group(
        app, "ops", "What is under way, and going on with what needed you.", section=grammar.PROJECTS
    )
    grammar.add(group, "ls", operations, examples=["devboxctl ops ls"])
    grammar.add(
        group, "resume", resume, examples=["devboxctl ops resume api", "devboxctl ops resume api --no-verify"]
    )
    grammar.add(group, "abandon", abandon, examples=["devboxctl ops abandon api"])
    grammar.add(group, "cancel", cancel, examples=["devboxctl ops cancel api"])


def operations(wide: options.Wide = False) -> None:
    """List what the daemon works on, and what it waits for."""
    found = [
        one for one in ask.ask(routes.LIST_PROJECTS).projects if one.pending or one.problem or one.reason
    ]
    print_projects(found, "nothing is under way", wide)


def resume(project: Name, verify: Verify = None, wait: Wait = True) -> int:
    """Go on with a project that needed you, once that is mended."""
    found = ask.ask(routes.RESUME, wire.ResumeRequest(project, verify), timeout=LOOK)
    return progress.finish(project, found, wait=wait)


def abandon(
    project: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    discard: Annotated[
        bool, typer.Option("--discard-volumes", help="Delete the volumes that are left of its box, too.")
    ] = False,
    wait: Wait = True,
) -> int:
    """Go back to the newest generation of a project whose box is lost.

    For a project that needed you, where nothing can be mended: the instance is gone, and a volume of it as well. What
    was not saved is given up. Volumes that are left of the box stay, and devboxctl gc lists them with what they cost.
    """
    if not yes:
        planned = ask.ask(routes.PLAN_ABANDON, wire.ProjectName(project), timeout=LOOK)
        if not ask.is_meant(_given_up(planned, discard=discard)):
            return 1
    found = ask.ask(routes.ABANDON, wire.AbandonRequest(project, discard), timeout=LOOK)
    return progress.finish(project, found, wait=wait)


def _given_up(planned: wire.AbandonPlan, *, discard: bool) -> str:
    """What is given up, in a sentence."""
    saved = planned.generation
    left = ", ".join(f"{one.id} ({one.size} GiB)" for one in planned.volumes)
    kept = "is deleted" if discard else "is kept"
    return (
        f"{show.cell(planned.project.name)} goes back to generation {saved.number} of {show.moment(saved.created)}:"
        f" what was done since is given up, and {left or 'no volume'} {kept if left else 'is left of it'}"
    )


def cancel(project: Name, wait: Wait = True) -> int:
    """Take back what was asked last, as far as it has not been done.

    A launch is given up, and a box that was on its way down goes on running. What is imaged by then stays a generation.
    """
    found = ask.ask(routes.CANCEL, wire.ProjectName(project), timeout=LOOK)
    return progress.finish(project, found, wait=wait)
