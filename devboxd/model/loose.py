"""A client's connection that was let go of by one process, so that another can go on with it."""

from __future__ import annotations

from typing import NamedTuple


class Loose(NamedTuple):
    """``read``: what came from the client and nobody has taken; ``unsent``: what is still to be sent to it.

    The ``descriptor`` is its owner's to close.
    """

    descriptor: int
    read: bytes
    unsent: bytes
