"""Every route: what it answers, and what it answers to nonsense."""

from __future__ import annotations

import asyncio
import os
import stat
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from devboxctl.fast import reply
from devboxd import __version__
from devboxd.api import routes, wire
from devboxd.api import server as server_module
from devboxd.api.handlers.context import Context
from devboxd.api.handlers.table import HANDLERS
from devboxd.api.routes import Route
from devboxd.api.server import build, serving
from devboxd.control.connect.ssh import Access
from devboxd.errors import (
    BadRequest,
    BoxNotFound,
    Denied,
    DevboxError,
    LoginNeeded,
    NotConnected,
    Unreachable,
    WrongState,
    exit_status,
)
from devboxd.model.box import BoxRef
from devboxd.net.listen import bind_unix
from devboxd.net.unix import PeerDenied
from devboxd.simulator.world import Simulator
from tests.api.conftest import MakeServer, Server, box_id, request
from tests.control.conftest import MakeDaemon
from tests.kit.sim import MakeSimulator
from tests.kit.tasks import beside

T = TypeVar("T")


async def get(server: Server, path: str, type_: type[T], *, method: str = "GET", body: object = None) -> T:
    """Ask for something that must succeed."""
    status, data = await server.ask(method, path, body)
    assert status == 200, data
    return msgspec.json.decode(data, type=type_)


async def refused(
    server: Server, method: str, path: str, body: object = None, *, headers: str = ""
) -> tuple[int, wire.Failure]:
    """Ask for something that must fail."""
    status, data = await server.ask(method, path, body, headers=headers)
    return status, msgspec.json.decode(data, type=wire.Failure)


# Happy paths --------------------------------------------------------------------------------------------


async def test_status_tells_who_runs_and_how_much(server: Server) -> None:
    """``devboxctl daemon status``."""
    server.daemon.shared.news.raise_condition("forward-failed", "y", problem="much", hint="do")
    status = await get(server, "status", wire.Status)
    assert (status.daemon_version, status.pid) == (__version__, os.getpid())
    assert status.started == "2023-11-14T22:13:20.500Z"
    assert status.socket == str(server.path)
    assert [condition.code for condition in status.conditions] == ["forward-failed"]
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600


async def test_boxes_are_listed_and_shown(server: Server, sim: Simulator) -> None:
    """``ls`` and ``show``."""
    found = await get(server, "boxes", wire.BoxList)
    assert [box.name for box in found.boxes] == ["api", "data", "web"]
    assert {box.state for box in found.boxes} == {"running"}
    shown = await get(server, "boxes/api", wire.Box)
    assert (shown.id, shown.connection) == (box_id(sim), "connected")
    by_id = await get(server, f"boxes/{box_id(sim)}", wire.Box)
    assert by_id.name == "api"


@pytest.mark.parametrize(
    "tag", ["My Dev Box", "web/prod", "büro", "ann@corp", "..", ".", "a?b#c%41", "-x", "a\\b", "開発"]
)
async def test_every_name_tag_can_stand_in_a_path_and_comes_back(
    server: Server, sim: Simulator, tag: str
) -> None:
    """``devboxctl show web/prod``; what ``ls`` offers in ``ref`` and ``host`` leads to the same box."""
    id_ = box_id(sim)
    await sim.console("CreateTags", Resources=[id_], Tags=[{"Key": "Name", "Value": tag}])
    shown = await get(server, f"boxes/{reply.escape(tag)}", wire.Box)
    assert (shown.id, shown.name, shown.ref) == (id_, tag, tag)
    listed = {box.id: box for box in (await get(server, "boxes", wire.BoxList)).boxes}[id_]
    assert (listed.name, listed.ref, listed.host) == (tag, tag, shown.host)
    assert listed.host is not None
    assert (await get(server, f"boxes/{reply.escape(listed.host)}", wire.Box)).id == id_


