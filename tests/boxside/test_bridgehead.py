"""The bridgehead for real: a process of its own, reached over sockets as lanes reach it."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import resource
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from devboxd.boxside import bridgehead
from devboxd.boxside.programs.head.loop import LOOKUPS_MOST, Door, Head
from devboxd.boxside.programs.head.pipe import FULL, Listener
from devboxd.boxside.script import load_program
from devboxd.model.bridge.end import Bridge
from devboxd.model.bridge.wire import Data, Ended, Opened, Room, WasReset
from tests.kit.processes import is_alive


class Near:
    """The daemon's end, with plain sockets as lanes."""

    def __init__(self, folder: Path, *, secret: bytes | None = None, life: bytes | None = None) -> None:
        self.folder = folder
        self.secret = secret or secrets.token_bytes(32)
        self.life = life or secrets.token_bytes(16)
        self.bridge = Bridge(near=True)
        self.lanes: dict[int, socket.socket] = {}
        self.count = 0
        self.got: dict[int, bytearray] = defaultdict(bytearray)
        self.ended: set[int] = set()
        self.resets: dict[int, str] = {}
        self.purposes: dict[int, Any] = {}
        self.note: dict[str, Any] = {}

    def start(self, program: Path, *, linger: float = 20.0, python: str = sys.executable) -> dict[str, Any]:
        want = {"id": "t1", "secret": self.secret.hex(), "linger": linger}
        done = subprocess.run(
            [python, "-I", program, "start", self.folder],
            input=json.dumps(want) + "\n",
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
        assert done.returncode == 0, done.stderr
        self.note = json.loads(done.stdout)
        return self.note

    def lane(self, *, unix: bool = False) -> int:
        if unix:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(self.note["path"])
        else:
            sock = socket.create_connection(("127.0.0.1", self.note["port"]))
        sock.settimeout(5)
        self.count += 1
        hello = bridgehead.greeting(self.life, self.count, secrets.token_bytes(32))
        sock.sendall(hello)
        answer = b""
        while len(answer) < bridgehead.ANSWER.size:
            part = sock.recv(bridgehead.ANSWER.size - len(answer))
            assert part, "the bridgehead hung up"
            answer += part
        shown = bridgehead.proof(self.secret, hello, answer)
        if shown is None:
            sock.close()
            raise PermissionError("not our bridgehead")
        sock.sendall(shown)
        sock.setblocking(False)
        self.lanes[self.count] = sock
        self.bridge.lane_up(self.count, time.monotonic())
        return self.count

    def cut(self, number: int) -> None:
        self.lanes.pop(number).close()
        self.bridge.lane_down(number)

    def until(self, done: Callable[[], object], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, (dict(self.resets), {k: len(v) for k, v in self.got.items()})
            self.step()

    def step(self) -> None:
        now = time.monotonic()
        for number in self.bridge.order():
            while data := self.bridge.outgoing(number, now):
                self.lanes[number].setblocking(True)
                self.lanes[number].sendall(data)
                self.lanes[number].setblocking(False)
        ready, _, _ = select.select(list(self.lanes.values()), [], [], 0.02)
        for number, sock in list(self.lanes.items()):
            if sock in ready:
                data = sock.recv(1 << 20)
                if data:
                    self.bridge.received(number, data, time.monotonic())
                else:
                    self.cut(number)
        for event in self.bridge.events():
            match event:
                case Data(stream, data):
                    self.got[stream] += data
                    self.bridge.consumed(stream, len(data), time.monotonic())
                case Ended(stream):
                    self.ended.add(stream)
                case WasReset(stream, reason):
                    self.resets[stream] = reason
                case Opened(stream, purpose):
                    self.purposes[stream] = json.loads(purpose)
                case Room():
                    pass

    def send(self, number: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self.bridge.write(number, bytes(view)) :]
            self.step()

    def records(self, number: int) -> dict[int, bytes]:
        """What a command said, by kind."""
        found: dict[int, bytes] = defaultdict(bytes)
        for kind, data, _ in bridgehead.Records().feed(bytes(self.got[number])):
            found[kind] += data
        return found

    def run(self, *argv: str, **more: Any) -> tuple[int, bytes, bytes]:
        number = self.bridge.open(bridgehead.command(argv, **more))
        self.bridge.finish(number)
        self.until(lambda: number in self.ended or number in self.resets)
        found = self.records(number)
        return json.loads(found[bridgehead.EXIT])["status"], found[1], found[2]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("head") / "bridgehead.py"
    path.write_text(load_program(bridgehead.PROGRAM), "utf-8")
    return path


@pytest.fixture
def near(tmp_path: Path, program: Path) -> Iterator[Near]:
    one = Near(tmp_path / "box")
    one.start(program)
    yield one
    for sock in one.lanes.values():
        sock.close()
    with contextlib.suppress(ProcessLookupError):
        os.kill(one.note["pid"], signal.SIGTERM)


@contextlib.contextmanager
def echo_server() -> Iterator[int]:
    """Says back what it hears, and then that it has heard the end."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(65536):
                sock.sendall(data)
            sock.sendall(b"<end>")

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                threading.Thread(target=serve, args=(sock,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def test_it_is_written_in_the_python_of_old_boxes() -> None:
    """Amazon Linux 2 has 3.7, RHEL 8 has 3.6."""
    ast.parse(load_program(bridgehead.PROGRAM), feature_version=(3, 6))
    assert "devboxd" not in load_program(bridgehead.PROGRAM).replace("devboxd/", "")


@pytest.mark.parametrize("unix", [False, True])
def test_a_connection_goes_through_and_half_closes(near: Near, unix: bool) -> None:
    near.lane(unix=unix)
    with echo_server() as port:
        number = near.bridge.open(bridgehead.tcp("127.0.0.1", port))
        near.send(number, b"hello")
        near.bridge.finish(number)
        near.until(lambda: number in near.ended)
    assert bytes(near.got[number]) == b"hello<end>"


def test_a_connection_that_stands_is_told_where_that_is_wanted(near: Near, tmp_path: Path) -> None:
    """Before its first byte, which may never come; nothing is said of one that does not stand."""
    near.lane()
    assert near.note["tells"] is True
    path = str(tmp_path / "silent")
    with socket.create_server(("127.0.0.1", 0)) as one, socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        port = one.getsockname()[1]
        for purpose in (bridgehead.tcp("localhost", port), bridgehead.unix(path)):
            told, untold = near.bridge.open(bridgehead.telling(purpose)), near.bridge.open(purpose)
            near.until(lambda: near.got[told])  # noqa: B023 - at once
            assert near.got[told] == bridgehead.CONNECTED
            assert not near.got[untold]
    refused = near.bridge.open(bridgehead.telling(bridgehead.tcp("localhost", port)))
    near.until(lambda: refused in near.resets)
    assert near.resets[refused].startswith("ECONNREFUSED")
    assert not near.got[refused]


def test_a_unix_socket_that_has_too_many_waiting_refuses_nobody(near: Near, tmp_path: Path) -> None:
    """Each comes to its turn, with what was said meanwhile; who leaves meanwhile, and one that is gone by then, hold up nobody."""
    near.lane()
    path, numbers = str(tmp_path / "small"), []
    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(20)
        server.bind(path)
        server.listen(0)
        for said in range(12):
            numbers.append(number := near.bridge.open(bridgehead.telling(bridgehead.unix(path))))
            near.send(number, b"%d" % said)
            near.bridge.finish(number)
        near.until(lambda: any(near.got.values()))
        near.bridge.reset(numbers.pop())
        found = set()
        for _ in numbers:
            one = near_accepts(near, server)
            with one:
                said_there = b"".join(iter(lambda: one.recv(100), b""))  # noqa: B023 - at once
                found.add(said_there)
                one.sendall(b"heard " + said_there)
        near.until(lambda: set(numbers) <= near.ended)
    assert found == {b"%d" % said for said in range(11)}
    assert [bytes(near.got[number]) for number in numbers] == [b"+heard %d" % said for said in range(11)]
    assert not near.resets


def near_accepts(near: Near, server: socket.socket) -> socket.socket:
    """The next connection; the daemon's end goes on meanwhile."""
    near.until(lambda: select.select([server], [], [], 0)[0])
    return server.accept()[0]


def test_a_refused_port_is_a_reset_with_its_reason(near: Near) -> None:
    near.lane()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    number = near.bridge.open(bridgehead.tcp("127.0.0.1", port))
    near.until(lambda: number in near.resets)
    assert near.resets[number] == "ECONNREFUSED Connection refused"


@contextlib.contextmanager
def served_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Near, Head]]:
    """A bridgehead whose loop runs in a thread of this process; ``monkeypatch`` reaches it."""
    near, reading, writing = Near(Path.cwd(), life=bytes(16)), *os.pipe()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    near.note = {"port": listener.getsockname()[1]}
    head = Head(near.secret, 3600.0, str(near.folder))
    for fd in (reading, writing):
        os.set_blocking(fd, False)
    loop = threading.Thread(target=head.run, args=([listener], reading, writing))
    near_up = threading.Event()

    def forgotten(_: Head, now: float) -> bool:
        return near_up.is_set()

    monkeypatch.setattr(Head, "is_forgotten", forgotten)
    loop.start()
    try:
        yield near, head
    finally:
        near_up.set()
        for sock in near.lanes.values():
            sock.close()
        os.write(writing, b"+")
        loop.join(30)
        for number in list(head.handlers):
            head.drop(number, True)
        head.selector.close()
        listener.close()
        os.close(reading)
        os.close(writing)
        assert not loop.is_alive()


