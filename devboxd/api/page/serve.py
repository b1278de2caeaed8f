"""The page of ``devboxctl ui``, on loopback, for whoever has a link that works once.

The link becomes a cookie that scripts can not read and no other site sends. Whoever asks under another host name than
ours (DNS rebinding) or from another origin is refused; the page may load nothing but its own three files. It looks, and
does two things on a click: end a session, and keep a box running for longer.
"""

from __future__ import annotations

import hmac
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final

import msgspec
from aiohttp import web

from devboxd.api import routes, views, wire
from devboxd.api.handlers.context import Context
from devboxd.api.handlers.project import priced
from devboxd.api.handlers.table import HANDLERS
from devboxd.api.server import answer, carried_through
from devboxd.errors import BadRequest, DevboxError, http_status
from devboxd.model.project import Phase
from devboxd.text import rfc3339

LINK_FOR: Final = 120.0  # seconds that a link works
COOKIE_FOR: Final = 12 * 3600.0  # seconds that the page works
COOKIES_MOST: Final = 16  # browsers at once: the oldest has to ask for a link again
STREAMS_MOST: Final = 16  # of changes
BODY_MOST: Final = 4096  # bytes of a request
BEAT: Final = 15.0  # seconds between two signs of life
MINUTES_SHOWN: Final = 24 * 60
EXTEND_MOST: Final = 24 * 3600.0

_NAME: Final = "devbox"
_FILES: Final = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'none';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
# The first answer has no redirect: a cookie with SameSite=Strict does not travel along one that began elsewhere.
_WELCOME: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>devbox</title>'
    '<meta http-equiv="refresh" content="0;url=/"><p><a href="/">devbox</a></p></html>'
)
_STALE: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>devbox</title>'
    "<h1>This link was used, or is too old</h1><p>Run <code>devboxctl ui</code> for a new one.</p></html>"
)

Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Wish(msgspec.Struct, forbid_unknown_fields=True):
    """What a click asks for."""

    session: str = ""
    project: str = ""
    seconds: float = 0.0


