"""Where devbox keeps things: XDG, and the habits of macOS.

``devboxd.api.client`` has the rules of socket, state and configuration once more, because it may import
nothing; a test compares the two.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from devboxd.errors import Denied


@dataclass(frozen=True, slots=True)
class Paths:
    """Every path of one user. Nothing exists before ``prepare``."""

    home: Path
    socket: Path
    config: Path  # folder
    state: Path  # folder
    socket_is_given: bool = False  # so its folder is somebody's, not ours

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], *, platform: str = sys.platform) -> Self:
        """Apply the rules. Relative XDG values are ignored, as their specification asks."""
        home = Path(environment.get("HOME") or os.path.expanduser("~"))
        mac = home / "Library" / "Application Support"
        state = _absolute(environment, "XDG_STATE_HOME") or (
            mac if platform == "darwin" else home / ".local" / "state"
        )
        config = _absolute(environment, "XDG_CONFIG_HOME") or home / ".config"
        runtime = _absolute(environment, "XDG_RUNTIME_DIR")
        given = environment.get("DEVBOX_SOCKET", "")
        if given:
            socket = Path(os.path.abspath(given))
        elif runtime is not None:
            socket = runtime / "devbox" / "devboxd.sock"
        else:  # macOS, cron: no runtime folder, so a private one of ours
            socket = state / "devbox" / "run" / "devboxd.sock"
        return cls(
            home=home,
            socket=socket,
            config=config / "devbox",
            state=state / "devbox",
            socket_is_given=bool(given),
        )

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def config_parts(self) -> Path:
        """Folder of further ``*.toml``, read in the order of their names."""
        return self.config / "config.d"

    @property
    def projects(self) -> Path:
        """The projects of this machine."""
        return self.state / "projects.db"

    @property
    def projects_lock(self) -> Path:
        """Held by who looks after them."""
        return self.state / "projects.lock"

    @property
    def prices(self) -> Path:
        """Folder of what AWS asks for, by region."""
        return self.state / "prices"

    @property
    def config_copy(self) -> Path:
        """The last good configuration."""
        return self.state / "config.last.json"

    @property
    def journal(self) -> Path:
        return self.state / "journal.json"

    @property
    def log(self) -> Path:
        return self.state / "devboxd.log"

    @property
    def ssh_config(self) -> Path:
        """The generated file that ~/.ssh/config includes."""
        return self.config / "ssh_config"

    @property
    def known_hosts(self) -> Path:
        return self.state / "known_hosts"

    @property
    def identity(self) -> Path:
        """The private key that devbox makes for ssh."""
        return self.state / "id_ed25519"

    @property
    def bridge_key(self) -> Path:
        """The secret of the bridges."""
        return self.state / "bridge.key"

    @property
    def user_ssh_config(self) -> Path:
        return self.home / ".ssh" / "config"

    def prepare(self) -> None:
        """Make the folders, 0700. One that was there keeps its mode, unless it is ours and others may write to it.

        Raises: Denied.
        """
        if not self.home.is_absolute():
            raise Denied(f"{str(self.home)!r} is no home folder", hint="set HOME to a folder of your own")
        for folder in (self.state, self.config):
            private_folder(folder)
        private_folder(self.socket.parent, is_ours=not self.socket_is_given)


def private_folder(folder: Path, *, is_ours: bool = True) -> None:
    """Make a folder that only this user can enter, whatever the umask, and those that are missing above it.

    Args:
        is_ours: it is for us alone, so write permission of others on an old one is a slip, and taken away. The
            mode of a folder that the user named is the user's to choose.

    Raises: Denied when it belongs to somebody else, others may write to it, or it can not be made.
    """
    try:
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        for one in reversed(missing):
            one.mkdir(mode=0o700, exist_ok=True)
        found = folder.stat()
        if found.st_uid != os.geteuid():
            raise Denied(
                f"{folder} belongs to another user", hint="is HOME right? Do not run devbox with sudo"
            )
        if found.st_mode & 0o022 and not is_ours:
            raise Denied(
                f"others may write to {folder}, so a socket there is not safe",
                hint="aim DEVBOX_SOCKET at a folder of your own, or unset it",
            )
        if found.st_mode & 0o022:
            folder.chmod(found.st_mode & 0o755)
    except OSError as error:
        raise Denied(f"{folder} can not be used: {error.strerror}") from error


def _absolute(environment: Mapping[str, str], name: str) -> Path | None:
    value = environment.get(name, "")
    return Path(value) if value.startswith("/") else None