async def test_the_beginning_of_a_name_is_taken_and_an_ambiguous_one_lists(
    server: Server, sim: Simulator
) -> None:
    assert (await get(server, "boxes/ap", wire.Box)).name == "api"
    await sim.console("CreateTags", Resources=[sim.box_id("web")], Tags=[{"Key": "Name", "Value": "apple"}])
    server.daemon.boxes.forget()
    status, failure = await refused(server, "GET", "boxes/ap")
    assert (status, failure.code, failure.exit_status) == (400, "box-ambiguous", 2)
    assert "api, apple" in failure.message


async def test_an_instance_that_is_nowhere_is_not_found(server: Server) -> None:
    status, failure = await refused(server, "GET", "boxes/i-00000000000000001")
    assert (status, failure.code, failure.exit_status) == (404, "box-not-found", 3)


async def test_user_and_box_in_one_word_unless_a_box_is_called_so(server: Server, sim: Simulator) -> None:
    """``devboxctl ssh ann@api``, and a box that is tagged ``ann@corp``."""
    asked: list[tuple[str, str | None]] = []

    async def prepare(box: BoxRef, *, user: str | None, **_: object) -> Access:
        asked.append((box.name, user))
        return Access(box.target, user or "root", 22, True, [], [], 0.0)

    server.daemon.ssh.prepare = prepare  # type: ignore[method-assign]
    await sim.console(
        "CreateTags", Resources=[sim.box_id("web")], Tags=[{"Key": "Name", "Value": "ann@corp"}]
    )
    for box in ("ann@api", "ann@corp", "ann@corp.example@api"):
        await get(server, f"boxes/{reply.escape(box)}/ssh", wire.SshAccess, method="POST", body={})
    assert asked == [("api", "ann"), ("ann@corp", None), ("api", "ann@corp.example")]
    assert (await refused(server, "POST", "boxes/-x@api/ssh", {}))[0] == 404


async def test_without_ec2_the_list_says_so_and_shows_what_is_in_use(server: Server, sim: Simulator) -> None:
    """Session Manager alone reaches a box."""
    box = await server.daemon.boxes.resolve(box_id(sim), server_module_account())
    await server.daemon.connect(box, 7, None, 20.0)
    await sim.fault("refuse", call="DescribeInstances", code="UnauthorizedOperation", status=403)
    found = await get(server, "boxes", wire.BoxList)
    assert [(one.id, one.sessions) for one in found.boxes] == [(box_id(sim), 1)]
    assert [condition.code for condition in found.conditions] == ["ec2-unavailable"]


def server_module_account() -> Any:
    from devboxd.model.box import Account

    return Account()


async def test_ping_measures(server: Server) -> None:
    """``devboxctl ping``."""
    answer = await get(server, "boxes/api/ping", wire.Ping, method="POST", body={"count": 2})
    assert len(answer.round_trips) == 2
    assert answer.agent_version == "3.3.987.0"


