"""The small state file: what a restart must remember and AWS can not tell. No secrets."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from devboxd.host.files import replace_if_changed

VERSION: Final = 1

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Journal:
    """A JSON object on disk, replaced as a whole.

    A file that can not be read is set aside, not fatal: ``problem`` then says so, in a sentence.
    """

    path: Path
    problem: str | None = None
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def read(self) -> dict[str, Any]:
        """What was last written; empty where there is nothing to read. Never raises."""
        try:
            content = json.loads(self.path.read_bytes())
            if not isinstance(content, dict) or not isinstance(content.get("state"), dict):
                raise ValueError("not a journal")
            if content.get("version") != VERSION:
                raise ValueError(f"version {content.get('version')!r}")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            self._set_aside(error)
            return {}
        state: dict[str, Any] = content["state"]
        return state

    def write(self, state: dict[str, Any]) -> None:
        """Replace the content; durable on return. Blocks for the disk. Raises OSError."""
        data = json.dumps({"version": VERSION, "state": state}, separators=(",", ":")).encode()
        replace_if_changed(self.path, data)

    async def save(self, state: dict[str, Any]) -> None:
        """``write`` in a thread. Writes never overtake each other. Raises OSError."""
        # Serialized here, so that the caller may go on changing its objects.
        data = json.dumps({"version": VERSION, "state": state}, separators=(",", ":")).encode()
        async with self._writing:
            await asyncio.to_thread(replace_if_changed, self.path, data)

    def _set_aside(self, error: Exception) -> None:
        aside = self.path.with_name(f"{self.path.name}.unreadable")
        try:
            os.replace(self.path, aside)
            self.problem = f"the journal could not be read and was set aside as {aside}"
        except OSError:
            self.problem = f"the journal {self.path} could not be read"
        log.warning("%s: %s", self.problem, error)
