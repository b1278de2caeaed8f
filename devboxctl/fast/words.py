"""A command line parser for the simple case, in a few microseconds. What it does not know it leaves alone."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# Options that every command takes: what is said, the name of the value, whether a value follows.
ACCOUNT = {
    "-p": ("profile", True),
    "--profile": ("profile", True),
    "-r": ("region", True),
    "--region": ("region", True),
}


def account() -> dict[str, str]:
    """The AWS profile and region of this shell: the daemon may have been started in another one."""
    environ = os.environ
    found = {
        "profile": environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE"),
        "region": environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"),
    }
    return {name: value for name, value in found.items() if value}


class Words:
    """A parsed command line. ``rest`` is what followed ``--``; None where there was none."""

    def __init__(self) -> None:
        self.options: dict[str, str] = {}
        self.flags: set[str] = set()
        self.repeated: list[str] = []
        self.arguments: list[str] = []
        self.rest: list[str] | None = None


def parse(
    words: list[str], known: Mapping[str, tuple[str, bool]], *, repeat: str = "", most: int = 2
) -> Words | None:
    """Parse ``words``; None when something in them needs the full parser.

    Args:
        words: the command line after the name of the command.
        known: each option with the name of its value and whether one follows.
        repeat: the name of the one option that may come several times.
        most: how many arguments are allowed before ``--``.
    """
    parsed = Words()
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            parsed.rest = words[at:]
            break
        if not word.startswith("-") or word == "-":
            parsed.arguments.append(word)
            continue
        option, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if option not in known:
            return None
        name, takes_value = known[option]
        if not takes_value:
            if equals:
                return None
            parsed.flags.add(name)
            continue
        if not equals:
            if at == len(words):
                return None
            value = words[at]
            at += 1
        if name == repeat:
            parsed.repeated.append(value)
        else:
            parsed.options[name] = value
    if len(parsed.arguments) > most:
        return None
    if known.get("--profile") == ACCOUNT["--profile"]:
        parsed.options = {**account(), **parsed.options}
    return parsed
