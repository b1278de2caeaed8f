"""The systemd units: verified by systemd, activated as systemd does it, and (heavy) by a real user manager."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from devboxctl.commands.service import unit
from tests.e2e.kit import CTL, World, free_port, need, until
from tests.e2e.test_handover import SIZE, Transfer, mirror
from tests.kit.processes import is_alive

UNITS = ("devboxd.socket", "devboxd.service")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units as ``devboxctl daemon install`` writes them."""
    for name in UNITS:
        (tmp_path / name).write_text(unit(name))
    return tmp_path


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    """systemd-analyze for a user."""
    need("systemd-analyze")
    with tempfile.TemporaryDirectory(prefix="dbs-", dir="/tmp") as runtime:
        env = {**os.environ, "XDG_RUNTIME_DIR": runtime}
        return subprocess.run(
            ["systemd-analyze", "--user", *words],
            capture_output=True,
            text=True,
            env=env,
            check=False,
            timeout=60,
        )


def test_systemd_finds_nothing_wrong_with_the_units(installed: Path) -> None:
    done = analyze("--man=no", "--recursive-errors=yes", "verify", *(str(installed / name) for name in UNITS))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_would_find_a_misspelt_setting(installed: Path) -> None:
    """So that the test above means something."""
    file = installed / "devboxd.service"
    file.write_text(file.read_text().replace("WatchdogSec=30", "WatchDogSec=30"))
    done = analyze("--man=no", "--recursive-errors=yes", "verify", *(str(installed / name) for name in UNITS))
    assert done.returncode != 0
    assert "WatchDogSec" in done.stderr


def test_the_units_in_the_repository_are_those_in_the_package() -> None:
    root = Path(__file__).parents[2]
    for name in UNITS:
        assert (root / "systemd" / name).read_text() == (root / "devboxd" / "data" / name).read_text()


