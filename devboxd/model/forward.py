"""A forward as asked for, and how its ends are named."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from devboxd.errors import BadRequest

AUTO_LOWEST = 1024  # ports below are the system's: never mirrored unasked
AUTO_IGNORED = frozenset({22, 53, 68, 111, 323, 631, 5353, 5355})


class ForwardState(StrEnum):
    """Where a forward stands."""

    LISTENING = "listening"
    CONNECTING = "connecting"
    ONLINE = "online"
    RECONNECTING = "reconnecting"
    FAILED = "failed"
    REMOVED = "removed"


class Spec(msgspec.Struct, frozen=True):
    """One forward. ``port`` is 0 for a dynamic one; ``local_port`` None asks for the same number."""

    port: int = 0
    host: str | None = None
    local_port: int | None = None
    local_path: str | None = None
    bind: str = "127.0.0.1"
    dynamic: bool = False
    strict: bool = True

    @property
    def remote(self) -> str:
        """The far end, as shown to people."""
        if self.dynamic:
            return "socks5"
        return f"{bracket(self.host)}:{self.port}" if self.host else str(self.port)


def bracket(host: str) -> str:
    """An address as it stands in front of a port."""
    return f"[{host}]" if ":" in host else host


def check(spec: Spec) -> Spec:
    """Return ``spec`` if it can be.

    Raises:
        BadRequest: a port out of range, or both and neither kind of far end.
    """
    if spec.dynamic == bool(spec.port):
        raise BadRequest("a forward has either a port on the box or is dynamic")
    if spec.port and not 0 < spec.port < 65536:
        raise BadRequest(f"{spec.port} is no port", hint="ports are 1 to 65535")
    if spec.local_port is not None and not 0 <= spec.local_port < 65536:
        raise BadRequest(f"{spec.local_port} is no local port", hint="0 to 65535; 0 picks a free one")
    if spec.local_path is not None and len(spec.local_path.encode()) > 100:
        raise BadRequest("the path of the local socket is too long", hint="unix sockets take about 100 bytes")
    if spec.host is not None and (not spec.host or any(c.isspace() for c in spec.host)):
        raise BadRequest(f"{spec.host!r} is no host")
    return spec


def mirrored(listening: set[int], known: set[int]) -> tuple[set[int], set[int]]:
    """Say which ports an auto forward adds and drops, from what listens on the box and what it mirrors."""
    wanted = {port for port in listening if port >= AUTO_LOWEST and port not in AUTO_IGNORED}
    return wanted - known, known - wanted
