"""launch, up, stop, terminate and the rest: boxes whose work outlives them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from devboxctl import ask, grammar, options, plan, progress, show
from devboxctl.commands import money
from devboxctl.fast.folder import absolute
from devboxctl.fast.reply import UsageError
from devboxctl.options import settings
from devboxd.api import routes, wire

USER_DATA_MAX = 16384  # bytes (API: RunInstances)
LOOK = 60.0  # seconds for what asks AWS a few questions

Name = Annotated[str, typer.Argument(metavar="PROJECT", help="Name of the project.")]
Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Wait until it is done, or return at once (exit status 8).")
]
Clean = Annotated[
    bool, typer.Option("--require-clean", help="Refuse while git work on the box is nowhere else.")
]
Verify = Annotated[
    bool | None,
    typer.Option(
        "--verify/--no-verify",
        help="Boot what was saved before the box may go, from now on; it takes some minutes more. --no-verify: not any more.",
    ),
]
Types = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="TYPE", help="Instance type; more of them are tried in this order."),
]
Disk = Annotated[
    int | None, typer.Option("--disk", metavar="GIB", min=1, help="Size of the root volume in GiB.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for name, function, examples in (
        (
            "launch",
            launch,
            [
                "devboxctl launch api",
                "devboxctl launch api --type m7g.large --disk 80 --base debian-13",
                "devboxctl launch api --from -1",
                "devboxctl launch api --dry-run",
            ],
        ),
        ("up", up, ["devboxctl up api", "devboxctl up ."]),
        ("start", up, ["devboxctl start api"]),
        ("stop", stop, ["devboxctl stop api", "devboxctl stop --require-clean api"]),
        ("terminate", terminate, ["devboxctl terminate api", "devboxctl terminate --no-wait api"]),
        ("archive", terminate, ["devboxctl archive api"]),
        ("reboot", reboot, ["devboxctl reboot api"]),
        ("resize", resize, ["devboxctl resize api --type m7g.xlarge", "devboxctl resize api --disk 120"]),
        (
            "rebase",
            rebase,
            [
                "devboxctl rebase api --onto ubuntu-26.04",
                "devboxctl rebase api --onto ami-0123456789abcdef0 --dry-run",
            ],
        ),
        ("rename", rename, ["devboxctl rename api backend"]),
        ("fork", fork, ["devboxctl fork api experiment", "devboxctl fork api old --from 3"]),
        ("adopt", adopt, ["devboxctl adopt i-0123456789abcdef0 api"]),
        ("delete", delete, ["devboxctl delete api --yes"]),
        ("snapshot", snapshot, ["devboxctl snapshot api", "devboxctl snapshot api --label before-upgrade"]),
        ("projects", projects, ["devboxctl projects", "devboxctl projects api"]),
    ):
        grammar.add(app, name, function, section=grammar.PROJECTS, examples=examples)


def launch(
    project: Name,
    type_: Types = None,
    disk: Disk = None,
    base: Annotated[
        str | None, typer.Option("--base", metavar="IMAGE", help="Name or id of the image to begin with.")
    ] = None,
    from_: Annotated[
        int | None,
        typer.Option("--from", metavar="N", help="Go back to generation N; -1 is the one before the newest."),
    ] = None,
    zone: Annotated[
        str | None, typer.Option("--az", metavar="ZONE", help="Only in this zone; any: no choice any more.")
    ] = None,
    instance_profile: Annotated[
        str | None, typer.Option("--instance-profile", metavar="NAME", help="Instance profile of the box.")
    ] = None,
    subnet: Annotated[
        list[str] | None,
        typer.Option(
            "--subnet", metavar="ID", help="Only in this subnet; may repeat. 'any': no choice any more."
        ),
    ] = None,
    security_group: Annotated[
        list[str] | None,
        typer.Option("--security-group", metavar="ID", help="With this security group; may repeat."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", metavar="KEY", help="KMS key (id, alias or ARN) of the disks of a new project."
        ),
    ] = None,
    user_data: Annotated[
        Path | None, typer.Option("--user-data", metavar="FILE", help="Run this at the first boot.")
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="KEY=VALUE", help="Tag everything that is made; may repeat."),
    ] = None,
    no_user_data: Annotated[
        bool, typer.Option("--no-user-data", help="Run nothing at the first boot any more.")
    ] = False,
    no_tags: Annotated[bool, typer.Option("--no-tags", help="No tags of your own any more.")] = False,
    spot: Annotated[
        bool | None,
        typer.Option(
            "--spot/--no-spot", help="As a spot instance: it may be taken away. --no-spot: on demand again."
        ),
    ] = None,
    retry: Annotated[
        bool | None,
        typer.Option(
            "--retry-until-up/--no-retry-until-up",
            help="Go round the zones until one has capacity, with pauses. --no-…: once only.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the calls that would be made, and make none.")
    ] = False,
    wait: Wait = True,
    profile: options.Profile = None,
    region: options.Region = None,
) -> int:
    """Make a project, or bring one up with other choices.

    What is not said stays as it was at the last launch: --no-spot, --no-tags and the like take it back. The work of a project is saved when its box goes, and is
    there again when it comes back: in whatever zone, on whatever type of the same architecture.
    """
    if no_user_data and user_data is not None:
        raise UsageError("--user-data and --no-user-data exclude each other")
    if no_tags and tag:
        raise UsageError("--tag and --no-tags exclude each other", "--tag alone replaces the tags of before")
    request = wire.LaunchRequest(
        project=project,
        types=type_ or [],
        disk=disk,
        base=base,
        generation=from_,
        zone=zone,
        instance_profile=instance_profile,
        subnets=subnet or [],
        security_groups=security_group or [],
        key=key,
        user_data="" if no_user_data else _read(user_data) if user_data is not None else None,
        tags=_tags(tag or []) if tag or no_tags else None,
        spot=spot,
        until_up=retry,
        profile=settings.profile,
        region=settings.region,
    )
    if dry_run:
        planned = ask.ask(routes.PLAN_LAUNCH, request, timeout=LOOK)
        plan.print_plan(planned)
        if planned.price is not None:
            money.tell_price(planned.price)
        return 0
    price = money.quoted(request)
    found = ask.ask(routes.LAUNCH, request, timeout=LOOK)
    money.tell_price(price, is_asked=True)  # of what can be: a refusal says why, not what it would have cost
    return progress.finish(project, found, wait=wait, up=True)


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
        text = data.decode()
    except OSError as error:
        raise UsageError(f"{path} can not be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text") from None
    if len(data) > USER_DATA_MAX:
        raise UsageError(f"{path} is too long: EC2 takes {USER_DATA_MAX} bytes of user data")
    return text


def _tags(words: list[str]) -> dict[str, str]:
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"{word!r} is no tag", "write KEY=VALUE")
        found[key] = value
    return found


def up(
    project: Annotated[
        str,
        typer.Argument(
            metavar="PROJECT", help="Name of the project, or a folder whose devbox.toml names it."
        ),
    ],
    launch_: Annotated[
        bool,
        typer.Option("--launch", help="Launch it with your defaults where there is no such project yet."),
    ] = False,
    wait: Wait = True,
) -> int:
    """Bring a project up as it was: start it, or launch it.

    In a repository with a devbox.toml, devboxctl up . is enough. Such a file only names the project: what is launched,
    and where, is what your own configuration says.
    """
    if project.startswith((".", "/", "~")):
        project = _of_folder(project)
        if not _is_known(project) and not launch_:
            if settings.json or not sys.stdin.isatty():
                raise UsageError(
                    f"there is no project {project} yet", f"--launch makes it; or: devboxctl launch {project}"
                )
            if not ask.agreed(f"there is no project {project} yet. Launch it with your defaults?"):
                return 1
            launch_ = True
    if launch_ and not _is_known(project):
        request = wire.LaunchRequest(project=project, profile=settings.profile, region=settings.region)
        money.tell_price(money.quoted(request), is_asked=True)
        return progress.finish(project, ask.ask(routes.LAUNCH, request, timeout=LOOK), wait=wait, up=True)
    found = ask.ask(routes.UP, wire.ProjectName(project), timeout=LOOK)
    return progress.finish(project, found, wait=wait, up=True)


def _of_folder(path: str) -> str:
    """The project that a folder's devbox.toml names. Raises UsageError."""
    folder = os.path.expanduser(path)
    try:
        os.chdir(folder)
    except OSError as error:
        raise UsageError(f"{path} is no folder: {error.strerror}") from None
    if (name := ask.of_folder("box")) is None:
        raise UsageError(
            f"no devbox.toml in {absolute('.')} or above names a project",
            'write into it: box = "NAME-OF-THE-PROJECT"',
        )
    return str(name)


