"""The daemon's own socket."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from devboxd.errors import Denied
from devboxd.net import unix
from devboxd.net.unix import (
    AlreadyRunning,
    PeerDenied,
    check_peer,
    inherited_sockets,
    open_daemon_socket,
    peer_user,
    send_fd,
)


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("d") / "devbox" / "devboxd.sock"


def test_the_socket_is_private_in_a_private_folder(path: Path) -> None:
    opened = open_daemon_socket(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert opened.activation == "spawned"
    opened.close()
    assert not path.exists()


def test_a_second_daemon_is_told_who_runs_already(path: Path) -> None:
    first = open_daemon_socket(path)
    with pytest.raises(AlreadyRunning, match=str(os.getpid())):
        open_daemon_socket(path)
    assert path.exists()
    first.close()
    open_daemon_socket(path).close()


def test_who_only_looks_at_the_lock_keeps_no_daemon_from_starting(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that asks which process has it shares the lock for a moment."""
    path.parent.mkdir(mode=0o700)
    looking = os.open(path.parent / unix.LOCK_NAME, os.O_RDONLY | os.O_CREAT, 0o600)
    fcntl.flock(looking, fcntl.LOCK_SH)
    monkeypatch.setattr("devboxd.net.unix.time.sleep", lambda seconds: os.close(looking))
    open_daemon_socket(path).close()


def test_a_second_daemon_with_another_socket_is_kept_off_the_same_state(path: Path, tmp_path: Path) -> None:
    """It would take the sessions in the journal for left over, and end them."""
    state, other = tmp_path / "state", path.parent.parent / "other" / "devboxd.sock"
    first = open_daemon_socket(path, state=state)
    with pytest.raises(AlreadyRunning, match=str(path)) as caught:
        open_daemon_socket(other, state=state)
    assert f"DEVBOX_SOCKET={path}" in (caught.value.hint or "")
    assert not other.exists()
    open_daemon_socket(other, state=tmp_path / "second").close()
    first.close()
    open_daemon_socket(other, state=state).close()


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("nowhere", path)])
def test_what_is_no_file_in_the_place_of_a_lock_is_named(
    path: Path, make: Callable[[str], None], tmp_path: Path
) -> None:
    """A sentence with the path, and no lock that is left held."""
    lock = tmp_path / unix.STATE_LOCK_NAME
    make(str(lock))
    with pytest.raises(Denied, match=str(lock)):
        open_daemon_socket(path, state=tmp_path)
    lock.rmdir() if lock.is_dir() else lock.unlink()
    open_daemon_socket(path, state=tmp_path).close()


def test_the_socket_may_stand_in_the_state_folder(path: Path) -> None:
    """Two locks of one process must not be one."""
    open_daemon_socket(path, state=path.parent).close()


def test_a_socket_that_a_crash_left_behind_is_replaced(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    opened = open_daemon_socket(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    opened.close()


def test_a_folder_that_others_can_write_is_refused(path: Path) -> None:
    """There, anybody could put a socket of their own in the place of ours."""
    path.parent.mkdir()
    path.parent.chmod(0o777)
    with pytest.raises(Denied, match="written by others"):
        open_daemon_socket(path)


def test_the_socket_of_systemd_is_taken_by_name(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    other = socket.create_server(("127.0.0.1", 0))
    inherited = {"devboxd.socket": [listening], "forward-1": [other]}
    opened = open_daemon_socket(path, inherited)
    assert opened.activation == "systemd"
    assert opened.socket is listening
    assert inherited["forward-1"] == [other]
    opened.close()
    assert path.exists(), "the file belongs to systemd"
    other.close()


SCRIPT = """
import os, socket, sys
from devboxd.net.unix import inherited_sockets
os.environ["LISTEN_PID"] = str(os.getpid())
found = inherited_sockets(os.environ)
print({name: [(one.fileno(), one.get_inheritable()) for one in sockets] for name, sockets in found.items()})
print([name for name in os.environ if name.startswith("LISTEN_")])
"""


def test_sockets_are_inherited_as_systemd_passes_them() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, open(os.devnull) as no_socket:

        def arrange() -> None:
            os.dup2(one.fileno(), 20)
            os.dup2(no_socket.fileno(), 21)
            os.dup2(20, 3)
            os.dup2(21, 4)
            os.dup2(20, 5)

        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "LISTEN_FDS": "3", "LISTEN_FDNAMES": "devboxd.socket:stored:forward-7"},
            preexec_fn=arrange,
            close_fds=False,
            capture_output=True,
            text=True,
            check=True,
        )
    first, second = done.stdout.splitlines()
    assert first == "{'devboxd.socket': [(3, False)], 'forward-7': [(5, False)]}"
    assert second == "[]"


@pytest.mark.parametrize(
    "environment",
    [{}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}, {"LISTEN_FDS": "x", "LISTEN_PID": str(os.getpid())}],
)
def test_descriptors_meant_for_another_process_are_left_alone(environment: dict[str, str]) -> None:
    assert inherited_sockets(environment) == {}
    assert not environment


def test_the_peer_is_known_by_its_user_id(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_user(ours) == os.geteuid()
        check_peer(ours)
        monkeypatch.setattr(unix, "peer_user", lambda connection: 4242)
        with pytest.raises(PeerDenied, match="4242"):
            check_peer(ours)
        monkeypatch.setattr(unix, "peer_user", lambda connection: None)
        with pytest.raises(PeerDenied):
            check_peer(ours)


def test_a_descriptor_can_be_passed(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("through")
    ours, theirs = socket.socketpair()
    with ours, theirs, open(tmp_path / "f") as file:
        send_fd(ours, file.fileno())
        data, descriptors, _, _ = socket.recv_fds(theirs, 16, 4)
    assert data == b"\0"
    with os.fdopen(descriptors[0]) as received:
        assert received.read() == "through"