async def test_forwards_are_added_listed_and_removed(server: Server) -> None:
    """And answered with what was really bound."""
    body = {"box": "api", "forwards": [{"port": 7, "local_port": 0}, {"dynamic": True, "local_port": 0}]}
    added = await get(server, "forwards", wire.ForwardList, method="POST", body=body)
    assert [one.remote for one in added.forwards] == ["7", "socks5"]
    port = int(added.forwards[0].local.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    writer.close()
    listed = await get(server, "forwards", wire.ForwardList)
    assert [one.id for one in listed.forwards] == [one.id for one in added.forwards]
    assert listed.forwards[0].total_connections == 1
    gone = await get(server, f"forwards/{added.forwards[0].id}", wire.Forward, method="DELETE")
    assert gone.state == "removed"
    assert (await refused(server, "DELETE", f"forwards/{added.forwards[0].id}"))[0] == 404


async def test_sessions_are_listed_and_ended(server: Server, sim: Simulator) -> None:
    """``status`` shows what AWS is told."""
    box = await server.daemon.boxes.resolve("api", server_module_account())
    await server.daemon.connect(box, 7, None, 20.0)
    (session,) = (await get(server, "sessions", wire.SessionList)).sessions
    assert (session.kind, session.box, session.state, session.agent_version) == (
        "port",
        "api",
        "online",
        "3.3.987.0",
    )
    ended = await get(server, f"sessions/{session.id}", wire.Session, method="DELETE")
    assert ended.id == session.id
    assert (await refused(server, "DELETE", "sessions/nothing"))[0] == 404


async def test_the_rest_of_the_routes_pass_through(server: Server) -> None:
    """Configuration, doctor, ssh configuration, stopping."""
    settings = (await get(server, "config", wire.ConfigView)).settings
    assert [one.value for one in settings if one.name == "defaults.mux"] == ["tmux"]
    assert (await get(server, "doctor", wire.Doctor, method="POST", body={})).checks[0].name == "machine"
    on_box = await get(server, "boxes/api/doctor", wire.Doctor, method="POST", body={})
    assert on_box.checks[0].text == "api"
    assert not (await get(server, "ssh-config?command=/x", wire.SshConfigResult)).current
    written = await get(server, "ssh-config", wire.SshConfigResult, method="POST", body={"command": "/bin/x"})
    assert written.changed == ["/ours"]
    assert (await get(server, "ssh-config", wire.SshConfigResult, method="DELETE")).changed == ["/ours"]
    assert (await get(server, "stop", wire.Stopping, method="POST", body={})).pid == os.getpid()
    assert server.stops == 1


@pytest.mark.parametrize(("profile", "last"), [(None, "done"), ("broken", "failed")])
async def test_a_login_reports_its_steps_line_by_line(server: Server, profile: str | None, last: str) -> None:
    """The client opens the browser at the first."""
    status, data = await server.ask("POST", "login", {"profile": profile})
    steps = [msgspec.json.decode(line, type=wire.LoginStep) for line in data.splitlines()]
    assert status == 200
    assert [step.state for step in steps] == ["open", last]


async def test_events_can_be_read_and_followed(server: Server) -> None:
    """From a sequence number on; a client that leaves is no failure."""
    shared = server.daemon.shared
    for number in range(3):
        shared.news.tell("test.kind", f"text {number}", box="api", number=number)
    status, data = await server.ask("GET", "events")
    events = [msgspec.json.decode(line, type=wire.Event) for line in data.splitlines()]
    assert status == 200
    assert [event.text for event in events][-3:] == ["text 0", "text 1", "text 2"]
    last = events[-1].sequence
    reader, writer = await server.raw(request("GET", f"events?follow=1&since={last - 1}"))
    await reader.readuntil(b'"text 2"')
    shared.news.tell("test.kind", "later")
    async with asyncio.timeout(10):
        await reader.readuntil(b'"later"')
    writer.close()
    await writer.wait_closed()
    shared.news.tell("test.kind", "nobody listens")
    assert (await server.ask("GET", "status"))[0] == 200


# Refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "nothing", None, 404),
        ("PUT", "status", None, 405),
        ("GET", "boxes/wbe", None, 404),
        ("GET", "boxes/%20", None, 400),
        ("GET", "events?since=x", None, 400),
        ("POST", "forwards", b"{", 400),
        ("POST", "forwards", b"\xff\xfe", 400),
        ("POST", "forwards", b"[1]", 400),
        ("POST", "forwards", {"box": 5}, 400),
        ("POST", "forwards", {"box": "api"}, 400),
        ("POST", "forwards", {"box": "api", "forwards": [{"port": 70000}]}, 400),
        ("POST", "forwards", {"box": "api", "forwards": [{"port": 80, "dynamic": True}]}, 400),
        ("POST", "forwards", {"box": "nope", "forwards": [{"port": 80}]}, 404),
        ("POST", "boxes/api/ping", {"count": "many"}, 400),
        ("POST", "attach", {"box": "api", "session": "a;b"}, 400),
        ("POST", "attach", {"box": "api", "mux": "screen"}, 400),
        ("POST", "attach", {"box": "nope"}, 404),
        ("POST", "exec", {"box": "api"}, 400),
        ("POST", "proxy", {"box": "api", "port": 0}, 400),
        ("POST", "proxy", {"box": "api", "port": 99999}, 400),
        ("POST", "boxes/api/ssh", {"user": "a b"}, 400),
        ("POST", "forwards", {"box": "api", "forwards": [{"port": 80}], "ephemeral": True}, 400),
        ("POST", "forwards/hold", {"box": "api"}, 400),
        ("POST", "forwards/hold", {"box": "nope", "forwards": [{"port": 80}]}, 404),
        ("POST", "stop", b"{", 400),
    ],
)
async def test_nonsense_is_refused_with_a_sentence(
    server: Server, method: str, path: str, body: object, status: int
) -> None:
    """Always JSON, always a code, never a traceback."""
    got, failure = await refused(server, method, path, body, headers="Upgrade: devbox\r\n")
    assert got == status
    assert failure.code != "internal"
    assert failure.message


