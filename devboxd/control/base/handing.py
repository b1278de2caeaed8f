"""What of this daemon's clients another daemon could go on with. Who serves one offers it, for as long as that holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What a client sees cut where it cannot be kept."""

    CONNECTION = "connection"
    COMMAND = "command"
    SHELL = "shell"
    REST = "rest"  # of a command's output: the command has ended


@dataclass(frozen=True, eq=False, slots=True)
class Offer:
    """One client.

    Attributes:
        pack: puts it into what is handed over, and lets go of it here. It never waits.
        is_ready: whether that could be done now.
    """

    kind: Kind
    pack: Callable[[Any], None]  # what it packs into is the affair of who packs (``connect.parcel.Packing``)
    is_ready: Callable[[], bool]


class Handing:
    """All offers."""

    def __init__(self) -> None:
        self.most = 0  # clients that can be handed over at all
        self._offers: dict[Offer, None] = {}

    @contextmanager
    def offered(self, offer: Offer) -> Iterator[None]:
        """Offer one until the block ends."""
        self._offers[offer] = None
        try:
            yield
        finally:
            del self._offers[offer]

    def counts(self) -> Counter[Kind]:
        """How many could be handed over now."""
        return Counter(offer.kind for offer in self.ready())

    def ready(self) -> list[Offer]:
        """Those that can be handed over now, oldest first."""
        return [offer for offer in self._offers if offer.is_ready()][: self.most]
