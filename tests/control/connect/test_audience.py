"""Terminals without a person, and what a box may fill in them."""

from __future__ import annotations

import asyncio

from devboxd.control.connect.audience import Audience, Capture
from devboxd.control.connect.auto import LONGEST_REPORT, Reports
from devboxd.model.terminal import EndOfInput, Input, Taken
from tests.kit.tasks import beside


async def test_prepared_input_comes_first_and_then_word_of_what_was_taken() -> None:
    """A command that devbox runs itself waits for both."""
    audience = Audience(b"key")
    audience.output(b"hello")
    assert [await audience.receive() for _ in range(3)] == [Input(b"key"), EndOfInput(), Taken(5)]
    waiting = beside(audience.receive())
    await asyncio.sleep(0)
    audience.output(b"x")
    assert await waiting == Taken(1)


async def test_a_million_single_bytes_are_one_number() -> None:
    """They need not be read one by one: a box that sends them fills nothing."""
    audience = Audience()
    for _ in range(100_000):
        audience.output(b"x")
    assert [await audience.receive() for _ in range(2)] == [EndOfInput(), Taken(100_000)]


def test_captured_output_is_bounded() -> None:
    """Whatever the box prints at a question of ours."""
    capture = Capture()
    for _ in range(40):
        capture.output(bytes(100_000))
        capture.output(bytes(100_000), error=True)
    assert len(capture.stdout) == len(capture.stderr) == Capture.LIMIT


def test_of_many_reports_the_latest_counts() -> None:
    """A megabyte of them in one piece froze the daemon for half a minute."""
    noted: list[str] = []
    reports = Reports(noted.append)
    reports.output(b"dec 2000\ndec 3000\n" * 50_000 + b"dec 40")
    reports.output(b"00\ndec 5")
    assert noted == ["dec 3000", "dec 4000"]


def test_a_report_that_never_ends_is_none_and_fills_nothing() -> None:
    """And the next one is read as before, not as the rest of it."""
    noted: list[str] = []
    reports = Reports(noted.append)
    for _ in range(40):
        reports.output(b"dec" + b" 2000" * 5000)
        assert len(reports._buffer) <= LONGEST_REPORT
    reports.output(b"\n")
    assert noted == []
    reports.output(b"dec 1234\n")
    assert noted == ["dec 1234"]
