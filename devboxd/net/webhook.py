"""One HTTPS POST of a small JSON body to an address that the user has named."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

import aiohttp
from yarl import URL

from devboxd.errors import DevboxError, Unreachable
from devboxd.model.notice import Post
from devboxd.model.proxy import AUTHENTICATION, HINT, PROBLEM, Refusals
from devboxd.net.dial import DialSettings, trust

PATIENCE: Final = 15.0  # seconds


class WebhookRefused(DevboxError):
    """What a notice was sent to does not want it."""

    code = "webhook-refused"


class Webhook:
    """Posts notices, by the same proxy and to the same certificates as everything else."""

    def __init__(self, settings: DialSettings, refusals: Refusals) -> None:
        """``refusals``: by proxies, shared with others that go through the same ones."""
        self._settings = settings
        self._refusals = refusals
        self._trusted: ssl.SSLContext | None = None

    async def post(self, what: Post, name: str) -> None:
        """Send it; what is answered is not read, but for its status.

        Redirects are not followed: they would carry a token elsewhere. Neither address nor answer is quoted.

        Raises:
            Unreachable: nothing answered in time.
            WebhookRefused: it was answered with another status than 2xx.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                status = await self._status(what)
        except aiohttp.ClientHttpProxyError as error:
            if error.status == AUTHENTICATION:
                raise _proxy_denied() from None
            raise Unreachable(f"the proxy does not lead to {name} (HTTP status {error.status})") from None
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise Unreachable(f"{name} did not answer ({type(error).__name__})") from None
        if not 200 <= status < 300:
            raise WebhookRefused(
                f"{name} answered with HTTP status {status}", hint=f"devboxctl notify set {name}"
            )

    async def _status(self, what: Post) -> int:
        target = URL(what.url)
        secure = target.scheme == "https"
        proxy = self._settings.proxy_for(target.host or "", target.port or 443) if secure else None
        now = asyncio.get_running_loop().time()
        if proxy is not None and self._refusals.left(proxy, now):
            raise _proxy_denied()
        context = await self._trust() if secure else True
        try:
            async with (
                aiohttp.ClientSession(trust_env=not secure) as client,  # http_proxy is nobody else's
                client.post(
                    target,
                    json=what.body,
                    headers=what.headers,
                    proxy=proxy,
                    ssl=context,
                    allow_redirects=False,
                ) as answer,
            ):
                status = answer.status
        except aiohttp.ClientHttpProxyError as error:
            if proxy is not None and error.status == AUTHENTICATION:
                self._refusals.refused(proxy, now)
            raise
        if proxy is not None:
            self._refusals.passed(proxy)
        return status

    async def _trust(self) -> ssl.SSLContext:
        """The certificates of AWS_CA_BUNDLE and those of the system: the other end is not AWS's."""
        if self._trusted is None:
            bundle = self._settings.ca_bundle
            try:
                context = await asyncio.to_thread(trust, bundle)
            except OSError:
                text = f"the CA bundle {bundle} can not be read"
                raise Unreachable(text, hint="check AWS_CA_BUNDLE") from None
            if bundle is not None:
                context.load_default_certs()
            self._trusted = context
        return self._trusted


def _proxy_denied() -> Unreachable:
    return Unreachable(PROBLEM, hint=HINT)
