"""Reaching things on the box, and saying why not."""

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    Address = tuple[int, tuple[Any, ...]]

READ_SIZE = 64 << 10  # bytes that are read or written at once


def reason(number: "int | None", name: object = None) -> str:
    """A failure in a word that is the same in every language, and a sentence that is not."""
    if not number or number not in errno.errorcode:
        return "EIO the box could not do it"
    what = ": " + str(name)[:200] if name else ""
    return errno.errorcode[number] + " " + os.strerror(number) + what


def addresses(host: str, port: int, flags: int = 0) -> "list[Address]":
    """Where a name may be reached; looked up here, on the box. ``AI_NUMERICHOST``: only what needs no looking up."""
    names = ["127.0.0.1", "::1"] if host == "localhost" else [host]
    found: list[Address] = []
    for name in names:
        try:
            for family, _, _, _, address in socket.getaddrinfo(
                name, port, type=socket.SOCK_STREAM, flags=flags
            ):
                found.append((family, address))
        except OSError:
            if name == names[-1] and not found:
                raise
    return found


def connecting(
    rest: "list[Address]", problem: int = errno.EHOSTUNREACH
) -> "tuple[socket.socket, list[Address]]":
    """A socket that connects to the first address that can be tried, and the addresses that are left."""
    for at, (family, address) in enumerate(rest):
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            problem = error.errno or problem
            continue
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        result = sock.connect_ex(address)
        if result in (0, errno.EINPROGRESS):
            return sock, rest[at + 1 :]
        sock.close()
        problem = result
    raise OSError(problem, os.strerror(problem))


def may_connect(peer: "tuple[str, int]") -> bool:
    """Whether the owner of a loopback connection is root (the agent) or this user; unknown: let the secret decide."""
    number = struct.unpack("=I", socket.inet_aton(peer[0]))[0]
    want = f"{number:08X}:{peer[1]:04X}"
    try:
        with open("/proc/net/tcp") as table:
            for line in table:
                fields = line.split()
                if fields[1] == want:
                    return int(fields[7]) in (0, os.getuid())
    except (OSError, ValueError, IndexError):
        pass  # not Linux
    return True
