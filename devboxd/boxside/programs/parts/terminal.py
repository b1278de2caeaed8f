"""A program in a terminal of its own, whose output goes to ours, too."""

import fcntl
import os
import termios


def take(slave: int) -> None:
    """In the child: a session of its own, on that terminal."""
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for number in (0, 1, 2):
        os.dup2(slave, number)


def some(source: int) -> bytes:
    """What is there; nothing at its end."""
    try:
        return os.read(source, 16384)
    except OSError:
        return b""


def show(data: bytes) -> None:
    """To the window, as long as there is one."""
    try:
        while data:
            data = data[os.write(1, data) :]
    except OSError:
        pass
