"""Notice that this machine slept, or that its network changed: one stream of events.

Sleep: CLOCK_MONOTONIC stands still while the machine is suspended and CLOCK_BOOTTIME does not; their
drift is the only trace that a night in a rucksack leaves in this process. Looked at every five seconds,
and at every network event, which a waking machine has plenty of.

Network: on Linux the kernel tells (NETLINK_ROUTE); elsewhere we look at the same interval. Many messages
mean nothing (a renewed lease, a scan for access points), so a change is reported only when our addresses
towards the internet or the routes differ from before.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

INTERVAL: Final = 5.0  # seconds between two looks
SETTLE: Final = 0.3  # seconds for a burst of messages to end: one event for all of them
SLEPT: Final = 2.0  # seconds of drift that count as sleep; less is noise

# <linux/rtnetlink.h>: RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE
_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
# Documentation addresses (RFC 5737, RFC 3849): connecting a UDP socket sends nothing.
_PROBES: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_ROUTES: Final = Path("/proc/net/route")

Fingerprint = tuple[object, ...]


class TwoClocks(Protocol):
    """The part of ``host.clock.Clock`` that is needed here."""

    def monotonic(self) -> float: ...
    def boottime(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Wakeup:
    """Something happened to this machine. ``slept``: seconds, 0 for none."""

    slept: float
    network: bool


async def wakeups(
    clock: TwoClocks,
    *,
    interval: float = INTERVAL,
    settle: float = SETTLE,
    look: Callable[[], Fingerprint] | None = None,
    messages: socket.socket | None = None,
) -> AsyncGenerator[Wakeup, None]:
    """Yield each sleep and each network change, close ones together. Runs until it is closed.

    ``look`` and ``messages`` are the views of the network; None takes those of this system. A socket that
    is given is closed at the end.
    """
    look = look or network_fingerprint
    inbox = messages if messages is not None else _netlink()
    loop = asyncio.get_running_loop()
    stirred = asyncio.Event()
    if inbox is not None:
        loop.add_reader(inbox, _drain, inbox, stirred)
    try:
        before, drift = look(), clock.boottime() - clock.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await stirred.wait()
            if stirred.is_set():
                await asyncio.sleep(settle)
                stirred.clear()
            after, drift_now = look(), clock.boottime() - clock.monotonic()
            slept = drift_now - drift if drift_now - drift >= SLEPT else 0.0
            if slept or after != before:
                yield Wakeup(slept=slept, network=after != before)
            before, drift = after, drift_now
    finally:
        if inbox is not None:
            loop.remove_reader(inbox)
            inbox.close()


def network_fingerprint() -> Fingerprint:
    """Our addresses towards the internet, and the IPv4 routes where /proc shows them."""
    found: list[object] = []
    for family, far in _PROBES:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((far, 9))
                found.append(probe.getsockname()[0])
        except OSError:
            found.append(None)
    with contextlib.suppress(OSError):
        lines = _ROUTES.read_text().splitlines()[1:]
        # Interface, destination, gateway and mask; the rest counts uses.
        found.append(frozenset((*fields[:3], fields[7]) for line in lines if len(fields := line.split()) > 7))
    return tuple(found)


def _netlink() -> socket.socket | None:
    """A socket that the kernel tells about links, addresses and routes; None where there is none."""
    platform: str = sys.platform
    if not platform.startswith("linux"):
        return None
    try:
        inbox = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
            socket.NETLINK_ROUTE,
        )
    except OSError:
        return None  # forbidden by a sandbox: the interval has to do
    try:
        inbox.bind((0, _GROUPS))
    except OSError:
        inbox.close()
        return None
    return inbox


def _drain(inbox: socket.socket, stirred: asyncio.Event) -> None:
    """Take all messages; what they say is found by looking. An overrun (ENOBUFS) is a message too."""
    with contextlib.suppress(OSError):
        while inbox.recv(65536):
            pass
    stirred.set()
