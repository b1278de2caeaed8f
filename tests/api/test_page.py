"""The page of ``devboxctl ui``: who is let in, and what a real browser makes of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest
from msgspec.structs import replace

from devboxd.api.page.serve import COOKIE_FOR, LINK_FOR, STREAMS_MOST, PageServer
from devboxd.model.box import Account
from devboxd.model.project import Phase, Place, Project, Run, Span, Spec, Want
from tests.api.conftest import Server
from tests.kit.browser import ENTER, ESCAPE, TAB, Browser, browser, missing

T = TypeVar("T")
EVIL = "<img src=x onerror=alert(1)><b>bold</b>\u202e"
needs_browser = pytest.mark.skipif(bool(missing()), reason=f"needs {', '.join(missing())}")
SHOTS = os.environ.get("DEVBOX_SCREENSHOTS")  # a folder to put pictures into, for people


class Client:
    """A browser of few words."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.link, self.session = url, session
        self.base = url.partition("/?")[0]

    async def get(self, path: str = "/", **headers: str) -> tuple[int, str, Any]:
        async with self.session.get(self.base + path, headers=headers, allow_redirects=False) as answer:
            return answer.status, await answer.text(), answer.headers

    async def post(self, path: str, body: object, **headers: str) -> int:
        given = {
            "Origin": self.base,
            **{name.replace("_", "-"): text for name, text in headers.items() if text},
        }
        given = {name: text for name, text in given.items() if text != "-"}
        async with self.session.post(self.base + path, json=body, headers=given) as answer:
            return answer.status


@pytest.fixture
async def client(server: Server) -> Any:
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as session:
        yield Client(await server.context.open_page(), session)


async def test_a_link_works_once_and_makes_a_cookie_that_no_script_reads(client: Client) -> None:
    assert (await client.get("/data"))[0] == 401
    status, text, headers = await client.get(client.link.removeprefix(client.base))
    assert status == 200
    assert "refresh" in text
    cookie = headers["Set-Cookie"]
    for words in ("HttpOnly", "SameSite=Strict", "Path=/", f"devbox-{client.base.rpartition(':')[2]}="):
        assert words in cookie
    assert client.link.partition("=")[2] not in cookie
    assert (await client.get("/data"))[0] == 200
    client.session.cookie_jar.clear()
    assert (await client.get(client.link.removeprefix(client.base)))[0] == 401, "it was used"
    assert (await client.get("/?link=guess"))[0] == 401
    assert (await client.get("/data"))[0] == 401


async def test_links_and_cookies_end(server: Server) -> None:
    now = 1000.0
    page = PageServer(server.context, lambda: now)
    try:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            client = Client(await page.open(), session)
            now += LINK_FOR
            assert (await client.get(client.link.removeprefix(client.base)))[0] == 401
            client = Client(await page.open(), session)
            assert (await client.get(client.link.removeprefix(client.base)))[0] == 200
            now += COOKIE_FOR - 1
            assert (await client.get("/data"))[0] == 200
            now += 2
            assert (await client.get("/data"))[0] == 401
    finally:
        await page.close()


async def test_no_other_name_and_no_other_site_is_let_in(client: Client) -> None:
    """A name that an attacker lets lead here (DNS rebinding), and a page of his that asks in our browser's name."""
    await client.get(client.link.removeprefix(client.base))
    port = client.base.rpartition(":")[2]
    assert (await client.get("/data"))[0] == 200
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1",
        f"127.0.0.1:{port}.evil.example",
        "127.0.0.1:1",
    ):
        assert (await client.get("/data", Host=host))[0] == 421
    assert (await client.get("/data", Host=f"localhost:{port}"))[0] in (200, 401)
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{port}", "http://127.0.0.1:1"):
        assert (await client.get("/data", Origin=origin))[0] == 403
        assert await client.post("/end", {"session": "x"}, Origin=origin) == 403
    async with client.session.post(client.base + "/end", json={"session": "x"}) as answer:
        assert answer.status == 403, "a form of another site sends no origin that we know"
    async with client.session.post(
        client.base + "/end", data="{}", headers={"Origin": client.base}
    ) as answer:
        assert answer.status == 403, "and no JSON"


async def test_it_may_load_nothing_but_itself(client: Client) -> None:
    await client.get(client.link.removeprefix(client.base))
    for path in ("/", "/page.js", "/page.css", "/data", "/nothing"):
        status, text, headers = await client.get(path)
        assert status == (404 if path == "/nothing" else 200)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        if path in ("/", "/page.js", "/page.css"):
            assert "://" not in text.replace("http://www.w3.org/2000/svg", "")
    script = (await client.get("/page.js"))[1]
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert word not in script


