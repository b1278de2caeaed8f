"""Finding, trusting, starting, stopping and installing the daemon."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from devboxctl.app import run
from devboxctl.commands import daemon as commands
from devboxctl.commands.about import SHELLS, script
from devboxctl.fast.complete import candidates
from devboxd.api import client
from tests.ctl.conftest import ROOT
from tests.ctl.fake_daemon import FakeDaemon, Peer
from tests.ctl.terminal import PATIENCE

Capture = pytest.CaptureFixture[str]

# What stands in for `python -m devboxd`: the fake daemon, or one that dies.
GOOD = """
import os, sys
sys.path[:0] = [{root!r}]
from devboxd.api import client
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
    assert 'ExecStart="/opt/my $$ven%%v/python" -P -m devboxd\n' in commands.unit("devboxd.service")
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
    assert candidates(["devboxctl", "attach", ""], 2) == ["gpu"]
    assert candidates(["devboxctl", "attach", "--user", ""], 3) == []
    assert candidates(["devboxctl", "attach", "--mux", "t"], 3) == ["tmux"]
    assert candidates(["devboxctl", "--json", "show", "g"], 3) == ["gpu"]
    assert candidates(["devboxctl", "attach", "gpu", "--r"], 3) == ["--raw", "--region"]
    assert candidates(["devboxctl", "forward", ""], 2) == ["ls", "rm", "gpu"]
    assert candidates(["devboxctl", "forward", "rm", ""], 3) == ["f1", "all"]
    assert candidates(["devboxctl", "forward", "gpu", ""], 3) == []
    assert candidates(["devboxctl", "daemon", "st"], 2) == ["status", "start", "stop"]
    assert candidates(["devboxctl", "exec", "gpu", "--", ""], 4) == []
    assert candidates(["devboxctl", "exec", "gpu", "ls", "-"], 4) == []
    assert candidates(["devboxctl", "exec", "-n", "g"], 3) == ["gpu"]
    assert candidates(["devboxctl", "daemon", "logs", "-n", ""], 4) == []
    assert candidates(["devboxctl", "help", "at"], 2) == ["attach"]
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
