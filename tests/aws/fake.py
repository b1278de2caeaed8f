"""An AWS endpoint on loopback that answers with what a test puts in: real bytes for botocore's parsers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Reply = dict[str, Any] | web.Response | Callable[["Call"], Any]


@dataclass
class Call:
    """One request as it arrived."""

    service: str  # from the credential scope of the signature; empty for unsigned calls
    operation: str
    body: dict[str, Any]
    headers: dict[str, str] = field(repr=False, default_factory=dict)


@dataclass
class FakeAws:
    """Replies by operation: a list is used up from the front, its last one stays."""

    url: str = ""
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    def on(self, operation: str, *replies: Reply) -> None:
        self.replies[operation] = list(replies)

    def made(self, operation: str) -> list[Call]:
        return [call for call in self.calls if call.operation == operation]

    @property
    def counts(self) -> dict[str, int]:
        found: dict[str, int] = defaultdict(int)
        for call in self.calls:
            found[call.operation] += 1
        return dict(found)


def error(code: str, message: str = "", status: int = 400) -> web.Response:
    """An error as the JSON protocol writes it."""
    body = {"__type": code, "message": message}
    return web.Response(status=status, text=json.dumps(body), content_type="application/x-amz-json-1.1")


def ec2_error(code: str, message: str = "", status: int = 400) -> web.Response:
    """An error as EC2 writes it."""
    text = f"<Code>{code}</Code><Message>{message}</Message>"
    text = f"<Response><Errors><Error>{text}</Error></Errors></Response>"
    return web.Response(status=status, text=text, content_type="text/xml")


def xml(text: str) -> web.Response:
    return web.Response(text=text, content_type="text/xml")


async def _in_pieces(request: web.Request, reply: web.Response) -> web.StreamResponse:
    """Send without saying how long it is: all of it at once, or a byte at a time without an end."""
    stream = web.StreamResponse(status=reply.status, headers={"Content-Type": "application/x-amz-json-1.1"})
    await stream.prepare(request)
    with contextlib.suppress(ConnectionError):
        while "X-Test-Drip" in reply.headers:
            await stream.write(b" ")
            await asyncio.sleep(0.01)
        body = reply.body
        assert isinstance(body, bytes)
        await stream.write(body)
    return stream


@contextlib.asynccontextmanager
async def fake_aws(tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeAws]:
    """Listen on loopback until the end of the block."""
    fake = FakeAws()

    async def answer(request: web.Request) -> web.StreamResponse:
        scope = request.headers.get("Authorization", "").partition("Credential=")[2].split("/")
        service = scope[3] if len(scope) > 3 else ""
        target = request.headers.get("X-Amz-Target", "")
        if target:
            operation, body = target.rpartition(".")[2], await request.json()
        elif request.content_type == "application/x-www-form-urlencoded":
            form = dict(await request.post())
            operation, body = str(form.get("Action", "")), form
        else:
            text = await request.text()
            operation, body = (
                f"{request.method} {request.path}",
                json.loads(text) if text else dict(request.query),
            )
        call = Call(service, operation, body, dict(request.headers))
        fake.calls.append(call)
        replies = fake.replies[operation]
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        if callable(reply) and not isinstance(reply, web.Response):
            reply = reply(call)
        if isinstance(reply, dict):
            return web.json_response(reply, content_type="application/x-amz-json-1.1")
        assert isinstance(reply, web.Response)
        if "X-Test-Drip" in reply.headers or "X-Test-Chunked" in reply.headers:
            return await _in_pieces(request, reply)
        # A response object can be sent once: this one may be asked for again.
        return web.Response(status=reply.status, body=reply.body, headers=reply.headers.copy())

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listening, ssl_context=tls).start()
    fake.url = f"{'https' if tls else 'http'}://127.0.0.1:{listening.getsockname()[1]}"
    try:
        yield fake
    finally:
        await runner.cleanup()
