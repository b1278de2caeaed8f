"""A reverse forward: a port or socket of the box that leads to something here.

The bridgehead listens, on loopback or at a path that only its user can open; each connection there is a stream to us.
It listens again after the box was started again. Without a bridge there is no reverse forward.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final, Protocol

import msgspec

from devboxd.boxside import bridgehead
from devboxd.control.base.needs import Listener, Listeners, LocalConnection
from devboxd.control.base.shared import Shared
from devboxd.control.connect.bridge_streams import BridgeStream
from devboxd.control.connect.forward import Forward, Pools, Wait
from devboxd.control.connect.here import Here
from devboxd.errors import DevboxError
from devboxd.model.box import BoxRef
from devboxd.model.forward import Facts, ForwardState, Spec, bracket
from devboxd.model.retry import Backoff

MOST: Final = 256  # connections at a time
WITHOUT_AGAIN: Final = 60.0  # seconds between two looks whether there is a bridge by now


class Listening(Protocol):
    """How a listener on a box is asked for."""

    def __call__(self, box: BoxRef, purpose: bytes) -> Awaitable[BridgeStream | None]:
        """The stream that stands for it; None where there can be no bridge."""


class ReverseForward(Forward):
    """One listener on the box."""

    def __init__(
        self,
        shared: Shared,
        pools: Pools,
        listeners: Listeners,
        box: BoxRef,
        spec: Spec,
        *,
        id_: str,
        wait: Wait,
        listening: Listening | None,
    ) -> None:
        super().__init__(shared, pools, listeners, box, spec, id_=id_, wait=wait)
        self._listening = listening
        self._stream: BridgeStream | None = None  # while the box listens
        port = spec.port if spec.local_port is None else spec.local_port
        self._target = (spec.bind, port)
        self._local = spec.local_path or f"{bracket(spec.bind)}:{port}"
        self._here = Here(self._tasks, self._dial, self._local, MOST)

    async def start(self, kept: Listener | None = None) -> None:
        """Listen there from now on."""
        self._tasks.spawn("listen", self._listen())

    def facts(self) -> Facts:
        """How it stands."""
        here = self._here
        facts = super().facts()
        return msgspec.structs.replace(
            facts,
            state=facts.state if self.is_removed else self._state(),
            connections=here.open,
            total_connections=here.total,
            bytes_up=here.down,
            bytes_down=here.up,
            error=self.error or here.error,
            reverse=True,
        )

    def _state(self) -> ForwardState:
        if self._stream is not None:
            return ForwardState.ONLINE if self._stream.is_online else ForwardState.RECONNECTING
        return ForwardState.FAILED if self.error is not None else ForwardState.CONNECTING

    async def _dial(self) -> LocalConnection:
        return await self._listeners.connected(self.spec.local_path or self._target)

    async def _listen(self) -> None:
        delays = Backoff(self._shared.time.dice, first=1.0)
        while True:
            began, pause = self._shared.time.monotonic(), 0.0
            try:
                if not await self._listen_once():
                    self.error = f"there is no bridge to {self.box.name}, and a reverse forward needs one"
                    pause = WITHOUT_AGAIN
            except DevboxError as error:
                self.note(error)
            await self._shared.bells.network.wait(
                pause or delays.wait_after(self._shared.time.monotonic() - began)
            )

    async def _listen_once(self) -> bool:
        """Listen until that ends. False: there is no bridge.

        Raises:
            DevboxError: it cannot listen there, or the box could not be reached.
        """
        spec = self.spec
        purpose = (
            bridgehead.listen(port=spec.port) if spec.path is None else bridgehead.listen(path=spec.path)
        )
        stream = await self._listening(self.box, purpose) if self._listening is not None else None
        if stream is None:
            return False
        try:
            stream.accept(self._here.accepted)
            while await stream.read():  # the first line says where it listens
                self._stream = stream
                self.note(None)
            return True
        finally:
            self._stream = None
            stream.close()
