"""A command line parser for the simple case, in a few microseconds. What it does not know it leaves alone."""

from __future__ import annotations

import os

from devboxctl.fast import reply
from devboxctl.fast.table import FLAG, OPTIONS, VALUES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container


def account() -> dict[str, str]:
    """The AWS profile and region of this shell: the daemon may have been started in another one."""
    environ = os.environ
    found = {
        "profile": environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE"),
        "region": environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"),
    }
    return {name: value for name, value in found.items() if value}


class Words:
    """A parsed command line."""

    def __init__(self) -> None:
        self.options: dict[str, str] = {}
        self.flags: set[str] = set()
        self.repeated: dict[str, list[str]] = {}
        self.arguments: list[str] = []


def parse(line: list[str], command: str) -> Words | None:
    """Parse the words after the name of a command; None when something in them needs the full parser."""
    known = OPTIONS[command]
    parsed = Words()
    at = 0
    while at < len(line):
        word = line[at]
        at += 1
        if not word.startswith("-") or word == "-":
            parsed.arguments.append(word)
            continue
        option, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if option not in known:
            return None
        name, kind = known[option]
        if kind == FLAG:
            if equals:
                return None
            parsed.flags.add(name)
            continue
        if not equals:
            if at == len(line):
                return None
            value = line[at]
            at += 1
        if kind == VALUES:
            parsed.repeated.setdefault(name, []).append(value)
        else:
            parsed.options[name] = value
    reply.manner.json = "json" in parsed.flags
    parsed.options = {**account(), **parsed.options}
    return parsed


def valued(command: str) -> frozenset[str]:
    """Name the options of a command that take a value."""
    return frozenset(option for option, (_, kind) in OPTIONS[command].items() if kind != FLAG)


def cut(line: list[str], valued: Container[str], arguments: int) -> tuple[list[str], list[str]]:
    """Divide ``OPTIONS ARGUMENTS OPTIONS [--] COMMAND…`` where the words of the command begin.

    Args:
        line: the whole line.
        valued: our options that take a value.
        arguments: how many words that are no options come before the command.
    """
    at = seen = 0
    while at < len(line):
        word = line[at]
        if word == "--":
            return line[:at], line[at + 1 :]
        if word.startswith("-") and word != "-":
            at += 2 if takes_next(word, valued) else 1
            continue
        if seen == arguments:
            return line[:at], line[at:]
        seen += 1
        at += 1
    return line, []


def takes_next(word: str, valued: Container[str]) -> bool:
    """Say whether the value of an option is the next word: ``-t`` no, ``-u`` yes, ``-tu`` yes, ``-ume`` no."""
    if word.startswith("--"):
        return word in valued
    for at, letter in enumerate(word[1:], 2):
        if f"-{letter}" in valued:
            return at == len(word)
    return False
