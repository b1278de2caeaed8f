"""Pty sessions of the agent (Standard_Stream and InteractiveCommands), and its UTF-8 filter."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devboxd.simulator.agent import process
from devboxd.simulator.agent.channel import PAYLOAD, AgentChannel
from devboxd.ssm.payload import PayloadType

_REPLACEMENT: Final = "\ufffd".encode()
_LONGEST: Final = 4  # bytes of one UTF-8 character


@dataclass(frozen=True, slots=True)
class Result:
    """How a session's plugin ended: ``output`` reaches the client in ``channel_closed``."""

    output: str = ""
    failed: bool = False
    crashed: bool = False  # the worker process is gone; the agent notices late


@dataclass(frozen=True, slots=True)
class Place:
    """Where a box runs things."""

    disk: Path
    env: dict[str, str]


class Utf8Filter:
    """What the agent does to terminal output: whole characters only.

    Up to three trailing bytes are held back until more comes (and lost at the end); U+FFFD arrives as the
    single byte EF; other invalid bytes pass. Source: ``agent/session/shell/shell.go``, processStdoutData.
    """

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """The bytes to send now."""
        data = self._held + data
        # Only the end needs a look at characters: all before passes, but for the mark. Its first byte never
        # continues a character, so it stands at the start of one wherever it is found.
        position = max(0, len(data) - 2 * _LONGEST + 1)
        while len(data) - position >= _LONGEST:
            position += self._length(data, position)
        while position < len(data) and (length := self._length(data, position, whole=True)):
            position += length
        self._held = data[position:]
        return data[:position].replace(_REPLACEMENT, _REPLACEMENT[:1])

    def _length(self, data: bytes, position: int, *, whole: bool = False) -> int:
        """Bytes of the character at ``position``. None there: 1; with ``whole`` 0, also for the mark."""
        for length in range(1, _LONGEST + 1):
            piece = data[position : position + length]
            try:
                piece.decode()
            except UnicodeDecodeError:
                continue
            if len(piece) == length:
                return 0 if whole and piece == _REPLACEMENT else length
        return 0 if whole else 1


class PtyPlugin:
    """A shell or a command on a terminal. There is no exit status: the agent reports none."""

    needs_handshake = False
    handshake_properties: None = None

    def __init__(self, place: Place, argv: list[str], *, profile: str, first_read_delay: float) -> None:
        self._place = place
        self._argv = argv
        self._profile = profile
        self._first_read_delay = first_read_delay
        self._terminal: process.Descriptor | None = None

    async def handle(self, payload_type: int, data: bytes) -> bool:
        """Type, or resize. Blocks while the program does not read."""
        terminal = self._terminal
        if terminal is None:
            return False
        if payload_type == PayloadType.OUTPUT:
            await terminal.write(data)
        elif payload_type == PayloadType.SIZE:
            size = json.loads(data)
            if not terminal.closed:
                process.set_size(terminal.fd, int(size["cols"]), int(size["rows"]))
        return True

    async def run(self, channel: AgentChannel) -> Result:
        """Run until the program ends or the session is cancelled; kill the direct child only."""
        child, terminal = await process.spawn_pty(self._argv, cwd=self._place.disk, env=self._place.env)
        self._terminal = terminal
        try:
            if self._profile.strip():
                await terminal.write(self._profile.encode() + b"\n")
            async with asyncio.TaskGroup() as tasks:
                pump = tasks.create_task(self._pump(channel, terminal))
                stop = tasks.create_task(channel.cancelled.wait())
                await asyncio.wait({pump, stop}, return_when=asyncio.FIRST_COMPLETED)
                cancelled = not pump.done()
                pump.cancel()
                stop.cancel()
            if not cancelled:
                await channel.drain()
                await channel.report_state("Terminating")
            return Result()
        finally:
            process.kill(child)
            terminal.close()
            await child.wait()

    async def _pump(self, channel: AgentChannel, terminal: process.Descriptor) -> None:
        await asyncio.sleep(self._first_read_delay)
        text = Utf8Filter()
        while True:
            await channel.active.wait()
            data = await terminal.read(PAYLOAD)
            if not data:
                return
            await channel.send(PayloadType.OUTPUT, text.feed(data))
            await channel.pace()