@pytest.mark.parametrize("path", ["attach", "exec", "proxy"])
async def test_a_stream_without_an_upgrade_is_refused(server: Server, path: str) -> None:
    """And nothing stays open for it."""
    body = {"box": "api", "argv": ["true"], "port": 7}
    status, failure = await refused(server, "POST", path, body)
    assert (status, failure.code) == (400, "bad-request")
    assert "upgrade" in failure.message
    status, failure = await refused(server, "POST", path, body)
    assert status == 400


@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"])
async def test_a_daemon_that_ends_before_it_has_the_whole_body_says_so(
    server: Server, tmp_path: Path, expect: str
) -> None:
    """What comes then is not read any more; but nothing was done, and nobody has to wonder whether it was."""
    async with AsyncExitStack() as served:
        ending = Server(tmp_path / "s", server.daemon, server.context)
        await served.enter_async_context(serving(build(server.context), bind_unix(ending.path)))
        whole = request("POST", "stop", {"restart": False}, headers=expect)
        reader, writer = await ending.raw(whole[:-3])
        if expect:
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        else:
            await asyncio.sleep(0.1)
        stopped = beside(served.aclose())
        await asyncio.sleep(0.1)
        writer.write(whole[-3:])
        async with asyncio.timeout(10):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            await stopped
    assert head.startswith(b"HTTP/1.1 503 "), head
    told = msgspec.json.decode(body, type=wire.Failure)
    assert (told.code, told.message) == ("unreachable", "devboxd is stopping")
    assert server.stops == 0
    writer.close()


async def test_a_body_that_is_too_large_is_refused(server: Server) -> None:
    """Before it is read into memory."""
    status, failure = await refused(server, "POST", "forwards", b"x" * (server_module.BODY_LIMIT + 1))
    assert (status, failure.code) == (413, "bad-request")


@pytest.mark.parametrize("garbage", [b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"A" * 100_000 + b"\r\n\r\n"])
async def test_what_is_not_http_ends_one_connection_only(server: Server, garbage: bytes) -> None:
    """The daemon lives."""
    reader, writer = await server.raw(garbage)
    async with asyncio.timeout(10):
        try:
            assert b" 400 " in await reader.read()
        except ConnectionResetError:
            pass
    writer.close()
    assert (await server.ask("GET", "status"))[0] == 200


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadRequest("x"), 400),
        (BoxNotFound("x"), 404),
        (LoginNeeded("x"), 401),
        (WrongState("x"), 409),
        (Denied("x"), 403),
        (Unreachable("x"), 503),
        (NotConnected("x"), 503),
        (DevboxError("x"), 500),
    ],
)
async def test_errors_keep_their_code_hint_and_exit_status(
    server: Server, monkeypatch: pytest.MonkeyPatch, error: DevboxError, status: int
) -> None:
    """Programs switch on the code, the CLI exits with the status."""
    error.hint = "do this"

    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(server.daemon.boxes, "resolve", fail)
    got, failure = await refused(server, "GET", "boxes/api")
    assert got == status
    assert failure == wire.Failure(
        error.code, "x", "do this", error.retryable, exit_status(error.kind), error.kind
    )


