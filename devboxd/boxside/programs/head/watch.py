"""Streams that tell what changes on the box: which ports are listened on, what coding agents say of themselves."""

import json
import os
from typing import TYPE_CHECKING

from devboxd.boxside.programs.head.pipe import Handler
from devboxd.boxside.programs.parts.agent_note import is_alive, notes_in
from devboxd.boxside.programs.parts.agent_told import told_of

if TYPE_CHECKING:
    from typing import Any

    from devboxd.boxside.programs.head.loop import Head

    Want = dict[str, Any]

WATCH_EVERY = 1.0  # seconds
AGENTS_MOST = 32


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


def agents(folder: str) -> "list[dict[str, Any]]":
    """The notes of agents whose process is there."""
    found = [told_of(note) for _, note in notes_in(folder, AGENTS_MOST) if is_alive(note)]
    return [one for one in found if one is not None]


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
