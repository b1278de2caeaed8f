"""How long a proxy is left alone that has refused a password: a wrong one, often enough, locks an account."""

from __future__ import annotations

from typing import Final

AUTHENTICATION: Final = 407  # Proxy Authentication Required (RFC 9110, 15.5.8)
FIRST: Final = 60.0  # seconds
LONGEST: Final = 3600.0
KEPT: Final = 64  # proxies that are remembered; the oldest make room

PROBLEM: Final = "the proxy refuses the user and the password of HTTPS_PROXY (407)"
HINT: Final = "correct HTTPS_PROXY (http://USER:PASSWORD@HOST:PORT), then run there: devboxctl daemon restart"


class Refusals:
    """What proxies have refused, by their address with user and password. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._until: dict[str, tuple[float, float]] = {}  # until when, and the seconds of that wait

    def left(self, proxy: str, now: float) -> float:
        """Seconds until it may be asked again; 0 where it may now."""
        until, _ = self._until.get(proxy, (now, 0.0))
        return max(0.0, until - now)

    def refused(self, proxy: str, now: float) -> None:
        """It has said no: wait twice as long as the last time."""
        _, last = self._until.pop(proxy, (0.0, 0.0))
        wait = min(max(2 * last, FIRST), LONGEST)
        self._until[proxy] = (now + wait, wait)
        while len(self._until) > KEPT:
            del self._until[next(iter(self._until))]

    def passed(self, proxy: str) -> None:
        """It let a request through."""
        self._until.pop(proxy, None)

    def forget(self) -> None:
        """Ask again: this is another network."""
        self._until.clear()
