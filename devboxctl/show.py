"""Print answers: a table on a terminal, tabs in a pipe, JSON when asked.

Text from boxes and from AWS is untrusted: control characters are taken out of everything that is not JSON,
and JSON is printed as ASCII.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from devboxctl.options import settings
from devboxd.api import client, wire


class ReaderGone(Exception):
    """Nobody reads standard output any more (``| head``). No OSError: typer has ideas of its own about those."""


def write(text: str) -> None:
    """Write data. Raises ReaderGone."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise ReaderGone from None


def print_json(value: object, *, line: bool = False) -> None:
    """Print a value with all its keys, also those that the daemon left out as defaults."""
    indent = 2 if sys.stdout.isatty() and not line else None
    write(json.dumps(plain(value), indent=indent) + "\n")


def plain(value: object) -> Any:
    """Turn a message into dicts and lists for JSON."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return value


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows: aligned with headers on a terminal, separated by tabs and bare elsewhere."""
    texts = [[cell(value) for value in row] for row in rows]
    if not sys.stdout.isatty():
        write("".join("\t".join(row) + "\n" for row in texts))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold" if has_color() else "")
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in texts:
        table.add_row(*(Text(text or "-") for text in row))
    Console(no_color=not has_color(), highlight=False).print(table)


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Print one thing, a field a line; empty fields are left out."""
    shown = [(name, cell(value)) for name, value in fields if value not in (None, "", [])]
    if not sys.stdout.isatty():
        write("".join(f"{name}\t{text}\n" for name, text in shown))
        return
    width = max((len(name) for name, _ in shown), default=0)
    write("".join(f"{name:<{width}}  {text}\n" for name, text in shown))


def cell(value: object) -> str:
    """Turn a value into text for a person, without control characters."""
    if value is None:
        return ""
    if value is True:
        return "yes"
    if value is False:
        return "no"
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return client.printable(str(value))


def say(text: str) -> None:
    """Tell the person something that is not data."""
    sys.stderr.write(client.printable(text, keep="\n") + "\n")
    sys.stderr.flush()


def conditions(found: Sequence[wire.Condition]) -> None:
    """Tell what should be known or done."""
    for condition in found:
        say(f"{condition.severity}: {condition.title}: {condition.text}")
        if condition.hint:
            say(f"hint: {condition.hint}")


def size(count: int) -> str:
    """Say a number of bytes in three digits."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def has_color() -> bool:
    """Tell whether colour is wanted (https://no-color.org)."""
    return settings.color and not os.environ.get("NO_COLOR")
