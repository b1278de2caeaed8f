"""How much and how long: the bounds of one data channel. Sources: ``docs/protocol.md``, "Timers"."""

from __future__ import annotations

from typing import Final

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one channel. Seconds count only while a link is up."""

    payload: int = 1024  # bytes per frame that we send
    window_bytes: int = 16 * 1024  # unacknowledged; a stopped terminal program takes about 18 KiB
    window_frames: int = 256
    early_frames: int = 10_000  # of the far end, ahead of a missing one
    early_bytes: int = 16 * 1024 * 1024
    gap: float = 30.0  # a frame missing for so long, while the far end talks, is lost for ever
    give_up: float = (
        24 * 3600.0
    )  # one of our frames without acknowledgement: a stopped program may take a day
    handshake: float = 60.0  # from our answer to the end of the handshake; the far end waits 15 + 15 s
    greeting: float = 10.0  # from there to the first sign that the far end takes data


SHELL: Final = Limits()
"""Terminals: so little on its way that a Ctrl-C behind a paste is still near."""

PORT: Final = Limits(window_bytes=256 * 1024)
"""Port sessions, with the one payload size that is proven on the live service."""

BULK: Final = Limits(payload=32 * 1024, window_bytes=2 * 1024 * 1024)
"""Port sessions with large frames: ten times the throughput of small ones through the real agent."""
