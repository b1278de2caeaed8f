"""``devboxctl forward``: listeners that stay."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import socket
import threading
import time

import pytest

from tests.e2e.kit import World, fetch, free_port, until


def echo(address: tuple[str, int], data: bytes, timeout: float = 30.0) -> bytes:
    """Send everything and read as much back."""
    with socket.create_connection(address, timeout=timeout) as one:
        sender = threading.Thread(target=one.sendall, args=(data,))
        sender.start()
        got = bytearray()
        while len(got) < len(data):
            piece = one.recv(1 << 16)
            if not piece:
                break
            got += piece
        sender.join()
    return bytes(got)


def test_a_page_comes_through(world: World) -> None:
    [address] = world.forward("0:80")
    assert "hello from box api\npath /x" in fetch(address, "/x")


def test_two_hundred_connections_at_once_through_one_forward(world: World) -> None:
    """Each gets its own bytes back, over a handful of sessions."""
    [address] = world.forward("0:7")
    problems: list[str] = []

    def one(number: int) -> None:
        data = random.Random(number).randbytes(20_000)
        try:
            if echo(address, data, 60.0) != data:
                problems.append(f"{number}: other bytes")
        except OSError as error:
            problems.append(f"{number}: {error}")

    began = time.monotonic()
    threads = [threading.Thread(target=one, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"200 connections, 20 kB each way each: {time.monotonic() - began:.2f} s")
    assert not problems
    [state] = world.json("forward", "ls")["forwards"]
    assert state["total_connections"] == 200
    assert state["sessions"] <= 4


def test_a_refused_port_is_a_reset_and_has_a_reason(world: World) -> None:
    [address] = world.forward(f"0:{free_port()}")
    # Over a bridge that is up it may come before connect has returned.
    with pytest.raises(ConnectionResetError), socket.create_connection(address, timeout=20) as one:
        one.recv(1)
    until(lambda: "nothing listens" in str(world.json("forward", "ls")), "the reason is shown")


def test_open_streams_go_on_when_the_link_is_cut(world: World) -> None:
    [address] = world.forward("0:7")
    with socket.create_connection(address, timeout=20) as one:
        for fault in ("rst", "close", "fin"):
            one.sendall(fault.encode())
            assert one.recv(100) == fault.encode()
            world.fault(fault)
            one.sendall(b"after")
            assert one.recv(100) == b"after"


def test_a_new_connection_waits_while_the_link_is_down(world: World) -> None:
    [address] = world.forward("0:80")
    fetch(address)
    world.fault("refuse-resume", seconds=1.0)
    world.fault("rst")
    began = time.monotonic()
    assert "hello" in fetch(address)
    print(f"waited {time.monotonic() - began:.2f} s of an outage of 1 s")


def test_streams_go_on_when_their_sessions_end(world: World) -> None:
    [address] = world.forward("0:7")
    with socket.create_connection(address, timeout=20) as one:
        for turn in (b"1", b"2", b"3"):
            one.sendall(turn)
            assert one.recv(1) == turn
            assert world.fault("terminate") >= 1


def test_streams_of_a_session_that_is_gone_are_reset_and_the_next_connection_works(bare_world: World) -> None:
    world = bare_world
    [address] = world.forward("0:7")
    with socket.create_connection(address, timeout=20) as one:
        one.sendall(b"x")
        assert one.recv(1) == b"x"
        world.fault("terminate")
        with pytest.raises(ConnectionResetError):
            one.recv(1)
    until(lambda: not world.far_sessions(), "all sessions are gone")
    assert echo(address, b"again") == b"again"


@pytest.mark.parametrize("how", ["kill", "restart"])
def test_forwards_return_with_the_next_daemon(world: World, how: str) -> None:
    [found, asked] = world.forward("0:80", f"{free_port()}:80")
    assert "hello" in fetch(found)
    if how == "kill":
        world.kill_daemon()
        world.start_daemon()
    else:
        world.ok("daemon", "restart")
    began = time.monotonic()  # how soon there is a daemon is not what this is about

    def works() -> str | None:
        with contextlib.suppress(OSError):
            return fetch(found, timeout=5.0)
        return None

    assert "hello" in until(works, "the forward works again")
    took = time.monotonic() - began
    print(f"{how}: forwarding again after {took:.2f} s")
    assert took < 3.0
    assert len(world.json("forward", "ls")["forwards"]) == 2
    assert "hello" in fetch(asked)


def test_a_unix_socket_can_be_the_local_end(world: World) -> None:
    path = world.folder / "f.sock"
    world.ok("forward", "api", f"{path}:7")
    assert path.stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(20)
        one.connect(str(path))
        one.sendall(b"hi")
        assert one.recv(10) == b"hi"


def test_an_upload_and_a_download_keep_every_byte(world: World) -> None:
    [address] = world.forward("0:7")
    data = os.urandom(4 << 20)
    assert hashlib.sha256(echo(address, data)).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_foreground_forwards_go_with_their_command(world: World, how: signal.Signals) -> None:
    import subprocess

    with world.start(
        "forward", "api", "0:80", "--foreground", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        local = process.stdout.readline().split()[0].decode()
        assert "hello" in fetch((local.split(":")[0], int(local.split(":")[1])))
        process.send_signal(how)
        process.wait(10)
    until(lambda: not world.json("forward", "ls")["forwards"], "the forward is gone")
