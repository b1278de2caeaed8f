"""daemon: start, stop and look after devboxd; as a systemd user service where there is one."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from typing import Annotated

import typer

from devboxctl import ask, grammar, show
from devboxctl.commands import service
from devboxctl.fast.reply import UsageError
from devboxctl.options import settings
from devboxd.api import client, routes, starting
from devboxd.text import printable

STOP_TIMEOUT = 30.0  # seconds for the daemon to end what it holds


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = grammar.add_group(app, "daemon", "Look after the daemon.", section=grammar.SELF)
    grammar.add(group, "status", status, examples=["devboxctl daemon status"])
    grammar.add(group, "start", start, examples=["devboxctl daemon start"])
    grammar.add(group, "stop", stop, examples=["devboxctl daemon stop"])
    grammar.add(group, "restart", restart, examples=["devboxctl daemon restart"])
    grammar.add(group, "logs", logs, examples=["devboxctl daemon logs -n 20", "devboxctl daemon logs -f"])
    grammar.add(group, "install", service.install, examples=["devboxctl daemon install"])
    grammar.add(group, "uninstall", service.uninstall, examples=["devboxctl daemon uninstall"])


def status() -> None:
    """Say whether the daemon runs.

    Never starts it. The exit status is 69 if it does not run.
    """
    found = ask.ask(routes.STATUS, start=False)
    if settings.json:
        show.print_json(found)
        return
    show.print_fields(
        [
            ("running", f"{found.daemon_version}, pid {found.pid}, since {show.moment(found.started)}"),
            ("started by", found.activation),
            ("socket", found.socket),
            ("holding", show.holding(found)),
        ]
    )


def start() -> None:
    """Start the daemon if it does not run."""
    found = ask.ask(routes.STATUS)
    if settings.json:
        show.print_json({"running": True, "pid": found.pid, "daemon_version": found.daemon_version})
    else:
        show.say(f"devboxd {found.daemon_version} is running (pid {found.pid})")


def stop() -> None:
    """Stop the daemon, until somebody wants it again.

    Any command that needs it starts it again. Attached terminals and forwards wait until then.
    """
    path = client.socket_path()
    starting.mark_stopped(path, stopped=True)
    waiting = _held(path).attached
    pid = _end(path)
    if settings.json:
        show.print_json({"running": False, "pid": pid, "waiting_terminals": waiting})
        return
    show.say("devboxd has stopped")
    if waiting:
        show.say(
            f"{_count(waiting, 'terminal')} wait{'s' if waiting == 1 else ''} for it: devboxctl daemon start"
        )


def restart(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before something is cut.")] = False,
) -> None:
    """Stop the daemon if it runs, and start it again.

    Attached terminals join again, and forwards come back, by themselves. Running commands (exec), plain
    shells and open connections (ssh, forwards) are cut: on a terminal it says which, and asks.
    """
    path = client.socket_path()
    cut = _held(path).cut()
    if cut:
        show.say(f"a restart cuts {cut}")
        if not yes and not settings.json and sys.stdin.isatty() and not _agreed():
            raise typer.Exit(130)
    try:
        _end(path)
    except client.ClientError as error:
        if not isinstance(error, client.DaemonLost) and error.code != "no-daemon":
            raise
    start()


def _agreed() -> bool:
    sys.stderr.write("go on? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@dataclass(frozen=True)
class _Held:
    """What a daemon holds that does not survive its end, or waits for the next one."""

    attached: int = 0
    commands: int = 0
    shells: int = 0
    connections: int = 0

    def cut(self) -> str:
        """Name what ends with the daemon; empty if nothing does."""
        found = (
            (self.commands, "command"),
            (self.shells, "plain shell"),
            (self.connections, "connection"),
        )
        return ", ".join(_count(number, what) for number, what in found if number)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _held(path: str) -> _Held:
    """Ask what it holds; nothing where it cannot be asked."""
    try:
        found = ask.ask(routes.STATUS, start=False)
        kinds = [session.kind for session in ask.ask(routes.LIST_SESSIONS, start=False).sessions]
        forwards = ask.ask(routes.LIST_FORWARDS, start=False).forwards
    except client.ClientError:
        return _Held()
    return _Held(
        found.attached,
        # A daemon that is older than this does not count them, and carries each in a session.
        max(found.commands, kinds.count("exec")),
        max(found.shells, kinds.count("shell")),
        found.piped + sum(forward.connections for forward in forwards),
    )


def _end(path: str) -> int:
    """End the daemon and wait until its process is gone; one that does not answer is made to. Returns its id."""
    try:
        pid = ask.ask(routes.STOP, start=False).pid
    except client.NotAnswering as error:
        hung = starting.process_id(path)
        if hung is None:
            raise
        show.say(f"{error.message}: ending it")
        starting.end(hung)
        return hung
    if not starting.wait_for_end(pid, STOP_TIMEOUT):
        show.say(f"devboxd (pid {pid}) takes more than {STOP_TIMEOUT:g} s to stop: ending it")
        starting.end(pid)
    return pid


def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it is written.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many lines from the end.")] = 100,
) -> int:
    """Show the log of the daemon."""
    file = f"{client.state_directory()}/{client.LOG_NAME}"
    if service.unit_is_installed() and (journal := shutil.which("journalctl")):
        line = [journal, "--user", "-u", "devboxd", "-n", str(lines), "--no-pager"]
        line += ["-f"] if follow else []
        if not settings.json:
            show.write("")  # so that a closed standard output is noticed here
            os.execv(journal, line)
        return _relay_journal([*line, "-o", "cat"])
    if not os.path.isfile(file):
        raise UsageError(f"there is no log at {file}", "devboxctl daemon start")
    with open(file, "rb") as log:
        _seek_lines(log.fileno(), lines)
        while True:
            for text in log:
                _show_line(text)
            if not follow:
                return 0
            time.sleep(0.25)
            if os.fstat(log.fileno()).st_size < log.tell():
                log.seek(0)  # the daemon has begun it anew


def _relay_journal(line: list[str]) -> int:
    import subprocess

    with subprocess.Popen(line, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for text in process.stdout:
            _show_line(text)
    return process.returncode


def _show_line(line: bytes) -> None:
    """Print a line of the log: as it is, or with ``--json`` always as an object."""
    text = line.decode("utf-8", "replace").rstrip("\n")
    if not settings.json:
        show.write(printable(text, keep="\t") + "\n")
        return
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    show.print_json(found if isinstance(found, dict) else {"message": text}, line=True)


def _seek_lines(descriptor: int, lines: int) -> None:
    """Go to the last ``lines`` lines, looking at no more than the last megabyte."""
    size = os.fstat(descriptor).st_size
    begin = max(0, size - (1 << 20))
    tail = os.pread(descriptor, size - begin, begin)
    at = len(tail)
    for _ in range(lines + tail.endswith(b"\n")):
        at = tail.rfind(b"\n", 0, at)
        if at < 0:
            break
    os.lseek(descriptor, begin + at + 1, os.SEEK_SET)
