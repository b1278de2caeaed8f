"""daemon: start, stop and look after devboxd; as a systemd user service where there is one."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import Annotated

import typer

from devboxctl import ask, grammar, show
from devboxctl.commands.about import script
from devboxctl.fast.reply import UsageError
from devboxctl.options import settings
from devboxd.api import client, routes
from devboxd.text import printable

STOP_TIMEOUT = 30.0  # seconds for the daemon to end what it holds
UNITS = ("devboxd.socket", "devboxd.service")
COMPLETIONS = {  # where each shell looks by itself, below the home folder
    "bash": ".local/share/bash-completion/completions/devboxctl",
    "fish": ".config/fish/completions/devboxctl.fish",
}


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = grammar.add_group(app, "daemon", "Look after the daemon.", section=grammar.SELF)
    grammar.add(group, "status", status, examples=["devboxctl daemon status"])
    grammar.add(group, "start", start, examples=["devboxctl daemon start"])
    grammar.add(group, "stop", stop, examples=["devboxctl daemon stop"])
    grammar.add(group, "restart", restart, examples=["devboxctl daemon restart"])
    grammar.add(group, "logs", logs, examples=["devboxctl daemon logs -n 20", "devboxctl daemon logs -f"])
    grammar.add(group, "install", install, examples=["devboxctl daemon install"])
    grammar.add(group, "uninstall", uninstall, examples=["devboxctl daemon uninstall"])


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
            ("running", f"{found.daemon_version}, pid {found.pid}, since {found.started}"),
            ("started by", found.activation),
            ("socket", found.socket),
            ("holding", f"{found.sessions} sessions, {found.forwards} forwards, {found.attached} terminals"),
        ]
    )


def start() -> None:
    """Start the daemon if it does not run."""
    found = ask.ask(routes.STATUS)
    show.say(f"devboxd {found.daemon_version} is running (pid {found.pid})")


def stop() -> None:
    """Stop the daemon.

    Terminals and forwards wait for the next one.
    """
    _stop()
    show.say("devboxd has stopped")


def restart() -> None:
    """Stop the daemon if it runs, and start it again.

    Attached terminals join again, and forwards come back, by themselves.
    """
    try:
        _stop()
    except client.ClientError as error:
        if not isinstance(error, client.DaemonLost) and error.code != "no-daemon":
            raise
    start()


def _stop() -> None:
    """Ask the daemon to stop and wait until that process is gone."""
    pid = ask.ask(routes.STOP, start=False).pid
    until = time.monotonic() + STOP_TIMEOUT
    while _is_alive(pid):
        if time.monotonic() > until:
            raise client.ClientError(f"devboxd (pid {pid}) is still running", f"to end it: kill {pid}")
        time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    # A zombie is gone for every purpose: one of ours, or (in containers) one that nobody waits for.
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            if stat.read().rpartition(b")")[2].split()[:1] == [b"Z"]:
                return False
    except OSError:
        pass  # macOS, or just gone
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return True


def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it is written.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many lines from the end.")] = 100,
) -> int:
    """Show the log of the daemon."""
    file = f"{client.state_directory()}/{client.LOG_NAME}"
    sys.stdout.flush()
    if _unit_is_installed() and (journal := shutil.which("journalctl")):
        line = [journal, "--user", "-u", "devboxd", "-n", str(lines), "--no-pager"]
        os.execv(journal, [*line, "-f"] if follow else line)
    if not os.path.exists(file):
        raise UsageError(f"there is no log at {file}", "devboxctl daemon start")
    with open(file, "rb") as log:
        _seek_lines(log.fileno(), lines)
        while True:
            for text in log:
                show.write(printable(text.decode("utf-8", "replace").rstrip("\n"), keep="\t") + "\n")
            if not follow:
                return 0
            time.sleep(0.25)


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


# Installing.


def install() -> int:
    """Let systemd or launchd start the daemon when needed.

    Also installs shell completion for the shells that are here.
    """
    if sys.platform == "darwin":
        return _install_launchd()
    folder = unit_folder()
    os.makedirs(folder, exist_ok=True)
    for name in UNITS:
        _write(f"{folder}/{name}", unit(name))
    _install_completion()
    if not _systemctl("daemon-reload"):
        show.say("no systemd user manager answers here; devboxctl starts the daemon by itself when needed")
        return 0
    if not _systemctl("enable", "--now", "devboxd.socket", quiet=False):
        show.say("error: the socket could not be enabled")
        show.say("hint: systemctl --user status devboxd.socket")
        return 1
    show.say("installed: systemd starts devboxd on first use")
    return 0


def uninstall() -> None:
    """Undo what daemon install has done."""
    if sys.platform == "darwin":
        import subprocess

        agent = _launch_agent()
        subprocess.run(
            ["launchctl", "bootout", f"gui/{os.getuid()}", agent], check=False, capture_output=True
        )
        _remove(agent)
    else:
        if _unit_is_installed():
            _systemctl("disable", "--now", *UNITS)
        for name in UNITS:
            _remove(f"{unit_folder()}/{name}")
        _systemctl("daemon-reload")
    for shell, below in COMPLETIONS.items():
        file = os.path.expanduser(f"~/{below}")
        if _content(file) == script(shell):
            _remove(file)
    show.say("uninstalled; settings, state and logs were kept")


def unit_folder() -> str:
    """Name the folder of the user's own systemd units."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    return (given if given.startswith("/") else os.path.expanduser("~/.config")) + "/systemd/user"