async def test_a_bug_is_one_failed_request_and_a_traceback_in_the_log(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Sessions of others must not go with it; and the text may hold secrets."""

    async def fail(*_: object) -> None:
        raise ValueError("token=SECRET")

    monkeypatch.setattr(server.daemon.boxes, "resolve", fail)
    status, failure = await refused(server, "GET", "boxes/api")
    assert (status, failure.code) == (500, "internal")
    assert "SECRET" not in failure.message
    assert "Traceback" in caplog.text
    assert (await server.ask("GET", "status"))[0] == 200


async def test_another_users_process_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket is 0600; this is the second lock."""

    def deny(connection: object) -> None:
        raise PeerDenied("user id 4711 may not talk to this devboxd")

    monkeypatch.setattr(server_module, "check_peer", deny)
    for method, path in (("GET", "status"), ("POST", "attach"), ("GET", "nothing")):
        status, failure = await refused(server, method, path, {} if method == "POST" else None)
        assert (status, failure.code) == (403, "peer-denied")


@pytest.mark.parametrize(("is_off", "answer", "code"), [(True, 409, b"box-stopped"), (False, 503, b"")])
async def test_a_box_that_cannot_be_reached_is_an_answer_in_time(
    is_off: bool,
    answer: int,
    code: bytes,
    simulator: MakeSimulator,
    make_daemon: MakeDaemon,
    make_server: MakeServer,
) -> None:
    """At once where it is switched off; else after the ``wait`` of the request, not of the daemon."""
    sim = await simulator(stopped=["api"] if is_off else [])
    if not is_off:
        await sim.fault("refuse-start", code="TargetNotConnected", times=None)
    server = await make_server(await make_daemon(sim))
    status, data = await server.ask(
        "POST",
        "proxy",
        {"box": sim.box("api").id, "port": 7, "wait": 30 if is_off else 0.5},
        headers="Upgrade: devbox\r\n",
    )
    assert status == answer, data
    assert code in data


# Clients that leave, stall or send what is not HTTP --------------------------------------------------------


async def begun(work: dict[str, asyncio.Event]) -> None:
    async with asyncio.timeout(5):
        await work["begun"].wait()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> dict[str, asyncio.Event]:
    """Handlers that wait: ``begun``, then ``go``; and then say whether they came to their end."""
    events = {name: asyncio.Event() for name in ("begun", "go", "done", "cancelled")}

    async def work(context: Context, asked: Any) -> wire.Nothing:
        events["begun"].set()
        try:
            await events["go"].wait()
        except asyncio.CancelledError:
            events["cancelled"].set()
            raise
        events["done"].set()
        return wire.Nothing()

    for route in (routes.PING, routes.REMOVE_FORWARD, routes.SHOW_BOX):
        monkeypatch.setitem(HANDLERS, route, work)
    return events


@pytest.mark.parametrize(("method", "path"), [("POST", "boxes/api/ping"), ("GET", "boxes/api")])
async def test_what_only_looks_is_given_up_when_its_client_leaves(
    slow: dict[str, asyncio.Event], server: Server, method: str, path: str
) -> None:
    """A session and a descriptor for an answer that nobody reads."""
    _, writer = await server.raw(request(method, path))
    await begun(slow)
    writer.transport.abort()
    async with asyncio.timeout(5):
        await slow["cancelled"].wait()


async def test_what_changes_something_is_carried_through(
    slow: dict[str, asyncio.Event], server: Server
) -> None:
    """Half of a removal may be worse than none."""
    _, writer = await server.raw(request("DELETE", "forwards/x"))
    await begun(slow)
    writer.transport.abort()
    await asyncio.sleep(0.05)
    slow["go"].set()
    async with asyncio.timeout(5):
        await slow["done"].wait()
    assert not slow["cancelled"].is_set()


async def test_a_body_that_never_comes_is_not_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that stalls would hold a descriptor for ever."""
    monkeypatch.setattr(server_module, "BODY_TIMEOUT", 0.05)
    reader, writer = await server.raw(b"POST /v1/stop HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{")
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert server.stops == 0
    writer.close()


@pytest.mark.parametrize(
    ("body", "headers", "says"),
    [
        (b'{"profile": "\xa7"}', "", "it is not UTF-8"),
        (b'{"profile": "\\u0000"}', "", "without control characters - at `$.profile`"),
        (b'{"profile": "\\ud800"}', "", "does not fit"),
        (b'{"x": ' + b"[" * 100_000, "", "nested too deeply"),
        (b'{"profile": "p"}', "Content-Encoding: gzip\r\n", ""),
        (b"\x1f\x8b\x08\x00", "Content-Encoding: gzip\r\n", "does not fit"),
    ],
)
async def test_odd_bodies_are_read_as_they_are_or_refused(
    server: Server, caplog: pytest.LogCaptureFixture, body: bytes, headers: str, says: str
) -> None:
    """And what is wrong is said; nothing is decompressed, however small it came."""
    status, data = await server.ask("POST", "doctor", body, headers=headers)
    assert status == (400 if says else 200), data
    assert says in data.decode()
    assert "Traceback" not in caplog.text


async def test_text_that_is_no_http_is_not_worth_a_traceback(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever connects could fill the log."""
    for data in (b"GET\r\n\r\n", b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01", b"A" * 70_000):
        _, writer = await server.raw(data)
        writer.write_eof()
        await asyncio.sleep(0.02)
        writer.transport.abort()
    assert (await server.ask("GET", "status"))[0] == 200
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize(
    "path", ["boxes/%ff", "boxes/%ed%a0%80", "boxes/%00", "boxes?region=%00", "forwards/%1b"]
)
async def test_addresses_hold_to_the_types_of_their_fields(server: Server, path: str) -> None:
    """What stands in a path is no better than what stands in a body."""
    status, failure = await refused(server, "DELETE" if path.startswith("forwards") else "GET", path)
    assert status in (400, 404)
    assert failure.code in ("bad-request", "box-not-found")


# Where the client stands ----------------------------------------------------------------------------------


def in_query(text: str) -> str:
    return routes.SHOW_BOX.target(wire.Target(box="api", folder=wire.Folder("/src/devbox.toml", text)))


async def test_a_box_is_seen_from_the_folder_of_the_client(server: Server) -> None:
    """``devbox.toml`` travels with each request, in a query, too."""
    text = "[defaults]\nuser = 'ann@corp.example'\n" + '# \u00e4 %&="+\n' * 300
    shown = await get(server, in_query(text), wire.Box)
    assert shown.user == "ann@corp.example"
    assert (await get(server, "boxes/api", wire.Box)).user is None, "nothing of it stays"
    query = routes.CONFIG.target(wire.ConfigRequest(wire.Folder("/src/devbox.toml", text)))
    settings = {one.name: one for one in (await get(server, query, wire.ConfigView)).settings}
    assert settings["defaults.user"].origin == "/src/devbox.toml"
    assert settings["defaults.mux"].origin == "flag"


@pytest.mark.parametrize(
    "text", ["[defaults]\nprofile = 'x'\n", "[boxes.api]\ntarget = 'i-0123456789abcdef0'\n", "x", "\x00"]
)
@pytest.mark.parametrize("route", [routes.SHOW_BOX, routes.SSH, routes.EXEC, routes.ATTACH])
async def test_a_folder_that_says_too_much_is_refused(
    server: Server, route: Route[Any, Any], text: str
) -> None:
    """Before anything is done."""
    folder = {"path": "/src/devbox.toml", "text": text}
    if route.method == "GET":
        status, failure = await refused(server, "GET", in_query(text))
    else:
        body = {"box": "api", "folder": folder, "argv": ["true"]}
        path = route.path.replace("{box}", "api")
        status, failure = await refused(server, "POST", path, body, headers="Upgrade: devbox\r\n")
    assert (status, failure.code) == (400, "config-invalid")
    assert failure.message.startswith("/src/devbox.toml: ")


@pytest.mark.parametrize("folder", ["{", "[]", "5", '{"path": 5}', '{"path": "/x"}', "x" * 70_000])
async def test_a_folder_that_is_none_is_refused(server: Server, folder: str) -> None:
    status, data = await server.ask("GET", f"boxes/api?folder={folder}")
    assert status == 400, data


async def test_a_folder_is_bounded(server: Server) -> None:
    status, failure = await refused(
        server, "POST", "boxes/api/ssh", {"folder": {"path": "/x", "text": "#" * (wire.FOLDER_MAX + 1)}}
    )
    assert status == 400
    assert "folder" in failure.message
