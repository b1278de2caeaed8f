"""Notes that programs of a user leave in a folder of ``~/.devbox``: those of coding agents are written by ``agent_hook.py``."""

import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

NOTE_MOST = 16 << 10  # bytes: three texts of 300 characters, of which each may be twelve bytes in JSON


def read_note(path: str) -> "dict[str, Any]":
    """A note; empty where there is none to be read. What lies there may be anybody's: a pipe is not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            found = json.loads(os.read(descriptor, NOTE_MOST).decode("utf-8", "replace"))
        finally:
            os.close(descriptor)
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}


def notes_in(folder: str, most: "int | None" = None) -> "Iterator[tuple[str, dict[str, Any]]]":
    """The notes of a folder by name, the first so many, each with its path; none where there is no such folder."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    except OSError:
        return
    for name in names[:most]:
        path = os.path.join(folder, name)
        note = read_note(path)
        if note:
            yield path, note


def process_stat(pid: int) -> "tuple[str, list[str]]":
    """Name of a process, and what its line of /proc has behind that. Raises OSError or ValueError where there is none."""
    with open("/proc/" + str(pid) + "/stat", errors="replace") as file:
        name, _, rest = file.read(4096).partition("(")[2].rpartition(")")
    return name, rest.split()


def forget(path: str) -> None:
    """Take a note away; somebody else may have done so."""
    try:
        os.unlink(path)
    except OSError:
        pass


def is_alive(note: "dict[str, Any]") -> bool:
    """Whether the process that a note is of is there: one of its number that began when its ``id`` says, if it says that."""
    try:
        pid = int(note["pid"])
        fields = process_stat(pid)[1]
        return fields[0] not in ("Z", "X") and note.get("id") in (None, "", str(pid) + "-" + fields[19])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, IndexError):
        return False