def test_a_name_that_is_slow_to_be_found_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a resolver that did not answer, every stream of the box stood still for half a minute."""
    answer, asked = threading.Event(), list[str]()
    found = socket.getaddrinfo

    def slow(host: str, port: int, *given: Any, **more: Any) -> Any:
        if host == "127.0.0.1":
            return found(host, port, *given, **more)
        if more["flags"]:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        asked.append(host)
        assert answer.wait(30)
        if host == "nowhere":
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return found("127.0.0.1", port, **more)

    monkeypatch.setattr("devboxd.boxside.programs.head.reach.socket.getaddrinfo", slow)
    with served_here(monkeypatch) as (near, head), echo_server() as port:
        near.lane()
        names = [near.bridge.open(bridgehead.tcp(name, port)) for name in ("nowhere", "api")]
        near.send(names[1], b"early")
        near.bridge.finish(names[1])
        unwanted = [near.bridge.open(bridgehead.tcp("never", port)) for _ in range(20)]
        near.until(lambda: len(asked) == LOOKUPS_MOST, 20)
        quick = near.bridge.open(bridgehead.tcp("127.0.0.1", port))
        near.send(quick, b"quick")
        near.bridge.finish(quick)
        near.until(lambda: quick in near.ended)
        assert bytes(near.got[quick]) == b"quick<end>"
        for number in unwanted:
            near.bridge.reset(number, "closed")
        near.until(lambda: len(near.bridge.streams) == 2 and len(head.handlers) == 2)
        answer.set()
        near.until(lambda: names[0] in near.resets and names[1] in near.ended)
        assert near.resets[names[0]].startswith("EIO")
        assert bytes(near.got[names[1]]) == b"early<end>"
        near.until(lambda: not head.looking)
        assert len(asked) == LOOKUPS_MOST, "nobody wants the others any more"


@pytest.mark.parametrize("number", FULL)
def test_a_bridgehead_without_descriptors_waits_before_it_lets_others_in(number: int) -> None:
    """Its loop span: a listener at which somebody waits is always ready."""

    class Full(socket.socket):
        def accept(self) -> Any:
            raise OSError(number, os.strerror(number))

    head = Head(bytes(32), 0.0, "/")
    with Full() as listener:
        listener.bind(("127.0.0.1", 0))
        door = Door(head, listener)
        assert listener.fileno() in head.masks
        door.ready(1)
        assert (listener.fileno() in head.masks, list(head.timers)) == (False, [door])
        head.on_time(head.timers[door] + 0.01)
        assert (listener.fileno() in head.masks, list(head.timers)) == (True, [])


@pytest.mark.parametrize("number", FULL)
def test_a_listener_on_the_box_waits_too(number: int) -> None:
    """And one that is closed meanwhile is not watched again."""
    head = Head(bytes(32), 0.0, "/")
    near = Bridge(near=True)
    stream = near.open(bridgehead.listen(port=0))
    near.lane_up(1, 0.0)
    head.bridge.lane_up(1, 0.0)
    head.bridge.received(1, near.outgoing(1, 0.0), 0.0)
    head.look()
    listener = head.handlers[stream]
    assert isinstance(listener, Listener)
    before = listener.sock.fileno()

    class Full:
        def accept(self) -> Any:
            raise OSError(number, os.strerror(number))

        def fileno(self) -> int:
            return before

    real, listener.sock = listener.sock, cast("socket.socket", Full())
    listener.ready(1)
    assert (before in head.masks, list(head.timers)) == (False, [listener])
    head.on_time(head.timers[listener] + 0.01)
    assert before in head.masks
    listener.ready(1)
    listener.sock = real
    head.drop(stream)
    assert (before in head.masks, head.timers) == (False, {})


def test_many_megabytes_survive_lanes_that_die(near: Near) -> None:
    """Byte for byte, while every lane is cut again and again."""
    for _ in range(3):
        near.lane()
    data = os.urandom(1 << 20) * 12
    with echo_server() as port:
        number = near.bridge.open(bridgehead.tcp("127.0.0.1", port))
        sent, cuts = 0, 0
        while len(near.got[number]) < len(data):
            if sent < len(data):
                sent += near.bridge.write(number, data[sent : sent + (1 << 18)])
            near.step()
            if len(near.got[number]) > (cuts + 1) * 700_000:
                cuts += 1
                near.cut(near.bridge.order()[cuts % len(near.lanes)])
                near.lane()
        assert cuts > 10
    assert hashlib.sha256(near.got[number]).digest() == hashlib.sha256(data).digest()


def test_a_command_has_separate_streams_a_status_and_its_input(near: Near) -> None:
    near.lane()
    assert near.run("sh", "-c", "echo out; echo err >&2; exit 37") == (37, b"out\n", b"err\n")
    assert near.run("sh", "-c", "kill -9 $$")[0] == 137
    assert near.run("sh", "-c", 'echo "$A" $(pwd)', env={"A": "b c"}, cwd="/")[1] == b"b c /\n"
    number = near.bridge.open(bridgehead.command(["sort"]))
    near.send(
        number, bridgehead.record(bridgehead.STDIN, b"b\na\n") + bridgehead.record(bridgehead.STDIN_END, b"")
    )
    near.until(lambda: number in near.ended)
    assert near.records(number)[bridgehead.STDOUT] == b"a\nb\n"


def test_a_command_that_is_not_there_says_so(near: Near) -> None:
    near.lane()
    number = near.bridge.open(bridgehead.command(["no-such-command"]))
    near.until(lambda: number in near.resets)
    assert near.resets[number].startswith("ENOENT ")


def test_a_command_may_open_as_many_files_as_without_a_bridge(tmp_path: Path, program: Path) -> None:
    """The bridgehead raises its own limit; ``select`` in a command ends above 1,024, and some close all up to theirs."""
    one = Near(tmp_path / "box")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 500), hard))
    try:
        one.start(program)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        one.lane()
        for tty in (None, (20, 70)):
            said = one.run("sh", "-c", "ulimit -Sn; ulimit -Hn", tty=tty)[1].split()
            assert said == [b"%d" % min(soft, 500), b"unlimited" if hard < 0 else b"%d" % hard]
        limits = resource.prlimit(one.note["pid"], resource.RLIMIT_NOFILE)
        assert limits == (hard, hard), "its own is raised"
    finally:
        for sock in one.lanes.values():
            sock.close()
        os.kill(one.note["pid"], signal.SIGTERM)


def test_output_of_those_whom_a_command_leaves_behind_is_awaited_while_they_speak(near: Near) -> None:
    """As of ``exec > >(tee log)``: what such a process had still to say after a second was lost."""
    near.lane()
    later = "(for one in 1 2 3 4 5 6 7 8; do sleep 0.2; echo $one; done; exec sleep 100) & exit 3"
    assert near.run("sh", "-c", later) == (3, b"1\n2\n3\n4\n5\n6\n7\n8\n", b"")


def test_a_signal_reaches_those_whom_a_command_leaves_behind_while_they_speak(near: Near) -> None:
    """Or nothing would end it."""
    near.lane()
    endless = "(while echo more; do sleep 0.1; done) & echo $$"
    number = near.bridge.open(bridgehead.command(["sh", "-c", endless]))

    def its_pid() -> bytes:  # it may come behind what the other one says
        return near.records(number)[bridgehead.STDOUT].replace(b"more\n", b"")

    near.until(lambda: its_pid().endswith(b"\n"))
    pid = int(its_pid())
    near.until(lambda: not is_alive(pid))
    control = near.bridge.open(bridgehead.control(number))
    near.bridge.write(control, bridgehead.record(bridgehead.SIGNAL, b"15"))
    near.until(lambda: number in near.ended)
    assert json.loads(near.records(number)[bridgehead.EXIT]) == {"status": 0}


def test_output_waits_for_its_reader_and_a_signal_overtakes_input(near: Near) -> None:
    near.lane()
    number = near.bridge.open(bridgehead.command(["sleep", "100"]))
    for _ in range(10):
        near.bridge.write(number, bridgehead.record(bridgehead.STDIN, bytes(16_000)) * 10)
        near.step()
    control = near.bridge.open(bridgehead.control(number))
    near.bridge.write(control, bridgehead.record(bridgehead.SIGNAL, b"15"))
    near.until(lambda: number in near.ended)
    assert json.loads(near.records(number)[bridgehead.EXIT]) == {"status": 143}


def test_a_terminal_has_a_size_and_outlives_its_lane(near: Near) -> None:
    first = near.lane()
    number = near.bridge.open(bridgehead.command(["sh"], tty=(33, 101), env={"PS1": "ready> "}))
    near.send(number, bridgehead.record(bridgehead.STDIN, b"stty size\n"))
    near.until(lambda: b"33 101" in near.records(number)[1])
    near.cut(first)
    near.lane()
    control = near.bridge.open(bridgehead.control(number))
    near.bridge.write(control, bridgehead.record(bridgehead.SIZE, b"[40, 90]"))
    near.send(number, bridgehead.record(bridgehead.STDIN, b"stty size; exit 5\n"))
    near.until(lambda: number in near.ended)
    found = near.records(number)
    assert b"40 90" in found[1]
    assert json.loads(found[bridgehead.EXIT]) == {"status": 5}


def test_a_closed_terminal_hangs_its_program_up(near: Near, tmp_path: Path) -> None:
    """As when a window is closed: nothing runs on unseen."""
    near.lane()
    mark = tmp_path / "hung-up"
    script = f"trap 'echo x > {mark}; exit' HUP; echo on; while :; do sleep 0.05; done"
    number = near.bridge.open(bridgehead.command(["sh", "-c", script], tty=(24, 80)))
    near.until(lambda: b"on" in near.records(number)[1])
    near.bridge.reset(number, "closed")
    near.until(mark.exists)


def _serve_here(near: Near, purpose: bytes) -> None:
    number = near.bridge.open(purpose)
    near.until(lambda: b"\n" in near.got[number])
    where = json.loads(near.got[number])
    if where["path"]:
        assert oct(Path(where["path"]).stat().st_mode & 0o777) == "0o600"
        client = socket.socket(socket.AF_UNIX)
        client.connect(where["path"])
    else:
        client = socket.create_connection(("127.0.0.1", where["port"]))
    with client:
        client.sendall(b"from the box")
        near.until(lambda: any(one["of"] == number for one in near.purposes.values()))
        accepted = max(near.purposes)
        near.until(lambda: bytes(near.got[accepted]) == b"from the box")
        near.send(accepted, b"and back")
        assert client.recv(100) == b"and back"
    near.bridge.finish(number)
    near.until(lambda: number in near.ended)


def test_a_listener_on_the_box_opens_streams_here(near: Near, tmp_path: Path) -> None:
    """A reverse forward; and a lent ssh agent, at a path."""
    near.lane()
    path = tmp_path / "agent.sock"
    for purpose in (bridgehead.listen(port=0), bridgehead.listen(path=str(path))):
        _serve_here(near, purpose)
    assert not path.exists()


def old_pythons() -> list[str]:
    """Every Python 3 of this machine that a box may have: on the path, and those of pyenv."""
    found: dict[str, str] = {}
    roots = [*map(str, Path.home().glob(".pyenv/versions/*/bin")), *os.environ["PATH"].split(":")]
    for root in roots:
        for path in sorted(Path(root).glob("python3.[0-9]*")):
            minor = path.name.removeprefix("python3.")
            if minor.isdecimal() and int(minor) >= 6 and os.access(path, os.X_OK):
                found.setdefault(path.name, str(path))
    return [path for _, path in sorted(found.items(), key=lambda item: int(item[0].partition(".")[2]))]


@pytest.mark.parametrize("python", old_pythons(), ids=lambda path: Path(path).name)
def test_it_runs_in_every_python_that_a_box_may_have(tmp_path: Path, program: Path, python: str) -> None:
    """Lanes that die under bulk, half-close, a command, a terminal, a listener, watching: all of it, in each."""
    real = subprocess.run(
        [python, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True, check=False
    )
    if real.returncode:
        pytest.skip(f"{python} is no Python that starts")
    near = Near(tmp_path / "box")
    near.start(program, python=python)
    try:
        near.lane()
        doomed = near.lane()
        data = os.urandom(300_000) + bytes(300_000)
        with echo_server() as port:
            number = near.bridge.open(bridgehead.tcp("127.0.0.1", port))
            near.send(number, data[:400_000])
            near.cut(doomed)
            near.send(number, data[400_000:])
            near.bridge.finish(number)
            near.until(lambda: number in near.ended)
            assert bytes(near.got[number]) == data + b"<end>"
        assert near.run("sh", "-c", "echo out; echo err >&2; exit 3") == (3, b"out\n", b"err\n")
        status, out, _ = near.run("sh", "-c", "stty size; test -t 0", tty=(20, 70))
        assert (status, out) == (0, b"20 70\r\n")
        _serve_here(near, bridgehead.listen(port=0))
        watcher = near.bridge.open(bridgehead.watch())
        near.until(lambda: b"\n" in near.got[watcher])
        agents = near.bridge.open(bridgehead.agents())
        near.until(lambda: b"[]\n" in near.got[agents])
        missing = near.bridge.open(bridgehead.unix(str(tmp_path / "nobody")))
        near.until(lambda: missing in near.resets)
        assert near.resets[missing].startswith("ENOENT")
    finally:
        for sock in near.lanes.values():
            sock.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(near.note["pid"], signal.SIGTERM)


def test_ports_are_told_as_they_change(near: Near) -> None:
    """Nobody polls through a session."""
    near.lane()
    number = near.bridge.open(bridgehead.watch())
    near.until(lambda: b"\n" in near.got[number])
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        near.until(lambda: port in told(near, number))
        assert near.note["port"] not in told(near, number), "a bridgehead is nobody's to forward"
    near.until(lambda: port not in told(near, number))
    for path in near.folder.iterdir():
        path.unlink()
    near.folder.rmdir()  # by hand; the bridgehead lives on
    with socket.create_server(("127.0.0.1", 0)) as server:
        near.until(lambda: server.getsockname()[1] in told(near, number))


def test_what_agents_say_is_told_as_it_changes(near: Near) -> None:
    """Those that are there: a note of a dead one, a pipe and nonsense are none."""
    near.lane()
    number = near.bridge.open(bridgehead.agents())

    def last() -> list[dict[str, Any]]:
        lines = bytes(near.got[number]).splitlines()
        found: list[dict[str, Any]] = json.loads(lines[-1]) if lines else [{}]
        return found

    near.until(lambda: last() == [])
    folder = near.folder / "agents"
    folder.mkdir()
    gone = subprocess.Popen(["true"])
    gone.wait()
    note = {"name": "claude", "pid": os.getpid(), "state": "working", "since": 1.5}
    told = {**note, "text": "", "where": "", "quiet": False}
    os.mkfifo(folder / "a.json")
    (folder / "b.json").write_text("[" * 4000)
    (folder / "b3.json").write_text(json.dumps({**note, "since": float("nan")}))
    (folder / "b2.json").write_text('{"name": "x", "pid": 1e999, "state": "done", "since": 1}')
    (folder / "c.json").write_text(json.dumps({**note, "pid": gone.pid}))
    (folder / "d.json").write_text(json.dumps({**note, "secret": "x"}))
    near.until(lambda: last() == [told])
    # A process that has the number of one that is gone, and what a hook writes where the texts are emoji.
    (folder / "c2.json").write_text(json.dumps({**note, "id": f"{os.getpid()}-1"}))
    emoji = "\N{PILE OF POO}" * 300
    (folder / "d.json").write_text(json.dumps({**note, "text": emoji, "doing": emoji}))
    near.until(lambda: last() == [{**told, "text": emoji}])
    waits = {**told, "state": "waiting", "since": 2.5, "text": "may I?", "where": "main"}
    (folder / "d.json").write_text(json.dumps(waits))
    near.until(lambda: last() == [waits])
    shutil.rmtree(folder)
    near.until(lambda: last() == [])


def test_it_ends_with_its_folder_once_nobody_uses_it(near: Near) -> None:
    """Removed by hand, or with the disk of a box that was only played: nobody can find it any more."""
    lane = near.lane()
    assert near.run("true")[0] == 0
    for path in near.folder.iterdir():
        path.unlink()
    near.folder.rmdir()
    assert near.run("true")[0] == 0, "what is in use goes on"
    near.cut(lane)
    for _ in range(300):
        if not is_alive(near.note["pid"]):
            return
        time.sleep(0.1)
    raise AssertionError("it lives on")


def told(near: Near, number: int) -> list[int]:
    """The ports of the last whole line."""
    line = bytes(near.got[number]).rpartition(b"\n")[0].splitlines()[-1].decode()
    kind, *ports = line.split()
    assert kind == "dec"
    return [int(port) for port in ports]


def test_a_second_start_finds_the_first(near: Near, program: Path) -> None:
    before = near.note
    assert near.start(program) == {**before, "was": True}


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Under SIGSTOP; it may be ended meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_a_start_ends_the_first_where_that_hangs(near: Near, program: Path) -> None:
    """The kernel takes connections for it; nobody else does."""
    before = near.note
    with stopped(before["pid"]):
        after = near.start(program)
        assert (after["was"], after["pid"] != before["pid"]) == (False, True)
        near.lane()
        assert near.run("echo", "hi")[1] == b"hi\n"
        near.until(lambda: not is_alive(before["pid"]))
    assert near.start(program)["pid"] == after["pid"], (
        "what the first left to do at its end is not done to the second"
    )


def test_a_start_ends_nobody_else_who_has_its_number(near: Near, program: Path, tmp_path: Path) -> None:
    before = near.note
    path = near.folder / "bridge-t1.json"
    other = subprocess.Popen(["sleep", "600"])
    try:
        path.write_text(json.dumps({**before, "pid": other.pid}))
        with stopped(before["pid"]):
            assert near.start(program)["pid"] not in (before["pid"], other.pid)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
        with contextlib.suppress(ProcessLookupError):
            os.kill(before["pid"], signal.SIGKILL)


def test_a_new_life_of_the_daemon_begins_with_no_streams(near: Near) -> None:
    """What the old life had open is closed on the box."""
    near.lane()
    with echo_server() as port:
        number = near.bridge.open(bridgehead.tcp("127.0.0.1", port))
        near.send(number, b"x")
        near.until(lambda: near.got[number])
        again = Near(near.folder, secret=near.secret)
        again.note = near.note
        again.lane()
        assert again.run("true")[0] == 0
        near.until(lambda: not near.lanes)
        for sock in again.lanes.values():
            sock.close()


@pytest.mark.parametrize(
    "says",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n" * 10,
        b"DBX1" + bytes(52),
        b"DBX1" + bytes(52 + 32),
        bytes(range(256)) * 2,
    ],
)
def test_a_stranger_learns_nothing_and_blocks_nothing(near: Near, says: bytes) -> None:
    """Other users of the box may connect to a loopback port, too."""
    strangers = [socket.create_connection(("127.0.0.1", near.note["port"])) for _ in range(80)]
    for one in strangers:
        with contextlib.suppress(OSError):
            one.sendall(says)
    near.lane()
    assert near.run("echo", "hi")[1] == b"hi\n"
    for one in strangers:
        one.settimeout(10)
        with contextlib.suppress(ConnectionError):
            heard = one.recv(1000)
            assert len(heard) in (0, bridgehead.ANSWER.size)
        one.close()


def test_a_wrong_secret_opens_nothing(near: Near) -> None:
    """And the bridgehead proves itself, too: somebody else's listener on the port is noticed."""
    wrong = Near(near.folder, secret=bytes(32))
    wrong.note = near.note
    with pytest.raises(PermissionError):
        wrong.lane()


def test_the_secret_stands_nowhere(near: Near) -> None:
    near.lane()
    text = near.secret.hex()
    for name in ("cmdline", "environ"):
        assert text.encode() not in Path(f"/proc/{near.note['pid']}/{name}").read_bytes()
    for path in near.folder.iterdir():
        assert path.stat().st_mode & 0o077 == 0
        if path.is_file():
            assert text not in path.read_text("utf-8")


def test_nobody_expected_it_ends_and_leaves_nothing(tmp_path: Path, program: Path) -> None:
    one = Near(tmp_path / "box")
    one.start(program, linger=0.2)
    for _ in range(1000):
        if not list(one.folder.iterdir()):
            break
        time.sleep(0.1)
    assert list(one.folder.iterdir()) == []
