"""daemon: start, stop and look after devboxd; as a systemd user service where there is one."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from typing import Annotated

import typer

from devboxctl import ask, grammar, show
from devboxctl.commands import service
from devboxctl.fast.reply import UsageError
from devboxctl.options import settings
from devboxd.api import client, routes, starting, wire
from devboxd.text import printable

STOP_TIMEOUT = 30.0  # seconds for the daemon to end what it holds
CLIENTS = ("connection or command", "connections and commands")


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
            f"{show.count(waiting, 'terminal')} wait{'s' if waiting == 1 else ''} for it: devboxctl daemon start"
        )


def restart(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before something is cut.")] = False,
) -> None:
    """Start the daemon anew.

    Commands (exec), plain shells and connections (ssh, forwards) that go over a bridge go on in the new daemon, attached
    terminals join again, and forwards come back by themselves. What has to be cut is said, and on a terminal it
    asks. Where systemd does not start it, the new daemon gets this shell's environment, and the one that runs goes on if
    the new one cannot be started.
    """
    path = client.socket_path()
    held = _held(path)
    if cut := held.cut():
        show.say(f"a restart cuts {cut}")
        if not yes and not settings.json and sys.stdin.isatty() and not _agreed():
            raise typer.Exit(130)
    if not (held.hands_over and _handed_over(path, held)):
        try:
            _end(path, restart=True)
        except client.ClientError as error:
            if not isinstance(error, client.DaemonLost) and error.code != "no-daemon":
                raise
    found = ask.ask(routes.STATUS)
    # A daemon that was left nothing knows of nobody whom it lost.
    handed = found.handed_over or wire.HandedOver(cut=held.kept(), why="the new daemon was left nothing")
    if settings.json:
        show.print_json(
            {
                "running": True,
                "pid": found.pid,
                "daemon_version": found.daemon_version,
                "kept": handed.kept,
                "cut": handed.cut,
                "why": handed.why,
            }
        )
        return
    if handed.kept:
        show.say(f"{show.count(handed.kept, *CLIENTS)} went on")
    if handed.cut:
        was = "was" if handed.cut == 1 else "were"
        show.say(f"{show.count(handed.cut, *CLIENTS)} {was} cut: {handed.why}")
    show.say(f"devboxd {found.daemon_version} is running (pid {found.pid})")


def _handed_over(path: str, held: _Held) -> bool:
    """Have the daemon that runs leave what it holds to a new one; False: it cannot, and nothing was done.

    Raises:
        ClientError: the new one could not be started, and what that means.
    """
    request = ask.spelled(routes.HAND_OVER, None)
    try:
        exchange = client.Exchange.start(
            routes.HAND_OVER.method, request[0], request[1], upgrade=True, start=False
        )
    except client.Refused:
        return False  # it is older than this
    with exchange:
        new = starting.Starting(path, exchange.connection.fileno())
    try:
        if not new.is_ours:
            raise client.ClientError(
                "another devboxctl is starting a daemon just now", "try again in a moment"
            )
        deadline = time.monotonic() + STOP_TIMEOUT
        # Once another has its lock, it has left everything: only its interpreter takes its time to end.
        while starting.process_id(path) in (None, held.pid) and starting.is_alive(held.pid):
            is_late = time.monotonic() > deadline
            if (is_late or not new.alive()) and _goes_on():
                raise _not_started(new, "the daemon that runs goes on, and nothing was cut")
            if is_late:
                starting.end(held.pid)
            time.sleep(0.02)
        _wait_for(path, new, held)
    finally:
        new.release()
    return True


def _goes_on() -> bool:
    """Tell whether the daemon that runs has no mind to end."""
    try:
        return not ask.ask(routes.STATUS, start=False).is_ending
    except client.ClientError:
        return False


def _wait_for(path: str, new: starting.Starting, held: _Held) -> None:
    """Wait until the new daemon answers. Raises ClientError."""
    deadline = time.monotonic() + client.START_TIMEOUT
    while True:
        try:
            client.connect(path).close()
        except OSError:
            pass
        else:
            return
        if not new.alive() or time.monotonic() > deadline:
            lost = held.kept()
            raise _not_started(
                new, f"{show.count(lost, *CLIENTS)} ended with the daemon before it" if lost else ""
            )
        time.sleep(0.02)


def _not_started(new: starting.Starting, meaning: str) -> client.ClientError:
    error = new.failure()
    return client.ClientError(f"{error.message}; {meaning}" if meaning else error.message, error.hint)


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
    goes_on: wire.GoesOn = field(default_factory=wire.GoesOn)  # of these, what a restart does not cut
    pid: int = 0
    hands_over: bool = False  # to a daemon that we start; else its service manager does it

    def cut(self) -> str:
        """Name what a restart cuts; empty if nothing is."""
        kept = self.goes_on
        found = (
            (self.commands - kept.commands, "command"),
            (self.shells - kept.shells, "plain shell"),
            (self.connections - kept.connections, "connection"),
        )
        return ", ".join(show.count(number, what) for number, what in found if number > 0)

    def kept(self) -> int:
        """How many a restart does not cut."""
        return self.goes_on.connections + self.goes_on.commands + self.goes_on.shells


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
        # A daemon that is older than this does not count them, and carries each in a session. One that does has such
        # sessions of its own, too: they prepare a bridge.
        kinds.count("exec") if found.commands is None else found.commands,
        kinds.count("shell") if found.shells is None else found.shells,
        found.piped + sum(forward.connections for forward in forwards),
        found.kept,
        found.pid,
        found.activation != "systemd",
    )


def _end(path: str, *, restart: bool = False) -> int:
    """End the daemon and wait until its process is gone; one that does not answer is made to. Returns its id."""
    try:
        pid = ask.ask(routes.STOP, wire.StopRequest(restart), start=False).pid
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
