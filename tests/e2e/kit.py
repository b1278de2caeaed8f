"""The whole product in processes of its own: a simulator, the installed daemon, the installed CLI.

Everything lives in one private directory with a short name (unix sockets), with dummy credentials, and is
gone afterwards. ``World`` is synchronous on purpose: its tests do what a shell script would do.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import site
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import pyte

from devboxd.simulator.demo import private_environment
from tests.ctl.terminal import SHELL, Tty
from tests.kit.freezing import freeze
from tests.kit.processes import is_alive

PATIENCE = 20.0  # seconds; only a failing test waits that long
CTL = str(Path(sys.executable).with_name("devboxctl"))
BARE = {"DEVBOX_BRIDGE": "never"}  # a daemon that goes without bridges: each stream dies with its session
T = TypeVar("T")

Completed = subprocess.CompletedProcess[bytes]


def until(look: Callable[[], T | None], what: str, patience: float = PATIENCE, every: float = 0.02) -> T:
    """Wait until ``look`` returns something true, and return that."""
    deadline = time.monotonic() + patience
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"never happened: {what}")
        time.sleep(every)
    return found


class Terminal(Tty):
    """A program on a pseudo-terminal, and what a person would see there."""

    def __init__(self, argv: list[str], env: dict[str, str], *, size: tuple[int, int] = (100, 30)) -> None:
        super().__init__(argv, env, size=size, run=SHELL)
        self._screen = pyte.Screen(*size)
        self._stream = pyte.ByteStream(self._screen)
        self.seen = b""  # everything, as bytes

    def resize(self, columns: int, rows: int, *, tell: bool = True) -> None:
        """Resize the window."""
        super().resize(columns, rows, tell=tell)
        if tell:
            self._screen.resize(rows, columns)

    def read(self, timeout: float = 0.05) -> bytes:
        """Read, and draw."""
        try:
            data = super().read(timeout)
        except OSError:
            return b""
        self.screen = b""
        self.seen += data
        # pyte knows no private-marker CSI for keys and colours: it would print them.
        self._stream.feed(re.sub(rb"\x1b\[[<>=][0-9;:]*[a-zA-Z]|\x1b_[^\x1b]*\x1b\\", b"", data))
        return data

    @property
    def shown(self) -> str:
        """The screen as text."""
        return "\n".join(line.rstrip() for line in self._screen.display)

    def until(self, pattern: str, patience: float = PATIENCE) -> re.Match[str]:
        """Wait until the screen shows something."""
        deadline = time.monotonic() + patience
        while (match := re.search(pattern, self.shown)) is None:
            assert time.monotonic() < deadline, (
                f"{pattern!r} was never shown:\n{self.shown}\n{self.seen[-1500:]!r}"
            )
            assert self.program.poll() is None or self.read(0.2), (
                f"it ended:\n{self.shown}\n{self.seen[-1500:]!r}"
            )
            self.read()
        return match

    def line(self, text: str) -> None:
        """Type a line."""
        self.type(text.encode() + b"\r")

    def ask(self, question: str, answer: str, patience: float = PATIENCE) -> re.Match[str]:
        """Type a line until its answer shows: a shell that starts up may drop keys."""
        deadline = time.monotonic() + patience
        while True:
            self.line(question)
            try:
                return self.until(answer, 1.0)
            except AssertionError:
                if time.monotonic() > deadline or self.program.poll() is not None:
                    raise

    def shell_pid(self) -> int:
        """The process id of the shell at the other end. Its answer is split in the question."""
        mark = f"{time.monotonic_ns() % 99991}"
        return int(self.ask(f"echo pid'-{mark}'=$$.", rf"pid-{mark}=(\d+)\.")[1])


class World:
    """A simulator and a daemon in a directory of their own.

    ``far`` and ``near`` go in front of their commands, and ``address`` is where the near ones find the far one.
    """

    def __init__(
        self,
        *words: str,
        env: dict[str, str] | None = None,
        far: tuple[str, ...] = (),
        near: tuple[str, ...] = (),
        address: str = "127.0.0.1",
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dbe-", dir="/tmp"))
        self._words = words
        self._extra = env or {}
        self._far_prefix, self._near_prefix, self._address = far, near, address
        self._simulator: subprocess.Popen[bytes] | None = None
        self._daemons: dict[int, subprocess.Popen[bytes]] = {}
        self.env: dict[str, str] = {}
        self.url = ""
        self.boxes: dict[str, dict[str, str]] = {}

    def __enter__(self) -> Self:
        try:
            self.start_simulator()
            self.start_daemon()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            self.stop_daemon()
        self.kill_daemon()
        for daemon in self._daemons.values():
            if daemon.poll() is None:
                daemon.kill()  # one whose lock does not name it, on a disk that takes nothing
            daemon.wait(10)
        if self._simulator is not None:
            self._simulator.terminate()
            try:
                self._simulator.wait(20)
            except subprocess.TimeoutExpired:
                self._simulator.kill()
                self._simulator.wait()
            if self._simulator.stdout is not None:
                self._simulator.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # The far end ------------------------------------------------------------------------------------

    def start_simulator(self) -> None:
        """Start AWS and the boxes."""
        base = private_environment(self.folder, os.environ) | {"TERM": "xterm-256color"} | self._extra
        base.pop("PYTHONPATH")  # the installed product, not the folder
        settings = self.folder / "config" / "devbox" / "config.toml"
        (settings.parent / "config.d").mkdir(mode=0o700, parents=True, exist_ok=True)
        # Acknowledgements count, too: with the default, which spares the service, a download is slow.
        settings.write_text("[link]\nframes_per_second = 0\n")
        words = ["--fast", "--boxes", "api,web", *self._words]
        with (self.folder / "simulator.log").open("wb") as log:
            self._simulator = subprocess.Popen(
                [*self._far_prefix, sys.executable, "-m", "devboxd.simulator", "serve", "--root", str(self.folder / "sim"), *words],
                stdout=subprocess.PIPE, stderr=log, env=base, cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        assert self._simulator.stdout is not None
        up = json.loads(self._simulator.stdout.readline())
        self.url = up["endpoint"]
        self.boxes = {box["name"]: box for box in up["boxes"]}
        self.env = base | {"AWS_ENDPOINT_URL": self.url.replace("127.0.0.1", self._address)}
        self.env |= {name: value for name, value in up["environment"].items() if name != "AWS_ENDPOINT_URL"}
        self.env |= {"PYTHONUSERBASE": site.getuserbase()}

    def disk(self, box: str = "api") -> Path:
        """The disk of a box."""
        return Path(self.boxes[box]["disk"])

    def fault(self, name: str, **parameters: Any) -> int:
        """Break something; returns how many things were touched."""
        return int(self._far("fault", {"fault": name, **parameters})["touched"])

    @contextlib.contextmanager
    def silent_simulator(self) -> Iterator[None]:
        """Until the block ends, AWS answers nothing."""
        assert self._simulator is not None
        freeze(self._simulator.pid)
        try:
            yield
        finally:
            self._simulator.send_signal(signal.SIGCONT)

    def far_sessions(self) -> list[dict[str, Any]]:
        """The sessions that are open at the far end."""
        return [one for one in self._far("state")["sessions"] if one["state"] != "Terminated"]

    def _far(self, what: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"{self.url}/_simulator/{what}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=20) as reply:
            return json.load(reply)

    @property
    def simulator_pid(self) -> int:
        """The process that is AWS, the gateway and all agents."""
        assert self._simulator is not None
        return self._simulator.pid

    # The daemon -------------------------------------------------------------------------------------

    @property
    def socket(self) -> Path:
        """The daemon's socket."""
        return self.folder / "run" / "devbox" / "devboxd.sock"

    @property
    def log(self) -> str:
        """All that daemons have written."""
        return (self.folder / "devboxd.log").read_text(errors="replace") + "".join(
            file.read_text(errors="replace") for file in (self.folder / "state" / "devbox").glob("*.log")
        )

    def daemon_pid(self) -> int | None:
        """The daemon that holds the lock, whoever started it; None where there is none."""
        try:
            pid = int((self.folder / "run" / "devbox" / "devboxd.lock").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None
        known = self._daemons.get(pid)
        if known is not None and known.poll() is not None:
            return None
        return pid if is_alive(pid) else None

    def start_daemon(self, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start one and wait until it answers. A terminal that waits for one may have been faster."""
        with (self.folder / "devboxd.log").open("ab") as log:
            daemon = subprocess.Popen(
                [*self._near_prefix, sys.executable, "-P", "-m", "devboxd"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env | (env or {}), cwd="/",
                start_new_session=True,
            )  # fmt: skip
        self._daemons[daemon.pid] = daemon
        until(lambda: self.answers() or daemon.poll() is not None, "the daemon answers")
        if daemon.poll() is not None and not env and self.daemon_pid() is not None:
            until(self.answers, "the daemon answers that was faster")
        else:
            assert daemon.poll() is None, self.log[-3000:]
        return daemon

    def answers(self) -> bool:
        """Say whether a daemon accepts connections."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
            try:
                one.connect(str(self.socket))
            except OSError:
                return False
        return True

    def ensure_daemon(self) -> int:
        """A daemon runs after this; returns its process id."""
        if self.daemon_pid() is None:
            self.start_daemon()
        return until(self.daemon_pid, "a daemon runs")

    def kill_daemon(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the daemon that runs, if any, and wait for its end."""
        pid = self.daemon_pid()
        if pid is None:
            return
        os.kill(pid, number)
        until(lambda: self.daemon_pid() is None or self.daemon_pid() != pid, "the daemon has ended", 30.0)

    def stop_daemon(self) -> None:
        """End the daemon in order."""
        self.kill_daemon(signal.SIGTERM)

    # The command line -------------------------------------------------------------------------------

    def run(
        self,
        *words: str,
        stdin: bytes | None = None,
        timeout: float = 40.0,
        env: dict[str, str] | None = None,
    ) -> Completed:
        """Run ``devboxctl words…`` without a terminal."""
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return subprocess.run(
            [*self._near_prefix, CTL, *words], capture_output=True, timeout=timeout, env=self.env | (env or {}), cwd=self.folder,
            check=False, **given,
        )  # fmt: skip

    def ok(self, *words: str, **more: Any) -> str:
        """Run it; it must work and say nothing but data on standard output."""
        done = self.run(*words, **more)
        assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout!r}\n{done.stderr.decode()}"
        return done.stdout.decode()

    def json(self, *words: str) -> Any:
        """Run it with ``--json``."""
        return json.loads(self.ok("--json", *words))

    def start(self, *words: str, **more: Any) -> subprocess.Popen[bytes]:
        """Start ``devboxctl words…``."""
        return subprocess.Popen([*self._near_prefix, CTL, *words], env=self.env, cwd=self.folder, **more)

    @contextlib.contextmanager
    def terminal(
        self, *words: str, size: tuple[int, int] = (100, 30), env: dict[str, str] | None = None
    ) -> Iterator[Terminal]:
        """Run ``devboxctl words…`` on a terminal; killed at the end if it still runs."""
        with Terminal([*self._near_prefix, CTL, *words], self.env | (env or {}), size=size) as terminal:
            yield terminal

    @contextlib.contextmanager
    def attached(self, *words: str, box: str = "api", session: str = "main") -> Iterator[Terminal]:
        """A terminal in a tmux session of a box, with a shell that answers."""
        with self.terminal("attach", box, session, "--mux", "tmux", *words) as terminal:
            terminal.until(r"\[api\]|\$ |# ")
            yield terminal

    def forward(self, *specs: str, box: str = "api") -> list[tuple[str, int]]:
        """Add forwards; returns where they listen."""
        added = self.json("forward", box, *specs)["forwards"]
        return [(host, int(port)) for host, _, port in (one["local"].rpartition(":") for one in added)]

    def remove_forwards(self) -> None:
        """Remove all."""
        self.ok("forward", "rm", "all")


def fetch(address: tuple[str, int], path: str = "/", timeout: float = 20.0) -> str:
    """GET over a forward."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address[0]}:{address[1]}{path}", timeout=timeout) as reply:
        return str(reply.read().decode())


def free_port() -> int:
    """A loopback port that nothing listens on, nor will: below those that the system gives to whoever wants any."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 200):
        with contextlib.suppress(OSError), socket.socket() as one:
            one.bind(("127.0.0.1", port))
            return port
    raise AssertionError("there is no free port")


def need(*programs: str) -> None:
    """Skip where a program is missing."""
    import pytest

    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in programs if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(f"not on this machine: {', '.join(missing)}")


def joined(pieces: Iterable[bytes]) -> bytes:
    """All pieces."""
    return b"".join(pieces)