@dataclass(slots=True, eq=False)
class PageServer:
    """The server of the page. It listens from the first ``open`` on."""

    context: Context
    clock: Callable[[], float] | None = None  # monotonic seconds; None: the daemon's
    port: int = 0
    _runner: web.AppRunner | None = None
    _links: dict[str, float] = field(default_factory=dict)  # token: monotonic time of its end
    _cookies: dict[str, float] = field(default_factory=dict)
    _streams: int = 0

    async def open(self) -> str:
        """A link that works once, for two minutes."""
        if self._runner is None:
            await self._listen()
        token = secrets.token_urlsafe(32)
        now = self._now()
        self._links = {one: end for one, end in self._links.items() if end > now}
        self._links[token] = now + LINK_FOR
        return f"http://127.0.0.1:{self.port}/?link={token}"

    async def close(self) -> None:
        """Stop listening; open pages say that the daemon is gone."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _listen(self) -> None:
        application = web.Application(middlewares=[self._guard], client_max_size=BODY_MOST)
        for path in _FILES:
            application.router.add_get(path, self._file)
        application.router.add_get("/data", self._data)
        application.router.add_get("/boxes", self._boxes)
        application.router.add_get("/changes", self._changes)
        application.router.add_post("/end", self._end)
        application.router.add_post("/extend", self._extend)
        runner = web.AppRunner(
            application,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=1.0,
            handler_cancellation=True,  # a page that was closed has no stream any more
        )
        await runner.setup()
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
            await web.SockSite(runner, listener).start()
        except BaseException:
            listener.close()
            await runner.cleanup()
            raise
        self._runner = runner

    # Who is let in

    @web.middleware
    async def _guard(self, request: web.Request, handler: Serve) -> web.StreamResponse:
        """Let in the browser that has the cookie, under our own name only."""
        try:
            found = await self._let_in(request, handler)
        except web.HTTPException as error:
            found = web.Response(status=error.status, text=error.reason)
        except DevboxError as error:
            found = answer(views.failure(error), http_status(error.kind))
        if not found.prepared:
            found.headers.update(_HEADERS)
        return found

    async def _let_in(self, request: web.Request, handler: Serve) -> web.StreamResponse:
        own = (f"127.0.0.1:{self.port}", f"localhost:{self.port}")
        if request.headers.getall("Host", []) not in ([own[0]], [own[1]]):
            return web.Response(status=421, text="this is not the host that you asked for")
        origin = request.headers.get("Origin")
        if origin is not None and origin not in (f"http://{own[0]}", f"http://{own[1]}"):
            return web.Response(status=403, text="another site may not ask here")
        if request.method not in ("GET", "HEAD") and (
            origin is None or request.content_type != "application/json"
        ):
            return web.Response(status=403, text="only the page itself may ask for that")
        if request.path == "/" and (link := request.query.get("link")) is not None:
            return self._welcome(link)
        if not self._is_known(request.cookies.get(self._cookie)):
            return web.Response(status=401, text=_STALE, content_type="text/html")
        return await handler(request)

    @property
    def _cookie(self) -> str:
        """Cookies are shared by all ports of a host: ours is named after its port."""
        return f"{_NAME}-{self.port}"

    def _welcome(self, link: str) -> web.Response:
        """A link for a cookie, once."""
        now = self._now()
        token = next((one for one in self._links if hmac.compare_digest(one.encode(), link.encode())), None)
        if token is None or self._links.pop(token) <= now:
            return web.Response(status=401, text=_STALE, content_type="text/html")
        cookie = secrets.token_urlsafe(32)
        kept = {one: end for one, end in self._cookies.items() if end > now}
        while len(kept) >= COOKIES_MOST:
            del kept[next(iter(kept))]
        self._cookies = {**kept, cookie: now + COOKIE_FOR}
        answer = web.Response(text=_WELCOME, content_type="text/html")
        answer.set_cookie(
            self._cookie, cookie, max_age=round(COOKIE_FOR), httponly=True, samesite="Strict", path="/"
        )
        return answer

    def _is_known(self, cookie: str | None) -> bool:
        now = self._now()
        given = (cookie or "").encode()
        return any(
            end > now and hmac.compare_digest(one.encode(), given) for one, end in self._cookies.items()
        )

    def _now(self) -> float:
        return (self.clock or self.context.daemon.shared.time.monotonic)()

    # What is served

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name, kind = _FILES[request.path]
        return web.Response(
            body=files(__package__).joinpath(name).read_bytes(), content_type=kind, charset="utf-8"
        )

    async def _data(self, request: web.Request) -> web.StreamResponse:
        """All that is known here; nothing is asked of AWS."""
        context = self.context
        cost = await self._asked(routes.COST, wire.CostRequest(by="day"))
        projects = (await self._asked(routes.LIST_PROJECTS, wire.ProjectsRequest(brief=True))).projects
        priced(projects, cost)
        found: dict[str, Any] = {
            "status": await self._asked(routes.STATUS, wire.Nothing()),
            "projects": projects,
            "sessions": (await self._asked(routes.LIST_SESSIONS, wire.Nothing())).sessions,
            "forwards": (await self._asked(routes.LIST_FORWARDS, wire.Nothing())).forwards,
            "cost": cost,
            "now": rfc3339(context.daemon.shared.time.wall()),
        }
        found["idle"] = {
            one.name: await self._idle(one) for one in found["projects"] if one.phase == Phase.RUNNING
        }
        return answer(found)

    async def _idle(self, project: wire.Project) -> dict[str, Any]:
        """What the box knew of itself last: a verdict, and a letter for each minute."""
        try:
            seen = await self.context.idle.show(project.name)
        except DevboxError as error:
            return {"problem": error.message}
        moment = seen.moment
        if moment is None or moment.answer is None:
            return {"problem": moment.problem if moment is not None else "it was not looked at yet"}
        state = moment.answer.state
        return {
            "verdict": str(state.get("verdict", "unknown")),
            "minutes": str(state.get("minutes", ""))[-MINUTES_SHOWN:],
            "held": rfc3339(seen.held) if seen.held is not None else None,
        }

    async def _boxes(self, request: web.Request) -> web.StreamResponse:
        """Boxes of AWS, which may take a while or fail."""
        return answer(await self._asked(routes.LIST_BOXES, wire.BoxesRequest()))

    async def _asked(self, route: routes.Route[Any, Any], asked: msgspec.Struct) -> Any:
        return await HANDLERS[route](self.context, asked)

    async def _changes(self, request: web.Request) -> web.StreamResponse:
        """A line for each thing that happens: server-sent events."""
        if self._streams >= STREAMS_MOST:
            return web.Response(status=503, text="too many pages are open")
        news = self.context.daemon.shared.news
        since = news.events()[-1].sequence if news.events() else 0
        lines = web.StreamResponse(headers={**_HEADERS, "Content-Type": "text/event-stream"})
        self._streams += 1
        try:
            await lines.prepare(request)
            await lines.write(b": here\n\n")
            while True:
                for event in news.events(since):
                    since = event.sequence
                    await lines.write(b"data: " + msgspec.json.encode(views.event(event)) + b"\n\n")
                if not news.events(since) and not await news.changed(BEAT):
                    await lines.write(b": still here\n\n")
        except ConnectionError:
            return lines  # the page was closed
        finally:
            self._streams -= 1

    async def _end(self, request: web.Request) -> web.StreamResponse:
        """End a session, after the page has asked whether that is meant."""
        wish = await _wish(request)
        return answer(
            await carried_through(
                self.context, "page end", self._asked(routes.END_SESSION, wire.SessionId(wish.session))
            )
        )

    async def _extend(self, request: web.Request) -> web.StreamResponse:
        """Keep a box running for longer."""
        wish = await _wish(request)
        if not 60 <= wish.seconds <= EXTEND_MOST:
            raise BadRequest("a box is kept for a minute at least and a day at most")
        await carried_through(
            self.context, "page extend", self.context.idle.extend(wish.project, wish.seconds)
        )
        return answer({"done": True})


async def _wish(request: web.Request) -> Wish:
    try:
        return msgspec.json.decode(await request.read(), type=Wish)
    except msgspec.DecodeError as error:
        raise BadRequest(f"the request does not fit: {error}") from None
