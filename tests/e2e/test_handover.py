"""Connections and commands go on over a restart of the daemon, byte for byte; what cannot is said."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.kit import World, free_port, until

SIZE = 3 << 20  # bytes each way


@contextlib.contextmanager
def mirror() -> Iterator[int]:
    """On the box: sends random bytes, and at the end of what it gets the digest of that. Yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve(one: socket.socket) -> None:
            seed = int.from_bytes(one.recv(4, socket.MSG_WAITALL), "big")
            digest = hashlib.sha256()

            def take() -> None:
                with contextlib.suppress(OSError):
                    while part := one.recv(1 << 16):
                        digest.update(part)

            taking = threading.Thread(target=take, daemon=True)
            taking.start()
            with one, contextlib.suppress(OSError):
                one.sendall(random.Random(seed).randbytes(SIZE))
                taking.join()
                one.sendall(digest.digest())

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    one, _ = server.accept()
                    threading.Thread(target=serve, args=(one,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]


BY_PIPES = f"""
import hashlib, random, sys, threading
i, o = sys.stdin.buffer, sys.stdout.buffer
seed, digest = int.from_bytes(i.read(4), "big"), hashlib.sha256()
def take():
    while part := i.read1(65536):
        digest.update(part)
taking = threading.Thread(target=take)
taking.start()
o.write(random.Random(seed).randbytes({SIZE}))
o.flush()
taking.join()
o.write(digest.digest())
o.flush()
sys.exit(7)
"""


class Transfer:
    """A running transfer in both directions with a ``mirror``, and whether it comes out right."""

    def __init__(
        self,
        seed: int,
        send: Callable[[bytes], object],
        end: Callable[[], object],
        receive: Callable[[int], bytes],
    ) -> None:
        self.got = 0
        self.sent = 0
        self.limit = SIZE // 3  # bytes each way that it goes to, slowly
        self.problem = ""
        self._seed, self._send, self._end, self._receive = seed, send, end, receive
        self._digest = hashlib.sha256()
        self._threads = [
            threading.Thread(target=self._run, args=(work,), daemon=True) for work in (self._up, self._down)
        ]
        for thread in self._threads:
            thread.start()

    @classmethod
    def over(cls, connection: socket.socket, seed: int) -> Transfer:
        """One over a connection."""
        return cls(seed, connection.sendall, lambda: connection.shutdown(socket.SHUT_WR), connection.recv)

    @classmethod
    def through(cls, process: subprocess.Popen[bytes], seed: int) -> Transfer:
        """One through a program's pipes."""
        assert isinstance(process.stdin, io.BufferedWriter)
        assert isinstance(process.stdout, io.BufferedReader)
        stdin, stdout = process.stdin, process.stdout

        def send(data: bytes) -> None:
            stdin.write(data)
            stdin.flush()

        return cls(seed, send, stdin.close, stdout.read1)

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (OSError, ValueError, AssertionError) as error:
            self.problem += repr(error)

    def _up(self) -> None:
        dice = random.Random(self._seed + 1)
        self._send(self._seed.to_bytes(4, "big"))
        while self.sent < SIZE:
            part = dice.randbytes(16 << 10)
            self._send(part)
            self._digest.update(part)
            self.sent += len(part)
            self._pace(self.sent)
        self._end()

    def _down(self) -> None:
        wanted = random.Random(self._seed).randbytes(SIZE)
        found = bytearray()
        while part := self._receive(16 << 10):
            found += part
            self.got = len(found)
            self._pace(self.got)
        assert bytes(found[:SIZE]) == wanted, (
            f"{len(found)} bytes came, and they are not those that were sent"
        )
        assert bytes(found[SIZE:]) == self._digest.digest(), "the box got something else"

    def _pace(self, done: int) -> None:
        time.sleep(0 if self.limit >= SIZE else 0.005)
        while done >= self.limit and self.limit < SIZE:
            time.sleep(0.005)

    def finish(self) -> None:
        """Wait for its end; it must be right."""
        self.limit = SIZE
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), f"stuck at {self.got} of {SIZE}, {self.sent} sent"
        assert not self.problem, self.problem


@contextlib.contextmanager
def transferring(world: World, seed: int) -> Iterator[Transfer]:
    """A transfer over a connection of a forward, and it runs."""
    with mirror() as port:
        [address] = world.forward(f"0:{port}")
        with socket.create_connection(address, 30) as connection:
            transfer = Transfer.over(connection, seed)
            until(lambda: transfer.got > 100_000, "it runs")
            yield transfer


