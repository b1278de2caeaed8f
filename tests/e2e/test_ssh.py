"""Real OpenSSH, client and server, through the proxy: one sshd on loopback plays every box's."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit import CTL, Completed, World, free_port, need, until


class Sshd:
    """A real sshd, as the invoking user, for the disk of one box."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.port = free_port()
        self._keys = world.folder / "sshd"
        self._keys.mkdir(mode=0o700, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, key: str = "host") -> None:
        """Serve with a host key of this name, made when it is new."""
        file = self._keys / key
        if not file.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # its privilege separation folder
        disk = self.world.disk()
        options = {
            "ListenAddress": f"127.0.0.1:{self.port}",
            "HostKey": str(file),
            "AuthorizedKeysFile": f"{disk}/.ssh/authorized_keys",
            "StrictModes": "no",
            "UsePAM": "no",
            "PermitRootLogin": "yes",
            "PasswordAuthentication": "no",
            "PidFile": "none",
            "Subsystem": "sftp internal-sftp",
            "SetEnv": f"HOME={disk}",
        }
        program = shutil.which("sshd", path="/usr/sbin:/sbin:" + os.environ.get("PATH", ""))
        line = [str(program), "-D", "-e", "-f", "/dev/null"]
        line += [f"-o{name}={value}" for name, value in options.items()]
        with (self._keys / "log").open("ab") as log:
            self._process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stderr=log)

        def listens() -> bool:
            with socket.socket() as one:
                return one.connect_ex(("127.0.0.1", self.port)) == 0

        until(listens, "sshd listens")

    def stop(self) -> None:
        """End it, and whoever is logged in."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait()
            self._process = None


@pytest.fixture(scope="module")
def sshd(shared_world: World) -> Iterator[Sshd]:
    """A running sshd, and ``config-ssh`` done."""
    need("sshd", "ssh", "ssh-keygen", "ssh-keyscan")
    shared_world.ensure_daemon()
    one = Sshd(shared_world)
    one.start()
    shared_world.ok("config-ssh")
    yield one
    one.stop()
    shared_world.ok("config-ssh", "--remove")


@pytest.fixture
def ssh(world: World, sshd: Sshd) -> Any:
    """Run an OpenSSH program with the user's configuration of the private home."""
    # ssh takes the home from the user database, not from HOME: the file must be named.
    config = str(world.folder / "home" / ".ssh" / "config")

    def run(program: str, *words: str, stdin: bytes = b"", **more: Any) -> Completed:
        port = {"ssh": "-p", "scp": "-P", "sftp": "-P"}[program]
        return subprocess.run(
            [program, "-F", config, "-oBatchMode=yes", port, str(sshd.port), *words],
            input=stdin, capture_output=True, timeout=60, check=False, env=world.env, cwd=world.folder, **more,
        )  # fmt: skip

    return run


def test_ssh_just_works_with_its_exit_status_and_clean_streams(world: World, ssh: Any) -> None:
    """No key pair, no question about host keys: both were settled over the session."""
    data = os.urandom(1 << 20)
    done = ssh("ssh", "api.devbox", "cat; echo err >&2; exit 7", stdin=data)
    assert done.returncode == 7, done.stderr
    assert done.stdout == data
    assert done.stderr == b"err\n"


@pytest.mark.parametrize(
    "host", ["ap.devbox", "API.devbox", "web-prod.devbox", "web/prod.devbox", "bu.devbox"]
)
def test_ssh_reaches_a_box_by_every_host_name_that_leads_to_it(world: World, ssh: Any, host: str) -> None:
    """The beginning of a name, or the host name of one that ssh cannot take: resolved, and its key pinned."""
    config = world.folder / "config" / "devbox" / "config.d" / "names.toml"
    id_ = world.boxes["api"]["id"]
    config.write_text(f'[boxes."web/prod"]\ntarget = "{id_}"\n[boxes."büro"]\ntarget = "{id_}"\n', "utf-8")
    try:
        until(lambda: b"buro.devbox" in world.run("ls").stdout, "the configuration is read")
        done = ssh("ssh", host, "echo there")
        assert (done.returncode, done.stdout) == (0, b"there\n"), done.stderr
    finally:
        config.unlink()


