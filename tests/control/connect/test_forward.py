"""Forwards: listeners that stay, connections that wait, and what is kept of them."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devboxd.control.base.memory import Memory
from devboxd.control.connect import forwards as forwards_module
from devboxd.control.connect.forward import Forward
from devboxd.control.connect.forwards import Forwards
from devboxd.control.connect.socks import answer_to
from devboxd.control.connect.stream import ConnectionRefused, StreamReset
from devboxd.control.daemon import Daemon
from devboxd.errors import DevboxError, PortInUse, Unreachable, WrongState
from devboxd.model.box import Account, BoxRef
from devboxd.model.config import Config, ForwardSettings
from devboxd.model.forward import Facts, ForwardState, Saved, Spec
from devboxd.model.memory import State, Unusable, kept, recalled
from devboxd.net.listen import Listener, Listeners, listen_tcp
from devboxd.simulator.world import Simulator
from tests.control.conftest import MakeDaemon, reconfigure
from tests.control.kit import Nowhere
from tests.kit.sim import MakeSimulator
from tests.kit.tasks import beside

ECHO, WEB = 7, 80


async def until(what: Callable[[], object], timeout: float = 15.0) -> None:
    """Wait for something that a real program does."""
    async with asyncio.timeout(timeout):
        while not what():
            await asyncio.sleep(0.01)


async def api(daemon: Daemon, sim: Simulator) -> BoxRef:
    return await daemon.boxes.resolve(sim.box("api").id, Account())


async def add(daemon: Daemon, sim: Simulator, **spec: Any) -> Facts:
    """One forward to the box ``api``."""
    spec.setdefault("local_port", 0)
    made = await daemon.forwards.add(await api(daemon, sim), [Spec(**spec)], auto=False, ephemeral=False)
    return made[0]


def left(*saved: Saved) -> State:
    """What an earlier daemon left."""
    return State(forwards={one.id: one for one in saved})


def port_of(facts: Facts) -> int:
    return int(facts.local.rpartition(":")[2])


async def echo(local: str | int, data: bytes = b"hello") -> bytes:
    """Send and read back; empty where the connection was cut."""
    if isinstance(local, int):
        reader, writer = await asyncio.open_connection("127.0.0.1", local)
    else:
        reader, writer = await asyncio.open_unix_connection(local)
    try:
        writer.write(data)
        await writer.drain()
        async with asyncio.timeout(20):
            return await reader.readexactly(len(data))
    except (ConnectionError, asyncio.IncompleteReadError):
        return b""
    finally:
        writer.close()


async def test_a_forward_carries_and_counts(daemon: Daemon, sim: Simulator) -> None:
    """What ``forward ls`` shows."""
    facts = await add(daemon, sim, port=WEB)
    assert facts.state is ForwardState.LISTENING
    assert facts.remote == "80"
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(facts))
    request = b"GET / HTTP/1.0\r\n\r\n"
    writer.write(request)
    page = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    await until(lambda: not daemon.forwards.list()[0].connections)
    (shown,) = daemon.forwards.list()
    assert (shown.total_connections, shown.bytes_up, shown.bytes_down) == (1, len(request), len(page))
    assert (shown.state, shown.sessions, shown.error) == (ForwardState.ONLINE, 1, None)


async def test_a_refused_connection_is_reset_and_the_reason_shown(daemon: Daemon, sim: Simulator) -> None:
    """The server on the box is not up yet; when it is, the forward works, and the error goes."""
    sim.map_port("api", 3000, 1)
    facts = await add(daemon, sim, port=3000)
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(facts))
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await until(lambda: "nothing listens on port 3000" in (daemon.forwards.list()[0].error or ""))


async def test_the_listener_stays_and_new_connections_wait_through_an_outage(
    daemon: Daemon, sim: Simulator
) -> None:
    """A browser tab loads when the network is back, instead of showing an error page."""
    facts = await add(daemon, sim, port=ECHO)
    assert await echo(port_of(facts)) == b"hello"
    await sim.fault("refuse", call="*", code="InternalServerError", status=500)
    await sim.fault("refuse-dial", status=500)
    await sim.fault("rst")
    await until(lambda: daemon.forwards.list()[0].state is ForwardState.RECONNECTING)
    waiting = [beside(echo(port_of(facts), b"%d" % number)) for number in range(3)]
    await asyncio.sleep(0.2)
    assert not any(one.done() for one in waiting)
    await sim.fault("clear")
    daemon.shared.bells.network.ring()
    assert await asyncio.gather(*waiting) == [b"0", b"1", b"2"]


async def test_open_connections_are_carried_through_a_resume(daemon: Daemon, sim: Simulator) -> None:
    """A database session survives the tunnel."""
    facts = await add(daemon, sim, port=ECHO)
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(facts))
    for number in range(5):
        writer.write(b"line %d\n" % number)
        assert await asyncio.wait_for(reader.readline(), 20) == b"line %d\n" % number
        await sim.fault("rst")
    writer.close()
    assert len(sim.gateway.sessions) == 1


async def test_open_connections_are_reset_when_the_session_is_gone_and_the_next_ones_work(
    daemon: Daemon, sim: Simulator
) -> None:
    """No connection hangs on a session that is no more."""
    facts = await add(daemon, sim, port=ECHO)
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(facts))
    writer.write(b"hello")
    await reader.readexactly(5)
    await sim.fault("terminate")
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert await echo(port_of(facts)) == b"hello"


@pytest.mark.parametrize(("is_off", "text"), [(True, "api is stopped"), (False, "not connected")])
async def test_a_box_that_cannot_be_reached_cuts_the_connection_with_a_reason(
    is_off: bool, text: str, simulator: MakeSimulator, make_daemon: MakeDaemon
) -> None:
    """At once where it is switched off, after the wait where its agent may come; ``forward ls`` says which."""
    sim = await simulator(stopped=["api"] if is_off else [])
    daemon = await make_daemon(sim, forward=ForwardSettings(wait=30.0 if is_off else 3.0))
    if not is_off:
        await sim.fault("refuse-start", code="TargetNotConnected", times=None)
    facts = await add(daemon, sim, port=ECHO)
    assert await asyncio.wait_for(echo(port_of(facts)), 10) == b""
    await until(lambda: daemon.forwards.list()[0].error)
    assert text in (daemon.forwards.list()[0].error or "")
    assert daemon.forwards.list()[0].state in (ForwardState.FAILED, ForwardState.CONNECTING)


async def test_all_or_none_are_added(daemon: Daemon, sim: Simulator) -> None:
    """Half of a command must not stay behind."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        box = await api(daemon, sim)
        specs = [Spec(port=ECHO, local_port=0), Spec(port=WEB, local_port=port)]
        with pytest.raises(PortInUse):
            await daemon.forwards.add(box, specs, auto=False, ephemeral=False)
        assert daemon.forwards.list() == []
        # Where any port will do, the next free one is taken.
        facts = await add(daemon, sim, port=ECHO, local_port=port, strict=False)
        assert port_of(facts) != port


