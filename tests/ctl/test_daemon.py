"""Finding, trusting, starting, stopping and installing the daemon."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devboxctl.app import run
from devboxctl.commands import service as commands
from devboxctl.commands.about import SHELLS, script
from devboxctl.fast.complete import candidates
from devboxd.api import client, starting
from tests.ctl.conftest import ROOT
from tests.ctl.fake_daemon import FakeDaemon, Peer
from tests.ctl.terminal import PATIENCE, RUN, Tty
from tests.kit.freezing import freeze

Capture = pytest.CaptureFixture[str]

# What stands in for `python -m devboxd`: the fake daemon, or one that dies.
GOOD = """
import os, sys
sys.path[:0] = [{root!r}]
from devboxd.api import client, starting
from tests.ctl import fake_daemon
open(os.environ["HOME"] + "/started", "a").write(str(os.getpid()) + "\\n")
sys.argv[1:] = [client.socket_path()]
fake_daemon.FakeDaemon.always = {{"GET boxes": {{"boxes": []}}}}
fake_daemon.wait_for_ever()
"""
BAD = "import sys; sys.exit('no such luck\\x1b[1m')"


@pytest.fixture
def stand_in(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program to be started instead of the interpreter; it ignores what it is asked to run."""
    program = home / "python"

    def write(code: str) -> None:
        (home / "code.py").write_text(code)

    write(GOOD.format(root=str(ROOT)))
    program.write_text(f'#!/bin/sh\nexec {sys.executable} "{home}/code.py"\n')
    program.chmod(0o755)
    return program


def started(home: Path) -> list[int]:
    file = home / "started"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def ls(home: Path, program: Path) -> subprocess.Popen[str]:
    code = f"import sys; sys.executable = {str(program)!r}; sys.argv = ['devboxctl', 'ls']; "
    code += "from devboxctl.entry import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


def test_a_missing_daemon_is_started_once_by_several_commands_and_outlives_them(
    home: Path, stand_in: Path
) -> None:
    commands_ = [ls(home, stand_in) for _ in range(3)]
    ends = [command.communicate(timeout=30) for command in commands_]
    pids = started(home)
    try:
        assert [command.returncode for command in commands_] == [0, 0, 0], ends
        assert len(pids) == 1
        assert {err for _, err in ends} <= {"", "devboxd was not running: started it\n"}
        assert any(err for _, err in ends)
        assert os.getsid(pids[0]) == pids[0], "it would die with our terminal"
        assert stat.S_IMODE(os.stat(f"{os.environ['XDG_RUNTIME_DIR']}/devbox").st_mode) == 0o700
    finally:
        for pid in pids:
            os.kill(pid, 9)


def test_a_socket_left_by_a_killed_daemon_does_not_hinder(home: Path, stand_in: Path) -> None:
    path = client.socket_path()
    dead = FakeDaemon(path)
    dead.close()
    assert os.path.exists(path)
    (home / "code.py").write_text(f"import os; os.unlink({path!r})\n" + GOOD.format(root=str(ROOT)))
    command = ls(home, stand_in)
    _, err = command.communicate(timeout=30)
    for pid in started(home):
        os.kill(pid, 9)
    assert command.returncode == 0, err


def test_a_daemon_that_dies_at_once_is_reported_with_its_last_words(home: Path, stand_in: Path) -> None:
    (home / "code.py").write_text(BAD)
    begin = time.monotonic()
    command = ls(home, stand_in)
    _, err = command.communicate(timeout=30)
    assert command.returncode == 69
    assert err.startswith("error: devboxd could not be started: no such luck [1m\nhint: its log is /")
    assert time.monotonic() - begin < client.START_TIMEOUT


def test_status_and_stop_never_start_it(home: Path, capsys: Capture) -> None:
    assert run(["daemon", "status"]) == 69
    assert run(["daemon", "stop"]) == 69
    assert "devboxd is not running" in capsys.readouterr().err
    assert not os.path.exists(client.socket_path())


def test_stop_waits_until_the_process_is_gone(daemon: FakeDaemon, capsys: Capture) -> None:
    sleeper = subprocess.Popen(["sleep", "30"])

    def stop(peer: Peer) -> dict[str, int]:
        threading.Timer(0.2, sleeper.terminate).start()
        return {"pid": sleeper.pid}

    daemon.routes["POST stop"] = stop
    assert run(["daemon", "stop"]) == 0
    assert sleeper.poll() is not None


