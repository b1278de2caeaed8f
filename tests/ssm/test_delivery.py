"""The two halves of delivery on their own: estimates, resends, order, bounds."""

from __future__ import annotations

from typing import Any

import pytest

from devboxd.ssm.delivery import (
    BACK_OFF_MAX,
    EAGER_INTERVAL,
    FIRST_TIMEOUT,
    PAUSED_INTERVAL,
    REMEMBERED,
    RESEND_BATCH,
    Inbox,
    Outbox,
    RoundTrip,
)
from tests.ssm.support import vectors

ID = bytes(16)


def outbox(frames: int = 0, *, size: int = 1, is_up: bool = True) -> Outbox:
    box = Outbox()
    if is_up:
        box.opened(0.0)
    for _ in range(frames):
        box.add(b"frame %d" % box.next_sequence, size, 0.0)
    return box


def inbox(max_frames: int = 100, max_bytes: int = 1000) -> Inbox:
    return Inbox(max_frames, max_bytes)


@pytest.mark.parametrize("vector", vectors("rto")["vectors"], ids=lambda v: str(v["rtt_samples_ms"])[:40])
def test_item_25_the_estimate_is_that_of_the_real_peers(vector: dict[str, Any]) -> None:
    estimate = RoundTrip()
    assert (estimate.smoothed, estimate.timeout) == (0.1, 0.2)
    for sample, expected in zip(vector["rtt_samples_ms"], vector["after_each"], strict=True):
        estimate.sample(sample / 1000)
        assert estimate.timeout * 1000 == pytest.approx(expected["rto_ms"], abs=2e-6)
        assert estimate.smoothed * 1000 == pytest.approx(expected["rtt_ms"], abs=2e-6)
        assert estimate.variation * 1000 == pytest.approx(expected["rttvar_ms"], abs=2e-6)


def test_item_25_a_frame_is_sent_again_when_its_time_is_up_and_then_ever_later() -> None:
    box = outbox(1)
    times = []
    for _ in range(8):
        deadline = box.next_deadline()
        assert deadline is not None
        assert box.due(deadline - 0.001) == []
        assert box.due(deadline) == [b"frame 0"]
        times.append(deadline)
    gaps = [round(after - before, 6) for before, after in zip([0.0, *times], times, strict=False)]
    assert gaps == [0.2, 0.4, 0.8, 1.6, 3.2, BACK_OFF_MAX, BACK_OFF_MAX, BACK_OFF_MAX]


def test_item_25_an_answer_to_a_frame_that_was_sent_twice_is_no_sample() -> None:
    """Which copy was answered? A wrong guess once drove the official client's estimate to its bound."""
    box = outbox(2)
    assert len(box.due(FIRST_TIMEOUT)) == 2
    box.acknowledged(0, 5.0)
    assert box.round_trip.smoothed == 0.1
    box.add(b"new", 1, 6.0)
    box.acknowledged(2, 6.02)
    assert box.round_trip.smoothed == pytest.approx(0.09)


def test_item_25_on_timeout_only_the_oldest_few_are_sent_again() -> None:
    box = outbox(100)
    assert box.due(1.0) == [b"frame %d" % number for number in range(RESEND_BATCH)]


def test_the_oldest_are_found_behind_frames_that_are_gone() -> None:
    box = outbox(1000)
    for number in range(998):
        box.acknowledged(number, 0.1)
    assert box.due(9.0) == [b"frame 998", b"frame 999"]
    assert len(box) == 2


def test_item_26_a_new_link_gets_all_at_once_in_order() -> None:
    box = outbox(300)
    box.acknowledged(7, 0.1)
    box.lost(1.0)
    assert box.next_deadline() is None
    assert box.due(100.0) == []
    assert box.opened(100.0) == [b"frame %d" % number for number in range(300) if number != 7]


def test_frames_written_without_a_link_wait_for_one() -> None:
    box = outbox(is_up=False)
    assert not box.add(b"early", 5, 0.0)
    assert box.opened(50.0) == [b"early"]
    assert box.oldest_since == 50.0
    box.acknowledged(0, 50.04)
    assert box.round_trip.smoothed == pytest.approx(0.0925), "its first copy is a fair sample"


def test_time_without_a_link_does_not_age_a_frame() -> None:
    """A night in a rucksack must not end the session in the morning."""
    box = outbox(1)
    box.lost(10.0)
    box.opened(50_000.0)
    assert box.oldest_since == 50_000.0 - 10.0


