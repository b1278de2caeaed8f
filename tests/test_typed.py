"""The queue of typed bytes, and the interrupt that overtakes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devboxd.typed import INTERRUPT, PASTE_ENDS, Typed


@pytest.mark.parametrize(
    ("waiting", "typed", "left", "dropped"),
    [
        (b"", b"a\x03b", b"a\x03b", 0),  # nothing waits, so there is nothing to overtake
        (b"sleep 9\r", b"\x03", b"\x03", 8),
        (b"sleep 9\r", b"ls\x03pwd\r", b"\x03pwd\r", 10),
        (b"sleep 9\r", b"ls\r", b"sleep 9\rls\r", 0),
        (b"\x1b[200~text" + PASTE_ENDS, b"\x03", PASTE_ENDS + b"\x03", 10),
        (b"text", b"more" + PASTE_ENDS + b"\x03", PASTE_ENDS + b"\x03", 8),
    ],
)
def test_an_interrupt_overtakes_what_waits(waiting: bytes, typed: bytes, left: bytes, dropped: int) -> None:
    """And a paste that is cut off still ends: else the far end takes the interrupt for pasted text."""
    queue = Typed()
    queue.put(waiting, by_hand=True)
    assert queue.put(typed, by_hand=True) == dropped
    assert queue.take(1000) == left


def test_an_interrupt_in_a_file_is_a_byte() -> None:
    """``exec -t`` with a pipe."""
    queue = Typed()
    assert queue.put(b"abc", by_hand=False) == queue.put(b"\x03", by_hand=False) == 0
    assert queue.take(9) == b"abc\x03"


@pytest.mark.parametrize(
    ("front", "length"),
    [(b"", 0), (b"a\x03", 0), (b"\x03a", 1), (PASTE_ENDS + b"\x03a", 7), (PASTE_ENDS + b"a", 0)],
)
def test_an_interrupt_at_the_front_is_seen(front: bytes, length: int) -> None:
    """It may use the last bytes of a window."""
    queue = Typed()
    queue.put(front, by_hand=True)
    assert queue.starts_with_interrupt() == length


@given(st.lists(st.binary(max_size=40) | st.sampled_from([INTERRUPT, PASTE_ENDS, b"x" * 9]), max_size=20))
def test_every_byte_is_kept_or_counted(pieces: list[bytes]) -> None:
    """Both ends give credit for what is counted as dropped: one byte off, and a terminal hangs after a while."""
    queue = Typed()
    dropped = sum(queue.put(piece, by_hand=True) for piece in pieces)
    assert dropped + len(queue) == sum(map(len, pieces))
    assert len(queue) == queue.clear()
    assert not queue
