"""Whose turn it is to act on a project that several daemons share. It saves double work; nothing is safe by it.

No clocks are compared: who acts writes a new nonce again and again, and who has watched one nonce for the whole
time of the lease, on its own clock, may take over.
"""

from __future__ import annotations

from typing import Final

import msgspec

SECONDS: Final = 60.0
RENEW_AFTER: Final = SECONDS / 3


class Lease(msgspec.Struct, frozen=True):
    """Who acts. ``epoch`` counts the changes of holder."""

    holder: str
    nonce: str
    seconds: float = SECONDS
    epoch: int = 1


class Watched(msgspec.Struct, frozen=True):
    """A nonce, and since when we have seen it: seconds on our own monotonic clock."""

    nonce: str = ""
    since: float = 0.0


def watched(lease: Lease | None, before: Watched, at: float) -> Watched:
    """What we know of a lease after a look at it."""
    if lease is None or lease.nonce == before.nonce:
        return before
    return Watched(lease.nonce, at)


def claimed(lease: Lease | None, me: str, nonce: str, known: Watched, at: float) -> Lease | None:
    """The lease as we may write it; None while it is somebody else's turn, or ours for long enough yet."""
    if lease is None:
        return Lease(me, nonce)
    if lease.holder == me:
        return msgspec.structs.replace(lease, nonce=nonce)
    if known.nonce == lease.nonce and at - known.since >= lease.seconds:
        return Lease(me, nonce, epoch=lease.epoch + 1)
    return None
