"""The pane in front of a session of zellij or tmux: shown without joining it, or typed into.

Python 3.6 and the standard library only. The request (JSON) comes on standard input, so that what is typed stands in no list
of processes; one line of JSON goes out. zellij takes what it types from its arguments only: there it does stand in one.
"""

import json
import os
import re
import sys
import time
from typing import TYPE_CHECKING

from devboxd.boxside.programs.parts.mux import LIMIT, call, find
from devboxd.boxside.programs.parts.request import Refused, requested

if TYPE_CHECKING:
    from typing import Any

SCREEN_MOST = 40 << 10  # bytes of lines in an answer
SESSIONS_MOST = 50
PAUSE = (
    0.3  # seconds between text and Enter: programs take keys that come at once for a part of what is pasted
)
COLORS = re.compile(r"\x1b\[[0-9;:]*m")
HOME = os.path.expanduser("~")
USER = os.getuid()
BRACKETS = ("27 91 50 48 48 126", "27 91 50 48 49 126")  # begin and end of a paste, as zellij wants bytes


class Mux:
    """One server of a multiplexer: how it is called, and in which environment."""

    def __init__(self, name: str, argv: "list[str]", env: "dict[str, str] | None" = None) -> None:
        self.name, self.argv, self.env = name, argv, dict(os.environ, **(env or {}))
        for one in ("TMUX", "TMUX_PANE", "ZELLIJ", "ZELLIJ_SESSION_NAME", "ZELLIJ_PANE_ID"):
            self.env.pop(one, None)

    def call(self, *words: str, data: bytes = b"") -> "tuple[int, str]":
        """Run it; its status and what it said."""
        return call(self.argv + list(words), data, self.env)

    def ask(self, *words: str, data: bytes = b"") -> str:
        """The same; what it says. Raises Refused where it fails."""
        status, said = self.call(*words, data=data)
        if status:
            raise Refused(self.name + ": " + " ".join(said.split())[:200])
        return said

    def sessions(self) -> "list[str]":
        """Sessions that run."""
        if self.name == "tmux":
            status, said = self.call("list-sessions", "-F", "#{session_name}")
            return said.splitlines() if status == 0 else []
        status, said = self.call("list-sessions")
        lines = [COLORS.sub("", line) for line in said.splitlines()] if status == 0 else []
        return [line.split()[0] for line in lines if line.strip() and "EXITED" not in line]


def servers(wanted: "str | None") -> "list[Mux]":
    """What could have sessions: zellij before tmux, as a terminal that attaches would have it."""
    found = []
    folder = "/run/user/" + str(USER)
    path = find("zellij") if wanted in (None, "zellij") else None
    if path:
        if os.path.isdir(folder):
            found.append(Mux("zellij", [path], {"XDG_RUNTIME_DIR": folder}))
        bare = Mux("zellij", [path])
        if bare.env.get("XDG_RUNTIME_DIR") != folder or not found:
            found.append(bare)
    path = find("tmux") if wanted in (None, "tmux") else None
    if path:
        for place in (os.environ.get("TMUX_TMPDIR") or "/tmp", "/tmp", folder):
            socket = place + "/tmux-" + str(USER) + "/default"
            mine = os.path.exists(socket) and os.lstat(os.path.dirname(socket)).st_uid == USER
            if mine and [path, "-S", socket] not in [one.argv for one in found]:
                found.append(Mux("tmux", [path, "-S", socket]))
    return found


def chosen(asked: "dict[str, Any]") -> "tuple[Mux | None, str, list[dict[str, str]]]":
    """The session that is meant, and all there are: the one that is named, ``main``, or the only one."""
    known = []  # type: list[tuple[Mux, str]]
    for mux in servers(asked.get("mux")):
        known += [
            (mux, name) for name in mux.sessions() if (mux.name, name) not in [(m.name, n) for m, n in known]
        ]
    names = [{"mux": mux.name, "name": name} for mux, name in known[:SESSIONS_MOST]]
    wanted = asked.get("session")
    fit = [one for one in known if one[1] == (wanted or "main")]
    if not fit and not wanted and len(known) == 1:
        fit = known
    return (fit[0][0], fit[0][1], names) if fit else (None, "", names)


