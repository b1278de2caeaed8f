"""When a box is looked at again before ssh goes on, and what is said about it."""

from __future__ import annotations

from typing import Any

import pytest

from devboxd.model.ssh import (
    AGAIN_LONGEST,
    DOUBT_PAUSE,
    MOST_AGAIN,
    SHORT,
    SMALL,
    VALID,
    VALID_BAD,
    Doubts,
    Ended,
    Handshake,
    Looked,
    greeting_problem,
    is_doubtful,
    may_replace,
    must_look,
    wait_again,
    worth_saying,
)

GOOD, BAD, DOUBTED = Looked(1000.0, True), Looked(1000.0, False), Looked(1000.0, True, for_doubt=True)


@pytest.mark.parametrize(
    ("last", "after", "more", "expected"),
    [
        (None, 0.0, {}, True),
        (GOOD, 0.0, {}, False),
        (GOOD, VALID - 1, {}, False),
        (GOOD, VALID, {}, True),
        (GOOD, 1.0, {"fresh": True}, True),
        (GOOD, 1.0, {"hasty": False}, False),
        (BAD, VALID_BAD - 1, {}, False),
        (BAD, VALID_BAD, {}, True),
        (BAD, 0.0, {"hasty": False}, True),
        (GOOD, 2.0, {"doubts": Doubts(1001.0)}, True),
        (GOOD, 2.0, {"doubts": Doubts(999.0, 999.0)}, False),  # they ended before we looked
        (GOOD, 0.0, {"doubts": Doubts(1000.0)}, False),
        (DOUBTED, DOUBT_PAUSE - 1, {"doubts": Doubts(1001.0)}, False),  # a loop of short commands
        (DOUBTED, DOUBT_PAUSE, {"doubts": Doubts(1001.0)}, True),
        (DOUBTED, 1.0, {"doubts": Doubts(None, 1000.5)}, True),  # a refused host key is certain
        (DOUBTED, VALID - 1, {}, False),
        (GOOD, -3600.0, {}, True),  # the clock was set back
    ],
)
def test_when_the_box_is_looked_at(
    last: Looked | None, after: float, more: dict[str, Any], expected: bool
) -> None:
    """Too rarely, ssh fails until a restart; too often, every ssh waits for a session."""
    assert must_look(last, 1000.0 + after, **more) is expected


@pytest.mark.parametrize(
    ("last", "after", "doubts", "fresh", "expected"),
    [
        (None, 0.0, Doubts(), False, True),
        (GOOD, 1.0, Doubts(), True, True),
        (GOOD, 1.0, Doubts(1000.5), False, False),  # denied: the host key was right
        (GOOD, 1.0, Doubts(None, 1000.5), False, True),
        (GOOD, 1.0, Doubts(1000.7, 1000.5), False, True),
        (GOOD, 1.0, Doubts(None, 999.0), False, False),
        (BAD, 60.0, Doubts(), False, False),
        (GOOD, VALID, Doubts(), False, True),
        (GOOD, -1.0, Doubts(), False, True),
    ],
)
def test_pinned_host_keys_are_replaced_where_ssh_refused_one_or_somebody_asks(
    last: Looked | None, after: float, doubts: Doubts, fresh: bool, expected: bool
) -> None:
    """Whoever takes the place of sshd on the box is not let in because some short command has ended."""
    assert may_replace(last, 1000.0 + after, doubts, fresh=fresh) is expected


def packet(message: int, size: int = 20) -> bytes:
    """A packet of the handshake: length, padding, message, and the rest."""
    return (size + 2).to_bytes(4, "big") + bytes((4, message)) + bytes(size)


GREETED = b"SSH-2.0-x\r\n"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"", False),
        (GREETED, False),  # the box was slow, or the user had enough
        (GREETED + packet(20, 1500)[:5], False),
        (GREETED + packet(20, 1500), True),
        (GREETED + packet(20, 1500) + packet(30, 1200), True),  # and then the host key was refused
        (GREETED + packet(20) + packet(30) + packet(1), True),  # and said so (SSH_MSG_DISCONNECT)
        (GREETED + packet(20) + packet(30) + packet(21, 10), False),
        (GREETED + packet(20) + packet(30) + packet(21, 10) + b"\0" * 500, False),
        (GREETED + b"\xff" * 500, False),
        (GREETED + b"\0" * 500, False),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", False),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_a_refused_host_key_is_seen_in_what_the_client_sends(sent: bytes, expected: bool, size: int) -> None:
    """However it is cut into pieces."""
    handshake = Handshake()
    for at in range(0, len(sent), size):
        handshake.feed(sent[at : at + size])
    assert handshake.is_refused is expected


