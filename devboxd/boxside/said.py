"""What a program on a box says last: one line of JSON. It may say other things before that, and may be hostile."""

from __future__ import annotations

from typing import AnyStr, Final, Protocol, TypeVar

import msgspec

from devboxd.model.answer import BoxSaysNo
from devboxd.text import one_line

UNREADABLE: Final = (ValueError, RecursionError)  # it is no JSON, of another type, not UTF-8, or all brackets
PROBLEM: Final = "problem "  # what a script says that never came to its program
PROBLEM_MOST: Final = 200  # characters of one
T = TypeVar("T")


class Said(Protocol):
    """What every answer may be. ``problem``: why it can not be, in a sentence."""

    problem: str | None


SaidT = TypeVar("SaidT", bound=Said)


def last_line(output: AnyStr, most: int) -> AnyStr:
    """The last line; of an output that ends with more than ``most``, what ends it."""
    lines = output[-most:].strip().splitlines()
    return lines[-1] if lines else output[:0]


def decoded(line: bytes | str, kind: type[T], otherwise: str) -> T:
    """A line of JSON as a value. Raises BoxSaysNo: ``otherwise``, where it cannot be read."""
    try:
        return msgspec.json.decode(line, type=kind)
    except UNREADABLE:
        raise BoxSaysNo(otherwise) from None


def answer(line: bytes | str, kind: type[SaidT], otherwise: str, most: int = PROBLEM_MOST) -> SaidT:
    """The last line as an answer.

    Raises:
        BoxSaysNo: the problem that it names, up to ``most`` characters; or ``otherwise``, where it cannot be read.
    """
    text = line if isinstance(line, str) else line.decode("utf-8", "replace")
    if text.startswith(PROBLEM):
        raise BoxSaysNo(one_line(text.removeprefix(PROBLEM), most))
    found = decoded(line, kind, otherwise)
    if found.problem is not None:
        raise BoxSaysNo(one_line(found.problem, most))
    return found
