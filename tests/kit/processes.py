"""Whether a process runs."""

from __future__ import annotations

from pathlib import Path


def is_alive(pid: int) -> bool:
    """Say whether a process runs; a zombie does not, once its last thread has let go of its sockets and locks."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return told[0] != "Z" or int(told[17]) > 1
