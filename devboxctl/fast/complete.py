"""Completion for bash, zsh and fish: ``devboxctl _complete SHELL INDEX WORD…`` prints one candidate a line.

It answers while a person holds the Tab key, so it neither imports typer nor starts a daemon, and gives the
daemon 100 ms. What it knows of the commands is in ``table.py``.
"""

from __future__ import annotations

import sys

from devboxctl.fast.table import COMMANDS
from devboxd.api import client

TYPE_CHECKING = False
if TYPE_CHECKING:
    Json = dict[str, object]

ANSWER = 0.1  # seconds for the daemon
NAMES_MAX = 500
HIDDEN = ("proxy",)
VALUES = {"STATE": "running|stopped|pending|stopping"}  # of options whose help would be too long with them
# What a word in capitals stands for: where the daemon lists it, and which field names it.
NAMES = {
    "BOX": ("boxes", "boxes", "name"),
    "PROJECT": ("projects?brief=true", "projects", "name"),
    "FORWARD": ("forwards", "forwards", "id"),
    "SESSION-ID": ("sessions", "sessions", "id"),
}


def main(words: list[str]) -> int:
    """Print the candidates. Never fails: a broken completion is worse than none."""
    try:
        for candidate in candidates(words[2:], int(words[1])):
            sys.stdout.write(candidate + "\n")
        sys.stdout.flush()
    except (IndexError, ValueError, client.ClientError, OSError):
        sys.stdout = None  # what could not be written must not be tried again at exit
    return 0


def candidates(line: list[str], index: int) -> list[str]:
    """Say what may stand at ``line[index]``; ``line[0]`` is the program."""
    current = line[index] if index < len(line) else ""
    path, options, arguments, waiting = "", *_entry(""), None
    seen = 0  # arguments of the command so far
    for word in line[1:index]:
        if waiting is not None:
            waiting = None
        elif word == "--" or "COMMAND" in arguments[:seen]:
            return []  # the line belongs to another program
        elif word.startswith("-") and word != "-":
            waiting = options.get(word)  # None for flags, and for words that are no options of ours
        elif not seen and f"{path} {word}".strip() in COMMANDS:
            path = f"{path} {word}".strip()
            options, arguments = _entry(path)
        else:
            seen += 1
    if waiting is not None:
        return _beginning(VALUES.get(waiting, waiting).split("|"), current)
    if "COMMAND" in arguments[:seen]:
        return []
    if current.startswith("-"):
        return _beginning(list(options), current)
    at = min(seen, len(arguments) - 1)
    return _beginning(_words(arguments[at]), current) if at >= 0 else []


def _entry(path: str) -> tuple[dict[str, str | None], tuple[str, ...]]:
    """The options of a command (None: a flag; else the values, divided by bars) and its arguments."""
    text, arguments = COMMANDS[path]
    options: dict[str, str | None] = {}
    for word in text.split():
        name, equals, values = word.partition("=")
        options[name] = values if equals else None
    return options, arguments


def _words(kinds: str) -> list[str]:
    found: list[str] = []
    for word in kinds.split():
        if word == "TOPIC":
            found += [name for name in COMMANDS if name and " " not in name and name not in HIDDEN]
        elif word == "METHOD":
            found += ["GET", "POST", "DELETE"]
        elif word in NAMES:
            found += _names(*NAMES[word])
        elif not word.isupper():
            found.append(word)
    return found


def _beginning(words: list[str], current: str) -> list[str]:
    return [word for word in words if word and word.startswith(current)]


def _names(path: str, key: str, field: str) -> list[str]:
    import json

    found = json.loads(client.call("GET", path, start=False, timeout=ANSWER))[key][:NAMES_MAX]
    return [_name(entry) if key == "boxes" else str(entry[field]) for entry in found]


def _name(box: Json) -> str:
    """What a box is offered as: its name, or where a shell would expand that or it means several, another."""
    host = str(box.get("host") or box["id"]).removesuffix(".devbox")
    return next(
        word
        for word in (str(box.get("ref") or box["name"]), host, str(box["id"]))
        if _is_plain(word) or word == box["id"]
    )


def _is_plain(name: str) -> bool:
    return bool(name) and name[0] != "-" and all(c.isalnum() or c in "-_.@+" for c in name)