async def test_the_same_forward_twice_is_one(daemon: Daemon, sim: Simulator) -> None:
    """Scripts may repeat themselves."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    first = await add(daemon, sim, port=ECHO, local_port=port)
    assert (await add(daemon, sim, port=ECHO, local_port=port)).id == first.id
    assert len(daemon.forwards.list()) == 1


async def test_a_unix_socket_keeps_other_users_out(daemon: Daemon, sim: Simulator, tmp_path: Path) -> None:
    """A port on loopback is open to everybody on this machine; a file is not."""
    path = tmp_path / "db.sock"
    facts = await add(daemon, sim, port=ECHO, local_path=str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert facts.local == str(path)
    assert await echo(str(path)) == b"hello"
    await daemon.forwards.remove(facts.id)
    assert not path.exists()


async def test_removing_cuts_what_runs_and_frees_the_port(daemon: Daemon, sim: Simulator) -> None:
    """By id or the start of it."""
    facts = await add(daemon, sim, port=ECHO)
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(facts))
    writer.write(b"hello")
    await reader.readexactly(5)
    assert await daemon.forwards.remove("no-such") is None
    gone = await daemon.forwards.remove(facts.id[:4])
    assert gone is not None
    assert gone.state is ForwardState.REMOVED
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 10)
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port_of(facts))
    assert daemon.forwards.list() == []


async def test_what_was_asked_for_is_made_again_by_the_next_daemon(
    sim: Simulator, make_daemon: MakeDaemon
) -> None:
    """A restart of the daemon costs no forward; those held by a terminal go with it."""
    state = State()
    first = await make_daemon(sim, state=state)
    kept = await add(first, sim, port=ECHO)
    box = await api(first, sim)
    await first.forwards.add(box, [Spec(port=WEB, local_port=0)], auto=False, ephemeral=True)
    assert list(state.forwards) == [kept.id]
    await first.stop()
    assert list(state.forwards) == [kept.id], "stopping forgets nothing"
    second = await make_daemon(sim, state=state)
    (again,) = second.forwards.list()
    assert again.id == kept.id
    assert await echo(port_of(again)) == b"hello"


async def test_a_forward_that_cannot_be_made_again_is_a_condition_and_is_kept(
    sim: Simulator, make_daemon: MakeDaemon
) -> None:
    """Another program took the port meanwhile: say so, and do not forget the wish."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        spec = Spec(port=ECHO, local_port=taken.getsockname()[1])
        box = BoxRef("api", sim.box("api").id, Account())
        daemon = await make_daemon(sim, state=left(Saved("abc123", box, spec)))
        (condition,) = daemon.shared.news.conditions()
        assert (condition.code, condition.subject) == ("forward-failed", "abc123")
        (facts,) = daemon.forwards.list()
        assert facts.state is ForwardState.FAILED
        assert await daemon.forwards.remove("abc123") is not None
        assert daemon.shared.news.conditions() == []


