"""The TCP ports that programs of this machine listen on, at whatever address and of whatever user.

Linux: the kernel's own list (sock_diag(7)), or /proc/net/tcp where that is not to be had. macOS: netstat(1).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import sys
from pathlib import Path
from typing import Any, Final

_SOCK_DIAG: Final = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY: Final = 20  # SOCK_DIAG_BY_FAMILY
_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_DONE: Final = 3  # NLMSG_DONE
_ERROR: Final = 2  # NLMSG_ERROR
_LISTEN: Final = 10  # TCP_LISTEN
_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_REQUEST: Final = struct.Struct("=BBBxI48x")  # inet_diag_req_v2 that asks for any socket of these states
_PORT: Final = struct.Struct(">H")  # of inet_diag_msg, behind family, state, timer and retransmissions
_PROC: Final = re.compile(r"^\s*\d+: [0-9A-F]+:([0-9A-F]{4}) [0-9A-F]+:[0-9A-F]{4} 0A ", re.MULTILINE)
_LISTENS: Final = re.compile(r"^tcp\S*\s+\d+\s+\d+\s+\S*[.:](\d{1,5})\s+\S+\s+LISTEN\b", re.MULTILINE)
NETSTAT: Final = "/usr/sbin/netstat"
NETSTAT_TIMEOUT: Final = 5.0  # seconds


async def listening() -> frozenset[int] | None:
    """The ports, now; None where this system does not say."""
    if sys.platform != "linux":
        return await _by_netstat()
    try:
        return _by_netlink()
    except OSError:  # a container may forbid it
        return _by_proc()


def _by_netlink() -> frozenset[int]:
    ports: set[int] = set()
    netlink: Any = socket  # its names are Linux's only
    with socket.socket(netlink.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.settimeout(0.5)
        for family in (socket.AF_INET, socket.AF_INET6):
            body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 1 << _LISTEN)
            kernel.sendto(_HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _DUMP, 1, 0) + body, (0, 0))
            while _take(kernel.recv(1 << 16), ports):
                pass
    return frozenset(ports)


def _take(answer: bytes, ports: set[int]) -> bool:
    """Add the ports of one datagram of the kernel's; says whether more follow. Raises OSError for a refusal."""
    at = 0
    while at + _HEADER.size <= len(answer):
        length, kind, *_ = _HEADER.unpack_from(answer, at)
        if kind == _DONE:
            return False
        if kind == _ERROR or length < _HEADER.size:
            raise OSError("the kernel does not list its sockets")
        ports.add(_PORT.unpack_from(answer, at + _HEADER.size + 4)[0])
        at += (length + 3) & ~3
    return True


def _by_proc() -> frozenset[int] | None:
    found: set[int] = set()
    can_tell = False
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            found |= in_proc(Path("/proc/net", name).read_text("ascii"))
            can_tell = True
    return frozenset(found) if can_tell else None


def in_proc(text: str) -> set[int]:
    """The ports that listen in ``/proc/net/tcp`` or ``tcp6``."""
    return {int(port, 16) for port in _PROC.findall(text)}


async def _by_netstat() -> frozenset[int] | None:
    try:
        process = await asyncio.create_subprocess_exec(
            NETSTAT, "-an", "-p", "tcp",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
    except OSError:
        return None
    try:
        async with asyncio.timeout(NETSTAT_TIMEOUT):
            out, _ = await process.communicate()
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return frozenset(in_netstat(out.decode("ascii", "replace"))) if process.returncode == 0 else None


def in_netstat(text: str) -> set[int]:
    """The ports that listen in the output of ``netstat -an -p tcp`` of macOS."""
    return {int(port) for port in _LISTENS.findall(text)}
