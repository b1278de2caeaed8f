"""daemon install and uninstall: devboxd as a systemd user service or a launchd agent, and shell completion."""

from __future__ import annotations

import os
import shutil
import sys

from devboxctl import show
from devboxctl.commands.about import script
from devboxctl.fast import reply
from devboxctl.options import settings
from devboxd.api import client, starting
from devboxd.errors import Kind

UNITS = ("devboxd.socket", "devboxd.service")
COMPLETIONS = {  # where each shell looks by itself, below the home folder
    "bash": ".local/share/bash-completion/completions/devboxctl",
    "fish": ".config/fish/completions/devboxctl.fish",
}


class FileNotWritten(client.ClientError):
    """A file of the user's could not be made, changed or removed."""

    code = "file-not-written"
    kind = Kind.FAILED
    retryable = False


def install() -> int:
    """Let systemd or launchd start the daemon when needed.

    Also installs shell completion for the shells that are here.
    """
    if sys.platform == "darwin":
        return _install_launchd()
    folder = unit_folder()
    wrote = [_write(f"{folder}/{name}", unit(name)) for name in UNITS] + _install_completion()
    if not _systemctl("daemon-reload"):
        return _installed(
            wrote,
            None,
            "no systemd user manager answers here; devboxctl starts the daemon by itself when needed",
        )
    if not _systemctl("enable", "--now", "devboxd.socket", quiet=False):
        return reply.show_failure(
            {
                "code": "not-enabled",
                "message": "the socket could not be enabled",
                "hint": "systemctl --user status devboxd.socket",
            }
        )
    return _installed(wrote, "systemd", "installed: systemd starts devboxd on first use")


def _installed(wrote: list[str | None], manager: str | None, text: str) -> int:
    if settings.json:
        show.print_json({"starts": manager, "wrote": [file for file in wrote if file]})
    else:
        show.say(text)
    return 0


def uninstall() -> None:
    """Undo what daemon install has done."""
    removed: list[str | None] = []
    if sys.platform == "darwin":
        import subprocess

        agent = _launch_agent()
        subprocess.run(
            ["launchctl", "bootout", f"gui/{os.getuid()}", agent], check=False, capture_output=True
        )
        removed.append(_remove(agent))
    else:
        if unit_is_installed():
            _systemctl("disable", "--now", *UNITS)
        removed += [_remove(f"{unit_folder()}/{name}") for name in UNITS]
        _systemctl("daemon-reload")
    for shell, below in COMPLETIONS.items():
        file = os.path.expanduser(f"~/{below}")
        if _content(file) == script(shell):
            removed.append(_remove(file))
    if settings.json:
        show.print_json({"removed": [file for file in removed if file]})
    else:
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
        f'ExecStart="{python}" -E -P -m devboxd' if line.startswith("ExecStart=") else line
        for line in text.splitlines()
        if not line.startswith("# `devboxctl daemon install`")
    ]
    return "\n".join(lines) + "\n"


def _install_completion() -> list[str | None]:
    """Put completion where a shell that is installed looks for it; zsh has no such place for one user."""
    wrote = [
        _write(os.path.expanduser(f"~/{below}"), script(shell))
        for shell, below in COMPLETIONS.items()
        if shutil.which(shell)
    ]
    if shutil.which("zsh") and not settings.json:
        show.say('for zsh, add to ~/.zshrc:  eval "$(devboxctl completion zsh)"')
    return wrote


def _install_launchd() -> int:
    import subprocess
    from importlib import resources
    from xml.sax.saxutils import escape

    text = resources.files("devboxd").joinpath("data", "devboxd.plist").read_text("utf-8")
    state = client.state_directory()
    starting.make_folder(state)
    agent = _launch_agent()
    log = escape(f"{state}/{client.LOG_NAME}")
    wrote = [
        _write(agent, text.replace(">PYTHON<", f">{escape(sys.executable)}<").replace(">LOG<", f">{log}<"))
    ]
    wrote += _install_completion()
    done = subprocess.run(["launchctl", "bootstrap", f"gui/{os.getuid()}", agent], check=False)
    if done.returncode != 0:
        return reply.show_failure({"code": "not-enabled", "message": "launchctl did not take the agent"})
    return _installed(wrote, "launchd", "installed: launchd starts devboxd at login")


def _launch_agent() -> str:
    return os.path.expanduser("~/Library/LaunchAgents/devboxd.plist")


def unit_is_installed() -> bool:
    return sys.platform != "darwin" and os.path.exists(f"{unit_folder()}/devboxd.service")


def _systemctl(*words: str, quiet: bool = True) -> bool:
    """Run ``systemctl --user``; True when it worked."""
    import subprocess

    program = shutil.which("systemctl")
    if program is None:
        return False
    done = subprocess.run([program, "--user", *words], check=False, capture_output=quiet)
    return done.returncode == 0


def _write(file: str, text: str) -> str | None:
    """Make a file and the folders above it; returns its path if it has changed. Raises FileNotWritten."""
    if _content(file) == text:
        return None
    # Nobody reads it before the reload that follows, and to install again writes it again.
    try:
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "w", encoding="utf-8") as new:
            new.write(text)
    except OSError as error:
        raise FileNotWritten(f"cannot write {file}: {error.strerror}") from None
    if not settings.json:
        show.say(f"wrote {file}")
    return file


def _remove(file: str) -> str | None:
    """Remove a file; returns its path if it was there. Raises FileNotWritten."""
    try:
        os.unlink(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileNotWritten(f"cannot remove {file}: {error.strerror}") from None
    if not settings.json:
        show.say(f"removed {file}")
    return file


def _content(file: str) -> str | None:
    try:
        with open(file, encoding="utf-8") as found:
            return found.read()
    except (OSError, UnicodeDecodeError):
        return None
