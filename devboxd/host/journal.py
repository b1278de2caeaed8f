"""The small state file: what a restart must remember and AWS can not tell. No secrets."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from devboxd.errors import StateNotSaved
from devboxd.host.files import read_file, replace_if_changed, saving

VERSION: Final = 1
ASIDE_MOST: Final = 9  # unreadable journals that are kept; none is ever written over

SIZE_MAX: Final = 64 << 20  # bytes; a journal with all its bounds reached has far fewer

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Journal:
    """A JSON object on disk, replaced as a whole; and, beside it, a copy of the last one that was good.

    A file that can not be read is set aside, and the copy is used: ``problem`` then says so, in a sentence.
    Where it can not even be set aside, it is never written over.
    """

    path: Path
    problem: str | None = None
    _may_write: bool = True
    _number: Iterator[int] = field(default_factory=itertools.count)
    _last: int = -1  # of the writes that were asked for, the last one that was done
    _writing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def copy(self) -> Path:
        """The journal as the last daemon left it that could be read."""
        return self.path.with_name(f"{self.path.stem}.last{self.path.suffix}")

    def read(self) -> dict[str, Any]:
        """What was last written; empty where there is nothing to read. Never raises."""
        try:
            data = read_file(self.path, SIZE_MAX)
            state = _parsed(data)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            return self._from_copy(error)
        try:
            with saving(self.copy):
                replace_if_changed(self.copy, data)
        except StateNotSaved as error:
            log.warning("%s", error.message)  # the next save of the journal itself says so to the user
        return state

    async def save(self, values: Mapping[str, Any]) -> None:
        """Replace the content, in a thread; durable on return. An older state never takes the place of a newer one.

        Raises: StateNotSaved.
        """
        # Serialized here, so that the caller may go on changing its objects.
        data = json.dumps({"version": VERSION, "state": values}, separators=(",", ":")).encode()
        if not self._may_write:
            raise StateNotSaved(f"{self.problem}; it is not written over", hint=f"move {self.path} away")
        await asyncio.to_thread(self._write, data, next(self._number))

    def _write(self, data: bytes, number: int) -> None:
        # Whoever is cancelled leaves his thread behind, so the order is kept here.
        with self._writing, saving(self.path):
            if number > self._last:
                replace_if_changed(self.path, data)
                self._last = number

    def _from_copy(self, error: Exception) -> dict[str, Any]:
        """Set the journal aside and take the copy."""
        self.problem = f"the journal {self.path} could not be read ({_reason(error)})"
        if (aside := self._set_aside()) is not None:
            self.problem += f" and is kept as {aside.name}"
        log.warning("%s", self.problem)
        try:
            state = _parsed(read_file(self.copy, SIZE_MAX))
        except (OSError, ValueError, RecursionError):
            return {}
        self.problem += "; what its last good copy remembers is back"
        return state

    def _set_aside(self) -> Path | None:
        for number in range(ASIDE_MOST):
            aside = self.path.with_name(f"{self.path.name}.unreadable" + (f".{number}" if number else ""))
            if aside.exists():
                continue
            try:
                os.replace(self.path, aside)
            except OSError:
                break
            return aside
        self._may_write = False
        return None


def _parsed(data: bytes) -> dict[str, Any]:
    """The state in the bytes of a journal. Raises ValueError, RecursionError."""
    content = json.loads(data)
    if not isinstance(content, dict) or not isinstance(content.get("state"), dict):
        raise ValueError("it is not a journal")
    if content.get("version") != VERSION:
        raise ValueError(f"it is of version {content.get('version')!r}, and this devboxd reads {VERSION}")
    state: dict[str, Any] = content["state"]
    return state


def _reason(error: Exception) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
