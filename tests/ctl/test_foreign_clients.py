"""ssh clients that nobody here wrote read the generated configuration, as their users have them do."""

from __future__ import annotations

import getpass
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from devboxd.host.ssh_config import SshEntry, render, write_known_hosts
from tests.ctl.fake_daemon import FakeDaemon, Peer
from tests.ctl.test_openssh import splice, sshd

__all__ = ["sshd"]

USER = getpass.getuser()
LINE = "cat; exit 7"
DATA = os.urandom(300_000)


@pytest.fixture
def config(daemon: FakeDaemon, home: Path, sshd: list[str]) -> Path:
    """What config-ssh would write, and a daemon that leads to a real sshd."""

    def serve(peer: Peer, _: FakeDaemon) -> None:
        far, near = socket.socketpair()
        with (
            far,
            near,
            subprocess.Popen(sshd, stdin=far.fileno(), stdout=far.fileno(), stderr=subprocess.DEVNULL),
        ):
            far.close()
            peer.upgrade()
            splice(peer.connection, near)

    daemon.streams["proxy"] = serve
    program = home / "devboxctl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m devboxctl "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    pin(home, (home / "host.pub").read_text())
    file = home / "ssh_config"
    entries = [SshEntry("gpu", USER)]
    file.write_text(render(program, entries, identity=home / "user", known_hosts=home / "known_hosts"))
    return file


def pin(home: Path, key: str) -> None:
    write_known_hosts(home / "known_hosts", {"gpu": {22: [" ".join(key.split()[:2])]}})


def other_key(home: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{home}/other"], check=True)
    return (home / "other.pub").read_text()


# As the manual of each shows it. Programs of their own: the libraries leave processes behind them.
PARAMIKO = """
import paramiko, sys
found = paramiko.SSHConfig.from_path(sys.argv[1]).lookup("gpu.devbox")
with paramiko.SSHClient() as client:
    client.load_host_keys(found["userknownhostsfile"])
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    client.connect(
        "gpu.devbox", username=found["user"], key_filename=found["identityfile"],
        compress=found["compression"] == "yes", sock=paramiko.ProxyCommand(found["proxycommand"]),
        allow_agent=False, look_for_keys=False,
    )
    stdin, stdout, _ = client.exec_command(sys.argv[2], timeout=30)
    stdin.write(sys.stdin.buffer.read())
    stdin.channel.shutdown_write()
    sys.stdout.buffer.write(stdout.read())
    sys.exit(stdout.channel.recv_exit_status())
"""
ASYNCSSH = """
import asyncio, asyncssh, sys
async def main():
    async with asyncssh.connect("gpu.devbox", config=[sys.argv[1]]) as connection:
        return await connection.run(sys.argv[2], input=sys.stdin.buffer.read(), encoding=None)
done = asyncio.run(main())
sys.stdout.buffer.write(done.stdout)
sys.exit(done.exit_status)
"""
CLIENTS = pytest.mark.parametrize(
    ("program", "refusal"),
    [(PARAMIKO, b"BadHostKeyException"), (ASYNCSSH, b"HostKeyNotVerifiable")],
    ids=["paramiko", "asyncssh"],
)


def run(program: str, file: Path) -> subprocess.CompletedProcess[bytes]:
    """Run ``LINE`` on the box, with everything else from the configuration."""
    line = [sys.executable, "-c", program, str(file), LINE]
    return subprocess.run(line, input=DATA, capture_output=True, timeout=60, check=False)


@CLIENTS
def test_a_foreign_client_gets_through(
    daemon: FakeDaemon, config: Path, program: str, refusal: bytes
) -> None:
    """It knows nothing of descriptors, and paramiko not even ``%n``."""
    done = run(program, config)
    assert (done.returncode, done.stdout) == (7, DATA), done.stderr.decode()
    request = daemon.requests[0][2]
    assert (request["box"], request["ssh_user"]) == ("gpu.devbox", USER)


@CLIENTS
def test_a_foreign_client_refuses_an_impostor(home: Path, config: Path, program: str, refusal: bytes) -> None:
    """The pinned keys hold for it, too."""
    pin(home, other_key(home))
    done = run(program, config)
    assert (done.returncode, done.stdout) == (1, b"")
    assert refusal in done.stderr
