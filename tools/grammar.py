"""Write what follows from the commands of devboxctl: the tables of its fast path, and docs/commands.md.

The typer commands say once how a command line is written. Completion and the commands that must start at once
cannot import them, so what they need is written into a module of plain tables. ``--check`` writes nothing and
fails where a file is stale.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import typer

from devboxctl import explain
from devboxctl.app import command
from devboxctl.fast import complete

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "devboxctl" / "fast" / "table.py"
PAGE = ROOT / "docs" / "commands.md"
FAST = ("attach", "exec", "ls", "proxy")
COLUMNS = 90  # of the page's blocks

TABLE_HEAD = '''\
"""What the fast path knows of the command line. Generated from the commands: change those, then make grammar."""
# fmt: off

FLAG, VALUE, VALUES = 0, 1, 2
# command: each of its options, with the name of what it sets and what follows it
OPTIONS: dict[str, dict[str, tuple[str, int]]] = {
'''
COMPLETION_HEAD = """\
}
# For completion. Command: its options (those with "=" take a value, one of the words behind it where there are
# some), and what may stand at each argument: words, or what a word in capitals stands for; the last goes on.
COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
"""
PAGE_HEAD = """\
# Commands

<!-- Generated from the commands of devboxctl: change those, then run make grammar. -->

What `devboxctl help COMMAND` says. Every command takes `--json`, for its errors, too; each answer has a field
`version`, and fields are added but never renamed. [errors.md](errors.md) lists the exit statuses.
"""


def walk(described: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """All commands and groups below this one, itself first."""
    found = [(path, described)]
    for name, one in getattr(described, "commands", {}).items():
        found += walk(one, (*path, name))
    return found


def table(root: Any) -> str:
    """The module of tables."""
    lines = [TABLE_HEAD]
    for name in FAST:
        command = root.commands[name]
        known = {
            option: (param.name, kind(param))
            for param in command.params
            if not explain.is_argument(param)
            for option in sorted(param.opts)
        }
        lines.append(f"    {quoted(name)}: {{\n")
        lines += [f"        {quoted(o)}: ({quoted(n)}, {k}),\n" for o, (n, k) in known.items()]
        lines.append("    },\n")
    lines.append(COMPLETION_HEAD)
    for path, one in walk(root):
        usual = explain.usual_of(one)
        arguments = [spoken(p.metavar or p.name.upper()) for p in usual.params if explain.is_argument(p)]
        if names := [name for name, sub in getattr(one, "commands", {}).items() if not sub.hidden]:
            first = [name for name in names if name != getattr(one, "usual", None)]
            arguments = [" ".join([*first, *arguments[:1]]), *arguments[1:]]
        entry = f"({quoted(options(usual))}, {tuple_of(arguments)})"
        lines.append(f"    {quoted(' '.join(path))}: {entry},\n")
    return "".join(lines) + "}\n"


def kind(param: Any) -> str:
    """What follows an option."""
    if param.is_flag:
        return "FLAG"
    return "VALUES" if param.multiple else "VALUE"


def options(command: Any) -> str:
    """The options of a command, as completion wants them."""
    found = []
    for param in command.params:
        if explain.is_argument(param) or param.hidden:
            continue
        value = ""
        if not param.is_flag:
            metavar = param.metavar or ""
            value = "=" + (metavar if is_choice(metavar) or metavar in complete.VALUES else "")
        found += [name + value for name in sorted(param.opts)]
    return " ".join([*found, "--help", "-h"])


def is_choice(metavar: str) -> bool:
    """Tell ``zellij|tmux|none`` from ``NAME``."""
    return "|" in metavar and not any(c.isupper() for c in metavar)


def spoken(metavar: str) -> str:
    """What may stand at an argument: ``BOX``, ``bash zsh fish``."""
    plain = re.sub(r"[][.]", "", metavar)
    return plain.replace("|", " ")


def page(root: Any) -> str:
    """The page of all commands."""
    parts = [PAGE_HEAD]
    for section in explain.SECTIONS:
        parts.append(f"\n## {section}\n")
        for path, one in walk(root):
            if len(path) == 1 and one.rich_help_panel == section and not one.hidden:
                parts += [
                    entry(below, command) for below, command in walk(one, path) if not is_usual(one, command)
                ]
    return "".join(parts)


def is_usual(group: Any, command: Any) -> bool:
    """Tell whether a command is explained with its group."""
    return group is not command and explain.usual_of(group) is command


def entry(path: tuple[str, ...], command: Any) -> str:
    """One command."""
    title = f"\n### {' '.join(path)}\n" if len(path) == 1 else f"\n#### {' '.join(path)}\n"
    text = explain.command(command, context(path), columns=COLUMNS)
    return f"{title}\n```text\n{text}\n```\n"


def context(path: tuple[str, ...]) -> Any:
    """A context for a command, as if it had been called."""
    at = typer.Context(ROOT_COMMAND, info_name="devboxctl", help_option_names=["-h", "--help"])
    for name in path:
        group: Any = at.command
        at = typer.Context(group.commands[name], info_name=name, parent=at)
    return at


def quoted(text: str) -> str:
    """A string as the formatter would write it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def tuple_of(texts: list[str]) -> str:
    """A tuple of strings."""
    return "(" + ", ".join(map(quoted, texts)) + ("," if len(texts) == 1 else "") + ")"


ROOT_COMMAND: Any = command()


def main() -> int:
    """Write the files, or look at them."""
    stale = []
    for file, text in ((TABLE, table(ROOT_COMMAND)), (PAGE, page(ROOT_COMMAND))):
        if file.exists() and file.read_text("utf-8") == text:
            continue
        stale.append(str(file.relative_to(ROOT)))
        if "--check" not in sys.argv:
            file.write_text(text, "utf-8")
            sys.stdout.write(f"wrote {stale[-1]}\n")
    if "--check" in sys.argv and stale:
        sys.stdout.write(f"stale: {', '.join(stale)}; run: make grammar\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
