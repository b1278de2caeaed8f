"""The log of a daemon without systemd."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from devboxd.host.logfile import KINDS_MAX, Repeats, trim


def test_a_log_that_is_full_becomes_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "devboxd.log"
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(log, b"1" * 100)
    assert not trim(log, path, 100)
    os.write(log, b"2" * 50)
    assert trim(log, path, 100)
    os.write(log, b"next\n")
    os.close(log)
    assert path.read_bytes() == b"next\n"
    assert (tmp_path / "devboxd.log.1").read_bytes() == b"1" * 50 + b"2" * 50, "the newest of it"


def test_what_is_not_our_log_is_left_alone(tmp_path: Path) -> None:
    """A user may redirect the daemon's output to a file of theirs."""
    path, theirs = tmp_path / "devboxd.log", tmp_path / "mine"
    descriptor = os.open(theirs, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, b"x" * 200)
    assert not trim(descriptor, path, 100)
    path.write_bytes(b"y" * 200)
    assert not trim(descriptor, path, 100)
    os.close(descriptor)
    no_append = os.open(path, os.O_WRONLY)
    assert not trim(no_append, path, 100)
    os.close(no_append)
    assert not trim(-1, path, 100)
    assert (len(path.read_bytes()), len(theirs.read_bytes())) == (200, 200)


def test_the_bound_holds_where_nothing_can_be_copied(tmp_path: Path) -> None:
    """Without a descriptor, or with a full disk: the old lines are lost then, not the disk."""
    log = tmp_path / "devboxd.log"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, b"x" * 150)
    (tmp_path / "devboxd.log.1").mkdir()  # stands for whatever keeps it from being written
    assert not trim(descriptor, log, most=100), "there may be room the next time"
    os.write(descriptor, b"x" * 100)
    assert trim(descriptor, log, most=100)
    assert log.stat().st_size == 0
    os.close(descriptor)


def record(text: str, *args: object, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("devboxd.x", level, __file__, 1, text, args, None)


def test_a_warning_that_repeats_is_written_once_a_minute() -> None:
    """And says how often it was left out; whatever numbers are in it."""
    now = 0.0
    repeats = Repeats(lambda: now)
    passed = []
    for now in range(0, 130, 5):
        one = record("a client announced %d bytes", now)
        if repeats.filter(one):
            passed.append((now, one.getMessage()))
    assert passed == [
        (0, "a client announced 0 bytes"),
        (60, "a client announced 60 bytes (and 11 more like this since)"),
        (120, "a client announced 120 bytes (and 11 more like this since)"),
    ]


def test_what_differs_or_only_informs_is_always_written() -> None:
    """A change of state is one line each."""
    repeats = Repeats(lambda: 0.0)
    assert repeats.filter(record("one"))
    assert repeats.filter(record("two"))
    assert not repeats.filter(record("one"))
    assert repeats.filter(record("one", level=logging.ERROR))
    assert all(repeats.filter(record("joined", level=logging.INFO)) for _ in range(3))


def test_the_kinds_that_are_kept_in_mind_are_bounded() -> None:
    """Texts of a far end must not fill the memory."""
    repeats = Repeats(lambda: 0.0)
    for number in range(3 * KINDS_MAX):
        word = "".join(chr(ord("a") + int(digit)) for digit in str(number))
        assert repeats.filter(record(word))
    assert len(repeats._last) <= KINDS_MAX
