"""One websocket to the message gateway.

A link is mortal: whatever happens to it (close frame, reset, silence, TLS error) becomes one
``LinkLost``, and its owner dials again. The library is aiohttp; nothing outside this module knows.

What is ours and why:

* The URL is sent as it was given. Its query holds raw ``+``, ``/`` and ``=`` that must not be re-encoded.
* ``wss:`` is written ``https:`` and the proxy is passed by hand: aiohttp ignores proxies for ``wss:``.
* No compression, no redirects, no cookies, no limit on connections, one TLS context for all links.
* A ping every ``heartbeat`` seconds of silence; without any answer for half of that again the link is
  lost. aiohttp's timers run on the monotonic clock, which stands still while the machine is suspended:
  whoever notices a suspend closes the link.
* Somebody must always be in ``receive``: only then are pings answered and closes seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from yarl import URL

from devboxd import __version__
from devboxd.errors import DevboxError, LinkLost, LinkRefused
from devboxd.model.proxy import AUTHENTICATION, HINT, PROBLEM, Refusals
from devboxd.net.dial import DialSettings, trust

MAX_MESSAGE: Final = 1 << 20  # bytes; the far end sends about 1 KiB, the service less than 128 KiB
CLOSE_WAIT: Final = 0.5  # seconds that a peer gets to answer our close
DNS_KEPT: Final = 10  # seconds; many links come back at once after a sleep

CORK_MAX: Final = 65536  # bytes; also what aiohttp lets pass before it asks whether it must wait

FIRST_WAIT: Final = 3.0  # seconds that links wait for the first one through a proxy with a password
_CLOSE_FRAME: Final = 0x88  # first byte of an unfragmented close frame
_BINARY: Final = aiohttp.WSMsgType.BINARY
_TEXT: Final = aiohttp.WSMsgType.TEXT
_LOST: Final = (aiohttp.ClientError, OSError)


class CertificateUntrusted(LinkLost):
    """The other end's certificate is not one that we trust."""

    code = "certificate-untrusted"


class ProxyRefused(LinkRefused):
    """The proxy, not the gateway, said no; 407 means it wants a user and a password."""

    code = "proxy-refused"


