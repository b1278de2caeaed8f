"""How long commands take that somebody waits for, next to what Python itself takes.

Installed as users install it, not editable: the finder of an editable installation costs more than some
of these commands.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from tests.bench.kit import ROOT, Peer, Settled, in_turns, show
from tests.bench.peers import GREETING
from tests.ctl.terminal import SHELL, Tty

pytestmark = pytest.mark.bench

ROUNDS: Final = 15
CLIENT: Final = """
import _socket, sys
s = _socket.socket(1, 1)
s.connect(sys.argv[1])
s.send(b"GET /v1/boxes HTTP/1.1\\r\\nHost: devboxd\\r\\nConnection: close\\r\\n\\r\\n")
while s.recv(65536):
    pass
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command line, installed without its dependencies into an environment that finds them here."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("startup")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    paths = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    packages = Path(paths.stdout.strip())
    # A path file's own path files are not read: the editable installation stays out.
    (packages / "shared.pth").write_text(f"{Path(aiohttp.__file__).parents[1]}\n")
    source = folder / "source"  # building leaves files beside the source
    for name in ("devboxd", "devboxctl"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [
            sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps",
            "--no-build-isolation", "--no-index", str(source),
        ],
        check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )  # fmt: skip
    shutil.rmtree(source)
    return python.with_name("devboxctl")


def took(argv: list[str], env: dict[str, str]) -> float:
    """Seconds that a command takes from start to end."""
    began = time.perf_counter()
    done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    seconds = time.perf_counter() - began
    assert done.returncode == 0, done.stderr
    return seconds


def first_byte(argv: list[str], env: dict[str, str]) -> float:
    """Seconds until the greeting comes out of a pipe."""
    began = time.perf_counter()
    with subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdin is not None
        assert program.stdout.read(1) == GREETING[:1]
        seconds = time.perf_counter() - began
        program.stdin.close()
        program.terminate()
    return seconds


def first_byte_handed_over(argv: list[str], env: dict[str, str]) -> float:
    """The same where the connection itself is handed over, as to ssh."""
    ours, theirs = socket.socketpair()
    began = time.perf_counter()
    with ours, subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=theirs.fileno()) as program:
        theirs.close()
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        with socket.socket(fileno=descriptors[0]) as connection:
            connection.setblocking(True)
            assert connection.recv(1) == GREETING[:1]
            seconds = time.perf_counter() - began
        assert program.wait(10) == 0
    return seconds


def first_output(argv: list[str], env: dict[str, str]) -> float:
    """Seconds until something of the box is on the screen."""
    began = time.perf_counter()
    with Tty(argv, env, run=SHELL) as tty:
        seen = b""
        while b"ready" not in seen:
            assert select.select([tty.master], [], [], 20)[0], seen
            seen += os.read(tty.master, 4096)
        seconds = time.perf_counter() - began
        tty.program.terminate()
        tty.program.wait()
    return seconds


def interpreter() -> str:
    """The Python below all virtual environments."""
    return os.path.realpath(sys.executable)


@pytest.fixture
def world() -> Iterator[Settled]:
    """One with the far end's start-up waits, but for the second before the first output of a shell."""
    with Settled() as one:
        yield one


def test_commands_that_are_waited_for(installed: Path, world: Settled) -> None:
    env = world.env
    ctl = str(installed)
    venv_python = str(installed.with_name("python"))
    with Peer("target") as target:
        port = str(target.ports[1])
        attach: list[Any] = [ctl, "attach", "api", "--mux", "none", "--command", "printf ready; sleep 9"]
        first_byte([ctl, "proxy", "api", port], env)  # the session is warm from now on
        seconds = in_turns(
            ROUNDS,
            {
                "python -c pass": lambda: took([venv_python, "-c", "pass"], env),
                "python -IS, asks the daemon for boxes": lambda: took(
                    [interpreter(), "-IS", "-c", CLIENT, str(world.socket)], env
                ),
                "devboxctl ls --json": lambda: took([ctl, "ls", "--json"], env),
                "devboxctl proxy, first byte": lambda: first_byte([ctl, "proxy", "api", port], env),
                "devboxctl proxy --fdpass, first byte": lambda: first_byte_handed_over(
                    [ctl, "proxy", "api", port, "--fdpass"], env
                ),
                "devboxctl attach, first output": lambda: first_output(attach, env),
            },
        )
    base = seconds["python -c pass"]
    show(
        f"from start to the named end (median of {ROUNDS}; bound for proxy: 100 ms)",
        ["", "takes", "ratio to python", "more"],
        [
            [name, f"{value * 1e3:.0f} ms", f"{value / base:.1f}", f"+{(value - base) * 1e3:.0f} ms"]
            for name, value in seconds.items()
        ],
    )
