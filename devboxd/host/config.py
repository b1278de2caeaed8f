"""The configuration files: read them, watch them, and keep the last good ones when somebody errs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tomllib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from watchfiles import Change, awatch

from devboxd.host.paths import Paths
from devboxd.model.config import Config, ConfigInvalid, Layer, Merged, environment_layer, merge

LOOK_EVERY: Final = (
    250  # milliseconds between two looks of watchfiles at what it has noticed; each is a wake-up
)
PROJECT_FILE: Final = "devbox.toml"
SIZE_MAX: Final = 1 << 20  # bytes; more is not a configuration

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is in force. ``error`` is set while the files on disk are worse than that."""

    merged: Merged
    files: tuple[Path, ...]
    error: ConfigInvalid | None = None

    @property
    def config(self) -> Config:
        return self.merged.config


@dataclass(slots=True)
class ConfigFiles:
    """config.toml, config.d/*.toml and perhaps a project's devbox.toml, below DEVBOX_* and flags."""

    paths: Paths
    environment: Mapping[str, str]
    project: Path | None = None  # a devbox.toml, see find_project_file
    flags: Mapping[str, Any] = field(default_factory=dict)
    _good: Merged | None = None

    def load(self) -> Loaded:
        """Read everything anew. Never raises: a bad file leaves the last good configuration in force."""
        files = self._files()
        try:
            layers = [Layer(str(path), _read(path)) for path in files]
            layers += [environment_layer(self.environment), Layer("flag", self.flags)]
            self._good = merge(layers)
        except ConfigInvalid as error:
            log.warning("configuration: %s", "; ".join(error.problems))
            if self._good is None:
                self._good = _without_files(self.environment)
            return Loaded(self._good, tuple(files), error)
        return Loaded(self._good, tuple(files))

    async def watch(self, stop: asyncio.Event | None = None) -> AsyncGenerator[Loaded, None]:
        """Yield again after each change of a file, until ``stop``; about half a second after the change."""
        while stop is None or not stop.is_set():
            folders = self._folders()
            changes = awatch(
                *folders,
                watch_filter=_matters,
                stop_event=stop,
                debounce=200,
                step=LOOK_EVERY,
                recursive=False,
            )
            async with contextlib.aclosing(changes):
                async for _ in changes:
                    yield await asyncio.to_thread(self.load)
                    if self._folders() != folders:
                        break  # a folder has come or gone: watch the new set
                else:
                    return

    def _files(self) -> list[Path]:
        """All files there are, the weakest first."""
        override = self.environment.get("DEVBOX_CONFIG")
        main = Path(override).expanduser() if override else self.paths.config_file
        parts = sorted(self.paths.config_parts.glob("*.toml")) if not override else []
        return [path for path in (main, *parts, *([self.project] if self.project else ())) if path.exists()]

    def _folders(self) -> list[Path]:
        """What to watch: folders, since editors replace files, also those behind symbolic links."""
        found = {self.paths.config, self.paths.config_parts}
        for path in self._files():
            found |= {path.parent, Path(os.path.realpath(path)).parent}
        existing = sorted(folder for folder in found if folder.is_dir())
        return existing or [self.paths.home]


def find_project_file(start: Path, home: Path) -> Path | None:
    """The nearest devbox.toml from ``start`` upward, not above ``home`` or a folder of somebody else."""
    start = Path(os.path.abspath(start))
    for folder in (start, *start.parents):
        candidate = folder / PROJECT_FILE
        try:
            if folder.stat().st_uid not in (os.geteuid(), 0):
                return None  # in /tmp and the like anybody could put one
            if candidate.is_file():
                return candidate
        except OSError:
            return None
        if folder == home:
            return None
    return None


def _matters(change: Change, path: str) -> bool:
    # A folder that comes or goes may be config.d; other files beside ours are none of our business.
    return path.endswith(".toml") or (change is not Change.modified and Path(path).suffix in ("", ".d"))


def _read(path: Path) -> dict[str, Any]:
    """One file. Raises ConfigInvalid."""
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_MAX + 1)
        if len(data) > SIZE_MAX:
            raise ConfigInvalid([f"{path}: is larger than a configuration can be"])
        return tomllib.loads(data.decode())
    except OSError as error:
        raise ConfigInvalid([f"{path}: can not be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigInvalid([f"{path}: is not UTF-8 text"]) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigInvalid([f"{path}: is not TOML: {error}"]) from error


def _without_files(environment: Mapping[str, str]) -> Merged:
    """What holds when the very first configuration is bad: the environment where that is good."""
    try:
        return merge([environment_layer(environment)])
    except ConfigInvalid:
        return merge([])
