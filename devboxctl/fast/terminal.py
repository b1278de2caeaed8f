"""The local terminal: raw mode and the way back, sizes, signals."""

from __future__ import annotations

import errno
import os
import signal
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

FALLBACK = (80, 24)
DUMB = ("", "dumb", "unknown")


def size() -> tuple[int, int]:
    """Columns and rows of the terminal; 80 x 24 where there is none, or one that says 0 x 0."""
    for descriptor in (1, 0, 2):
        try:
            columns, rows = os.get_terminal_size(descriptor)
        except OSError:
            continue
        if columns > 0 and rows > 0:
            return min(columns, 0xFFFF), min(rows, 0xFFFF)
    return FALLBACK


def is_dumb() -> bool:
    """Say whether the user's terminal can do no more than show one line after another."""
    return os.environ.get("TERM", "") in DUMB


class Terminal:
    """Standard input as a terminal. ``raw`` and ``restore`` may be called in any order and number."""

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._saved: list[Any] | None = None

    def raw(self) -> None:
        """Pass every key on: no echo, no line editing, no signals from the keyboard.

        In the background this stops the process until it is in the foreground again, and then the call is
        broken off: all of it is done again, because the shell has had the terminal meanwhile.
        """
        while True:
            try:
                self._make_raw()
                return
            except termios.error as error:
                if error.args[0] != errno.EINTR:
                    raise

    def _make_raw(self) -> None:
        before: list[Any] = termios.tcgetattr(self._descriptor)
        mode = [*before[:6], list(before[6])]
        mode[0] &= ~(
            termios.IGNBRK
            | termios.BRKINT
            | termios.PARMRK
            | termios.ISTRIP
            | termios.INLCR
            | termios.IGNCR
            | termios.ICRNL
            | termios.IXON
        )
        mode[1] &= ~termios.OPOST
        mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        # NOW and not DRAIN or FLUSH: a stuck terminal must not stop us, and keys typed early count.
        termios.tcsetattr(self._descriptor, termios.TCSANOW, mode)
        if self._saved is None:
            self._saved = before

    def restore(self) -> None:
        """Give the terminal back as it was."""
        saved, self._saved = self._saved, None
        while saved is not None and self._is_ours():
            try:
                termios.tcsetattr(self._descriptor, termios.TCSANOW, saved)
                return
            except termios.error as error:
                if error.args[0] != errno.EINTR:
                    return  # the terminal is gone (hang-up): there is nothing left to restore

    def _is_ours(self) -> bool:
        """Say whether we are in the foreground: in the background the terminal is somebody else's by now."""
        try:
            return os.tcgetpgrp(self._descriptor) == os.getpgrp()
        except OSError:
            return True  # it is not the terminal that controls us, so there is no background


class Signals:
    """Signals as a descriptor to poll and a list to read. Use it in a ``with`` block."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers
        self._before: dict[int, Any] = {}
        self._arrived: list[int] = []
        self.descriptor, self._writer = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._writer, False)

    def __enter__(self) -> Signals:
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in self._numbers:
            # What was ignored stays so (nohup); job control of a shell without it, too.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self.descriptor)
        os.close(self._writer)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._arrived.append(number)

    def take(self) -> list[int]:
        """Return what arrived since the last call."""
        try:
            while os.read(self.descriptor, 4096):
                pass
        except BlockingIOError:
            pass
        arrived, self._arrived = self._arrived, []
        return arrived


def stop_self(whole_group: bool) -> None:
    """Stop as the default action of SIGTSTP would; returns when this process is continued."""
    before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    try:
        if whole_group:  # the script that we may be part of stops with us, or the shell would not notice
            os.killpg(0, signal.SIGTSTP)
        else:
            os.kill(os.getpid(), signal.SIGTSTP)
    finally:
        signal.signal(signal.SIGTSTP, before)
