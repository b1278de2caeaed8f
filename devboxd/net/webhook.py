"""One HTTPS POST of a small JSON body to an address that the user has named."""

from __future__ import annotations

from typing import Final

import aiohttp

from devboxd.errors import DevboxError, Unreachable
from devboxd.model.notice import Post

PATIENCE: Final = 15.0  # seconds


class WebhookRefused(DevboxError):
    """What a notice was sent to does not want it."""

    code = "webhook-refused"


async def post(what: Post, name: str) -> None:
    """Send it; what is answered is not read, but for its status.

    Redirects are not followed: they would carry a token elsewhere. Neither address nor answer is quoted.

    Raises:
        Unreachable: nothing answered in time.
        WebhookRefused: it was answered with another status than 2xx.
    """
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as client,
            client.post(what.url, json=what.body, headers=what.headers, allow_redirects=False) as answer,
        ):
            status = answer.status
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
        raise Unreachable(f"{name} did not answer ({type(error).__name__})") from None
    if not 200 <= status < 300:
        raise WebhookRefused(
            f"{name} answered with HTTP status {status}", hint=f"devboxctl notify set {name}"
        )