def restart(world: World) -> str:
    before = world.daemon_pid()
    done = world.run("daemon", "restart")
    said = done.stderr.decode()
    assert done.returncode == 0, said
    assert world.daemon_pid() not in (None, before)
    return said


def over_two_restarts(world: World, *transfers: Transfer) -> None:
    """Restart the daemon while they run, twice; both ways they come out right."""
    until(lambda: all(min(one.got, one.sent) > 100_000 for one in transfers), "they run")
    said = restart(world)
    assert ("1 connection or command" if len(transfers) == 1 else f"{len(transfers)} connections") in said
    assert "went on" in said
    assert "cut" not in said
    for one in transfers:
        one.limit = SIZE * 2 // 3
    # A command's client gets credit for input behind output that is not taken: look at one way only.
    until(lambda: all(one.got > SIZE // 3 + 100_000 for one in transfers), "they go on")
    assert "went on" in restart(world)
    for one in transfers:
        one.finish()


def test_forwarded_connections_go_on_over_two_restarts(world: World) -> None:
    with mirror() as port:
        [address] = world.forward(f"0:{port}")
        connections = [socket.create_connection(address, 30) for _ in range(3)]
        over_two_restarts(world, *(Transfer.over(one, seed) for seed, one in enumerate(connections)))
        for one in connections:
            one.close()


def test_half_closed_connections_go_on_as_they_are(world: World) -> None:
    """Whichever side has ended: the other one goes on, and ends in order, or with a reset."""
    upload = random.Random(3).randbytes(1 << 20)

    def sent(one: socket.socket, other: socket.socket) -> bytes:
        def send() -> None:
            one.sendall(upload)
            one.shutdown(socket.SHUT_WR)

        sending = threading.Thread(target=send, daemon=True)
        sending.start()
        got = b"".join(iter(lambda: other.recv(1 << 16), b""))
        sending.join(30)
        return got

    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as held:
        server.settimeout(30)
        [address] = world.forward(f"0:{server.getsockname()[1]}")
        pairs: list[tuple[socket.socket, socket.socket]] = []
        for turn in range(3):
            here = held.enter_context(socket.create_connection(address, 30))
            there = held.enter_context(server.accept()[0])
            there.settimeout(30)
            pairs.append((here, there) if turn == 1 else (there, here))
            first, second = pairs[-1]
            first.sendall(b"all of it")
            first.shutdown(socket.SHUT_WR)
            found = b""
            while part := second.recv(100):
                found += part
            assert found == b"all of it"
        assert "3 connections and commands went on" in restart(world)
        for first, second in pairs[:2]:
            assert sent(second, first) == upload
        pairs[2][0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, (1).to_bytes(4, sys.byteorder) + bytes(4))
        pairs[2][0].close()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012 - at some write
            while True:
                pairs[2][1].send(b"anybody?")
                time.sleep(0.01)


def test_connections_of_other_kinds_of_forwards_go_on(world: World) -> None:
    """SOCKS, a unix socket here, and a forward that is its client's: that one's connection goes on by itself."""
    path, held, socks = world.folder / "mirror.sock", free_port(), free_port()
    with (
        mirror() as port,
        socket.socket(socket.AF_UNIX) as unix,
        world.start("forward", "api", f"{held}:{port}", "--foreground", stdout=subprocess.PIPE) as client,
    ):
        assert client.stdout is not None
        assert client.stdout.readline()
        world.ok("forward", "api", f"{path}:{port}")
        world.ok("forward", "api", "-D", str(socks))
        unix.settimeout(30)
        unix.connect(str(path))
        with (
            socket.create_connection(("127.0.0.1", held), 30) as of_client,
            socket.create_connection(("127.0.0.1", socks), 30) as proxied,
        ):
            proxied.sendall(b"\x05\x01\x00")
            assert proxied.recv(2) == b"\x05\x00"
            proxied.sendall(b"\x05\x01\x00\x03\x09localhost" + port.to_bytes(2, "big"))
            assert proxied.recv(10)[1] == 0
            all_of_them = (unix, of_client, proxied)
            over_two_restarts(world, *(Transfer.over(one, seed) for seed, one in enumerate(all_of_them)))
        client.terminate()
        client.wait(20)


class Full:
    """On the box: listens, and lets nobody in until ``answer``."""

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()
        self._server = self._held.enter_context(socket.socket())
        self._server.bind(("127.0.0.1", 0))
        self._server.listen(0)
        self._server.settimeout(30)
        self.port = int(self._server.getsockname()[1])
        self._first = [self._held.enter_context(socket.socket()) for _ in range(2)]
        for one in self._first:  # no more get in until somebody accepts them
            one.setblocking(False)
            one.connect_ex(self._server.getsockname())

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def answer(self, words: bytes) -> bytes:
        """Let them in, answer the first one that says something, and end; returns what it said."""
        for one in self._first:
            one.close()
        said = b""
        while not said:  # what the first ones, and a stream of an earlier daemon, have left is empty
            one = self._held.enter_context(self._server.accept()[0])
            one.settimeout(30)
            with contextlib.suppress(ConnectionError):
                said = one.recv(100)
        one.sendall(words)
        one.shutdown(socket.SHUT_WR)
        return said


def test_a_connection_that_waits_for_its_stream_gets_one_of_the_new_daemon(world: World) -> None:
    """It was accepted, and nothing answers on the box yet: nobody sees a reset for that."""
    with Full() as box:
        [address] = world.forward(f"0:{box.port}")
        with socket.create_connection(address, 30) as connection:
            connection.sendall(b"early words")
            until(lambda: world.json("forward", "ls")["forwards"][0]["connections"], "it was accepted")
            for _ in range(2):
                assert "1 connection or command went on" in restart(world)
            assert box.answer(b"answer") == b"early words"
            assert connection.recv(100) == b"answer"


def test_a_pipe_that_is_being_opened_is_opened_by_the_new_daemon(world: World) -> None:
    """Nothing had gone over it; ssh said that its connection was closed. What its user says meanwhile arrives."""
    with (
        Full() as box,
        world.start("proxy", "api", str(box.port), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"early words")
        process.stdin.flush()
        until(lambda: world.json("bridge", "ls")["bridges"][0]["streams"], "it is being opened")
        for _ in range(2):
            assert "cut" not in restart(world)
        assert box.answer(b"answer") == b"early words"
        assert process.stdout.read() == b"answer"
        process.stdin.close()
        assert process.wait(20) == 0


@pytest.mark.parametrize("words", [("proxy", "api"), ("exec", "api", "--", "python3", "-c", BY_PIPES)])
def test_what_goes_through_a_programs_pipes_goes_on(world: World, words: tuple[str, ...]) -> None:
    """The stream of ``ssh`` without a descriptor, and a command with a long input and output, and its status."""
    with mirror() as port:
        line = (*words, str(port)) if words[0] == "proxy" else words
        with world.start(*line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            over_two_restarts(world, Transfer.through(process, 5))
            assert process.wait(20) == (7 if words[0] == "exec" else 0)


def test_terminals_without_a_multiplexer_go_on(world: World) -> None:
    script = "echo up; read -r line; echo heard $line; exit 5"
    with (
        world.terminal("attach", "api", "--raw") as shell,
        world.terminal("exec", "-t", "api", "--", "sh", "-c", script) as command,
    ):
        pid = shell.shell_pid()
        command.until("up")
        for _ in range(2):
            assert "2 connections and commands went on" in restart(world)
            assert shell.shell_pid() == pid
        shell.resize(70, 20)
        shell.ask("stty size", "20 70")
        shell.line("exit 7")
        assert shell.wait() == 7
        command.line("me")
        command.until("heard me")
        assert command.wait() == 5


def test_new_connections_wait_for_the_new_daemon_and_are_not_refused(world: World) -> None:
    """The local ends of forwards are handed over, too: TCP and unix."""
    path = world.folder / "kept.sock"
    [(host, port)] = world.forward("0:80")
    world.ok("forward", "api", f"{path}:80")
    refused: list[str] = []
    count = 0
    over = threading.Event()

    def knock() -> None:
        nonlocal count
        while not over.is_set():
            for family, address in ((socket.AF_INET, (host, port)), (socket.AF_UNIX, str(path))):
                with socket.socket(family) as one:
                    one.settimeout(30)
                    try:
                        one.connect(address)
                        one.sendall(b"GET / HTTP/1.0\r\n\r\n")
                        if not one.recv(100):
                            refused.append("an end without an answer")
                    except OSError as error:
                        refused.append(repr(error))
                    count += 1

    knocking = threading.Thread(target=knock, daemon=True)
    knocking.start()
    until(lambda: count > 3, "they are answered")
    restart(world)
    before = count
    until(lambda: count > before + 3, "they are answered again")
    over.set()
    knocking.join(40)
    assert not refused


def test_commands_that_begin_while_the_old_daemon_ends_are_run_by_the_new_one(world: World) -> None:
    """It has left everything by then, and takes its time: AWS does not answer, so its sessions do not end."""
    assert world.ok("exec", "api", "--", "echo", "here") == "here\n"
    begun: list[subprocess.Popen[bytes]] = []
    with world.silent_simulator(), world.start("daemon", "restart", stderr=subprocess.DEVNULL) as restarting:
        while restarting.poll() is None:
            line = ("exec", "api", "--", "echo", "here")
            begun.append(world.start(*line, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
            time.sleep(0.5)
    assert restarting.returncode == 0
    for one in begun:
        out, told = one.communicate(timeout=60)
        assert (one.returncode, out) == (0, b"here\n"), told


def fails(world: World, tmp_path: Path, program: str) -> subprocess.CompletedProcess[bytes]:
    """``daemon restart`` where the new daemon is this program."""
    stand_in = tmp_path / "python"
    stand_in.write_text(program)
    stand_in.chmod(0o755)
    code = f"import sys; sys.executable = {str(stand_in)!r}; sys.argv = ['devboxctl', 'daemon', 'restart']; "
    code += "from devboxctl.entry import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code],
        env=world.env,
        cwd=world.folder,
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_a_daemon_that_cannot_start_leaves_the_one_that_runs_as_it_was(world: World, tmp_path: Path) -> None:
    pid = world.daemon_pid()
    with transferring(world, 9) as transfer:
        done = fails(world, tmp_path, "#!/bin/sh\necho no such module >&2; exit 3\n")
        assert done.returncode == 69
        assert b"devboxd could not be started: no such module" in done.stderr, done.stderr
        assert b"the daemon that runs goes on, and nothing was cut" in done.stderr
        assert world.daemon_pid() == pid
        transfer.finish()


def test_a_daemon_that_ends_before_it_took_up_what_was_left_cuts_it_and_that_is_said(
    world: World, tmp_path: Path
) -> None:
    """And what is cut is reset: nobody takes it for a file that has ended."""
    with transferring(world, 10) as transfer:
        program = f"#!{sys.executable}\nimport os, time\nfd = int(os.environ['DEVBOX_HAND_OVER_FD'])\n"
        program += "os.write(fd, b'R'); time.sleep(0.2)\nraise SystemExit('it broke')\n"
        done = fails(world, tmp_path, program)
        assert done.returncode == 69, done.stderr
        assert b"devboxd could not be started: it broke" in done.stderr
        assert b"1 connection or command ended with the daemon before it" in done.stderr, done.stderr
        transfer.limit = SIZE
        until(lambda: transfer.problem, "it is cut")
        assert "ConnectionReset" in str(transfer.problem) or "BrokenPipe" in str(transfer.problem), (
            transfer.problem
        )
    world.ensure_daemon()


def test_a_daemon_of_another_form_cuts_what_it_cannot_read_and_says_how_much(
    world: World, tmp_path: Path
) -> None:
    with transferring(world, 12) as transfer:
        program = f"#!{sys.executable}\nimport sys\nfrom devboxd.control.connect import parcel\nparcel.FORM += 1\nsys.argv[1:] = []\n"
        done = fails(world, tmp_path, program + "from devboxd.__main__ import entry\nsys.exit(entry())\n")
        assert done.returncode == 0, done.stderr
        assert b"1 connection or command was cut: another version of devboxd made it" in done.stderr
        transfer.limit = SIZE
        until(lambda: transfer.problem, "it is cut")
        assert "ConnectionReset" in transfer.problem or "BrokenPipe" in transfer.problem
    assert "handed-over.cut" in world.ok("events")
    world.stop_daemon()  # others shall have one of this form
    world.ensure_daemon()


def test_what_cannot_be_handed_over_is_counted_and_asked_about(bare_world: World) -> None:
    with transferring(bare_world, 11) as transfer:
        with bare_world.terminal("daemon", "restart") as terminal:
            terminal.until("a restart cuts 1 connection")
            terminal.until("go on")
            terminal.type(b"n\r")
            assert terminal.wait() == 130
        seen, transfer.limit = transfer.got, SIZE * 2 // 3
        until(lambda: transfer.got > seen + 100_000, "it goes on")


def test_what_is_handed_over_is_on_no_disk_and_in_no_log(world: World) -> None:
    mark = "a-word-that-nobody-else-says"
    line = ("exec", "api", "--", "sh", "-c", f"echo {mark} $0; read x; echo $x", "y" * 10)
    with world.start(*line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline().startswith(mark.encode())
        assert "went on" in restart(world)
        process.stdin.write(b"typed-" + mark.encode() + b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"typed-" + mark.encode() + b"\n"
        assert process.wait(20) == 0
    for path in world.folder.rglob("*"):
        if path.is_file() and not path.is_relative_to(world.folder / "sim"):
            assert mark.encode() not in path.read_bytes(), path


# By systemd ---------------------------------------------------------------------------------------------


class ServiceManager:
    """What systemd is to a service whose descriptors it keeps: activation, notifications, the store, the restart."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.store: list[tuple[str, int]] = []
        self.keeps = True
        self.statuses: list[int] = []
        address = str(world.folder / "notify.sock")
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(address)
        self._notify.settimeout(0.1)
        world.socket.parent.mkdir(mode=0o700, exist_ok=True)
        self._listening = socket.socket(socket.AF_UNIX)
        world.socket.unlink(missing_ok=True)
        self._listening.bind(str(world.socket))
        self._listening.listen()
        self._env = world.env | {"NOTIFY_SOCKET": address, "FDSTORE": "64"}
        self._over = threading.Event()
        self.service = self._start()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._listen, self._mind)]
        for thread in self._threads:
            thread.start()

    def _start(self) -> subprocess.Popen[bytes]:
        passed = [("api", self._listening.fileno()), *reversed(self.store)]  # it keeps no order
        env = self._env | {
            "LISTEN_FDS": str(len(passed)),
            "LISTEN_FDNAMES": ":".join(name for name, _ in passed),
        }

        def arrange() -> None:
            away = [os.dup2(descriptor, 200 + at) for at, (_, descriptor) in enumerate(passed)]
            for at, descriptor in enumerate(away):
                os.dup2(descriptor, 3 + at)
            os.closerange(3 + len(passed), 300)

        with (self.world.folder / "devboxd.log").open("ab") as log:
            return subprocess.Popen(
                ["sh", "-c", 'LISTEN_PID=$$; export LISTEN_PID; exec "$@"', "sh", sys.executable, "-P", "-m", "devboxd"],
                env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True,
                preexec_fn=arrange, close_fds=False,
            )  # fmt: skip

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                data, descriptors, _, _ = socket.recv_fds(self._notify, 1 << 16, 253)
            except OSError:
                continue
            fields = dict(line.split("=", 1) for line in data.decode().split("\n"))
            name = fields.get("FDNAME", "")
            if "FDSTORE" in fields and self.keeps:
                assert fields["FDPOLL"] == "0", "or what hangs up is dropped"
                self.store += [(name, descriptor) for descriptor in descriptors]
                continue
            for descriptor in descriptors:  # BARRIER: all before it was taken
                os.close(descriptor)
            if "FDSTOREREMOVE" in fields:
                for stored in [one for one in self.store if one[0] == name]:
                    self.store.remove(stored)
                    os.close(stored[1])

    def _mind(self) -> None:
        while not self._over.is_set():
            status = self.service.poll()
            if status is None:
                self._over.wait(0.02)
                continue
            self.statuses.append(status)
            if status == 75:  # RestartForceExitStatus= of the unit
                self.service = self._start()
            else:
                return

    def close(self) -> None:
        """Stop the service: what it stored is given up."""
        self._over.set()
        for thread in self._threads:
            thread.join(20)
        if self.service.poll() is None:
            self.service.terminate()
            self.service.wait(20)
        for _, descriptor in self.store:
            os.close(descriptor)
        self._notify.close()
        self._listening.close()


@pytest.fixture
def systemd(world: World) -> Iterator[ServiceManager]:
    """A daemon that is started as by systemd."""
    world.stop_daemon()
    manager = ServiceManager(world)
    try:
        until(lambda: world.run("daemon", "status").returncode == 0, "it serves")
        yield manager
    finally:
        manager.close()
        world.socket.unlink(missing_ok=True)
        (world.folder / "notify.sock").unlink(missing_ok=True)


def test_systemd_keeps_connections_and_commands(world: World, systemd: ServiceManager) -> None:
    assert world.json("status")["activation"] == "systemd"
    with mirror() as port:
        [address] = world.forward(f"0:{port}")
        with (
            socket.create_connection(address, 30) as connection,
            world.start("exec", "api", "--", "python3", "-c", BY_PIPES, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
        ):  # fmt: skip
            over_two_restarts(world, Transfer.over(connection, 21), Transfer.through(process, 22))
            assert process.wait(20) == 7
    assert systemd.statuses == [75, 75]
    assert "parcel" not in [name for name, _ in systemd.store], "what was left is left once"
    assert "forward-client" not in [name for name, _ in systemd.store]


def test_what_systemd_does_not_keep_is_cut_and_that_is_said(world: World, systemd: ServiceManager) -> None:
    with transferring(world, 23) as transfer:
        systemd.keeps = False
        done = world.run("daemon", "restart")
        assert done.returncode == 0
        assert b"1 connection or command was cut: the new daemon was left nothing" in done.stderr
        transfer.limit = SIZE
        until(lambda: transfer.problem, "it is cut")
