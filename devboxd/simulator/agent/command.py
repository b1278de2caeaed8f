"""NonInteractiveCommands of the agent: no terminal, no shell, no input; two ways to send the output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import tempfile
from asyncio.subprocess import Process
from collections.abc import Mapping
from typing import Any, Final

from devboxd.simulator.agent import process
from devboxd.simulator.agent.channel import PAYLOAD, AgentChannel
from devboxd.simulator.agent.shell import Place, Result, Utf8Filter
from devboxd.simulator.options import Options
from devboxd.ssm.payload import PayloadType

_SIGNALS: Final = {0x03: signal.SIGINT, 0x1C: signal.SIGQUIT}


class CommandPlugin:
    """One command, split into words like a shell would, without one."""

    needs_handshake = True
    handshake_properties: None = None

    def __init__(self, place: Place, properties: Mapping[str, Any], options: Options) -> None:
        self.separate = _truth(properties.get("separateOutputStream"))
        self._place = place
        self._text = str(properties.get("commands") or "")
        self._prefixes = {
            PayloadType.OUTPUT: str(properties.get("stdOutSeparatorPrefix") or "").encode(),
            PayloadType.STDERR: str(properties.get("stdErrSeparatorPrefix") or "").encode(),
        }
        self._options = options
        self._child: Process | None = None
        self._exited = asyncio.Event()

    async def handle(self, payload_type: int, data: bytes) -> bool:
        """Only Ctrl-C and Ctrl-\\ mean something: a signal to the one process, then wait until it ends."""
        if payload_type == PayloadType.OUTPUT and self._child is not None:
            number = next((_SIGNALS[byte] for byte in data if byte in _SIGNALS), None)
            if number is not None:
                with contextlib.suppress(ProcessLookupError):
                    self._child.send_signal(number)
                await self._exited.wait()
        return True

    async def run(self, channel: AgentChannel) -> Result:
        """Run the command and report its output, and its exit status in separate mode."""
        try:
            argv = shlex.split(self._text, comments=True)
            if not argv:
                raise ValueError("EOF found when expecting a command")
        except ValueError as error:
            text = f"Unable to start command: Failed to parse commands input: {error}\n\n"
            await asyncio.sleep(self._options.start_failure_delay)
            await self._report(channel, text)
            return Result(f"----------ERROR-------\n{text}", failed=True)
        try:
            result = await (self._run_separate if self.separate else self._run_merged)(channel, argv)
        except OSError as error:
            text = f'Error occurred starting the command: exec: "{argv[0]}": {_reason(error)}\n\n'
            if self.separate:
                await self._exit_code(channel, 1)
            await self._report(channel, text)
            result = Result(failed=True)
        finally:
            self._exited.set()
            if self._child is not None:
                process.kill(self._child)
                await self._child.wait()
        await channel.drain()
        await channel.report_state("Terminating")
        return result

    async def _run_separate(self, channel: AgentChannel, argv: list[str]) -> Result:
        pipes = [os.pipe(), os.pipe()]
        readers = [process.Descriptor(read) for read, _ in pipes]
        try:
            try:
                child = await process.spawn(
                    argv, cwd=self._place.disk, env=self._place.env, stdout=pipes[0][1], stderr=pipes[1][1]
                )
            finally:
                for _, write in pipes:
                    os.close(write)
            self._child = child
            async with asyncio.TaskGroup() as tasks:
                stop = tasks.create_task(channel.cancelled.wait())
                whole = tasks.create_task(self._stream(channel, child, readers))
                await asyncio.wait({stop, whole}, return_when=asyncio.FIRST_COMPLETED)
                for task in (stop, whole):
                    task.cancel()
            if whole.cancelled():
                return Result()
            if channel.active.is_set():
                await self._exit_code(channel, child.returncode)
            return Result(failed=not whole.result())
        finally:
            for reader in readers:
                reader.close()

    async def _stream(self, channel: AgentChannel, child: Process, readers: list[process.Descriptor]) -> bool:
        """Send both streams as they come, then wait for the end. False: output was given up."""
        async with asyncio.TaskGroup() as tasks:
            pumps = [
                tasks.create_task(self._pump(channel, reader, kind))
                for reader, kind in zip(readers, (PayloadType.OUTPUT, PayloadType.STDERR), strict=True)
            ]
        await child.wait()
        self._exited.set()
        return all(pump.result() for pump in pumps)

    async def _pump(self, channel: AgentChannel, reader: process.Descriptor, kind: PayloadType) -> bool:
        prefix, text, at_start = self._prefixes[kind], Utf8Filter(), True
        while channel.active.is_set():
            data = await reader.read(PAYLOAD - len(prefix))
            if not data:
                return True
            await channel.send(kind, text.feed(prefix + data if at_start else data))
            at_start = data.endswith(b"\n")
        # The real agent takes a pause for a broken channel here; nobody reads this stream any more.
        return False

    async def _run_merged(self, channel: AgentChannel, argv: list[str]) -> Result:
        with tempfile.TemporaryFile() as file:
            self._child = await process.spawn(
                argv, cwd=self._place.disk, env=self._place.env, stdout=file.fileno(), stderr=file.fileno()
            )
            async with asyncio.TaskGroup() as tasks:
                stop = tasks.create_task(channel.cancelled.wait())
                end = tasks.create_task(self._child.wait())
                await asyncio.wait({stop, end}, return_when=asyncio.FIRST_COMPLETED)
                stop.cancel()
                if not end.done():
                    process.kill(self._child)
            self._exited.set()
            if channel.cancelled.is_set():
                return Result()
            file.seek(0)
            text = Utf8Filter()
            while data := file.read(PAYLOAD):
                await channel.active.wait()
                await channel.send(PayloadType.OUTPUT, text.feed(data))
                await channel.pace()
        return Result()

    async def _exit_code(self, channel: AgentChannel, status: int | None) -> None:
        code = 1 if status is None else max(status, -1)  # a signal is -1
        await channel.send(PayloadType.EXIT_CODE, f"EXIT_CODE: {code}".encode())

    async def _report(self, channel: AgentChannel, text: str) -> None:
        await asyncio.sleep(self._options.error_output_delay)
        await channel.send(PayloadType.STDERR, text.encode())


def _truth(value: Any) -> bool:
    """A bool, a text, or nothing.

    Raises:
        ValueError: anything else; the real agent fails the session.
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in ("true", "false", ""):
        return value.strip().lower() == "true"
    raise ValueError(f"unable to convert separateOutPutStream: {value!r}")


def _reason(error: OSError) -> str:
    return (
        "executable file not found in $PATH"
        if isinstance(error, FileNotFoundError)
        else str(error.strerror).lower()
    )