async def test_a_forward_that_could_not_be_made_again_is_tried_until_it_stands(
    sim: Simulator, make_daemon: MakeDaemon
) -> None:
    """An address comes with the network; a port comes back."""
    box = BoxRef("api", sim.box("api").id, Account())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        spec = Spec(port=ECHO, local_port=port)
        daemon = await make_daemon(sim, state=left(Saved("abc123", box, spec)))
        daemon.shared.bells.network.ring()
        await until(lambda: daemon.forwards.list()[0].state is ForwardState.FAILED)
    daemon.shared.bells.network.ring()
    await until(lambda: not daemon.shared.news.conditions())
    assert await echo(port) == b"hello"
    (facts,) = daemon.forwards.list()
    assert (facts.local, facts.error) == (f"127.0.0.1:{port}", None)


async def test_a_forward_that_cannot_be_takes_no_other_along(sim: Simulator, make_daemon: MakeDaemon) -> None:
    """The journal was edited, or comes from another version: the daemon starts, and the rest is there."""
    box = BoxRef("api", sim.box("api").id, Account())
    good = [Saved(f"good{number}", box, Spec(port=ECHO, local_port=0)) for number in range(2)]
    impossible = [
        Spec(port=ECHO, local_path="~no-such-user/x.sock"),
        Spec(port=ECHO, local_port=0, bind="x" * 70),  # a label of a host name has at most 63 characters
        Spec(port=ECHO, local_port=0, bind="192.0.2.1"),
    ]
    bad = [Saved(f"bad{number}", box, spec) for number, spec in enumerate(impossible)]
    state = left(good[0], *bad, good[1])
    daemon = await make_daemon(sim, state=state)
    facts = {one.id: one for one in daemon.forwards.list()}
    assert [id_ for id_, one in facts.items() if one.state is ForwardState.FAILED] == [one.id for one in bad]
    assert {one.subject for one in daemon.shared.news.conditions()} == {one.id for one in bad}
    for one in good:
        assert await echo(port_of(facts[one.id])) == b"hello"
    assert [*state.forwards] == [*facts], "and none is forgotten: a user may become known again"