async def test_clicks_are_checked(client: Client) -> None:
    await client.get(client.link.removeprefix(client.base))
    assert await client.post("/end", {"session": "nope"}) == 404
    assert await client.post("/end", {"what": 1}) == 400
    assert await client.post("/extend", {"project": "nope", "seconds": 3600}) == 404
    assert await client.post("/extend", {"project": "nope", "seconds": 1e9}) == 400
    assert await client.post("/extend", {"project": "x" * 10_000, "seconds": 3600}) == 413


async def test_changes_are_streamed_to_a_bounded_number_of_pages(client: Client, server: Server) -> None:
    await client.get(client.link.removeprefix(client.base))
    news = server.context.daemon.shared.news
    streams = [await client.session.get(client.base + "/changes") for _ in range(STREAMS_MOST)]
    assert (await client.get("/changes"))[0] == 503
    assert await streams[0].content.readline() == b": here\n"
    news.tell("project.8", "saved as generation 1", box="api")
    await streams[0].content.readline()
    async with asyncio.timeout(5):
        assert b"saved as generation 1" in await streams[0].content.readline()
    for one in streams:
        one.close()
    async with asyncio.timeout(10):
        while True:
            again = await client.session.get(client.base + "/changes")
            again.close()
            if again.status == 200:
                break
            await asyncio.sleep(0.05)


# A real browser ---------------------------------------------------------------------------------------------


async def filled(server: Server) -> None:
    """Projects in several states, with names and texts that would like to be markup."""
    now = server.context.daemon.shared.time.wall()
    places = (Place("m7g.large", "eu-central-1a"),)
    for number, (name, phase, want) in enumerate(
        [("api", Phase.RUNNING, Want.UP), ("web", Phase.SAVING, Want.COLD), ("old", Phase.READY, Want.COLD)]
    ):
        uid = f"uid000000{number}"
        row = Project(uid, name, "me", Account("work", "eu-central-1"), run=1, spec=Spec(places=places))
        span = Span(now - 86400 * 9, None if phase is Phase.RUNNING else now - 86400, "m7g.large", True)
        run = Run(1, 0, "ami-1", places, (), {}, token=f"{uid}-1-0", instance=f"i-{number}", spans=(span,))
        row = replace(
            row, phase=phase, want=want, instance=f"i-{number}", reason=EVIL if name == "web" else ""
        )
        await server.context.money.book.create(row, "made", run=run)


async def beside(work: Callable[..., T], *given: Any) -> T:
    """Drive a browser in a thread, while the server serves."""
    return await asyncio.to_thread(work, *given)


@needs_browser
async def test_the_page_in_a_real_browser(server: Server) -> None:
    """Empty, filled, offline; with hostile text, by keyboard alone, from 320 pixels to wide, light and dark."""
    context = server.context
    link = await context.open_page()
    with browser() as one:
        await beside(_empty, one, link)
        await filled(server)
        context.daemon.shared.news.tell("project.1", EVIL, box="web")
        await beside(_filled, one)
        await beside(_fits, one)
        context.daemon.shared.news.tell("project.8", "saved as generation 7", box="web")
        await beside(
            one.until, "document.querySelector('#events').innerText.includes('saved as generation 7')"
        )
        again = await context.open_page()
        await beside(_keys, one)
        await beside(_timeline, one)
        await beside(_used_link, one, link)
        await beside(one.go, again)
        await beside(one.until, "document.querySelector('#state')?.textContent.startsWith('Live')")
        for stack in server.context.open_page.__closure__ or ():
            if isinstance(found := stack.cell_contents, PageServer):
                await found.close()
        await beside(_offline, one)


def _empty(one: Browser, link: str) -> None:
    one.go(link)
    one.until("document.querySelector('#state')?.textContent.startsWith('Live')")
    assert "link" not in one.url, "no secret stays in the address"
    assert one.run("return document.cookie") == ""
    for words in (
        "There is no project",
        "Nothing has cost anything",
        "No session is open",
        "No forward is kept",
    ):
        assert words in one.text()
    _shot(one, "empty")


def _filled(one: Browser) -> None:
    one.until("document.querySelectorAll('#projects article').length === 3")
    text = one.text()
    for words in ("m7g.large", "running", "saving", "0.1028", "forecast", "eu-central-1"):
        assert words in text, text
    assert "<b>bold</b>" in text, "what comes from elsewhere is text"
    assert one.run("return document.querySelectorAll('main img, main b').length") == 0
    assert one.run("return document.querySelectorAll('#cost svg rect').length") > 0
    assert [line for line in one.log() if "favicon" not in line] == []


