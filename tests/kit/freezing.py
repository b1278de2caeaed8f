"""Stop a process as a debugger would, and know that it stands."""

from __future__ import annotations

import os
import signal


def freeze(pid: int) -> None:
    """Send SIGSTOP to a child of ours, and wait until all its threads stand: until then they go on working."""
    os.kill(pid, signal.SIGSTOP)
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), "it ended instead"
