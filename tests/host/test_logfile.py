"""The log of a daemon without systemd."""

from __future__ import annotations

import os
from pathlib import Path

from devboxd.host.logfile import trim


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