def _fits(one: Browser) -> None:
    for width in (320, 375, 768, 1280, 1920):
        one.size(width, 900)
        assert one.run("return document.documentElement.scrollWidth") <= width, width
        small = one.run(
            "return [...document.querySelectorAll('button')].filter(b => b.offsetHeight && b.offsetHeight < 32).length"
        )
        assert small == 0
        for is_dark in (False, True):
            one.dark(is_dark)
            ground = one.run("return getComputedStyle(document.body).backgroundColor")
            assert ground == ("rgb(22, 24, 27)" if is_dark else "rgb(251, 251, 250)")
            assert _contrast(one) >= 4.5, (width, is_dark)
            _shot(one, f"{width}-{'dark' if is_dark else 'light'}")
    one.size(1280, 900)
    one.dark(False)


def _contrast(one: Browser) -> float:
    """The least contrast of a text on the page with what is behind it (WCAG 2, relative luminance)."""
    return float(
        one.run(
            """
            const parts = (text) => text.match(/[\\d.]+/g).map(Number);
            const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
              .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
            const behind = (e) => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor);
              if (c.length === 3 || c[3] > 0) return c; } return [255, 255, 255]; };
            let least = 21;
            for (const e of document.querySelectorAll("p, h1, h2, h3, td, th, dt, dd, button, span, li, summary")) {
              if (!e.offsetHeight || !e.textContent.trim()) continue;
              const [a, b] = [light(parts(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
              least = Math.min(least, (a + 0.05) / (b + 0.05));
            }
            return least;
            """
        )
    )


def _keys(one: Browser) -> None:
    """Everything that can be done is reached with Tab, shows where it is, and can be left again."""
    one.run("document.activeElement.blur(); window.scrollTo(0, 0)")
    seen = []
    for _ in range(12):
        one.press(TAB)
        seen.append(
            one.run("const e = document.activeElement; return (e.textContent || '').trim().slice(0, 40)")
        )
        ring = one.run("return getComputedStyle(document.activeElement).outlineStyle")
        if one.run("return document.activeElement !== document.body"):
            assert ring == "solid", seen
    assert seen[0] == "Skip to content"
    assert "Keep running 1 h longer" in seen
    assert "Figures" in seen
    one.run("document.querySelector('summary').focus()")
    one.press(ENTER)
    one.until("document.querySelector('details').open")
    held = "document.querySelector('[data-key^=extend]')"
    one.run(f"{held}.focus()")
    one.press(ENTER)
    one.until("document.querySelector('#state').textContent.includes('api is kept for an hour longer')")
    one.run("act(document.querySelector('[data-key]'), '/extend', {project: 'old', seconds: 3600}, 'x')")
    one.until("document.querySelector('#state').classList.contains('off')")
    assert "old" in one.text("#state"), "what was refused is said"
    one.run("confirmEnd({id: 'x', kind: 'port', box: arguments[0]}, document.querySelector('summary'))", EVIL)
    assert one.run("return document.querySelector('dialog').open")
    assert "<b>bold</b>" in one.text("#ask-text")
    assert one.run("return document.activeElement.id") == "ask-no", "the safe answer is the first"
    one.press(ESCAPE)
    one.until("!document.querySelector('dialog').open")
    one.until(
        "document.activeElement.tagName === 'SUMMARY'"
    )  # the focus goes back, also to what was drawn anew
    one.run(
        "const old = document.querySelector('summary'); confirmEnd({id: 'x', kind: 'port', box: 'b'}, old); old.replaceWith(old.cloneNode(true))"
    )
    one.press(ESCAPE)
    one.until("document.activeElement.tagName === 'SUMMARY'")


def _timeline(one: Browser) -> None:
    """A stretch for each verdict, and in words for who does not see it; letters that nobody knows are left out."""
    script = "const [said, line] = timeline({minutes: arguments[0], verdict: 'idle'});"
    script += "return [said.textContent, line.getAttribute('aria-label'), ...[...line.children].map(r => r.getAttribute('width'))]"
    said, label, *widths = one.run(script, "aaiiiu<a")
    assert said == label
    assert said.startswith("Last 8 minutes: 3 active, 3 idle, 1 unknown.")
    assert widths == ["2", "3", "1", "1"]


def _used_link(one: Browser, link: str) -> None:
    one.go(link)
    assert "used, or is too old" in one.text()


def _offline(one: Browser) -> None:
    one.run("look()")
    one.until("document.querySelector('#state').textContent.includes('does not answer')")
    assert "api" in one.text("#projects"), "what it said last stays"
    _shot(one, "offline")


def _shot(one: Browser, name: str) -> None:
    if SHOTS:
        one.shot(Path(SHOTS) / f"{name}.png")
