"""The configuration files: read them, watch them, and keep the last good ones when somebody errs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import tomllib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from watchfiles import Change, awatch

from devboxd.host.files import read_file, replace_if_changed, saving
from devboxd.host.paths import Paths
from devboxd.model.config import Config, ConfigInvalid, Layer, Merged, environment_layer, merge

LOOK_EVERY: Final = (
    250  # milliseconds between two looks of watchfiles at what it has noticed; each is a wake-up
)
ADDED: Final = "50-init-user.toml"
SIZE_MAX: Final = 1 << 20  # bytes; more is not a configuration

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is in force. ``error`` is set while the files on disk are worse than that.

    Not ``is_whole``: there is no good configuration, neither now nor from an earlier daemon.
    """

    merged: Merged
    files: tuple[Path, ...]
    error: ConfigInvalid | None = None
    is_whole: bool = True

    @property
    def config(self) -> Config:
        return self.merged.config


class _Kept(msgspec.Struct):
    """The files as they were when they were good; ``main`` is the path of config.toml or what stood for it."""

    main: str
    layers: list[Layer]


@dataclass(slots=True)
class ConfigFiles:
    """config.toml and config.d/*.toml, below DEVBOX_* and flags.

    The last good state of the files is kept in the state folder, for a daemon that finds bad ones at its start.
    """

    paths: Paths
    environment: Mapping[str, str]
    flags: Mapping[str, Any] = field(default_factory=dict)
    _good: Merged | None = None
    _seen: tuple[object, ...] = ()  # the files as they were when they were last read

    def load(self) -> Loaded:
        """Read everything anew. Never raises: a bad file leaves the last good configuration in force."""
        files, self._seen = self._files(), self._stamps()
        try:
            layers = [Layer(str(path), _read(path)) for path in files]
            self._good = merge([*layers, *self._above()])
        except ConfigInvalid as error:
            log.warning("configuration: %s", "; ".join(error.problems))
            if self._good is None:
                self._good = self._recall()
            return Loaded(self._good or merge([]), tuple(files), error, self._good is not None)
        self._keep(layers)
        return Loaded(self._good, tuple(files))

    def _above(self) -> list[Layer]:
        return [environment_layer(self.environment), Layer("flag", self.flags)]

    def _keep(self, layers: list[Layer]) -> None:
        """Remember the files for the next daemon. Without a word where that fails: it is a second parachute."""
        data = msgspec.json.encode({"main": str(self._main()), "layers": layers})
        try:
            replace_if_changed(self.paths.config_copy, data)
        except OSError as error:
            log.info("the last good configuration could not be kept: %s", error)

    def _recall(self) -> Merged | None:
        """What was good at last, below what this daemon's own environment says; None where there is nothing."""
        try:
            kept = msgspec.json.decode(read_file(self.paths.config_copy, 2 * SIZE_MAX), type=_Kept)
            if kept.main != str(self._main()):
                return None  # of another file, which DEVBOX_CONFIG named
            return merge([*kept.layers, *self._above()])
        except (OSError, msgspec.MsgspecError, ConfigInvalid) as error:
            log.info("there is no last good configuration: %s", error)
            return None

    async def watch(self, stop: asyncio.Event | None = None) -> AsyncGenerator[Loaded, None]:
        """Yield again after each change of a file, until ``stop``; about half a second after the change.

        Also after one that nobody was told of (before the watch began, on a network file system): every few
        seconds watchfiles wakes up anyway.
        """
        while stop is None or not stop.is_set():
            folders = self._folders()
            changes = awatch(
                *folders,
                watch_filter=_matters,
                stop_event=stop,
                debounce=200,
                step=LOOK_EVERY,
                recursive=False,
                yield_on_timeout=True,
            )
            async with contextlib.aclosing(changes):
                async for told in changes:
                    if not told and self._stamps() == self._seen:
                        continue
                    yield await asyncio.to_thread(self.load)
                    if self._folders() != folders:
                        break  # a folder has come or gone: watch the new set
                else:
                    return

    def add(self, settings: Mapping[str, Mapping[str, str]]) -> Path | None:
        """Put settings into a file of their own in config.d, beside what it says already.

        Returns: the file; None where DEVBOX_CONFIG names the only one that counts.

        Raises:
            ConfigInvalid: the file has something that was not written here; it stays as it is.
            StateNotSaved.
        """
        if self.environment.get("DEVBOX_CONFIG"):
            return None
        path = self.paths.config_parts / ADDED
        with saving(path):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            tables = _read(path) if path.exists() else {}
            for section, table in settings.items():
                tables.setdefault(section, {}).update(table)
            replace_if_changed(path, _toml(path, tables).encode())
        return path

    def _files(self) -> list[Path]:
        """All files there are, the weakest first."""
        override = self.environment.get("DEVBOX_CONFIG")
        parts = sorted(self.paths.config_parts.glob("*.toml")) if not override else []
        return [path for path in (self._main(), *parts) if path.exists()]

    def _stamps(self) -> tuple[object, ...]:
        """What shows that a file has changed, come or gone."""
        found: list[object] = []
        for path in self._files():
            with contextlib.suppress(OSError):
                status = path.stat()
                found.append((path, status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(found)

    def _main(self) -> Path:
        override = self.environment.get("DEVBOX_CONFIG")
        return Path(override).expanduser() if override else self.paths.config_file

    def _folders(self) -> list[Path]:
        """What to watch: folders, since editors replace files, also those behind symbolic links."""
        found = {self.paths.config, self.paths.config_parts}
        for path in self._files():
            found |= {path.parent, Path(os.path.realpath(path)).parent}
        existing = sorted(folder for folder in found if folder.is_dir())
        return existing or [self.paths.home]


def _matters(change: Change, path: str) -> bool:
    # A folder that comes or goes may be config.d; other files beside ours are none of our business.
    return path.endswith(".toml") or (change is not Change.modified and Path(path).suffix in ("", ".d"))


def _toml(path: Path, tables: Mapping[str, Any]) -> str:
    """A file of tables of texts. Raises ConfigInvalid where there is more in them: that would be lost."""
    lines = ["# written by devboxctl init user; config.toml and this file together hold"]
    for section, table in sorted(tables.items()):
        texts = table if isinstance(table, dict) else {}
        lines += ["", f"[{section}]", *(f"{name} = {_text(one)}" for name, one in texts.items())]
    text = "\n".join(lines) + "\n"
    with contextlib.suppress(tomllib.TOMLDecodeError):
        if tomllib.loads(text) == tables:
            return text
    raise ConfigInvalid(
        [f"{path}: there is more in it than devboxctl init user has written"],
        hint="put that into another file",
    )


def _text(value: object) -> str:
    """A basic string of TOML: what JSON makes of it, but for one character and for those beyond 16 bits."""
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _read(path: Path) -> dict[str, Any]:
    """One file. Raises ConfigInvalid."""
    try:
        # Some editors put a byte order mark in front.
        return tomllib.loads(read_file(path, SIZE_MAX).decode("utf-8-sig"))
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ConfigInvalid([f"{path}: is larger than a configuration can be"]) from error
        raise ConfigInvalid([f"{path}: can not be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigInvalid([f"{path}: is not UTF-8 text"]) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigInvalid([f"{path}: is not TOML: {error}"]) from error
