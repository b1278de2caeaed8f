"""The SOCKS5 server's side of a dynamic forward: CONNECT only, no authentication (RFC 1928).

The listener is on loopback (or where the user put it); names are resolved by the box.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from devboxd.control.base.needs import LocalConnection
from devboxd.control.connect.stream import ConnectionRefused, StreamReset
from devboxd.errors import DevboxError
from devboxd.model.loose import Loose

VERSION: Final = 5
OK, FAILED, NO_NETWORK, NO_HOST, REFUSED, BAD_COMMAND, BAD_ADDRESS = 0, 1, 3, 4, 5, 7, 8
_BY_SYMBOL: Final = {
    "ECONNREFUSED": REFUSED,
    "ENETUNREACH": NO_NETWORK,
    "EHOSTUNREACH": NO_HOST,
    "EHOSTDOWN": NO_HOST,
    "ETIMEDOUT": NO_HOST,
    "EAI": NO_HOST,  # the name is unknown
}


class SocksError(DevboxError):
    """The client does not speak SOCKS5, or asks for what we do not offer."""

    code = "socks"


class Buffered:
    """Reads exact amounts from a connection; what is left over is read first afterwards."""

    def __init__(self, connection: LocalConnection) -> None:
        self._connection = connection
        self._held = b""

    async def exactly(self, size: int) -> bytes:
        """``size`` bytes. Raises SocksError at the end of input."""
        while len(self._held) < size:
            data = await self._connection.read(4096)
            if not data:
                raise SocksError("the client left in the middle of a SOCKS request")
            self._held += data
        taken, self._held = self._held[:size], self._held[size:]
        return taken

    async def read(self, limit: int) -> bytes:
        """As ``LocalConnection.read``."""
        if self._held:
            taken, self._held = self._held[:limit], self._held[limit:]
            return taken
        return await self._connection.read(limit)

    async def write(self, data: bytes) -> None:
        """As ``LocalConnection.write``."""
        await self._connection.write(data)

    def finish(self) -> None:
        """As ``LocalConnection.finish``."""
        self._connection.finish()

    async def cut(self) -> None:
        """As ``LocalConnection.cut``."""
        await self._connection.cut()

    async def close(self) -> None:
        """As ``LocalConnection.close``."""
        await self._connection.close()

    def reset(self) -> None:
        """As ``LocalConnection.reset``."""
        self._connection.reset()

    def let_go(self) -> Loose | None:
        """As ``LocalConnection.let_go``."""
        loose = self._connection.let_go()
        return None if loose is None else loose._replace(read=self._held + loose.read)

    def has_left(self) -> bool:
        """As ``LocalConnection.has_left``."""
        return not self._held and self._connection.has_left()


def answer_to(error: DevboxError) -> int:
    """What a client is told of a target that could not be reached (RFC 1928, 6)."""
    if isinstance(error, ConnectionRefused):
        return REFUSED
    return _BY_SYMBOL.get(error.symbol, FAILED) if isinstance(error, StreamReset) else FAILED


def reply(code: int) -> bytes:
    """A reply with a bound address of zero: nobody needs ours."""
    return bytes([VERSION, code, 0, 1, 0, 0, 0, 0, 0, 0])


async def accept(connection: Buffered) -> tuple[str, int]:
    """Take a client's greeting and request; return the host (name or address) and port it wants.

    Raises:
        SocksError: after the client was told why.
    """
    version, methods = await connection.exactly(2)
    if version != VERSION:
        raise SocksError(f"SOCKS version {version} is not served", hint="use socks5h://")
    if 0 not in await connection.exactly(methods):
        await connection.write(bytes([VERSION, 0xFF]))
        raise SocksError("the client insists on a password")
    await connection.write(bytes([VERSION, 0]))
    version, command, _, kind = await connection.exactly(4)
    match kind:
        case 1:
            host = str(ipaddress.IPv4Address(await connection.exactly(4)))
        case 3:
            (length,) = await connection.exactly(1)
            host = (await connection.exactly(length)).decode("ascii", "replace")
        case 4:
            host = str(ipaddress.IPv6Address(await connection.exactly(16)))
        case _:
            await connection.write(reply(BAD_ADDRESS))
            raise SocksError(f"address type {kind} is unknown")
    port = int.from_bytes(await connection.exactly(2), "big")
    if command != 1:
        await connection.write(reply(BAD_COMMAND))
        raise SocksError("only CONNECT is served")
    if not host or not port:
        await connection.write(reply(BAD_ADDRESS))
        raise SocksError("an empty address")
    return host, port
