"""Break a line for a terminal between words, so that no word is cut in two. Pure; read only where a line is too long."""

from __future__ import annotations

COMMAND = "devboxctl"  # a command to type stays on one line, where it fits on one
INDENT = "  "  # before each further line: nothing in a text can look like a line of ours


def wrapped(text: str, columns: int, indent: str = INDENT) -> str:
    """Break each line of a text that is longer than ``columns``; a word that is longer than a line stays whole.

    Args:
        text: printable, with ``\\n`` between its lines.
        columns: the width of the terminal.
        indent: of the further lines.
    """
    if columns <= 2 * len(indent) + 20:
        return text  # too narrow to be of use
    return "\n".join(
        line if len(line) <= columns else _broken(line, columns, indent) for line in text.split("\n")
    )


def _broken(line: str, columns: int, indent: str) -> str:
    """One line as several. Blanks at its beginning, and those between its columns, stay."""
    begun = len(line) - len(line.lstrip(" "))
    lines, current = [], line[:begun]
    for word in _words(line[begun:], columns - len(indent)):
        if not current.strip():
            current += word
        elif len(current) + 1 + len(word) <= columns:
            current += " " + word
        else:
            lines.append(current.rstrip())
            current = indent + word
    return "\n".join([*lines, current])


def _words(text: str, most: int) -> list[str]:
    """The words; a command with what belongs to it is one, up to ``most`` characters."""
    found: list[str] = []
    is_command = False
    for word in text.split(" "):
        if is_command and len(found[-1]) + 1 + len(word) <= most:
            found[-1] += " " + word
        else:
            found.append(word)
            is_command = word.lstrip("('`") == COMMAND
        is_command = is_command and not word.endswith((";", ",", ":", ")"))
    return found
