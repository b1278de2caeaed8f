"""A pseudo-terminal with a program on it, for tests."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from typing import Any, Self

PATIENCE = 15.0  # seconds; only a failing test waits that long

# The program takes the terminal as its own (so that Ctrl-C, hang-up and sizes arrive) and runs the CLI.
RUN = (
    "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "from devboxctl.entry import main; sys.argv = ['devboxctl', *sys.argv[1:]]; main()"
)
SHELL = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"


class Tty:
    """Runs a program on a new terminal; everything it writes there is kept in ``screen``."""

    def __init__(
        self,
        words: list[str],
        environ: Mapping[str, str],
        *,
        size: tuple[int, int] = (100, 30),
        run: str = RUN,
        stdout: int | None = None,
    ) -> None:
        self.master, self.slave = os.openpty()
        self.resize(*size, tell=False)
        self.before = termios.tcgetattr(self.slave)
        self.screen = b""
        self.program = subprocess.Popen(
            [sys.executable, "-c", run, *words],
            stdin=self.slave,
            stdout=self.slave if stdout is None else stdout,
            stderr=self.slave,
            env=dict(environ),
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.program.poll() is None:
            self.program.kill()
            self.program.wait()
        os.close(self.master)
        os.close(self.slave)

    def resize(self, columns: int, rows: int, *, tell: bool = True) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if tell:
            self.program.send_signal(signal.SIGWINCH)

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def read(self, timeout: float = 0.05) -> bytes:
        ready, _, _ = select.select([self.master], [], [], timeout)
        data = os.read(self.master, 65536) if ready else b""
        self.screen += data
        return data

    def wait_for(self, text: bytes) -> None:
        """Read until ``text`` is on the screen; what stood there up to it is dropped."""
        until = time.monotonic() + PATIENCE
        while text not in self.screen:
            assert time.monotonic() < until, f"{text!r} did not come: {self.screen[-2000:]!r}"
            self.read()
        self.screen = self.screen.partition(text)[2]

    def wait(self) -> int:
        """Wait for the end of the program; returns its status (negative: its signal)."""
        until = time.monotonic() + PATIENCE
        while self.program.poll() is None:
            assert time.monotonic() < until, f"it does not end: {self.screen[-2000:]!r}"
            self.read(0.02)
        while self.read(0.02):
            pass
        return self.program.returncode

    @property
    def mode(self) -> list[Any]:
        return termios.tcgetattr(self.slave)

    def is_raw(self) -> bool:
        return not self.mode[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
