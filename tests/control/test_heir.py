"""What a daemon takes up of the one before it: no client's fault is another's, and nothing stays open for nobody."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from devboxd import main
from devboxd.control.connect.bridge_start import Note
from devboxd.control.connect.bridges import Bridges
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.handing import Inheritance
from devboxd.control.connect.parcel import Client, Command, Connection, HeldOver, OverBridge, Parcel, Unread
from devboxd.control.daemon import Daemon
from devboxd.model.box import Account, BoxRef
from devboxd.model.bridge.end import Bridge
from devboxd.model.frozen import freeze
from devboxd.simulator.world import Simulator
from tests.control.conftest import MakeDaemon

BOX = BoxRef("api", "i-0123456789abcdef0", Account())
CLIENT = Client(0, b"", b"")


def secret(name: str) -> bytes:
    return hashlib.sha256(b"test" + name.encode()).digest()


def over(number: int, bridge: int = 0) -> OverBridge:
    return OverBridge(bridge, number, b"")


def command(stream: int, control: int, place: int = 0, bridge: int = 0) -> Command:
    return Command(
        client=Client(place, b"", b""),
        stream=over(stream, bridge),
        control=over(control, bridge),
        spec=ExecSpec(box=BOX, argv=["true"]),
        tty=None,
        untaken=0,
        status=None,
        tail=b"",
        record=(b"", 0, 0),
        rest=b"",
        owed=0,
    )


def held(box: BoxRef = BOX) -> tuple[HeldOver, list[int]]:
    """A bridge with three streams, and their numbers."""
    end = Bridge(near=True)
    numbers = [end.open(b"[]") for _ in range(3)]
    unread = [Unread(number, b"", 0, False) for number in numbers]
    return HeldOver(box, None, bytes(16), freeze(end), Note(4711), 1, unread), numbers


def streams(daemon: Daemon) -> int:
    return sum(bridge.streams for bridge in daemon.bridges())


async def is_cut(peer: socket.socket) -> bool:
    with peer:
        peer.settimeout(5)
        return await asyncio.to_thread(peer.recv, 1) == b""


async def test_a_command_whose_client_did_not_come_leaves_no_stream(
    sim: Simulator, make_daemon: MakeDaemon
) -> None:
    """Also that with its signals: else the bridge was in use for ever."""
    bridge, (first, second, third) = held()
    parcel = Parcel([bridge], [command(first, second)], {}, [1])
    inherited = Inheritance(parcel, [None])
    daemon = await make_daemon(sim, bridge_secret=secret, inherited=inherited)
    assert (inherited.kept, inherited.cut, inherited.why) == (0, 1, "its descriptor did not come")
    assert streams(daemon) == 0, f"nobody asked for {third} either"


async def test_a_command_whose_stream_did_not_come_leaves_none_for_its_signals(
    sim: Simulator, make_daemon: MakeDaemon
) -> None:
    ours, theirs = socket.socketpair()
    bridge, (_, second, third) = held()
    inherited = Inheritance(Parcel([bridge], [command(third + 2, second)], {}, [1]), [ours.detach()])
    daemon = await make_daemon(sim, bridge_secret=secret, inherited=inherited)
    assert (inherited.kept, inherited.cut, inherited.why) == (0, 1, "its stream did not come")
    assert await is_cut(theirs)
    assert streams(daemon) == 0


async def test_a_command_that_is_given_up_leaves_no_stream(sim: Simulator, make_daemon: MakeDaemon) -> None:
    ours, theirs = socket.socketpair()
    bridge, (first, second, _) = held()
    inherited = Inheritance(Parcel([bridge], [command(first, second)], {}, [1]), [ours.detach()])
    daemon = await make_daemon(sim, bridge_secret=secret)
    [resumed] = await daemon.start(inherited)
    assert (inherited.kept, inherited.cut, streams(daemon)) == (1, 0, 2)
    resumed.give_up()
    assert streams(daemon) == 0
    with theirs, socket.socket(fileno=resumed.loose.descriptor):
        pass


async def test_a_fault_with_one_client_ends_neither_the_daemon_nor_the_others(
    sim: Simulator,
    make_daemon: MakeDaemon,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    bridge, (first, second, third) = held()
    parcel = Parcel(
        [bridge], [Connection(CLIENT, over(third), "f00"), command(first, second, place=1)], {}, [1, 2]
    )
    inherited = Inheritance(parcel, [ours.detach() for ours, _ in pairs])
    daemon = await make_daemon(sim, bridge_secret=secret)

    def fails(_: str) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(daemon.forwards, "of", fails)
    [resumed] = await daemon.start(inherited)
    assert (inherited.kept, inherited.cut, inherited.why) == (1, 1, "the daemon failed at it")
    assert await is_cut(pairs[0][1])
    assert streams(daemon) == 2
    resumed.give_up()
    assert "could not be taken up" in caplog.text
    assert "a bug" in caplog.text
    with pairs[1][1], socket.socket(fileno=resumed.loose.descriptor):
        pass


async def test_a_bridge_that_cannot_be_gone_on_with_costs_its_own_clients_only(
    sim: Simulator,
    make_daemon: MakeDaemon,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And the next stream to that box begins afresh."""
    pairs = [socket.socketpair() for _ in range(2)]
    other = BoxRef("web", "i-0123456789abcdef1", Account())
    (bad, (lost, *_)), (good, (kept, control, _)) = held(other), held()
    pieces = [command(lost, lost + 2), command(kept, control, place=1, bridge=1)]
    parcel = Parcel([bad, good], list(pieces), {}, [1, 2])
    inherited = Inheritance(parcel, [ours.detach() for ours, _ in pairs])
    thaw = Bridges.thaw

    def thawed(self: Bridges, one: HeldOver) -> object:
        if one is bad:
            raise RuntimeError("a bug")
        return thaw(self, one)

    monkeypatch.setattr(Bridges, "thaw", thawed)
    daemon = await make_daemon(sim, bridge_secret=secret)
    [resumed] = await daemon.start(inherited)
    assert (inherited.kept, inherited.cut, inherited.why) == (1, 1, "its stream did not come")
    assert await is_cut(pairs[0][1])
    assert streams(daemon) == 2
    resumed.give_up()
    assert "the bridge to web of the daemon before could not be taken up" in caplog.text
    with pairs[1][1], socket.socket(fileno=resumed.loose.descriptor):
        pass


def test_what_a_daemon_fails_at_is_not_left_to_the_one_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started again by its service manager, it would fail at it again, and so on."""
    forgotten = list[bool]()
    notifier: Any = SimpleNamespace(forget_left=lambda: forgotten.append(True))

    def fails(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(main, "left", fails)
    with pytest.raises(RuntimeError, match="a bug"):
        main._inheritance(None, notifier, {}, {})
    assert forgotten == [True]
