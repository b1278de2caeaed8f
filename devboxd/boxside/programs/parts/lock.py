"""Locks that whoever works holds alone."""

import fcntl
import os


def is_held(path: str) -> bool:
    """Whether somebody holds it alone. Whoever looks shares it, so that no two are in each other's way."""
    try:
        lock = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False
