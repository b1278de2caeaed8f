"""Streams that tell what changes on the box: which ports are listened on, what coding agents say of themselves."""

import json
import os
from typing import TYPE_CHECKING

from devboxd.boxside.programs.head.pipe import Handler

if TYPE_CHECKING:
    from typing import Any

    from devboxd.boxside.programs.head.loop import Head

    Want = dict[str, Any]

WATCH_EVERY = 1.0  # seconds
AGENTS_MOST = 32
NOTE_MOST = 4096  # bytes
TOLD = (
    ("name", 60),
    ("state", 16),
    ("text", 300),
    ("where", 64),
)  # what is told of a note, and characters of it


class Watch(Handler):
    """A stream that tells the ports this user's programs listen on, at each change: ``dec`` and the numbers, a line."""

    def __init__(self, head: "Head", number: int, want: "Want") -> None:
        Handler.__init__(self, head, number)
        self.seen: list[int] | None = None
        self.last: bytes | None = None
        self.on_time()

    def on_time(self) -> None:
        """Look, and tell what is new."""
        seen = listening(os.getuid())
        if seen != self.seen:
            ours = bridges(self.head.folder)
            line = " ".join(["dec"] + [str(port) for port in seen if port not in ours]).encode() + b"\n"
            if line == self.last:
                self.seen = seen
            elif self.head.bridge.room(self.number) > len(line):
                self.seen, self.last = seen, line
                self.head.bridge.write(self.number, line)
        self.head.later(self, WATCH_EVERY)


class Agents(Handler):
    """A stream that tells the notes of coding agents, at each change: a JSON list, a line."""

    def __init__(self, head: "Head", number: int, want: "Want") -> None:
        Handler.__init__(self, head, number)
        self.last = b""
        self.on_time()

    def on_time(self) -> None:
        """Look, and tell what is new."""
        line = json.dumps(agents(os.path.join(self.head.folder, "agents"))).encode() + b"\n"
        if line != self.last and self.head.bridge.room(self.number) > len(line):
            self.last = line
            self.head.bridge.write(self.number, line)
        self.head.later(self, WATCH_EVERY)

    def close(self, reset: bool) -> None:
        """Stop looking."""
        self.head.timers.pop(self, None)


def agents(folder: str) -> "list[dict[str, Any]]":
    """The notes of agents whose process is there. What lies there may be anybody's: a pipe is not waited for."""
    found = []
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    except OSError:
        names = []  # no hooks are set up
    for name in names[:AGENTS_MOST]:
        try:
            descriptor = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_NONBLOCK)
            try:
                note = json.loads(os.read(descriptor, NOTE_MOST).decode("utf-8", "replace"))
            finally:
                os.close(descriptor)
            pid, since = int(note["pid"]), float(note["since"])
            if os.path.isdir("/proc/" + str(pid)) and 0 <= since < 1e11:
                one = {key: str(note.get(key) or "")[:most] for key, most in TOLD}
                found.append(dict(one, pid=pid, since=since, quiet=bool(note.get("quiet"))))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue
    return found


def listening(user: int) -> "list[int]":
    """Ports that programs of a user listen on, sorted (/proc/net: state 0A is LISTEN, field 8 the user)."""
    found = set()
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(name) as table:
                next(table, None)
                for line in table:
                    fields = line.split()
                    if fields[3] == "0A" and int(fields[7]) == user:
                        found.add(int(fields[1].rpartition(":")[2], 16))
        except (OSError, ValueError, IndexError):
            continue  # not Linux, or no IPv6
    return sorted(found)


def bridges(folder: str) -> "set[int]":
    """Ports of bridgeheads, which are nobody's to forward; those of other laptops, too."""
    found: set[int] = set()
    try:
        names = os.listdir(folder)
    except OSError:
        return found  # removed by hand
    for name in names:
        if not (name.startswith("bridge-") and name.endswith(".json")):
            continue
        try:
            with open(os.path.join(folder, name)) as file:
                found.add(int(json.load(file)["port"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it has just ended
    return found