# tmux -------------------------------------------------------------------------------------------------------


def tmux_pane(mux: Mux, session: str) -> "dict[str, Any]":
    """The active pane of the current window."""
    names = ("pane_width", "pane_height", "alternate_on", "pane_in_mode", "pane_dead", "pane_input_off")
    shape = "|".join("#{" + name + "}" for name in names)
    shape += "|#{pane_id}|#{pane_current_command}|#{window_index}:#{window_name}"
    parts = mux.ask("display-message", "-p", "-t", "=" + session + ":", shape).rstrip("\n").split("|", 8)
    if len(parts) < 9:
        raise Refused("tmux does not say which pane is in front")
    pane = {name: int(text or 0) for name, text in zip(names, parts)}  # type: dict[str, Any]
    pane.update(id=parts[6], command=parts[7], window=parts[8])
    return pane


def tmux_screen(mux: Mux, pane: "dict[str, Any]", asked: "dict[str, Any]") -> str:
    """What is seen in it, or its last lines."""
    words = ["capture-pane", "-p", "-t", pane["id"]]
    if asked.get("color"):
        words.append("-e")
    if asked.get("lines") and not pane["alternate_on"]:
        words += ["-S", "-" + str(int(asked["lines"]))]
    return mux.ask(*words)


def tmux_type(mux: Mux, pane: "dict[str, Any]", asked: "dict[str, Any]") -> None:
    """Text as a paste, from standard input; keys by their names."""
    if pane["pane_dead"]:
        raise Refused("the program in it has ended")
    if pane["pane_input_off"]:
        raise Refused("that pane takes no input")
    if pane["pane_in_mode"]:
        mux.ask(
            "send-keys", "-t", pane["id"], "-X", "cancel"
        )  # somebody looks back in it: keys would move the view
    text = asked.get("text") or ""
    if text:
        buffer = "devbox-" + str(os.getpid())
        mux.ask("load-buffer", "-b", buffer, "-", data=text.encode("utf-8", "replace"))
        more = ["-p"] if "\n" in text else []
        mux.ask("paste-buffer", "-d", *more, "-b", buffer, "-t", pane["id"])
    for number, key in enumerate(asked.get("keys") or ()):
        if text and not number:
            time.sleep(PAUSE)
        mux.ask("send-keys", "-t", pane["id"], key["tmux"])


# zellij -----------------------------------------------------------------------------------------------------


def zellij_pane(mux: Mux, session: str) -> "dict[str, Any]":
    """The pane in front; without an id where zellij (before 0.44) tells none: then it is that of whoever is attached."""
    act = ["--session", session, "action"]
    status, said = mux.call(*act, "list-panes", "--json")
    try:
        panes = [one for one in json.loads(said) if not one["is_plugin"]] if status == 0 else []
    except (ValueError, KeyError, TypeError):
        panes = []
    status, said = mux.call(*act, "list-clients")
    clients = [line.split() for line in said.splitlines()[1:] if line.strip()] if status == 0 else None
    front = [one for one in panes if clients and "terminal_" + str(one["id"]) in clients[0][1:2]]
    front = front or [one for one in panes if one.get("is_focused")] or panes
    pane = {"act": act, "id": None, "attached": clients is None or bool(clients)}  # type: dict[str, Any]
    if front:
        one = front[0]
        pane["id"] = "terminal_" + str(int(one["id"]))
        pane["command"] = str(one.get("pane_command") or one.get("title") or "")
        pane["window"] = str(one.get("tab_name") or "")
        pane["pane_width"], pane["pane_height"] = one.get("pane_columns") or 0, one.get("pane_rows") or 0
    elif not pane["attached"]:
        raise Refused("no terminal is attached to it, and only zellij 0.44 or newer can be asked then")
    return pane


