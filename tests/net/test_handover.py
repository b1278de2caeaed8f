"""What one daemon leaves to the next over the connection between them: all of it, or nothing."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from devboxd.net import handover
from devboxd.net.handover import HEAD, MAGIC, READY, Given, ask_for, leave, link_of


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0


def asked(theirs: socket.socket) -> tuple[threading.Thread, list[Given | None]]:
    found: list[Given | None] = []
    thread = threading.Thread(target=lambda: found.append(ask_for(theirs, 10.0)))
    thread.start()
    return thread, found


def test_data_and_descriptors_come_as_they_were() -> None:
    """More descriptors than one message takes, and more data than a socket holds."""
    before = descriptors()
    ours, theirs = socket.socketpair()
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(handover.BATCH * 2 + 7)]
    inodes = [os.fstat(one).st_ino for one in files]
    data = os.urandom(3_000_000)
    with ours, theirs:
        thread, found = asked(theirs)
        assert ours.recv(1) == READY
        assert leave(ours, data, files)
        thread.join(20)
    [given] = found
    assert given is not None
    assert given.data == data
    assert [os.fstat(one).st_ino for one in given.descriptors] == inodes
    assert not any(os.get_inheritable(one) for one in given.descriptors)
    for one in [*files, *given.descriptors]:
        os.close(one)
    assert descriptors() == before


@pytest.mark.parametrize(
    "said",
    [
        b"",
        MAGIC[:3],
        b"x" * HEAD.size,
        HEAD.pack(MAGIC, 0, 10) + b"short",
        HEAD.pack(MAGIC, 3, 0) + b"\0",
        HEAD.pack(MAGIC, handover.MOST_DESCRIPTORS + 1, 0),
        HEAD.pack(MAGIC, 0, handover.MOST_DATA + 1),
    ],
)
def test_whoever_breaks_off_has_left_nothing(said: bytes) -> None:
    before = descriptors()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        thread, found = asked(theirs)
        assert ours.recv(1) == READY
        if said:
            socket.send_fds(ours, [said], [ours.fileno()])
        ours.shutdown(socket.SHUT_WR)
        thread.join(20)
    assert found == [None]
    assert descriptors() == before, "what came beside it is closed"


def test_a_daemon_that_has_ended_takes_nothing() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        assert not leave(ours, b"x" * 1000, [ours.fileno()])
        assert ask_for(ours, 1.0) is None


@pytest.mark.parametrize("given", ["", "x", "-1", "1", "99999999"])
def test_a_link_that_is_none(given: str) -> None:
    environment = {handover.VARIABLE: given}
    assert link_of(environment) is None
    assert not environment


def test_a_link_is_ours_alone() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        number = theirs.detach()
        os.set_inheritable(number, True)
        environment = {handover.VARIABLE: str(number), "OTHER": "1"}
        with link_of(environment) or ours as link:
            assert link.fileno() == number
            assert not link.get_inheritable()
            assert environment == {"OTHER": "1"}
