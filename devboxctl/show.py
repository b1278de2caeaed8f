"""Print answers: a table on a terminal, tabs in a pipe, JSON when asked.

Text from boxes and from AWS is untrusted: control characters are taken out of everything that is not JSON,
and JSON is printed as ASCII.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from devboxctl import table
from devboxctl.fast import reply
from devboxctl.fast.reply import ReaderGone as ReaderGone
from devboxctl.fast.reply import write as write
from devboxctl.options import settings
from devboxd.api import wire
from devboxd.text import parse_rfc3339, printable


def print_json(value: object, *, line: bool = False, bare: bool = False) -> None:
    """Print a value with all its keys, also those that the daemon left out as defaults, and ``version``.

    Args:
        line: on one line, whoever reads it.
        bare: without ``version``, for what has a form of its own.
    """
    found = plain(value)
    if isinstance(found, dict) and not bare:
        found.setdefault("version", reply.VERSION)
    indent = 2 if sys.stdout and sys.stdout.isatty() and not line else None
    write(json.dumps(found, indent=indent) + "\n")


def plain(value: object) -> Any:
    """Turn a message into dicts and lists for JSON."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return value


def print_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    dispensable: Sequence[str] = (),
    wide: bool = False,
) -> None:
    """Print rows: aligned with headers on a terminal, separated by tabs and bare elsewhere.

    Args:
        dispensable: columns that are left out where there is no room, first what is missed least.
        wide: leave nothing out.
    """
    texts = [[cell(value) for value in row] for row in rows]
    if not is_terminal():
        write("".join("\t".join(row) + "\n" for row in texts))
        return
    texts = [[text or "-" for text in row] for row in texts]
    kept = list(range(len(headers))) if wide else table.fitting(headers, texts, columns(), dispensable)
    if kept is None:
        under = max(map(table.cells, headers[1:]), default=0) + 2 * table.GAP
        write("".join(_broken(line, under) + "\n" for line in table.listed(headers, texts)))
        return
    first, *others = table.aligned(headers, texts, kept)
    write("".join(line + "\n" for line in (bold(first), *others)))
    if left_out := [name for at, name in enumerate(headers) if at not in kept]:
        say(f"left out for lack of room: {', '.join(left_out)} (-w shows all)")


def is_terminal() -> bool:
    """Tell whether a person looks at standard output."""
    return sys.stdout is not None and sys.stdout.isatty()


def columns() -> int:
    """The width of the terminal; 80 where there is none."""
    try:
        return int(os.environ.get("COLUMNS", "0")) or os.get_terminal_size(1).columns or 80
    except (OSError, ValueError):
        return 80


def bold(text: str) -> str:
    """The text in bold, where that is wanted and seen."""
    return f"\x1b[1m{text}\x1b[0m" if has_color() and is_terminal() else text


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Print one thing, a field a line; empty fields are left out."""
    shown = [(cell(name), cell(value)) for name, value in fields if value not in (None, "", [])]
    if not is_terminal():
        write("".join(f"{name}\t{text}\n" for name, text in shown))
        return
    width = max((len(name) for name, _ in shown), default=0)
    write("".join(_broken(f"{name:<{width}}  {text}", width + table.GAP) + "\n" for name, text in shown))


def _broken(line: str, under: int) -> str:
    """A line of names and texts, broken between words; the text goes on below itself where there is room for that."""
    return reply.fitted(line, " " * (under if columns() > 2 * under + 20 else table.GAP), descriptor=1)


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
    return printable(str(value))


def say(text: str, indent: str = "  ") -> None:
    """Tell the person something that is not data, in one line: foreign text cannot add a hint of its own.

    Where a terminal is too narrow for it, it goes on in the next line, behind ``indent``.
    """
    reply.say(reply.fitted(printable(text), indent) + "\n")


def write_line(text: str, indent: str = "  ") -> None:
    """Write one line of an answer, in the same way."""
    write(reply.fitted(cell(text), indent, descriptor=1) + "\n")


def conditions(found: Sequence[wire.Condition]) -> None:
    """Tell what should be known or done."""
    for condition in found:
        say(f"{condition.severity}: {condition.title}: {condition.text}")
        if condition.hint:
            say(f"hint: {condition.hint}")


_MARKS = {"ok": "ok     ", "warning": "WARNING", "failed": "FAILED ", "skipped": "skipped"}


def check(found: wire.Check) -> None:
    """Write what one check found, and what mends it."""
    took = f" ({found.seconds:.2f} s)" if found.seconds is not None else ""
    mark = _MARKS.get(found.result, cell(found.result))
    write_line(f"{mark}  {found.name}: {found.text}{took}", " " * 9)
    if found.hint and found.result != "ok":
        write_line(f"         hint: {found.hint}", " " * 9)


def deletes(project: str, at: str | None) -> None:
    """Warn of the end of a project that nobody uses. None: it has none."""
    if at is not None:
        name = reply.shell_word(project)
        say(
            f"warning: {project} is deleted on {minute(at)} at the earliest, with all that is saved: nobody uses it"
        )
        say(f"hint: devboxctl extend {name} keeps it")


def size(count: int) -> str:
    """Say a number of bytes in three digits."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def moment(text: str) -> str:
    """A time of RFC 3339: for a person by the clock of this machine, to the second; for a program as it is."""
    if not is_terminal():
        return text
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(parse_rfc3339(text)))
    except (ValueError, OverflowError, OSError):
        return text


def minute(text: str | None) -> str:
    """A time of RFC 3339 by the clock of this machine, to the minute. None: nothing."""
    if text is None:
        return ""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(parse_rfc3339(text)))
    except (ValueError, OverflowError, OSError):
        return text


def count(number: int, thing: str, several: str = "") -> str:
    """Say how many of a thing there are, in its plural where that is right: ``several``, or with an s."""
    return f"{number} {thing if number == 1 else several or f'{thing}s'}"


def holding(found: wire.Status) -> str:
    """What the daemon holds, in a few words."""
    return ", ".join(
        (
            count(found.sessions, "session"),
            count(found.forwards, "forward"),
            count(found.attached, "terminal"),
        )
    )


def has_color() -> bool:
    """Tell whether colour is wanted (https://no-color.org)."""
    return settings.color and not os.environ.get("NO_COLOR")
