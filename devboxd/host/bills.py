"""What Cost Explorer said last, on the disk: it costs a cent each time. What can not be read is as if it were not there."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from devboxd.host.files import read_file, replace_file
from devboxd.model.billed import Billed

SIZE_MAX: Final = 1 << 20  # bytes

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BillFiles:
    """A file for each owner, in one folder."""

    folder: Path

    def read(self, owner: str) -> Billed | None:
        """What was last saved of an owner."""
        try:
            found = msgspec.json.decode(read_file(self._path(owner), SIZE_MAX), type=Billed)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, RecursionError) as error:
            log.warning("the bill can not be read: %s", error)
            return None
        return found if found.owner == owner else None

    def save(self, billed: Billed) -> None:
        """Keep it. What can not be kept is asked for again by the next daemon."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._path(billed.owner), msgspec.json.encode(billed))
        except OSError as error:
            log.warning("the bill can not be kept: %s", error)

    def _path(self, owner: str) -> Path:
        return self.folder / f"billed-{hashlib.sha256(owner.encode()).hexdigest()[:16]}.json"
