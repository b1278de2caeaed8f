"""The program that copies homes from an old root, as the daemon knows it (``programs/rebase.py``)."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from devboxd.boxside import said
from devboxd.boxside.script import load_program
from devboxd.model.rebase import Progress
from devboxd.text import one_line

ANSWER_MOST: Final = 64 << 10  # characters of an answer
NOTE_MOST: Final = 300  # characters of a note that are kept
Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class Answer(msgspec.Struct):
    """What the program prints last. ``problem``: why it can not be, in a sentence."""

    done: bool = False
    files: Count = 0
    bytes: Count = 0
    kept: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    notes: Annotated[list[str], msgspec.Meta(max_length=20)] = []
    problem: str | None = None


def program() -> str:
    """The text that ``rebase.sh`` takes."""
    return load_program("rebase")


def read(text: str) -> Progress:
    """Read what the box printed last. It may print before it, and may be hostile.

    Raises:
        BoxSaysNo: with what it says, or that it says nothing that can be read.
    """
    line = said.last_line(text, ANSWER_MOST)
    answer = said.answer(
        line, Answer, "the box does not say how far the copying of its homes is", most=NOTE_MOST
    )
    notes = tuple(one_line(note, NOTE_MOST) for note in answer.notes)
    return Progress(answer.done, answer.files, answer.bytes, one_line(answer.kept, NOTE_MOST), notes)
