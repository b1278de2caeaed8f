"""run, jobs, logs: commands that go on in a box without anybody connected."""

from __future__ import annotations

import base64
import codecs
import re
from typing import Annotated

import typer

from devboxctl import ask, grammar, show
from devboxctl.commands.project import Name
from devboxctl.fast.reply import UsageError
from devboxctl.options import settings
from devboxd.api import client, routes, wire
from devboxd.text import printable

ASK = 60.0  # seconds
WAIT = 15.0  # seconds that one question for more output waits
LOST = 255  # exit status where nobody knows how the job ended
HELD = 64 << 10  # characters of a line that does not end
# What drives a terminal: control sequences, and strings with their end.
_DRIVES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]P_^X][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-Z\\`-~])")

Session = Annotated[
    str, typer.Option("--session", metavar="SESSION", help="Session of tmux in which it gets a window.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    grammar.add(
        app,
        "run",
        run,
        section=grammar.PROJECTS,
        cls=grammar.RunCommand,
        examples=[
            "devboxctl run api -- make test",
            "devboxctl run --detach api -- claude -p 'mend the failing test'",
        ],
    )
    grammar.add(app, "jobs", jobs, section=grammar.PROJECTS, examples=["devboxctl jobs api"])
    grammar.add(
        app,
        "logs",
        logs,
        section=grammar.PROJECTS,
        examples=["devboxctl logs api x7k2", "devboxctl logs --follow api x7k2"],
    )


def run(
    context: typer.Context,
    project: Name,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND...", help="What to run, with its own options.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it has begun, and say its id.")
    ] = False,
    session: Session = "main",
) -> int:
    """Run a command that goes on without you, and keeps the box up.

    It gets a window of the box's tmux, where there is tmux; you are told when it has ended. Without --detach its
    output is shown until then, and the exit status is the command's own; what you interrupt is only the showing.
    With --json that output is as in devboxctl logs --follow.
    """
    rest = grammar.rest_of(context)
    if not rest:
        raise UsageError("there is no command to run", "devboxctl run BOX -- COMMAND…")
    job = ask.ask(routes.RUN_JOB, wire.JobRequest(project, rest, session), timeout=ASK)
    if detach:
        if settings.json:
            show.print_json(job)
        else:
            where = f" in {job.window}" if job.window else ""
            show.write(printable(f"{job.id} runs{where}; devboxctl logs -f {project} {job.id}") + "\n")
        return 0
    show.say(f"job {job.id}; interrupting this does not end it")
    return _follow(project, job.id, 0)


def jobs(project: Name) -> None:
    """List the commands that run on a box, and those that have ended."""
    found = ask.ask(routes.LIST_JOBS, wire.ProjectName(project), timeout=ASK)
    if settings.json:
        show.print_json(found)
        return
    rows = [
        (one.id, one.state, one.status, show.minute(one.since), show.minute(one.ended), one.command)
        for one in found.jobs
    ]
    show.print_table(("job", "state", "status", "since", "ended", "command"), rows)


def logs(
    project: Name,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Its id; see devboxctl jobs.")],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until it has ended; with its exit status.")
    ] = False,
) -> int:
    """Show the last output of a job.

    A box keeps the last 2 to 4 MiB of each; of that the last 32 KiB are shown, as text. With --json, as bytes:
    one line for each piece of the output, with --follow until it has ended.
    """
    found = ask.ask(routes.READ_JOB, wire.JobId(project, job), timeout=ASK)
    text = Text()
    _show(found, text, line=follow)
    if not follow:
        _show(None, text)
        return 0
    return _follow(project, job, found.next, text)


def _show(found: wire.JobLog | None, text: Text, *, line: bool = True) -> None:
    """Show a piece of the output, or with None that there is no more: as lines, or with --json each as it came."""
    if not settings.json:
        show.write(text.feed(b"", final=True) if found is None else text.feed(_bytes(found)))
    elif found is not None:
        show.print_json(found, line=line)


def _follow(project: str, job: str, offset: int, text: Text | None = None) -> int:
    text = text or Text()
    while True:
        found = ask.ask(routes.READ_JOB, wire.JobId(project, job, offset, WAIT), timeout=ASK, waits=True)
        is_over = found.job.state != "running" and found.next >= found.job.size
        if found.begun > offset and not settings.json:  # there each piece says where it begins
            show.say(f"{found.begun - offset} bytes were skipped")
        if found.data or is_over:
            _show(found, text)
        if is_over:
            _show(None, text)
            return found.job.status if found.job.status is not None else LOST
        offset = found.next


def _bytes(found: wire.JobLog) -> bytes:
    try:
        return base64.b64decode(found.data, validate=True)
    except ValueError:
        raise client.NotUnderstood(
            "the answer of devboxd was not understood: it is no base64", "try: devboxctl daemon restart"
        ) from None


class Text:
    """Makes lines that are safe to show of the bytes of a terminal, however they are cut."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, data: bytes, *, final: bool = False) -> str:
        """The lines that are whole now; with ``final`` all the rest."""
        text = self._held + self._decoder.decode(data, final)
        end = len(text) if final or len(text) > HELD else text.rfind("\n") + 1
        self._held = text[end:]
        lines = _DRIVES.sub("", text[:end]).split("\n")
        shown = "\n".join(printable(line.rstrip("\r").rpartition("\r")[2], "\t") for line in lines)
        return shown + "\n" if final and shown else shown
