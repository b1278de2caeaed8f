"""Our ssh key, the pinned host keys and the generated ssh configuration, on this machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from devboxd.host.files import saving
from devboxd.host.paths import Paths
from devboxd.host.ssh_config import (
    SshConfigState,
    SshEntry,
    SshFiles,
    ensure_identity,
    render,
    write_known_hosts,
)


class Remembered(Protocol):
    """What the daemon keeps of ssh between its lives."""

    @property
    def host_keys(self) -> Mapping[str, Mapping[int, Sequence[str]]]: ...
    @property
    def users(self) -> Mapping[str, str]: ...
    def pin(self, boxes: Sequence[str], port: int, keys: Sequence[str]) -> None: ...
    def note_user(self, box: str, user: str) -> bool: ...


class LocalKeys:
    """Writes what ssh reads. Every method that writes raises StateNotSaved, or Denied, with the path."""

    def __init__(self, paths: Paths, memory: Remembered) -> None:
        self.files = SshFiles(paths.ssh_config, paths.user_ssh_config)
        self._paths = paths
        self._memory = memory

    async def public_key(self) -> str:
        """Our public key, one line; made on first use."""
        with saving(self._paths.identity):
            return await asyncio.to_thread(ensure_identity, self._paths.identity)

    async def pin(self, boxes: Sequence[str], port: int, keys: Sequence[str]) -> None:
        """Replace what is pinned for these boxes."""
        self._memory.pin(boxes, port, keys)
        await self._write_known_hosts()

    def pinned_for(self, box: str, port: int) -> Sequence[str]:
        """What is pinned for a box."""
        return self._memory.host_keys.get(box, {}).get(port, ())

    async def note_user(self, name: str, user: str) -> None:
        """Let the generated configuration log in to this box as ``user``, where there is one."""
        if self._memory.note_user(name, user) and self._paths.ssh_config.exists():
            # Only our own file: whether ~/.ssh/config includes it is the user's to say.
            await asyncio.to_thread(self.files.write_include, self._text(None))

    async def look(self, command: str | None) -> SshConfigState:
        """Compare what is on disk with what would be written."""
        return await asyncio.to_thread(self.files.check, self._text(command))

    async def write(self, command: str | None) -> SshConfigState:
        """Write both files."""
        await self.public_key()
        await self._write_known_hosts()
        return await asyncio.to_thread(self.files.write, self._text(command))

    async def remove(self) -> SshConfigState:
        """Take out what was written."""
        return await asyncio.to_thread(self.files.remove)

    def paths(self) -> tuple[str, str, str]:
        """Identity file, known hosts file, configuration file (written where it is missing or outdated)."""
        self.files.write_include(self._text(None))
        return str(self._paths.identity), str(self._paths.known_hosts), str(self._paths.ssh_config)

    async def _write_known_hosts(self) -> None:
        with saving(self._paths.known_hosts):
            await asyncio.to_thread(write_known_hosts, self._paths.known_hosts, self._memory.host_keys)

    @property
    def _command(self) -> Path | None:
        kept = self.files.command()  # the user may have named one
        if kept is not None and os.access(kept, os.X_OK):
            return kept
        beside = Path(sys.executable).with_name("devboxctl")
        found = beside if beside.exists() else shutil.which("devboxctl")
        return Path(found) if found else None

    def _text(self, command: str | None) -> str:
        path = Path(command) if command else self._command or Path("devboxctl")
        entries = [SshEntry(name, user) for name, user in sorted(self._memory.users.items())]
        return render(path, entries, identity=self._paths.identity, known_hosts=self._paths.known_hosts)
