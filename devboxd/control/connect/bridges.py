"""All bridges of the daemon, one for each user of a box.

Where a bridge can not be had (no Python on the box, documents denied, ``bridge = "never"``) ``stream`` says so once
and returns None: its caller goes today's way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from devboxd.control.base.handing import Handing
from devboxd.control.connect.bridge import HeldBridge, Run
from devboxd.control.connect.bridge_facts import BridgeFacts
from devboxd.control.connect.bridge_start import Unavailable
from devboxd.control.connect.bridge_streams import BridgeStream, Streams
from devboxd.control.connect.parcel import HeldOver
from devboxd.control.connect.sessions import Sessions
from devboxd.model.box import BoxRef
from devboxd.model.bridge.wire import PURPOSE_MOST
from devboxd.model.config import Config


class Bridges:
    """All bridges of the daemon."""

    def __init__(
        self,
        sessions: Sessions,
        run: Run,
        secret: Callable[[str], bytes],
        config: Callable[[], Config],
    ) -> None:
        """Make it. ``secret``: 32 bytes that belong to a name, the same after a restart."""
        self._sessions = sessions
        self._run = run
        self._secret = secret
        self._config = config
        self._held: dict[tuple[str, str | None], HeldBridge] = {}

    @property
    def handing(self) -> Handing:
        """Where what goes over a bridge is offered to the next daemon."""
        return self._sessions.shared.handing

    def to(self, box: BoxRef, user: str | None = None) -> HeldBridge:
        """The bridge to a user of a box (None: whoever a session is there)."""
        user = user or box.user
        key = (box.target, user)
        if key not in self._held:
            secret = self._secret(f"{box.target}/{user or ''}")
            self._held[key] = HeldBridge(self._sessions, box, user, self._run, secret)
        held = self._held[key]
        held.config = self._config()
        return held

    async def stream(
        self,
        box: BoxRef,
        purpose: bytes,
        wait: float | None,
        *,
        user: str | None = None,
        connects: bool = False,
    ) -> BridgeStream | None:
        """Open a stream; None where this box can have no bridge, or shall have none.

        Args:
            connects: it leads to something on the box, and ``BridgeStream.answered`` shall know of that.

        Raises:
            DevboxError: the box could not be reached in time.
        """
        if self._config().bridge.use == "never" or len(purpose) > PURPOSE_MOST:
            return None
        try:
            return await self.to(box, user).opened(purpose, wait, connects=connects)
        except Unavailable:
            return None

    def standing(self, box: BoxRef) -> HeldBridge | None:
        """A bridge to a box that is up now, of whichever user."""
        found = [held for held in self._held.values() if held.box.target == box.target and held.is_online]
        return found[0] if found else None

    async def cut(self, box: BoxRef) -> int:
        """Give up all bridges to a box; returns how many streams that cut."""
        found = [held for held in self._held.values() if held.box.target == box.target]
        return sum([await held.cut() for held in found])

    def freeze(self) -> dict[Streams, HeldOver]:
        """Leave all streams to another daemon, here and now."""
        return {held.streams: held.freeze() for held in self._held.values()}

    def thaw(self, held: HeldOver) -> dict[int, BridgeStream]:
        """Go on with the streams of another daemon, by number. Before any other stream is asked for."""
        return self.to(held.box, held.user).thaw(held)

    def facts(self) -> list[BridgeFacts]:
        """All bridges as they stand."""
        return [held.facts() for held in self._held.values()]

    async def stop(self) -> None:
        """End all lanes."""
        await asyncio.gather(*(held.stop() for held in self._held.values()))
