"""A daemon that ends just as it is asked: what it had not read is asked of the next one, and nothing else is."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devboxd.api import client, starting
from tests.ctl.conftest import ROOT
from tests.ctl.fake_daemon import OUTPUT, FakeDaemon, Peer
from tests.ctl.terminal import PATIENCE, Tty
from tests.ctl.test_daemon import GOOD, ls, stand_in, started

__all__ = ["stand_in"]

CTL = [sys.executable, "-m", "devboxctl"]


@contextmanager
def going(path: str) -> Iterator[socket.socket]:
    """A daemon that accepts nobody any more, as one that is killed or ends in order."""
    os.makedirs(os.path.dirname(path), 0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(5)
        yield listener


def replaced(listener: socket.socket, path: str) -> FakeDaemon:
    """Wait until somebody has connected; then there is another daemon, and the first is gone."""
    assert select.select([listener], [], [], PATIENCE)[0], "nobody has come"

    def command(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.status("online", mux="none")
        peer.send(OUTPUT, b"done\n")
        peer.exit(status=0)

    def pipe(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.connection.sendall(b"done\n")
        peer.connection.shutdown(socket.SHUT_RDWR)

    daemon = FakeDaemon(
        path, {"GET boxes": {"boxes": []}}, {"exec": command, "attach": command, "proxy": pipe}
    )
    listener.close()
    return daemon


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["ls"], "boxes"),
        (["exec", "gpu", "--", "true"], "exec"),
        (["proxy", "gpu", "22"], "proxy"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_what_nobody_has_read_is_asked_of_the_next_daemon(home: Path, words: list[str], asked: str) -> None:
    """Killed, restarted, stopped in order: for a moment its socket still takes connections."""
    path = client.socket_path()
    with going(path) as listener:
        process = subprocess.Popen(
            [*CTL, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        with replaced(listener, path) as daemon:
            out, err = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, err
            assert b"lost the connection" not in err
            assert asked == "boxes" or b"done" in out
            assert {target.partition("?")[0] for _, target, _ in daemon.requests} == {asked}


def test_each_of_several_commands_is_asked_of_the_next_daemon(home: Path) -> None:
    """It ends between the list of boxes and the commands."""
    path = client.socket_path()
    with going(path) as listener:
        process = subprocess.Popen([*CTL, "exec", "gpu,web", "true"], stdout=subprocess.PIPE)
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(65536).startswith(b"GET /v1/boxes")
            connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"boxes":[]}')
        with replaced(listener, path) as daemon:
            out, _err = process.communicate(timeout=PATIENCE)
            assert (process.returncode, sorted(out.splitlines())) == (0, [b"gpu: done", b"web: done"])
            assert sorted(asked["box"] for _, _, asked in daemon.requests) == ["gpu", "web"]


def test_a_terminal_is_let_in_by_the_next_daemon(home: Path) -> None:
    path = client.socket_path()
    with going(path) as listener, Tty(["attach", "gpu"], os.environ) as tty, replaced(listener, path):
        tty.wait_for(b"done")
        assert tty.wait() == 0


def test_a_descriptor_is_passed_by_the_next_daemon(home: Path) -> None:
    """``proxy --fdpass``, as ssh runs it."""
    path = client.socket_path()
    ours, its = socket.socketpair()
    far, near = socket.socketpair()

    def passed(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        socket.send_fds(peer.connection, [b"\0"], [far.fileno()])
        peer.exactly(1)

    with ours, far, near, going(path) as listener:
        with its:
            process = subprocess.Popen([*CTL, "proxy", "gpu", "22", "--fdpass"], stdout=its.fileno())
        assert select.select([listener], [], [], PATIENCE)[0]
        with FakeDaemon(path, streams={"proxy": passed}):
            listener.close()
            ours.settimeout(PATIENCE)
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
            with socket.socket(fileno=descriptors[0]) as got:
                got.sendall(b"x")
                assert near.recv(1) == b"x"
            assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    "words",
    [["ls"], ["exec", "gpu", "true"], ["exec", "gpu,web", "true"]],
    ids=" ".join,
)
def test_what_was_read_is_asked_once(daemon: FakeDaemon, words: list[str]) -> None:
    """It may have been done: nobody knows. (A pipe that was still being opened does no harm twice.)"""

    def dies(peer: Peer, *_: FakeDaemon) -> None:
        peer.connection.shutdown(socket.SHUT_RDWR)
        peer.exactly(1)

    daemon.routes["GET boxes"] = dies
    daemon.streams |= {"exec": dies}
    done = subprocess.run(
        [*CTL, *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False
    )
    assert done.returncode in (69, 255)
    told = [f"{target} {asked.get('box')}" for _, target, asked in daemon.requests]
    assert told, done.stderr
    assert len(set(told)) == len(told)


@pytest.mark.parametrize("words", [["ls"], ["exec", "gpu", "true"]], ids=" ".join)
def test_daemons_that_never_read_are_given_up(home: Path, words: list[str]) -> None:
    """One that accepts and dies again and again."""
    path = client.socket_path()
    with going(path) as listener:
        process = subprocess.Popen(
            [*CTL, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(client.TRIES):
            assert select.select([listener], [], [], PATIENCE)[0]
            connection, _address = listener.accept()
            assert select.select([connection], [], [], PATIENCE)[0]
            connection.close()  # with what came unread
        _, err = process.communicate(timeout=PATIENCE)
        assert b"lost the connection to devboxd: " in err
        assert process.returncode in (69, 255)
        assert not select.select([listener], [], [], 0)[0]


# Two daemons at once.

TAKEN = """
import os, sys
if not os.path.exists({mark!r}):
    open({mark!r}, "w").close()
    os.write(int(os.environ["DEVBOX_START_FD"]), b"devboxd is running already\\nsee: x\\n{again}\\n")
    sys.exit(69)
