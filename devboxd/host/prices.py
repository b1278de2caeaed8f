"""Prices on the disk: a file for each region, replaced as a whole. What can not be read is as if it were not there."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from devboxd.host.files import read_file, replace_file
from devboxd.model.price import Rates

SIZE_MAX: Final = 4 << 20  # bytes; a region has about 200 KiB
_REGION: Final = re.compile(r"[a-z]{2}(?:-[a-z]+)+-\d\Z")

log = logging.getLogger(__name__)


class Kept(msgspec.Struct, frozen=True):
    """Prices and when they were fetched: Unix seconds."""

    fetched: float
    rates: Rates


@dataclass(frozen=True, slots=True)
class PriceFiles:
    """The files of one folder."""

    folder: Path

    def read(self, region: str) -> tuple[float, Rates] | None:
        """What was last saved of a region."""
        if not _REGION.match(region):
            return None
        try:
            found = msgspec.json.decode(read_file(self._path(region), SIZE_MAX), type=Kept)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, RecursionError) as error:
            log.warning("the prices of %s can not be read: %s", region, error)
            return None
        return (found.fetched, found.rates) if found.rates.region == region else None

    def save(self, fetched: float, rates: Rates) -> None:
        """Keep prices. A disk that takes nothing costs a call tomorrow, no more."""
        if not _REGION.match(rates.region):
            return
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._path(rates.region), msgspec.json.encode(Kept(fetched, rates)))
        except OSError as error:
            log.warning("the prices of %s can not be kept: %s", rates.region, error)

    def _path(self, region: str) -> Path:
        return self.folder / f"{region}.json"
