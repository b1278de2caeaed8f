"""What benchmarks share: worlds with a chosen configuration, peers, rounds that alternate, and tables.

The machine is shared, so no absolute number means much. Everything is measured in turns with what it is
compared with, several times, and the median of the rounds is what a table shows.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.e2e.kit import World

ROOT: Final = Path(__file__).parents[2]
UNLIMITED: Final = "[link]\nframes_per_second = 0\n"
MIB: Final = 1 << 20


class Settled(World):
    """A world whose daemon has this configuration."""

    def __init__(self, config: str = UNLIMITED, *words: str) -> None:
        super().__init__(*words)
        self._config = config

    def start_daemon(self, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Write the configuration first."""
        (self.folder / "config" / "devbox" / "config.toml").write_text(self._config)
        return super().start_daemon(env)


class Peer:
    """A program of ``tests.bench.peers`` in a process of its own."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.peers", *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.ports = [int(word) for word in self.process.stdout.readline().split()]

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.ports[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Usage:
    """What one process uses, from /proc."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    @property
    def resident(self) -> float:
        """MiB of memory."""
        return int((self._folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB

    @property
    def processor(self) -> float:
        """Seconds of processor time so far, to the hundredth."""
        fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def waits(self) -> dict[str, int]:
        """How often each thread has slept (and so was woken), by thread."""
        found = {}
        for task in (self._folder / "task").iterdir():
            name = f"{(task / 'comm').read_text().strip()} {task.name}"
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    found[name] = int(line.split()[1])
        return found


def in_turns(rounds: int, cases: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Run all cases once per round, and return the median of each."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds):
        # Whoever goes first may find caches cold: take turns at that, too.
        names = list(cases) if number % 2 == 0 else list(cases)[::-1]
        for name in names:
            found[name].append(cases[name]())
    return {name: statistics.median(values) for name, values in found.items()}


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of all values do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def show(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(head))]
    print(f"\n{title}")
    for row in cells:
        left, *rest = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        print("  " + "  ".join([row[0].ljust(widths[0]), *rest]) if left else "")


def connect(address: tuple[str, int] | int) -> socket.socket:
    """A TCP connection that waits at most a minute for anything."""
    where = ("127.0.0.1", address) if isinstance(address, int) else address
    one = socket.create_connection(where, timeout=60)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one


def download(address: tuple[str, int] | int, size: int) -> float:
    """Fetch so many bytes from the target behind an address; returns MB/s."""
    with connect(address) as one:
        buffer, left = bytearray(256 << 10), size
        began = time.perf_counter()
        one.sendall(b"down %d\n" % size)
        while left:
            left -= one.recv_into(buffer)
        return size / (time.perf_counter() - began) / 1e6


def upload(address: tuple[str, int] | int, size: int) -> float:
    """Send so many bytes to the target behind an address, until it has them; returns MB/s."""
    data = bytes(256 << 10)
    with connect(address) as one:
        began = time.perf_counter()
        one.sendall(b"up %d\n" % size)
        for left in range(size, 0, -len(data)):
            one.sendall(data[: min(left, len(data))])
        assert one.recv(1) == b"k"
        return size / (time.perf_counter() - began) / 1e6


@contextmanager
def processor(pid: int, into: list[float]) -> Iterator[None]:
    """Append the processor seconds that a process uses meanwhile."""
    before = Usage(pid).processor
    yield
    into.append(Usage(pid).processor - before)