class Manager:
    """What systemd is to a service: the socket, the notifications, the watchdog."""

    def __init__(self, world: World, *, watchdog: float) -> None:
        need("systemd-socket-activate")
        self.address = world.folder / f"notify{time.monotonic_ns()}.sock"
        self.received: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.address))
        self._socket.setblocking(False)
        world.socket.parent.mkdir(mode=0o700, exist_ok=True)
        line = ["systemd-socket-activate", "-l", str(world.socket), "--fdname=api"]
        passed = world.env | {"NOTIFY_SOCKET": str(self.address), "WATCHDOG_USEC": str(int(watchdog * 1e6))}
        line += [f"-E{name}" for name in passed]
        with (world.folder / "activated.log").open("wb") as log:
            self.process = subprocess.Popen(
                [*line, sys.executable, "-P", "-m", "devboxd"], env=passed, stdout=log, stderr=log, cwd="/",
                start_new_session=True,
            )  # fmt: skip
        until(world.socket.exists, "systemd listens")

    def read(self) -> list[str]:
        """All notifications so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.received += self._socket.recv(4096).decode().split("\n")
        return self.received

    def close(self) -> None:
        """End the service."""
        self.process.terminate()
        try:
            self.process.wait(20)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self._socket.close()


@pytest.fixture
def activated(world: World) -> Iterator[Manager]:
    """A daemon that is started by the first connection to its socket."""
    world.stop_daemon()
    manager = Manager(world, watchdog=1.0)
    yield manager
    manager.close()
    world.socket.unlink(missing_ok=True)


@pytest.mark.heavy
def test_the_first_request_starts_the_daemon_on_the_sockets_it_is_given(
    world: World, activated: Manager
) -> None:
    """LISTEN_FDS with the name of the unit; READY=1 once it serves; the watchdog is fed; the end is announced."""
    assert world.daemon_pid() is None
    status = world.json("status")
    assert status["activation"] == "systemd"
    assert status["pid"] == activated.process.pid
    until(lambda: "READY=1" in activated.read(), "the daemon says that it is ready")
    before = activated.read().count("WATCHDOG=1")
    until(lambda: activated.read().count("WATCHDOG=1") >= before + 2, "the watchdog is fed", 3.0)
    assert world.ok("exec", "api", "--", "echo", "hi") == "hi\n"
    activated.process.terminate()
    assert activated.process.wait(20) == 0
    assert "STOPPING=1" in activated.read()


@pytest.mark.heavy
def test_a_child_of_the_daemon_does_not_inherit_what_is_systemds(world: World, activated: Manager) -> None:
    """NOTIFY_SOCKET in a child would let it speak in our name."""
    world.ok("status")
    environ = Path(f"/proc/{activated.process.pid}/environ").read_bytes()
    assert b"NOTIFY_SOCKET" in environ  # as started; the process itself has dropped it
    assert "LISTEN_PID" not in world.ok("exec", "api", "--", "env")


# With a real systemd ------------------------------------------------------------------------------------


_INSIDE = """
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system "$XDG_RUNTIME_DIR"
chmod 700 "$XDG_RUNTIME_DIR"
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec "$0" --user
"""


class UserManager:
    """A real ``systemd --user`` in a mount namespace of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        program = next(
            (p for p in ("/lib/systemd/systemd", "/usr/lib/systemd/systemd") if Path(p).exists()), None
        )
        if program is None or os.geteuid() != 0 or shutil.which("unshare") is None:
            pytest.skip("needs root, unshare and systemd")
        # Below /run, which is private in there; the folder of the world stays shared.
        self.env = world.env | {"XDG_RUNTIME_DIR": f"/run/devbox-test-{os.getpid()}"}
        self._log = (world.folder / "systemd.log").open("wb")
        self.process = subprocess.Popen(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", _INSIDE, program],
            env=self.env, stdout=self._log, stderr=self._log, start_new_session=True,
        )  # fmt: skip

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in there."""
        line = ["nsenter", "-m", "-t", str(self.process.pid), *words]
        done = subprocess.run(
            line, env=self.env, capture_output=True, text=True, check=False, timeout=60, cwd="/"
        )
        assert not check or done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def show(self, unit_name: str, field: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "--user", "show", "-P", field, unit_name).stdout.strip()

    def close(self) -> None:
        """End it and all below."""
        self.run("systemctl", "--user", "stop", *UNITS, check=False)
        self.run("systemctl", "--user", "exit", check=False)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


@pytest.fixture
def manager(world: World) -> Iterator[UserManager]:
    """A running user manager."""
    need("nsenter")
    world.stop_daemon()
    one = UserManager(world)
    try:
        until(
            lambda: (
                one.run("systemctl", "--user", "is-system-running", check=False).stdout.strip()
                in ("running", "degraded")
            ),
            "systemd --user runs",
        )
    except AssertionError:
        text = (world.folder / "systemd.log").read_text(errors="replace")
        one.process.kill()
        one.process.wait()
        pytest.skip(f"no systemd --user can run here: {text[-500:]}")
    yield one
    one.close()


@pytest.mark.heavy
def test_install_activation_watchdog_and_restart_under_a_real_user_manager(
    world: World, manager: UserManager
) -> None:
    """``daemon install`` is all a user does; the first request starts the daemon; a hung one is replaced."""
    variables = [
        f"{name}={value}" for name, value in world.env.items() if name.startswith(("AWS_", "XDG_", "HOME"))
    ]
    variables = [one for one in variables if not one.startswith("XDG_RUNTIME_DIR")]
    manager.run("systemctl", "--user", "set-environment", *variables)
    done = manager.run(CTL, "daemon", "install")
    assert "installed: systemd starts devboxd on first use" in done.stderr
    assert manager.show("devboxd.socket", "ActiveState") == "active"
    assert manager.show("devboxd.service", "ActiveState") == "inactive"

    began = time.monotonic()
    status = manager.run(CTL, "--json", "status")
    print(f"\nfirst request answered after {time.monotonic() - began:.2f} s by a daemon that systemd started")
    assert '"activation": "systemd"' in status.stdout
    assert manager.show("devboxd.service", "ActiveState") == "active"
    assert manager.show("devboxd.service", "StatusText").startswith("serving ")
    assert manager.run(CTL, "exec", "api", "--", "echo", "hi").stdout == "hi\n"

    port = free_port()
    manager.run(CTL, "forward", "api", f"{port}:80")
    page = f"http://127.0.0.1:{port}/"
    fetch = f"import urllib.request as u; print(u.urlopen({page!r}, timeout=10).read().decode())"
    assert "hello from box api" in manager.run(sys.executable, "-c", fetch).stdout

    # A hung daemon: the watchdog would need 30 s, so it is shortened, as an administrator may do.
    folder = Path(world.env["XDG_CONFIG_HOME"]) / "systemd" / "user" / "devboxd.service.d"
    folder.mkdir(parents=True)
    (folder / "quick.conf").write_text("[Service]\nWatchdogSec=2\n")
    manager.run("systemctl", "--user", "daemon-reload")
    manager.run("systemctl", "--user", "restart", "devboxd.service")
    pid = int(manager.show("devboxd.service", "MainPID"))
    os.kill(pid, signal.SIGSTOP)
    until(lambda: not is_alive(pid), "the watchdog ends the hung daemon", 15.0)
    until(
        lambda: manager.show("devboxd.service", "ActiveState") == "active",
        "and systemd starts the next",
        15.0,
    )
    assert manager.show("devboxd.service", "NRestarts") == "1"
    assert "hello from box api" in manager.run(sys.executable, "-c", fetch).stdout

    manager.run(CTL, "daemon", "restart")
    assert "hello from box api" in manager.run(sys.executable, "-c", fetch).stdout

    done = manager.run(CTL, "daemon", "uninstall")
    assert manager.run("systemctl", "--user", "is-enabled", "devboxd.socket", check=False).returncode != 0
    assert not re.search(r"error", done.stderr, re.IGNORECASE)


def another(manager: UserManager, before: str) -> bool:
    """Whether another daemon runs than the one of this process id."""
    return manager.show("devboxd.service", "MainPID") not in ("0", before)


@pytest.mark.heavy
@pytest.mark.parametrize("words", [(CTL, "daemon", "restart"), ("systemctl", "--user", "restart", "devboxd")])
def test_a_real_user_manager_keeps_connections_over_a_restart(
    world: World, manager: UserManager, words: tuple[str, ...]
) -> None:
    """And a transfer through a forward goes on byte for byte."""
    variables = [
        f"{name}={value}" for name, value in world.env.items() if name.startswith(("AWS_", "XDG_", "HOME"))
    ]
    variables = [one for one in variables if not one.startswith("XDG_RUNTIME_DIR")]
    manager.run("systemctl", "--user", "set-environment", *variables)
    manager.run(CTL, "daemon", "install")
    local = free_port()
    with mirror() as port:
        manager.run(CTL, "forward", "api", f"{local}:{port}")
        with socket.create_connection(("127.0.0.1", local), 30) as connection:
            transfer = Transfer.over(connection, 31)
            for turn in (1, 2):
                until(lambda: transfer.got > 100_000, "it runs")
                before = manager.show("devboxd.service", "MainPID")
                manager.run(*words)
                until(partial(another, manager, before), "the next one runs")
                transfer.limit = SIZE * (1 + turn) // 3
            transfer.finish()
    assert manager.show("devboxd.service", "ActiveState") == "active"
    manager.run(CTL, "daemon", "uninstall")