def test_what_has_happened_is_kept_until_the_next_look() -> None:
    """A refusal is not forgotten because another ssh was denied after it."""
    seen = Doubts().after(Ended(0.2, 1600, 1700, is_refused=True), 1.0).after(Ended(1.0, 3000, 3000), 2.0)
    assert seen == Doubts(2.0, 1.0)
    assert seen.after(Ended(100.0, 10**6, 10**6), 3.0) == seen


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        (Ended(SHORT + 9, 1600, 1700, is_refused=True), True),  # a host key that is not the pinned one
        (Ended(3.0, 4000, 3600), True),  # Permission denied
        (Ended(SHORT - 1, 4000, 3600), True),  # three passwords
        (Ended(0.1, 0, 40), True),
        (Ended(SHORT, 4000, 3600), False),  # somebody was logged in
        (Ended(1.0, SMALL, 3600), False),  # scp to the box
        (Ended(1.0, 4000, SMALL), False),  # and from it
    ],
)
def test_which_ends_raise_a_doubt(ended: Ended, expected: bool) -> None:
    assert is_doubtful(ended) is expected


@pytest.mark.parametrize(
    ("problems", "said", "doubted", "expected"),
    [
        ((), (), False, False),
        ((), ("a",), True, False),
        (("a",), (), False, True),
        (("a",), ("a",), False, False),
        (("a",), ("a",), True, True),
        (("b",), ("a",), False, True),
    ],
)
def test_a_problem_is_said_once_and_again_where_ssh_failed(
    problems: tuple[str, ...], said: tuple[str, ...], doubted: bool, expected: bool
) -> None:
    """Whoever uses keys of their own reads it once, and not at every git fetch."""
    assert worth_saying(problems, said, is_doubted=doubted) is expected


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (b"SSH-2.0-OpenSSH_9.9\r\n", None),
        (b"SS", None),
        (b"welcome\r\nSSH-2.0-x\r\n", None),
        (b"", "is silent"),
        (b"220 mail ESMTP\r\n", "'220 mail ESMTP'"),
        (b"Not allowed at this time\r\n", "no more connections for now: 'Not allowed at this time'"),
        (b"\x1b[31mred\x9b", "greet"),
        (b"\xff" * 100_000, "greet"),
    ],
)
def test_what_is_no_sshd_is_called_so(first: bytes, expected: str | None) -> None:
    """ssh itself says only that the banner was invalid; what the box said is shown harmless and short."""
    found = greeting_problem(first, 22, "api")
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert expected in found
        assert found.isprintable()
        assert len(found) < 200


@pytest.mark.parametrize(
    ("first", "tries", "expected"),
    [
        (b"Exceeded MaxStartups\r\n", 0, 0.5),
        (b"Not allowed at this time\r\n", 0, 0.5),
        (b"Not allowed at this time\r\n", 1, 1.0),
        (b"Not allowed at this time\r\n", MOST_AGAIN - 1, AGAIN_LONGEST),
        (b"Not allowed at this time\r\n", MOST_AGAIN, None),
        (b"Not allowed\r\n", 0, None),
        (b"SSH-2.0-OpenSSH_9.9\r\n", 0, None),
        (b"", 0, None),
    ],
)
def test_a_connection_that_was_one_too_many_for_sshd_is_tried_again(
    first: bytes, tries: int, expected: float | None
) -> None:
    """A moment later, not all together, and before a client loses its patience."""
    longest = wait_again(first, tries, 0.9999999)
    assert longest == (None if expected is None else pytest.approx(expected, rel=1e-3))
    if expected is not None:
        assert 0 < (wait_again(first, tries, 0.0) or 0) < expected


def test_a_client_has_not_lost_its_patience_at_the_last_try() -> None:
    waits = [wait_again(b"Exceeded MaxStartups\r\n", tries, 1.0) for tries in range(MOST_AGAIN)]
    assert sum(wait or 0 for wait in waits) < 15
