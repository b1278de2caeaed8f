"""Whether the program at the other end of a local connection is still there.

An end of input says only that no more will be sent: a client may have closed its sending half and wait for
the answer, or it may be gone. TCP cannot tell the two apart before something is written. For a client on this
machine the system can: it knows the other socket. Source: sock_diag(7).
"""

from __future__ import annotations

import errno
import fcntl
import select
import socket
import struct
import sys
import termios
from typing import Any, Final

_UNSENT: Final = 0x1024  # SO_NWRITE of macOS
_SOCK_DIAG: Final = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY: Final = 20  # SOCK_DIAG_BY_FAMILY
_ERROR: Final = 2  # NLMSG_ERROR
_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_REQUEST: Final = struct.Struct("=BBBxI")  # inet_diag_req_v2: family, protocol, extensions; states
_COOKIE: Final = b"\xff" * 8  # INET_DIAG_NOCOOKIE
_INODE: Final = _HEADER.size + 68  # of inet_diag_msg; 0 where no process has the socket
_NO_ENTRY: Final = -2


def has_left(connection: socket.socket) -> bool | None:
    """Whether the peer's program has closed its end altogether; None where this cannot be told."""
    try:
        if connection.family == socket.AF_UNIX:
            return _has_hung_up(connection)
        if sys.platform == "linux" and connection.family in (socket.AF_INET, socket.AF_INET6):
            return _is_orphan(connection)
    except OSError as error:
        return True if error.errno == errno.ENOTCONN else None  # it was reset
    return None


def unsent(connection: socket.socket) -> int:
    """Bytes that were written and have not reached the peer's system, which a reset would throw away; 0 where unknown."""
    try:
        if connection.family == socket.AF_UNIX:
            return 0  # they are with the peer at once
        if sys.platform == "darwin":
            return connection.getsockopt(socket.SOL_SOCKET, _UNSENT)
        return int(struct.unpack("=i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0])
    except OSError:
        return 0


def _has_hung_up(connection: socket.socket) -> bool:
    """A unix socket says so itself: a closed sending half is no hang-up."""
    poll = select.poll()
    poll.register(connection, 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))


def _is_orphan(connection: socket.socket) -> bool | None:
    """Ask the kernel for the peer's socket: one of this machine that no process holds any more, or that is gone."""
    ours, theirs = connection.getsockname(), connection.getpeername()
    if ours[0] != theirs[0] and not theirs[0].startswith(("127.", "::1")):
        return None  # of another machine, or it looks like one
    family = connection.family
    identity = struct.pack(">HH", theirs[1], ours[1])
    identity += _packed(family, theirs[0]) + _packed(family, ours[0]) + struct.pack("=I", 0) + _COOKIE
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + identity
    request = _HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, 1, 1, 0) + body
    netlink: Any = socket  # its names are Linux's only
    with socket.socket(netlink.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.settimeout(0.1)
        kernel.sendto(request, (0, 0))
        answer = kernel.recv(4096)
    kind = struct.unpack_from("=H", answer, 4)[0]
    if kind == _ERROR:
        return True if struct.unpack_from("=i", answer, _HEADER.size)[0] == _NO_ENTRY else None
    return bool(struct.unpack_from("=I", answer, _INODE)[0] == 0)


def _packed(family: int, address: str) -> bytes:
    return socket.inet_pton(family, address.partition("%")[0]).ljust(16, b"\0")
