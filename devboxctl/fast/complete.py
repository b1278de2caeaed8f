"""Completion for bash, zsh and fish: ``devboxctl _complete SHELL INDEX WORD…`` prints one candidate a line.

It answers while a person holds the Tab key, so it neither imports typer nor starts a daemon, and gives the
daemon 100 ms. The table is written by hand; a test compares it with the commands.
"""

from __future__ import annotations

import sys

from devboxd.api import client

ANSWER = 0.1  # seconds for the daemon
NAMES_MAX = 500

GLOBAL = "--json -p --profile -r --region --no-color --version -h --help"
COMMON = "-h --help -p --profile -r --region"
# command: options, then what stands at the first argument (BOX, or words), and at the others
TABLE: dict[str, tuple[str, str, str]] = {
    "attach": (f"{COMMON} --raw --command --user --mux -e --escape -A", "BOX", ""),
    "exec": (f"{COMMON} -t --tty -n --no-stdin --user --cwd --env", "BOX", ""),
    "forward": (f"{COMMON} --json -b --bind -D --dynamic --auto --foreground", "BOX ls rm", "FORWARD"),
    "proxy": (f"{COMMON} --fdpass --ssh-user --host --wait", "BOX", ""),
    "ssh": (f"{COMMON} --user --port", "BOX", ""),
    "config-ssh": ("-h --help --json --check --remove", "", ""),
    "ls": (f"{COMMON} --json", "", ""),
    "show": (f"{COMMON} --json", "BOX", ""),
    "status": ("-h --help --json", "", ""),
    "ping": (f"{COMMON} --json -c --count --timeout", "BOX", ""),
    "events": ("-h --help --json -f --follow --since", "", ""),
    "doctor": (f"{COMMON} --json", "BOX", ""),
    "login": (f"{COMMON} --json --no-browser", "", ""),
    "daemon": ("-h --help", "status start stop restart logs install uninstall", ""),
    "config": ("-h --help", "show path edit", ""),
    "api": ("-h --help", "GET POST DELETE", ""),
    "completion": ("-h --help", "bash zsh fish", ""),
    "version": ("-h --help --json", "", ""),
}
HIDDEN = ("proxy",)
VALUES = {"--mux": "zellij tmux none"}
TAKES_VALUE = (
    *(
        "-p",
        "--profile",
        "-r",
        "--region",
        "--command",
        "--user",
        "--mux",
        "-e",
        "--escape",
        "--cwd",
        "--env",
    ),
    *("-b", "--bind", "--ssh-user", "--host", "--wait", "--port", "-c", "--count", "--timeout", "--since"),
)


def main(words: list[str]) -> int:
    """Print the candidates. Never fails: a broken completion is worse than none."""
    try:
        for candidate in candidates(words[2:], int(words[1])):
            sys.stdout.write(candidate + "\n")
    except (IndexError, ValueError, client.ClientError, OSError):
        pass
    return 0


def candidates(line: list[str], index: int) -> list[str]:
    """Say what may stand at ``line[index]``; ``line[0]`` is the program."""
    current = line[index] if index < len(line) else ""
    before = line[1:index]
    if "--" in before:
        return []
    if before and before[-1] in TAKES_VALUE:
        return _beginning(VALUES.get(before[-1], "").split(), current)
    arguments = [
        word
        for at, word in enumerate(before)
        if not word.startswith("-") and (at == 0 or before[at - 1] not in TAKES_VALUE)
    ]
    if not arguments:
        words = GLOBAL.split() if current.startswith("-") else [c for c in TABLE if c not in HIDDEN]
        return _beginning(words, current)
    options, first, others = TABLE.get(arguments[0], ("", "", ""))
    if current.startswith("-"):
        return _beginning(options.split(), current)
    if arguments[0] == "forward" and len(arguments) > 1 and arguments[1] != "rm":
        others = ""
    found = []
    for word in (first if len(arguments) == 1 else others).split():
        if word == "BOX":
            found += _names("boxes", "boxes", "name")
        elif word == "FORWARD":
            found += ["all", *_names("forwards", "forwards", "id")]
        else:
            found.append(word)
    return _beginning(found, current)


def _beginning(words: list[str], current: str) -> list[str]:
    return [word for word in words if word.startswith(current)]


def _names(path: str, key: str, field: str) -> list[str]:
    import json

    found = json.loads(client.call("GET", path, start=False, timeout=ANSWER))[key][:NAMES_MAX]
    # Names come from tags on instances: what a shell might expand is not offered.
    return [name for entry in found if _is_plain(name := str(entry[field]))]


def _is_plain(name: str) -> bool:
    return bool(name) and all(c.isalnum() or c in "-_.@+" for c in name)