def test_item_28_a_pause_stops_resends_but_not_for_ever() -> None:
    box = outbox(20)
    box.paused = True
    assert box.due(PAUSED_INTERVAL - 0.1) == []
    assert box.due(PAUSED_INTERVAL) == [b"frame 0"], "the end of the pause may have been lost"
    box.paused = False
    assert len(box.resend_all(PAUSED_INTERVAL)) == 20


def test_the_first_frame_after_a_handshake_is_repeated_quickly() -> None:
    box = outbox()
    box.add(b"hello", 5, 0.0, eager=True)
    sends, now = 0, 0.0
    while now < 2.0:
        deadline = box.next_deadline()
        assert deadline is not None
        now = deadline
        sends += len(box.due(now))
    assert sends == pytest.approx(2.0 / EAGER_INTERVAL, abs=2)
    assert box.next_deadline() > now + 1.0  # type: ignore[operator]


def test_bytes_are_counted_until_acknowledged_and_once() -> None:
    box = outbox(3, size=10)
    assert box.bytes == 30
    assert box.acknowledged(1, 0.1) is not None
    assert box.acknowledged(1, 0.1) is None
    assert box.acknowledged(99, 0.1) is None
    assert box.acknowledged(-1, 0.1) is None
    assert (box.bytes, len(box)) == (20, 2)


def test_item_21_frames_come_out_in_order_and_once() -> None:
    box = inbox()
    taken = []
    for sequence in (2, 0, 2, 1, 0, 1, 3, 2):
        assert box.accept(sequence, ID, 1, b"%d" % sequence, 0.0), "repeats are acknowledged, too"
        while (found := box.pop(0.0)) is not None:
            taken.append(found[1])
    assert taken == [b"0", b"1", b"2", b"3"]


def test_item_21_what_is_too_far_ahead_is_not_acknowledged() -> None:
    box = inbox(max_frames=10)
    assert box.accept(9, ID, 1, b"", 0.0)
    assert not box.accept(10, ID, 1, b"", 0.0)
    assert not box.accept(2**62, ID, 1, b"", 0.0)
    assert not box.accept(-1, ID, 1, b"", 0.0)


def test_item_21_early_frames_are_bounded_in_bytes_but_the_expected_one_always_fits() -> None:
    box = inbox(max_bytes=1000)
    assert box.accept(1, ID, 1, bytes(600), 0.0)
    assert not box.accept(2, ID, 1, bytes(600), 0.0)
    assert box.accept(0, ID, 1, bytes(600), 0.0)
    assert box.pop(0.0) is not None
    assert box.pop(0.0) is not None
    assert box.early_bytes == 0
    assert box.accept(2, ID, 1, bytes(600), 0.0)


def test_item_24_a_gap_is_final_only_while_the_far_end_talks() -> None:
    box = inbox()
    box.accept(1, ID, 1, b"later", 10.0)
    assert not box.is_torn(30.0, 1000.0), "silence may be a broken link"
    box.heard(27.0)
    assert not box.is_torn(30.0, 39.9)
    assert box.is_torn(30.0, 40.0)
    box.accept(0, ID, 1, b"there it is", 40.0)
    box.pop(40.0)
    box.pop(40.0)
    assert not box.is_torn(30.0, 1000.0)


def test_item_24_a_gap_does_not_age_without_a_link() -> None:
    box = inbox()
    box.accept(1, ID, 1, b"later", 0.0)
    box.lost(5.0)
    box.opened(1005.0)
    box.heard(1024.0)
    assert not box.is_torn(30.0, 1029.0)
    assert box.is_torn(30.0, 1030.0)


def test_the_last_frames_received_are_remembered_for_a_new_link() -> None:
    box = inbox()
    for sequence in range(REMEMBERED + 10):
        assert box.advance(sequence, ID)
    assert [sequence for sequence, _ in box.recent] == list(range(10, REMEMBERED + 10))


def test_early_frames_are_remembered_too_and_each_once() -> None:
    box = inbox()
    for sequence in (2, 1, 2, 0, 1):
        box.accept(sequence, ID, 1, b"x", 0.0)
    assert [sequence for sequence, _ in box.recent] == [2, 1, 0]


def test_a_gap_wakes_nobody_while_there_is_no_link() -> None:
    box = inbox()
    box.accept(1, ID, 1, b"later", 0.0)
    box.heard(20.0)
    assert box.torn_at(30.0) == 30.0
    box.lost(20.0)
    assert box.torn_at(30.0) is None
    assert not box.is_torn(30.0, 1000.0)
