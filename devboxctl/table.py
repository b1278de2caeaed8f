"""Fit a table into a terminal: leave columns out rather than break a name, and make a list where that is not enough.

Pure: texts in, lines out.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

GAP = 2  # columns between two columns


def fitting(
    headers: Sequence[str], rows: Sequence[Sequence[str]], columns: int, dispensable: Sequence[str]
) -> list[int] | None:
    """Say which columns there is room for, by their numbers.

    Args:
        headers: what stands above each column.
        rows: the cells.
        columns: the width of the terminal.
        dispensable: what can be left out, first what is missed least.

    Returns:
        None where even the rest is too wide.
    """
    widths = [max(map(cells, column)) for column in zip(headers, *rows, strict=True)]
    kept = list(range(len(headers)))
    for name in (*dispensable, None):
        if sum(widths[at] for at in kept) + GAP * (len(kept) - 1) <= columns:
            return kept
        if name is not None:
            kept = [at for at in kept if headers[at] != name]
    return None


def aligned(headers: Sequence[str], rows: Sequence[Sequence[str]], kept: Sequence[int]) -> list[str]:
    """The lines of a table, the headers first."""
    whole = [[row[at] for at in kept] for row in (headers, *rows)]
    widths = [max(map(cells, column)) for column in zip(*whole, strict=True)]
    return [
        "".join(padded(text, width + GAP) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in whole
    ]


def listed(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """One thing below the other: its first cell, then a line for each of the others that says something."""
    indent = max((cells(name) for name in headers[1:]), default=0) + GAP
    lines = []
    for row in rows:
        lines.append(row[0])
        for name, text in zip(headers[1:], row[1:], strict=True):
            if text not in ("", "-", "0"):
                lines.append(f"  {padded(name, indent)}{text}")
    return lines


def cells(text: str) -> int:
    """The columns that a text takes on a terminal: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def padded(text: str, width: int) -> str:
    """The text with blanks behind it."""
    return text + " " * max(0, width - cells(text))
