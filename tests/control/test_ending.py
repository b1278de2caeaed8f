"""How the daemon ends: who goes on with what it holds, and that nothing of it stays open."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from devboxd.control.connect.parcel import Left
from devboxd.control.ending import Ending


class Holder:
    """A daemon, as far as it leaves something."""

    def __init__(self, *descriptors: int) -> None:
        self.left = Left(b"parcel", list(descriptors), {})

    def leave(self) -> Left:
        return self.left


def ended(*, holds: bool = True) -> tuple[Ending, list[tuple[bytes, list[int]]], Any]:
    """An ending, what it gives away, and a daemon."""
    given: list[tuple[bytes, list[int]]] = []

    def leave(link: socket.socket, data: bytes, descriptors: Sequence[int]) -> bool:
        given.append((data, list(descriptors)))
        return True

    return Ending(leave), given, Holder(*([os.open(os.devnull, os.O_RDONLY)] if holds else []))


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_the_daemon_at_the_end_of_a_link_gets_it_and_the_service_manager_nothing() -> None:
    ending, given, daemon = ended()
    ours, theirs = socket.socketpair()
    with theirs:
        ending.hand_over(ours)
        assert (ending.begun.is_set(), ending.starts_again, ending.has_heir(0)) == (True, False, True)
        ending.pack(daemon)
        assert ending.for_manager(64) is None
        ending.leave()
        assert given == [(b"parcel", daemon.left.descriptors)]
        assert theirs.recv(1) == b""
    assert not is_open(daemon.left.descriptors[0])


def test_the_service_manager_keeps_it_where_it_starts_the_next_one_or_something_is_held() -> None:
    for again, holds, wanted in (
        (True, False, True),
        (True, True, True),
        (False, True, True),
        (False, False, False),
    ):
        ending, given, daemon = ended(holds=holds)
        if again:
            ending.hand_over(None)
        assert ending.starts_again == again
        assert (ending.has_heir(64), ending.has_heir(0)) == (True, False)
        ending.pack(daemon)
        assert (ending.for_manager(64) is not None) == wanted
        assert ending.for_manager(0) is None
        ending.leave()
        assert not given
        assert not any(is_open(one) for one in daemon.left.descriptors)


def test_nobody_gets_anything_of_a_daemon_that_ends_for_good() -> None:
    ending, _, _ = ended(holds=False)
    ending.end()
    ours, theirs = socket.socketpair()
    with theirs:
        ending.hand_over(ours)
        assert theirs.recv(1) == b"", "it comes too late"
    assert not ending.has_heir(64)


def test_what_cannot_be_packed_ends_the_daemon_in_order(caplog: pytest.LogCaptureFixture) -> None:
    ending, given, daemon = ended(holds=False)
    daemon.leave = None
    ending.hand_over(None)
    ending.pack(daemon)
    assert (ending.left, ending.for_manager(64)) == (None, None)
    ending.leave()
    assert not given
    assert "is cut" in caplog.text