def _is_known(project: str) -> bool:
    return project.lower() in {one.name.lower() for one in listed()}


def listed() -> list[wire.Project]:
    """All projects, without what they cost."""
    return ask.ask(routes.LIST_PROJECTS, wire.ProjectsRequest(brief=True)).projects


def stop(project: Name, require_clean: Clean = False, verify: Verify = None, wait: Wait = True) -> int:
    """Save the box and keep it stopped for a while, to start fast.

    After the time that projects.warm_for sets it goes, and its work stays.
    """
    found = ask.ask(routes.STOP_PROJECT, wire.DownRequest(project, require_clean, verify), timeout=LOOK)
    return progress.finish(project, found, wait=wait)


def terminate(project: Name, require_clean: Clean = False, verify: Verify = None, wait: Wait = True) -> int:
    """Save the box and end it; its work stays.

    The instance goes only when an image of all its volumes is complete and verified. devboxctl up brings it back.
    """
    found = ask.ask(routes.TERMINATE, wire.DownRequest(project, require_clean, verify), timeout=LOOK)
    return progress.finish(project, found, wait=wait)


def reboot(project: Name) -> int:
    """Reboot the box of a project."""
    return progress.finish(
        project, ask.ask(routes.REBOOT, wire.ProjectName(project), timeout=LOOK), wait=False
    )


