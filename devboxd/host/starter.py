"""Whoever started us and waits for us: it is told why we could not start.

A daemon that a command starts writes to a log that may not be writable, or be long. So the command passes a
descriptor, too (``devboxd.api.starting``); what is written there is the error, a line, its hint, a line, and
``again``, a line, where another daemon is in the way that may soon be gone.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import Final, Self

from devboxd.text import one_line

VARIABLE: Final = "DEVBOX_START_FD"
AGAIN: Final = "again"


class Starter:
    """The descriptor, if there is one. Children never see it."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Self:
        """Take it out of the environment."""
        given = environment.pop(VARIABLE, "")
        if not given.isdecimal() or len(given) > 6 or int(given) < 3:
            return cls(None)
        try:
            os.set_inheritable(int(given), False)
        except OSError:
            return cls(None)
        return cls(int(given))

    def failed(self, message: str, hint: str | None = None, *, again: bool = False) -> None:
        """Say why there will be no daemon; ``again``: the next one may fare better."""
        if self._descriptor is not None:
            words = (one_line(message), one_line(hint or ""), AGAIN if again else "")
            try:
                os.write(self._descriptor, "".join(f"{line}\n" for line in words).encode())
            except OSError:
                pass  # it has given up waiting
        self.done()

    def done(self) -> None:
        """There is nothing more to say."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
