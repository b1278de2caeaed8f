"""From one daemon to the next, over the unix connection that joins them: bytes, and descriptors (SCM_RIGHTS).

The next one says ``READY`` when it could start. The other one then ends what it holds, and says last of all what it
leaves: a head, then a byte for every ``BATCH`` of descriptors, then the data. Whoever breaks off has said nothing.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import MutableMapping, Sequence
from typing import Final, NamedTuple

VARIABLE: Final = "DEVBOX_HAND_OVER_FD"  # devboxd.api.starting sets it
READY: Final = b"R"
HEAD: Final = struct.Struct(">8sIQ")  # magic, descriptors, bytes of data
MAGIC: Final = b"DBXHAND1"
BATCH: Final = 200  # descriptors in one message; the system takes 253
MOST_DESCRIPTORS: Final = 1 << 16
MOST_DATA: Final = 1 << 32  # bytes
WAIT: Final = 40.0  # seconds that the other daemon has to end what it holds
PACE: Final = 10.0  # seconds without progress after which either gives up


class Given(NamedTuple):
    """What was left. The descriptors are the receiver's to close."""

    data: bytes
    descriptors: list[int]


def link_of(environment: MutableMapping[str, str]) -> socket.socket | None:
    """The connection to the daemon that is to leave us what it holds, where there is one. Children never see it."""
    given = environment.pop(VARIABLE, "")
    if not given.isdecimal() or len(given) > 6 or int(given) < 3:
        return None
    try:
        os.set_inheritable(int(given), False)
        return socket.socket(fileno=int(given))
    except OSError:
        return None


def ask_for(link: socket.socket, wait: float = WAIT) -> Given | None:
    """Say that we could start, and wait for what is left to us. None: nothing came, or it broke off."""
    descriptors: list[int] = []
    try:
        link.settimeout(wait)
        link.sendall(READY)
        head = _exactly(link, HEAD.size, descriptors)
        magic, count, size = HEAD.unpack(head)
        if magic != MAGIC or count > MOST_DESCRIPTORS or size > MOST_DATA:
            raise OSError("what was left is none of ours")
        link.settimeout(PACE)
        _exactly(link, -(-count // BATCH), descriptors)
        data = _exactly(link, size, descriptors)
        if len(descriptors) != count:
            raise OSError("descriptors are missing")
    except OSError:
        for descriptor in descriptors:
            os.close(descriptor)
        return None
    return Given(data, descriptors)


def leave(link: socket.socket, data: bytes, descriptors: Sequence[int]) -> bool:
    """Leave it to the daemon at the other end; says whether it took all of it. The descriptors stay ours to close."""
    try:
        link.settimeout(PACE)
        link.sendall(HEAD.pack(MAGIC, len(descriptors), len(data)))
        for at in range(0, len(descriptors), BATCH):
            socket.send_fds(link, [b"\0"], list(descriptors[at : at + BATCH]))
        link.sendall(data)
        link.shutdown(socket.SHUT_WR)
    except OSError:
        return False
    return True


def _exactly(link: socket.socket, size: int, descriptors: list[int]) -> bytes:
    """So many bytes, and the descriptors that come with them. Raises OSError."""
    parts: list[bytes] = []
    while size:
        part, came, flags, _ = socket.recv_fds(link, min(size, 1 << 20), BATCH)
        for descriptor in came:
            os.set_inheritable(descriptor, False)
        descriptors += came
        if flags & socket.MSG_CTRUNC:
            raise OSError("descriptors were lost: the limit of this process is too low")
        if not part:
            raise ConnectionResetError("the other daemon has broken off")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
