"""README and pages do what they say: their commands run, against a simulator, with the real daemon and CLI.

A block that follows ``<!-- run -->`` is run as one script. ``expects TEXT`` asks for that text
in its output; ``on a terminal`` gives it one, with a person who types ``exit 0``. The port 8080 is replaced by
a free one. Everything else in the block is run as it stands there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from devboxd.simulator.demo import private_environment
from tests.ctl.terminal import SHELL, Tty

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/troubleshooting.md")
PATIENCE = 60.0  # seconds for one block
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"

# Boxes with an sshd: port 22 of the box "api" is a port of this machine.
FAR_END = """
import asyncio, json, signal, sys
from pathlib import Path
from devboxd.simulator.options import FAST
from devboxd.simulator.world import Simulator

async def main(root, sshd):
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Simulator(Path(root), options=FAST) as sim:
        sim.map_port("api", 22, int(sshd))
        disk = str(sim.box("api").disk)
        print(json.dumps({"environment": sim.environment(), "disk": disk, "shims": f"{root}/bin"}), flush=True)
        await stop.wait()

asyncio.run(main(*sys.argv[1:]))
"""


@dataclass(frozen=True)
class Block:
    """A block of commands that a test runs."""

    page: str
    text: str
    on_terminal: bool
    expects: str
    line: int

    def __str__(self) -> str:
        return f"{self.page} line {self.line}"


def blocks() -> list[Block]:
    """All blocks that are marked."""
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text("utf-8")
        for match in re.finditer(r"<!-- run(?P<how>.*?) -->\n```sh\n(?P<text>.*?)```\n", text, re.DOTALL):
            how = match["how"].strip()
            expects = how.partition("expects ")[2]
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page, match["text"], how.startswith("on a terminal"), expects, line))
    return found


def port() -> int:
    """A loopback port that nothing listens on."""
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class World:
    """A home of its own, with a simulated AWS behind it. The first command starts the daemon."""

    folder: Path
    env: dict[str, str]
    forwarded: int
    has_ssh: bool

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script as a person's shell would; stop at the first failure."""
        return subprocess.run(
            ["bash", "-euc", script],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    folder = Path(tempfile.mkdtemp(prefix="dbr-", dir="/tmp"))  # short: unix sockets live below
    running: list[subprocess.Popen[str]] = []
    env = private_environment(folder, os.environ)
    env["PATH"] = f"{folder}/bin:{Path(sys.executable).parent}:{PATH}"
    env["DEVBOX_MUX"] = "none"  # zellij or tmux may be missing here
    try:
        ssh_port = port()
        far = subprocess.Popen(
            [sys.executable, "-c", FAR_END, str(folder / "sim"), str(ssh_port)],
            stdout=subprocess.PIPE, env=env, text=True, cwd=folder,
        )  # fmt: skip
        running.append(far)
        assert far.stdout is not None
        up = json.loads(far.stdout.readline())
        env |= up["environment"]
        has_ssh = _sshd(folder, Path(up["disk"]), Path(up["shims"]), ssh_port, running)
        yield World(folder, env, port(), has_ssh)
    finally:
        subprocess.run(
            [sys.executable, "-m", "devboxctl", "daemon", "stop"], env=env, cwd=folder, capture_output=True,
            timeout=PATIENCE, check=False,
        )  # fmt: skip
        for process in reversed(running):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)


def _sshd(folder: Path, disk: Path, shims: Path, number: int, running: list[subprocess.Popen[str]]) -> bool:
    """An sshd for the box, and an ssh that reads the private home's configuration. False where it cannot be."""
    sshd, ssh, scan = (shutil.which(name, path=PATH) for name in ("sshd", "ssh", "ssh-keyscan"))
    if sshd is None or ssh is None or scan is None:
        return False
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # its privilege separation folder
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host"], check=True)
    options = {
        "HostKey": folder / "host",
        "AuthorizedKeysFile": disk / ".ssh" / "authorized_keys",
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "yes",
        "ListenAddress": f"127.0.0.1:{number}",
        "PidFile": "none",
    }
    running.append(
        subprocess.Popen(
            [sshd, "-D", "-e", "-f", "/dev/null", *(f"-o{key}={value}" for key, value in options.items())],
            stderr=subprocess.DEVNULL,
            text=True,
        )
    )
    (folder / "bin").mkdir()
    # OpenSSH takes the home folder from the password file, not from HOME.
    _program(folder / "bin" / "ssh", f'exec {ssh} -F "$HOME/.ssh/config" "$@"')
    # A simulated box shares this machine's ports, but not its sshd.
    _program(shims / "ssh-keyscan", f"exec {scan} -T 3 -p {number} 127.0.0.1")
    return True


def _program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n", "utf-8")
    path.chmod(0o755)


def test_the_pages_have_blocks_to_run() -> None:
    marked = sum((ROOT / page).read_text("utf-8").count("<!-- run") for page in PAGES)
    assert len(blocks()) == marked >= 8


@pytest.mark.parametrize("block", [one for one in blocks() if not one.on_terminal], ids=str)
def test_a_block_runs(world: World, block: Block) -> None:
    if "curl" in block.text and shutil.which("curl") is None:
        pytest.skip("no curl here")
    if "ssh" in block.text and not world.has_ssh:
        pytest.skip("no OpenSSH client and server here")
    done = world.run(block.text.replace("8080", str(world.forwarded)))
    assert done.returncode == 0, done.stdout
    assert block.expects in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize("block", [one for one in blocks() if one.on_terminal], ids=str)
def test_a_block_runs_on_a_terminal(world: World, block: Block) -> None:
    with Tty(["bash", "-euc", block.text], world.env, run=SHELL) as tty:
        deadline = time.monotonic() + PATIENCE
        while b"up-and-running" not in tty.screen:
            tty.type(b"echo up-and-'running'\r")  # a shell that is starting up may drop keys
            tty.read(1.0)
            assert time.monotonic() < deadline, tty.screen
        tty.type(b"exit 0\r")  # plain "exit" gives the status of a line that was cut
        while tty.program.poll() is None:
            try:
                tty.read(0.2)
            except OSError:
                break
            assert time.monotonic() < deadline, tty.screen
        assert tty.program.wait(PATIENCE) == 0