async def test_an_entry_that_makes_no_sense_is_set_aside_until_it_is_removed(
    sim: Simulator, make_daemon: MakeDaemon
) -> None:
    """It is shown, and stays in the journal as it is."""
    entry = {"id": "bad", "box": {"name": "api"}, "spec": {"port": 99999}}
    state = State(unusable=[Unusable("bad", entry, "99999 is no port")])
    daemon = await make_daemon(sim, state=state)
    (condition,) = daemon.shared.news.conditions()
    assert (condition.code, condition.hint) == ("forward-set-aside", "devboxctl forward rm bad forgets it")
    await add(daemon, sim, port=ECHO)
    assert recalled(kept(state)).unusable[0].entry == entry
    facts = daemon.forwards.list()[-1]
    assert (facts.id, facts.box, facts.remote, facts.error) == ("bad", "api", "99999", "99999 is no port")
    assert await daemon.forwards.remove("bad") is not None
    assert daemon.shared.news.conditions() == []
    assert [one.id for one in daemon.forwards.list()] == list(state.forwards)
    assert state.unusable == []


async def test_what_is_added_before_the_rest_is_bound_again_forgets_nothing(
    sim: Simulator, make_daemon: MakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that is away must neither hold up the daemon for long nor cost a forward."""
    monkeypatch.setattr(forwards_module, "RESTORE_WAIT", 0.05)
    slow = asyncio.Event()

    class Slow(Listeners):
        async def tcp(self, bind: str, port: int) -> Listener:
            if bind == "slow":
                await slow.wait()
            return await listen_tcp("127.0.0.1", port)

    box = BoxRef("api", sim.box("api").id, Account())
    state = left(*(Saved(f"f{n}", box, Spec(port=ECHO, local_port=0, bind="slow")) for n in range(30)))
    daemon = await make_daemon(sim, state=state, listeners=Slow())
    new = await add(daemon, sim, port=ECHO)
    assert list(state.forwards) == [*(f"f{n}" for n in range(30)), new.id]
    assert daemon.forwards.list()[0].state is ForwardState.CONNECTING, "it listens nowhere yet"
    slow.set()
    await until(lambda: all(facts.local != "?" for facts in daemon.forwards.list()))
    assert await echo(port_of(daemon.forwards.list()[0])) == b"hello"


async def test_a_forward_that_is_removed_is_not_tried_again(sim: Simulator, make_daemon: MakeDaemon) -> None:
    box = BoxRef("api", sim.box("api").id, Account())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        spec = Spec(port=ECHO, local_port=taken.getsockname()[1])
        daemon = await make_daemon(sim, state=left(Saved("abc123", box, spec)))
        await daemon.forwards.remove("abc123")
    daemon.shared.bells.network.ring()
    await asyncio.sleep(0.02)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", spec.local_port)


async def test_a_forward_that_is_stopped_while_it_starts_leaves_no_listener(
    daemon: Daemon, sim: Simulator
) -> None:
    """A mirror may be dropped before its address was looked up."""
    go = asyncio.Event()
    made = []

    class Slow(Listeners):
        async def tcp(self, bind: str, port: int) -> Listener:
            await go.wait()
            made.append(await listen_tcp(bind, port))
            return made[0]

    box = await api(daemon, sim)
    forward = Forward(daemon.shared, daemon.pools.of, Slow(), box, Spec(port=0), id_="x", wait=lambda: 1.0)
    starting = beside(forward.start())
    await asyncio.sleep(0)
    await forward.stop()
    go.set()
    await starting
    assert {one.fileno() for one in made[0].sockets} == {-1}


async def test_what_others_hold_or_keep_outlives_the_client_that_asked_first(
    sim: Simulator, make_daemon: MakeDaemon
) -> None:
    """Ephemeral forwards go with their last holder, and become lasting when somebody asks for that."""
    state = State()
    daemon = await make_daemon(sim, state=state)
    box = await api(daemon, sim)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        spec = Spec(port=ECHO, local_port=free.getsockname()[1])
    first, second = object(), object()
    forwards = daemon.forwards

    async def held(holder: object) -> str:
        return (await forwards.add(box, [spec], auto=False, ephemeral=True, holder=holder))[0].id

    id_ = await held(first)
    assert await held(second) == id_
    await forwards.release(first)
    assert [facts.id for facts in forwards.list()] == [id_]
    assert state.forwards == {}
    await forwards.release(second)
    assert forwards.list() == []
    id_ = await held(first)
    (kept,) = await forwards.add(box, [spec], auto=False, ephemeral=False)
    assert kept.id == id_
    assert list(state.forwards) == [id_]
    assert await held(second) == id_
    await forwards.release(first)
    await forwards.release(second)
    assert [facts.id for facts in forwards.list()] == [id_], "what is kept stays so"


async def test_listeners_that_nobody_took_are_dropped_after_the_start(daemon: Daemon, sim: Simulator) -> None:
    """Of forwards that the journal does not know: their clients would wait for ever."""
    calls = []

    class Store(Listeners):
        def take(self, name: str) -> Listener | None:
            calls.append(name)
            return None

        def drop_rest(self) -> None:
            calls.append("rest")

    state = left(Saved("abc123", await api(daemon, sim), Spec(port=ECHO, local_port=0)))
    memory = Memory(daemon.shared.news, Nowhere(), state)
    forwards = Forwards(daemon.shared, daemon.pools.of, Store(), daemon.execute, memory, wait=lambda: 1.0)
    await forwards.restore()
    await forwards.stop()
    assert calls == ["forward-abc123", "rest"]


async def test_the_wait_is_the_configured_one_at_the_time(daemon: Daemon, sim: Simulator) -> None:
    """No restart for a new ``forward.wait``."""
    await add(daemon, sim, port=ECHO)
    (forward,) = daemon.forwards._all.values()
    assert forward._wait() == 30.0
    reconfigure(daemon, Config(forward=ForwardSettings(wait=3.0)))
    assert forward._wait() == 3.0


def says(text: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
    """A server that says one thing and closes."""

    def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        writer.close()

    return serve


async def socks(port: int, request: bytes, *, methods: bytes = b"\x05\x01\x00") -> tuple[bytes, Any, Any]:
    """Speak SOCKS5 as curl does; returns the reply's code and the open streams."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(methods)
    if await reader.read(2) != b"\x05\x00":
        return b"", reader, writer
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(10), 20)
    return answer[1:2], reader, writer