def test_the_data_path_holds_no_python_process(world: World, ssh: Any, sshd: Sshd) -> None:
    """The descriptor was passed: ssh talks to the daemon by itself."""
    config = str(world.folder / "home" / ".ssh" / "config")
    line = ["ssh", "-F", config, "-p", str(sshd.port), "api.devbox", "echo up; cat"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=world.env) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"up\n"
        found = [
            command
            for file in Path("/proc").glob("[0-9]*/cmdline")
            if b"devboxctl" in (command := _read(file))
            and str(world.folder).encode() in _read(file.parent / "environ")
        ]
        assert found == []
        process.stdin.close()
        assert process.wait(20) == 0


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def test_a_plain_proxy_command_works_as_well(world: World, sshd: Sshd) -> None:
    """For clients that know no ProxyUseFdpass."""
    state = world.folder / "state" / "devbox"
    done = subprocess.run(
        ["ssh", "-F", "/dev/null", f"-oProxyCommand={CTL} proxy --ssh-user %r %h %p", "-oBatchMode=yes",
         f"-oUserKnownHostsFile={state}/known_hosts", "-oStrictHostKeyChecking=yes", f"-i{state}/id_ed25519",
         "-p", str(sshd.port), f"{getpass.getuser()}@api.devbox", "cat; exit 5"],
        input=b"x" * 300_000, capture_output=True, timeout=60, check=False, env=world.env,
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert done.stdout == b"x" * 300_000


def test_a_link_that_is_cut_does_not_end_ssh(world: World, ssh: Any, sshd: Sshd) -> None:
    config = str(world.folder / "home" / ".ssh" / "config")
    line = ["ssh", "-F", config, "-p", str(sshd.port), "api.devbox", "cat"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=world.env) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        for fault in ("rst", "close", "fin"):
            process.stdin.write(f"before {fault}\n".encode())
            process.stdin.flush()
            assert process.stdout.readline() == f"before {fault}\n".encode()
            world.fault(fault)
        process.stdin.write(b"after\n")
        process.stdin.close()
        assert process.stdout.read() == b"after\n"
        assert process.wait(20) == 0


def test_a_restart_of_the_daemon_does_not_end_ssh(world: World, ssh: Any, sshd: Sshd) -> None:
    """ssh holds the other end of a socket pair; ours goes to the next daemon."""
    config = str(world.folder / "home" / ".ssh" / "config")
    line = ["ssh", "-F", config, "-p", str(sshd.port), "api.devbox", "cat; exit 9"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=world.env) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        for turn in (b"first\n", b"second\n"):
            process.stdin.write(turn)
            process.stdin.flush()
            assert process.stdout.readline() == turn
            assert b"1 connection or command went on" in world.run("daemon", "restart").stderr
        process.stdin.write(b"after\n")
        process.stdin.close()
        assert process.stdout.read() == b"after\n"
        assert process.wait(20) == 9


def test_scp_and_sftp_copy_both_ways(world: World, ssh: Any) -> None:
    data = os.urandom(2 << 20)
    (world.folder / "out.bin").write_bytes(data)
    there = world.disk() / "work" / "scp.bin"
    done = ssh("scp", "-q", "out.bin", f"api.devbox:{there}")
    assert done.returncode == 0, done.stderr
    assert there.read_bytes() == data
    done = ssh("scp", "-q", f"api.devbox:{there}", "back.bin")
    assert done.returncode == 0, done.stderr
    assert (world.folder / "back.bin").read_bytes() == data
    done = ssh("sftp", "-q", "-b", "-", "api.devbox", stdin=f"get {there} sftp.bin\nrm {there}\n".encode())
    assert done.returncode == 0, done.stderr
    assert (world.folder / "sftp.bin").read_bytes() == data
    assert not there.exists()


def test_rsync_copies_a_tree(world: World, sshd: Sshd) -> None:
    need("rsync")
    tree = world.folder / "tree"
    (tree / "sub").mkdir(parents=True, exist_ok=True)
    for number in range(20):
        (tree / "sub" / f"{number}").write_bytes(os.urandom(5000))
    config = world.folder / "home" / ".ssh" / "config"
    line = ["rsync", "-a", "-e", f"ssh -F {config} -p {sshd.port}"]
    target = world.disk() / "work" / "tree"
    subprocess.run([*line, f"{tree}/", f"api.devbox:{target}/"], check=True, env=world.env, timeout=60)
    assert sorted(file.read_bytes() for file in target.rglob("*") if file.is_file()) == sorted(
        file.read_bytes() for file in tree.rglob("*") if file.is_file()
    )


def test_git_pushes_and_clones(world: World, sshd: Sshd) -> None:
    need("git")
    config = world.folder / "home" / ".ssh" / "config"
    env = world.env | {
        "GIT_SSH_COMMAND": f"ssh -F {config} -p {sshd.port}",
        "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t",
    }  # fmt: skip

    def git(*words: str, cwd: Path = world.folder) -> None:
        subprocess.run(["git", *words], check=True, env=env, cwd=cwd, timeout=60, capture_output=True)

    bare, local = world.disk() / "work" / "repo.git", world.folder / "repo"
    git("init", "-q", "--bare", "-b", "main", str(bare))
    git("init", "-q", "-b", "main", str(local))
    (local / "file").write_text("hello\n")
    git("add", "file", cwd=local)
    git("commit", "-q", "-m", "one", cwd=local)
    git("push", "-q", f"api.devbox:{bare}", "main", cwd=local)
    git("clone", "-q", f"api.devbox:{bare}", str(world.folder / "clone"))
    assert (world.folder / "clone" / "file").read_text() == "hello\n"


@pytest.mark.parametrize("way", ["exec", "exec of a user", "ssh"])
def test_rsync_goes_through_devboxctl_itself(world: World, sshd: Sshd, way: str) -> None:
    """No configuration of ssh, and with exec not even an sshd on the box."""
    need("rsync")
    tree = world.folder / "own-tree"
    (tree / "sub dir").mkdir(parents=True, exist_ok=True)
    for number in range(5):
        (tree / "sub dir" / f"it's {number}").write_bytes(os.urandom(200_000))
    target = world.disk() / "work" / f"rsync {way}"
    command = f"{CTL} ssh --port {sshd.port}" if way == "ssh" else f"{CTL} exec"
    host = f"{getpass.getuser()}@api" if way == "exec of a user" else "api"
    for _ in range(2):  # the second time there is nothing to do
        subprocess.run(
            ["rsync", "-a", "-s", "--delete", "-e", command, f"{tree}/", f"{host}:{target}/"],
            check=True, env=world.env, timeout=60,
        )  # fmt: skip
    back = world.folder / f"back {way}"
    subprocess.run(
        ["rsync", "-a", "-s", "-e", command, f"{host}:{target}/", f"{back}/"],
        check=True,
        env=world.env,
        timeout=60,
    )
    for folder in (target, back):
        found = {file.name: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        assert found == {file.name: file.read_bytes() for file in tree.rglob("*") if file.is_file()}


def test_git_goes_through_devboxctl_itself(world: World, sshd: Sshd) -> None:
    """git asks with -G whether this is OpenSSH, and then writes -o, -p and user@host."""
    need("git")
    env = world.env | {
        "GIT_SSH_COMMAND": f"{CTL} ssh --port {sshd.port}",
        "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null",
    }  # fmt: skip
    bare = world.disk() / "work" / "own.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(bare)], check=True, env=env)
    for number, host in enumerate(("api:", f"{getpass.getuser()}@api:")):
        line = [
            "git",
            "-c",
            "protocol.version=2",
            "clone",
            "-q",
            f"{host}{bare}",
            str(world.folder / f"own-{number}"),
        ]
        done = subprocess.run(line, env=env, timeout=60, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    url = f"ssh://{getpass.getuser()}@api:{sshd.port}{bare}"
    env["GIT_SSH_COMMAND"] = f"{CTL} ssh"
    done = subprocess.run(
        ["git", "ls-remote", url], env=env, timeout=60, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_devboxctl_ssh_takes_the_line_of_ssh(world: World, sshd: Sshd) -> None:
    port = str(sshd.port)
    for words, expected in (
        (["-p", port, "api", "echo", "-n", "x"], b"x"),
        (["-T", "-p", port, "-o", "LogLevel=ERROR", "api", "printf %s y"], b"y"),
        (["api", "-p", port, "--", "echo", "z"], b"z\n"),
        ([f"{getpass.getuser()}@api", f"-p{port}", "echo", "$((1+1))"], b"2\n"),
    ):
        done = world.run("ssh", *words)
        assert (done.returncode, done.stdout) == (0, expected), done.stderr


def test_devboxctl_ssh_needs_no_set_up_at_all(world: World, sshd: Sshd) -> None:
    done = world.run("ssh", "api", "--port", str(sshd.port), "--", "sh -c 'echo here; exit 3'")
    assert (done.returncode, done.stdout) == (3, b"here\n"), done.stderr


def test_a_changed_host_key_is_refused(world: World, ssh: Any, sshd: Sshd) -> None:
    """What was learned over the authenticated session is what counts; nothing is trusted blindly."""
    assert ssh("ssh", "api.devbox", "true").returncode == 0
    sshd.stop()
    sshd.start("impostor")
    try:
        done = ssh("ssh", "api.devbox", "true")
        assert done.returncode == 255
        assert b"host key" in done.stderr.lower()
    finally:
        sshd.stop()
        sshd.start()
    assert ssh("ssh", "api.devbox", "true").returncode == 0


def test_a_renewed_host_key_is_asked_of_the_box_itself(world: World, ssh: Any, sshd: Sshd) -> None:
    """A rebuilt sshd: no restart of anything, and no question to a user who could not know the answer."""
    assert ssh("ssh", "api.devbox", "true").returncode == 0
    sshd.stop()
    sshd.start("renewed")
    try:
        done = world.run("ssh", "-p", str(sshd.port), "api", "echo", "mended")
        assert (done.returncode, done.stdout) == (0, b"mended\n"), done.stderr
        assert b"other host keys than before" in done.stderr
        sshd.stop()
        sshd.start("host")
        assert ssh("ssh", "api.devbox", "true").returncode == 255, "pinned is the other one"
        done = ssh("ssh", "api.devbox", "echo mended")
        assert (done.returncode, done.stdout) == (0, b"mended\n"), done.stderr
        assert b"other host keys than before" in done.stderr
    finally:
        sshd.stop()
        sshd.start()


def test_an_emptied_authorized_keys_is_filled_again(world: World, ssh: Any, sshd: Sshd) -> None:
    """Somebody else's tool owns that file: the next ``devboxctl ssh`` works, and plain ssh the second time."""
    keys = world.disk() / ".ssh" / "authorized_keys"
    assert ssh("ssh", "api.devbox", "true").returncode == 0
    keys.write_text("")
    assert world.run("ssh", "-p", str(sshd.port), "api", "true").returncode == 0
    keys.write_text("")
    tries = [ssh("ssh", "api.devbox", "true").returncode for _ in range(2)]
    assert tries[1] == 0


def test_a_box_without_sshd_is_called_so(world: World, sshd: Sshd) -> None:
    """ssh itself would speak of its banner, or of a connection closed by UNKNOWN."""
    config = str(world.folder / "home" / ".ssh" / "config")
    line = ["ssh", "-F", config, "-oBatchMode=yes", "-p", str(free_port()), "api.devbox", "true"]
    done = subprocess.run(line, capture_output=True, timeout=60, check=False, env=world.env)
    assert done.returncode == 255
    assert b"ssh needs sshd there" in done.stderr
    assert b"hint: " in done.stderr


def test_config_ssh_keeps_the_users_file_and_takes_only_its_own_line_out(world: World, sshd: Sshd) -> None:
    config = world.folder / "home" / ".ssh" / "config"
    world.ok("config-ssh", "--remove")
    theirs = "# mine\nHost other\n    User me\n"
    config.write_text(theirs)
    assert world.run("config-ssh", "--check").returncode == 1
    assert config.read_text() == theirs
    world.ok("config-ssh")
    assert config.read_text().endswith(theirs)
    assert config.read_text().startswith("Include ")
    assert world.run("config-ssh", "--check").returncode == 0
    world.ok("config-ssh", "--remove")
    assert config.read_text() == theirs
    world.ok("config-ssh")


def test_proxy_to_a_port_where_nothing_listens_says_so_on_standard_error(world: World) -> None:
    port = free_port()
    done = world.run("proxy", "api", str(port), stdin=b"")
    assert done.stdout == b""
    assert done.returncode == 255
    assert f"nothing listens on port {port} of api" in done.stderr.decode()


def test_proxy_without_a_bridge_says_that_nothing_may_listen_there(bare_world: World) -> None:
    """The agent tells of a refusal only by an end."""
    port = free_port()
    done = bare_world.run("proxy", "api", str(port), stdin=b"PING")
    assert done.stdout == b""
    assert f"port {port} of api closed at once, without a byte" in done.stderr.decode()


def test_proxy_carries_any_bytes_and_ends_with_its_input(world: World) -> None:
    data = os.urandom(1 << 20)
    with world.start("proxy", "api", "7", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def write(pipe: Any = process.stdin) -> None:
            pipe.write(data)
            pipe.flush()  # or the last bytes may wait in its buffer for ever

        writer = threading.Thread(target=write)
        writer.start()
        got = b""
        while len(got) < len(data):
            got += os.read(process.stdout.fileno(), 1 << 16)
        writer.join()
        assert got == data
        process.kill()


def hold_ssh(world: World, sshd: Sshd, seconds: float, every: float) -> int:
    """One session of OpenSSH while all sessions under it are ended again and again; returns how often they were."""
    config = str(world.folder / "home" / ".ssh" / "config")
    line = ["ssh", "-F", config, "-p", str(sshd.port), "api.devbox", "cat"]
    ended, until_, is_early = 0, time.monotonic() + seconds, False
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=world.env) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while time.monotonic() < until_:
            data = os.urandom(30_000)
            process.stdin.write(data)
            process.stdin.flush()
            if is_early := not is_early:  # bytes are on their way, or none are
                ended += world.fault("terminate") > 0
            assert process.stdout.read(len(data)) == data
            if not is_early:
                ended += world.fault("terminate") > 0
            time.sleep(every)
        process.stdin.close()
        assert process.wait(30) == 0
    return ended


def test_an_ssh_session_outlives_the_sessions_under_it(world: World, ssh: Any, sshd: Sshd) -> None:
    assert ssh("ssh", "api.devbox", "true").returncode == 0
    assert hold_ssh(world, sshd, 6.0, 1.0) >= 3


@pytest.mark.soak
@pytest.mark.timeout(2400)
def test_an_ssh_session_of_half_an_hour(world: World, ssh: Any, sshd: Sshd) -> None:
    """All sessions are ended every twenty seconds."""
    assert ssh("ssh", "api.devbox", "true").returncode == 0
    assert hold_ssh(world, sshd, 1800.0, 20.0) >= 60


class Crowded:
    """In front of an sshd: turns away as many connections as it is told, as an sshd does that has too many."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._behind = port
        self.port = int(self._listener.getsockname()[1])
        self.turns_away = 0
        self.came = 0
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.came += 1
            if self.turns_away:
                self.turns_away -= 1
                with near:
                    near.sendall(b"Exceeded MaxStartups\r\n")
                continue
            thread = threading.Thread(target=self._carry, args=(near,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _carry(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self._behind)) as far:
            up = threading.Thread(target=self._copy, args=(near, far), daemon=True)
            up.start()
            self._copy(far, near)
            up.join()

    def _copy(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Take no more, and wait until those that are there have ended."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(30)


def test_an_sshd_with_too_many_others_is_waited_for(world: World, sshd: Sshd) -> None:
    """Many at once (ansible, editors) and some are turned away. A look for keys is not one more of them."""
    crowded = Crowded(sshd.port)
    try:
        config = str(world.folder / "home" / ".ssh" / "config")
        line = ["ssh", "-F", config, "-oBatchMode=yes", "-p", str(crowded.port), "api.devbox", "echo in"]
        for turned_away in (0, 2):
            came, crowded.turns_away = crowded.came, turned_away
            done = subprocess.run(line, capture_output=True, timeout=60, check=False, env=world.env)
            assert (done.returncode, done.stdout, done.stderr) == (0, b"in\n", b"")
        assert crowded.came - came == 3, "the host keys were known"
    finally:
        crowded.close()