def resize(project: Name, type_: Types = None, disk: Disk = None, wait: Wait = True) -> int:
    """Give a project another instance type, or a larger disk.

    A running box restarts for another type. A larger disk needs no restart; its file system grows with it.
    """
    if not type_ and disk is None:
        raise UsageError("to what? --type or --disk is missing")
    request = wire.ResizeRequest(project, type_ or [], disk)
    return progress.finish(project, ask.ask(routes.RESIZE, request, timeout=LOOK), wait=wait)


def rebase(
    project: Name,
    onto: Annotated[
        str | None, typer.Option("--onto", metavar="IMAGE", help="Name or id of the new base image.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the calls that would be made, and make none.")
    ] = False,
    wait: Wait = True,
) -> int:
    """Put a newer base image under a project, its homes kept.

    It is saved first, and that generation is kept: devboxctl launch PROJECT --from N goes back. Then it is launched from
    the image with its other volumes, and the homes are copied from the old root. Programs that you installed outside of
    them are not. When something fails, the same command goes on.
    """
    if onto is None:
        raise UsageError(
            "onto which image? --onto is missing", "devboxctl rebase PROJECT --onto ubuntu-26.04"
        )
    request = wire.RebaseRequest(project, onto)
    if dry_run:
        planned = ask.ask(routes.PLAN_REBASE, request, timeout=LOOK)
        plan.print_plan(planned)
        if planned.price is not None:
            money.tell_price(planned.price)
        return 0
    if not yes:
        planned = ask.ask(routes.PLAN_REBASE, request, timeout=LOOK)
        if planned.running:
            what = f"the box of {project} is stopped and saved, and comes back on {onto} with its homes"
            if not ask.is_meant(what):
                return 1
    found = ask.ask(routes.REBASE, request, timeout=LOOK)
    status = progress.finish(project, found, wait=wait, up=True)
    return progress.after_rebase(project, status) if wait else status


