"""daemon install and uninstall: devboxd as a systemd user service or a launchd agent, and shell completion."""

from __future__ import annotations

import os
import shutil
import sys

from devboxctl import show
from devboxctl.commands.about import script
from devboxd.api import client

UNITS = ("devboxd.socket", "devboxd.service")
COMPLETIONS = {  # where each shell looks by itself, below the home folder
    "bash": ".local/share/bash-completion/completions/devboxctl",
    "fish": ".config/fish/completions/devboxctl.fish",
}


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
        if unit_is_installed():
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
        f'ExecStart="{python}" -E -P -m devboxd' if line.startswith("ExecStart=") else line
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


def _write(file: str, text: str) -> None:
    if _content(file) == text:
        return
    # Nobody reads it before the reload that follows, and to install again writes it again.
    with open(file, "w", encoding="utf-8") as new:
        new.write(text)
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
