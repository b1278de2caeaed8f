"""What was typed and has not been passed on yet, and the one rule about it: an interrupt overtakes.

Both ends of an attach keep such a queue, devboxctl while the daemon takes nothing and the daemon while the box
takes nothing. Whoever presses Ctrl-C wants what still waits not to happen, as a terminal's own interrupt
throws away what the program has not read.
"""

from __future__ import annotations

INTERRUPT = b"\x03"
PASTE_ENDS = b"\x1b[201~"


class Typed:
    """Bytes in the order in which they were typed. The owner bounds them by looking at the length."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, data: bytes, *, by_hand: bool) -> int:
        """Add what was typed; say how many bytes an interrupt in it has thrown away.

        Args:
            by_hand: a person typed this. An interrupt in a file on its way is a byte like any other.
        """
        waiting = self._waiting
        if not (by_hand and waiting and INTERRUPT in data):
            waiting += data
            return 0
        before, _, after = data.partition(INTERRUPT)
        # A paste that is cut off must still end, or the far end takes the interrupt for pasted text.
        end = PASTE_ENDS if PASTE_ENDS in waiting or PASTE_ENDS in before else b""
        dropped = len(waiting) + len(data)
        self._waiting = bytearray(end + INTERRUPT + after)
        return dropped - len(self._waiting)

    def take(self, most: int) -> bytes:
        """Remove and return up to ``most`` bytes, the oldest first."""
        piece = bytes(self._waiting[:most])
        del self._waiting[: len(piece)]
        return piece

    def clear(self) -> int:
        """Forget all; say how many bytes that were."""
        dropped = len(self._waiting)
        self._waiting.clear()
        return dropped

    def starts_with_interrupt(self) -> int:
        """How many bytes at the front are an interrupt (and the end of a paste before it); 0 where none is."""
        for urgent in (INTERRUPT, PASTE_ENDS + INTERRUPT):
            if self._waiting.startswith(urgent):
                return len(urgent)
        return 0
