"""A forward as asked for, and how its ends are named."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

import msgspec

from devboxd.errors import BadRequest
from devboxd.model.box import BoxRef
from devboxd.model.session import SessionState

AUTO_LOWEST = 1024  # ports below are the system's: never mirrored unasked
HOST_MAX = 255  # bytes of a name (RFC 1035, 3.1)
_NOT_IN_HOST = frozenset(" /~@?#\\")  # an address (URL) or a path was meant
PATH_MAX = 100  # bytes of the path of a unix socket that every system takes
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
    """One forward. ``port`` is 0 for a dynamic one and for a ``path``; ``local_port`` None asks for the same number.

    With ``reverse`` the box listens, on ``port`` or at ``path``, and the local end is what that leads to.
    """

    port: int = 0
    host: str | None = None
    local_port: int | None = None
    local_path: str | None = None
    bind: str = "localhost"  # both loopback addresses: a browser tries both
    dynamic: bool = False
    strict: bool = True
    path: str | None = None  # a unix socket on the box
    reverse: bool = False

    @property
    def remote(self) -> str:
        """The far end, as shown to people."""
        if self.dynamic:
            return "socks5"
        if self.path is not None:
            return self.path
        return f"{bracket(self.host)}:{self.port}" if self.host else str(self.port)


class Saved(msgspec.Struct, frozen=True):
    """A forward as the journal keeps it."""

    id: str
    box: BoxRef
    spec: Spec | None  # None: auto


def bracket(host: str) -> str:
    """An address as it stands in front of a port."""
    return f"[{host}]" if ":" in host else host


def check(spec: Spec) -> Spec:
    """Return ``spec`` if it can be.

    Raises:
        BadRequest: a port out of range, or both and neither kind of far end.
    """
    if [spec.dynamic, bool(spec.port), spec.path is not None].count(True) != 1:
        raise BadRequest("a forward has either a port or a socket on the box, or is dynamic")
    _check_far_end(spec)
    if spec.port and not 0 < spec.port < 65536:
        raise BadRequest(f"{spec.port} is no port", hint="ports are 1 to 65535")
    if spec.local_port is not None and not 0 <= spec.local_port < 65536:
        raise BadRequest(f"{spec.local_port} is no local port", hint="0 to 65535; 0 picks a free one")
    if spec.local_path is not None:
        _check_path(spec.local_path)
    if spec.host is not None and (not spec.host or not _is_host(spec.host)):
        raise BadRequest(f"{spec.host[:HOST_MAX]!r} is no host", hint=_no_host(spec.host))
    if not _is_host(spec.bind):
        raise BadRequest(
            f"{spec.bind[:HOST_MAX]!r} is no address to listen on", hint="127.0.0.1, for example"
        )
    return spec


def _check_far_end(spec: Spec) -> None:
    """Refuse a socket or a listener on the box that cannot be."""
    if spec.path is not None:
        if not spec.path.startswith(("/", "~/")) or not spec.path.isprintable():
            raise BadRequest(f"{spec.path[:PATH_MAX]!r} is no path on a box", hint="begin it with / or ~/")
        _check_path(spec.path)
        if spec.host is not None:
            raise BadRequest("a socket is on the box itself, not on a host that it reaches")
        if spec.local_port is None and spec.local_path is None:
            raise BadRequest(f"{spec.path} needs a local end", hint=f"8080:{spec.path}, for example")
    if spec.reverse and (spec.dynamic or spec.host is not None):
        raise BadRequest("a reverse forward listens on the box: on a port or at a path")
    if spec.reverse and spec.local_port == 0:
        raise BadRequest("a reverse forward leads to a port here, and 0 is none")


def _check_path(path: str) -> None:
    if len(_encoded(path)) > PATH_MAX:
        raise BadRequest("the path of the socket is too long", hint="unix sockets take about 100 bytes")
    if not path or "\0" in path:
        raise BadRequest(f"{path!r} is no path")


def _is_host(text: str) -> bool:
    return len(_encoded(text)) <= HOST_MAX and text.isprintable() and _NOT_IN_HOST.isdisjoint(text)


def _no_host(text: str) -> str:
    """What was meant instead."""
    if "://" in text:
        return "leave out http:// and all behind the port: 8080:HOST:80, for example"
    if "/" in text:
        return "a socket on the box begins with / or ~/, one on this machine with /, ~/, ./ or ../"
    return "a name or an address, as the box knows it"


def _encoded(text: str) -> bytes:
    """As bytes. Raises BadRequest for what JSON can say and no system can take: half a surrogate pair."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise BadRequest(f"{text!r} is no text") from error


def mirrored(listening: set[int], known: set[int]) -> tuple[set[int], set[int]]:
    """Say which ports an auto forward adds and drops, from what listens on the box and what it mirrors."""
    wanted = {port for port in listening if port >= AUTO_LOWEST and port not in AUTO_IGNORED}
    return wanted - known, known - wanted


def overlap(one: str, other: str) -> bool:
    """Say whether two addresses to listen on can be in each other's way."""
    everywhere, here = ("", "*", "0.0.0.0", "::"), ("localhost", "127.0.0.1", "::1")
    return one == other or one in everywhere or other in everywhere or (one in here and other in here)


def wanted_port(spec: Spec) -> int:
    """The local port asked for; 0 leaves it to the system."""
    return spec.port if spec.local_port is None else spec.local_port


def state_of(sessions: Collection[SessionState], *, is_bound: bool, has_failed: bool) -> ForwardState:
    """How a forward stands that was not removed, by the sessions behind it."""
    if SessionState.ONLINE in sessions:
        return ForwardState.ONLINE
    if SessionState.RECONNECTING in sessions or SessionState.STALLED in sessions:
        return ForwardState.RECONNECTING
    if sessions:
        return ForwardState.CONNECTING
    if has_failed:
        return ForwardState.FAILED
    return ForwardState.LISTENING if is_bound else ForwardState.CONNECTING  # a name to bind is looked up


class Facts(msgspec.Struct, frozen=True):
    """A forward as it stands, for views."""

    id: str
    box: str
    state: ForwardState
    local: str
    remote: str
    connections: int
    total_connections: int
    bytes_up: int
    bytes_down: int
    sessions: int
    error: str | None
    auto: bool
    target: str = ""  # instance id
    note: str | None = None  # why a mirror has another number than its port
    reverse: bool = False  # the box listens

    @property
    def ends(self) -> str:
        """Both ends, from the one that listens to the one it leads to."""
        far = f"{self.box}:{self.remote}"
        return f"{far} -> {self.local}" if self.reverse else f"{self.local} -> {far}"