def asked(host: str, port: int, *, command: int = 1) -> bytes:
    """A request by name (socks5h)."""
    return bytes([5, command, 0, 3, len(host)]) + host.encode() + port.to_bytes(2, "big")


async def test_a_dynamic_forward_reaches_any_port_of_the_box(daemon: Daemon, sim: Simulator) -> None:
    """``curl --proxy socks5h://…``"""
    facts = await add(daemon, sim, dynamic=True)
    assert facts.remote == "socks5"
    for request in (asked("localhost", WEB), bytes([5, 1, 0, 1, 127, 0, 0, 1, 0, WEB])):
        code, reader, writer = await socks(port_of(facts), request)
        assert code == b"\x00"
        writer.write(b"GET /x HTTP/1.0\r\n\r\n")
        page = await asyncio.wait_for(reader.read(), 20)
        assert b"hello from box api" in page
        writer.close()


async def test_a_dynamic_forward_reaches_hosts_behind_the_box(daemon: Daemon, sim: Simulator) -> None:
    """Names are resolved there."""
    facts = await add(daemon, sim, dynamic=True)
    listening = await asyncio.start_server(says(b"db"), "127.0.0.2", 0)
    try:
        number = listening.sockets[0].getsockname()[1]
        code, reader, writer = await socks(port_of(facts), asked("127.0.0.2", number))
        assert code == b"\x00"
        assert await asyncio.wait_for(reader.read(), 20) == b"db"
        writer.close()
    finally:
        listening.close()