def zellij_screen(mux: Mux, pane: "dict[str, Any]", asked: "dict[str, Any]") -> str:
    """What is seen in it, or its last lines."""
    full = ["--full"] if asked.get("lines") else []
    if pane["id"]:
        color = ["--ansi"] if asked.get("color") else []
        return mux.ask(*pane["act"], "dump-screen", *full, *color, "--pane-id", pane["id"])
    folder = os.path.join(HOME, ".devbox")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "screen-" + str(os.getpid()))
    try:
        mux.ask(*pane["act"], "dump-screen", *full, path)
        end = time.monotonic() + LIMIT / 5
        while not os.path.exists(path) and time.monotonic() < end:
            time.sleep(0.05)  # it is written by the server
        with open(path, "rb") as file:
            return file.read(4 << 20).decode("utf-8", "replace")
    except FileNotFoundError:
        raise Refused("zellij does not show its screen") from None
    finally:
        if os.path.exists(path):
            os.unlink(path)


def zellij_type(mux: Mux, pane: "dict[str, Any]", asked: "dict[str, Any]") -> None:
    """Text and keys: it takes both from its arguments."""
    where = ["--pane-id", pane["id"]] if pane["id"] else []
    text = asked.get("text") or ""
    several = "\n" in text
    if several and where:
        mux.ask(*pane["act"], "paste", *where, "--", text)
    elif text:
        for part in (BRACKETS[0] if several else "", text, BRACKETS[1] if several else ""):
            if part == text:
                mux.ask(*pane["act"], "write-chars", *where, "--", text)
            elif part:
                mux.ask(*pane["act"], "write", *part.split())
    for number, key in enumerate(asked.get("keys") or ()):
        if text and not number:
            time.sleep(PAUSE)
        mux.ask(*pane["act"], "write", *where, *[str(int(byte)) for byte in key["bytes"]])


# What is asked ----------------------------------------------------------------------------------------------


def last(text: str, most: int) -> "tuple[list[str], bool]":
    """The last lines without the empty ones behind them, as many as an answer takes; whether some were left out."""
    lines = [line.rstrip(" ") for line in text.split("\n")]
    while lines and not COLORS.sub("", lines[-1]).strip():
        lines.pop()
    if most:
        lines = lines[-most:]
    kept, size = [], 0  # type: list[str], int
    for line in reversed(lines):
        size += len(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace")) + 2
        if size > SCREEN_MOST:
            break
        kept.append(line)
    return kept[::-1], len(kept) < len(lines)


def answer(asked: "dict[str, Any]") -> "dict[str, Any]":
    """Do it."""
    mux, session, names = chosen(asked)
    if mux is None:
        return {"missing": True, "sessions": names}
    is_tmux = mux.name == "tmux"
    pane = (tmux_pane if is_tmux else zellij_pane)(mux, session)
    found = {
        "mux": mux.name,
        "session": session,
        "sessions": names,
        "window": str(pane.get("window") or "")[:100],
        "command": str(pane.get("command") or "")[:100],
        "columns": int(pane.get("pane_width") or 0),
        "rows": int(pane.get("pane_height") or 0),
    }
    if asked["verb"] == "say":
        (tmux_type if is_tmux else zellij_type)(mux, pane, asked)
    else:
        text = (tmux_screen if is_tmux else zellij_screen)(mux, pane, asked)
        found["lines"], found["cut"] = last(text, int(asked.get("lines") or 0))
    return found


def main() -> None:
    """Read the request, and answer it."""
    os.umask(0o077)
    try:
        found = answer(requested())
    except (Refused, OSError, ValueError) as error:
        found = {"problem": str(error)[:300]}
    sys.stdout.buffer.write(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace") + b"\n")


main()
