"""export and import: projects that come and go as a whole."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from devboxctl import ask, grammar, options, progress, show
from devboxctl.commands.project import LOOK, Name
from devboxctl.commands.service import FileNotWritten
from devboxctl.fast.reply import UsageError
from devboxctl.options import settings
from devboxd.api import routes, wire

EXPORT_MAX = 1 << 20  # bytes; the daemon takes no more
TAKE_OVER = 600.0  # seconds for all projects of a table


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    grammar.add(
        app,
        "export",
        export,
        section=grammar.PROJECTS,
        examples=["devboxctl export api api.json", "devboxctl export api"],
    )
    grammar.add(
        app,
        "import",
        import_,
        section=grammar.PROJECTS,
        examples=["devboxctl import api.json", "devboxctl import --omsf-table devbox-main --type m7i.large"],
    )


def export(
    project: Name,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Where to; standard output where none is named.")
    ] = None,
) -> None:
    """Print all that is written down of a project, as JSON.

    Its images and boxes stay where they are: another machine that imports it has the same project in the same account.
    Two that both look after it do no harm, but go on with one of them only.
    """
    text = json.dumps(ask.ask(routes.EXPORT, wire.ProjectName(project)), indent=2) + "\n"
    if file is None:
        show.write(text)
        return
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise FileNotWritten(f"cannot write {file}: {error.strerror}") from None
    show.say(f"{project} is in {file}")


def import_(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="What devboxctl export wrote; - is standard input."),
    ] = None,
    omsf_table: Annotated[
        str | None,
        typer.Option("--omsf-table", metavar="TABLE", help="All projects of an omsf-eco-infra/devbox table."),
    ] = None,
    type_: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="TYPE", help="With --omsf-table: where the table names no type."),
    ] = None,
    instance_profile: Annotated[
        str | None,
        typer.Option("--instance-profile", metavar="NAME", help="With --omsf-table: of their next boxes."),
    ] = None,
    profile: options.Profile = None,
    region: options.Region = None,
) -> int:
    """Write down a project that was exported, or those of another tool.

    Nothing of the other tool's is changed or deleted.
    """
    if (file is None) == (omsf_table is None):
        raise UsageError("what? a FILE of devboxctl export, or --omsf-table TABLE")
    if omsf_table is not None:
        return _take_over(omsf_table, type_ or [], instance_profile)
    assert file is not None
    found = ask.ask(routes.IMPORT, wire.ImportRequest(_read(file)), timeout=LOOK)
    progress.show_project(found)
    return 0


def _read(file: Path) -> dict[str, object]:
    try:
        data = sys.stdin.buffer.read(EXPORT_MAX + 1) if str(file) == "-" else file.read_bytes()
        found = json.loads(data)
    except OSError as error:
        raise UsageError(f"{file} can not be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{file} is no export of a project: it is not JSON") from None
    if not isinstance(found, dict) or len(data) > EXPORT_MAX:
        raise UsageError(f"{file} is no export of a project")
    return found


def _take_over(table: str, types: list[str], instance_profile: str | None) -> int:
    request = wire.TakeOverRequest(settings.profile, settings.region, table, types, instance_profile)
    found = ask.ask(routes.TAKE_OVER, request, timeout=TAKE_OVER)
    if settings.json:
        show.print_json(found)
    elif found.projects:
        rows = [(one.project, one.problem or "taken over") for one in found.projects]
        show.print_table(("project", "result"), rows)
    else:
        show.say(f"there is no project in {table}")
    return 1 if any(one.problem for one in found.projects) else 0
