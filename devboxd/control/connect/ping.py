"""Measure the way to a box and back: over its bridge where one is up, else over a session of its own to the agent."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, NamedTuple

from devboxd.control.connect.bridge import HeldBridge
from devboxd.control.connect.plan import Plan, Quiet
from devboxd.control.connect.sessions import Sessions
from devboxd.errors import Unreachable
from devboxd.model.box import BoxRef
from devboxd.model.config import Config
from devboxd.model.states import SessionKind
from devboxd.ssm import documents

PAUSE: Final = 0.05  # seconds between two probes


class Pinged(NamedTuple):
    """Round trips and how long opening took (None: it was open), in seconds, and the agent's version (may be empty)."""

    trips: list[float]
    opened: float | None
    agent_version: str


async def ping_bridge(bridge: HeldBridge, *, count: int, timeout: float) -> Pinged | None:
    """Measure ``count`` times, within ``timeout`` seconds in all. None: not one answer came."""
    trips = list[float]()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            while bridge.is_online and len(trips) < count:
                trips.append(await bridge.streams.measure())
                await asyncio.sleep(PAUSE)
    return Pinged(trips, None, bridge.agent_version) if trips else None


async def ping(sessions: Sessions, box: BoxRef, config: Config, *, count: int, timeout: float) -> Pinged:
    """Measure ``count`` times, within ``timeout`` seconds in all.

    Raises:
        Unreachable: not one answer came in time; or whatever made the session fail.
    """
    # A port session greets at once and shows the agent's version; a shell would sleep for a second.
    plan = Plan(
        target=box.target,
        box=box.name,
        account=box.account,
        kind=SessionKind.PORT,
        document=documents.PORT,
        parameters={"portNumber": "22"},
        wait=timeout,
        keep_alive=config.keep_alive_of(box),
    )
    session = sessions.open(plan, Quiet(), config.link)
    monotonic = sessions.shared.time.monotonic
    began, opened, trips = monotonic(), 0.0, list[float]()
    # Not in a task group: it would wrap what made the session fail.
    holder = sessions.shared.tasks.spawn(f"ping {box.name}", sessions.hold(session))
    try:
        async with asyncio.timeout(timeout):
            await session.wait_ready()
            opened = monotonic() - began
            for _ in range(count):
                trips.append(await session.measure())
                await asyncio.sleep(PAUSE)
    except TimeoutError:
        if not trips:
            detail = session.detail or "no answer"
            raise Unreachable(f"{box.name} did not answer within {timeout:g} s: {detail}") from None
    finally:
        await session.stop()
        await holder
    version = session.channel.agent_version if session.channel is not None else ""
    return Pinged(trips, opened, version)