class _Cork:
    """Takes the place of the transport under aiohttp's frame writer: one write for all frames of one tick.

    A write is a TLS record and a system call. 1 KiB frames over TLS, measured: 7.3 µs of CPU each when
    written one by one, 2.5 µs when corked; a single frame waits for the end of the loop's tick only.
    """

    __slots__ = ("_flush_soon", "_held", "_loop", "_size", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self._size = 0
        self._flush_soon: asyncio.Handle | None = None

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def write(self, data: bytes) -> None:
        self._held.append(data)
        self._size += len(data)
        # Not more than this, or the transport could not tell the writer to wait. A close frame goes at
        # once: the connection may be closed in this very tick.
        if self._size >= CORK_MAX or data[0] == _CLOSE_FRAME:
            self.flush()
        elif self._flush_soon is None:
            self._flush_soon = self._loop.call_soon(self.flush)

    def flush(self) -> None:
        if self._flush_soon is not None:
            self._flush_soon.cancel()
            self._flush_soon = None
        held, self._held, self._size = self._held, [], 0
        if held and not self._transport.is_closing():
            self._transport.write(held[0] if len(held) == 1 else b"".join(held))


class _Socket(aiohttp.ClientWebSocketResponse):
    """Keeps what the constructor is given, so that ``Link`` needs no private name of aiohttp."""

    def __init__(
        self,
        reader: Any,
        writer: aiohttp.http_websocket.WebSocketWriter,
        protocol: str | None,
        response: aiohttp.ClientResponse,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(reader, writer, protocol, response, *args, **kwargs)
        cork: Any = _Cork(writer.transport, asyncio.get_running_loop())
        writer.transport = cork
        self.frame_writer = writer
        self.upgrade = response


class Link:
    """An open websocket. One task receives; any task may send."""

    __slots__ = ("_socket", "_write", "peer")

    def __init__(self, socket: _Socket) -> None:
        self._socket = socket
        self._write = socket.frame_writer.send_frame
        address = socket.get_extra_info("peername")
        self.peer = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address or "")

    async def send(self, data: bytes) -> None:
        """Send one binary message; waits while the network takes no more. Raises LinkLost."""
        try:
            await self._write(data, _BINARY)
        except _LOST as error:
            raise self._lost(error) from error

    async def send_text(self, text: str) -> None:
        """Send one text message. Raises LinkLost."""
        try:
            await self._write(text.encode(), _TEXT)
        except _LOST as error:
            raise self._lost(error) from error

    async def receive(self) -> bytes | str:
        """Wait for the next message. Raises LinkLost when there will be none."""
        message = await self._socket.receive()
        if message.type is _BINARY or message.type is _TEXT:
            data: bytes | str = message.data
            return data
        error = message.data if message.type is aiohttp.WSMsgType.ERROR else self._socket.exception()
        reason = message.extra if message.type is aiohttp.WSMsgType.CLOSE else None
        raise self._lost(error, reason) from (error if isinstance(error, BaseException) else None)

    async def close(self) -> None:
        """Say goodbye and hang up: within ``CLOSE_WAIT`` seconds, whatever the peer does."""
        try:
            await self._socket.close()
        except _LOST:
            pass  # it was dead already
        finally:
            self.abort()

    aclose = close  # for contextlib.aclosing

    def abort(self) -> None:
        """Drop the connection at once: nothing that waits to be sent is sent."""
        if (connection := self._socket.upgrade.connection) is not None and connection.transport is not None:
            connection.transport.abort()
        self._socket.upgrade.close()

    @property
    def closed(self) -> bool:
        """Whether it is known to be over."""
        return self._socket.closed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _lost(self, error: object, reason: str | None = None) -> LinkLost:
        code = self._socket.close_code or 1006
        said = reason is not None
        if reason is None:
            if isinstance(error, aiohttp.ServerTimeoutError):
                reason = "the gateway does not answer any more"
            elif isinstance(error, aiohttp.WebSocketError):
                reason = f"the gateway broke the websocket protocol: {error}"
            elif code == 1006:
                reason = "the connection broke"
        closed = f"the gateway closed the link ({int(code)}{': ' + reason if reason else ''})"
        return LinkLost(closed if said or not reason else reason, close_code=int(code))


class Dialer:
    """Makes links. Owns the one HTTP session and the TLS contexts: build one per event loop, and close it."""

    def __init__(self, settings: DialSettings | None = None, refusals: Refusals | None = None) -> None:
        """``refusals``: by proxies; others that go through the same ones may share them."""
        self.settings = settings or DialSettings()
        self._refusals = refusals or Refusals()
        self._first = asyncio.Lock()  # held by the one who shows a proxy our password for the first time
        self._passed: set[str] = set()  # proxies that took it on this network
        self._trusted: dict[str | None, ssl.SSLContext] = {}
        self._trusting = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None
        self._connector: aiohttp.TCPConnector | None = None

    async def dial(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 15.0,
        heartbeat: float = 10.0,
        ca_bundle: str | None = None,
    ) -> Link:
        """Open a websocket.

        Args:
            url: ``wss:`` or ``ws:``, used as it is. Plain ``ws:`` never goes through a proxy.
            headers: for the upgrade request, for example its signature.
            timeout: seconds for name, connection, TLS and upgrade together.
            heartbeat: seconds of silence before a ping; a dead peer is found after 1.5 times that.
            ca_bundle: certificates in place of those of the dialer's own settings.

        Raises: LinkLost (no connection, or CertificateUntrusted), LinkRefused (or ProxyRefused; one that has refused
            our password is not asked again for a while, but for ``network_changed``).
        """
        settings = replace(self.settings, ca_bundle=ca_bundle) if ca_bundle else self.settings
        try:
            target = URL(_http(url), encoded=True)
            host, secure, port = target.host or "", target.scheme == "https", target.port or 443
        except ValueError as error:
            raise _dial_failure(error, "", timeout) from error
        try:
            context = await self._trust(settings.ca_bundle) if secure else None
        except OSError as error:
            raise CertificateUntrusted(
                f"the CA bundle {settings.ca_bundle} can not be read", hint="check AWS_CA_BUNDLE"
            ) from error
        proxy, now = settings.proxy_for(host, port) if secure else None, asyncio.get_running_loop().time()
        try:
            async with self._one_first(proxy), asyncio.timeout(timeout):
                if proxy is not None and self._refusals.left(proxy, now):
                    raise _proxy_denied()
                socket = await self._http_session().ws_connect(
                    target,
                    headers=headers,
                    heartbeat=heartbeat,
                    max_msg_size=MAX_MESSAGE,
                    proxy=proxy,
                    ssl=context or True,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_WAIT),
                )
        except (*_LOST, TimeoutError, ValueError) as error:
            failure = _dial_failure(error, host, timeout)
            if proxy is not None and isinstance(failure, ProxyRefused) and failure.status == AUTHENTICATION:
                self._refusals.refused(proxy, now)
            raise failure from error
        if proxy is not None:
            self._refusals.passed(proxy)
            self._passed.add(proxy)
        assert isinstance(socket, _Socket)
        return Link(socket)

    def network_changed(self) -> None:
        """Forget what names meant, and what proxies refused: another network may answer otherwise."""
        self._refusals.forget()
        self._passed.clear()
        if self._connector is not None:
            self._connector.clear_dns_cache()

    @contextlib.asynccontextmanager
    async def _one_first(self, proxy: str | None) -> AsyncIterator[None]:
        """Let one link go ahead of all others where a proxy may refuse the password that it is shown."""
        if proxy is None or "@" not in proxy or proxy in self._passed:
            yield
            return
        async with contextlib.AsyncExitStack() as turn:
            with contextlib.suppress(TimeoutError):  # it may be a proxy that does not answer at all
                async with asyncio.timeout(FIRST_WAIT):
                    await turn.enter_async_context(self._first)
            yield

    async def close(self) -> None:
        """Close every link and the session."""
        session, self._session, self._connector = self._session, None, None
        if session is not None:
            await session.close()

    async def _trust(self, bundle: str | None) -> ssl.SSLContext:
        async with self._trusting:
            if bundle not in self._trusted:
                self._trusted[bundle] = await asyncio.to_thread(trust, bundle)
            return self._trusted[bundle]

    def _http_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._connector = aiohttp.TCPConnector(
                limit=0,  # a link holds its connection for hours: the default of 100 would be the end of us
                ttl_dns_cache=DNS_KEPT,
            )
            self._session = aiohttp.ClientSession(
                connector=self._connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # ``dial`` has its own
                headers={"User-Agent": f"devbox/{__version__}"},
                skip_auto_headers=("Accept", "Accept-Encoding"),
                middlewares=(_refuse_redirects,),
                ws_response_class=_Socket,
            )
        return self._session


