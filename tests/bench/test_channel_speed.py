"""How many frames a second one core takes through the data channel, without any I/O.

The real agent sends at most about 750 frames a second per session and takes 45,000 of 1 KiB; so the
channel must never be what limits an upload. Numbers are printed; the bounds are far below them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from devboxd.ssm import frame
from devboxd.ssm.channel import Channel
from devboxd.ssm.limits import BULK, PORT, Limits
from devboxd.ssm.mux import Mux
from devboxd.ssm.payload import PayloadType
from tests.kit.muxserver import MuxServer
from tests.ssm.support import acknowledgement, output, ready_shell

pytestmark = pytest.mark.bench


def rate(name: str, count: int, size: int, work: Callable[[], object]) -> float:
    """Time ``work``, which handles ``count`` frames of ``size`` bytes; print and return frames a second."""
    start = time.perf_counter()
    work()
    per_second = count / (time.perf_counter() - start)
    print(f"\n{name}: {per_second:,.0f} frames/s, {per_second * size / (1 << 20):,.0f} MiB/s")
    return per_second


def upload(channel: Channel, acks: list[bytes], size: int) -> Callable[[], None]:
    """Keep the window full, as a producer behind a fast link does."""
    data = bytes(size * 16)

    def work() -> None:
        sent = answered = 0
        while answered < len(acks):
            while sent < len(acks) and (room := channel.room):
                part = data[: min(room, size * (len(acks) - sent), len(data))]
                sent += len(channel.send(PayloadType.OUTPUT, part, 1.0))
            for _ in range(min(32, sent - answered)):
                channel.received(acks[answered], 1.0)
                answered += 1
            channel.next_deadline()

    return work


def test_download_receive_and_acknowledge() -> None:
    channel = ready_shell(PORT)
    messages = [output(sequence, bytes(1024)) for sequence in range(1, 40_001)]
    assert (
        rate("received and acknowledged, 1 KiB", len(messages), 1024, lambda: take(channel, messages))
        > 20_000
    )


def take(channel: Channel, messages: list[bytes]) -> None:
    for message in messages:
        channel.received(message, 1.0)


def test_download_in_the_worst_order() -> None:
    channel = ready_shell(PORT)
    messages = [output(sequence, bytes(1024)) for sequence in range(1, 20_001)]
    swapped = [message for pair in zip(messages[1::2], messages[::2], strict=True) for message in pair]
    assert rate("the same, each pair swapped", len(messages), 1024, lambda: take(channel, swapped)) > 15_000


@pytest.mark.parametrize(("limits", "size", "count"), [(PORT, 1024, 40_000), (BULK, 32 * 1024, 5_000)])
def test_upload_send_and_be_acknowledged(limits: Limits, size: int, count: int) -> None:
    channel = ready_shell(limits)
    acks = [acknowledgement(sequence) for sequence in range(count)]
    assert rate(f"sent and acknowledged, {size} bytes", count, size, upload(channel, acks, size)) > 8_000


def test_mux_both_ways() -> None:
    mux, server = Mux(), MuxServer()
    stream, syn = mux.open()
    server.received(syn)
    data = bytes(1016)

    def work() -> None:
        for _ in range(50_000):
            server.received(mux.data(stream, data))

    assert rate("smux, written and read", 50_000, 1016, work) > 50_000


def test_decoding_alone() -> None:
    message = output(1, bytes(1024))

    def work() -> None:
        for _ in range(50_000):
            frame.unpack(message)

    assert rate("decoded", 50_000, 1024, work) > 50_000