def test_a_socket_of_somebody_else_is_not_talked_to(daemon: FakeDaemon, capsys: Capture) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(daemon.path, 12345, -1)
    assert run(["ls"]) == 69
    assert "belongs to user id 12345" in capsys.readouterr().err
    os.chown(daemon.path, 0, -1)
    os.chown(os.path.dirname(daemon.path), 12345, -1)
    assert run(["ls"]) == 69
    os.chown(os.path.dirname(daemon.path), 0, -1)
    assert daemon.requests == []


def test_a_file_in_the_place_of_the_socket_and_a_long_path_are_explained(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / "file"
    file.touch()
    monkeypatch.setenv("DEVBOX_SOCKET", str(file))
    assert run(["ls"]) == 69
    assert "is not a socket" in capsys.readouterr().err


def test_paths_follow_the_environment() -> None:
    assert client.socket_path({"XDG_RUNTIME_DIR": "/run/user/7"}) == "/run/user/7/devbox/devboxd.sock"
    assert client.socket_path({"DEVBOX_SOCKET": "/x", "XDG_RUNTIME_DIR": "/run/user/7"}) == "/x"
    assert client.socket_path({"HOME": "/h", "XDG_STATE_HOME": "/s/"}) == "/s/devbox/run/devboxd.sock"
    assert client.socket_path({"HOME": "/h", "XDG_RUNTIME_DIR": "x", "XDG_STATE_HOME": "y"}).startswith("/h/")


def test_an_answer_in_small_pieces_is_put_together(daemon: FakeDaemon) -> None:
    def slow(peer: Peer) -> None:
        for (
            byte
        ) in b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\n\r\n":
            peer.connection.sendall(bytes((byte,)))
        peer.exactly(1)

    daemon.routes["GET slow"] = slow
    assert client.call("GET", "slow") == b"hello!"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
    ],
)
def test_a_broken_answer_is_a_typed_error(daemon: FakeDaemon, answer: bytes) -> None:
    def broken(peer: Peer) -> None:
        peer.connection.sendall(answer)
        peer.connection.shutdown(socket.SHUT_RDWR)
        peer.exactly(1)

    daemon.routes["GET broken"] = broken
    with pytest.raises(client.DaemonLost):
        client.call("GET", "broken")


def test_a_daemon_that_says_nothing_is_given_up(daemon: FakeDaemon) -> None:
    daemon.routes["GET silent"] = lambda peer: peer.exactly(1)
    with pytest.raises(client.DaemonLost, match="did not answer"):
        client.call("GET", "silent", timeout=0.05)


# Units and completion.


@pytest.mark.parametrize("name", commands.UNITS)
def test_the_units_in_the_package_are_those_in_the_repository(name: str) -> None:
    assert (ROOT / "systemd" / name).read_bytes() == (ROOT / "devboxd" / "data" / name).read_bytes()


