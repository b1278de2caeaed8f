"""Run a start command in a real terminal, as the agent does: a pty of 0 by 0 and a bare environment."""

from __future__ import annotations

import builtins
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from types import TracebackType
from typing import Self


class Terminal:
    """A child on a pty. Reads what it prints until a pattern shows."""

    def __init__(self, command: str, env: dict[str, str], *, shell: str = "/bin/sh") -> None:
        self.output = b""
        self._reaped = False
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.chdir("/")
                os.execve(shell, ["sh", "-c", command], env)
            finally:
                os._exit(127)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view[:4096]) :]

    def read(self, timeout: float = 0.2) -> bytes:
        """What comes next; empty at the end or when nothing comes."""
        if not select.select([self.fd], [], [], timeout)[0]:
            return b""
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return b""
        self.output += data
        return data

    def until(self, pattern: bytes, timeout: float = 15.0) -> re.Match[bytes]:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if (found := re.search(pattern, self.output, re.DOTALL)) is not None:
                return found
            self.read()
        raise AssertionError(f"no {pattern!r} in {self.output[-3000:]!r}")

    def wait(self, timeout: float = 5.0) -> None:
        """Wait for the end of the child."""
        end = time.monotonic() + timeout
        while not self._gone():
            assert time.monotonic() < end, "the program does not end"
            time.sleep(0.01)

    def close(self) -> None:
        """Hang up, and end the child if that does not."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        try:
            self.wait(3.0)
        except AssertionError:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def _gone(self) -> bool:
        if not self._reaped:
            self._reaped = os.waitpid(self.pid, os.WNOHANG)[0] != 0
        return self._reaped

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: builtins.type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
