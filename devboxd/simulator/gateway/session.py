"""One session as the gateway keeps it: what it runs, its two ends, and the pipes between them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from aiohttp import web

from devboxd.simulator.gateway.pipe import Pipe

_INBOX: Final = 256  # frames on their way into the agent; then the sender's socket is not read any more


@dataclass(frozen=True, slots=True)
class Task:
    """What the agent is told to run."""

    document: str
    session_type: str
    properties: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    pacing: float | None = None  # overrides the simulator's, for benchmarks


class State(StrEnum):
    """Of a session, as DescribeSessions shows it."""

    CONNECTING = "Connecting"
    CONNECTED = "Connected"
    DISCONNECTED = "Disconnected"
    TERMINATED = "Terminated"


class LinkCut(Exception):
    """The agent's socket to the gateway is gone."""


class AgentLink:
    """The agent's end of its own socket to the gateway, within this process."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._send = send  # the gateway's side
        self._inbox: asyncio.Queue[bytes | None] = asyncio.Queue(_INBOX)
        self.is_open = True

    async def send(self, data: bytes) -> None:
        """Send one frame to the gateway.

        Raises:
            LinkCut: the socket is gone.
        """
        if not self.is_open:
            raise LinkCut
        await self._send(data)

    async def receive(self) -> bytes:
        """The next frame from the gateway.

        Raises:
            LinkCut: the socket is gone, and with it what was on the way.
        """
        data = await self._inbox.get() if self.is_open else None
        if data is None:
            raise LinkCut
        return data

    async def deliver(self, data: bytes) -> None:
        """The gateway's side: hand over a frame; waits while the agent does not read."""
        if self.is_open:
            await self._inbox.put(data)

    def cut(self) -> None:
        """Lose the connection."""
        self.is_open = False
        while not self._inbox.empty():
            self._inbox.get_nowait()
        self._inbox.put_nowait(None)


@dataclass(slots=True, eq=False)
class Session:
    """One session: the registry entry, its two ends and the pipes between them."""

    id: str
    target: str
    task: Task
    owner: str
    reason: str
    started: float  # Unix time
    state: State = State.CONNECTING
    ended: float | None = None
    output: str = ""
    client_id: str | None = None
    tokens: set[str] = field(default_factory=set)
    cell: str = ""
    client: web.WebSocketResponse | None = None
    agent: AgentLink | None = None
    to_agent: Pipe = field(init=False)
    to_client: Pipe = field(init=False)
    client_seen: asyncio.Event = field(default_factory=asyncio.Event)
    last_traffic: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def is_over(self) -> bool:
        """True once nothing can bring it back."""
        return self.state is State.TERMINATED