def test_systemd_accepts_the_units(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here")
    (home / "run").mkdir(mode=0o700)
    for made in (False, True):
        folder = home / f"units-{made}"
        folder.mkdir()
        for name in commands.UNITS:
            text = commands.unit(name) if made else (ROOT / "systemd" / name).read_text()
            (folder / name).write_text(text)
        line = [analyze, "--user", "--man=no", "--recursive-errors=yes", "verify"]
        done = subprocess.run(
            [*line, *(str(folder / name) for name in commands.UNITS)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_the_installed_unit_runs_this_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/my $ven%v/python")
    assert 'ExecStart="/opt/my $$ven%%v/python" -E -P -m devboxd\n' in commands.unit("devboxd.service")
    assert "/usr/bin/env" not in commands.unit("devboxd.service")


def test_install_writes_units_and_uninstall_takes_them_away(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = home / "calls"
    fake = home / "bin" / "systemctl"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    assert run(["daemon", "install"]) == 0
    folder = Path(os.environ["XDG_CONFIG_HOME"]) / "systemd" / "user"
    assert sorted(path.name for path in folder.iterdir()) == sorted(commands.UNITS)
    assert (home / ".local/share/bash-completion/completions/devboxctl").exists()
    assert run(["daemon", "uninstall"]) == 0
    assert list(folder.iterdir()) == []
    assert calls.read_text().splitlines() == [
        "--user daemon-reload",
        "--user enable --now devboxd.socket",
        "--user disable --now devboxd.socket devboxd.service",
        "--user daemon-reload",
    ]


def test_logs_shows_the_end_without_control_characters(home: Path, capsys: Capture) -> None:
    assert run(["daemon", "logs"]) == 2
    capsys.readouterr()
    state = Path(client.state_directory())
    state.mkdir(parents=True)
    (state / client.LOG_NAME).write_text("".join(f"line {n}\x1b[2J\n" for n in range(300)))
    assert run(["daemon", "logs", "-n", "2"]) == 0
    assert capsys.readouterr().out == "line 298 [2J\nline 299 [2J\n"


def test_completion_offers_commands_options_and_names(daemon: FakeDaemon) -> None:
    boxes = [{"name": "gpu", "id": "i-1"}, {"name": "$(reboot)", "id": "i-2"}]
    daemon.routes["GET boxes"] = {"boxes": boxes}
    daemon.routes["GET forwards"] = {"forwards": [{"id": "f1"}]}
    assert candidates(["devboxctl", "at"], 1) == ["attach"]
    assert candidates(["devboxctl", "attach", ""], 2) == ["gpu", "i-2"], (
        "what a shell would run is offered by its id"
    )
    assert candidates(["devboxctl", "attach", "--user", ""], 3) == []
    assert candidates(["devboxctl", "attach", "--mux", "t"], 3) == ["tmux"]
    assert candidates(["devboxctl", "--json", "show", "g"], 3) == ["gpu"]
    assert candidates(["devboxctl", "attach", "gpu", "--r"], 3) == ["--raw", "--region"]
    assert candidates(["devboxctl", "forward", ""], 2) == ["ls", "rm", "gpu", "i-2"]
    assert candidates(["devboxctl", "forward", "rm", ""], 3) == ["f1", "all"]
    assert candidates(["devboxctl", "forward", "gpu", ""], 3) == []
    assert candidates(["devboxctl", "daemon", "st"], 2) == ["status", "start", "stop"]
    assert candidates(["devboxctl", "exec", "gpu", "--", ""], 4) == []
    assert candidates(["devboxctl", "exec", "gpu", "ls", "-"], 4) == []
    assert candidates(["devboxctl", "exec", "-n", "g"], 3) == ["gpu"]
    assert candidates(["devboxctl", "daemon", "logs", "-n", ""], 4) == []
    assert candidates(["devboxctl", "help", "at"], 2) == ["attach"]
    assert candidates(["devboxctl", "ls", "--state", "st"], 3) == ["stopped", "stopping"]
    assert candidates(["devboxctl", "completion", ""], 2) == ["bash", "zsh", "fish"]


def test_completion_starts_no_daemon_and_never_fails(home: Path) -> None:
    for words in (["bash", "2", "devboxctl", "attach", ""], ["bash"], ["bash", "x"]):
        done = subprocess.run(
            [sys.executable, "-m", "devboxctl", "_complete", *words], capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert not os.path.exists(client.socket_path())


def test_bash_completes_with_the_script(daemon: FakeDaemon, home: Path) -> None:
    daemon.routes["GET boxes"] = {"boxes": [{"name": "gpu", "id": "i-1"}, {"name": "gpu-2", "id": "i-2"}]}
    program = home / "devboxctl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m devboxctl "$@"\n')
    program.chmod(0o755)
    code = 'eval "$(devboxctl completion bash)"; COMP_WORDS=(devboxctl attach g); COMP_CWORD=2; _devboxctl; '
    done = subprocess.run(
        ["bash", "--norc", "-c", code + 'printf "%s\\n" "${COMPREPLY[@]}"'],
        env={**os.environ, "PATH": f"{home}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout == "gpu\ngpu-2\n", done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_each_script_is_accepted_by_its_shell(shell: str, home: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    subprocess.run([shell, "-n"], input=script(shell).encode(), check=True)
    assert "_complete" in script(shell)


def test_errors_in_json_for_a_missing_daemon(home: Path, capsys: Capture) -> None:
    assert run(["--json", "daemon", "status"]) == 69
    assert json.loads(capsys.readouterr().err)["code"] == "no-daemon"


# Hung, stopped, in the wrong place ----------------------------------------------------------------------


@pytest.fixture
def frozen(home: Path) -> Iterator[int]:
    """A daemon that is stopped, as with SIGSTOP or in a debugger: its socket is there, and nothing answers."""
    path = client.socket_path()
    process = subprocess.Popen(
        [sys.executable, "-c", LOCKED.format(root=str(ROOT), path=path)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"listening\n"
    freeze(process.pid)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


LOCKED = """
import fcntl, os, sys
sys.path[:0] = [{root!r}]
from tests.ctl import fake_daemon
os.makedirs(os.path.dirname({path!r}), exist_ok=True)
lock = os.open(os.path.join(os.path.dirname({path!r}), "devboxd.lock"), os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)
os.pwrite(lock, b"%d\\n" % os.getpid(), 0)
sys.argv[1:] = [{path!r}]
fake_daemon.wait_for_ever()
"""


@pytest.mark.parametrize(
    "words",
    [
        ["ls"],
        ["ls", "--json"],
        ["status"],
        ["exec", "gpu", "true"],
        ["attach", "gpu"],
        ["proxy", "gpu", "22"],
        ["forward", "gpu", "8000", "--foreground"],
        ["daemon", "status"],
    ],
    ids=" ".join,
)
def test_a_daemon_that_is_stopped_is_named_within_seconds(frozen: int, words: list[str]) -> None:
    """A command that hangs without a word leaves its user with Ctrl-C and no idea."""
    begin = time.monotonic()
    master, slave = os.openpty()  # attach wants a terminal
    done = subprocess.run(
        [sys.executable, "-m", "devboxctl", *words],
        capture_output=True,
        text=True,
        check=False,
        stdin=slave,
        timeout=PATIENCE,
    )
    os.close(slave)
    os.close(master)
    assert time.monotonic() - begin < client.PATIENCE + starting.HANG  # one that is stopped is known at once
    assert f"devboxd (pid {frozen}) does not answer" in done.stderr
    assert "daemon restart" in done.stderr
    assert done.returncode in (69, 255)


def test_ctrl_c_ends_a_command_that_waits_for_a_hung_daemon(home: Path) -> None:
    """Nobody at all answers on the socket: no process to name, but a way out."""
    path = client.socket_path()
    os.makedirs(os.path.dirname(path), 0o700)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen(5)
        with Tty(["exec", "gpu", "true"], os.environ) as tty:
            tty.wait_for(b"devboxd does not answer; waiting")
            tty.type(b"\x03")
            assert tty.wait() == 130


def test_a_terminal_says_that_the_daemon_is_stopped_and_goes_on_when_it_is_not(home: Path) -> None:
    """Keys vanish into a daemon that hangs: its user has to know, and to lose nothing."""
    path = client.socket_path()
    process = subprocess.Popen(
        [sys.executable, "-c", LOCKED.format(root=str(ROOT), path=path)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        with Tty(["attach", "gpu"], os.environ) as tty:
            tty.wait_for(b"welcome")
            freeze(process.pid)
            tty.type(b"typed")
            tty.wait_for(f"devboxd (pid {process.pid}) does not answer".encode())
            process.send_signal(signal.SIGCONT)
            tty.wait_for(b"typed")
            tty.type(b"exit\r")
            assert tty.wait() == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("words", [["daemon", "stop"], ["daemon", "restart"]], ids=" ".join)
def test_a_hung_daemon_is_ended(frozen: int, words: list[str], stand_in: Path, home: Path) -> None:
    code = f"import sys; sys.executable = {str(stand_in)!r}; sys.argv = ['devboxctl', *{words!r}]; "
    code += "from devboxctl.entry import main; main()"
    (home / "code.py").write_text(
        f"import os; os.unlink({client.socket_path()!r})\n" + (home / "code.py").read_text()
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=30,
    )
    for pid in started(home):
        os.kill(pid, 9)
    assert f"devboxd (pid {frozen}) does not answer" in done.stderr
    assert not starting.is_alive(frozen)
    if words == ["daemon", "stop"]:
        assert (done.returncode, started(home)) == (0, [])
    else:
        assert started(home) != [], done.stderr


def test_a_restart_says_what_it_cuts_and_asks(daemon: FakeDaemon) -> None:
    """A build that runs in exec is gone with the daemon; nobody wants to learn that afterwards."""
    status = {"daemon_version": "1", "pid": 1, "started": "x", "socket": "s", "sessions": 2, "forwards": 1}
    daemon.routes["GET status"] = {
        **status,
        "attached": 1,
        "piped": 2,
    }  # of an older daemon: it counts no commands
    kinds = ["exec", "mux", "shell", "port"]
    sessions = [{"id": k, "box": "b", "kind": k, "state": "online"} for k in kinds]
    daemon.routes["GET sessions"] = {"sessions": sessions}
    daemon.routes["GET forwards"] = {
        "forwards": [
            {"id": "f", "box": "b", "state": "online", "local": "1", "remote": "1", "connections": 3}
        ]
    }
    with Tty(["daemon", "restart"], os.environ) as tty:
        tty.wait_for(b"a restart cuts 1 command, 1 plain shell, 5 connections")
        tty.wait_for(b"go on?")
        tty.type(b"\n")
        assert tty.wait() == 130
    assert not any(method == "POST" for method, _, _ in daemon.requests)


def test_what_goes_on_is_not_among_what_a_restart_cuts(daemon: FakeDaemon) -> None:
    status = {"daemon_version": "1", "pid": 1, "started": "x", "socket": "s", "sessions": 2, "forwards": 1}
    kept = {"connections": 4, "commands": 2}
    daemon.routes["GET status"] = {
        **status,
        "attached": 1,
        "piped": 2,
        "commands": 2,
        "shells": 1,
        "kept": kept,
    }
    # What prepares a bridge is a session of that kind, and nobody's command.
    own = [{"id": str(number), "box": "b", "kind": "exec", "state": "online"} for number in range(4)]
    daemon.routes["GET sessions"] = {"sessions": own}
    daemon.routes["GET forwards"] = {
        "forwards": [
            {"id": "f", "box": "b", "state": "online", "local": "1", "remote": "1", "connections": 3}
        ]
    }
    with Tty(["daemon", "restart"], os.environ) as tty:
        tty.wait_for(b"a restart cuts 1 plain shell, 1 connection\r\n")
        tty.wait_for(b"go on?")
        tty.type(b"\n")
        assert tty.wait() == 130


def test_what_was_stopped_stays_so_until_somebody_asks(home: Path, stand_in: Path, capsys: Capture) -> None:
    """A terminal that waits must not start what its user has just stopped."""
    first = subprocess.Popen(
        [sys.executable, "-c", LOCKED.format(root=str(ROOT), path=client.socket_path())],
        stdout=subprocess.PIPE,
    )
    assert first.stdout is not None
    first.stdout.readline()
    run_ = RUN.replace("from devboxctl", f"sys.executable = {str(stand_in)!r}; from devboxctl")
    (home / "code.py").write_text(
        f"import os; os.unlink({client.socket_path()!r})\n" + (home / "code.py").read_text()
    )
    try:
        with Tty(["attach", "gpu"], os.environ, run=run_) as tty:
            tty.wait_for(b"welcome")
            starting.mark_stopped(client.socket_path(), stopped=True)
            first.kill()
            first.wait()
            tty.wait_for(b"devboxd was stopped: devboxctl daemon start")
            time.sleep(client.PATIENCE + 1)  # longer than SPAWN_AFTER
            assert started(home) == []
            command = ls(home, stand_in)
            command.communicate(timeout=30)
            assert command.returncode == 0
            tty.wait_for(b"welcome")
            tty.type(b"exit\r")
            assert tty.wait() == 0
            assert len(started(home)) == 1
    finally:
        first.stdout.close()
        for pid in started(home):
            os.kill(pid, 9)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("DEVBOX_SOCKET", "rel.sock", "/here/rel.sock"),
        ("DEVBOX_CONFIG", "../c.toml", "/c.toml"),
        ("AWS_CONFIG_FILE", "./aws", "/here/aws"),
        ("AWS_CA_BUNDLE", "~/ca.pem", "~/ca.pem"),
        ("SSL_CERT_FILE", "/etc/ca.pem", "/etc/ca.pem"),
        ("AWS_PROFILE", "work", "work"),
        ("PYTHONPATH", "/stray", None),
        ("PYTHONWARNINGS", "error", None),
        ("PYTHONPATH", f"/stray:{ROOT}", str(ROOT)),
    ],
)
def test_the_daemon_gets_paths_that_hold_in_its_own_folder(
    name: str, given: str, expected: str | None
) -> None:
    """It runs in /: a relative socket would be made there, and hold everything up for ever after."""
    assert starting.environment({name: given}, "/here").get(name) == expected


def test_a_relative_socket_is_where_the_user_stands(
    home: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVBOX_SOCKET", "rel/own.sock")
    (home / "there").mkdir()
    code = f"import sys, os; os.chdir({str(home / 'there')!r}); sys.executable = {str(stand_in)!r}; "
    code += "sys.argv = ['devboxctl', 'ls']; from devboxctl.entry import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    for pid in started(home):
        os.kill(pid, 9)
    assert done.returncode == 0, done.stderr
    assert (home / "there" / "rel" / "own.sock").exists()


WORDS = """
import os, sys
os.write(int(os.environ["DEVBOX_START_FD"]), b"/x can not be used: Read-only file system\\nlook at /x\\n")
print("a line that only the log wants", file=sys.stderr)
sys.exit(1)
"""


def test_a_daemon_that_cannot_start_says_why_itself(home: Path, stand_in: Path) -> None:
    """The last line of a log is whatever was logged last; and a full disk has no log at all."""
    (home / "code.py").write_text(WORDS)
    command = ls(home, stand_in)
    _, err = command.communicate(timeout=30)
    assert command.returncode == 69
    assert (
        err
        == "error: devboxd could not be started: /x can not be used: Read-only file system\nhint: look at /x\n"
    )


def test_only_what_this_start_has_written_is_quoted(home: Path, stand_in: Path) -> None:
    state = Path(client.state_directory())
    state.mkdir(parents=True)
    (state / client.LOG_NAME).write_text("an old line about something else\n")
    (home / "code.py").write_text("import sys; sys.exit(1)")
    command = ls(home, stand_in)
    _, err = command.communicate(timeout=30)
    assert err.startswith("error: devboxd could not be started\nhint: its log is ")


@pytest.mark.parametrize("target", ["devboxd.log", "start lock"])
def test_a_link_in_the_place_of_our_files_is_not_followed(home: Path, stand_in: Path, target: str) -> None:
    """Whoever may write to a shared folder could let us write to any file of ours."""
    state, victim = Path(client.state_directory()), home / "victim"
    state.mkdir(parents=True)
    folder = Path(client.socket_path()).parent
    folder.mkdir(parents=True)
    link = state / client.LOG_NAME if target == "devboxd.log" else Path(client.socket_path() + ".start")
    link.symlink_to(victim)
    command = ls(home, stand_in)
    _, err = command.communicate(timeout=30)
    assert command.returncode == 69
    assert "cannot write" in err
    assert not victim.exists()


@pytest.mark.parametrize("target", ["devboxd.log", "start lock"])
@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_in_the_place_of_ours_is_named(
    home: Path, stand_in: Path, target: str, kind: str
) -> None:
    """Opening a pipe to write waits for a reader, for ever and without a word."""
    state, folder = Path(client.state_directory()), Path(client.socket_path()).parent
    state.mkdir(parents=True)
    folder.mkdir(parents=True)
    path = state / client.LOG_NAME if target == "devboxd.log" else Path(client.socket_path() + ".start")
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    command = ls(home, stand_in)
    _, err = command.communicate(timeout=30)
    assert command.returncode == 69
    assert f"cannot write {path}: {'it is no regular file' if kind == 'pipe' else 'Is a directory'}" in err


def test_folders_are_private_whatever_the_umask(home: Path, stand_in: Path) -> None:
    before = os.umask(0)
    try:
        command = ls(home, stand_in)
    finally:
        os.umask(before)
    command.communicate(timeout=30)
    for pid in started(home):
        os.kill(pid, 9)
    for folder in (home / ".local", home / ".local" / "state", Path(client.state_directory())):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder


def test_install_and_uninstall_speak_json(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")  # no systemctl, no shells
    assert run(["daemon", "install", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["starts"], found["version"], err) == (None, 1, "")
    assert [Path(file).name for file in found["wrote"]] == list(commands.UNITS)
    assert run(["daemon", "uninstall", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["removed"]) == 2


@pytest.mark.parametrize("words", [["daemon", "install"], ["daemon", "install", "--json"]], ids=" ".join)
def test_a_file_that_cannot_be_written_is_named(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """A home on a disk that is full, or read-only."""
    (home / "config").mkdir()
    (home / "config" / "systemd").write_text("in the way")
    assert run(words) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "cannot write" in err
    assert str(home / "config" / "systemd" / "user") in err