def unit(name: str) -> str:
    """Build a unit from the one that ships with devboxd: the same but for the interpreter it starts."""
    from importlib import resources

    text = resources.files("devboxd").joinpath("data", name).read_text("utf-8")
    # systemd expands $ and % in ExecStart= and splits at blanks.
    python = sys.executable.replace("%", "%%").replace("$", "$$").replace("\\", "\\\\").replace('"', '\\"')
    lines = [
        f'ExecStart="{python}" -P -m devboxd' if line.startswith("ExecStart=") else line
        for line in text.splitlines()
        if not line.startswith("# `devboxctl daemon install`")
    ]
    return "\n".join(lines) + "\n"


def _install_completion() -> None:
    """Put completion where a shell that is installed looks for it; zsh has no such place for one user."""
    for shell, below in COMPLETIONS.items():
        if shutil.which(shell):
            file = os.path.expanduser(f"~/{below}")
            os.makedirs(os.path.dirname(file), exist_ok=True)
            _write(file, script(shell))
    if shutil.which("zsh"):
        show.say('for zsh, add to ~/.zshrc:  eval "$(devboxctl completion zsh)"')


def _install_launchd() -> int:
    import subprocess
    from importlib import resources
    from xml.sax.saxutils import escape

    text = resources.files("devboxd").joinpath("data", "devboxd.plist").read_text("utf-8")
    state = client.state_directory()
    os.makedirs(state, mode=0o700, exist_ok=True)
    agent = _launch_agent()
    os.makedirs(os.path.dirname(agent), exist_ok=True)
    log = escape(f"{state}/{client.LOG_NAME}")
    _write(agent, text.replace(">PYTHON<", f">{escape(sys.executable)}<").replace(">LOG<", f">{log}<"))
    _install_completion()
    done = subprocess.run(["launchctl", "bootstrap", f"gui/{os.getuid()}", agent], check=False)
    if done.returncode != 0:
        show.say("error: launchctl did not take the agent")
        return 1
    show.say("installed: launchd starts devboxd at login")
    return 0


def _launch_agent() -> str:
    return os.path.expanduser("~/Library/LaunchAgents/devboxd.plist")


def _unit_is_installed() -> bool:
    return sys.platform != "darwin" and os.path.exists(f"{unit_folder()}/devboxd.service")


def _systemctl(*words: str, quiet: bool = True) -> bool:
    """Run ``systemctl --user``; True when it worked."""
    import subprocess

    program = shutil.which("systemctl")
    if program is None:
        return False
    done = subprocess.run([program, "--user", *words], check=False, capture_output=quiet)
    return done.returncode == 0


def _write(file: str, text: str) -> None:
    if _content(file) == text:
        return
    temporary = f"{file}.new"
    with open(temporary, "w", encoding="utf-8") as new:
        new.write(text)
    os.replace(temporary, file)
    show.say(f"wrote {file}")


def _remove(file: str) -> None:
    try:
        os.unlink(file)
    except FileNotFoundError:
        return
    show.say(f"removed {file}")


def _content(file: str) -> str | None:
    try:
        with open(file, encoding="utf-8") as found:
            return found.read()
    except (OSError, UnicodeDecodeError):
        return None