async def test_one_bad_target_of_socks_is_told_and_harms_no_other(daemon: Daemon, sim: Simulator) -> None:
    """A browser behind it asks for many names; one that nobody knows must not make the forward look broken."""
    facts = await add(daemon, sim, dynamic=True)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = unused.getsockname()[1]
    for request in (asked("no-such-host.invalid", 80), asked("localhost", closed)):
        code, reader, writer = await socks(port_of(facts), request)
        assert code in (b"\x01", b"\x03", b"\x04", b"\x05")
        assert await asyncio.wait_for(reader.read(), 20) == b"", "an end, not a reset"
        writer.close()
    code, reader, writer = await socks(port_of(facts), asked("localhost", WEB))
    assert code == b"\x00"
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    assert b"hello from box api" in await asyncio.wait_for(reader.read(), 20)
    writer.close()
    (shown,) = daemon.forwards.list()
    assert shown.state is not ForwardState.FAILED
    assert shown.error is None


async def test_a_target_that_was_reached_lately_is_answered_at_once(
    daemon: Daemon, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of a hundred pieces must not wait a hundred times."""
    facts = await add(daemon, sim, dynamic=True)
    first, _, writer = await socks(port_of(facts), asked("localhost", WEB))
    writer.close()
    monkeypatch.setattr("devboxd.control.connect.forward.FIRST_SIGN", 60.0)
    async with asyncio.timeout(30):
        second, _, writer = await socks(port_of(facts), asked("localhost", WEB))
    writer.close()
    assert (first, second) == (b"\x00", b"\x00")


async def test_a_server_that_speaks_first_is_heard_through_socks(daemon: Daemon, sim: Simulator) -> None:
    """What came while we waited for a refusal comes behind the reply."""
    facts = await add(daemon, sim, dynamic=True)
    listening = await asyncio.start_server(says(b"220 ready"), "127.0.0.1", 0)
    try:
        number = listening.sockets[0].getsockname()[1]
        code, reader, writer = await socks(port_of(facts), asked("127.0.0.1", number))
        assert code == b"\x00"
        assert await asyncio.wait_for(reader.read(), 20) == b"220 ready"
        writer.close()
    finally:
        listening.close()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConnectionRefused("no"), 5),
        (StreamReset("no", "ECONNREFUSED"), 5),
        (StreamReset("no", "EHOSTUNREACH"), 4),
        (StreamReset("no", "ENETUNREACH"), 3),
        (StreamReset("no", "EXDEV"), 1),
        (StreamReset("no"), 1),
        (Unreachable("no"), 1),
    ],
)
def test_a_socks_client_is_told_why(error: DevboxError, code: int) -> None:
    assert answer_to(error) == code


@pytest.mark.parametrize(
    ("methods", "request_", "code"),
    [
        (b"\x05\x01\x00", asked("localhost", WEB, command=2), b"\x07"),  # BIND
        (b"\x05\x01\x00", asked("localhost", 0), b"\x08"),
        (b"\x05\x01\x00", bytes([5, 1, 0, 9, 1]), b"\x08"),  # an unknown kind of address
        (b"\x05\x01\x02", b"", b""),  # insists on a password
        (b"\x04\x01\x00\x50", b"", b""),  # SOCKS4
        (b"GET / HTTP/1.0\r\n\r\n", b"", b""),
    ],
)
async def test_bad_socks_clients_are_told_and_dropped(
    daemon: Daemon, sim: Simulator, methods: bytes, request_: bytes, code: bytes
) -> None:
    """And the listener lives on."""
    facts = await add(daemon, sim, dynamic=True)
    got, reader, writer = await socks(port_of(facts), request_, methods=methods)
    assert got == code
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    got, _, writer = await socks(port_of(facts), asked("localhost", WEB))
    assert got == b"\x00"
    writer.close()


async def test_a_program_that_listens_on_the_box_is_mirrored_until_it_stops(
    daemon: Daemon, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``forward --auto``: start a dev server on the box, open the browser here."""
    # The box is this machine, and other tests listen on it, too.
    monkeypatch.setattr("devboxd.control.connect.auto.LIMIT", 4096)
    box = await api(daemon, sim)
    (watcher,) = await daemon.forwards.add(box, [], auto=True, ephemeral=False)
    assert watcher.auto
    # A box of the simulator shares this machine's ports: the mirror cannot have the same number.
    listening = await asyncio.start_server(says(b"dev"), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]

    def mirror() -> Facts | None:
        return next((f for f in daemon.forwards.list() if f.remote == str(port) and ":" in f.local), None)

    await until(mirror)
    found = mirror()
    assert found is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(found))
    assert await asyncio.wait_for(reader.read(), 20) == b"dev"
    writer.close()
    listening.close()
    await until(lambda: mirror() is None)
    assert (await daemon.forwards.add(box, [], auto=True, ephemeral=False))[0].id == watcher.id
    await until(lambda: len(daemon.forwards.list()) > 1)  # something else listens here
    with pytest.raises(WrongState, match="mirrors what listens on") as caught:
        await daemon.forwards.remove(daemon.forwards.list()[1].id)
    assert watcher.id in str(caught.value.hint)
    await daemon.forwards.remove(watcher.id)
    assert daemon.forwards.list() == []