def rename(
    project: Name, name: Annotated[str, typer.Argument(metavar="NEW-NAME", help="Its name from now on.")]
) -> int:
    """Give a project another name."""
    found = ask.ask(routes.RENAME, wire.OtherNameRequest(project, name), timeout=LOOK)
    return progress.finish(name, found, wait=False)


def fork(
    project: Name,
    name: Annotated[str, typer.Argument(metavar="NEW-NAME", help="Name of the new project.")],
    from_: Annotated[
        int | None, typer.Option("--from", metavar="N", help="From generation N in place of the newest.")
    ] = None,
) -> int:
    """Make another project out of a saved one.

    It is there at once, and runs when it is brought up.
    """
    found = ask.ask(routes.FORK, wire.OtherNameRequest(project, name, from_), timeout=LOOK)
    progress.show_project(found)
    return 0


def adopt(
    instance: Annotated[
        str, typer.Argument(metavar="INSTANCE-ID", help="An instance that is there already.")
    ],
    project: Name,
    wait: Wait = True,
    profile: options.Profile = None,
    region: options.Region = None,
) -> int:
    """Make a project of an instance that is there already.

    It is tagged and protected, and saved from now on as any other.
    """
    request = wire.AdoptRequest(
        project=project, instance=instance, profile=settings.profile, region=settings.region
    )
    return progress.finish(project, ask.ask(routes.ADOPT, request, timeout=LOOK), wait=wait, up=True)


def delete(
    project: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Though a fork has no generation of its own yet.")
    ] = False,
    wait: Wait = True,
) -> int:
    """Delete a project: box, volumes and all generations.

    There is no way back.
    """
    if not yes:
        # Refused where there is none: nobody types the name of what is not there.
        work = ask.ask(routes.LIST_UNSAVED, wire.ProjectName(project), timeout=LOOK)
        known = progress.git_work("its box has git work that is nowhere else", work.unsaved, work.problem)
        if settings.json or not sys.stdin.isatty():
            raise UsageError(
                f"this deletes all work of {project}" + (known and f"; {known}"),
                "--yes says that you mean it",
            )
        if known:
            show.say(known)
        if typer.prompt(f"this deletes all work of {project}; type its name to go on", err=True) != project:
            show.say("nothing was deleted")
            return 1
    found = ask.ask(routes.DELETE_PROJECT, wire.DeleteRequest(project, force), timeout=LOOK)
    return progress.finish(project, found, wait=wait)


def snapshot(
    project: Name,
    label: Annotated[str, typer.Option("--label", metavar="TEXT", help="What it is for.")] = "",
    wait: Wait = True,
) -> int:
    """Make a generation of a project now; its box goes on running."""
    found = ask.ask(routes.SNAPSHOT, wire.SnapshotRequest(project, label), timeout=LOOK)
    return progress.finish(project, found, wait=wait)


def projects(
    project: Annotated[
        str | None, typer.Argument(metavar="[PROJECT]", help="Only this one, in full.")
    ] = None,
    wide: options.Wide = False,
) -> None:
    """List the projects, running or not."""
    if project is not None:
        progress.show_project(ask.ask(routes.SHOW_PROJECT, wire.ProjectName(project)))
        return
    print_projects(
        ask.ask(routes.LIST_PROJECTS).projects, "there is no project; devboxctl launch makes one", wide
    )


def print_projects(found: list[wire.Project], none: str, wide: bool) -> None:
    """Print a list of projects; ``none`` on a terminal, where there is none."""
    if settings.json:
        show.print_json(wire.ProjectList(found))
        return
    if not found and show.is_terminal():
        show.say(none)
        return
    for one in found:
        show.deletes(one.name, one.deletes)
    headers = ("project", "phase", "want", "generation", "type", "zone", "instance", "now", "usd/month")
    rows = [
        (
            *(one.name, one.phase, one.want, one.generation or None, one.type, one.zone, one.instance),
            one.problem or one.reason or one.waits,
            one.month,
        )
        for one in found
    ]
    dispensable = ("zone", "want", "type", "instance", "usd/month")
    show.print_table(headers, rows, dispensable=dispensable, wide=wide)
