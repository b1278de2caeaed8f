"""devbox.toml: what the folder says where a command runs. Read here, understood by the daemon.

The nearest one counts, from the current folder upward, but not above the home folder. It is taken only where
nobody else can have put it there: anybody may write to /tmp.
"""

from __future__ import annotations

import os
import stat

from devboxctl.fast.reply import UsageError

NAME = "devbox.toml"
VARIABLE = "DEVBOX_TOML"  # another file in its place; empty: none
MOST = 8192  # characters, as in wire.FOLDER_MAX


def said() -> dict[str, str] | None:
    """Say where the file is and what is in it; None where there is none.

    Raises:
        UsageError: it is there, and cannot be read.
    """
    given = os.environ.get(VARIABLE)
    try:
        path = find(os.getcwd()) if given is None else os.path.abspath(given) if given else None
    except OSError:
        return None  # the folder is gone
    return None if path is None else {"path": path, "text": _text(path)}


def absolute(path: str) -> str:
    """Say where a path leads, seen from here; ``~`` is home.

    Raises:
        UsageError: "here" is a folder that was removed.
    """
    try:
        return os.path.abspath(os.path.expanduser(path))
    except OSError:
        raise UsageError("the current folder no longer exists", "go to another one: cd") from None


def find(start: str, home: str | None = None) -> str | None:
    """Find the nearest file that can be trusted to be this user's."""
    home = home or os.environ.get("HOME") or os.path.expanduser("~")
    folder = start
    while True:
        path = os.path.join(folder, NAME)
        try:
            found = os.stat(path)
        except OSError:
            found = None
        if found is not None and stat.S_ISREG(found.st_mode):
            # The next one upward is not meant: where there is a strange one, there is none.
            return path if _is_ours(found) else None
        above = os.path.dirname(folder)
        if folder == home or above == folder:
            return None
        folder = above


def _is_ours(found: os.stat_result) -> bool:
    return found.st_uid in (os.geteuid(), 0) and not found.st_mode & stat.S_IWOTH


def _text(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or not _is_ours(found):
                raise UsageError(
                    f"{path} is no file of yours", f"leave it out of account: {VARIABLE}= devboxctl …"
                )
            data = b""
            while len(data) <= MOST and (piece := os.read(descriptor, MOST + 1)):
                data += piece
        finally:
            os.close(descriptor)
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > MOST:
        raise UsageError(
            f"{path} is larger than {MOST} bytes", "it should say where you are, and little more"
        )
    return text
