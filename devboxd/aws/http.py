"""How answers are read: as far as a bound, within a time, and whatever is in them.

botocore would take all that comes, and its parsers trip over an answer that is not of the model in a dozen ways.
It need not be AWS that answers: a captive portal, a proxy, an emulator.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from typing import Any, Final

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.parsers import AioResponseParserFactory
from botocore.exceptions import BotoCoreError, ConnectionClosedError, ProxyConnectionError, ReadTimeoutError
from botocore.parsers import ResponseParserError

from devboxd.model.proxy import AUTHENTICATION, Refusals

MOST: Final = 4 << 20  # bytes of one answer; a page of anything we ask for has some hundred kilobytes
MOST_EC2: Final = 64 << 20  # bytes: a thousand instances with all their tags and interfaces
WITHIN: Final = 60.0  # seconds for the whole body, however often a byte of it comes
LARGE: Final = 1 << 17  # bytes: what takes longer to understand than a tenth of a blink is done in a thread
READ_AT_ONCE: Final = 1 << 16
_SCHEME: Final = re.compile(
    r"(?:http://)?([a-z][a-z0-9+.-]*)://", re.IGNORECASE
)  # botocore puts the first before it


class AnswerTooLong(BotoCoreError):
    """An answer has more bytes than any that AWS gives."""

    fmt = "The answer has more than {most} bytes."


class ProxyDenied(BotoCoreError):
    """The proxy wants a user and a password, or other ones. No ConnectionError: botocore would try those again."""

    fmt = "The proxy refuses the user and the password."


class ProxyUnsupported(BotoCoreError):
    """The proxy is of a kind that can not be used."""

    fmt = "Proxies of the kind {scheme} are not supported."


DENIED: Final = Refusals()  # by API calls and, once main has handed it over, by links


class _Read:
    """A body that was read: what aiobotocore asks of a raw response."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self) -> bytes:
        """All of it."""
        return self._body


class BoundedSession(AIOHTTPSession):
    """aiobotocore's way to send a request, with an end to the answer."""

    most = MOST

    async def send(self, request: Any) -> Any:  # its stubs say that a response is ours to choose
        """Send, and read the answer."""
        known: Any = self  # the stubs leave out what it keeps
        proxy = known._proxy_config.proxy_url_for(request.url)
        if proxy is None:
            return await self._sent(request)
        scheme = _SCHEME.match(proxy)
        if scheme is not None and scheme[1].lower() not in ("http", "https"):
            raise ProxyUnsupported(scheme=scheme[1].lower())
        now = asyncio.get_running_loop().time()
        if DENIED.left(proxy, now):
            raise ProxyDenied
        try:
            response = await self._sent(request)
        except ProxyConnectionError as error:
            if getattr(error.kwargs.get("error"), "status", None) != AUTHENTICATION:
                raise
            DENIED.refused(proxy, now)
            raise ProxyDenied from error
        if response.status_code == AUTHENTICATION:  # of a plain request, which is no tunnel
            DENIED.refused(proxy, now)
            raise ProxyDenied
        DENIED.passed(proxy)
        return response

    async def _sent(self, request: Any) -> Any:
        if request.stream_output:  # nothing that we call
            return await super().send(request)
        request.stream_output = True  # else it would be read in there
        try:
            response: Any = await super().send(request)
        finally:
            request.stream_output = False
        response.raw = _Read(await self._read(response.raw, request.url))
        await response.content
        return response

    async def _read(self, raw: aiohttp.ClientResponse, url: str) -> bytes:
        pieces, size = [], 0
        try:
            async with asyncio.timeout(WITHIN):
                if (raw.content_length or 0) > self.most:
                    raise AnswerTooLong(most=self.most)
                async for piece in raw.content.iter_chunked(READ_AT_ONCE):
                    pieces.append(piece)
                    if (size := size + len(piece)) > self.most:
                        raise AnswerTooLong(most=self.most)
        except TimeoutError as error:
            raw.close()
            raise ReadTimeoutError(endpoint_url=url, error=error) from error
        except aiohttp.ClientError as error:
            raw.close()
            raise ConnectionClosedError(endpoint_url=url, error=error) from error
        except BaseException:
            raw.close()
            raise
        raw.release()
        return b"".join(pieces)


class _Parser:
    """A parser of answers that fails in one way."""

    def __init__(self, parser: Any) -> None:
        self._parser = parser

    async def parse(self, response: Any, shape: Any) -> dict[str, Any]:
        """As botocore's. Raises ResponseParserError."""
        try:
            work = self._parser.parse(response, shape)
            is_large = len(response.get("body") or b"") > LARGE
            parsed = await asyncio.to_thread(_finished, work) if is_large else await work
        except ResponseParserError:
            raise
        except Exception as error:  # whatever it trips over is in the answer, not here
            raise ResponseParserError(f"the answer is not of the model ({type(error).__name__})") from error
        if not isinstance(parsed, dict):
            raise ResponseParserError("the answer is no structure")
        return parsed


def _finished(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that waits for nothing: aiobotocore's parsers are ones, but for streams."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    work.close()
    raise ResponseParserError("the answer is a stream")


class Parsers(AioResponseParserFactory):
    """Makes such parsers; a component of a botocore session."""

    def create_parser(self, protocol_name: Any) -> Any:
        """One for a protocol."""
        return _Parser(super().create_parser(protocol_name))


class _Ec2Session(BoundedSession):
    most = MOST_EC2


def session_for(service: str) -> type[BoundedSession]:
    """The class to read answers of a service with."""
    return _Ec2Session if service == "ec2" else BoundedSession
