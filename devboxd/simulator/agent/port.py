"""Port sessions of the agent: multiplexed with smux, and the basic one-connection mode (ssh, old clients)."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

from devboxd.simulator.agent.channel import PAYLOAD, AgentChannel, compare_versions
from devboxd.simulator.agent.shell import Result
from devboxd.simulator.agent.smux import NOP, SmuxDead, SmuxServer, Stream
from devboxd.simulator.options import Options
from devboxd.simulator.tasks import Tasks
from devboxd.ssm.payload import Flag, PayloadType, flag

# agent/appconfig/constants.go, DefaultDeniedPortForwardingRemoteIPs; a VPC's own addresses are not imitated
FORBIDDEN: Final = frozenset(
    map(
        ipaddress.ip_address,
        [
            "169.254.169.254", "fd00:ec2::254", "169.254.169.253", "fd00:ec2::253", "169.254.169.123",
            "fd00:ec2::123", "169.254.169.250", "169.254.169.251", "fd00:ec2::240",
        ],
    )
)  # fmt: skip
_FORWARDING: Final = "LocalPortForwarding"
_MUX_SINCE: Final = "1.1.70"  # of the client
_MUX_ABOVE: Final = "3.0.196.0"  # of the agent itself; clients go by the same number
_KEEPALIVE_UNTIL: Final = "1.2.331.0"
_COPY: Final = 32768  # Go's io.Copy buffer


class PortPlugin:
    """Chooses the mode by the document's type and the client's version, then runs it."""

    needs_handshake = True

    def __init__(
        self, properties: Mapping[str, Any], options: Options, local_port: Callable[[int], int]
    ) -> None:
        self.handshake_properties = dict(properties)
        self._host = str(properties.get("host") or "")
        self._port = str(properties.get("portNumber") or "")
        self._type = str(properties.get("type") or "")
        self._options = options
        self._local_port = local_port  # where a port of the box really listens on this machine
        self._mode: _Mux | _Basic | None = None

    async def handle(self, payload_type: int, data: bytes) -> bool:
        """Bytes and flags of the client; rejected while there is no connection yet."""
        return self._mode is not None and await self._mode.handle(payload_type, data)

    async def run(self, channel: AgentChannel) -> Result:
        """Forward until the session ends."""
        if not self._port:
            return Result(
                f"Port number is empty in session properties. {self.handshake_properties}", failed=True
            )
        addresses = await self._addresses()
        if addresses is None:
            return Result(f"Forwarding to IP address {self._host} is forbidden.", failed=True)
        await asyncio.sleep(self._options.plugin_start_delay)
        is_mux = (
            self._type == _FORWARDING
            and compare_versions(channel.client_version, _MUX_SINCE) >= 0
            and compare_versions(self._options.agent_version, _MUX_ABOVE) > 0
        )
        mode: _Mux | _Basic = (
            _Mux(channel, self._dial(addresses), self._options)
            if is_mux
            else _Basic(channel, self._dial(addresses), redials=self._type == _FORWARDING)
        )
        if isinstance(mode, _Basic) and not await mode.dial():
            # The real worker dereferences a nil connection here and is gone without a word.
            return Result("document process failed unexpectedly: exit status 1", failed=True, crashed=True)
        self._mode = mode
        return await mode.run()

    async def _addresses(self) -> list[str] | None:
        """Where to connect to, in order; None: forbidden."""
        if not self._host:
            return ["localhost"]
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._host, None, type=socket.SOCK_STREAM)
        except OSError:
            return []
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        if any(ipaddress.ip_address(address.partition("%")[0]) in FORBIDDEN for address in addresses):
            return None
        return addresses

    def _dial(self, addresses: list[str]) -> _Dial:
        port = self._local_port(int(self._port)) if not self._host else int(self._port)
        return _Dial(addresses, port)


class _Dial:
    """Connects to the first address that answers."""

    def __init__(self, addresses: list[str], port: int) -> None:
        self._addresses = addresses
        self._port = port

    async def __call__(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        first: OSError | None = None
        for address in self._addresses:
            try:
                return await asyncio.open_connection(address, self._port)
            except OSError as error:
                first = first or error
        raise first or ConnectionError("missing address")


class _Mux:
    """smux: many streams, one connection to the target each."""

    def __init__(self, channel: AgentChannel, dial: _Dial, options: Options) -> None:
        self._channel = channel
        self._dial = dial
        self._keepalive = (
            options.mux_keepalive if compare_versions(channel.client_version, _KEEPALIVE_UNTIL) <= 0 else 0.0
        )
        self._smux = SmuxServer()
        self._ended = asyncio.Event()

    async def handle(self, payload_type: int, data: bytes) -> bool:
        if payload_type == PayloadType.OUTPUT:
            await self._smux.feed(data)
        elif payload_type == PayloadType.FLAG and int.from_bytes(data[:4], "big") == Flag.TERMINATE_SESSION:
            self._ended.set()
        return True

    async def run(self) -> Result:
        copies = Tasks()
        try:
            async with asyncio.TaskGroup() as tasks:
                ends = [
                    tasks.create_task(self._ended.wait()),
                    tasks.create_task(self._channel.cancelled.wait()),
                    tasks.create_task(self._transfer()),
                    tasks.create_task(self._accept(copies)),
                ]
                if self._keepalive:
                    ends.append(tasks.create_task(self._keep_alive()))
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                orderly = ends[0].done() or ends[1].done()
                for task in ends:
                    task.cancel()
        finally:
            self._smux.die()
            await copies.close()
        return Result(failed=not orderly)

    async def _transfer(self) -> None:
        with contextlib.suppress(SmuxDead):
            while True:
                await self._channel.active.wait()
                await self._channel.send(PayloadType.OUTPUT, await self._smux.output(PAYLOAD))
                await self._channel.pace()

    async def _accept(self, copies: Tasks) -> None:
        """Take streams one at a time: a target that does not answer holds up all later ones."""
        with contextlib.suppress(SmuxDead):
            while True:
                stream = await self._smux.accept()
                try:
                    reader, writer = await self._dial()
                except OSError:
                    await self._channel.send(PayloadType.FLAG, flag(Flag.CONNECT_TO_PORT_ERROR))
                    await stream.close()
                    continue
                copies.start(_copy(stream, reader, writer), f"stream {stream.number}")

    async def _keep_alive(self) -> None:
        with contextlib.suppress(SmuxDead):
            beats = 0
            while True:
                await asyncio.sleep(self._keepalive)
                await self._smux.send(NOP, 0, b"")
                beats += 1
                if beats % 3 == 0:
                    if not self._smux.received_anything:
                        self._smux.die()
                        return
                    self._smux.received_anything = False


async def _copy(stream: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Both directions; whichever ends first closes everything (there is no half-close)."""

    async def down() -> None:
        with contextlib.suppress(OSError, SmuxDead):
            while data := await reader.read(_COPY):
                await stream.write(data)
        with contextlib.suppress(SmuxDead):
            await stream.close()

    async def up() -> None:
        with contextlib.suppress(OSError):
            while data := await stream.read():
                writer.write(data)
                await writer.drain()
        writer.close()

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(down())
            tasks.create_task(up())
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class _Basic:
    """One connection, plain bytes. With ``redials`` the next data message opens a new one."""

    def __init__(self, channel: AgentChannel, dial: _Dial, *, redials: bool) -> None:
        self._channel = channel
        self._dial = dial
        self._redials = redials
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._waiting = False  # for client data to dial again
        self._redialled = asyncio.Event()
        self._closed_by_client = False
        self._ended = asyncio.Event()

    async def dial(self) -> bool:
        """Connect to the target; False: refused."""
        try:
            self._reader, self._writer = await self._dial()
        except OSError:
            return False
        self._closed_by_client = False
        return True

    async def handle(self, payload_type: int, data: bytes) -> bool:
        if payload_type == PayloadType.OUTPUT:
            if self._waiting:
                connected = await self.dial()
                self._waiting = not connected
                self._redialled.set()
                if not connected:
                    self._ended.set()
                    return False
            assert self._writer is not None
            if self._writer.is_closing():
                return False
            self._writer.write(data)
            await self._writer.drain()
        elif payload_type == PayloadType.FLAG:
            number = int.from_bytes(data[:4], "big")
            if number == Flag.DISCONNECT_TO_PORT:
                await self._hang_up()
            elif number == Flag.TERMINATE_SESSION:
                self._ended.set()
        return True

    async def run(self) -> Result:
        try:
            async with asyncio.TaskGroup() as tasks:
                ends = [
                    tasks.create_task(self._ended.wait()),
                    tasks.create_task(self._channel.cancelled.wait()),
                    tasks.create_task(self._pump()),
                ]
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                for task in ends:
                    task.cancel()
            pumped = ends[2]
            return Result(failed=not pumped.cancelled() and not pumped.result())
        finally:
            await self._hang_up()

    async def _pump(self) -> bool:
        """Send what the target says. Returns whether the session ended well."""
        while True:
            await self._channel.active.wait()
            assert self._reader is not None
            data = b""
            failed = False
            try:
                data = await self._reader.read(PAYLOAD)
            except OSError:
                failed = True
            if data:
                await self._channel.send(PayloadType.OUTPUT, data)
                await self._channel.pace()
            elif not self._redials:
                return not failed and not self._closed_by_client
            else:
                await self._hang_up()
                self._waiting = True
                self._redialled.clear()
                await self._redialled.wait()
                if self._waiting:
                    return False

    async def _hang_up(self) -> None:
        if self._writer is not None:
            self._closed_by_client = True
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