"""


@pytest.mark.parametrize("again", ["again", ""])
def test_a_daemon_that_is_on_its_way_out_is_no_reason_to_fail(home: Path, stand_in: Path, again: str) -> None:
    """It has let go of its socket before its lock: another is started when that is free, too."""
    code = TAKEN.format(mark=str(home / "tried"), again=again) + GOOD.format(root=str(ROOT))
    (home / "code.py").write_text(code)
    command = ls(home, stand_in)
    _, err = command.communicate(timeout=30)
    for pid in started(home):
        os.kill(pid, 9)
    if again:
        assert (command.returncode, err) == (0, "devboxd was not running: started it\n")
    else:
        assert (command.returncode, started(home)) == (69, [])
        assert err == "error: devboxd could not be started: devboxd is running already\nhint: see: x\n"


def test_a_daemon_that_comes_up_beside_ours_is_waited_for(home: Path, stand_in: Path) -> None:
    """Started by hand, or by systemd: it has the lock, and will answer."""
    code = TAKEN.format(mark=str(home / "tried"), again="again") + GOOD.format(root=str(ROOT))
    (home / "code.py").write_text(code)
    path = client.socket_path()
    os.makedirs(os.path.dirname(path), 0o700)
    lock = os.open(os.path.join(os.path.dirname(path), starting.LOCK_NAME), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.write(lock, f"{os.getpid()}\n".encode())
    command = ls(home, stand_in)
    while not (home / "tried").exists():
        assert command.poll() is None
    with FakeDaemon(path, {"GET boxes": {"boxes": []}}):
        _, err = command.communicate(timeout=30)
        assert command.returncode == 0, err
    os.close(lock)
    assert started(home) == []


HALF_DEAD = """
import ctypes, sys, threading, time
def stay():
    while True:
        time.sleep(60)
threading.Thread(target=stay).start()
print("up", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")
def test_a_process_is_alive_until_its_last_thread_has_ended() -> None:
    """A killed one is a zombie by its first thread, and still holds its socket and its lock."""
    with subprocess.Popen([sys.executable, "-c", HALF_DEAD], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        while starting._state(process.pid) != "Z":
            assert process.poll() is None
        assert starting.is_alive(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        assert starting.wait_for_end(process.pid, PATIENCE)
