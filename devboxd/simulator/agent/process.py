"""Child processes of simulated boxes: real ones, with non-blocking descriptors and a certain end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

MARKER: Final = "DEVBOX_SIMULATOR_BOX"  # in the environment of everything a box runs: how to find it again

# A session leader that opens a terminal gets it as its controlling terminal: no preexec_fn needed, which
# would be unsafe (and a warning) in a process with threads.
_TAKE_TERMINAL: Final = 'exec 3<>"$0" 3>&-; exec "$@"'


class Descriptor:
    """A non-blocking file descriptor with awaitable reads and writes; one reader, one writer at a time."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.closed = False
        self._waiting: set[asyncio.Future[None]] = set()

    async def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; empty at the end of the stream (a hung-up pty ends with EIO)."""
        while not self.closed:
            try:
                return os.read(self.fd, size)
            except BlockingIOError:
                await self._ready(reading=True)
            except OSError:
                return b""
        return b""

    async def write(self, data: bytes) -> None:
        """Write all of it, however long that takes.

        Raises:
            OSError: nobody will ever read it.
        """
        view = memoryview(data)
        while view:
            if self.closed:
                raise BrokenPipeError("closed")
            try:
                view = view[os.write(self.fd, view) :]
            except BlockingIOError:
                await self._ready(reading=False)

    async def _ready(self, *, reading: bool) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        add, remove = (
            (loop.add_reader, loop.remove_reader) if reading else (loop.add_writer, loop.remove_writer)
        )
        add(self.fd, _wake, future)
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)
            if not self.closed:
                remove(self.fd)

    def close(self) -> None:
        """Close it; whoever waits sees the end of the stream. Twice is fine."""
        if self.closed:
            return
        self.closed = True
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.fd)
        loop.remove_writer(self.fd)
        for future in self._waiting:
            _wake(future)
        os.close(self.fd)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def set_size(fd: int, columns: int, rows: int) -> None:
    """Set a terminal's size; 16 bits are kept of each number, as the agent does."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0))


async def spawn_pty(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> tuple[Process, Descriptor]:
    """Start a session leader on a new terminal of size 0 x 0."""
    master, slave = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", _TAKE_TERMINAL, os.ttyname(slave), *argv,
            stdin=slave, stdout=slave, stderr=slave, cwd=cwd, env=env, start_new_session=True,
        )  # fmt: skip
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    return process, Descriptor(master)


async def spawn(
    argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdout: int, stderr: int
) -> Process:
    """Start a command without a terminal and without input, in a process group of its own.

    Raises:
        OSError: it cannot be started.
    """
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL, stdout=stdout, stderr=stderr,
        cwd=cwd, env=env, start_new_session=True,
    )  # fmt: skip


def kill(process: Process) -> None:
    """SIGKILL to the direct child only, as the agent does."""
    if process.returncode is None:
        # Not process.kill(): that polls first, and takes the exit status away from asyncio's watcher.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def leftovers(marker: str) -> list[int]:
    """Ids of this user's processes with ``MARKER=marker…`` in their environment, wherever they fled to."""
    wanted = f"{MARKER}={marker}"
    proc = Path("/proc")
    if sys.platform.startswith("linux") and proc.is_dir():
        found = []
        for entry in proc.iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if b"\0" + wanted.encode() in b"\0" + (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return found
    listing = subprocess.run(["ps", "-axEww", "-o", "pid=,command="], capture_output=True, check=False)
    lines = listing.stdout.decode(errors="replace").splitlines()
    return [int(line.split(None, 1)[0]) for line in lines if f" {wanted}" in line]


async def end_leftovers(marker: str) -> None:
    """Kill what a box still runs: daemons, disowned jobs, mux servers. Bounded by two seconds."""
    for _ in range(40):
        found = leftovers(marker)
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.05)