def test_a_report_of_the_box_that_makes_no_sense_is_ignored() -> None:
    """It is untrusted text."""
    from devboxd.control.connect.auto import LINE

    for line in ("", "hex", "dec 80", "hex 1F90 0016", "dec 80 "):
        assert (LINE.match(line) is not None) is (line != "")
    for line in ("hex 123456", "oct 7", "hex 80; rm -rf", "dec -1", "dec  80"):
        assert LINE.match(line) is None


async def test_errors_of_the_local_end_name_the_port(daemon: Daemon, sim: Simulator) -> None:
    """Not only "address in use"."""
    if os.geteuid() != 0:
        with pytest.raises(DevboxError, match="1"):
            await add(daemon, sim, port=ECHO, local_port=1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=str(port)):
            await add(daemon, sim, port=ECHO, local_port=port)


async def test_a_port_of_our_own_is_not_blamed_on_another_program(daemon: Daemon, sim: Simulator) -> None:
    """Whoever looks for that program finds devboxd, and wonders."""
    first = await add(daemon, sim, port=ECHO)
    for bind in ("localhost", "127.0.0.1", "::1"):
        with pytest.raises(PortInUse, match=f"is the local end of a forward already: .*:{ECHO}") as caught:
            await add(daemon, sim, port=WEB, local_port=port_of(first), bind=bind)
        assert f"devboxctl forward rm {first.id}" in str(caught.value.hint)


async def test_both_loopback_addresses_are_bound(daemon: Daemon, sim: Simulator) -> None:
    """localhost is ::1 to many a browser, and something else may answer there."""
    facts = await add(daemon, sim, port=ECHO)
    assert facts.local.startswith("127.0.0.1:")
    for address in ("127.0.0.1", "::1"):
        reader, writer = await asyncio.open_connection(address, port_of(facts))
        writer.write(b"x")
        assert await asyncio.wait_for(reader.readexactly(1), 20) == b"x"
        writer.close()