async def _refuse_redirects(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """A redirected upgrade would take the signature, and then the token, somewhere else."""
    response = await handler(request)
    if 300 <= response.status < 400:
        response.close()
        raise LinkRefused(response.status)
    return response


def _http(url: str) -> str:
    scheme, colon, rest = url.partition(":")
    return {"wss": "https", "ws": "http"}.get(scheme.lower(), scheme) + colon + rest


def _proxy_denied() -> ProxyRefused:
    return ProxyRefused(AUTHENTICATION, PROBLEM, hint=HINT)


def _dial_failure(error: BaseException, host: str, timeout: float) -> DevboxError:
    """Name what kept us from the gateway."""
    match error:
        case aiohttp.WSServerHandshakeError(status=status):
            return LinkRefused(status)
        case aiohttp.ClientHttpProxyError(status=status):
            if status == AUTHENTICATION:
                return _proxy_denied()
            return ProxyRefused(
                status,
                f"the proxy refused the way to {host} ({status})",
                hint="check HTTPS_PROXY and NO_PROXY",
            )
        case aiohttp.ClientProxyConnectionError():
            return LinkLost("the proxy can not be reached", hint="check HTTPS_PROXY and NO_PROXY")
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return CertificateUntrusted(
                f"the certificate of {host} is not trusted",
                hint="is there a proxy that opens TLS? Name its certificate in AWS_CA_BUNDLE",
            )
        case aiohttp.ClientConnectorDNSError():
            return LinkLost(f"the name {host} can not be resolved", hint="is the network up?")
        case TimeoutError():
            return LinkLost(f"{host} did not answer within {timeout:g} s")
        case aiohttp.ClientConnectorError():
            # asyncio puts a sentence of its own in strerror.
            detail = (
                os.strerror(error.os_error.errno) if error.os_error.errno else type(error.os_error).__name__
            )
            return LinkLost(f"{host} can not be reached: {detail}")
        case ValueError():
            return LinkLost("the address of the gateway can not be used")
        case _:
            return LinkLost(f"the connection to {host} broke while it was opened")
