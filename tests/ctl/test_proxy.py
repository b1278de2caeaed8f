"""proxy: a clean byte pipe, and a descriptor for ssh."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.ctl.fake_daemon import FakeDaemon, Gone, Peer
from tests.ctl.terminal import PATIENCE

PROXY = [sys.executable, "-m", "devboxctl", "proxy"]


def test_bytes_go_both_ways_and_each_end_is_passed_on(daemon: FakeDaemon) -> None:
    """FIN one way must not close the other: git and rsync end their requests like that."""
    data = os.urandom(3 << 20)

    def pipe(peer: Peer, _: FakeDaemon) -> None:
        # Early bytes travel with the answer, as ssh's banner does.
        peer.connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\nSSH-2.0-early\r\n")
        got = bytearray()
        while part := peer.connection.recv(65536):
            got += part
        peer.connection.sendall(bytes(got)[::-1])

    daemon.streams["proxy"] = pipe
    done = subprocess.run(
        [*PROXY, "gpu.devbox", "22"], input=data, capture_output=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0
    assert done.stderr == b""
    assert done.stdout == b"SSH-2.0-early\r\n" + data[::-1]
    assert daemon.requests[0][2] == {"box": "gpu.devbox", "port": 22, "wait": 120.0}


def test_the_far_end_closing_first_leaves_the_way_up_open(daemon: FakeDaemon) -> None:
    got = bytearray()

    def pipe(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.connection.sendall(b"bye")
        peer.connection.shutdown(socket.SHUT_WR)
        while part := peer.connection.recv(65536):
            got.extend(part)

    daemon.streams["proxy"] = pipe
    process = subprocess.Popen([*PROXY, "gpu", "22"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.read() == b"bye", "the end was not passed on"
    process.stdin.write(b"still here")
    process.stdin.close()
    assert process.wait(PATIENCE) == 0
    process.stdout.close()
    assert got == b"still here"


def test_a_far_end_that_is_gone_ends_it_although_input_stays_open(daemon: FakeDaemon) -> None:
    def pipe(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.connection.sendall(b"bye")

    daemon.streams["proxy"] = pipe
    with subprocess.Popen([*PROXY, "gpu", "22"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"bye"
        assert process.wait(PATIENCE) == 0


def test_ctrl_c_does_not_end_the_pipe_of_somebody_else(daemon: FakeDaemon) -> None:
    def pipe(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.connection.sendall(b"up")
        peer.connection.sendall(peer.exactly(4))

    daemon.streams["proxy"] = pipe
    process = subprocess.Popen([*PROXY, "gpu", "22"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.read(2) == b"up"
    process.send_signal(signal.SIGINT)
    process.stdin.write(b"more")
    process.stdin.flush()
    assert process.stdout.read(4) == b"more"
    assert process.wait(PATIENCE) == 0
    process.stdin.close()
    process.stdout.close()


def test_a_reader_that_goes_away_ends_it(daemon: FakeDaemon) -> None:
    ended = threading.Event()

    def pipe(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.connection.sendall(b"up")
        try:
            peer.exactly(1)
        except Gone:
            ended.set()

    daemon.streams["proxy"] = pipe
    process = subprocess.Popen([*PROXY, "gpu", "22"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.read(2) == b"up"
    process.stdout.close()
    assert process.wait(PATIENCE) == 0
    process.stdin.close()
    assert ended.wait(PATIENCE)


@pytest.mark.parametrize("early", [True, False], ids=["with the answer", "after it"])
def test_the_descriptor_is_handed_to_ssh_and_the_process_ends(daemon: FakeDaemon, early: bool) -> None:
    ours, theirs = socket.socketpair()

    def pipe(peer: Peer, _: FakeDaemon) -> None:
        assert peer.request["fd_pass"] is True
        assert peer.request["ssh_user"] == "me"
        answer = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
        if early:
            socket.send_fds(peer.connection, [answer + b"\0"], [theirs.fileno()])
        else:
            peer.connection.sendall(answer)
            socket.send_fds(peer.connection, [b"\0"], [theirs.fileno()])
        theirs.close()

    daemon.streams["proxy"] = pipe
    ssh, stdout = socket.socketpair()
    with ours, ssh, stdout:
        process = subprocess.Popen(
            [*PROXY, "--fdpass", "--ssh-user", "me", "gpu", "22"], stdout=stdout.fileno()
        )
        stdout.close()
        assert process.wait(PATIENCE) == 0
        data, (descriptor, *rest), _, _ = socket.recv_fds(ssh, 10, 4)
        assert (data, rest) == (b"\0", [])
        with socket.socket(fileno=descriptor) as pipe_end:
            pipe_end.sendall(b"hello")
            assert ours.recv(10) == b"hello"
            ours.sendall(b"you")
            assert pipe_end.recv(10) == b"you"


def test_a_failure_is_one_line_that_ssh_users_see(daemon: FakeDaemon) -> None:
    daemon.routes["POST proxy"] = (
        504,
        {"code": "not-connected", "message": "gpu is off\x1b[1m", "hint": "start it"},
    )
    ssh, stdout = socket.socketpair()
    with ssh, stdout:
        for words in (["--fdpass", "gpu", "22"], ["gpu", "22"]):
            done = subprocess.run(
                [*PROXY, *words],
                stdout=stdout.fileno(),
                stderr=subprocess.PIPE,
                timeout=PATIENCE,
                check=False,
            )
            assert done.returncode == 255
            assert done.stderr == b"error: gpu is off [1m\nhint: start it\n"


def echo(peer: Peer, _: FakeDaemon) -> None:
    peer.upgrade()
    peer.connection.sendall(b"SSH-2.0-box\r\n" + peer.exactly(5))


@pytest.mark.parametrize("kind", ["pipe", "file", "null", "internet socket"])
def test_who_cannot_take_a_descriptor_gets_a_copy(daemon: FakeDaemon, tmp_path: Path, kind: str) -> None:
    """paramiko, asyncssh, net-ssh, JetBrains and Go run the ProxyCommand, and talk to it."""
    daemon.streams["proxy"] = echo
    line = [*PROXY, "--fdpass", "--ssh-user", "me", "gpu", "22"]
    got = b""
    with socket.create_server(("127.0.0.1", 0)) as server, (tmp_path / "out").open("w+b") as file:
        with socket.create_connection(server.getsockname()) as ours, server.accept()[0] as theirs:
            outputs: dict[str, Any] = {"pipe": subprocess.PIPE, "file": file, "null": subprocess.DEVNULL}
            outputs["internet socket"] = theirs
            done = subprocess.run(line, input=b"hello", stdout=outputs[kind], timeout=PATIENCE, check=False)
            theirs.close()
            if kind == "internet socket":
                got = ours.makefile("rb").read()
        file.seek(0)
        got = got or done.stdout or file.read()
    assert done.returncode == 0
    assert got == (b"" if kind == "null" else b"SSH-2.0-box\r\nhello")
    assert "fd_pass" not in daemon.requests[0][2]


def test_a_client_that_talks_over_its_socket_gets_a_copy(daemon: FakeDaemon) -> None:
    """libssh gives a unix socket, as OpenSSH does, and waits for no descriptor: it has said hello by then."""

    def pipe(peer: Peer, daemon: FakeDaemon) -> None:
        ours, theirs = socket.socketpair()
        socket.send_fds(peer.connection, [b"HTTP/1.1 101 Switching Protocols\r\n\r\n\0"], [theirs.fileno()])
        theirs.close()
        with ours:
            ours.sendall(b"SSH-2.0-box\r\n" + ours.recv(100))

    daemon.streams["proxy"] = pipe
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"SSH-2.0-libssh\r\n")
        line = [*PROXY, "--fdpass", "--ssh-user", "me", "gpu", "22"]
        done = subprocess.run(
            line, stdin=theirs.fileno(), stdout=theirs.fileno(), timeout=PATIENCE, check=False
        )
        theirs.close()
        assert done.returncode == 0
        assert ours.makefile("rb").read() == b"SSH-2.0-box\r\nSSH-2.0-libssh\r\n"


@pytest.mark.parametrize(
    ("box", "expected"), [("%n", "gpu.devbox"), ("GPU.devbox", "GPU.devbox"), ("%h", "%h")]
)
def test_a_client_that_knows_no_n_names_the_box_by_h(daemon: FakeDaemon, box: str, expected: str) -> None:
    """paramiko and net-ssh leave ``%n`` as it stands; what ssh puts there is kept letter for letter."""
    daemon.streams["proxy"] = echo
    line = [*PROXY, "--ssh-host", "gpu.devbox", box, "22"]
    done = subprocess.run(line, input=b"hello", capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0
    assert daemon.requests[0][2]["box"] == expected


@pytest.mark.parametrize("passes", [True, False], ids=["descriptor", "copy"])
def test_what_ssh_would_not_say_is_said_on_standard_error(daemon: FakeDaemon, passes: bool) -> None:
    """ssh knows of a wrong key, and not of its reason; what comes from a box drives no terminal."""
    head = "HTTP/1.1 101 Switching Protocols\r\nDevbox-Notes: büro has other keys\tand\x1b[31m red\r\n\r\n"

    def pipe(peer: Peer, _: FakeDaemon) -> None:
        assert peer.request["fresh"] is True
        if not passes:
            peer.connection.sendall(head.encode())
            return
        one, other = socket.socketpair()
        with one, other:
            socket.send_fds(peer.connection, [head.encode() + b"\0"], [one.fileno()])

    daemon.streams["proxy"] = pipe
    ssh, stdout = socket.socketpair()
    with ssh, stdout:
        done = subprocess.run(
            [*PROXY, "--fdpass", "--fresh", "--ssh-user", "me", "gpu", "22"],
            stdin=subprocess.DEVNULL,
            stdout=stdout.fileno() if passes else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 0
    assert done.stderr.decode() == "devbox: büro has other keys\ndevbox: and [31m red\n"


@pytest.mark.parametrize("input_", [b"", b"PING\r\n"])
@pytest.mark.parametrize(
    ("headers", "words", "said"),
    [
        ("", [], b"devbox: port 5432 of gpu closed at once, without a byte: does anything listen there?\n"),
        (
            "",
            ["--host", "db"],
            b"devbox: port 5432 of db closed at once, without a byte: does anything listen there?\n",
        ),
        ("Devbox-Answered: 1\r\n", [], b""),  # it stood: that is its own way to end
        ("", ["--ssh-user", "me"], b""),  # the daemon has looked
    ],
)
def test_an_end_without_a_byte_is_said_where_it_may_be_a_refusal(
    daemon: FakeDaemon, input_: bytes, headers: str, words: list[str], said: bytes
) -> None:
    """Without a bridge nobody knows; psql says of it that the server closed the connection."""

    def pipe(peer: Peer, _: FakeDaemon) -> None:
        peer.connection.sendall(f"HTTP/1.1 101 Switching Protocols\r\n{headers}\r\n".encode())
        peer.connection.shutdown(socket.SHUT_WR)
        while peer.connection.recv(100):
            pass

    daemon.streams["proxy"] = pipe
    done = subprocess.run(
        [*PROXY, *words, "gpu", "5432"], input=input_, capture_output=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", said)


def test_an_end_after_a_while_or_of_the_reader_is_nothing_to_wonder_about(daemon: FakeDaemon) -> None:
    """``devboxctl proxy BOX PORT | head -0``: its user has left, and not the box."""
    ended = threading.Event()

    def pipe(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        ended.wait(PATIENCE)

    daemon.streams["proxy"] = pipe
    with subprocess.Popen(
        [*PROXY, "gpu", "5432"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(PATIENCE) == 0
        ended.set()
