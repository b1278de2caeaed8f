"""What goes over the bridge and outlives its sessions, as its user sees it."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit import World, free_port, need, until
from tests.kit.processes import is_alive


@pytest.mark.parametrize("words", [("--raw",), ("--mux", "none")])
def test_a_plain_shell_outlives_its_sessions(world: World, words: tuple[str, ...]) -> None:
    with world.terminal("attach", "api", *words) as terminal:
        pid = terminal.shell_pid()
        for _ in range(3):
            assert world.fault("terminate") >= 1
            assert terminal.shell_pid() == pid
        terminal.resize(70, 20)
        terminal.ask("stty size", "20 70")
        terminal.line("exit 7")
        assert terminal.wait() == 7


def test_a_plain_shell_ends_with_its_user(world: World) -> None:
    with world.terminal("attach", "api", "--raw") as terminal:
        pid = terminal.shell_pid()
        terminal.type(b"\r~.")
        assert terminal.wait() == 0
    until(lambda: not is_alive(pid), "the shell has ended")


def test_a_command_on_a_terminal_outlives_its_sessions(world: World) -> None:
    script = "echo up; read -r line; echo heard $line; tty >/dev/null && exit 5"
    with world.terminal("exec", "-t", "api", "--", "sh", "-c", script) as terminal:
        terminal.until("up")
        assert world.fault("terminate") >= 1
        terminal.line("me")
        terminal.until("heard me")
        assert terminal.wait() == 5
    began = time.monotonic()
    with world.terminal("exec", "-t", "api", "--", "true") as terminal:
        assert terminal.wait() == 0
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_wait_for_a_silent_box_shows_itself_and_ends_at_the_first_signal(
    world: World, number: signal.Signals
) -> None:
    """Also where no session knows yet that its link is dead."""
    world.ok("exec", "api", "--", "true")
    world.fault("blackhole", seconds=600)
    with world.terminal("exec", "api", "--", "true") as terminal:
        terminal.until("devbox: reaching api")
        terminal.program.send_signal(number)
        terminal.until("api did not take the signal")
        assert terminal.wait() == 128 + number
    world.fault("clear")
    with world.start("exec", "api", "-n", "--", "echo", "hi", stdout=subprocess.PIPE) as after:
        assert after.communicate()[0] == b"hi\n"


def test_a_plain_shell_that_is_not_there_yet_shows_that_it_is_awaited(world: World) -> None:
    world.ok("exec", "api", "--", "true")
    world.fault("blackhole", seconds=600)
    with world.terminal("attach", "api", "--mux", "none") as terminal:
        terminal.until("devbox: reaching api")
        terminal.type(b"\x03")
        assert terminal.wait() == 130
    world.fault("clear")
    world.ok("exec", "api", "--", "true")  # the next test finds it in order


@contextlib.contextmanager
def answering(family: int, address: Any) -> Iterator[Any]:
    """Says back what it was asked once all of it is there; yields where it listens."""
    served = socket.socket(family)
    served.bind(address)
    served.listen()

    def answer() -> None:
        while True:
            try:
                one, _ = served.accept()
            except OSError:
                return
            with one:
                asked = b""
                while part := one.recv(1000):
                    asked += part
                one.sendall(b"answer to " + asked)

    threading.Thread(target=answer, daemon=True).start()
    try:
        yield served.getsockname()
    finally:
        served.shutdown(socket.SHUT_RDWR)
        served.close()


def asked(world: World, family: str, address: str) -> bytes:
    """What a program on the box is answered."""
    program = (
        f"import socket, os; s = socket.socket(socket.{family}); s.connect({address});"
        "s.sendall(b'me'); s.shutdown(1); print(s.recv(100).decode())"
    )
    return world.run("exec", "api", "--", "python3", "-c", program).stdout


def test_a_reverse_forward_outlives_sessions_and_the_daemon(world: World) -> None:
    far = free_port()
    with answering(socket.AF_INET, ("127.0.0.1", 0)) as (_, port):
        world.ok("forward", "api", "-R", f"{far}:{port}", "-R", f"~/app.sock:{port}")

        def works() -> bool:
            return (
                asked(world, "AF_INET", f"('127.0.0.1', {far})") == b"answer to me\n"
                and asked(world, "AF_UNIX", "os.path.expanduser('~/app.sock')") == b"answer to me\n"
            )

        until(works, "both lead here")
        world.fault("terminate")
        until(works, "after their sessions")
        world.ok("daemon", "restart", "--yes")
        until(works, "after the daemon")
        assert f"{far} (-R)" in world.ok("forward", "ls")
        world.remove_forwards()
        until(lambda: not works(), "they are gone")
        until(lambda: not (world.disk() / "app.sock").exists(), "and so is the socket")


def test_a_unix_socket_on_the_box(world: World) -> None:
    with answering(socket.AF_UNIX, str(world.disk() / "served.sock")):
        here = world.folder / "here.sock"
        world.ok("forward", "api", "0:~/served.sock", f"{here}:~/served.sock")
        [tcp, unix] = world.json("forward", "ls")["forwards"]
        host, _, port = tcp["local"].rpartition(":")
        for family, address in ((socket.AF_INET, (host, int(port))), (socket.AF_UNIX, unix["local"])):
            with socket.socket(family) as one:
                one.settimeout(20)
                one.connect(address)
                one.sendall(b"me")
                one.shutdown(socket.SHUT_WR)
                assert one.recv(100) == b"answer to me"


def test_a_unix_socket_needs_a_bridge_and_says_so(bare_world: World) -> None:
    [address] = bare_world.forward("0:/run/x.sock")
    # Refused as soon as it is accepted: the reset may be quicker than we are.
    with contextlib.suppress(ConnectionResetError), socket.create_connection(address, 20) as one:
        assert one.recv(1) == b""
    [found] = bare_world.json("forward", "ls")["forwards"]
    assert "no bridge" in found["error"]


def test_a_lent_agent_answers_over_the_bridge_and_after_its_sessions(world: World) -> None:
    """Half-close too: whoever has asked everything is still answered."""
    with (
        answering(socket.AF_UNIX, str(world.folder / "agent")) as path,
        world.terminal("attach", "-A", "api", "--raw", env={"SSH_AUTH_SOCK": path}) as terminal,
    ):
        terminal.shell_pid()
        there = "os.path.expanduser('~/.devbox/agent.sock')"
        for _ in range(2):
            until(lambda: asked(world, "AF_UNIX", there) == b"answer to me\n", "an answer")
            assert world.fault("terminate") >= 1
        terminal.type(b"\r~.")
        assert terminal.wait() == 0


def low_server() -> socket.socket:
    """A server on a low port: where this machine, which is the box here, listens on more than 64, those come first."""
    for port in random.SystemRandom().sample(range(2000, 9000), 200):
        with contextlib.suppress(OSError):
            return socket.create_server(("127.0.0.1", port))
    raise AssertionError("there is no free port")


def test_auto_is_told_of_changes_and_leaves_bridgeheads_alone(world: World) -> None:
    def mirrored() -> list[str]:
        return [one["remote"] for one in world.json("forward", "ls")["forwards"]]

    with low_server() as server:
        port = server.getsockname()[1]
        world.ok("forward", "api", "--auto")
        until(lambda: str(port) in mirrored(), "it is mirrored")
        notes = [json.loads(path.read_text()) for path in (world.disk() / ".devbox").glob("bridge-*.json")]
        assert notes
        assert not {str(note["port"]) for note in notes} & set(mirrored())
        with low_server() as another:
            later = another.getsockname()[1]
            server.close()
            until(lambda: str(port) not in mirrored(), "it is gone")
            until(lambda: str(later) in mirrored(), "and what came later is there")


def test_a_ping_goes_over_the_bridge_that_stands(world: World) -> None:
    world.ok("exec", "api", "--", "true")
    before = {one["id"] for one in world.far_sessions()}
    assert "ms" in world.ok("ping", "api")
    assert {one["id"] for one in world.far_sessions()} <= before


def begun_anew(world: World) -> None:
    """One bridgehead and one session, whatever the tests before have left."""
    world.run("bridge", "rm", "api")
    world.ok("exec", "api", "--", "true")


def test_what_runs_on_a_box_is_shown_and_can_be_removed(world: World) -> None:
    begun_anew(world)
    assert "1 session" in world.ok("show", "api")
    assert "bridge" in world.ok("status")
    assert "outlive" in world.ok("doctor", "api")
    [found] = [one for one in world.json("bridge", "ls")["bridges"] if one["box"] == "api"]
    assert [lane["state"] for lane in found["lanes"]] == ["up"]
    [note] = (world.disk() / ".devbox").glob("bridge-*.json")
    pid = json.loads(note.read_text())["pid"]
    done = world.ok("bridge", "rm", "api")
    assert f"ended {pid}" in done
    until(lambda: not is_alive(pid), "the bridgehead has ended")
    assert not (world.disk() / ".devbox").exists()
    assert "nothing" in world.run("bridge", "rm", "api").stderr.decode()
    assert "bridge.removed" in world.ok("events")
    world.ok("exec", "api", "--", "true")
    assert (world.disk() / ".devbox").exists(), "the next connection has started it again"


def test_what_there_is_instead_of_a_bridge_is_said(bare_world: World) -> None:
    bare_world.ok("exec", "api", "--", "true")
    assert "never" in bare_world.ok("doctor", "api")
    assert bare_world.json("bridge", "ls")["bridges"] == []


def test_the_secret_of_a_bridge_stands_nowhere(world: World) -> None:
    """In no argument, no environment, no log and no file that others may read, on either side."""
    begun_anew(world)
    [key] = (world.folder / "state").rglob("bridge.key")
    assert key.stat().st_mode & 0o777 == 0o600
    box = world.boxes["api"]["id"]
    raw = hmac.new(key.read_bytes(), f"{box}/".encode(), hashlib.sha256).digest()
    needles = [form for one in (raw, key.read_bytes()) for form in (one, one.hex().encode(), b64encode(one))]
    notes = [json.loads(path.read_text()) for path in (world.disk() / ".devbox").glob("bridge-*.json")]
    pids = [world.daemon_pid(), *(note["pid"] for note in notes)]
    assert len(pids) == 2
    for pid in pids:
        for name in ("cmdline", "environ"):
            text = Path(f"/proc/{pid}/{name}").read_bytes()
            assert not any(needle in text for needle in needles), f"{name} of {pid}"
    for path in world.folder.rglob("*"):
        if path == key or not path.is_file():
            continue
        assert not any(needle in path.read_bytes() for needle in needles), path
    assert not any(needle in world.log.encode() for needle in needles)


@pytest.fixture
def postgres(world: World) -> Iterator[int]:
    """A PostgreSQL server on the box; it refuses to run as root, so then another user runs it."""
    need("psql")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found or (os.geteuid() == 0 and shutil.which("runuser") is None):
        pytest.skip("no PostgreSQL server on this machine")
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder, port = Path(tempfile.mkdtemp(prefix="dbp-", dir="/tmp")), free_port()
    try:
        if as_user:
            shutil.chown(folder, "postgres")
        data = folder / "data"
        line = [*as_user, str(found[-1] / "initdb"), "-D", str(data), "-A", "trust", "-U", "dev", "--no-sync"]
        if subprocess.run(line, capture_output=True, check=False, cwd="/").returncode:
            pytest.skip("PostgreSQL cannot be set up here")
        line = [
            *as_user,
            str(found[-1] / "postgres"),
            "-D",
            str(data),
            "-p",
            str(port),
            "-k",
            str(folder),
            "-F",
        ]
        with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/") as server:
            yield port
            server.terminate()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_session_of_psql_outlives_the_sessions_under_it(world: World, postgres: int) -> None:
    """One connection, a temporary table, and all SSM sessions ended between two statements."""
    [(host, port)] = world.forward(f"0:{postgres}")
    address = f"host={host} port={port} user=dev dbname=postgres sslmode=disable connect_timeout=20"
    until(
        lambda: not subprocess.run(["psql", address, "-c", "select 1"], capture_output=True).returncode,
        "it is up",
    )
    with subprocess.Popen(
        ["psql", address, "-qAt"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as psql:
        assert psql.stdin is not None
        assert psql.stdout is not None
        print("create temporary table kept as select generate_series(1, 1000) as n;", file=psql.stdin)
        for turn in range(1, 5):
            print(f"select sum(n) * {turn} from kept;", file=psql.stdin)
            assert psql.stdout.readline() == f"{500500 * turn}\n"
            assert world.fault("terminate") >= 1
        psql.stdin.close()
        assert psql.wait(20) == 0
