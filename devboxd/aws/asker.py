"""Who waits for an answer at the other end of the API, as far as a call to AWS has to know.

Credentials can take minutes to come, where a person has to do something for them. Whoever waits is told, and a
plain request is answered before its client gives up.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final


def _nobody(text: str) -> None:
    """Nobody can be told anything."""


@dataclass(slots=True, eq=False)
class Asker:
    """One request.

    What goes on behind it, in tasks that it began, is nobody's once ``leave`` was called.

    Attributes:
        tell: says a sentence to whoever waits.
        until: loop time by which there has to be an answer; None: whoever waits does so for ever.
    """

    tell: Callable[[str], None] = _nobody
    until: float | None = None

    def patience(self, now: float) -> float | None:
        """Until when a wait that begins now may go on.

        What has taken longer already is no plain request, and must not fail because its credentials have to be
        renewed on the way.
        """
        return self.until if self.until is not None and self.until > now else None

    def leave(self) -> None:
        """It is over."""
        self.tell, self.until = _nobody, None


ASKER: Final[ContextVar[Asker | None]] = ContextVar("asker", default=None)
