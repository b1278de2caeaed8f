"""Whether a box is still believed to be ready for ssh, and what the end of a connection says about it.

ssh tells nobody why it failed: it hangs up. Where it does so before it has said that it takes the server's keys
(NEWKEYS, RFC 4253, 7.3, in clear), it did not like the host key. After that all is encrypted: a connection that
was denied is short and has carried little, and so has many a good one (``ssh api true``). So the end only raises a
doubt, and a doubt costs one look at the box at the next ssh. Pinned host keys are replaced only where ssh has
refused one, or somebody asks for it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from devboxd.model.retry import wait_before
from devboxd.text import one_line

VALID: Final = 12 * 3600.0  # seconds that a prepared box is taken to stay so
VALID_BAD: Final = 10.0  # the same where something was wrong: the user may mend it any moment
SHORT: Final = 30.0  # seconds: no longer than somebody tries passwords (sshd's LoginGraceTime is 120)
SMALL: Final = 16 << 10  # bytes one way: a handshake, and a dozen of keys that are refused
DOUBT_PAUSE: Final = (
    5.0  # seconds between two looks for doubts: a loop of short commands must not pay each time
)
NEWKEYS: Final = 21  # the message by which a client says that it takes the server's keys (RFC 4250, 4.1.2)
LONGEST_PACKET: Final = 256 << 10  # bytes (OpenSSH, PACKET_MAX_SIZE)
BANNER: Final = b"SSH-"  # how every sshd begins (RFC 4253, 4.2)
# What OpenSSH says in place of that to a connection that is one too many for now: until 9.7, and since.
TURNED_AWAY: Final = (b"Exceeded MaxStartups", b"Not allowed at this time")
MOST_AGAIN: Final = (
    5  # further tries; with the next two 11.5 s at most: some clients wait 15 s for a greeting
)
AGAIN_FIRST: Final = 0.5  # seconds at most before the first of them
AGAIN_LONGEST: Final = 4.0  # seconds at most before any


class Looked(msgspec.Struct, frozen=True):
    """The last look at a box. ``at``: Unix seconds; ``for_doubt``: a doubt was why."""

    at: float
    is_good: bool
    for_doubt: bool = False


class Ended(msgspec.Struct, frozen=True):
    """A connection of ssh that is over: seconds, and bytes to the box and from there.

    ``is_refused``: ssh began to exchange keys and hung up instead of taking the server's.
    """

    seconds: float
    sent: int
    received: int
    is_refused: bool = False


class Doubts(msgspec.Struct, frozen=True):
    """When an ssh last ended as one does that the box denies, and as one that refused the host key. Unix seconds."""

    denied: float | None = None
    refused: float | None = None

    def after(self, ended: Ended, now: float) -> Doubts:
        """The same, and a connection that is over."""
        if ended.is_refused:
            return Doubts(self.denied, now)
        return Doubts(now, self.refused) if is_doubtful(ended) else self


NO_DOUBTS: Final = Doubts()


class Handshake:
    """Reads what a client of ssh sends, as far as that is in clear. Keeps a few bytes at most."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._skip = 0  # bytes of a packet that are still to come
        self._greets = True  # in the client's first line
        self._packets = 0
        self._is_over = False  # it is encrypted from here on, or it is no ssh

    @property
    def is_refused(self) -> bool:
        """Whether it would be a refusal to hang up now: a packet was sent, and not the one that takes the keys."""
        return self._packets > 0 and not self._is_over

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        at = 0
        while at < len(data) and not self._is_over:
            if self._greets:
                end = data.find(b"\n", at)
                self._greets, at = end < 0, (len(data) if end < 0 else end + 1)
            elif self._skip:
                step = min(self._skip, len(data) - at)
                self._skip, at = self._skip - step, at + step
            else:
                step = 6 - len(self._head)  # length, padding, and which message it is
                self._head += data[at : at + step]
                at += step
                if len(self._head) == 6:
                    self._packet(int.from_bytes(self._head[:4], "big"), self._head[5])
                    self._head.clear()

    def _packet(self, length: int, message: int) -> None:
        self._is_over = message == NEWKEYS or not 2 <= length <= LONGEST_PACKET
        self._skip = length - 2
        self._packets += 1


def is_doubtful(ended: Ended) -> bool:
    """Whether ssh may have failed: it ended as it does where a key, of the box or of the user, is wrong."""
    return ended.is_refused or (ended.seconds < SHORT and ended.sent < SMALL and ended.received < SMALL)


def is_doubted(last: Looked, doubts: Doubts) -> bool:
    """Whether ssh ended as failing ones do since the last look."""
    return any(one is not None and one > last.at for one in (doubts.denied, doubts.refused))


def may_replace(last: Looked | None, now: float, doubts: Doubts, *, fresh: bool) -> bool:
    """Whether other host keys than the known ones are taken from the box; else those stay pinned."""
    if last is None or fresh or not 0 <= now - last.at < VALID:
        return True
    return doubts.refused is not None and doubts.refused > last.at


def must_look(
    last: Looked | None,
    now: float,
    doubts: Doubts = NO_DOUBTS,
    *,
    fresh: bool = False,
    hasty: bool = True,
) -> bool:
    """Whether the box has to be looked at before ssh goes on.

    Args:
        now: Unix seconds, as all times here.
        doubts: when ssh last ended as failing ones do.
        fresh: nothing that was found before is to be believed.
        hasty: False: where something was wrong, look again even if that was a moment ago.
    """
    if last is None or may_replace(last, now, doubts, fresh=fresh):
        return True
    age = now - last.at
    if is_doubted(last, doubts) and (not last.for_doubt or age >= DOUBT_PAUSE):
        return True
    return not last.is_good and age >= (VALID_BAD if hasty else 0.0)


def worth_saying(problems: tuple[str, ...], said: tuple[str, ...], *, is_doubted: bool) -> bool:
    """Whether ssh's user should read these problems now: new ones, or such as may have made ssh fail.

    Who has keys of their own on the box is not to read at each ssh that devbox's cannot be put there.
    """
    return bool(problems) and (is_doubted or problems != said)


def is_turned_away(first: bytes) -> bool:
    """Whether these first bytes are those of an sshd that had too many others to do with."""
    return first.startswith(TURNED_AWAY)


def wait_again(first: bytes, tries: int, dice: float) -> float | None:
    """Seconds until another connection is tried in place of one that began so; None where this one is to be used.

    Args:
        tries: how many there were before it.
        dice: a number in [0, 1): those that were one too many together must not come together again.
    """
    if tries >= MOST_AGAIN or not is_turned_away(first):
        return None
    return wait_before(tries, dice, first=AGAIN_FIRST, longest=AGAIN_LONGEST)


def greeting_problem(first: bytes, port: int, box: str) -> str | None:
    """What is odd about the first bytes from a port that ssh connects to; None where it may be an sshd.

    Args:
        first: empty where nothing came for a while.
    """
    if not first:
        return f"port {port} of {box} is silent; sshd would have greeted by now"
    if BANNER.startswith(first[: len(BANNER)]) or any(line.startswith(BANNER) for line in first.split(b"\n")):
        return None
    said = one_line(first[:200].decode("utf-8", "replace"), 80)
    if is_turned_away(first):
        return f"sshd on port {port} of {box} takes no more connections for now: {said!r}"
    return f"port {port} of {box} does not greet as sshd does: {said!r}"
