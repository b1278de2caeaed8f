"""A real ssh through ``devboxctl proxy`` to a real sshd."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.ctl.fake_daemon import FakeDaemon, Peer

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def splice(one: socket.socket, other: socket.socket) -> None:
    """Copy both ways until both ends are closed."""

    def copy(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    back = threading.Thread(target=copy, args=(other, one))
    back.start()
    copy(one, other)
    back.join()


@pytest.fixture
def sshd(home: Path) -> list[str]:
    """A command line that serves one connection on its standard input; keys lie in ``home``."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("no OpenSSH here")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # its privilege separation folder
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{home}/{name}"], check=True)
    options = {
        "HostKey": f"{home}/host",
        "AuthorizedKeysFile": f"{home}/user.pub",
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "yes",
    }
    return [SSHD, "-i", "-e", "-f", "/dev/null", *(f"-o{key}={value}" for key, value in options.items())]


@pytest.mark.parametrize("fdpass", [True, False], ids=["fdpass", "pipe"])
def test_ssh_works_through_the_proxy(daemon: FakeDaemon, home: Path, sshd: list[str], fdpass: bool) -> None:
    def serve(peer: Peer, _: FakeDaemon) -> None:
        far, near = socket.socketpair()
        with (
            far,
            near,
            subprocess.Popen(sshd, stdin=far.fileno(), stdout=far.fileno(), stderr=subprocess.DEVNULL),
        ):
            far.close()
            peer.upgrade()
            if not peer.request.get("fd_pass"):
                splice(peer.connection, near)
                return
            ours, theirs = socket.socketpair()
            with ours:
                with theirs:
                    socket.send_fds(peer.connection, [b"\0"], [theirs.fileno()])
                splice(ours, near)

    daemon.streams["proxy"] = serve
    proxy = f"{sys.executable} -m devboxctl proxy {'--fdpass' if fdpass else ''} --ssh-user %r %h %p"
    line = ["ssh", "-F", "/dev/null", "-T", f"-oProxyCommand={proxy}", f"-i{home}/user", "-oBatchMode=yes"]
    line += [f"-oProxyUseFdpass={'yes' if fdpass else 'no'}", "-oStrictHostKeyChecking=no"]
    line += [f"-oUserKnownHostsFile={home}/known", f"{getpass.getuser()}@gpu.devbox", "cat; exit 7"]
    data = os.urandom(1 << 20)
    done = subprocess.run(line, input=data, capture_output=True, timeout=60, check=False)
    assert done.returncode == 7, done.stderr
    assert done.stdout == data
    assert daemon.requests[0][2]["box"] == "gpu.devbox"
    assert daemon.requests[0][2]["ssh_user"] == getpass.getuser()
